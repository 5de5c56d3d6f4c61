"""Spectrograms of whole recordings as PNG pictures, in bounded time and memory.

The work is split in two, so that long recordings can be drawn part by part:

* :func:`pool_power` turns samples into the power of every pixel, by the maximum over all STFT
  frames and bins that fall on it. Parts of a recording are merged with ``np.maximum`` and give
  bit for bit what the whole recording gives.
* :func:`draw_spectrogram` turns that power into a PNG with axes, colour bar and title.

Nothing here touches ``pyplot`` or any other global state: all functions may be called from several
threads.
"""

from __future__ import annotations

import io
import math
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import matplotlib
import numpy as np
import scipy.fft
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, get_font
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator
from PIL import Image

from .errors import EmptyAudioError

__all__ = ["PlotGrid", "draw_spectrogram", "peak_level_db", "plot_grid", "pool_power"]

# A window twice zero-padded loses at most 0.35 dB of a sine between two bins; unpadded, 1.4 dB.
_PADDING = 2
_WINDOW_SECONDS = 0.093
_MIN_WINDOW = 256
_LOWEST_HZ = 30.0
# Frames are transformed in batches of one fixed size, the last one filled up: pocketfft computes
# several transforms at once with SIMD and left-over ones without, which may round differently.
_FRAMES_AT_ONCE = 64

_SILENCE = 1e-30  # -300 dB, well inside float32

# Picture layout in pixels; the default grid gives 1100 × 450.
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 96, 36, 54
_BAR_GAP, _BAR_WIDTH = 16, 14
_DPI = 72  # so that a font's points are pixels
_FONT = matplotlib.get_data_path() + "/fonts/ttf/DejaVuSans.ttf"


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
    pooled = np.zeros((grid.columns, grid.rows), dtype=np.float32)
    for batch, power in _power_batches(samples, grid, frames, start_sample):
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


def peak_level_db(power: np.ndarray) -> float:
    """The highest level of :func:`pool_power`'s result in dB: 0 for a full-scale sine.

    Pass that of the mixture as ``peak_db`` to the plots of all its stems. Silence gives 0.
    """
    peak = float(np.max(power, initial=0.0, where=np.isfinite(power)))
    return 10 * math.log10(peak) if peak > _SILENCE else 0.0


