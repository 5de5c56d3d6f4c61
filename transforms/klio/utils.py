"""A limit of threads, by the names that it has in `klio.utils`."""

import enum
import os
import threading
import uuid
from collections.abc import Callable
from typing import Self

_SEMAPHORES: dict[str, threading.BoundedSemaphore] = {}  # of this process, by ThreadLimiter


class ThreadLimit(enum.Enum):
    """What can be given in place of a number of threads."""

    NONE = 0
    """As many as there are."""
    DEFAULT = 1
    """As many as the machine that runs the code has processors."""


class ThreadLimiter:
    """Lets so many threads of one worker process run the user code of the steps that share it.

    It is a context manager; `acquire` and `release` do the same by hand.

    Parameters
    ----------
    max_thread_count
        at least 1, a function that says so on the worker, or a `ThreadLimit`
    name
        what messages call it

    Raises
    ------
    TypeError
        `max_thread_count` is anything else
    ValueError
        it is below 1
    """

    def __init__(
        self,
        max_thread_count: int | Callable[[], int] | ThreadLimit = ThreadLimit.DEFAULT,
        name: str | None = None,
    ) -> None:
        if not callable(max_thread_count) and not isinstance(max_thread_count, ThreadLimit):
            _require_count(
                max_thread_count,
                "max_thread_count is ThreadLimit.DEFAULT, ThreadLimit.NONE, a function, or",
            )
        self.max_thread_count = max_thread_count
        # A semaphore can't be pickled: copies of this limiter find theirs by the key.
        self._key = uuid.uuid4().hex
        self.name = name or self._key

    def __repr__(self) -> str:
        return f"ThreadLimiter({self.max_thread_count!r}, name={self.name!r})"

    def semaphore(self) -> threading.BoundedSemaphore | None:
        """That of this process; None if there is no limit.

        Raises
        ------
        TypeError, ValueError
            the function does not give a number of at least 1
        """
        if self.max_thread_count is ThreadLimit.NONE:
            return None
        if self._key not in _SEMAPHORES:
            return _SEMAPHORES.setdefault(self._key, threading.BoundedSemaphore(self._count()))
        return _SEMAPHORES[self._key]

    def _count(self) -> int:
        if isinstance(self.max_thread_count, ThreadLimit):
            return os.cpu_count() or 1
        if not callable(self.max_thread_count):
            return self.max_thread_count
        count = self.max_thread_count()
        _require_count(count, f"{self!r}: its function gives")
        return count

    def acquire(self) -> None:
        """Take a place; waits until one is free."""
        if semaphore := self.semaphore():
            semaphore.acquire()

    def release(self) -> None:
        """Give a place back.

        Raises
        ------
        ValueError
            none was taken
        """
        if semaphore := self.semaphore():
            semaphore.release()

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *exception: object) -> None:
        self.release()


def _require_count(count: object, subject: str) -> None:
    complaint = f"{subject} a whole number of threads, at least 1, not {count!r}"
    # To Python, True is 1.
    if isinstance(count, bool) or not isinstance(count, int):
        raise TypeError(complaint)
    if count < 1:
        raise ValueError(complaint)
