"""Mean and deviation of the features of all recordings: WriteFeatureStatistics."""

import functools
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import apache_beam as beam

from ..models.feature_sets.recording_file import open_recording_file
from ..models.feature_sets.statistics import BinSums, DurationHistogram
from ..storage import OutputTree, StorageError
from .records import FeatureFile

NAME = "features-statistics.json"
FORMAT = 2
# Of the sum that tells which files statistics are of.
SOURCES_BITS = 128


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
    sources
        which files they are of: a sum of digests, the same in any order
    """

    recordings: int = 0
    excerpts: DurationHistogram = field(default_factory=DurationHistogram)
    arrays: dict[str, BinSums] = field(default_factory=dict)
    sources: int = 0

    def __add__(self, other: "FeatureStatistics") -> "FeatureStatistics":
        """Those of the recordings of both."""
        arrays = {**self.arrays}
        for name, sums in other.arrays.items():
            arrays[name] = arrays[name] + sums if name in arrays else sums
        return FeatureStatistics(
            self.recordings + other.recordings,
            self.excerpts + other.excerpts,
            arrays,
            (self.sources + other.sources) % 2**SOURCES_BITS,
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
            "sources": _sources_text(self.sources),
        }


class StatisticsCoder(beam.coders.Coder):
    """Statistics as JSON: whole numbers of any length."""

    def encode(self, value: FeatureStatistics) -> bytes:
        """JSON bytes."""
        plain = {
            "recordings": value.recordings,
            "excerpts": value.excerpts.counts,
            "arrays": {name: sums.to_plain() for name, sums in value.arrays.items()},
            "sources": value.sources,
        }
        return json.dumps(plain).encode()

    def decode(self, encoded: bytes) -> FeatureStatistics:
        """The statistics of JSON bytes."""
        plain = json.loads(encoded)
        arrays = {name: BinSums.from_plain(sums) for name, sums in plain["arrays"].items()}
        durations = DurationHistogram(tuple(plain["excerpts"]))
        return FeatureStatistics(plain["recordings"], durations, arrays, plain["sources"])

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
    return FeatureStatistics(1, durations, arrays, source_of(file))


def source_of(file: FeatureFile) -> int:
    """What a recording's file adds to `sources`."""
    told = json.dumps([file.folder, file.name, file.sha256])
    return int(hashlib.sha256(told.encode()).hexdigest()[: SOURCES_BITS // 4], 16)


def _sources_text(sources: int) -> str:
    return f"{sources:0{SOURCES_BITS // 4}x}"


def write_statistics(statistics: FeatureStatistics, tree: OutputTree) -> None:
    """Write them; nothing where there is no recording."""
    if statistics.recordings:
        tree.write_json(statistics.told(), NAME)


def write_feature_statistics(files: Iterable[FeatureFile], tree: OutputTree) -> None:
    """Write those of files where there is no graph, unless they are there already."""
    files = [*files]
    if not _are_there(files, tree):
        found = (statistics_of(file, tree) for file in files)
        write_statistics(AddStatistics().merge_accumulators(found), tree)


def _are_there(files: Iterable[FeatureFile], tree: OutputTree) -> bool:
    sources = sum(map(source_of, files)) % 2**SOURCES_BITS
    try:
        told = json.loads(tree.read(NAME))
        return bool(told["format"] == FORMAT and told["sources"] == _sources_text(sources))
    except (StorageError, ValueError, TypeError, LookupError):
        return False
