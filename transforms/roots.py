"""What the recordings of a job are called in its output tree: their paths below what named them."""

import fnmatch
import itertools
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Root:
    """Where the recordings of an input lie that may hold several.

    Attributes
    ----------
    path
        the folder that they are called below
    pattern
        the parts of a pattern that their paths below it fit, cut at slashes; empty if all
        that lies there is meant
    """

    path: str
    pattern: tuple[str, ...] = ()

    def name_of(self, uri: str) -> str | None:
        """The path of a recording below the root; None if the input does not mean it."""
        name = uri.removeprefix(f"{self.path.rstrip('/')}/")
        if name == uri or (self.pattern and not fits_pattern(name.split("/"), self.pattern)):
            return None
        return name


def name_below(uri: str, roots: Iterable[Root]) -> str:
    """The path of a recording below the first root that means it.

    One that none means was named itself: that is its name.
    """
    names = (root.name_of(uri) for root in roots)
    return next((name for name in names if name is not None), os.path.basename(uri))


def fits_pattern(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether a name fits a pattern, both cut at slashes; `**` is any number of visible ones."""
    if not pattern:
        return not parts
    if pattern[0] == "**":
        visible = itertools.takewhile(lambda part: not part.startswith("."), parts)
        starts = range(sum(1 for _ in visible) + 1)
        return any(fits_pattern(parts[start:], pattern[1:]) for start in starts)
    if not parts or (parts[0].startswith(".") and not pattern[0].startswith(".")):
        return False
    return fnmatch.fnmatchcase(parts[0], pattern[0]) and fits_pattern(parts[1:], pattern[1:])


def without_extension(name: str) -> str:
    """A path without the extension of its last part."""
    return os.path.splitext(name)[0]
