"""Signals that are scored together, brought to one form and read block by block."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ..audio.channels import as_many, can_become
from ..audio.resampling import resampled_range, rounded_length
from ..models.datasets.shard_track import ShardTrack
from ..models.datasets.stem_folders import DatasetError
from ..models.evaluation.measures import ScoringSettings
from ..models.evaluation.scoring import Reader, TrackScores, score_track
from .records import Track
from .track_files import TrackFiles

# What is decoded at a time, so that memory does not grow with the length of a track.
BLOCK_S = 30.0
# Encoders add some samples, or leave some out.
MOST_DIFFERENCE_S = 0.5


class Shape(Protocol):
    """What a header tells of a signal."""

    @property
    def sample_rate(self) -> int: ...
    @property
    def channels(self) -> int: ...
    @property
    def frames(self) -> int: ...


class Signal(Shape, Protocol):
    """What can be read of a track, at its own rate and others."""

    def read(self, *, sample_rate: int, channels: int, start: int, stop: int) -> np.ndarray:
        """A range at another rate, with other channels."""


class FileSignal:
    """A file of sound."""

    def __init__(self, files: TrackFiles, track: Track) -> None:
        info = track.recording.info
        self.sample_rate, self.channels, self.frames = (
            info.sample_rate,
            info.channels,
            info.frames,
        )
        self.files, self.track = files, track

    def read(self, *, sample_rate: int, channels: int, start: int, stop: int) -> np.ndarray:
        """A range at another rate, with other channels."""
        return self.files.read(
            self.track,
            sample_rate=sample_rate,
            channels=channels,
            start_sample=start,
            stop_sample=stop,
        )


class ShardSignal:
    """A stem in a shard; all references have its rate and channels."""

    def __init__(self, track: ShardTrack, row: int) -> None:
        self.sample_rate, self.channels = track.sample_rate, track.channels
        self.frames = track.frames
        self.track, self.row = track, row

    def read(self, *, sample_rate: int, channels: int, start: int, stop: int) -> np.ndarray:
        """A range of the row."""
        return self.track.read(self.row, start, stop)


class HeldSignal:
    """What is in memory: float32 `(channels, samples)`."""

    def __init__(self, samples: np.ndarray, sample_rate: int) -> None:
        self.samples, self.sample_rate = samples, sample_rate
        self.channels, self.frames = samples.shape

    def read(self, *, sample_rate: int, channels: int, start: int, stop: int) -> np.ndarray:
        """A range at another rate, with other channels."""
        return resampled_range(
            lambda first, last: as_many(self.samples[:, first:last], channels),
            samples=self.frames,
            sample_rate=self.sample_rate,
            rate=sample_rate,
            start_sample=start,
            stop_sample=stop,
        )


class Excerpt:
    """A range of a signal, in samples of its own."""

    def __init__(self, signal: Signal, start_sample: int, frames: int) -> None:
        self.signal, self.start_sample = signal, start_sample
        self.sample_rate, self.channels = signal.sample_rate, signal.channels
        self.frames = max(0, min(frames, signal.frames - start_sample))

    def read(self, *, sample_rate: int, channels: int, start: int, stop: int) -> np.ndarray:
        """A range at another rate, with other channels."""
        first = rounded_length(self.start_sample, self.sample_rate, sample_rate)
        return self.signal.read(
            sample_rate=sample_rate, channels=channels, start=first + start, stop=first + stop
        )


@dataclass(frozen=True)
class Form:
    """What all signals of a track are brought to: that of its references."""

    sample_rate: int
    samples: int
    channels: int

    @classmethod
    def of(cls, references: Sequence[Shape]) -> "Form":
        """The highest rate and most channels that there are, up to the end of the shortest."""
        rate = max(each.sample_rate for each in references)
        lengths = [rounded_length(each.frames, each.sample_rate, rate) for each in references]
        return cls(rate, min(lengths), max(each.channels for each in references))

    def require(self, shape: Shape, name: str) -> None:
        """Raise DatasetError where a file is of something else than its references."""
        if not can_become(shape.channels, self.channels):
            raise DatasetError(
                f"{name}: has {shape.channels} channels, its references have {self.channels}"
            )
        seconds = shape.frames / shape.sample_rate - self.samples / self.sample_rate
        if abs(seconds) > MOST_DIFFERENCE_S:
            raise DatasetError(
                f"{name}: is {abs(seconds):.2f} s {'longer' if seconds > 0 else 'shorter'} than "
                "its references: is it of another recording, or of an excerpt?"
            )

    def reader(self, signal: Signal) -> Reader:
        """A signal in this form, read block by block; what is missing at its end is silent."""
        there = min(
            rounded_length(signal.frames, signal.sample_rate, self.sample_rate), self.samples
        )
        block = round(BLOCK_S * self.sample_rate)
        held = 0, np.zeros((self.channels, 0), np.float32)

        def read(start: int, stop: int) -> np.ndarray:
            nonlocal held
            first, samples = held
            if not first <= start <= stop <= first + samples.shape[-1]:
                held = first, samples = start, whole(start, max(stop, start + block))
            return samples[:, start - first : stop - first]

        def whole(start: int, stop: int) -> np.ndarray:
            stop = min(stop, self.samples)
            samples = np.zeros((self.channels, stop - start), np.float32)
            if start < there:
                found = signal.read(
                    sample_rate=self.sample_rate,
                    channels=self.channels,
                    start=start,
                    stop=min(stop, there),
                )
                samples[:, : found.shape[-1]] = found
            return samples

        return read

    def score(
        self,
        references: Mapping[str, Reader],
        estimates: Mapping[str, Reader],
        mixture: Reader,
        settings: ScoringSettings,
    ) -> TrackScores:
        """The scores of signals in this form."""
        return score_track(
            references,
            estimates,
            mixture,
            settings,
            sample_rate=self.sample_rate,
            samples=self.samples,
            channels=self.channels,
        )


def summed(readers: list[Reader]) -> Reader:
    """The sum of signals."""
    if len(readers) == 1:
        return readers[0]
    return lambda start, stop: np.sum([read(start, stop) for read in readers], axis=0)
