"""Mean and deviation of the features of all recordings: WriteFeatureStatistics."""

import functools
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import apache_beam as beam

from ..models.feature_sets.recording_file import open_recording_file
from ..models.feature_sets.statistics import BinSums, DurationHistogram
from ..storage import OutputTree
from .records import FeatureFile

NAME = "features-statistics.json"
FORMAT = 1


@dataclass(frozen=True)
class FeatureStatistics:
    """What is told of the features of recordings.

    Attributes
    ----------
    recordings
        how many
    excerpts
        how long they are
    arrays
        sums of the values in each bin, by `set/signal`
    """

    recordings: int = 0
    excerpts: DurationHistogram = field(default_factory=DurationHistogram)
    arrays: dict[str, BinSums] = field(default_factory=dict)

    def __add__(self, other: "FeatureStatistics") -> "FeatureStatistics":
        """Those of the recordings of both."""
        arrays = {**self.arrays}
        for name, sums in other.arrays.items():
            arrays[name] = arrays[name] + sums if name in arrays else sums
        return FeatureStatistics(
            self.recordings + other.recordings, self.excerpts + other.excerpts, arrays
        )

    def told(self) -> dict[str, Any]:
        """What is written of them."""
        arrays = {
            name: {
                "values_per_bin": sums.count,
                "mean": sums.mean.tolist(),
                "deviation": sums.deviation.tolist(),
            }
            for name, sums in sorted(self.arrays.items())
        }
        return {
            "format": FORMAT,
            "recordings": self.recordings,
            "excerpt_durations": self.excerpts.to_plain(),
            "arrays": arrays,
        }


class StatisticsCoder(beam.coders.Coder):
    """Statistics as JSON: whole numbers of any length."""

    def encode(self, value: FeatureStatistics) -> bytes:
        """JSON bytes."""
        plain = {
            "recordings": value.recordings,
            "excerpts": value.excerpts.counts,
            "arrays": {name: sums.to_plain() for name, sums in value.arrays.items()},
        }
        return json.dumps(plain).encode()

    def decode(self, encoded: bytes) -> FeatureStatistics:
        """The statistics of JSON bytes."""
        plain = json.loads(encoded)
        arrays = {name: BinSums.from_plain(sums) for name, sums in plain["arrays"].items()}
        durations = DurationHistogram(tuple(plain["excerpts"]))
        return FeatureStatistics(plain["recordings"], durations, arrays)

    def is_deterministic(self) -> bool:
        """Same statistics, same bytes."""
        return True


beam.coders.registry.register_coder(FeatureStatistics, StatisticsCoder)


class AddStatistics(beam.CombineFn):
    """Adds statistics up: in whatever order, with the same result to the last bit."""

    def create_accumulator(self) -> FeatureStatistics:
        """Those of no recordings."""
        return FeatureStatistics()

    def add_input(
        self, accumulator: FeatureStatistics, element: FeatureStatistics
    ) -> FeatureStatistics:
        """Those of one recording more."""
        return accumulator + element

    def merge_accumulators(self, accumulators: Iterable[FeatureStatistics]) -> FeatureStatistics:
        """Those of all."""
        return functools.reduce(FeatureStatistics.__add__, accumulators, FeatureStatistics())

    def extract_output(self, accumulator: FeatureStatistics) -> FeatureStatistics:
        """The result."""
        return accumulator

    def get_accumulator_coder(self) -> beam.coders.Coder:
        """What accumulators travel as."""
        return StatisticsCoder()


@dataclass
class WriteFeatureStatistics(beam.PTransform):
    """The files of features of all recordings to what is told of them, beside `run.json`."""

    tree: OutputTree

    def expand(self, files: beam.PCollection) -> beam.PCollection:
        """`FeatureFile`s, each once, to nothing that is of use."""
        tree = self.tree
        return (
            files
            | "StatisticsOf"
            >> beam.Map(lambda file: statistics_of(file, tree)).with_output_types(FeatureStatistics)
            | "AddUp" >> beam.CombineGlobally(AddStatistics())
            | "Write" >> beam.Map(lambda statistics: write_statistics(statistics, tree))
        )


def statistics_of(file: FeatureFile, tree: OutputTree) -> FeatureStatistics:
    """Those that the file of a recording tells."""
    path = tree.path(file.folder, file.name)
    with tree.reading(file.folder, file.name) as opened:
        told = open_recording_file(opened, name=path).metadata
    arrays = {name: BinSums.from_plain(each) for name, each in told["statistics"].items()}
    durations = DurationHistogram.of(each["duration_s"] for each in told["excerpts"])
    return FeatureStatistics(1, durations, arrays)


def write_statistics(statistics: FeatureStatistics, tree: OutputTree) -> None:
    """Write them; nothing where there is no recording."""
    if statistics.recordings:
        tree.write_json(statistics.told(), NAME)
