"""Folders of stems, and which excerpts of them a training sees."""
