"""Spectrograms of whole recordings as PNG pictures, in bounded time and memory.

The work is split in two, so that long recordings can be drawn part by part:

* :func:`pool_power` turns samples into the power of every pixel, by the maximum over all STFT
  frames and bins that fall on it. Parts of a recording are merged with ``np.maximum`` and give
  bit for bit what the whole recording gives.
* :func:`draw_spectrogram` turns that power into a PNG with axes, colour bar and title,
  :func:`draw_spectrograms` that of several signals into one with a common time axis.

Nothing here touches ``pyplot`` or any other global state: all functions may be called from several
threads.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple, TypedDict, Unpack

import matplotlib
import numpy as np
import scipy.fft
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator
from PIL import Image

from .errors import EmptyAudioError
from .fonts import OWN_FONT, TextLine, text_line
from .plot_layout import DPI, PlotLayout, scaled

__all__ = [
    "Panel",
    "PlotGrid",
    "PlotStyle",
    "draw_spectrogram",
    "draw_spectrograms",
    "peak_level_db",
    "plot_grid",
    "pool_power",
    "pool_spectrogram",
    "spectrogram_grid",
]

# A window twice zero-padded loses at most 0.35 dB of a sine between two bins; unpadded, 1.4 dB.
_PADDING = 2
_WINDOW_SECONDS = 0.093
_MIN_WINDOW = 256
_LOWEST_HZ = 30.0
# Frames are transformed in batches of one fixed size, the last one filled up: pocketfft computes
# several transforms at once with SIMD and left-over ones without, which may round differently.
_FRAMES_AT_ONCE = 64

_SILENCE = 1e-30  # -300 dB, well inside float32

# One palette for all pictures, a third of the bytes of RGB: the colour scale, in steps of half a
# dB by default, then greys.
_COLOURS, _GREYS = 160, 32


@dataclass(frozen=True)
class PlotGrid:
    """The pixels of one recording's plots: the same for all its stems and parts.

    Build it with :func:`plot_grid`. ``columns`` and ``rows`` are the shape of the power; a
    recording with fewer samples than ``width`` has fewer columns than pixels, each drawn wider.
    """

    sample_rate: int  # Hz
    total_samples: int  # of the whole recording, per channel
    n_fft: int  # samples in a window
    hop_length: int  # samples between the centres of two windows
    columns: int
    rows: int
    width: int  # pixels of the picture's time axis
    fmin: float  # Hz, the lower edge of row 0; the last row ends at half the sample rate

    @property
    def duration(self) -> float:
        """Seconds of the whole recording."""
        return self.total_samples / self.sample_rate

    @property
    def n_frames(self) -> int:
        """STFT frames of the whole recording; the last centre is at its last sample or behind."""
        return -(-(self.total_samples - 1) // self.hop_length) + 1

    def column_of(self, sample: Any) -> Any:
        """The column (int or array) on which a sample of the recording falls."""
        return sample * self.columns // self.total_samples

    def row_edges(self) -> np.ndarray:
        """The ``rows + 1`` borders between the rows in Hz, lowest first."""
        span = self.sample_rate / 2 / self.fmin
        return self.fmin * span ** (np.arange(self.rows + 1) / self.rows)


def plot_grid(
    total_samples: int, sample_rate: int, *, columns: int = 940, rows: int = 360
) -> PlotGrid:
    """Choose window, hop and pixels for a recording of ``total_samples`` per channel.

    The hop is at most half a window, so that each sample is weighted by at least one half in some
    window, and small enough for at least one frame in every column.
    """
    if total_samples < 1:
        raise EmptyAudioError("a recording without samples has no spectrogram")
    if sample_rate < 1:
        raise ValueError(f"the sample rate must be positive, not {sample_rate}")
    if columns < 16 or rows < 16:
        raise ValueError(f"a plot needs at least 16 columns and 16 rows, not {columns} and {rows}")
    n_fft = _window_length(total_samples, sample_rate)
    hop_length = min(max(total_samples // columns, 1), n_fft // 2)
    return PlotGrid(
        sample_rate=sample_rate,
        total_samples=total_samples,
        n_fft=n_fft,
        hop_length=hop_length,
        columns=min(columns, max(total_samples // hop_length, 1)),
        rows=rows,
        width=columns,
        fmin=min(_LOWEST_HZ, sample_rate / 20),
    )


def _window_length(total_samples: int, sample_rate: int) -> int:
    n_fft = max(2 ** round(math.log2(_WINDOW_SECONDS * sample_rate)), _MIN_WINDOW)
    while n_fft > _MIN_WINDOW and 4 * n_fft > total_samples:
        n_fft //= 2
    return int(n_fft)


def pool_power(
    samples: np.ndarray,
    grid: PlotGrid,
    *,
    start_sample: int = 0,
    core: tuple[int, int] | None = None,
) -> np.ndarray:
    """Return the power of each pixel, max-pooled over the STFT frames and bins that fall on it.

    Parameters
    ----------
    samples
        ``(channels, n)``: the recording from ``start_sample`` on. All that the windows of ``core``
        reach must be there: ``grid.n_fft // 2`` samples on both sides, except at the recording's
        own ends, which are padded with zeros.
    grid
        The pixels, from :func:`plot_grid`.
    start_sample
        Where in the recording ``samples`` begin.
    core
        ``(first, stop)`` in samples of the recording: only frames centred there are taken; by
        default all of ``samples``. A last centre behind the recording's end counts as at its last
        sample.

    Returns
    -------
    ``(rows, columns)`` float32, row 0 the lowest: the mean power of the channels, 1.0 for a
    full-scale sine. Columns without frames are 0. ``np.maximum`` merges the results of parts
    whose cores make up the recording into exactly the result of the whole.
    """
    if samples.ndim != 2 or samples.shape[0] < 1:
        raise ValueError(f"samples must have the shape (channels, n), not {samples.shape}")
    end_sample = start_sample + samples.shape[1]
    first, stop = core or (start_sample, end_sample)
    if not 0 <= first <= stop <= grid.total_samples:
        raise ValueError(
            f"{(first, stop)} is not within the recording's {grid.total_samples} samples"
        )
    to_end = grid.n_frames * grid.hop_length
    borders = (to_end if border == grid.total_samples else border for border in (first, stop))
    frames = range(*(-(-border // grid.hop_length) for border in borders))
    if frames:
        reach = grid.n_fft // 2
        needed = max(frames[0] * grid.hop_length - reach, 0)
        needed_end = min(frames[-1] * grid.hop_length + reach, grid.total_samples)
        if start_sample > needed or end_sample < needed_end:
            raise ValueError(
                f"the plot needs the recording's samples {needed} to {needed_end}, given are "
                f"{start_sample} to {end_sample}: add {reach} samples of context on both sides"
            )
    return _pooled(_power_batches(samples, grid, frames, start_sample), grid)


def spectrogram_grid(grid: PlotGrid, *, n_fft: int, hop_length: int) -> PlotGrid:
    """The pixels for a spectrogram that is there: at most one column for each of its frames.

    Parameters
    ----------
    grid
        The pixels of the recording, from :func:`plot_grid`.
    n_fft, hop_length
        Samples: those of the spectrogram.
    """
    columns = min(grid.width, max(grid.total_samples // hop_length, 1))
    return replace(grid, n_fft=n_fft // _PADDING, hop_length=hop_length, columns=columns)


def pool_spectrogram(magnitude: np.ndarray, grid: PlotGrid) -> np.ndarray:
    """Return the power of each pixel of a spectrogram of a whole recording.

    Parameters
    ----------
    magnitude
        ``(channels, bins, frames)`` as ``librosa.stft`` has them (Hann window, centred).
    grid
        From :func:`spectrogram_grid`.

    Returns
    -------
    ``(rows, columns)`` float32, as :func:`pool_power`: 1.0 for a full-scale sine.
    """
    n_fft = 2 * (magnitude.shape[1] - 1)
    full_scale = np.float32(n_fft / 4)  # half the sum of a Hann window

    def batches() -> Iterator[tuple[range, np.ndarray]]:
        for start in range(0, magnitude.shape[2], _FRAMES_AT_ONCE):
            batch = range(start, min(start + _FRAMES_AT_ONCE, magnitude.shape[2]))
            levels = magnitude[:, :, batch.start : batch.stop] / full_scale
            yield batch, np.square(levels).mean(axis=0).T

    return _pooled(batches(), grid)


def _pooled(batches: Iterable[tuple[range, np.ndarray]], grid: PlotGrid) -> np.ndarray:
    """Pool the powers ``(frames, bins)`` of some frames' numbers at a time to those of pixels."""
    pooled = np.zeros((grid.columns, grid.rows), dtype=np.float32)
    for batch, power in batches:
        centres = np.minimum(np.array(batch) * grid.hop_length, grid.total_samples - 1)
        columns = grid.column_of(centres)
        starts = np.flatnonzero(np.diff(columns, prepend=-1))
        here = pooled[columns[starts]]
        pooled[columns[starts]] = np.maximum(here, _pool_batch(power, starts, grid))
    return np.ascontiguousarray(pooled.T)


