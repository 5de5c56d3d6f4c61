"""Chroma of a recording that comes in blocks: how strong each pitch class is, moment by moment."""

import itertools
from collections.abc import Iterable, Iterator

import librosa.filters
import numpy as np
import scipy.fft

# 16384 and 4096 samples at 22050 Hz; other rates have as many seconds, to a sample or so.
WINDOW_S = 16384 / 22050
HOP_S = 4096 / 22050
TOP_HZ = 11025.0
PITCH_CLASSES = 12
# Samples that are transformed at once, which bounds the memory.
_SAMPLES_AT_ONCE = 1 << 20


def hop_samples(sample_rate: int) -> int:
    """Samples from one frame to the next at a rate in Hz."""
    return max(1, round(HOP_S * sample_rate))


def chroma_frames(blocks: Iterable[np.ndarray], sample_rate: int) -> Iterator[np.ndarray]:
    """Chroma as `librosa.feature.chroma_stft` has it, tuned to A = 440 Hz, at any sample rate.

    Nothing is resampled: window and hop last as long at each rate, and what lies above 11025 Hz
    is left out. The tuning is not estimated, which would need the whole recording beforehand.

    Parameters
    ----------
    blocks : iterable of np.ndarray, shape (samples,), float32
        The signal; how it is cut makes no difference.
    sample_rate : int
        Hz.

    Yields
    ------
    np.ndarray, shape (frames, 12), float32
        In [0, 1], the strongest pitch class of a frame is 1; all are 0 where it is silent. Frame
        `i` of all is centred at sample `i * hop_samples(sample_rate)`; there is one more than
        there are whole hops.
    """
    n_fft = scipy.fft.next_fast_len(max(2, round(WINDOW_S * sample_rate)), real=True)
    hop = hop_samples(sample_rate)
    window = librosa.filters.get_window("hann", n_fft).astype(np.float32)
    bins = 1 + int(min(TOP_HZ, sample_rate / 2) * n_fft / sample_rate)
    classes = librosa.filters.chroma(sr=sample_rate, n_fft=n_fft, tuning=0.0)[:, :bins].T
    frames_at_once = max(1, _SAMPLES_AT_ONCE // n_fft)
    samples_at_once = (frames_at_once - 1) * hop + n_fft

    def chroma_of(samples: np.ndarray) -> np.ndarray:
        framed = np.lib.stride_tricks.sliding_window_view(samples, n_fft)[::hop]
        spectrum = scipy.fft.rfft(framed * window, axis=-1, overwrite_x=True)[:, :bins]
        return _normalized((spectrum.real**2 + spectrum.imag**2) @ classes)

    silence = np.zeros(n_fft // 2, np.float32)
    held = silence
    for block in itertools.chain(blocks, [silence]):
        held = np.concatenate([held, block])
        while len(held) >= samples_at_once:
            yield chroma_of(held[:samples_at_once])
            held = held[frames_at_once * hop :]
    if len(held) >= n_fft:
        yield chroma_of(held)


def _normalized(chroma: np.ndarray) -> np.ndarray:
    peaks = chroma.max(axis=1, keepdims=True)
    is_heard = peaks > np.finfo(np.float32).tiny
    return np.where(is_heard, chroma / np.where(is_heard, peaks, 1), 0).astype(np.float32)
