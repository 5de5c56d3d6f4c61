"""The formats that features are written in."""
