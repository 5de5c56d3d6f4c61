"""How many cores there are for us."""

import os


def threads_of(workers: int) -> int:
    """Threads that each of so many workers may use."""
    return max(1, available_cores() // workers)


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
