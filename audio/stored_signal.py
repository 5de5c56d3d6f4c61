"""The signal of a stem as its file is to hold it: folded down, resampled, below full scale."""

from collections.abc import Iterable, Iterator

import numpy as np

from .channels import fold_down
from .limiting import limited
from .resampling import resampled
from .stem_format import StemFormat


def as_stored(
    blocks: Iterable[np.ndarray], sample_rate: int, stem_format: StemFormat
) -> Iterator[np.ndarray]:
    """A stem at the rate and with the channels of its file; sums of stems stay sums.

    Parameters
    ----------
    blocks
        iterable of np.ndarray, shape (channels, samples), float32
    sample_rate : int
        Hz, of the blocks.
    stem_format : StemFormat

    Returns
    -------
    iterator of np.ndarray, shape (stem_format.channels, samples), float32
    """
    folded = (block if len(block) == stem_format.channels else fold_down(block) for block in blocks)
    return resampled(folded, sample_rate, stem_format.sample_rate)


def peak_of(blocks: Iterable[np.ndarray]) -> float:
    """The highest level of a signal's samples."""
    return max((float(np.abs(block).max(initial=0)) for block in blocks), default=0.0)


def gain_for(peak: float, stem_format: StemFormat) -> float:
    """The gain, at most 1, with which a peak is not beyond full scale."""
    return min(1.0, stem_format.full_scale / peak) if peak else 1.0


def scaled(blocks: Iterable[np.ndarray], gain: float) -> Iterator[np.ndarray]:
    """Blocks times a gain; with 1 they are the same."""
    for block in blocks:
        yield block if gain == 1 else (block * np.float64(gain)).astype(np.float32)


def below_full_scale(blocks: Iterable[np.ndarray], stem_format: StemFormat) -> Iterator[np.ndarray]:
    """Blocks through a limiter, if the format has a full scale."""
    if stem_format.is_float:
        return iter(blocks)
    return limited(blocks, stem_format.sample_rate, stem_format.full_scale)
