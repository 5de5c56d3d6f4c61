"""Separators and their evaluation."""
