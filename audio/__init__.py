"""Signals: decoding, encoding, spectrograms, filters, masks, parts, drawing. NumPy only."""
