"""The nearest-neighbour filter: each frame becomes the median of the frames that resemble it.

It computes what `librosa.decompose.nn_filter(S, aggregate=np.median, metric="cosine", width=width)`
computes, bit for bit, in two phases that can be called by themselves:

1. `nearest_frames`: matrix products give the cosine distances, a histogram of each row gives the
   distance of its n-th nearest frame, and one scan in time order picks the frames.
2. `median_over_neighbors`: a median needs no values, only their order. Each bin's values are
   ranked over time once, and the median *rank* of a frame's neighbours is found by binary search
   over the bits of the rank, for many bins at once: 16-bit integers, 32 to a vector register.

Source: the REPET-SIM method of Z. Rafii and B. Pardo, "Music/voice separation using the similarity
matrix", ISMIR 2012, as librosa 0.11 does it (`librosa/decompose.py`, `librosa/segment.py`,
scikit-learn's brute-force `NearestNeighbors`).

Everything runs on one thread, apart from the matrix products, which follow the BLAS's setting.
"""

from collections.abc import Iterator
from math import ceil, sqrt
from typing import Any, Literal

import numba
import numpy as np
from numpy.typing import NDArray

from .compiling import compiled
from .errors import TooShortAudioError
from .progress import Progress, piece_of, unheard

Neighbors = Literal["librosa", "nearest"]

# Rows of the similarity matrix that exist at once, where one may choose …
_ROWS = 512
# … unless the matrix is not larger than this: as a whole it takes half the arithmetic.
_SMALL_MATRIX = 128 * 2**20
# How much of the time `nearest_frames` takes, the rest being that of the medians.
_SHARE_OF_NEAREST = 0.2
# OpenBLAS cuts long sums in pieces; where, depends on the number of its threads (unless it calls
# syrk) and so do the last bits, but not if the length is a multiple of this.
_STEADY_COLUMNS = 32
# scikit-learn computes as many rows of distances at once as fit here, 8 bytes each.
_SKLEARN_WORKING_MEMORY = 1024 * 2**20
# A multiple of 32, as a register holds 32 ranks; a constant, so that the loops are unrolled.
_BINS = 96

# 1 - similarity is a multiple of 2**-24 in float32, so distances in [0, 2] are integers in these
# units, without loss, and equal integers are equal distances.
_UNITS = np.float32(2**24)
_FARTHEST = 2 * 2**24
_EXCLUDED = _FARTHEST + 2**12
_LOW_BITS = 12


def nn_filter(
    S: NDArray[np.float32],
    *,
    width: int,
    k: int | None = None,
    neighbors: Neighbors = "librosa",
    features: NDArray[np.float32] | None = None,
    progress: Progress = unheard,
) -> NDArray[np.float32]:
    """Replace each frame by the median, bin by bin, of the frames nearest to it.

    Parameters
    ----------
    S
        ndarray of float32, shape (bins, frames) or (channels, bins, frames)
        Magnitudes, finite (this is not checked). Channels have their neighbours in common.
    width : int, in frames
        Frames less than this far in time are no neighbours. At least 1.
    k : int, optional
        Neighbours to a frame, at most; by default `default_k(frames, width)`.
    neighbors
        {"librosa", "nearest"}
        Which frames count, see `nearest_frames`.
    features
        ndarray of float32, shape (dims, frames) or (channels, dims, frames), optional
        What the resemblance is judged on, instead of `S`.
    progress : callable, optional
        Is told how much is done, as a share that rises to 1.

    Returns
    -------
    ndarray of float32, same shape and memory order as `S`
        A frame that has no neighbours is copied.

    Raises
    ------
    TooShortAudioError
        If there are too few frames for `width`.
    ValueError
        If `width`, `k`, `neighbors` or a shape is wrong.
    """
    S = np.asarray(S, dtype=np.float32)
    if features is None:
        features = S
    elif np.shape(features)[-1:] != S.shape[-1:]:
        raise ValueError(
            f"features have shape {np.shape(features)}, but S has {S.shape[-1]} frames"
        )
    indices, counts = nearest_frames(
        features,
        width=width,
        k=k,
        neighbors=neighbors,
        progress=piece_of(progress, 0, _SHARE_OF_NEAREST),
    )
    return median_over_neighbors(
        S, indices, counts, progress=piece_of(progress, _SHARE_OF_NEAREST, 1)
    )


