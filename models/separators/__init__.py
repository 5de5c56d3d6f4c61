"""Separators: each turns a mixture into stems."""
