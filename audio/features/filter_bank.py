"""Sums of spectral powers in mel bands, of which each touches a few bins only."""

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np

from ..compiling import compiled


@dataclass(frozen=True)
class BandedFilters:
    """A bank of filters that are zero but for a range of bins each.

    Attributes
    ----------
    first_bins
        int64 `(filters,)`: the first bin of each
    weight_starts
        int64 `(filters + 1,)`: where its weights begin and end in `weights`
    weights
        float32, those of all filters one after the other
    """

    first_bins: np.ndarray
    weight_starts: np.ndarray
    weights: np.ndarray

    @classmethod
    def of(cls, matrix: np.ndarray) -> "BandedFilters":
        """The bank of a matrix, float32 `(filters, bins)`."""
        ranges = []
        for filter_weights in matrix:
            bins = np.flatnonzero(filter_weights)
            ranges.append((bins[0], bins[-1] + 1) if len(bins) else (0, 0))
        return cls(
            np.array([first for first, _ in ranges]),
            np.cumsum([0, *(stop - first for first, stop in ranges)]),
            np.concatenate([each[slice(*bins)] for each, bins in zip(matrix, ranges, strict=True)]),
        )

    def sums(self, spectrum: np.ndarray, power: float) -> np.ndarray:
        """What each filter gives of the magnitudes of each frame, raised to a power.

        Parameters
        ----------
        spectrum
            complex64 `(frames, bins)`
        power
            exponent of the magnitudes

        Returns
        -------
        float32 `(filters, frames)`, the same for a frame whichever others are there
        """
        made = np.zeros((len(self.first_bins), len(spectrum)), np.float32)
        half = np.float32(power / 2)
        _sum_bands(spectrum, half, self.first_bins, self.weight_starts, self.weights, made)
        return made


@compiled(numba.njit, nogil=True)
def _sum_bands(
    spectrum: Any, half_power: Any, first_bins: Any, weight_starts: Any, weights: Any, made: Any
) -> None:
    frames, bins = spectrum.shape
    # Frames lie side by side, so that the inner loops go over them, several at once.
    powers = np.empty((bins, frames), np.float32)
    for index in range(bins):
        for frame in range(frames):
            value = spectrum[frame, index]
            powers[index, frame] = value.real * value.real + value.imag * value.imag
    if half_power != 1:
        for index in range(bins):
            for frame in range(frames):
                powers[index, frame] = powers[index, frame] ** half_power
    for index in range(len(first_bins)):
        sums = made[index]
        start = weight_starts[index]
        for offset in range(weight_starts[index + 1] - start):
            weight = weights[start + offset]
            row = powers[first_bins[index] + offset]
            for frame in range(frames):
                sums[frame] += weight * row[frame]
