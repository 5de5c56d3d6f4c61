"""Statistics of features that come out the same in whatever order they are put together."""

import bisect
import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np

from ...audio.compiling import compiled

UNIT_LOG2 = -149
"""A float32 is a whole number of 2^-149, and its square of 2^-298."""
LIMB_BITS = 32
LIMBS, SQUARE_LIMBS = 9, 18
"""Of 32 bits, that the largest float32 and its square reach up to."""
MOST_VALUES = 2**29
"""That limbs of 64 bits take before what is above 32 bits is carried on."""
PRECISION_BITS = 72


@dataclass(frozen=True)
class BinSums:
    """Count, sums and sums of squares of the values in each bin of an array.

    Sums are whole numbers of a unit, added up exactly. So it makes no difference in what blocks the
    values come, nor in what order sums are merged: not in a bit. What comes of an array is rounded
    once, to 72 bits, which keeps it short: a deviation is wrong by 2e-11 of the values at most.

    Attributes
    ----------
    count
        values in each bin
    sums
        of the values of each bin, in units of 2^-149, which every float32 is a whole number of
    squares
        of their squares, in units of 2^-298
    """

    count: int
    sums: tuple[int, ...]
    squares: tuple[int, ...]

    @classmethod
    def of_blocks(cls, blocks: Iterable[np.ndarray]) -> "BinSums | None":
        """The sums of an array: of all its axes but the last; None if there is no block.

        Parameters
        ----------
        blocks
            float32 `(frames, …, bins)`

        Raises
        ------
        ValueError
            a value is infinite or no number, or blocks have other bins than the first
        """
        total: BinSums | None = None
        for block in blocks:
            values = np.ascontiguousarray(block.reshape(-1, block.shape[-1]), np.float32)
            for start in range(0, max(1, len(values)), MOST_VALUES):
                part = cls._of_values(values[start : start + MOST_VALUES])
                total = part if total is None else total + part
        return total and cls(total.count, _all_rounded(total.sums), _all_rounded(total.squares))

    @classmethod
    def _of_values(cls, values: np.ndarray) -> "BinSums":
        count, bins = values.shape
        sums = np.zeros((bins, LIMBS), np.int64)
        squares = np.zeros((bins, SQUARE_LIMBS), np.int64)
        if not _add(values.view(np.int32), sums, squares):
            raise ValueError("a value is infinite or no number")
        return cls(count, tuple(map(_whole, sums)), tuple(map(_whole, squares)))

    def __add__(self, other: "BinSums") -> "BinSums":
        """The sums of both; ValueError if they have other bins."""
        return BinSums(
            self.count + other.count,
            tuple(a + b for a, b in zip(self.sums, other.sums, strict=True)),
            tuple(a + b for a, b in zip(self.squares, other.squares, strict=True)),
        )

    @property
    def mean(self) -> np.ndarray:
        """Of each bin, float64 `(bins,)`; not a number where there are no values."""
        return self._divided(self.sums, self.count, UNIT_LOG2)

    @property
    def deviation(self) -> np.ndarray:
        """The standard deviation of each bin, of all values there are, float64 `(bins,)`."""
        # Exact up to here: the squares' mean and the mean's square may be almost the same.
        variances = tuple(
            square * self.count - total**2
            for total, square in zip(self.sums, self.squares, strict=True)
        )
        spread = self._divided(variances, self.count**2, 2 * UNIT_LOG2)
        return np.sqrt(np.maximum(spread, 0))

    @staticmethod
    def _divided(numerators: Iterable[int], denominator: int, unit_log2: int) -> np.ndarray:
        if not denominator:
            return np.array([math.nan for _ in numerators])
        scale = denominator << -unit_log2
        return np.array([numerator / scale for numerator in numerators], np.float64)

    def to_plain(self) -> dict[str, Any]:
        """What JSON can tell: sums in the largest units that leave them whole."""
        sums_log2, sums = _shortened(self.sums)
        squares_log2, squares = _shortened(self.squares)
        return {
            "count": self.count,
            "sums": sums,
            "sums_unit_log2": sums_log2 + UNIT_LOG2,
            "squares": squares,
            "squares_unit_log2": squares_log2 + 2 * UNIT_LOG2,
        }

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> "BinSums":
        """Those of `to_plain`.

        Raises
        ------
        ValueError, TypeError, KeyError
            they are none
        """
        sums_shift = plain["sums_unit_log2"] - UNIT_LOG2
        squares_shift = plain["squares_unit_log2"] - 2 * UNIT_LOG2
        return cls(
            plain["count"],
            tuple(each << sums_shift for each in plain["sums"]),
            tuple(each << squares_shift for each in plain["squares"]),
        )


