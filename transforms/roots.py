"""What the recordings of a job are called in its output tree: their paths below what named them."""

import fnmatch
import itertools
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..storage import OutputTree, StorageError, scheme_of


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


def place_below(location: str, element: str, suffix: str) -> tuple[str, str]:
    """The path below a location, and the whole path, of an element that is either.

    Parameters
    ----------
    suffix
        added to an element that is a path below the location

    Raises
    ------
    StorageError
        it leads out of the location
    """
    if not scheme_of(element):
        OutputTree(location).path(element)  # refuses what leads out of the folder
        return element, os.path.join(location, element + suffix)
    below = element.removeprefix(f"{location}/")
    if below == element:
        raise StorageError(None, f"does not lie below {location}", element)
    return below, OutputTree(location).path(below)


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
