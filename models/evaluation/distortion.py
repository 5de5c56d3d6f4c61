"""Ratios of signal and distortion that a few sums over the samples tell.

All are in dB and the better the higher, and are made of `SignalSums`, which add up block by block.
What is undefined is nan: everything against a silent reference, and SI-SDR and SI-SNR of a silent
estimate, which tend to minus infinity as an estimate fades away, and to any other value along other
ways. The ratios of channels are averaged over those in which the reference sounds; where one of
them is undefined, so is the average.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]

# What torchmetrics adds to each energy of float32 signals.
EPSILON = float(np.finfo(np.float32).eps)
# What the Music Demixing Challenge adds.
CHALLENGE_EPSILON = 1e-7
# Of a signal's energy: with less once its mean is gone, it is a constant, and rounding.
CONSTANT = 1e-12


@dataclass(frozen=True)
class SignalSums:
    """Sums over the samples of references and their estimates, float64 `(…, channels)` each.

    Errors are estimates minus references: sums of them keep the digits of a small distortion.

    Attributes
    ----------
    samples
        how many were summed up
    reference, error
        of the samples themselves
    reference_energy, error_energy, estimate_energy
        of their squares
    product
        of references times errors
    """

    samples: int
    reference: FloatArray
    error: FloatArray
    reference_energy: FloatArray
    error_energy: FloatArray
    estimate_energy: FloatArray
    product: FloatArray

    @classmethod
    def of(cls, estimate: ArrayLike, reference: ArrayLike) -> SignalSums:
        """Sums over a block.

        Parameters
        ----------
        estimate, reference
            `(…, channels, samples)`, of one shape
        """
        # Memory of one order: numpy sums up other orders in another way.
        estimate = np.ascontiguousarray(estimate, np.float64)
        reference = np.ascontiguousarray(reference, np.float64)
        if estimate.shape != reference.shape:
            raise ValueError(
                f"an estimate of shape {estimate.shape} can't be held against a reference of shape "
                f"{reference.shape}"
            )
        error = estimate - reference
        return cls(
            samples=reference.shape[-1],
            reference=reference.sum(-1),
            error=error.sum(-1),
            reference_energy=np.square(reference).sum(-1),
            error_energy=np.square(error).sum(-1),
            estimate_energy=np.square(estimate).sum(-1),
            product=(reference * error).sum(-1),
        )

    def __add__(self, other: SignalSums) -> SignalSums:
        """The sums over two blocks together."""
        ours, theirs = vars(self), vars(other)
        return SignalSums(**{name: ours[name] + theirs[name] for name in ours})

    def without_means(self) -> SignalSums:
        """The sums as if each channel had a mean of 0."""
        count = max(self.samples, 1)
        estimate = self.reference + self.error
        return dataclasses.replace(
            self,
            reference=np.zeros_like(self.reference),
            error=np.zeros_like(self.error),
            reference_energy=_without_mean(self.reference_energy, self.reference, count),
            error_energy=np.maximum(self.error_energy - np.square(self.error) / count, 0),
            estimate_energy=_without_mean(self.estimate_energy, estimate, count),
            product=self.product - self.reference * self.error / count,
        )


def _without_mean(energy: FloatArray, total: FloatArray, count: int) -> FloatArray:
    left = energy - np.square(total) / count
    return np.where(left > CONSTANT * energy, left, 0.0)


def si_sdr_of(sums: SignalSums) -> FloatArray:
    """`si_sdr` of signals by their sums: `(…)`."""
    # The reference that the estimate holds is (1 + excess) times the reference.
    excess = sums.product / (sums.reference_energy + EPSILON)
    wanted = np.square(1 + excess) * sums.reference_energy
    distortion = (
        np.square(excess) * sums.reference_energy - 2 * excess * sums.product + sums.error_energy
    )
    ratios = _decibels(wanted + EPSILON, np.maximum(distortion, 0) + EPSILON)
    return _mean_over_channels(np.where(sums.estimate_energy > 0, ratios, np.nan), sums)


def si_snr_of(sums: SignalSums) -> FloatArray:
    """`si_snr` of signals by their sums: `(…)`."""
    return si_sdr_of(sums.without_means())


def snr_of(sums: SignalSums) -> FloatArray:
    """`snr` of signals by their sums: `(…)`."""
    ratios = _decibels(sums.reference_energy + EPSILON, sums.error_energy + EPSILON)
    return _mean_over_channels(ratios, sums)


def usdr_of(sums: SignalSums) -> FloatArray:
    """`usdr` of signals by their sums: `(…)`."""
    reference, error = sums.reference_energy.sum(-1), sums.error_energy.sum(-1)
    ratios = _decibels(reference + CHALLENGE_EPSILON, error + CHALLENGE_EPSILON)
    return np.where(reference > 0, ratios, np.nan)


RATIOS: dict[str, Callable[[SignalSums], FloatArray]] = {
    "si_sdr": si_sdr_of,
    "si_snr": si_snr_of,
    "snr": snr_of,
    "usdr": usdr_of,
}


def _decibels(signal: FloatArray, distortion: FloatArray) -> FloatArray:
    return np.asarray(10 * np.log10(signal / distortion))


def _mean_over_channels(ratios: FloatArray, sums: SignalSums) -> FloatArray:
    sounding = sums.reference_energy > 0
    total = np.where(sounding, ratios, 0.0).sum(-1)
    count = sounding.sum(-1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def si_sdr(estimate: ArrayLike, reference: ArrayLike) -> float:
    """Scale-invariant signal-to-distortion ratio, without mean removal.

    Equals `torchmetrics.functional.audio.scale_invariant_signal_distortion_ratio` of float32
    signals that sound, averaged over the channels. Le Roux, Wisdom, Erdogan and Hershey, "SDR –
    half-baked or well done?", ICASSP 2019.

    Parameters
    ----------
    estimate, reference
        `(channels, samples)`

    Returns
    -------
    dB; nan where a reference or an estimate is silent

    Raises
    ------
    ValueError
        the shapes differ
    """
    return float(si_sdr_of(SignalSums.of(estimate, reference)))


def si_snr(estimate: ArrayLike, reference: ArrayLike) -> float:
    """Scale-invariant signal-to-noise ratio: `si_sdr` of the signals without their means.

    Equals `torchmetrics.functional.audio.scale_invariant_signal_noise_ratio`. Luo and Mesgarani,
    "TasNet", ICASSP 2018. A constant signal is silent here.

    Parameters, returns and raises as `si_sdr`.
    """
    return float(si_snr_of(SignalSums.of(estimate, reference)))


def snr(estimate: ArrayLike, reference: ArrayLike) -> float:
    """Signal-to-noise ratio: the energy of the reference over that of the error.

    Equals `torchmetrics.functional.audio.signal_noise_ratio`, averaged over the channels. A silent
    estimate has 0 dB.

    Parameters
    ----------
    estimate, reference
        `(channels, samples)`

    Returns
    -------
    dB; nan where the reference is silent

    Raises
    ------
    ValueError
        the shapes differ
    """
    return float(snr_of(SignalSums.of(estimate, reference)))


def usdr(estimate: ArrayLike, reference: ArrayLike) -> float:
    """The ratio by which the Music Demixing Challenge 2021 ranked: "SDR", nSDR, utterance SDR.

    It is the SNR of all samples of all channels together, with 1e-7 added to both energies.
    Mitsufuji and others, "Music Demixing Challenge 2021", Frontiers in Signal Processing 1, 2022.
    The challenge gives a silent reference a number; here it is nan.

    Parameters, returns and raises as `snr`.
    """
    return float(usdr_of(SignalSums.of(estimate, reference)))
