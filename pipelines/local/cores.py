"""How many cores there are for us."""


def threads_of(workers: int) -> int:
    """Threads that each of so many workers may use."""
    return max(1, available_cores() // workers)


def available_cores() -> int:
    """Cores that this process may use: by its affinity, and by the CPU quota of its container."""
    # Not needed for most commands, and slow to import.
    import joblib

    return int(joblib.cpu_count())
