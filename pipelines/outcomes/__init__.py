"""What came of a run: counts, counters of its steps, what could not be used, `run.json`."""
