"""The power of the pixels of a recording's spectrogram, in bounded time and memory.

:func:`pool_power` turns samples into the power of every pixel, by the maximum over all STFT frames
and bins that fall on it. Parts of a recording are merged with ``np.maximum`` and give bit for bit
what the whole recording gives. `drawing` makes pictures of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import scipy.fft

from .errors import EmptyAudioError

__all__ = [
    "PlotGrid",
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

SILENCE = 1e-30  # -300 dB, well inside float32


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
    return 10 * math.log10(peak) if peak > SILENCE else 0.0
