"""Resampling block by block, by soxr, to an exact length."""

import math
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import soxr

# How far soxr's filter reaches, in samples at the lower of two rates, with room to spare.
REACH_SAMPLES = 500


def rounded_length(samples: int, sample_rate: int, rate: int) -> int:
    """Samples at another rate of a signal of so many: rounded to the nearest, but at least one."""
    return max(1, (2 * samples * rate + sample_rate) // (2 * sample_rate)) if samples else 0


def resampled(
    blocks: Iterable[np.ndarray], sample_rate: int, rate: int, *, quality: str = "VHQ"
) -> Iterator[np.ndarray]:
    """Resample a signal that comes in blocks; how it is cut makes no difference to the samples.

    Parameters
    ----------
    blocks
        iterable of np.ndarray, shape (channels, samples), float32
    sample_rate, rate : int
        Hz, from and to.
    quality
        soxr's name of it.

    Yields
    ------
    np.ndarray, shape (channels, samples), float32
        Together `rounded_length` samples, the first at the time of the first.
    """
    if rate == sample_rate:
        yield from blocks
        return
    stream = None
    taken = given = 0
    for block in blocks:
        if stream is None:
            stream = soxr.ResampleStream(sample_rate, rate, len(block), quality=quality)
        taken += block.shape[1]
        made = stream.resample_chunk(np.ascontiguousarray(block.T))
        given += len(made)
        yield made.T
    if stream is None:
        return
    channels = len(block)
    rest = stream.resample_chunk(np.zeros((0, channels), np.float32), last=True).T
    # soxr rounds the length, too, but a half another way.
    missing = rounded_length(taken, sample_rate, rate) - given
    yield np.pad(rest, ((0, 0), (0, max(0, missing - rest.shape[1]))))[:, :missing]


def resampled_range(
    read: Callable[[int, int], np.ndarray],
    *,
    samples: int,
    sample_rate: int,
    rate: int,
    start_sample: int,
    stop_sample: int,
    quality: str = "VHQ",
) -> np.ndarray:
    """A range of a resampled signal, of which no more is read than that takes.

    It begins and ends where samples of both rates coincide, so that they are those of the whole
    signal resampled: to 1e-5, and mostly bit for bit.

    Parameters
    ----------
    read
        gives float32 `(channels, samples)` of the signal from one of its samples up to another
    samples
        how many the signal has
    sample_rate, rate
        Hz, from and to
    start_sample, stop_sample
        the range at `rate`, of `rounded_length` samples
    quality
        soxr's name of it

    Returns
    -------
    np.ndarray, shape (channels, stop_sample - start_sample), float32
    """
    if rate == sample_rate:
        return read(start_sample, stop_sample)
    read_start, read_stop = source_range(
        samples=samples,
        sample_rate=sample_rate,
        rate=rate,
        start_sample=start_sample,
        stop_sample=stop_sample,
    )
    block = read(read_start, read_stop)
    made = np.concatenate([*resampled([block], sample_rate, rate, quality=quality)], axis=1)
    first = start_sample - read_start * rate // sample_rate
    return made[:, first : first + stop_sample - start_sample]


def source_range(
    *, samples: int, sample_rate: int, rate: int, start_sample: int, stop_sample: int
) -> tuple[int, int]:
    """What `resampled_range` reads of a signal: from one of its samples up to another.

    Parameters
    ----------
    samples, sample_rate, rate, start_sample, stop_sample
        as of `resampled_range`
    """
    if rate == sample_rate:
        return start_sample, stop_sample
    divisor = math.gcd(sample_rate, rate)
    step, read_step = rate // divisor, sample_rate // divisor
    margin = math.ceil(REACH_SAMPLES * rate / min(rate, sample_rate))
    first_step = max(0, start_sample - margin) // step
    last_step = -(-(stop_sample + margin) // step)
    return first_step * read_step, min(samples, last_step * read_step)