def default_k(frames: int, width: int) -> int:
    """Return librosa's number of neighbours: 2 * ceil(sqrt(frames - 2 * width + 1))."""
    return 2 * ceil(sqrt(frames - 2 * width + 1))


def nearest_frames(
    S: NDArray[np.float32],
    *,
    width: int,
    k: int | None = None,
    neighbors: Neighbors = "librosa",
    progress: Progress = unheard,
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Find the frames that resemble each frame, by the cosine of the angle between them.

    Parameters
    ----------
    S
        ndarray of float32, shape (dims, frames) or (channels, dims, frames)
        Finite. Channels are joined, so that a frame is one vector.
    width : int, in frames
        Frames less than this far in time are no neighbours. At least 1.
    k : int, optional
        Neighbours to a frame, at most; by default `default_k(frames, width)`.
    neighbors
        {"librosa", "nearest"}
        "librosa" does as librosa does: of the `k + 2 * width` nearest frames (all but one, if there
        are not so many) those not excluded by `width`, and of these *the first `k` in time*. Up
        to 11585 frames it holds the whole similarity matrix, at most 537 MB, because a product of
        blocks would round differently.
        "nearest" keeps the `k` nearest of the frames not excluded by `width`; of equally near ones
        the earliest. It holds 512 rows of the matrix, or all of it up to 134 MB.
    progress : callable, optional
        Is told how much is done, as a share that rises to 1.

    Returns
    -------
    indices : ndarray of int32, shape (frames, most)
        Row i holds the neighbours of frame i in time order, then zeros; `most` is at most `k`.
    counts : ndarray of int32, shape (frames,)
        How many neighbours frame i has.

    Raises
    ------
    TooShortAudioError
        If `width` is not less than `(frames - 1) // 2`.
    ValueError
        If `width`, `k`, `neighbors` or the shape is wrong.
    """
    S = np.asarray(S, dtype=np.float32)
    _check_shape(S)
    frames = S.shape[-1]
    k = _check_neighborhood(frames, width, k)
    if neighbors not in ("librosa", "nearest"):
        raise ValueError(f"neighbors is {neighbors!r}, but must be 'librosa' or 'nearest'")
    indices = np.zeros((frames, min(k, frames - 1)), np.int32)
    counts = np.zeros(frames, np.int32)
    if neighbors == "nearest":
        unit = _unit_frames(S, multiple=_STEADY_COLUMNS)
        rows = frames if 4 * frames**2 <= _SMALL_MATRIX else _ROWS
        for start, similarity in _rows(unit, 0, frames, rows):
            _select_nearest(similarity, start, width, indices, counts)
            progress((start + len(similarity)) / frames)
    else:
        _fill_like_librosa(_unit_frames(S), width, k, indices, counts, progress)
    return indices, counts


def median_over_neighbors(
    S: NDArray[np.float32],
    indices: NDArray[np.int32],
    counts: NDArray[np.int32],
    *,
    progress: Progress = unheard,
) -> NDArray[np.float32]:
    """Take the median over each frame's neighbours, bin by bin, exactly as `np.median` does.

    Parameters
    ----------
    S
        ndarray of float32, shape (bins, frames) or (channels, bins, frames)
        Finite.
    indices
        ndarray of int32, shape (frames, most)
        The neighbours of frame i are `indices[i, :counts[i]]`, all different.
    counts
        ndarray of int32, shape (frames,)
        How many neighbours frame i has; a frame without any is copied.
    progress : callable, optional
        Is told how much is done, as a share that rises to 1.

    Returns
    -------
    ndarray of float32, same shape and memory order as `S`

    Raises
    ------
    ValueError
        If shapes do not fit, or an index lies outside the frames.
    """
    S = np.asarray(S, dtype=np.float32)
    _check_shape(S)
    frames = S.shape[-1]
    _check_neighbors(frames, indices, counts)
    result = np.empty_like(S)
    ranks = np.zeros((frames, _BINS), np.uint16 if frames <= 2**16 - 1 else np.uint32)
    values = np.zeros((_BINS, frames), np.float32)
    medians = np.empty((frames, _BINS), np.float32)
    search = _search_medians_16 if ranks.dtype == np.uint16 else _search_medians_32
    channels = list(np.ndindex(S.shape[:-2]))
    for index, channel in enumerate(channels):
        for start in range(0, S.shape[-2], _BINS):
            bins = slice(start, min(start + _BINS, S.shape[-2]))
            _rank(np.ascontiguousarray(S[channel][bins]), ranks, values)
            search(ranks, values, indices, counts, (frames - 1).bit_length(), medians)
            result[channel][bins] = medians[:, : bins.stop - bins.start].T
            progress((index + bins.stop / S.shape[-2]) / len(channels))
    return result


def _check_shape(S: NDArray[np.float32]) -> None:
    if S.ndim not in (2, 3):
        raise ValueError(
            f"the spectrogram has shape {S.shape}, but must be (bins, frames) or "
            "(channels, bins, frames)"
        )


def _check_neighborhood(frames: int, width: int, k: int | None) -> int:
    if width < 1:
        raise ValueError(f"width is {width} frames, but must be at least 1")
    if width >= (frames - 1) // 2:
        raise TooShortAudioError(
            f"{frames} frames are too few to leave out neighbours less than {width} frames away: "
            f"at least {2 * width + 3} are needed, or a width below {(frames - 1) // 2}"
        )
    if k is None:
        return default_k(frames, width)
    if k < 1:
        raise ValueError(f"k is {k} neighbours, but must be at least 1")
    return int(k)


def _check_neighbors(frames: int, indices: NDArray[np.int32], counts: NDArray[np.int32]) -> None:
    if indices.ndim != 2 or indices.shape[0] != frames or counts.shape != (frames,):
        raise ValueError(
            f"indices {indices.shape} and counts {counts.shape} do not belong to {frames} frames"
        )
    # The compiled loops do not look where they read.
    if indices.size and (indices.min() < 0 or indices.max() >= frames):
        raise ValueError(f"indices must lie in 0 … {frames - 1}")
    if counts.size and (counts.min() < 0 or counts.max() > indices.shape[1]):
        raise ValueError(f"counts must lie in 0 … {indices.shape[1]}")


# ---------------------------------------------------------------------------- phase 1: neighbours


def _unit_frames(S: NDArray[np.float32], multiple: int = 1) -> NDArray[np.float32]:
    """Return frames as rows of length 1, shape (frames, channels * dims), float32.

    It follows `sklearn.preprocessing.normalize`, which leaves frames next to silence as they are.
    Zeros are appended until the number of columns is a multiple of `multiple`.
    """
    frames, dims = S.shape[-1], S[..., 0].size
    rows = np.zeros((frames, dims + -dims % multiple), np.float32)
    rows[:, :dims].reshape(frames, *S.shape[:-1])[...] = np.moveaxis(S, -1, 0)
    norms = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    norms[norms < 10 * np.finfo(np.float32).eps] = 1
    rows /= norms[:, None]
    return rows


def _rows(
    unit: NDArray[np.float32], first: int, stop: int, rows: int
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Yield the similarity matrix's rows first … stop - 1 in blocks, each with its first row."""
    while first < stop:
        # A single row would be computed by another BLAS routine, which rounds differently.
        last = stop if stop - first <= rows + 1 else first + rows
        yield first, unit[first:last] @ unit.T
        first = last


def _sklearn_rows(
    unit: NDArray[np.float32],
) -> Iterator[tuple[int, NDArray[np.float32], bool]]:
    """Yield blocks of the similarity matrix, with their first row, rounded as in scikit-learn.

    If all distances fit into its working memory, scikit-learn computes unit @ unit.T at once, for
    which numpy calls syrk; otherwise gemm computes them in chunks. The two sum in different order.
    Only the first way sets a frame's distance to itself to zero, as the third item tells.
    """
    frames = len(unit)
    chunk = max(1, _SKLEARN_WORKING_MEMORY // (8 * frames))
    if chunk >= frames:
        yield 0, unit @ unit.T, True
        return
    for first in range(0, frames, chunk):
        for start, similarity in _rows(unit, first, min(first + chunk, frames), _ROWS):
            yield start, similarity, False


def _fill_like_librosa(
    unit: NDArray[np.float32],
    width: int,
    k: int,
    indices: NDArray[np.int32],
    counts: NDArray[np.int32],
    progress: Progress,
) -> None:
    n = min(len(unit) - 1, k + 2 * width) + 1  # and the frame itself
    for start, similarity, zero_diagonal in _sklearn_rows(unit):
        undecided = np.zeros(len(similarity), np.bool_)
        _select_like_librosa(similarity, start, zero_diagonal, n, width, indices, counts, undecided)
        for row in np.flatnonzero(undecided):
            frame = start + int(row)
            found = _neighbors_like_sklearn(similarity[row], frame, zero_diagonal, n)
            found = found[np.abs(found - frame) >= width][: indices.shape[1]]
            indices[frame, : len(found)] = found
            counts[frame] = len(found)
        progress((start + len(similarity)) / len(unit))


def _neighbors_like_sklearn(
    similarity: NDArray[np.float32], frame: int, zero_diagonal: bool, n: int
) -> NDArray[np.intp]:
    """Return the n - 1 nearest of all other frames, in time order, where ties must be broken.

    Which of equally near frames are taken is up to `np.argpartition`: there is nothing to do but
    to call it on the same numbers, as `NearestNeighbors.kneighbors` does.
    """
    distance = similarity * np.float32(-1)
    distance += 1
    distance = np.clip(distance, 0.0, 2.0)
    if zero_diagonal:
        distance[frame] = 0.0
    found = np.argpartition(distance, n - 1)[:n]
    found = found[np.argsort(distance[found])]
    others = found != frame
    if others.all():
        others[0] = False
    return np.sort(found[others])


@compiled(numba.njit, nogil=True)
def _measure(similarity: NDArray[np.float32], distance: NDArray[np.int32]) -> None:
    """Turn a row of similarities into distances, in units of 2**-24."""
    for j in range(len(similarity)):
        d = np.float32(1) - similarity[j]
        d = d if d > np.float32(0) else np.float32(0)
        d = d if d < np.float32(2) else np.float32(2)
        distance[j] = np.int32(d * _UNITS)


@compiled(numba.njit, nogil=True)
def _threshold(
    distance: NDArray[np.int32], n: int, high: NDArray[np.int32], low: NDArray[np.int32]
) -> tuple[int, int, int]:
    """Return the n-th smallest distance, and how many are smaller and how many are equal."""
    high[:] = 0
    for d in distance:
        high[d >> _LOW_BITS] += 1
    smaller = 0
    prefix = 0
    while smaller + high[prefix] < n:
        smaller += high[prefix]
        prefix += 1
    low[:] = 0
    for d in distance:
        if d >> _LOW_BITS == prefix:
            low[d & ((1 << _LOW_BITS) - 1)] += 1
    suffix = 0
    while smaller + low[suffix] < n:
        smaller += low[suffix]
        suffix += 1
    return (prefix << _LOW_BITS) + suffix, smaller, low[suffix]


@compiled(numba.njit, nogil=True)
def _select_like_librosa(
    similarity: NDArray[np.float32],
    start: int,
    zero_diagonal: bool,
    n: int,
    width: int,
    indices: NDArray[np.int32],
    counts: NDArray[np.int32],
    undecided: NDArray[np.bool_],
) -> None:
    """Pick neighbours from rows of similarities, the first of which belongs to frame `start`.

    `undecided` rows are left to `_neighbors_like_sklearn`: those where equal distances straddle
    the n-th place, or where n frames are nearer to the frame than it is to itself.
    """
    distance = np.empty(similarity.shape[1], np.int32)
    high = np.empty((_EXCLUDED >> _LOW_BITS) + 1, np.int32)
    low = np.empty(1 << _LOW_BITS, np.int32)
    for row in range(len(similarity)):
        frame = start + row
        _measure(similarity[row], distance)
        if zero_diagonal:
            distance[frame] = 0
        limit, smaller, equal = _threshold(distance, n, high, low)
        if smaller + equal > n or distance[frame] > limit:
            undecided[row] = True
            continue
        # librosa means to keep the k nearest of these, but sorts them by a matrix of ones, and
        # so keeps the first k in time.
        count = 0
        for j in range(len(distance)):
            if distance[j] <= limit and abs(j - frame) >= width:
                indices[frame, count] = j
                count += 1
                if count == indices.shape[1]:
                    break
        counts[frame] = count


@compiled(numba.njit, nogil=True)
def _select_nearest(
    similarity: NDArray[np.float32],
    start: int,
    width: int,
    indices: NDArray[np.int32],
    counts: NDArray[np.int32],
) -> None:
    """Pick the nearest frames from rows of similarities, the first of which is of frame `start`."""
    frames = similarity.shape[1]
    distance = np.empty(frames, np.int32)
    high = np.empty((_EXCLUDED >> _LOW_BITS) + 1, np.int32)
    low = np.empty(1 << _LOW_BITS, np.int32)
    for row in range(len(similarity)):
        frame = start + row
        _measure(similarity[row], distance)
        near = max(0, frame - width + 1)
        far = min(frames, frame + width)
        distance[near:far] = _EXCLUDED
        n = min(indices.shape[1], frames - (far - near))
        limit, smaller, _ = _threshold(distance, n, high, low)
        equal = n - smaller
        count = 0
        for j in range(frames):
            if distance[j] < limit or (distance[j] == limit and equal > 0):
                equal -= distance[j] == limit
                indices[frame, count] = j
                count += 1
        counts[frame] = count


# ------------------------------------------------------------------------------- phase 2: medians


@compiled(numba.njit, nogil=True)
def _rank(
    values: NDArray[np.float32], ranks: NDArray[np.uint16], ordered: NDArray[np.float32]
) -> None:
    """Rank each row of `values` (bins, frames): `ordered[b, ranks[i, b]] == values[b, i]`.

    A radix sort by 11 bits at a time; equal values are ranked in time order.
    """
    bins, frames = values.shape
    bits = values.view(np.uint32)
    ordered_bits = ordered.view(np.uint32)
    keys = np.empty((2, frames), np.uint32)
    times = np.empty((2, frames), np.uint32)
    histogram = np.empty((3, 2048), np.uint32)
    for b in range(bins):
        histogram[:] = 0
        for i in range(frames):
            # So that unsigned integers are in the order of the floats, negative ones included.
            x = bits[b, i]
            x ^= np.uint32(0xFFFFFFFF) if x >> np.uint32(31) else np.uint32(0x80000000)
            keys[0, i] = x
            times[0, i] = i
            histogram[0, x & np.uint32(2047)] += np.uint32(1)
            histogram[1, (x >> np.uint32(11)) & np.uint32(2047)] += np.uint32(1)
            histogram[2, x >> np.uint32(22)] += np.uint32(1)
        for digit in range(3):
            total = np.uint32(0)
            for h in range(2048):
                count = histogram[digit, h]
                histogram[digit, h] = total
                total += count
        for digit in range(2):
            shift = np.uint32(11 * digit)
            source, target = digit & 1, 1 - (digit & 1)
            for i in range(frames):
                x = keys[source, i]
                h = (x >> shift) & np.uint32(2047)
                place = histogram[digit, h]
                histogram[digit, h] = place + np.uint32(1)
                keys[target, place] = x
                times[target, place] = times[source, i]
        for i in range(frames):
            x = keys[0, i]
            h = x >> np.uint32(22)
            place = histogram[2, h]
            histogram[2, h] = place + np.uint32(1)
            ranks[times[0, i], b] = place
            x ^= np.uint32(0x80000000) if x >> np.uint32(31) else np.uint32(0xFFFFFFFF)
            ordered_bits[b, place] = x


def _median_search(integer: Any) -> Any:
    """Compile the search for median ranks of one integer type."""

    @compiled(numba.njit, nogil=True)
    def search(
        ranks: NDArray[Any],
        values: NDArray[np.float32],
        indices: NDArray[np.int32],
        counts: NDArray[np.int32],
        rank_bits: int,
        medians: NDArray[np.float32],
    ) -> None:
        near = np.empty((indices.shape[1], _BINS), integer)
        lower = np.empty(_BINS, integer)
        other = np.empty(_BINS, integer)
        below = np.empty(_BINS, integer)
        for frame in range(len(counts)):
            k = counts[frame]
            if k == 0:
                for b in range(_BINS):
                    medians[frame, b] = values[b, ranks[frame, b]]
                continue
            for n in range(k):
                neighbor = indices[frame, n]
                for b in range(_BINS):
                    near[n, b] = ranks[neighbor, b]
            # The lower median is the largest rank that at most `half` neighbours lie below.
            half = integer((k - 1) // 2)
            for b in range(_BINS):
                lower[b] = 0
            for bit in range(rank_bits - 1, -1, -1):
                step = integer(1 << bit)
                for b in range(_BINS):
                    other[b] = integer(lower[b] + step)
                    below[b] = 0
                # Eight at a time, as adding up in memory costs more than comparing; each sum is
                # cast back because numba would widen it.
                whole = k - k % 8
                for n in range(0, whole, 8):
                    for b in range(_BINS):
                        r = other[b]
                        below[b] = integer(
                            below[b]
                            + integer(near[n, b] < r)
                            + integer(near[n + 1, b] < r)
                            + integer(near[n + 2, b] < r)
                            + integer(near[n + 3, b] < r)
                            + integer(near[n + 4, b] < r)
                            + integer(near[n + 5, b] < r)
                            + integer(near[n + 6, b] < r)
                            + integer(near[n + 7, b] < r)
                        )
                for n in range(whole, k):
                    for b in range(_BINS):
                        below[b] = integer(below[b] + integer(near[n, b] < other[b]))
                # Both are read before the choice, or it would become a branch.
                for b in range(_BINS):
                    r, stay = other[b], lower[b]
                    lower[b] = r if below[b] <= half else stay
            if k % 2 == 1:
                for b in range(_BINS):
                    medians[frame, b] = values[b, lower[b]]
                continue
            # The upper median is the next rank that occurs.
            for b in range(_BINS):
                other[b] = ranks.shape[0]
            for n in range(k):
                for b in range(_BINS):
                    r, stay = near[n, b], other[b]
                    other[b] = r if (r > lower[b]) & (r < stay) else stay
            for b in range(_BINS):
                total = values[b, lower[b]] + values[b, other[b]]
                medians[frame, b] = total * np.float32(0.5)

    return search


_search_medians_16 = _median_search(numba.uint16)
_search_medians_32 = _median_search(numba.uint32)
