"""Beamsplitter: splits recordings into stems and draws their spectrograms, on Apache Beam."""

__version__ = "0.1.0"
