"""The distance of an estimate's spectra from its reference's, at several resolutions.

It is the loss `multi_resolution_stft` of trainings: Yamamoto, Song and Kim, "Parallel WaveGAN",
ICASSP 2020. The smaller the better; it has no unit. At each resolution it is the spectral
convergence, the norm of the difference of magnitudes over that of the reference's, plus the mean
difference of their logarithms; then the mean of all resolutions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.fft
from numpy.typing import ArrayLike

from .framing import FloatArray, FrameGrid

# FFT length, hop and window, in samples.
Resolution = tuple[int, int, int]
RESOLUTIONS: tuple[Resolution, ...] = ((1024, 120, 600), (2048, 240, 1200), (512, 50, 240))
# Added to powers, and to the norm of the reference's magnitudes.
EPSILON = 1e-8
QUIETEST = 1e-6
# A fixed number, so that how a track is cut makes no difference to a bit.
FFTS_AT_ONCE = 64


class SpectralDistance:
    """Takes a track block by block.

    Parameters
    ----------
    pairs
        of a reference and an estimate each: their indices among the signals
    grid
        the frames to score; a frame has the spectra that are centred in it
    resolutions
        FFT length, hop and window of each, in samples
    """

    def __init__(
        self,
        pairs: Sequence[tuple[int, int]],
        grid: FrameGrid,
        *,
        resolutions: Sequence[Resolution] = RESOLUTIONS,
    ) -> None:
        self._at = [_OneResolution(pairs, grid, resolution) for resolution in resolutions]

    def add(self, signals: FloatArray) -> None:
        """Take the next block: float64 `(signals, channels, samples)`."""
        for each in self._at:
            each.add(signals)

    def finished(self) -> tuple[FloatArray, FloatArray]:
        """The distances, once all blocks were taken.

        Returns
        -------
        track : `(pairs,)`
        frames : `(pairs, frames)`
            nan where the reference is silent, or where a frame is so short that no spectrum is
            centred in it
        """
        distances = [each.finished() for each in self._at]
        track, frames = (np.mean(values, axis=0) for values in zip(*distances, strict=True))
        return track, frames


class _OneResolution:
    """Sums of a track: five numbers for each pair, of the track and of each frame."""

    def __init__(
        self, pairs: Sequence[tuple[int, int]], grid: FrameGrid, resolution: Resolution
    ) -> None:
        # It takes half a second to import, and most evaluations don't need it.
        from scipy.signal import get_window

        self.n_fft, self.hop, window_length = resolution
        self.grid = grid
        self.pairs = pairs
        before = (self.n_fft - window_length) // 2
        self.window = np.zeros(self.n_fft)
        self.window[before : before + window_length] = get_window("hann", window_length)
        self.waiting: FloatArray | None = None
        self.next_center = 0
        self.track = np.zeros((5, len(pairs)))
        self.frames = np.zeros((5, len(pairs), len(grid)))

    def add(self, signals: FloatArray) -> None:
        if self.waiting is None:
            # A spectrum is centred at the first sample.
            self.waiting = np.zeros((*signals.shape[:2], self.n_fft // 2))
        self.waiting = np.concatenate([self.waiting, signals], axis=-1)
        needed = self.n_fft + (FFTS_AT_ONCE - 1) * self.hop
        while self.waiting.shape[-1] >= needed:
            self._sum_up(self.waiting[..., :needed])
            self.waiting = self.waiting[..., FFTS_AT_ONCE * self.hop :]

    def finished(self) -> tuple[FloatArray, FloatArray]:
        assert self.waiting is not None, "no block was taken"
        rest = np.pad(self.waiting, ((0, 0), (0, 0), (0, self.n_fft // 2)))
        if rest.shape[-1] >= self.n_fft:
            self._sum_up(rest)
        return self._distances(self.track), self._distances(self.frames)

    def _sum_up(self, signals: FloatArray) -> None:
        view = np.lib.stride_tricks.sliding_window_view(signals, self.n_fft, axis=-1)
        spectra = scipy.fft.rfft(view[:, :, :: self.hop] * self.window, axis=-1)
        power = np.square(spectra.real) + np.square(spectra.imag)
        magnitude = np.sqrt(power + EPSILON)
        level = np.log(magnitude)
        energy = np.square(magnitude).sum(axis=(1, 3))
        sounding = power.sum(axis=(1, 3))
        # `(sums, pairs, FFTs)`
        columns = np.empty((5, len(self.pairs), power.shape[2]))
        for index, (reference, estimate) in enumerate(self.pairs):
            difference = magnitude[reference] - magnitude[estimate]
            columns[0, index] = np.square(difference, out=difference).sum(axis=(0, 2))
            columns[1, index] = energy[reference]
            np.subtract(level[reference], level[estimate], out=difference)
            columns[2, index] = np.abs(difference, out=difference).sum(axis=(0, 2))
            columns[3, index] = power.shape[1] * power.shape[3]
            columns[4, index] = sounding[reference]
        self.track += columns.sum(axis=-1)
        centers = self.next_center + self.hop * np.arange(columns.shape[-1])
        self.next_center = int(centers[-1]) + self.hop
        first = self.grid.holding(int(centers[0])).start
        for index in range(first, self.grid.holding(int(centers[-1])).stop):
            start, stop = self.grid.range_of(index)
            inside = (centers >= start) & (centers < stop)
            self.frames[..., index] += columns[..., inside].sum(axis=-1)

    def _distances(self, sums: FloatArray) -> FloatArray:
        difference, energy, levels, count, power = sums
        convergence = np.sqrt(difference) / (np.sqrt(energy) + QUIETEST)
        return np.where(power > 0, convergence + levels / np.maximum(count, 1), np.nan)


def spectral_distance(
    estimate: ArrayLike, reference: ArrayLike, *, resolutions: Sequence[Resolution] = RESOLUTIONS
) -> float:
    """The distance of a whole signal, in double precision.

    Parameters
    ----------
    estimate, reference
        `(channels, samples)`
    resolutions
        FFT length, hop and window of each, in samples

    Returns
    -------
    0 or more; nan where the reference is silent

    Raises
    ------
    ValueError
        the shapes differ, or there are no samples
    """
    signals = np.stack([np.asarray(each, np.float64) for each in (reference, estimate)])
    samples = signals.shape[-1]
    distance = SpectralDistance(
        [(0, 1)], FrameGrid(samples, samples, samples), resolutions=resolutions
    )
    distance.add(signals)
    return float(distance.finished()[0][0])
