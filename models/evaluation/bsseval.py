"""BSSEval version 4: what of an estimate is its stem, filtered, other stems, and made up.

The filters are those of 512 taps that come nearest to an estimate, from its reference alone and
from all of them together, over the whole track; energies are those of frames. Vincent, Gribonval
and Févotte, "Performance measurement in blind audio source separation", IEEE TASLP 14(4), 2006;
Stöter, Liutkus and Ito, "The 2018 signal separation evaluation campaign", LVA/ICA 2018.

Equals museval, which holds whole tracks and solves a system for each estimate. Here correlations
are summed up block by block, all estimates are solved for at once, and energies are taken of
spectra: the memory depends on stems, channels and frames, not on the length of a track.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.fft
import scipy.linalg
from numpy.typing import ArrayLike, NDArray

from .framing import FloatArray, FrameGrid, stretches

ComplexArray = NDArray[np.complex128]

NAMES = ("sdr", "isr", "sir", "sar")
FILTER_TAPS = 512
# Blocks of fixed lengths, so that how a track is cut makes no difference to a bit.
FFT_PER_TAPS = 8
SEGMENTS_AT_ONCE = 8
# Of a delayed reference's energy: with less that others don't hold, it is rounding.
DEPENDENT = 1e-14

# Indices of a reference and of an estimate of it, among the signals.
Pair = tuple[int, int]


def is_silent(signals: FloatArray) -> NDArray[np.bool_]:
    """Which signals are silent to museval: those whose channels cancel out, too.

    Parameters
    ----------
    signals
        `(signals, channels, samples)`

    Returns
    -------
    bool `(signals,)`
    """
    return np.asarray(np.all(signals.sum(axis=1) == 0, axis=-1))


class BssEval:
    """The first pass over a track; `solve` then gives what scores its frames.

    Parameters
    ----------
    references
        how many of the signals, the first ones, are references
    groups
        Pairs to score. Where in a frame an estimate is silent, all pairs of its group are
        undefined, and where a reference is, all.
    signals, channels
        how many come
    """

    def __init__(
        self,
        references: int,
        groups: Sequence[Sequence[Pair]],
        *,
        signals: int,
        channels: int,
        taps: int = FILTER_TAPS,
    ) -> None:
        self.references = references
        self.groups = groups
        self.channels = channels
        self.taps = taps
        self._silent = np.ones(signals, bool)
        self._correlations = _Correlations(references * channels, signals * channels, taps)

    def add(self, signals: FloatArray) -> None:
        """Take the next block: float64 `(signals, channels, samples)`, references first."""
        self._silent &= is_silent(signals)
        self._correlations.add(np.concatenate(signals))

    def solve(self, frame_samples: int) -> FrameScorer:
        """What scores frames of this length, once all blocks were taken.

        A reference that is silent throughout is left out, as are pairs with such a reference or
        such an estimate: they are undefined in all frames, and the others are as if these were not
        there.
        """
        lags = self._correlations.finished()
        sounding = ~self._silent
        kept = np.flatnonzero(sounding[: self.references])
        pairs = [pair for group in self.groups for pair in group]
        scored = [pair for pair in pairs if sounding[list(pair)].all()]
        estimates = sorted({estimate for _, estimate in scored})
        # As long as what filters make of a frame.
        n_fft = scipy.fft.next_fast_len(frame_samples + self.taps - 1, real=True)
        by_all: dict[int, ComplexArray] = {}
        by_reference: dict[Pair, ComplexArray] = {}
        if scored:
            filters = self._filters(lags, kept, estimates)
            by_all = {estimate: scipy.fft.rfft(each, n_fft) for estimate, each in filters.items()}
        for reference in sorted({reference for reference, _ in scored}):
            of_it = [estimate for other, estimate in scored if other == reference]
            filters = self._filters(lags, np.array([reference]), of_it)
            by_reference |= {
                (reference, estimate): scipy.fft.rfft(each, n_fft)
                for estimate, each in filters.items()
            }
        return FrameScorer(kept, self.groups, n_fft, by_all, by_reference)

    def _filters(
        self, lags: FloatArray, references: NDArray[np.intp], estimates: Sequence[int]
    ) -> dict[int, FloatArray]:
        """For each estimate the filters of these references that come nearest to it.

        `(channels of the estimate, references * channels, taps)`
        """
        rows, columns = self._rows_of(references), self._rows_of(np.array(estimates))
        products = lags[np.ix_(rows, columns)].transpose(0, 2, 1).reshape(-1, len(columns))
        filters = _solve(lags[np.ix_(rows, rows)], products)
        filters = filters.reshape(len(rows), self.taps, len(estimates), self.channels)
        return dict(zip(estimates, filters.transpose(2, 3, 0, 1), strict=True))

    def _rows_of(self, signals: NDArray[np.intp]) -> NDArray[np.intp]:
        return np.asarray(signals[:, np.newaxis] * self.channels + np.arange(self.channels)).ravel()


class _Correlations:
    """Products of delayed references with all signals, summed up over a track.

    Each channel is a row, those of the references first.
    """

    def __init__(self, references: int, signals: int, taps: int) -> None:
        self.references = references
        self.taps = taps
        self.n_fft = FFT_PER_TAPS * taps
        self.segment = self.n_fft - taps + 1
        # From as long before the first sample as a delay reaches.
        self.waiting = np.zeros((signals, taps - 1))
        self.spectra = np.zeros((self.n_fft // 2 + 1, references, signals), complex)

    def add(self, block: FloatArray) -> None:
        self.waiting = np.concatenate([self.waiting, block], axis=1)
        step = SEGMENTS_AT_ONCE * self.segment
        while self.waiting.shape[1] >= step + self.taps - 1:
            self._sum_up(self.waiting[:, : step + self.taps - 1])
            self.waiting = self.waiting[:, step:]

    def finished(self) -> FloatArray:
        """`(references, signals, taps)`: over t, reference(t - tap) times signal(t)."""
        padding = SEGMENTS_AT_ONCE * self.segment + self.taps - 1 - self.waiting.shape[1]
        self._sum_up(np.pad(self.waiting, ((0, 0), (0, padding))))
        lags = scipy.fft.irfft(self.spectra, self.n_fft, axis=0)
        return np.ascontiguousarray(lags[self.taps - 1 :: -1].transpose(1, 2, 0))

    def _sum_up(self, rows: FloatArray) -> None:
        view = np.lib.stride_tricks.sliding_window_view(rows, self.n_fft, axis=1)
        segments = view[:, :: self.segment]
        delayed = scipy.fft.rfft(segments[: self.references], axis=-1)
        current = scipy.fft.rfft(segments[..., self.taps - 1 :], self.n_fft, axis=-1)
        self.spectra += np.matmul(
            np.ascontiguousarray(delayed.transpose(2, 0, 1)),
            np.ascontiguousarray(current.conj().transpose(2, 1, 0)),
        )


def _solve(lags: FloatArray, products: FloatArray) -> FloatArray:
    """The filters of least squares.

    Where delayed references hold one another but for rounding, as those of a mono recording in two
    channels do, some are left out: what the others project is the same. A Cholesky decomposition
    with pivots finds them.

    Parameters
    ----------
    lags
        `(rows, rows, taps)`, of the references
    products
        `(rows * taps, estimates)`

    Returns
    -------
    `(rows * taps, estimates)`
    """
    energies = lags[:, :, 0].diagonal()
    # So that a quiet reference counts as much as a loud one.
    scale = 1 / np.sqrt(np.where(energies > 0, energies, 1))
    gram = _gram_matrix(lags * (scale[:, np.newaxis] * scale)[..., np.newaxis])
    scales = np.repeat(scale, lags.shape[-1])[:, np.newaxis]
    # Symmetric: the transpose is the matrix, in the order that LAPACK overwrites.
    factor, pivots, rank, _ = scipy.linalg.lapack.dpstrf(
        gram.T, tol=DEPENDENT, lower=1, overwrite_a=1
    )
    kept = pivots[:rank] - 1
    filters = np.zeros_like(products)
    if rank:
        factor = factor[:rank, :rank]
        filters[kept] = scipy.linalg.cho_solve((factor, True), (products * scales)[kept])
    return filters * scales


def _gram_matrix(lags: FloatArray) -> FloatArray:
    """Products of all delayed references with each other: `(rows * taps, rows * taps)`."""
    rows, _, taps = lags.shape
    gram = np.empty((rows, taps, rows, taps))
    for i in range(rows):
        for j in range(rows):
            gram[i, :, j] = scipy.linalg.toeplitz(lags[i, j], lags[j, i])
    return gram.reshape(rows * taps, rows * taps)


@dataclass(frozen=True)
class FrameScorer:
    """The second pass: scores frames by filters that are known.

    Attributes
    ----------
    kept : indices of the references that sound somewhere in the track
    groups : as `BssEval` has them
    n_fft : samples, of all spectra
    by_all : of each estimate the filters of all references, `(channels, rows, bins)`
    by_reference : of each pair those of its reference alone, `(channels, channels, bins)`
    """

    kept: NDArray[np.intp]
    groups: Sequence[Sequence[Pair]]
    n_fft: int
    by_all: dict[int, ComplexArray]
    by_reference: dict[Pair, ComplexArray]

    def ratios(self, signals: FloatArray) -> FloatArray:
        """Score a frame.

        Parameters
        ----------
        signals
            float64 `(signals, channels, samples)`: those of the frame, the order that of `BssEval`

        Returns
        -------
        float64 `(4, pairs)`, dB: SDR, ISR, SIR and SAR of the pairs of all groups, one after the
        other. nan where undefined; infinite where there is nothing to be found of a distortion.
        """
        silent = is_silent(signals)
        spectra = scipy.fft.rfft(signals, self.n_fft)
        sources = spectra[self.kept].reshape(-1, spectra.shape[-1])
        projections: dict[int, ComplexArray] = {}
        ratios: list[FloatArray] = []
        for group in self.groups:
            scored = [pair for pair in group if pair in self.by_reference]
            heard = [*self.kept, *(estimate for _, estimate in scored)]
            for pair in group:
                if pair not in scored or silent[heard].any():
                    ratios.append(np.full(len(NAMES), np.nan))
                    continue
                reference, estimate = pair
                if estimate not in projections:
                    projections[estimate] = _filtered(sources, self.by_all[estimate])
                ratios.append(
                    self._ratios(
                        spectra[reference],
                        spectra[estimate],
                        _filtered(spectra[reference], self.by_reference[pair]),
                        projections[estimate],
                    )
                )
        return np.array(ratios).T

    def _ratios(
        self,
        reference: ComplexArray,
        estimate: ComplexArray,
        by_reference: ComplexArray,
        by_all: ComplexArray,
    ) -> FloatArray:
        """Of spectra `(channels, bins)`; the last two are the estimate's projections."""
        energy = self._energy(reference)
        return np.array(
            [
                _decibels(energy, self._energy(estimate - reference)),
                _decibels(energy, self._energy(by_reference - reference)),
                _decibels(self._energy(by_reference), self._energy(by_all - by_reference)),
                _decibels(self._energy(by_all), self._energy(estimate - by_all)),
            ]
        )

    def _energy(self, spectra: ComplexArray) -> float:
        power = np.sum(np.square(spectra.real) + np.square(spectra.imag), axis=0)
        # Half a spectrum stands for both halves, but for its ends.
        ends = power[0] + (power[-1] if self.n_fft % 2 == 0 else 0)
        return float(2 * np.sum(power) - ends)


