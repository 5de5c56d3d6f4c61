"""The page of results: what it is told of a run, and where it lies."""
