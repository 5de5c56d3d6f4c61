"""All measures of one track, read piece by piece."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from . import bsseval, perceptual
from .bsseval import BssEval
from .distortion import RATIOS, SignalSums
from .errors import EvaluationError
from .framing import FloatArray, FrameGrid, Stretch, stretches
from .measures import (
    BSSEVAL,
    LOWER_IS_BETTER,
    SPECTRAL_DISTANCE,
    WITHOUT_IMPROVEMENT,
    ScoringSettings,
)
from .perceptual import PerceptualScore
from .spectral import SpectralDistance

# Of (start_sample, stop_sample): (channels, samples).
Reader = Callable[[int, int], np.ndarray]
# Indices of a reference and of an estimate of it, among the signals.
Pair = tuple[int, int]


@dataclass(frozen=True)
class MeasureScores:
    """What one measure says of one stem.

    Undefined values are nan. Improvements are those over the mixture, as if it were the estimate:
    positive ones are good. That of the track is the difference of the two values of the track.

    Attributes
    ----------
    track : of the whole; of BSSEval, which has none, the median of the defined frames, as in SiSEC
    frames : of each, none by PESQ and STOI
    """

    track: float
    frames: list[float]
    track_improvement: float
    frames_improvement: list[float]

    @property
    def undefined_frames(self) -> int:
        """How many frames have no value."""
        return sum(math.isnan(value) for value in self.frames)


@dataclass(frozen=True)
class StemScores:
    """What is said of one stem.

    Attributes
    ----------
    measures : by name
    silent_reference_frames, silent_estimate_frames
        how many frames hold nothing but zeros
    """

    measures: dict[str, MeasureScores]
    silent_reference_frames: int
    silent_estimate_frames: int


@dataclass(frozen=True)
class TrackScores:
    """What is said of a track.

    Attributes
    ----------
    frames : how many there are
    stems : by name
    """

    frames: int
    stems: dict[str, StemScores]

    def to_plain(self) -> dict[str, Any]:
        """As JSON has it: what is undefined, or infinite, is None."""
        return {
            "frames": self.frames,
            "stems": {
                stem: {
                    "silent_reference_frames": scores.silent_reference_frames,
                    "silent_estimate_frames": scores.silent_estimate_frames,
                    "measures": {
                        name: _plain_measure(each) for name, each in scores.measures.items()
                    },
                }
                for stem, scores in self.stems.items()
            },
        }


def _plain_measure(scores: MeasureScores) -> dict[str, Any]:
    return {
        "track": _plain(scores.track),
        "frames": [_plain(value) for value in scores.frames],
        "track_improvement": _plain(scores.track_improvement),
        "frames_improvement": [_plain(value) for value in scores.frames_improvement],
        "undefined_frames": scores.undefined_frames,
    }


def _plain(value: float) -> float | None:
    return value if math.isfinite(value) else None


def score_track(
    references: Mapping[str, Reader],
    estimates: Mapping[str, Reader],
    mixture: Reader | None,
    settings: ScoringSettings,
    *,
    sample_rate: int,
    samples: int,
    channels: int,
) -> TrackScores:
    """Score the estimates of a track.

    The track is read once, from its start to its end, and a second time for BSSEval. No more of it
    is held than a frame, and for PESQ and STOI 15 s. How much is read at once depends on the frames
    alone, so that the scores are the same to the bit on all machines of a kind whose libraries use
    as many threads.

    Parameters
    ----------
    references
        Of each true stem. What is no reference of an estimate is no stem to score, but BSSEval
        finds it as interference in others.
    estimates
        of some of the stems, or all
    mixture
        None is the sum of the references
    settings
        what to measure
    sample_rate, samples, channels
        of all of them; Hz, and the length of the track

    Raises
    ------
    EvaluationError
        there are no estimates or no samples, an estimate has no reference, what is read has another
        shape, or a measure needs a package that is not installed
    """
    perceptual.require_installed(settings.measures)
    signals = _Signals(references, estimates, mixture, samples=samples, channels=channels)
    grid = FrameGrid(
        samples,
        max(1, round(settings.frame_s * sample_rate)),
        max(1, round(settings.hop_s * sample_rate)),
    )
    measures = _made(settings, signals, grid, sample_rate=sample_rate)
    silence = np.zeros((signals.count, len(grid)), bool)
    for stretch in stretches(grid, signals.read):
        silence[:, stretch.index] = ~stretch.frame.any(axis=(1, 2))
        for measure in measures:
            measure.add(stretch)
    values = {name: each for measure in measures for name, each in measure.finished().items()}
    return TrackScores(
        frames=len(grid),
        stems={
            stem: StemScores(
                measures={
                    name: _of_stem(name, each, index, len(estimates))
                    for name, each in values.items()
                },
                silent_reference_frames=int(silence[signals.pairs[index][0]].sum()),
                silent_estimate_frames=int(silence[signals.pairs[index][1]].sum()),
            )
            for index, stem in enumerate(signals.scored)
        },
    )


# Of a measure: those of the whole track `(pairs,)`, and of its frames `(pairs, frames)`.
Values = tuple[FloatArray, FloatArray]


def _of_stem(name: str, values: Values, index: int, stems: int) -> MeasureScores:
    """Pairs with estimates come first, then those with the mixture."""
    (track, of_mixture), (frames, frames_of_mixture) = (each[index::stems] for each in values)
    sign = -1.0 if name in LOWER_IS_BETTER else 1.0
    if name in WITHOUT_IMPROVEMENT:
        sign = math.nan
    with np.errstate(invalid="ignore"):  # infinity against infinity is no improvement
        return MeasureScores(
            track=float(track),
            frames=frames.tolist(),
            track_improvement=float(sign * (track - of_mixture)),
            frames_improvement=(sign * (frames - frames_of_mixture)).tolist(),
        )


class _Signals:
    """References, then estimates, then the mixture, read together.

    Attributes
    ----------
    count : of the signals
    scored : names of the stems with an estimate, in the order of the references
    pairs : of each such stem with its estimate, then of each with the mixture
    """

    def __init__(
        self,
        references: Mapping[str, Reader],
        estimates: Mapping[str, Reader],
        mixture: Reader | None,
        *,
        samples: int,
        channels: int,
    ) -> None:
        unknown = sorted(set(estimates) - set(references))
        if unknown:
            raise EvaluationError(
                f"there is no reference of {', '.join(unknown)}: there are "
                f"{', '.join(references) or 'none'}"
            )
        if not estimates or samples < 1:
            raise EvaluationError(
                f"there is nothing to score: {len(estimates)} estimates of {samples} samples"
            )
        self.references = len(references)
        self.channels = channels
        self.scored = [stem for stem in references if stem in estimates]
        self._readers = [
            *((f"the reference of {stem}", read) for stem, read in references.items()),
            *((f"the estimate of {stem}", estimates[stem]) for stem in self.scored),
        ]
        self.count = len(self._readers) + 1
        if mixture is not None:
            self._readers.append(("the mixture", mixture))
        order = list(references)
        self.pairs: list[Pair] = [
            *((order.index(stem), len(order) + i) for i, stem in enumerate(self.scored)),
            *((order.index(stem), self.count - 1) for stem in self.scored),
        ]

    def read(self, start: int, stop: int) -> FloatArray:
        """`(signals, channels, samples)`."""
        block = np.empty((self.count, self.channels, stop - start))
        for index, (name, read) in enumerate(self._readers):
            samples = read(start, stop)
            if samples.shape != block.shape[1:]:
                raise EvaluationError(
                    f"{name} has {samples.shape} channels and samples from sample {start} to "
                    f"{stop}: all signals have {block.shape[1:]}"
                )
            block[index] = samples
        if len(self._readers) < self.count:
            block[-1] = block[: self.references].sum(axis=0)
        return block


class _Measure(Protocol):
    def add(self, stretch: Stretch) -> None:
        """Take what is read for the next frame."""

    def finished(self) -> dict[str, Values]:
        """Values by the names of measures."""


def _made(
    settings: ScoringSettings, signals: _Signals, grid: FrameGrid, *, sample_rate: int
) -> list[_Measure]:
    made: list[_Measure] = []
    ratios = [measure for measure in settings.measures if measure in RATIOS]
    if ratios:
        made.append(_Ratios(ratios, signals.pairs))
    if SPECTRAL_DISTANCE in settings.measures:
        made.append(_SpectralDistance(signals.pairs, grid))
    for measure in perceptual.SCORES:
        if measure in settings.measures:
            made.append(
                _Perceptual(measure, signals.pairs, sample_rate=sample_rate, samples=grid.samples)
            )
    if BSSEVAL in settings.measures:
        made.append(_BssEval(signals, grid))
    return made


class _Ratios:
    def __init__(self, names: Sequence[str], pairs: Sequence[Pair]) -> None:
        self.names = names
        self.references, self.estimates = np.array(pairs).T
        self.track: SignalSums | None = None
        self.frames: dict[str, list[FloatArray]] = {name: [] for name in names}

    def add(self, stretch: Stretch) -> None:
        fresh = self._sums(stretch.fresh)
        self.track = fresh if self.track is None else self.track + fresh
        of_frame = self._sums(stretch.frame)
        for name, frames in self.frames.items():
            frames.append(RATIOS[name](of_frame))

    def finished(self) -> dict[str, Values]:
        assert self.track is not None, "no frame was taken"
        return {
            name: (RATIOS[name](self.track), np.stack(frames, axis=-1))
            for name, frames in self.frames.items()
        }

    def _sums(self, signals: FloatArray) -> SignalSums:
        return SignalSums.of(signals[self.estimates], signals[self.references])


class _BssEval:
    def __init__(self, signals: _Signals, grid: FrameGrid) -> None:
        self.signals, self.grid = signals, grid
        stems = len(signals.scored)
        self.first_pass = BssEval(
            signals.references,
            [signals.pairs[:stems], signals.pairs[stems:]],
            signals=signals.count,
            channels=signals.channels,
        )

    def add(self, stretch: Stretch) -> None:
        self.first_pass.add(stretch.fresh)

    def finished(self) -> dict[str, Values]:
        scorer = self.first_pass.solve(min(self.grid.frame_samples, self.grid.samples))
        frames = np.stack(
            [scorer.ratios(each.frame) for each in stretches(self.grid, self.signals.read)],
            axis=-1,
        )
        return {
            name: (_medians(of_frames), of_frames)
            for name, of_frames in zip(bsseval.NAMES, frames, strict=True)
        }


def _medians(frames: FloatArray) -> FloatArray:
    """Of the defined ones of each row; nan where there is none."""
    defined = (row[~np.isnan(row)] for row in frames)
    return np.array([np.median(row) if len(row) else np.nan for row in defined])


class _SpectralDistance:
    def __init__(self, pairs: Sequence[Pair], grid: FrameGrid) -> None:
        self.distance = SpectralDistance(pairs, grid)

    def add(self, stretch: Stretch) -> None:
        self.distance.add(stretch.fresh)

    def finished(self) -> dict[str, Values]:
        return {SPECTRAL_DISTANCE: self.distance.finished()}


class _Perceptual:
    def __init__(self, name: str, pairs: Sequence[Pair], *, sample_rate: int, samples: int) -> None:
        self.name = name
        self.score = PerceptualScore(name, pairs, sample_rate=sample_rate, samples=samples)

    def add(self, stretch: Stretch) -> None:
        self.score.add(stretch.fresh)

    def finished(self) -> dict[str, Values]:
        track = self.score.finished()
        return {self.name: (track, np.empty((len(track), 0)))}
