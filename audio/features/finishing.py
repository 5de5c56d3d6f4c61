"""What is left to do with frames when all of a recording are there.

It takes the recording's highest level, where `top_db` or `ref: max` ask for it, and goes through
the frames in order, so that those of the parts of a recording are finished in bounded memory.
"""

import math
from collections.abc import Iterable, Iterator

import numpy as np
import scipy.fft

from .settings import (
    FeatureSettings,
    LevelBands,
    MfccSettings,
    OnsetSettings,
    ReferredLevelBands,
)
from .spectral import filled


def finished(
    blocks: Iterable[np.ndarray], settings: FeatureSettings, highest_db: float | None = None
) -> Iterator[np.ndarray]:
    """Finish the frames of a recording.

    Parameters
    ----------
    blocks
        all frames, in order, as `extraction.frame_blocks` and `part_frames` give them
    settings
        theirs
    highest_db
        the maximum of all frames, where `settings.needs_highest_level`

    Yields
    ------
    np.ndarray, shape (channels, bins, frames)
        The features: of each block as many frames.
    """
    if not isinstance(settings, LevelBands):
        yield from blocks
        return
    levels = (_levels(block, settings, highest_db) for block in blocks)
    match settings:
        case MfccSettings():
            yield from (_cepstra(block, settings) for block in levels)
        case OnsetSettings():
            yield from _onsets(levels, settings)
        case _:
            yield from levels


def _levels(frames: np.ndarray, settings: LevelBands, highest_db: float | None) -> np.ndarray:
    if settings.needs_highest_level and highest_db is None:
        raise ValueError(f"{settings.kind} needs the highest level of the recording")
    levels = frames
    if settings.top_db is not None:
        levels = np.maximum(levels, np.float32(highest_db) - np.float32(settings.top_db))
    zero_db = _zero_db(settings, highest_db)
    return levels - np.float32(zero_db) if zero_db else levels


def _zero_db(settings: LevelBands, highest_db: float | None) -> float:
    """What has 0 dB, in dB against 1."""
    if not isinstance(settings, ReferredLevelBands):
        return 0.0
    if settings.ref == "max":
        return highest_db or 0.0
    return 10 * math.log10(max(settings.ref, settings.amin))


def _cepstra(levels: np.ndarray, settings: MfccSettings) -> np.ndarray:
    channels, bands, frames = levels.shape
    rows = np.zeros((channels, filled(frames), bands), np.float32)
    rows[:, :frames] = levels.transpose(0, 2, 1)
    transformed = scipy.fft.dct(
        rows, type=settings.dct_type, norm=settings.dct_norm, axis=-1, workers=1
    )
    cepstra = transformed[:, :frames, : settings.n_mfcc].transpose(0, 2, 1)
    if settings.lifter > 0:
        numbers = np.arange(1, 1 + settings.n_mfcc, dtype=np.float32)
        weights = 1 + settings.lifter / 2 * np.sin(np.pi * numbers / settings.lifter)
        return cepstra * weights.astype(np.float32)[:, np.newaxis]
    return np.array(cepstra)


def _onsets(blocks: Iterable[np.ndarray], settings: OnsetSettings) -> Iterator[np.ndarray]:
    """Rises of the level, as `librosa.onset.onset_strength` has them.

    What rises from frame to frame is told behind it, by half a window where frames are centred.
    """
    # It takes half a second to import.
    import scipy.signal

    delay = settings.n_fft // (2 * settings.hop_length) if settings.center else 0
    earlier: np.ndarray | None = None
    state: np.ndarray | None = None
    for block in blocks:
        levels = block if earlier is None else np.concatenate([earlier, block], axis=-1)
        frames = block.shape[-1]
        rises = _rises(levels[..., : max(0, levels.shape[-1] - delay)], settings)[..., -frames:]
        onsets = np.pad(rises, ((0, 0), (frames - rises.shape[-1], 0)))
        if settings.detrend:
            if state is None:
                state = np.zeros((len(block), 1), np.float32)
            differences, leak = np.array([1, -1], np.float32), np.array([1, -0.99], np.float32)
            onsets, state = scipy.signal.lfilter(differences, leak, onsets, axis=-1, zi=state)
        earlier = levels[..., max(0, levels.shape[-1] - settings.lag - delay) :]
        yield onsets[:, np.newaxis]


def _rises(levels: np.ndarray, settings: OnsetSettings) -> np.ndarray:
    """How much levels rise from each frame to that `lag` behind it: `(channels, frames - lag)`."""
    # It takes a while to import.
    import scipy.ndimage

    count = max(0, levels.shape[-1] - settings.lag)
    before = levels[..., :count]
    if settings.max_size > 1:
        before = scipy.ndimage.maximum_filter1d(before, settings.max_size, axis=-2)
    rises = np.maximum(levels[..., settings.lag :] - before, np.float32(0))
    aggregate = np.mean if settings.aggregate == "mean" else np.median
    return aggregate(rises, axis=-2).astype(np.float32)
