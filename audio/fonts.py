"""Lines of text in any script as pixels.

Letters that matplotlib's own font lacks are taken from fonts of this machine, where it has one.
What no font has is drawn as a box. With matplotlib 3.11 or newer, text is shaped: Arabic joins and
runs from right to left, Indic syllables are composed; older ones put letter beside letter.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import matplotlib
import numpy as np
from matplotlib import font_manager, ft2font

__all__ = ["OWN_FONT", "TextLine", "text_line"]

_OWN_FOLDER = matplotlib.get_data_path() + "/fonts/ttf/"
OWN_FONT = _OWN_FOLDER + "DejaVuSans.ttf"
_OWN_SYMBOLS = _OWN_FOLDER + "STIXGeneral.ttf"  # letters of mathematics, which titles play with
_BOX = "\N{WHITE SQUARE}"
_JOINERS = "\N{ZERO WIDTH NON-JOINER}\N{ZERO WIDTH JOINER}"
_SHAPES_TEXT = hasattr(ft2font, "__libraqm_version__")


@dataclass(frozen=True)
class TextLine:
    """A line of text: uint8 ``(rows, columns)``, the top row first, 255 where it is all ink.

    ``descent`` is how many of the rows lie below the base line.
    """

    ink: np.ndarray
    descent: int


def text_line(text: str, *, points: float, dpi: float, room: float) -> TextLine:
    """Draw text on one line.

    Parameters
    ----------
    text
        Any text; what does not print is left out, white space becomes blanks.
    points, dpi
        The font's size, and pixels in 72 points.
    room
        Pixels that the line may take: it is shortened in its middle if it is longer.
    """
    line, fonts = _printable(text)
    try:
        return _drawn(line, fonts, points, dpi, room)
    except (OSError, RuntimeError):
        # A font that is gone by now, or whose letters FreeType can't draw.
        known = _own_letters()
        boxed = "".join(c if ord(c) in known else _BOX for c in line)
        return _drawn(boxed, (), points, dpi, room)


def _printable(text: str) -> tuple[str, tuple[str, ...]]:
    """Text that some fonts have all of, and those of them that are not our own."""
    known = _own_letters()
    line = unicodedata.normalize("NFC", " ".join(text.split()))
    line = "".join(filter(_is_drawn, line))
    missing = {ord(c) for c in line} - known.keys()
    if not missing:
        return line, ()
    fonts, boxed = _fonts_with(tuple(sorted(missing)))
    return "".join(_shown(c) if ord(c) in boxed else c for c in line), fonts


def _is_drawn(character: str) -> bool:
    # Without shaping, marks would stand beside their letters, and joiners show.
    category = unicodedata.category(character)
    if category in ("Mn", "Me") or character in _JOINERS:
        return _SHAPES_TEXT
    return category not in ("Cc", "Cf")


def _shown(character: str) -> str:
    """What stands for a character that no font has."""
    return "" if unicodedata.category(character) in ("Mn", "Me", "Cf") else _BOX


def _drawn(line: str, fonts: tuple[str, ...], points: float, dpi: float, room: float) -> TextLine:
    font = font_manager.get_font([OWN_FONT, *fonts])
    font.set_size(points, dpi)
    shown = line
    while (width := _width(font, shown)) > room:
        half = int(len(shown) * room / width / 2) - 2
        shown = f"{line[:half].rstrip()} … {_from_a_letter(line[-half:])}" if half > 0 else ""
    if not shown:
        return TextLine(np.zeros((0, 0), np.uint8), 0)
    font.draw_glyphs_to_bitmap(antialiased=True)
    return TextLine(np.array(font.get_image()), round(font.get_descent() / 64))


def _width(font: Any, line: str) -> float:
    font.clear()
    font.set_text(line, 0.0, flags=ft2font.LoadFlags.FORCE_AUTOHINT)
    return float(font.get_width_height()[0] / 64)


def _from_a_letter(text: str) -> str:
    """Text without the blanks at its beginning, and the marks of a letter that was cut off."""
    while text and (text[0] == " " or unicodedata.category(text[0]).startswith("M")):
        text = text[1:]
    return text


@lru_cache(maxsize=1)
def _own_letters() -> dict[int, Any]:
    return dict(font_manager.get_font(OWN_FONT).get_charmap())


# Fonts of this machine.


@dataclass(frozen=True)
class _Coverage:
    """A font's characters as ranges of codes: a set of them takes megabytes for Chinese."""

    path: str
    first: np.ndarray
    last: np.ndarray

    def has(self, codes: np.ndarray) -> np.ndarray:
        nearest = np.searchsorted(self.first, codes, side="right") - 1
        return (nearest >= 0) & (codes <= self.last[nearest])


@lru_cache(maxsize=256)
def _fonts_with(codes: tuple[int, ...]) -> tuple[tuple[str, ...], frozenset[int]]:
    """As few fonts as have these characters, and the characters that none of them has."""
    left = np.array(codes)
    chosen = []
    while left.size:
        has = [font.has(left) for font in _coverages()]
        best = max(range(len(has)), key=lambda index: int(has[index].sum()), default=None)
        if best is None or not has[best].any():
            break
        chosen.append(_coverages()[best].path)
        left = left[~has[best]]
    return tuple(chosen), frozenset(map(int, left))


@lru_cache(maxsize=1)
def _coverages() -> tuple[_Coverage, ...]:
    """What the fonts that matplotlib found have, the plainest first; it takes a moment."""
    found = []
    for entry in sorted(font_manager.fontManager.ttflist, key=_plainness):
        if not _is_fit(entry):
            continue
        try:
            codes = np.array(sorted(ft2font.FT2Font(entry.fname).get_charmap()), np.int64)
        except (OSError, RuntimeError):
            continue
        if codes.size:
            gaps = np.flatnonzero(np.diff(codes) > 1)
            first, last = codes[np.r_[0, gaps + 1]], codes[np.r_[gaps, codes.size - 1]]
            found.append(_Coverage(entry.fname, first, last))
    return tuple(found)


def _is_fit(entry: Any) -> bool:
    """Whether a font's letters are those that its codes say, and it is alone or first in a file."""
    if entry.fname.startswith(_OWN_FOLDER):
        return bool(entry.fname == _OWN_SYMBOLS)  # the others are parts of alphabets
    is_placeholder = "lastresort" in entry.name.replace(" ", "").lower()
    return not is_placeholder and getattr(entry, "index", 0) == 0


def _plainness(entry: Any) -> tuple[Any, ...]:
    weight = font_manager.weight_dict.get(entry.weight, entry.weight)
    return (
        entry.style != "normal",
        abs(int(weight) - 400),
        entry.stretch != "normal",
        "sans" not in entry.name.lower(),
        entry.name,
        entry.fname,
    )
