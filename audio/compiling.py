"""Compiling loops to machine code."""

import functools
import os
import tempfile
from collections.abc import Callable
from typing import Any

import numba


def compiled(decorator: Any, *arguments: Any, **options: Any) -> Callable[[Callable], Any]:
    """One of numba's decorators, with what it compiles kept for the next process.

    Where there is no place that numba may write to, such as for a user without a home of a package
    in a read-only folder, it is kept in a temporary folder, for this process and its children.

    Parameters
    ----------
    decorator
        `numba.njit`, `numba.vectorize`
    arguments, options
        its own
    """

    def decorate(function: Callable) -> Any:
        try:
            return decorator(*arguments, cache=True, **options)(function)
        except RuntimeError:  # there is no such place
            _temporary_cache()
            return decorator(*arguments, cache=True, **options)(function)

    return decorate


@functools.cache
def _temporary_cache() -> tempfile.TemporaryDirectory:
    """A folder that goes with this process; librosa, which asks for a cache as well, finds it."""
    folder = tempfile.TemporaryDirectory(prefix="beamsplitter-numba-")
    os.environ["NUMBA_CACHE_DIR"] = folder.name
    numba.config.reload_config()
    return folder
