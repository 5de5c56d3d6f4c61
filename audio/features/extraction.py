"""Features of recordings: of arrays, of blocks that follow each other, and of parts.

It takes two steps. `frame_blocks`, or `part_frames` for each part, computes frames of the samples
around each of them; `finished` does with all of them what takes the whole recording: levels below
its highest one. `features_of` does both with a recording that is in memory.
"""

import functools
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from ..channels import as_many
from ..resampling import resampled, resampled_range
from .constant_q import ConstantQFrames
from .finishing import finished
from .framing import FrameGrid
from .settings import CqtSettings, FeatureSettings, StftSettings
from .spectral import SpectralFrames

Frames = SpectralFrames | ConstantQFrames


def features_of(samples: np.ndarray, sample_rate: int, settings: FeatureSettings) -> np.ndarray:
    """The features of a whole recording.

    Parameters
    ----------
    samples
        float32 `(channels, samples)`
    sample_rate
        Hz
    settings
        a kind, and its parameters

    Returns
    -------
    `(channels, bins, frames)`, float32, or complex64 where the kind is complex; one channel where
    `settings.mono`

    Raises
    ------
    EmptyAudioError, TooShortAudioError
        there is not one frame of it
    LowSampleRateError
        bands are asked for that its sample rate does not have
    ValueError
        `samples` are no such array
    """
    if samples.ndim != 2:
        raise ValueError(f"samples have the shape (channels, samples), not {samples.shape}")
    frames = _joined(frame_blocks([samples], sample_rate, settings))
    (features,) = finished([frames], settings, highest_level_db(frames, settings))
    return features


def frame_blocks(
    blocks: Iterable[np.ndarray], sample_rate: int, settings: FeatureSettings
) -> Iterator[np.ndarray]:
    """The frames of a recording that comes block by block, in bounded memory.

    How it is cut makes no difference to them.

    Parameters
    ----------
    blocks
        float32 `(channels, samples)` each
    sample_rate
        Hz
    settings
        a kind, and its parameters

    Yields
    ------
    np.ndarray, shape (channels, bins, frames)
        For `finished`: of levels and what is made of them, levels in mel bands in dB, whose
        reference is 1; of all else the features.

    Raises
    ------
    EmptyAudioError, TooShortAudioError, LowSampleRateError
        as `features_of`
    """
    rate = settings.sample_rate or sample_rate
    if settings.mono:
        blocks = (as_many(block, 1) for block in blocks)
    return _frames(resampled(blocks, sample_rate, rate), frames_of(settings, rate))


def part_frames(
    read: Callable[[int, int], np.ndarray],
    frames: range,
    grid: FrameGrid,
    settings: FeatureSettings,
) -> np.ndarray:
    """Some frames of a recording, of which no more is read than they need.

    They are those of the whole recording: bit for bit, or to 1e-6 of the recording's peak where it
    is resampled, and for `chroma` and `cqt`.

    Parameters
    ----------
    read
        gives float32 `(channels, samples)` of the recording from one of its samples up to another,
        within `grid.samples_of(frames)`
    frames
        at least one, such as those of `grid.frames_in`
    grid
        from `frame_grid`
    settings
        the grid's

    Returns
    -------
    As a block of `frame_blocks`.
    """
    compute = frames_of(settings, grid.rate)
    start, stop = grid.resampled_context(frames)

    def read_channels(start_sample: int, stop_sample: int) -> np.ndarray:
        samples = read(start_sample, stop_sample)
        return as_many(samples, 1) if settings.mono else samples

    samples = resampled_range(
        read_channels,
        samples=grid.total_samples,
        sample_rate=grid.sample_rate,
        rate=grid.rate,
        start_sample=start,
        stop_sample=stop,
    )
    return _joined(
        compute(samples, start, frames[first : first + compute.frames_at_once])
        for first in range(0, len(frames), compute.frames_at_once)
    )


def frame_grid(settings: FeatureSettings, sample_rate: int, total_samples: int) -> FrameGrid:
    """Where the frames of a recording lie.

    Parameters
    ----------
    settings
        a kind, and its parameters
    sample_rate
        Hz, of the recording
    total_samples
        of the recording, per channel

    Raises
    ------
    LowSampleRateError
        bands are asked for that its sample rate does not have
    """
    rate = settings.sample_rate or sample_rate
    return FrameGrid(sample_rate, total_samples, rate, frames_of(settings, rate).framing)


def highest_level_db(frames: np.ndarray, settings: FeatureSettings) -> float | None:
    """The highest level of some frames, for `finished`; None where it is not needed.

    That of a recording is the maximum of those of its parts.
    """
    return float(frames.max()) if settings.needs_highest_level else None


@functools.lru_cache(maxsize=16)
def frames_of(settings: FeatureSettings, rate: int) -> Frames:
    """What computes the frames of a kind, of signals of a sample rate in Hz."""
    if isinstance(settings, CqtSettings):
        return ConstantQFrames(settings, rate)
    if isinstance(settings, StftSettings):
        return SpectralFrames(settings, rate)
    raise ValueError(f"{settings.kind} is no kind of features")


def _frames(blocks: Iterable[np.ndarray], compute: Frames) -> Iterator[np.ndarray]:
    """Frames of a signal that comes block by block: `(channels, bins, frames)` each."""
    framing, at_once = compute.framing, compute.frames_at_once
    held = np.zeros((1, 0), np.float32)  # the signal from `start_sample` on
    waiting: list[np.ndarray] = []  # what follows it
    start_sample = stop_sample = done = 0
    for block in blocks:
        waiting.append(block)
        stop_sample += block.shape[1]
        if framing.complete(stop_sample) < done + at_once:
            continue
        held, waiting = _appended(held, waiting), []
        while framing.complete(stop_sample) >= done + at_once:
            yield compute(held, start_sample, range(done, done + at_once))
            done += at_once
        needed = max(start_sample, done * framing.hop_length - framing.reach_before)
        needed = min(needed, stop_sample)  # hops may be longer than windows
        held, start_sample = held[:, needed - start_sample :], needed
    held = _appended(held, waiting)
    count = framing.count(stop_sample)
    for first in range(done, count, at_once):
        yield compute(held, start_sample, range(first, min(first + at_once, count)))


def _appended(held: np.ndarray, blocks: list[np.ndarray]) -> np.ndarray:
    blocks = [held, *blocks] if held.shape[1] else blocks
    return np.concatenate(blocks, axis=1) if len(blocks) > 1 else [*blocks, held][0]


def _joined(blocks: Iterable[np.ndarray]) -> np.ndarray:
    return np.concatenate([*blocks], axis=-1)
