"""Spectra of a signal, the masks made of them, and the way back."""

import functools
from typing import Any

import numba
import numpy as np
import scipy.fft

from .compiling import compiled

TINY = np.finfo(np.float32).tiny
FRAMES_AT_ONCE = 256


def stft(samples: np.ndarray, *, n_fft: int, hop_length: int) -> np.ndarray:
    """Short-time Fourier transform, as `librosa.stft` (Hann window, centred, zero-padded).

    Computed in single precision, where librosa computes in double and rounds.

    Parameters
    ----------
    samples
        float32 `(channels, samples)`
    n_fft, hop_length
        samples

    Returns
    -------
    complex64 `(channels, n_fft // 2 + 1, 1 + samples // hop_length)`; in memory each frame's
    bins lie together, channel after channel
    """
    channels, length = samples.shape
    frames = 1 + length // hop_length
    spectrum = np.empty((channels, frames, n_fft // 2 + 1), np.complex64)
    window = _hann(n_fft)
    for channel, out in zip(samples, spectrum, strict=True):
        padded = np.pad(channel, n_fft // 2)
        framed = np.lib.stride_tricks.sliding_window_view(padded, n_fft)[::hop_length]
        for start in range(0, frames, FRAMES_AT_ONCE):
            block = slice(start, start + FRAMES_AT_ONCE)
            out[block] = scipy.fft.rfft(framed[block] * window, axis=-1, overwrite_x=True)
    return spectrum.transpose(0, 2, 1)


def magnitude_and_phase(spectrum: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Split a spectrum, as `librosa.magphase`; the phase takes the place of the spectrum.

    Parameters
    ----------
    spectrum
        complex64, any shape; overwritten with the phase

    Returns
    -------
    magnitude : float32, same shape
    phase : complex64 of magnitude 1 (1 where the spectrum is 0): the array `spectrum`
    """
    magnitude = np.abs(spectrum)
    for channel, levels in zip(spectrum, magnitude, strict=True):
        _divide_by_magnitude(channel.T, levels.T)
    return magnitude, spectrum


@compiled(numba.njit, nogil=True, error_model="numpy")
def _divide_by_magnitude(spectrum: Any, magnitude: Any) -> None:
    frames, bins = magnitude.shape
    for frame in range(frames):
        for index in range(bins):
            level = magnitude[frame, index]
            silent = np.float32(1) if level == np.float32(0) else np.float32(0)
            value = spectrum[frame, index]
            divisor = level + silent
            spectrum[frame, index] = complex(value.real / divisor + silent, value.imag / divisor)


def inverse_stft(
    mask: np.ndarray,
    magnitude: np.ndarray,
    phase: np.ndarray,
    *,
    n_fft: int,
    hop_length: int,
    samples: int,
) -> np.ndarray:
    """The signal of `mask * magnitude * phase`, as `librosa.istft`, without that array.

    Parameters
    ----------
    mask, magnitude
        float32 `(channels, bins, frames)`
    phase
        complex64, same shape
    n_fft, hop_length, samples
        samples; the hop divides the window, the last is the length of
        the result

    Returns
    -------
    float32 `(channels, samples)`
    """
    channels, _, frames = mask.shape
    hops = n_fft // hop_length
    window = _hann(n_fft)
    overlapped = np.zeros((channels, frames + hops, hop_length), np.float32)
    weight = np.zeros((frames + hops, hop_length), np.float32)
    squared = (window * window).reshape(hops, hop_length)
    for hop in range(hops):
        weight[hop : hop + frames] += squared[hop]
    for channel, out in enumerate(overlapped):
        for start in range(0, frames, FRAMES_AT_ONCE):
            block = (channel, slice(None), slice(start, start + FRAMES_AT_ONCE))
            masked = (mask[block] * magnitude[block] * phase[block]).T
            signal = scipy.fft.irfft(masked, n=n_fft, axis=-1, overwrite_x=True) * window
            count = len(signal)
            for hop, piece in enumerate(np.split(signal, hops, axis=1)):
                out[start + hop : start + hop + count] += piece
    overlapped /= np.where(weight > TINY, weight, 1)
    start = n_fft // 2
    return np.ascontiguousarray(overlapped.reshape(channels, -1)[:, start : start + samples])


@functools.lru_cache(maxsize=16)
def _hann(n_fft: int) -> np.ndarray:
    window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)).astype(np.float32)
    window.flags.writeable = False
    return window


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
    wanted, rest
        float32, same shape, at least 0
    margin
        how many times `rest` has to be exceeded
    power
        exponent of both before they are compared
    out
        where the result goes: float32

    Returns
    -------
    float32 in [0, 1], same shape; 0 where both are silent
    """
    return _soft_mask(wanted, rest, np.float32(margin), np.float32(power), out=out)


@compiled(numba.vectorize, ["float32(float32, float32, float32, float32)"])
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