def _filtered(sources: ComplexArray, filters: ComplexArray) -> ComplexArray:
    """`(channels, bins)`: the sum of the sources `(rows, bins)`, each through its filter."""
    total = sources[0] * filters[:, 0]
    for row in range(1, len(sources)):
        total += sources[row] * filters[:, row]
    return np.asarray(total)


def _decibels(signal: float, distortion: float) -> float:
    if distortion == 0:
        return np.inf
    with np.errstate(divide="ignore"):
        return float(10 * np.log10(signal / distortion))


def bss_eval(
    references: ArrayLike,
    estimates: ArrayLike,
    *,
    window_samples: int,
    hop_samples: int,
    taps: int = FILTER_TAPS,
) -> FloatArray:
    """SDR, ISR, SIR and SAR of the frames of a track.

    Equals `museval.metrics.bss_eval(…, framewise_filters=False, compute_permutation=False)` where
    that gives a number. As there, a frame in which any signal is silent is undefined for all stems,
    and a signal whose channels cancel out is silent. A stem whose reference or estimate is silent
    throughout, which museval refuses, is undefined in all frames, and others are scored as if that
    signal were not there.

    Parameters
    ----------
    references, estimates
        `(stems, channels, samples)`
    window_samples, hop_samples
        of the frames: `FrameGrid`
    taps
        of the filters

    Returns
    -------
    float64 `(4, stems, frames)`, dB

    Raises
    ------
    ValueError
        the shapes differ, or there are no samples
    """
    references = np.asarray(references, np.float64)
    estimates = np.asarray(estimates, np.float64)
    if references.shape != estimates.shape or references.ndim != 3:
        raise ValueError(
            f"references and estimates have one shape, (stems, channels, samples): they have "
            f"{references.shape} and {estimates.shape}"
        )
    signals = np.concatenate([references, estimates])
    stems, channels, samples = references.shape
    pairs = [(stem, stems + stem) for stem in range(stems)]
    first_pass = BssEval(stems, [pairs], signals=len(signals), channels=channels, taps=taps)
    grid = FrameGrid(samples, window_samples, hop_samples)
    first_pass.add(signals)
    scorer = first_pass.solve(min(window_samples, samples))
    frames = stretches(grid, lambda start, stop: signals[..., start:stop])
    return np.stack([scorer.ratios(each.frame) for each in frames], axis=-1)
