"""How far something is that takes long: callbacks that are told shares of it, from 0 to 1."""

from collections.abc import Callable

Progress = Callable[[float], None]


def unheard(_share: float) -> None:
    """For where nobody asks how far it is."""


def piece_of(progress: Progress, start: float, stop: float) -> Progress:
    """Tells shares of a piece as shares of the whole, where it goes from `start` to `stop`."""
    # Both ends exact, and none beyond: what is told never goes back.
    return lambda share: progress(min(stop, (1 - share) * start + share * stop))
