"""Compiling loops to machine code."""

from collections.abc import Callable
from typing import Any


def compiled(decorator: Any, *arguments: Any, **options: Any) -> Callable[[Callable], Any]:
    """One of numba's decorators, with what it compiles kept for the next process.

    Not kept where there is no place that numba may write to, such as for a user without a home of a
    package in a read-only folder: numba refuses a cache then.

    Parameters
    ----------
    decorator : `numba.njit`, `numba.vectorize`
    arguments, options : its own
    """

    def decorate(function: Callable) -> Any:
        try:
            return decorator(*arguments, cache=True, **options)(function)
        except RuntimeError:  # there is no such place
            return decorator(*arguments, **options)(function)

    return decorate
