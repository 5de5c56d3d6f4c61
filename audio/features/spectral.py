"""Features of short-time spectra, frame by frame."""

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import scipy.fft

from ..compiling import compiled
from ..errors import LowSampleRateError
from .filter_bank import BandedFilters
from .framing import Framing
from .mel_bands import hann_window, mel_weights
from .settings import (
    ChromaSettings,
    ComplexSettings,
    LevelBands,
    MagnitudeSettings,
    MelBands,
    Norm,
    PhaseSettings,
    PowerSettings,
    StftSettings,
)

# What is transformed at once fits into a core's cache: float32 samples of all frames.
_SAMPLES_AT_ONCE = 1 << 16
# pocketfft transforms some rows at once with SIMD and left-over ones without, which may round
# differently: there are none left over.
_LANES = 16
# Less power than this is what resamplers make of digital silence: it has no pitch to be normalised.
SILENT_POWER = 1e-30

Measure = Callable[[np.ndarray], np.ndarray]


class SpectralFrames:
    """Computes frames of all kinds that are made of a short-time Fourier transform.

    Parameters
    ----------
    settings
        of such a kind
    sample_rate : int
        Hz, of the signal

    Raises
    ------
    LowSampleRateError
        the signal has none of the frequencies that bands are to be of
    """

    def __init__(self, settings: StftSettings, sample_rate: int) -> None:
        n_fft = settings.n_fft
        self._begin = -(n_fft // 2) if settings.center else 0
        self._pad_mode = settings.pad_mode
        self._window = padded_window(settings)
        self._measure = _measure_of(settings, sample_rate)
        # One sample more on either side: reflection starts beside the last one.
        self.framing = Framing(
            hop_length=settings.hop_length,
            centre=n_fft // 2 + self._begin,
            reach_before=1 - self._begin,
            reach_after=self._begin + n_fft + 1,
            least_samples=n_fft % 2 if settings.center else n_fft,
        )
        self.frames_at_once = filled(max(1, _SAMPLES_AT_ONCE // n_fft))

    def __call__(self, samples: np.ndarray, start_sample: int, frames: range) -> np.ndarray:
        """Some frames of a signal, at most `frames_at_once`.

        Parameters
        ----------
        samples
            float32 `(channels, samples)`: a stretch that has all that `frames` need, but for
            what lies beyond the signal's ends
        start_sample
            where in the signal it begins
        frames
            their numbers

        Returns
        -------
        `(channels, bins, frames)`, float32, or complex64 where the kind is complex
        """
        windowed = np.empty((filled(len(frames)), len(self._window)), np.float32)
        windowed[len(frames) :] = 0
        made = []
        for channel in self._padded(samples, start_sample, frames):
            contiguous = np.ascontiguousarray(channel, np.float32)
            _cut(contiguous, self.framing.hop_length, self._window, windowed[: len(frames)])
            spectrum = scipy.fft.rfft(windowed, axis=-1, workers=1)
            made.append(self._measure(spectrum[: len(frames)]))
        return np.stack(made) if len(made) > 1 else made[0][np.newaxis]

    def _padded(self, samples: np.ndarray, start_sample: int, frames: range) -> np.ndarray:
        """What the windows of frames cover, padded where that is beyond the signal's ends."""
        begin = frames[0] * self.framing.hop_length + self._begin
        end = frames[-1] * self.framing.hop_length + self._begin + len(self._window)
        first = max(begin - 1, 0)
        there = samples[:, first - start_sample : end + 1 - start_sample]
        before, after = max(0, -begin), max(0, end - start_sample - samples.shape[1])
        if before or after:
            there = np.pad(there, ((0, 0), (before, after)), mode=self._pad_mode)
        offset = begin + before - first
        return there[:, offset : offset + end - begin]


@compiled(numba.njit, nogil=True)
def _cut(samples: Any, hop_length: Any, window: Any, windowed: Any) -> None:
    for frame in range(len(windowed)):
        piece = samples[frame * hop_length :]
        row = windowed[frame]
        for index in range(len(window)):
            row[index] = piece[index] * window[index]


def filled(rows: int) -> int:
    """So many rows that none is left over of those that are transformed at once."""
    return -(-rows // _LANES) * _LANES


def padded_window(settings: StftSettings) -> np.ndarray:
    """The window amid zeros: float32 `(n_fft,)`."""
    length = settings.win_length or settings.n_fft
    before = (settings.n_fft - length) // 2
    if settings.window == "hann":
        window = hann_window(length)
    else:
        # It takes half a second to import.
        from scipy.signal import get_window

        window = get_window(settings.window, length, fftbins=True)
    return np.pad(window.astype(np.float32), (before, settings.n_fft - length - before))


def _measure_of(settings: StftSettings, sample_rate: int) -> Measure:
    """What a kind makes of spectra: complex64 `(frames, bins)` to `(its bins, frames)`."""
    match settings:
        case ComplexSettings():
            return np.transpose
        case MagnitudeSettings():
            return lambda spectrum: np.abs(spectrum).T
        case PhaseSettings():
            return lambda spectrum: np.angle(spectrum).T
        case PowerSettings():
            return lambda spectrum: _powers(spectrum, settings.power).T
        case ChromaSettings():
            return _chroma(settings, sample_rate)
        case MelBands():
            return _mel(settings, sample_rate)
    raise ValueError(f"{settings.kind} is not made of spectra")


def _powers(spectrum: np.ndarray, power: float) -> np.ndarray:
    squared = np.square(spectrum.real) + np.square(spectrum.imag)
    return squared if power == 2 else np.power(squared, np.float32(power / 2), out=squared)


def mel_filters(settings: MelBands, sample_rate: int) -> np.ndarray:
    """The weights of a spectrum's bins in each mel band: float32 `(n_mels, 1 + n_fft / 2)`.

    Raises
    ------
    LowSampleRateError
        the sample rate, in Hz, does not have the bands
    """
    highest_hz = settings.fmax_hz or sample_rate / 2
    if highest_hz > sample_rate / 2 or highest_hz <= settings.fmin_hz:
        raise LowSampleRateError(
            f"mel bands from {settings.fmin_hz:g} to {highest_hz:g} Hz are not within what "
            f"{sample_rate} Hz have, 0 to {sample_rate / 2:g} Hz: change fmin_hz, fmax_hz, or "
            "sample_rate"
        )
    return mel_weights(
        sample_rate=sample_rate,
        n_fft=settings.n_fft,
        n_mels=settings.n_mels,
        lowest_hz=settings.fmin_hz,
        highest_hz=highest_hz,
        htk=settings.htk,
        norm=settings.mel_norm if settings.mel_norm == "slaney" else norm_of(settings.mel_norm),
    )


def _mel(settings: MelBands, sample_rate: int) -> Measure:
    filters = BandedFilters.of(mel_filters(settings, sample_rate))
    if not isinstance(settings, LevelBands):
        return lambda spectrum: filters.sums(spectrum, settings.power)
    least = np.float32(settings.amin)

    def levels(spectrum: np.ndarray) -> np.ndarray:
        sums = filters.sums(spectrum, settings.power)
        np.log10(np.maximum(sums, least, out=sums), out=sums)
        return np.multiply(sums, np.float32(10), out=sums)

    return levels


def _chroma(settings: ChromaSettings, sample_rate: int) -> Measure:
    from librosa.filters import chroma
    from librosa.util import normalize

    filters = chroma(
        sr=sample_rate,
        n_fft=settings.n_fft,
        n_chroma=settings.n_chroma,
        tuning=settings.tuning,
        ctroct=settings.ctroct,
        octwidth=settings.octwidth,
        base_c=settings.base_c,
    )
    norm = norm_of(settings.norm)
    return lambda spectrum: normalize(
        filters @ _powers(spectrum, 2).T, norm=norm, axis=0, threshold=SILENT_POWER
    )


def norm_of(norm: Norm) -> float | None:
    """What librosa calls a norm."""
    return np.inf if norm == "max" else norm
