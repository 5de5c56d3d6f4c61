"""Medians, intervals and comparisons over tracks, against scipy."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from beamsplitter.models.evaluation.statistics import compare, summarize

SCORES = st.lists(st.floats(-30, 30) | st.just(math.nan), min_size=1, max_size=30)


@settings(deadline=None, max_examples=30)
@given(SCORES)
def test_the_median_lies_in_its_interval(scores: list[float]) -> None:
    found = summarize(scores)
    defined = [score for score in scores if not math.isnan(score)]
    assert found.tracks == len(defined)
    assert found.undefined == len(scores) - len(defined)
    if len(defined) < 2:
        assert found.low is found.high is None
        return
    assert found.median == pytest.approx(np.median(defined))
    assert found.mean == pytest.approx(np.mean(defined))
    assert found.low is not None and found.high is not None
    assert min(defined) <= found.low <= found.median + 1e-9
    assert found.median - 1e-9 <= found.high <= max(defined)


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    covered = 0
    for _ in range(60):
        found = summarize(generator.normal(5, 2, 40))
        assert found.low is not None and found.high is not None
        covered += found.low <= 5 <= found.high
    assert 52 <= covered <= 60


def test_it_is_the_same_each_time() -> None:
    scores = list(np.random.default_rng(0).normal(size=20))
    assert summarize(scores) == summarize(scores)


def test_the_p_value_is_that_of_wilcoxon() -> None:
    generator = np.random.default_rng(1)
    second = generator.normal(5, 3, 25)
    first = second + generator.normal(0.5, 1, 25)
    found = compare(first, second)
    assert found.p_value == pytest.approx(stats.wilcoxon(first, second).pvalue)
    assert found.better + found.worse == found.tracks == 25
    assert found.median_difference == pytest.approx(np.median(first - second))
    mirrored = compare(second, first)
    assert mirrored.p_value == pytest.approx(found.p_value)
    assert mirrored.better == found.worse


def test_equal_systems_are_not_told_apart() -> None:
    found = compare([1, 2, 3], [1, 2, 3])
    assert found.median_difference == found.low == found.high == 0
    assert found.p_value is None
    assert found.better == found.worse == 0


def test_tracks_that_one_lacks_are_left_out() -> None:
    found = compare([1, math.nan, 3, 4], [0, 1, math.nan, 2])
    assert found.tracks == 2
    assert compare([math.nan], [1]).median_difference is None
