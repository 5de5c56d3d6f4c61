"""Chroma of a recording that comes in blocks: how strong each pitch class is, moment by moment."""

import contextlib
from collections.abc import Iterable, Iterator

import numpy as np
import scipy.fft

from .errors import EmptyAudioError
from .features.extraction import frame_blocks
from .features.settings import ChromaSettings

# 16384 and 4096 samples at 22050 Hz; other rates have as many seconds, to a sample or so.
WINDOW_S = 16384 / 22050
HOP_S = 4096 / 22050
PITCH_CLASSES = 12


def hop_samples(sample_rate: int) -> int:
    """Samples from one frame to the next at a rate in Hz."""
    return max(1, round(HOP_S * sample_rate))


def chroma_frames(blocks: Iterable[np.ndarray], sample_rate: int) -> Iterator[np.ndarray]:
    """Chroma as `librosa.feature.chroma_stft` has it, tuned to A = 440 Hz, at any sample rate.

    Nothing is resampled: window and hop last as long at each rate. The tuning is not estimated,
    which would need the whole recording beforehand.

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
        there are whole hops, and none of no samples.
    """
    n_fft = scipy.fft.next_fast_len(max(2, round(WINDOW_S * sample_rate)), real=True)
    settings = ChromaSettings(n_fft=n_fft, hop_length=hop_samples(sample_rate))
    mono = (each[np.newaxis] for each in blocks)
    with contextlib.suppress(EmptyAudioError):
        for block in frame_blocks(mono, sample_rate, settings):
            yield block[0].T
