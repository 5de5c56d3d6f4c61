"""Spectra of a signal, the masks made of them, and the way back."""

from typing import Any

import librosa
import numba
import numpy as np

TINY = np.finfo(np.float32).tiny


def stft(samples: np.ndarray, *, n_fft: int, hop_length: int) -> np.ndarray:
    """Short-time Fourier transform, as `librosa.stft` (Hann window, centred, zero-padded).

    Parameters
    ----------
    samples : float32 `(channels, samples)`
    n_fft, hop_length : samples

    Returns
    -------
    complex64 `(channels, n_fft // 2 + 1, 1 + samples // hop_length)`
    """
    channels, length = samples.shape
    frames = 1 + length // hop_length
    # Each frame's bins lie together, channel after channel: what comes later walks frame by frame.
    spectrum = np.empty((channels, frames, n_fft // 2 + 1), np.complex64).transpose(0, 2, 1)
    for channel, out in zip(samples, spectrum, strict=True):
        librosa.stft(channel, n_fft=n_fft, hop_length=hop_length, out=out)
    return spectrum


def magnitude_and_phase(spectrum: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Split a spectrum, as `librosa.magphase`; the phase takes the place of the spectrum.

    Parameters
    ----------
    spectrum : complex64, any shape; overwritten with the phase

    Returns
    -------
    magnitude : float32, same shape
    phase : complex64 of magnitude 1 (1 where the spectrum is 0): the array `spectrum`
    """
    magnitude = np.abs(spectrum)
    silent = magnitude == 0
    divisor = magnitude + silent
    spectrum.real /= divisor
    spectrum.imag /= divisor
    spectrum.real += silent
    return magnitude, spectrum


def inverse_stft(
    mask: np.ndarray,
    magnitude: np.ndarray,
    phase: np.ndarray,
    *,
    n_fft: int,
    hop_length: int,
    samples: int,
) -> np.ndarray:
    """The signal of `mask * magnitude * phase`, as `librosa.istft`, one channel at a time.

    Parameters
    ----------
    mask, magnitude : float32 `(channels, bins, frames)`
    phase : complex64, same shape
    n_fft, hop_length, samples : samples; the last is the length of the result

    Returns
    -------
    float32 `(channels, samples)`
    """
    result = np.empty((mask.shape[0], samples), np.float32)
    for channel, spectrum in enumerate(phase):
        masked = mask[channel] * magnitude[channel] * spectrum
        result[channel] = librosa.istft(masked, n_fft=n_fft, hop_length=hop_length, length=samples)
    return result


def soft_mask(
    wanted: np.ndarray,
    rest: np.ndarray,
    *,
    margin: float,
    power: float = 2.0,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Soft mask of `wanted` against `rest`, without temporary arrays.

    Equals `librosa.util.softmask(wanted, margin * rest, power=power)`, bit for bit at power 1
    and 2.

    Parameters
    ----------
    wanted, rest : float32, same shape, at least 0
    margin : how many times `rest` has to be exceeded
    power : exponent of both before they are compared
    out : where the result goes: float32

    Returns
    -------
    float32 in [0, 1], same shape; 0 where both are silent
    """
    return _soft_mask(wanted, rest, np.float32(margin), np.float32(power), out=out)


@numba.vectorize(["float32(float32, float32, float32, float32)"], cache=True)
def _soft_mask(wanted: Any, rest: Any, margin: Any, power: Any) -> Any:
    reference = margin * rest
    top = max(wanted, reference)
    if top < TINY:
        return np.float32(0)
    ours = wanted / top
    theirs = reference / top
    if power == np.float32(2):
        ours, theirs = ours * ours, theirs * theirs
    elif power != np.float32(1):
        ours, theirs = ours**power, theirs**power
    return ours / (ours + theirs)
