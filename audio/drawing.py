"""Spectrograms of whole recordings as PNG pictures.

:func:`draw_spectrogram` turns the power of pixels, which `pooling` finds, into a PNG with axes,
colour bar and title, :func:`draw_spectrograms` that of several signals into one with a common time
axis.

Nothing here touches ``pyplot`` or any other global state: all functions may be called from several
threads.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple, TypedDict, Unpack

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator
from PIL import Image

from .fonts import OWN_FONT, TextLine, text_line
from .plot_layout import DPI, PlotLayout, scaled
from .pooling import SILENCE, PlotGrid, peak_level_db

__all__ = ["Panel", "PlotStyle", "draw_spectrogram", "draw_spectrograms"]

# One palette for all pictures, a third of the bytes of RGB: the colour scale, in steps of half a
# dB by default, then greys.
_COLOURS, _GREYS = 160, 32


class PlotStyle(TypedDict, total=False):
    """What may be said about the look of a picture.

    Attributes
    ----------
    subtitle
        Any text, in grey at the right of the title.
    start_s
        Where in the recording the time axis begins, in seconds; by default at 0.
    dpi
        Pixels in 72 points: fonts, lines and margins grow with it; by default 72.
    peak_db
        The top of the colour scale; by default the maximum of what is drawn.
    range_db
        The dB between the top and the bottom of the colour scale; by default 80.
    """

    subtitle: str
    start_s: float
    dpi: int
    peak_db: float | None
    range_db: float


def draw_spectrogram(
    power: np.ndarray, grid: PlotGrid, *, title: str, **style: Unpack[PlotStyle]
) -> bytes:
    """Draw the power of one signal: see :func:`draw_spectrograms`."""
    return draw_spectrograms([Panel(title, power, grid)], **style)


class Panel(NamedTuple):
    """The spectrogram of one signal.

    Attributes
    ----------
    title
        Any text, drawn literally on one line: shortened in the middle if it is too long. Characters
        that matplotlib's own font lacks come from fonts of this machine; those that no font has are
        boxes.
    power
        ``(rows, columns)``, not changed.
    grid
        The grid that the power was pooled with.
    """

    title: str
    power: np.ndarray
    grid: PlotGrid


def draw_spectrograms(panels: Sequence[Panel], **style: Unpack[PlotStyle]) -> bytes:
    """Draw the powers of :func:`pool_power` as a PNG with axes, one colour bar and titles.

    Parameters
    ----------
    panels
        From the top. Their grids differ in the sample rate only: they are of one recording.
    style
        See :class:`PlotStyle`.

    Returns
    -------
    The file's bytes: the same ones for the same arguments, with the same fonts.
    """
    first = panels[0].grid
    for _, power, grid in panels:
        if power.shape != (grid.rows, grid.columns):
            raise ValueError(f"power has the shape {power.shape}, not {(grid.rows, grid.columns)}")
        if (grid.width, grid.rows) != (first.width, first.rows):
            raise ValueError("the panels of a picture have one width and height")
    range_db = style.get("range_db", 80.0)
    if not range_db > 0:
        raise ValueError(f"the range must be positive, not {range_db} dB")
    top_db = style.get("peak_db")
    if top_db is None:
        top_db = peak_level_db(*(panel.power for panel in panels))
    elif not math.isfinite(top_db):
        top_db = 0.0
    layout = PlotLayout(first.width, first.rows, len(panels), style.get("dpi", DPI))
    grids = tuple(panel.grid for panel in panels)
    axes = _drawn_axes(grids, layout, style.get("start_s", 0.0), top_db - range_db, top_db)
    pixels = axes.copy()
    for index, (title, power, grid) in enumerate(panels):
        top = layout.top_of(index)
        place = pixels[top : top + grid.rows, layout.left : layout.left + grid.width]
        place[:] = _heat(power, grid, top_db, range_db)
        _write_title(pixels, layout, index, title, style.get("subtitle", ""))
    bar_left, bar_width = layout.bar
    scale = np.linspace(_COLOURS, 0, layout.stop - layout.top, endpoint=False) - 1e-6
    pixels[layout.top : layout.stop, bar_left : bar_left + bar_width] = scale[:, np.newaxis]
    return _png(pixels, layout.dpi)


# Those of all stems of a recording are the same, and take longer than all else of a picture.
@lru_cache(maxsize=4)
def _drawn_axes(
    grids: tuple[PlotGrid, ...],
    layout: PlotLayout,
    start_s: float,
    bottom_db: float,
    top_db: float,
) -> np.ndarray:
    """A picture without spectrograms and titles, as indices of the palette; not to be changed."""
    size = layout.width / layout.dpi, layout.height / layout.dpi
    figure = Figure(size, dpi=layout.dpi, facecolor="white", frameon=True)
    figure.set_layout_engine("none")
    canvas = FigureCanvasAgg(figure)

    def axes_at(left: int, top: int, width: int, height: int) -> Any:
        bottom = layout.height - top - height
        across, up = layout.width, layout.height
        share = (left / across, bottom / up, width / across, height / up)
        return figure.add_axes(share, frameon=False)

    for panel, grid in enumerate(grids):
        axes = axes_at(layout.left, layout.top_of(panel), grid.width, grid.rows)
        axes.set_xlim(start_s, start_s + grids[0].duration)
        axes.set_ylim(math.log2(grid.fmin), math.log2(grid.sample_rate / 2))
        octaves = _frequency_ticks(grid, layout.intervals(grid.rows, 16))
        _label_axis(axes.yaxis, "left", *octaves, "Frequency (Hz)")
        if panel < layout.panels - 1:
            axes.xaxis.set_visible(False)
            continue
        times = _time_ticks(start_s, grids[0].duration, layout.intervals(grid.width, 100))
        _label_axis(axes.xaxis, "bottom", *times)
    bar_left, bar_width = layout.bar
    axes = axes_at(bar_left, layout.top, bar_width, layout.stop - layout.top)
    axes.xaxis.set_visible(False)
    axes.set_ylim(bottom_db, top_db)
    levels = _ticks(bottom_db, top_db, min(layout.intervals(layout.stop - layout.top, 40), 10))
    names = [f"{level:g}".replace("-", "\N{MINUS SIGN}") for level in levels]
    _label_axis(axes.yaxis, "right", levels, names, "Level (dB re full scale)")

    canvas.draw()
    drawn = np.asarray(canvas.buffer_rgba())[..., 0] // (256 // _GREYS) + np.uint8(_COLOURS)
    # Artists refer to each other and to the renderer, so they stay until some garbage collection:
    # what is large, the renderer's buffer, goes now.
    vars(canvas.get_renderer()).clear()
    drawn.flags.writeable = False
    return drawn


def _heat(power: np.ndarray, grid: PlotGrid, top_db: float, range_db: float) -> np.ndarray:
    """The pixels of a spectrogram as indices of the palette, the highest row first."""
    # fmax takes the number where the other is NaN.
    level = np.fmax(power[::-1], np.float32(SILENCE))
    np.log10(level, out=level)
    level *= 10 * _COLOURS / range_db
    level += (range_db - top_db) * _COLOURS / range_db
    heat = np.clip(level, 0, _COLOURS - 1, out=level).astype(np.uint8)
    if grid.columns == grid.width:
        return heat
    return heat[:, np.arange(grid.width) * grid.columns // grid.width]


def _text_style(size: float) -> dict[str, Any]:
    """Everything about a text that would follow the user's rcParams otherwise."""
    font = FontProperties(family=["DejaVu Sans"], fname=OWN_FONT, size=size)
    return {"fontproperties": font, "color": "black", "usetex": False, "parse_math": False}


