"""Which loudspeakers channels are for, as wav, flac and FFmpeg have them; folding them down.

Nothing else is known of a recording than how many channels it has: so many are taken for the
layout that WAVE and FLAC give them, in their order.
"""

import numpy as np

# As FFmpeg calls them: L, R, C, LFE, then the back and the side ones.
LAYOUTS = {
    1: "mono",
    2: "stereo",
    3: "3.0",
    4: "quad",
    5: "5.0",
    6: "5.1",
    7: "6.1",
    8: "7.1",
}
# Of Vorbis and Opus in ogg: which of these channels is its first, its second, ...
VORBIS_ORDER = {
    3: (0, 2, 1),
    5: (0, 2, 1, 3, 4),
    6: (0, 2, 1, 4, 5, 3),
    7: (0, 2, 1, 5, 6, 4, 3),
    8: (0, 2, 1, 6, 7, 4, 5, 3),
}
_MINUS_3_DB = 0.5**0.5
_LEFT, _RIGHT, _BOTH, _NONE = (1, 0), (0, 1), (_MINUS_3_DB, _MINUS_3_DB), (0, 0)
_LEFT_SURROUND, _RIGHT_SURROUND, _BACK = (_MINUS_3_DB, 0), (0, _MINUS_3_DB), (0.5, 0.5)
_SURROUND = (_LEFT_SURROUND, _RIGHT_SURROUND)
_FRONT = (_LEFT, _RIGHT, _BOTH)
# What of each channel goes to the left, and to the right.
_TO_STEREO = {
    3: _FRONT,
    4: (_LEFT, _RIGHT, *_SURROUND),
    5: (*_FRONT, *_SURROUND),
    6: (*_FRONT, _NONE, *_SURROUND),
    7: (*_FRONT, _NONE, _BACK, *_SURROUND),
    8: (*_FRONT, _NONE, *_SURROUND, *_SURROUND),
}


def layout_of(channels: int) -> str:
    """What FFmpeg calls the layout of so many channels."""
    return LAYOUTS.get(channels, f"{channels} channels")


def fold_down(samples: np.ndarray) -> np.ndarray:
    """Three to eight channels to stereo, by the coefficients of ITU-R BS.775.

    Left is L + 0.707 C + 0.707 of each left surround channel, right likewise. A single back
    channel, of which BS.775 does not speak, goes to both with 0.5; LFE is left out. All is divided
    by the sum of one side's coefficients, so that nothing is clipped that was not before.

    Parameters
    ----------
    samples : np.ndarray, shape (channels, frames), float32
        3: L R C; 4: L R and two surround; 5: L R C and two surround; 6: 5.1; 7: 6.1; 8: 7.1.

    Returns
    -------
    np.ndarray, shape (2, frames), float32
    """
    matrix = np.array(_TO_STEREO[len(samples)], np.float64).T
    matrix /= matrix.sum(axis=1, keepdims=True)
    # Summed one after the other: a matrix product rounds by the length of the block.
    folded = np.zeros((2, samples.shape[-1]), np.float32)
    for index, channel in enumerate(samples):
        folded += matrix[:, index : index + 1].astype(np.float32) * channel
    return folded


def can_become(channels: int, wanted: int) -> bool:
    """Whether `as_many` makes a number of channels of another."""
    return channels == wanted or 1 in (channels, wanted)


def as_many(samples: np.ndarray, channels: int) -> np.ndarray:
    """Samples with another number of channels: one is the mean of all, many are copies of one.

    Parameters
    ----------
    samples : np.ndarray, shape (channels, frames), float32
    channels : int
        Those wanted; see `can_become`.

    Returns
    -------
    np.ndarray, shape (channels, frames), float32
    """
    if len(samples) == channels:
        return samples
    if channels == 1:
        return samples.mean(axis=0, keepdims=True)
    return np.repeat(samples, channels, axis=0)