def draw_spectrogram(
    power: np.ndarray,
    grid: PlotGrid,
    *,
    title: str,
    peak_db: float | None = None,
    range_db: float = 80.0,
) -> bytes:
    """Draw the power of :func:`pool_power` as a PNG with axes, colour bar and title.

    Parameters
    ----------
    power
        ``(rows, columns)``, not changed.
    grid
        The grid that ``power`` was pooled with.
    title
        Any text, drawn literally on one line: shortened in the middle if it is too long, with
        boxes for characters that matplotlib's own font lacks.
    peak_db
        The top of the colour scale; by default the maximum of ``power``.
    range_db
        The dB between the top and the bottom of the colour scale.

    Returns
    -------
    The file's bytes: the same ones for the same arguments.
    """
    if power.shape != (grid.rows, grid.columns):
        raise ValueError(f"power has the shape {power.shape}, not {(grid.rows, grid.columns)}")
    if not range_db > 0:
        raise ValueError(f"the range must be positive, not {range_db} dB")
    top_db = peak_level_db(power) if peak_db is None else peak_db
    if not math.isfinite(top_db):
        top_db = 0.0
    # fmax takes the number where the other is NaN.
    level_db = 10 * np.log10(np.fmax(power, np.float32(_SILENCE)))
    np.clip(level_db, top_db - range_db, top_db, out=level_db)
    width, height = _LEFT + grid.width + _RIGHT, _TOP + grid.rows + _BOTTOM
    figure = Figure((width / _DPI, height / _DPI), dpi=_DPI, facecolor="white", frameon=True)
    figure.set_layout_engine("none")
    canvas = FigureCanvasAgg(figure)
    _add_title(figure, title, grid.width + _RIGHT - 12)

    bottom, share = _BOTTOM / height, grid.rows / height
    axes = figure.add_axes((_LEFT / width, bottom, grid.width / width, share), frameon=False)
    extent = (0, grid.duration, math.log2(grid.fmin), math.log2(grid.sample_rate / 2))
    scale: dict[str, Any] = {"cmap": "magma", "vmin": top_db - range_db, "vmax": top_db}
    place: dict[str, Any] = {"origin": "lower", "aspect": "auto", "interpolation": "none"}
    image = axes.imshow(level_db, extent=extent, zorder=3, **scale, **place)  # above the ticks
    _label_axis(axes.xaxis, "bottom", *_time_ticks(grid.duration, grid.width // 100))
    _label_axis(axes.yaxis, "left", *_frequency_ticks(grid), "Frequency (Hz)")

    bar_left = (_LEFT + grid.width + _BAR_GAP) / width
    bar_axes = figure.add_axes((bar_left, bottom, _BAR_WIDTH / width, share))
    figure.colorbar(image, cax=bar_axes).outline.set_visible(False)
    levels = _ticks(top_db - range_db, top_db, grid.rows // 40)
    names = [f"{level:g}".replace("-", "\N{MINUS SIGN}") for level in levels]
    _label_axis(bar_axes.yaxis, "right", levels, names, "Level (dB)")

    canvas.draw()
    png = _png(np.asarray(canvas.buffer_rgba()))
    # Artists refer to each other and to the renderer, so they stay until some garbage collection:
    # what is large, the arrays and the renderer's buffer, goes now.
    image.set_data(np.zeros((1, 1)))
    vars(canvas.get_renderer()).clear()
    return png


def _text_style(size: float) -> dict[str, Any]:
    """Everything about a text that would follow the user's rcParams otherwise."""
    font = FontProperties(family=["DejaVu Sans"], fname=_FONT, size=size)
    return {"fontproperties": font, "color": "black", "usetex": False, "parse_math": False}


def _label_axis(axis: Any, side: str, ticks: np.ndarray, names: list[str], label: str) -> None:
    style = _text_style(12.5)
    axis.set_ticks(ticks, labels=names, **style)
    axis.set_ticks_position(side)
    axis.set_label_text(label, **style)
    axis.labelpad = 6
    axis.set_tick_params(direction="out", length=4, width=1, pad=4, color="black")
    axis.minorticks_off()
    axis.grid(False)


def _ticks(
    lowest: float, highest: float, most: int, steps: tuple[float, ...] = (1, 2, 5, 10)
) -> np.ndarray:
    ticks = np.asarray(MaxNLocator(max(most, 2), steps=steps).tick_values(lowest, highest))
    return ticks[(ticks >= lowest) & (ticks <= highest)]


def _time_ticks(seconds: float, most: int) -> tuple[np.ndarray, list[str], str]:
    """A time axis' ticks in seconds with at most ``most`` intervals, their names, its title."""
    if seconds < 60:
        unit, name = (1.0, "s") if seconds >= 1 else (0.001, "ms")
        ticks = _ticks(0, seconds / unit, most)
        return ticks * unit, [f"{tick:g}" for tick in ticks], f"Time ({name})"
    unit, name = (60.0, "m:ss") if seconds < 3600 else (3600.0, "h:mm")
    # Quarters of minutes and hours, but not 2½ and 25 of them.
    steps = (1, 2.5, 5, 10) if seconds <= most * unit else (1, 2, 5, 10)
    ticks = _ticks(0, seconds / unit, most, steps)
    names = ["{}:{:02}".format(*divmod(round(tick * 60), 60)) for tick in ticks]
    return ticks * unit, names, f"Time ({name})"


def _frequency_ticks(grid: PlotGrid) -> tuple[np.ndarray, list[str]]:
    """The ticks 1, 2, 5 of each decade in octaves above 1 Hz, and their names."""
    locator = LogLocator(subs=(1.0, 2.0, 5.0))
    hertz = np.asarray(locator.tick_values(grid.fmin, grid.sample_rate / 2))
    hertz = hertz[(hertz >= grid.fmin) & (hertz <= grid.sample_rate / 2)]
    return np.log2(hertz), [EngFormatter(sep="", usetex=False)(tick) for tick in hertz]


def _add_title(figure: Figure, title: str, room: int) -> None:
    """Draw a title on one line, at most ``room`` pixels wide."""
    # matplotlib warns about characters that its font lacks, and draws some invisible ones.
    known = get_font(_FONT).get_charmap()
    line = unicodedata.normalize("NFC", " ".join(title.split()))
    line = "".join(c for c in line if unicodedata.category(c) not in ("Cc", "Cf", "Mn", "Me"))
    line = shown = "".join(c if ord(c) in known else "\N{WHITE SQUARE}" for c in line)
    x, y = _LEFT / figure.bbox.width, 1 - (_TOP - 12) / figure.bbox.height
    text = figure.text(x, y, line, **_text_style(15))
    while (width := text.get_window_extent().width) > room:
        half = int(len(shown) * room / width / 2) - 2
        shown = f"{line[:half]} … {line[-half:]}" if half > 0 else ""
        text.set_text(shown)


def _png(rgba: np.ndarray) -> bytes:
    """Pixels as a file with one palette for all pictures: a third of the bytes of RGB."""
    colours = matplotlib.colormaps["magma"](np.linspace(0, 1, 224), bytes=True)[:, :3]
    greys = np.linspace(0, 255, 32).astype(np.uint8).repeat(3)
    palette = Image.new("P", (1, 1))
    palette.putpalette(colours.tobytes() + greys.tobytes())
    picture = Image.fromarray(rgba).convert("RGB")
    file = io.BytesIO()
    picture.quantize(palette=palette, dither=Image.Dither.NONE).save(file, format="png")
    return file.getvalue()
