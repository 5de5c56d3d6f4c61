"""Constant-Q transforms, stretch by stretch."""

import math

import numpy as np

from ..errors import LowSampleRateError, TooShortAudioError
from .framing import Framing
from .settings import CqtSettings
from .spectral import norm_of

# librosa halves the sample rate from octave to octave, by filters of soxr that reach so many
# samples at the lower rate, with room to spare.
_HALVING_REACH_SAMPLES = 64
# Stretches are at least so many times as long as what they need on one side.
_REACHES_AT_ONCE = 32


class ConstantQFrames:
    """Computes frames of a constant-Q transform, by `librosa.cqt` of stretches of the signal.

    Parameters
    ----------
    settings
    sample_rate : int
        Hz, of the signal

    Raises
    ------
    LowSampleRateError
        the highest bins are above half the sample rate
    """

    def __init__(self, settings: CqtSettings, sample_rate: int) -> None:
        self._settings = settings
        self._sample_rate = sample_rate
        longest, highest_hz = _filter_range(settings, sample_rate)
        if highest_hz > sample_rate / 2:
            raise LowSampleRateError(
                f"the constant-Q transform reaches up to {highest_hz:.0f} Hz, and {sample_rate} Hz "
                f"have {sample_rate / 2:g} Hz at most: take fewer n_bins, or a lower fmin_hz"
            )
        hop_length = settings.hop_length
        most_halvings = (hop_length & -hop_length).bit_length() - 1  # while hops stay whole
        octaves = -(-settings.n_bins // settings.bins_per_octave)
        early = max(0, math.ceil(math.log2(sample_rate / 2 / highest_hz)) - 2)
        halvings = min(early + octaves - 1, most_halvings)
        self._least_samples = 2 ** max(0, min(early, most_halvings - octaves + 1))
        # Filters are padded to a power of two: to less than twice their length, half on a side.
        reach = math.ceil(longest) + 2 * _HALVING_REACH_SAMPLES * 2**halvings
        # Where a stretch begins, the samples of all lower rates coincide with those of the whole.
        reach = -(-reach // hop_length) * hop_length
        self.framing = Framing(
            hop_length=hop_length,
            centre=0,
            reach_before=reach,
            reach_after=reach,
            least_samples=0,
        )
        self.frames_at_once = _REACHES_AT_ONCE * reach // hop_length

    def __call__(self, samples: np.ndarray, start_sample: int, frames: range) -> np.ndarray:
        """Some frames of a signal: as `SpectralFrames`, float32 `(channels, bins, frames)`."""
        import librosa

        settings = self._settings
        start, stop = self.framing.context(frames)
        start = max(0, start)
        stretch = samples[:, start - start_sample : stop - start_sample]
        if stretch.shape[1] < self._least_samples:
            raise TooShortAudioError(
                f"has {stretch.shape[1]} of the {self._least_samples} samples that a constant-Q "
                "transform takes here: leave the recording out, or the feature"
            )
        transform = librosa.cqt(
            stretch,
            sr=self._sample_rate,
            hop_length=settings.hop_length,
            fmin=settings.fmin_hz,
            n_bins=settings.n_bins,
            bins_per_octave=settings.bins_per_octave,
            tuning=settings.tuning,
            filter_scale=settings.filter_scale,
            norm=norm_of(settings.norm),
            sparsity=settings.sparsity,
            window=settings.window,
            scale=settings.scale,
            pad_mode=settings.pad_mode,
        )
        first = frames[0] - start // settings.hop_length
        return np.abs(transform[:, :, first : first + len(frames)])


def _filter_range(settings: CqtSettings, sample_rate: int) -> tuple[float, float]:
    """The samples of the longest filter, and the Hz that the highest reaches up to."""
    from librosa.filters import wavelet_lengths

    step = 2.0 ** (1 / settings.bins_per_octave)
    lengths, highest_hz = wavelet_lengths(
        freqs=settings.fmin_hz * step ** (settings.tuning + np.arange(settings.n_bins)),
        sr=sample_rate,
        window=settings.window,
        filter_scale=settings.filter_scale,
        alpha=np.full(settings.n_bins, (step**2 - 1) / (step**2 + 1)),
    )
    return lengths.max(), highest_hz
