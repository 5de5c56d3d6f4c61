"""Klio's messages, and what its users need for DoFns of their own."""