def _label_axis(axis: Any, side: str, ticks: np.ndarray, names: list[str], label: str) -> None:
    style = _text_style(12.5)
    axis.set_ticks(ticks, labels=names, **style)
    axis.set_ticks_position(side)
    axis.set_label_text(label, **style)
    axis.set_label_position(side)
    axis.labelpad = 6
    axis.set_tick_params(direction="out", length=4, width=1, pad=4, color="black")
    axis.minorticks_off()
    axis.grid(False)


def _ticks(lowest: float, highest: float, most: int) -> np.ndarray:
    steps = (1, 2, 5, 10)
    ticks = np.asarray(MaxNLocator(max(most, 2), steps=steps).tick_values(lowest, highest))
    return ticks[(ticks >= lowest) & (ticks <= highest)]


def _time_ticks(start_s: float, duration_s: float, most: int) -> tuple[np.ndarray, list[str], str]:
    """A time axis' ticks in seconds with at most ``most`` intervals, their names, its title."""
    end_s = start_s + duration_s
    step = _time_step(duration_s / max(most, 2))
    # A step that is longer than an excerpt may miss it; a third of it, or more, makes two at most.
    if not _multiples(step, start_s, end_s):
        step = _time_step(step / 3)
    ticks = np.array(_multiples(step, start_s, end_s)) * step
    decimals = max(0, -math.floor(math.log10(step)))
    if end_s < 60:
        unit, name = (1.0, "s") if end_s >= 1 else (0.001, "ms")
        rounded = np.round(ticks / unit, decimals)
        names = [np.format_float_positional(tick, trim="-") for tick in rounded]
        return ticks, names, f"Time ({name})"
    if end_s >= 3600 and step % 60 == 0:
        names = ["{}:{:02}".format(*divmod(round(tick / 60), 60)) for tick in ticks]
        return ticks, names, "Time (h:mm)"
    names, fractions = [], 10**decimals
    for tick in ticks:
        seconds, fraction = divmod(round(tick * fractions), fractions)
        minutes, second = divmod(seconds, 60)
        name = "{}:{:02}:{:02}".format(*divmod(minutes, 60), second)
        name = name if end_s >= 3600 else f"{minutes}:{second:02}"
        names.append(f"{name}.{fraction:0{decimals}}" if decimals else name)
    return ticks, names, f"Time ({'h:mm:ss' if end_s >= 3600 else 'm:ss'})"


