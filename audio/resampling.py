"""Resampling block by block, by soxr, to an exact length."""

from collections.abc import Iterable, Iterator

import numpy as np
import soxr


def rounded_length(samples: int, sample_rate: int, rate: int) -> int:
    """Samples at another rate of a signal of so many: rounded to the nearest, but at least one."""
    return max(1, (2 * samples * rate + sample_rate) // (2 * sample_rate)) if samples else 0


def resampled(blocks: Iterable[np.ndarray], sample_rate: int, rate: int) -> Iterator[np.ndarray]:
    """Resample a signal that comes in blocks; how it is cut makes no difference to the samples.

    Parameters
    ----------
    blocks
        iterable of np.ndarray, shape (channels, samples), float32
    sample_rate, rate : int
        Hz, from and to.

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
            stream = soxr.ResampleStream(sample_rate, rate, len(block), quality="VHQ")
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
