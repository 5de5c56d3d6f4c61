"""What many tracks' scores say: medians with confidence intervals, and two systems side by side."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
RESAMPLES = 10_000
SEED = 0


@dataclass(frozen=True)
class Summary:
    """Scores of many tracks.

    Attributes
    ----------
    tracks
        how many have a score
    undefined
        how many have none, such as those whose reference is silent
    median, mean
        over tracks; None if there are none
    low, high
        of the median's confidence interval; None of less than two tracks
    """

    tracks: int
    undefined: int
    median: float | None
    mean: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Comparison:
    """One system against another, track by track.

    Attributes
    ----------
    tracks
        that both have a score of
    better, worse
        how many of them the first has the higher, the lower score of
    median_difference
        the first's score less the other's
    low, high
        of its confidence interval
    p_value
        of the Wilcoxon signed-rank test, two-sided: how likely such differences are if neither
        system is better; None if no track differs
    """

    tracks: int
    better: int
    worse: int
    median_difference: float | None
    low: float | None
    high: float | None
    p_value: float | None


def summarize(scores: Sequence[float]) -> Summary:
    """The median of tracks, and the interval that it lies in when tracks are drawn anew.

    A percentile bootstrap over tracks of 10,000 draws, always the same ones.

    Parameters
    ----------
    scores
        one a track; nan where it is undefined
    """
    values = np.asarray(scores, np.float64)
    defined = values[~np.isnan(values)]
    if not defined.size:
        return Summary(0, values.size, None, None, None, None)
    low, high = _interval(defined)
    return Summary(
        tracks=defined.size,
        undefined=values.size - defined.size,
        median=float(np.median(defined)),
        mean=float(np.mean(defined)),
        low=low,
        high=high,
    )


def compare(first: Sequence[float], second: Sequence[float]) -> Comparison:
    """How the scores of two systems differ on the same tracks.

    Parameters
    ----------
    first, second
        one a track, in the same order; nan where it is undefined: such tracks are left out
    """
    differences = np.asarray(first, np.float64) - np.asarray(second, np.float64)
    differences = differences[~np.isnan(differences)]
    if not differences.size:
        return Comparison(0, 0, 0, None, None, None, None)
    low, high = _interval(differences)
    differs = bool(np.any(differences))
    return Comparison(
        tracks=differences.size,
        better=int(np.sum(differences > 0)),
        worse=int(np.sum(differences < 0)),
        median_difference=float(np.median(differences)),
        low=low,
        high=high,
        p_value=float(stats.wilcoxon(differences).pvalue) if differs else None,
    )


def _interval(values: np.ndarray) -> tuple[float | None, float | None]:
    if values.size < 2:
        return None, None
    found = stats.bootstrap(
        (values,),
        np.median,
        n_resamples=RESAMPLES,
        batch=max(1, 10_000_000 // values.size),
        confidence_level=CONFIDENCE,
        method="percentile",
        random_state=np.random.default_rng(SEED),
    ).confidence_interval
    return float(found.low), float(found.high)
