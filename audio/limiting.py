"""Peaks beyond full scale: a look-ahead limiter."""

from collections.abc import Iterable, Iterator

import numpy as np
import scipy.ndimage

FADE_S = 0.02  # in which the gain falls before a peak, and in which it comes back
HOLD_S = 0.03  # between them: longer than half a wave of the deepest notes
# Gains are whole numbers of this: sums of them are exact, however a signal is cut.
_UNITY = 1 << 30


def limited(blocks: Iterable[np.ndarray], sample_rate: int, ceiling: float) -> Iterator[np.ndarray]:
    """Turn a signal down around its peaks, all channels alike; how it is cut makes no difference.

    Parameters
    ----------
    blocks
        iterable of np.ndarray, shape (channels, samples), float32
    sample_rate : int
        Hz.
    ceiling : float
        The highest level of a sample that comes out; between samples it may be higher.

    Yields
    ------
    np.ndarray, shape (channels, samples), float32
        Together as many samples. Where no peak is within `FADE_S` before or `FADE_S` and `HOLD_S`
        after, they are those that came in.
    """
    box = max(1, round(FADE_S * sample_rate / 2))
    ahead = 2 * box - 2
    behind = ahead + 2 * round(HOLD_S * sample_rate / 2)
    waiting: np.ndarray | None = None  # from `behind` samples before the next to come out on
    for block in blocks:
        if waiting is None:
            waiting = np.zeros((len(block), behind), np.float32)
        waiting = np.concatenate([waiting, block], axis=1)
        if waiting.shape[1] > behind + ahead:
            yield _turned_down(waiting, behind, ahead, box, ceiling)
            waiting = waiting[:, waiting.shape[1] - behind - ahead :]
    if waiting is None:
        return
    end = np.zeros((len(waiting), ahead), np.float32)
    yield _turned_down(np.concatenate([waiting, end], axis=1), behind, ahead, box, ceiling)


def _turned_down(
    samples: np.ndarray, behind: int, ahead: int, box: int, ceiling: float
) -> np.ndarray:
    """All but the first `behind` and the last `ahead` samples."""
    inner = samples[:, behind : samples.shape[1] - ahead]
    level = np.abs(samples).max(axis=0)
    if not inner.shape[1] or level.max() <= ceiling:
        return inner
    wanted = np.floor(_UNITY * (ceiling / np.maximum(level, ceiling, dtype=np.float64)))
    # The lowest of `behind - ahead` samples before and `ahead` after, ...
    lowest = scipy.ndimage.minimum_filter1d(wanted.astype(np.int64), behind + 1)
    lowest = lowest[behind // 2 : len(lowest) - behind // 2]
    # ... and twice the mean of those up to there, each of which knows of the peak.
    sums = _sums(_sums(lowest, box), box)
    gain = sums / float(_UNITY * box * box)
    return (inner * gain).astype(np.float32)


def _sums(values: np.ndarray, width: int) -> np.ndarray:
    """The sums of `width` neighbours each."""
    total = np.concatenate([[0], np.cumsum(values)])
    return total[width:] - total[:-width]
