"""Sizes and margins of pictures of spectrograms."""

from dataclasses import dataclass

# The picture's layout in pixels at a dpi where a font's points are pixels.
DPI = 72
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 96, 36, 54
_BAR_GAP, _BAR_WIDTH = 16, 14
_LEAST_COLUMNS, _LEAST_ROWS = 160, 100


def scaled(pixels: int, dpi: float) -> int:
    """Pixels at a dpi, of pixels at 72 dpi."""
    return round(pixels * dpi / DPI)


@dataclass(frozen=True)
class PlotLayout:
    """Where things are in a picture of some spectrograms, in pixels from its upper left corner.

    Parameters
    ----------
    columns, rows
        of each spectrogram, in pixels
    panels
        how many stand above each other
    dpi
        fonts, lines and margins grow with it
    """

    columns: int
    rows: int
    panels: int = 1
    dpi: int = DPI

    @property
    def left(self) -> int:
        """The left edge of the spectrograms."""
        return scaled(_LEFT, self.dpi)

    @property
    def top(self) -> int:
        """The height of the strip above each spectrogram, with its title."""
        return scaled(_TOP, self.dpi)

    @property
    def stop(self) -> int:
        """The end of the last spectrogram."""
        return self.top_of(self.panels - 1) + self.rows

    @property
    def width(self) -> int:
        """Of the whole picture."""
        return self.left + self.columns + scaled(_RIGHT, self.dpi)

    @property
    def height(self) -> int:
        """Of the whole picture."""
        return self.stop + scaled(_BOTTOM, self.dpi)

    @property
    def bar(self) -> tuple[int, int]:
        """The left edge and the width of the colour bar."""
        left = self.left + self.columns + scaled(_BAR_GAP, self.dpi)
        return left, scaled(_BAR_WIDTH, self.dpi)

    def top_of(self, panel: int) -> int:
        """The first row of a spectrogram."""
        return self.top + panel * (self.rows + self.top)

    def intervals(self, pixels: int, each: int) -> int:
        """How many intervals between ticks fit there, if each has so many pixels at 72 dpi."""
        return pixels // scaled(each, self.dpi)


def plot_area(width: int, height: int, *, dpi: int = DPI) -> tuple[int, int]:
    """The columns and rows that a picture's margins leave for its spectrogram, in pixels.

    Parameters
    ----------
    width, height
        of the whole picture, in pixels
    dpi
        fonts, lines and margins grow with it; at 72 their points are pixels

    Raises
    ------
    ValueError
        they leave too little
    """
    margins = PlotLayout(columns=0, rows=0, dpi=dpi)
    least = PlotLayout(scaled(_LEAST_COLUMNS, dpi), scaled(_LEAST_ROWS, dpi), dpi=dpi)
    if width < least.width or height < least.height:
        raise ValueError(
            f"{width} x {height} pixels are too few at {dpi} dpi, which text and margins grow "
            f"with: take at least {least.width} x {least.height}, or a lower dpi"
        )
    return width - margins.width, height - margins.height
