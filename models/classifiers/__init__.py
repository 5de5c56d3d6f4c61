"""Classifiers of recordings by their features: labels, splits, networks, training and report."""