def _power_batches(
    samples: np.ndarray, grid: PlotGrid, frames: range, start_sample: int
) -> Iterator[tuple[range, np.ndarray]]:
    """Yield some frames' numbers and their power ``(frames, bins)`` at a time."""
    window = _window(grid.n_fft)
    windowed = np.zeros((_FRAMES_AT_ONCE, _PADDING * grid.n_fft), dtype=np.float32)
    for i in range(0, len(frames), _FRAMES_AT_ONCE):
        batch = frames[i : i + _FRAMES_AT_ONCE]
        begin = batch[0] * grid.hop_length - grid.n_fft // 2 - start_sample
        length = (len(batch) - 1) * grid.hop_length + grid.n_fft
        power = np.zeros((_FRAMES_AT_ONCE, grid.n_fft * _PADDING // 2 + 1), dtype=np.float32)
        for channel in samples:
            inside = channel[max(begin, 0) : begin + length]
            before = max(-begin, 0)
            padded = np.pad(inside, (before, length - before - len(inside)))
            windows = np.lib.stride_tricks.sliding_window_view(padded, grid.n_fft)
            target = windowed[: len(batch), : grid.n_fft]
            np.multiply(windows[:: grid.hop_length], window, out=target, casting="same_kind")
            spectrum = scipy.fft.rfft(windowed, axis=-1, workers=1)
            power += np.square(spectrum.real)
            power += np.square(spectrum.imag)
        power /= np.float32(len(samples))
        yield batch, power[: len(batch)]


@lru_cache(maxsize=16)
def _window(n_fft: int) -> np.ndarray:
    """A Hann window, scaled so that a full-scale sine has the magnitude 1."""
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)
    scaled = (2 * window / window.sum()).astype(np.float32)
    scaled.flags.writeable = False
    return scaled


@lru_cache(maxsize=64)
def _row_map(grid: PlotGrid) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How FFT bins become rows: interpolated in low rows, the maximum over bins in high ones.

    Returns for each low row the bin below its centre and the centre's distance from that bin, and
    for each high row its first bin.
    """
    edges = grid.row_edges() * (_PADDING * grid.n_fft / grid.sample_rate)
    low_rows = int(np.searchsorted(np.diff(edges), 1.0))
    centres = np.sqrt(edges[:low_rows] * edges[1 : low_rows + 1])
    below = np.floor(centres).astype(np.intp)
    fraction = (centres - below).astype(np.float32)
    return below, fraction, np.ceil(edges[low_rows:-1]).astype(np.intp)


def _pool_batch(power: np.ndarray, starts: np.ndarray, grid: PlotGrid) -> np.ndarray:
    """Pool ``(frames, bins)`` to ``(columns, rows)``; ``starts`` are the columns' first frames."""
    below, fraction, first_bins = _row_map(grid)
    # Interpolated frame by frame, since the maximum of interpolated values isn't the interpolated
    # maximum: a column split between two parts must not depend on the split.
    low = power[:, below]
    low += (power[:, below + 1] - low) * fraction
    low = np.maximum.reduceat(low, starts, axis=0)
    if not len(first_bins):
        return low
    # Split, because reduceat along the frames takes several times as long.
    columns = np.stack([frames.max(axis=0) for frames in np.split(power, starts[1:])])
    high = np.maximum.reduceat(columns, first_bins, axis=1)
    return np.concatenate([low, high], axis=1)


def peak_level_db(*powers: np.ndarray) -> float:
    """The highest level of :func:`pool_power`'s results in dB: 0 for a full-scale sine.

    Pass that of the mixture as ``peak_db`` to the plots of all its stems. Silence gives 0.
    """
    peak = max(float(np.max(each, initial=0.0, where=np.isfinite(each))) for each in powers)
    return 10 * math.log10(peak) if peak > _SILENCE else 0.0


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
    grids = [panel.grid for panel in panels]
    pixels = _drawn_axes(grids, layout, style.get("start_s", 0.0), top_db - range_db, top_db)
    for index, (title, power, grid) in enumerate(panels):
        top = layout.top_of(index)
        place = pixels[top : top + grid.rows, layout.left : layout.left + grid.width]
        place[:] = _heat(power, grid, top_db, range_db)
        _write_title(pixels, layout, index, title, style.get("subtitle", ""))
    bar_left, bar_width = layout.bar
    scale = np.linspace(_COLOURS, 0, layout.stop - layout.top, endpoint=False) - 1e-6
    pixels[layout.top : layout.stop, bar_left : bar_left + bar_width] = scale[:, np.newaxis]
    return _png(pixels, layout.dpi)


def _drawn_axes(
    grids: Sequence[PlotGrid],
    layout: PlotLayout,
    start_s: float,
    bottom_db: float,
    top_db: float,
) -> np.ndarray:
    """A picture without spectrograms and titles, as indices of the palette."""
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
    return drawn


def _heat(power: np.ndarray, grid: PlotGrid, top_db: float, range_db: float) -> np.ndarray:
    """The pixels of a spectrogram as indices of the palette, the highest row first."""
    # fmax takes the number where the other is NaN.
    level = np.fmax(power[::-1], np.float32(_SILENCE))
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