def _multiples(step: float, start: float, end: float) -> range:
    """Which multiples of a step lie in a range."""
    return range(math.ceil(start / step - 1e-6), math.floor(end / step + 1e-6) + 1)


def _time_step(least_s: float) -> float:
    """The least step between ticks, no less than this, that people count time by."""
    unit = 1.0
    steps: tuple[int, ...] = (1, 2, 5, 10, 15, 30, 60)
    if least_s <= 1 or least_s > 1800:
        unit = 1.0 if least_s <= 1 else 3600.0
        unit *= 10.0 ** math.floor(math.log10(least_s / unit))
        steps = (1, 2, 5, 10)
    elif least_s > 60:
        unit, steps = 60.0, (2, 5, 10, 15, 30)
    # No more than rounding lies between a step and what it is compared with.
    return next(step * unit for step in steps if step * unit >= least_s * (1 - 1e-9))


def _frequency_ticks(grid: PlotGrid, most: int) -> tuple[np.ndarray, list[str]]:
    """The ticks 1, 2, 5 of each decade in octaves above 1 Hz, or only 1, and their names."""
    lowest, highest = grid.fmin, grid.sample_rate / 2
    hertz = np.zeros(0)
    for subs in ((1.0, 2.0, 5.0), (1.0,)):
        hertz = np.asarray(LogLocator(subs=subs).tick_values(lowest, highest))
        hertz = hertz[(hertz >= lowest) & (hertz <= highest)]
        if len(hertz) <= most:
            break
    return np.log2(hertz), [EngFormatter(sep="", usetex=False)(tick) for tick in hertz]


def _write_title(
    pixels: np.ndarray, layout: PlotLayout, panel: int, title: str, subtitle: str
) -> None:
    """Write a panel's title above it, and the subtitle at the right of the first one's."""
    dpi, left, top = layout.dpi, layout.left, layout.top_of(panel)
    strip = pixels[top - layout.top : top]
    base = layout.top - scaled(12, dpi)
    room = layout.width - left - scaled(12, dpi)
    if subtitle and panel == 0:
        line = text_line(subtitle, points=12.5, dpi=dpi, room=0.4 * layout.columns)
        subtitle_left = left + layout.columns - line.ink.shape[1]
        _put(strip, line, subtitle_left, base, strength=0.6)
        room = subtitle_left - left - scaled(24, dpi)
    _put(strip, text_line(title, points=15, dpi=dpi, room=room), left, base)


def _put(strip: np.ndarray, line: TextLine, left: int, base: int, strength: float = 1.0) -> None:
    """Put a line's ink on palette indices, as far as it lies in the strip."""
    first = base + line.descent - len(line.ink)
    ink = line.ink[max(-first, 0) : len(strip) - first]
    place = strip[max(first, 0) :, left:][: len(ink), : ink.shape[1]]
    grey = (255 - strength * ink[:, : place.shape[1]]) // (256 // _GREYS) + _COLOURS
    np.minimum(place, grey.astype(np.uint8), out=place)


def _png(pixels: np.ndarray, dpi: int) -> bytes:
    colours = matplotlib.colormaps["magma"](np.linspace(0, 1, _COLOURS), bytes=True)[:, :3]
    greys = np.linspace(0, 255, _GREYS).astype(np.uint8).repeat(3)
    picture = Image.fromarray(pixels)
    picture.putpalette(colours.tobytes() + greys.tobytes())
    file = io.BytesIO()
    picture.save(file, format="png", dpi=(dpi, dpi))
    return file.getvalue()