@compiled(numba.njit, nogil=True)
def _add(bits: np.ndarray, sums: np.ndarray, squares: np.ndarray) -> bool:
    """Add values and their squares to limbs of 32 bits; False if one is not finite.

    Parameters
    ----------
    bits
        of float32 values, int32 `(values, bins)`
    sums, squares
        int64 `(bins, limbs)`, lowest limb first
    """
    mask = (1 << 32) - 1
    for row in range(bits.shape[0]):
        for column in range(bits.shape[1]):
            value = np.int64(bits[row, column])
            exponent = (value >> 23) & 0xFF
            if exponent == 0xFF:
                return False
            mantissa = value & 0x7FFFFF
            if exponent:
                mantissa |= 0x800000
                exponent -= 1
            limb, shift = exponent >> 5, exponent & 31
            low = (mantissa << shift) & mask
            high = mantissa << shift >> 32
            if value < 0:
                low, high = -low, -high
            sums[column, limb] += low
            sums[column, limb + 1] += high
            # 48 bits shifted by up to 31 are more than 64.
            square = mantissa * mantissa
            limb, shift = exponent >> 4, 2 * exponent & 31
            lower = (square & mask) << shift
            upper = (square >> 32) << shift
            squares[column, limb] += lower & mask
            squares[column, limb + 1] += (lower >> 32 & mask) + (upper & mask)
            squares[column, limb + 2] += upper >> 32
    return True


def _whole(limbs: np.ndarray) -> int:
    """The number that limbs make up."""
    return sum(limb << LIMB_BITS * place for place, limb in enumerate(limbs.tolist()))


def _all_rounded(numbers: Iterable[int]) -> tuple[int, ...]:
    return tuple(map(_rounded, numbers))


def _rounded(number: int) -> int:
    """The nearest number of so many bits, and zeros; halves go to the even one."""
    excess = max(0, number.bit_length() - PRECISION_BITS)
    if not excess:
        return number
    quotient, rest = divmod(number, 1 << excess)
    half = 1 << (excess - 1)
    return quotient + (rest > half or (rest == half and quotient & 1)) << excess


def _shortened(numbers: tuple[int, ...]) -> tuple[int, list[int]]:
    """The power of two that divides all numbers, and what is left of them."""
    together = 0
    for number in numbers:
        together |= abs(number)
    zeros = (together & -together).bit_length() - 1 if together else 0
    return zeros, [number >> zeros for number in numbers]


_STEPS = (1, 1.25, 1.6, 2, 2.5, 3.15, 4, 5, 6.3, 8)
EDGES_S = tuple(float(f"{step}e{decade}") for decade in range(-1, 5) for step in _STEPS)
"""From 0.1 to 80,000 s, ten a decade, as ISO 3 rounds them."""


@dataclass(frozen=True)
class DurationHistogram:
    """How many durations lie between edges that are the same for all.

    Attributes
    ----------
    counts
        below the first of `EDGES_S`, from each to the next, and from the last on
    """

    counts: tuple[int, ...] = (0,) * (len(EDGES_S) + 1)

    @classmethod
    def of(cls, durations_s: Iterable[float]) -> "DurationHistogram":
        """That of durations in seconds."""
        counts = [0] * (len(EDGES_S) + 1)
        for duration_s in durations_s:
            counts[bisect.bisect_right(EDGES_S, duration_s)] += 1
        return cls(tuple(counts))

    def __add__(self, other: "DurationHistogram") -> "DurationHistogram":
        """That of the durations of both."""
        return DurationHistogram(
            tuple(a + b for a, b in zip(self.counts, other.counts, strict=True))
        )

    def to_plain(self) -> list[dict[str, Any]]:
        """What JSON can tell: the counts that are not 0, with their edges in seconds."""
        edges = [0.0, *EDGES_S, None]
        return [
            {"from_s": low, "to_s": high, "count": count}
            for (low, high), count in zip(itertools.pairwise(edges), self.counts, strict=True)
            if count
        ]

    @classmethod
    def from_plain(cls, plain: list[dict[str, Any]]) -> "DurationHistogram":
        """That of `to_plain`; ValueError, TypeError or KeyError if it is none."""
        starts = [0.0, *EDGES_S]
        counts = [0] * len(starts)
        for each in plain:
            counts[starts.index(each["from_s"])] += each["count"]
        return cls(tuple(counts))
