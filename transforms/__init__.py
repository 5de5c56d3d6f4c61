"""Klio-style DoFns and PTransforms: each one step of the graph."""
