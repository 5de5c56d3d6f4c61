"""Statistics of features: exact, so the same in any order."""

import functools
import itertools
import json
import math
import operator
import random
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from beamsplitter.models.feature_sets import statistics
from beamsplitter.models.feature_sets.statistics import (
    EDGES_S,
    PRECISION_BITS,
    BinSums,
    DurationHistogram,
)

finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
any_values = hnp.arrays(
    np.float32, st.tuples(st.integers(0, 20), st.integers(1, 3)), elements=finite, fill=st.nothing()
)


def sums_of(*blocks: np.ndarray) -> BinSums:
    sums = BinSums.of_blocks(blocks)
    assert sums is not None
    return sums


def values_like(kind: str, frames: int = 500, bins: int = 5, seed: int = 0) -> np.ndarray:
    """float32 `(frames, bins)`, as features are."""
    generator = np.random.default_rng(seed)
    shape = (frames, bins)
    values = {
        "levels": generator.standard_normal(shape) * 20 - 40,
        "magnitudes": 10 ** generator.uniform(-10, 4, shape),
        "constant": np.broadcast_to(generator.uniform(-100, 100, bins), shape),
    }[kind]
    return values.astype(np.float32)


@given(values=any_values)
@settings(deadline=None)
def test_sums_are_exact_to_their_last_bit(values: np.ndarray) -> None:
    sums = sums_of(values)
    assert sums.count == len(values)
    for column, total, square in zip(values.T, sums.sums, sums.squares, strict=True):
        exact = [Fraction(float(value)) for value in column]
        for told, of in (
            (Fraction(total) / 2**149, sum(exact)),
            (Fraction(square) / 2**298, sum(value**2 for value in exact)),
        ):
            # What 72 bits hold is told without any error.
            if of.numerator.bit_length() <= PRECISION_BITS:
                assert told == of
            assert abs(told - of) <= abs(of) / 2**PRECISION_BITS


@given(values=any_values, seed=st.integers(0, 9), block=st.integers(1, 30))
@settings(deadline=None)
def test_blocks_and_the_order_of_values_make_no_difference(
    values: np.ndarray, seed: int, block: int
) -> None:
    shuffled = np.random.default_rng(seed).permutation(values)
    blocks = [shuffled[start : start + block] for start in range(0, len(shuffled), block)]
    if blocks:
        assert sums_of(*blocks) == sums_of(values)
    assert BinSums.of_blocks([]) is None


@pytest.mark.parametrize("kind", ["levels", "magnitudes", "constant"])
def test_the_order_of_recordings_makes_no_difference(kind: str) -> None:
    parts = [sums_of(values_like(kind, frames=3 + seed, seed=seed)) for seed in range(40)]
    wanted = functools.reduce(operator.add, parts).to_plain()
    for seed in range(20):
        chance = random.Random(seed)
        left = [*parts]
        # Any two are put together, as a combiner does, and some travel between processes.
        while len(left) > 1:
            chance.shuffle(left)
            merged = left.pop() + left.pop()
            left.append(BinSums.from_plain(json.loads(json.dumps(merged.to_plain()))))
        assert json.dumps(left[0].to_plain()) == json.dumps(wanted)


@pytest.mark.parametrize("kind", ["levels", "magnitudes", "constant"])
def test_means_and_deviations(kind: str) -> None:
    values = values_like(kind)
    merged = sums_of(values[:100]) + sums_of(values[100:])
    wide = values.astype(np.float64)
    np.testing.assert_allclose(
        merged.mean, [math.fsum(row) / len(row) for row in wide.T], rtol=1e-15
    )
    np.testing.assert_allclose(
        merged.deviation, wide.std(axis=0), rtol=1e-9, atol=1e-10 * np.abs(wide).max()
    )
    if kind == "constant":
        np.testing.assert_array_equal(merged.deviation, 0)


def test_features_of_channels_are_of_one_bin_each() -> None:
    values = values_like("levels", frames=60)
    assert sums_of(values.reshape(20, 3, 5)) == sums_of(values)


def test_what_limbs_take_is_carried_on(monkeypatch: pytest.MonkeyPatch) -> None:
    values = values_like("magnitudes")
    wanted = sums_of(values)
    monkeypatch.setattr(statistics, "MOST_VALUES", 7)
    assert sums_of(values) == wanted


def test_the_largest_values_of_all_fit() -> None:
    largest = np.finfo(np.float32).max
    sums = sums_of(np.full((1000, 1), -largest, np.float32))
    assert sums.mean == [-float(largest)]
    assert sums.deviation == [0]


def test_no_values_have_no_mean() -> None:
    sums = sums_of(np.zeros((0, 2), np.float32))
    assert (sums.count, sums.sums) == (0, (0, 0))
    assert np.isnan(sums.mean).all()
    assert np.isnan(sums.deviation).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_refused(value: float) -> None:
    values = values_like("levels")
    values[123, 2] = value
    with pytest.raises(ValueError, match="infinite or no number"):
        BinSums.of_blocks([values])


def test_other_bins_are_refused() -> None:
    with pytest.raises(ValueError):
        BinSums.of_blocks([np.zeros((1, 2), np.float32), np.zeros((1, 3), np.float32)])


@pytest.mark.parametrize("kind", ["levels", "magnitudes"])
def test_what_is_told_is_short(kind: str) -> None:
    """A spectrogram's sums are less than what a record may hold, 64 KiB."""
    text = json.dumps(sums_of(values_like(kind, bins=1025)).to_plain())
    assert len(text) < 55_000


@given(durations=st.lists(st.floats(0, 1e6)), place=st.integers(0, 50))
def test_histograms_are_numpys_and_can_be_put_together(durations: list[float], place: int) -> None:
    whole = DurationHistogram.of(durations)
    wanted, _ = np.histogram(durations, [-1, *EDGES_S, 1e9])
    assert list(whole.counts) == wanted.tolist()
    parts = DurationHistogram.of(durations[place:]), DurationHistogram.of(durations[:place])
    assert parts[0] + parts[1] == parts[1] + parts[0] == whole
    plain = json.loads(json.dumps(whole.to_plain()))
    assert DurationHistogram.from_plain(plain) == whole
    assert sum(each["count"] for each in plain) == len(durations)


def test_edges_of_durations_are_a_tenth_of_a_decade_apart() -> None:
    for low, high in itertools.pairwise(EDGES_S):
        assert high / low == pytest.approx(10**0.1, rel=0.02)
    assert DurationHistogram.from_plain([]) == DurationHistogram()
    with pytest.raises(ValueError):
        DurationHistogram.from_plain([{"from_s": 0.11, "count": 1}])
