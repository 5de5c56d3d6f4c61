"""From tracks with their estimates to scores: ScoreTracks."""

import dataclasses
import hashlib
import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np

from ..models.datasets.shard_track import ShardTrack
from ..models.datasets.stem_folders import StemFile
from ..models.evaluation.matching import EvaluationTrack
from ..models.evaluation.museval_files import museval_name, museval_text
from ..models.evaluation.plots import over_time_png
from ..models.evaluation.results import result_files
from ..models.evaluation.rows import TrackRecord
from ..models.evaluation.scoring import Reader, TrackScores
from ..models.evaluation.tables import record_of
from ..models.separating import models_of, separated_blocks
from ..models.separators.by_name import describe
from ..storage import OutputTree, StorageError
from .coders import RecordCoder
from .plain import from_plain, to_plain
from .reference_tracks import read_shard_index, records_by_file
from .scored_signals import FileSignal, Form, ShardSignal, Signal, summed
from .scoring_settings import EvaluationSettings
from .steps import GivenUpError, Step
from .track_files import TrackFiles
from .track_graph import through_step

FORMAT = 1

beam.coders.registry.register_coder(EvaluationTrack, RecordCoder)


@dataclasses.dataclass
class ScoreTracks(beam.PTransform):
    """Scores the estimates of tracks: `EvaluationTrack` to `TrackRecord`.

    Only names of files, and a track's numbers, cross a shuffle. What is written of a track follows
    from its files and the settings alone; what is scored already is left as it is.

    Parameters
    ----------
    settings
        of the scores
    tree
        where they go, with `failures.jsonl`; its storage reads the tracks, too
    given_up
        elements that go straight to the dead letters, with the reason
    progress_path
        file that a line is appended to for each track that is through
    reports
        write the tables of all tracks, and dead letters
    """

    settings: EvaluationSettings
    tree: OutputTree
    given_up: Mapping[str, str] = dataclasses.field(default_factory=dict)
    progress_path: str | None = None
    reports: bool = True

    def expand(self, tracks: beam.PCollection) -> beam.PCollection:
        """Tracks to their scores."""
        return through_step(
            tracks,
            ScoreTrack(self.settings, self.tree, given_up=self.given_up),
            TrackRecord,
            tree=self.tree,
            write_all="WriteTables" >> beam.Map(write_results, self.settings, self.tree),
            progress_path=self.progress_path,
            reports=self.reports,
        )


def write_results(
    records: list[TrackRecord], settings: EvaluationSettings, tree: OutputTree
) -> None:
    """Write the tables and plots of all tracks."""
    for name, content in result_files(records, settings.scoring):
        tree.write(content, name)


class ScoreTrack(Step):
    """Scores a track, writes what it found, and gives its numbers.

    Parameters
    ----------
    settings
        of the scores
    tree
        where they go; its storage reads the tracks, too
    given_up
        elements that are not tried any more, with the reason

    Raises
    ------
    StorageError
        a file is not there, or the track's name leads out of the tree
    AudioError
        a file can't be decoded
    DatasetError
        an estimate has another length or other channels than its reference
    """

    def __init__(
        self,
        settings: EvaluationSettings,
        tree: OutputTree,
        *,
        given_up: Mapping[str, str] | None = None,
    ) -> None:
        self.settings = settings
        self.tree = tree
        self.given_up = given_up or {}
        self.files = TrackFiles(tree.storage)

    def identify(self, record: EvaluationTrack) -> dict[str, Any]:
        """What a dead letter calls the track."""
        return {"element": record.element}

    def apply(self, record: EvaluationTrack) -> Iterable[TrackRecord]:
        """One track to its numbers."""
        if record.element in self.given_up:
            raise GivenUpError(self.given_up[record.element], None)
        name = scores_name(record)
        self.tree.path(name)  # refuses what leads out of it
        digest = self._digest_of(record)
        made = self._record_if_made(name, digest)
        if made is not None:
            self.count("kept")
            return [made]
        scores = self._scored(record)
        made = record_of(record.system, record.name, scores)
        if self.settings.pictures:
            for file, picture in over_time(record, scores, self.settings.scoring.hop_s):
                self.tree.write(picture, file)
        museval = museval_text(scores, self.settings.scoring)
        if museval is not None:
            self.tree.write(museval.encode(), museval_name(record.system, record.name))
        content = {
            "format": FORMAT,
            "digest": digest,
            "record": to_plain(made),
            "scores": scores.to_plain(),
        }
        self.tree.write(json.dumps(content, indent=1, allow_nan=False).encode(), name)
        return [made]

    def _digest_of(self, track: EvaluationTrack) -> str:
        """SHA-256 of the settings, and of the files as they are now."""
        separator = self.settings.separators.get(track.system)
        made_by: Any = None
        if separator is not None:
            found = describe((separator,))
            made_by = [separator.name, found.resolved_options, found.sha256]
        files = [
            [name, *dataclasses.astuple(file), self.tree.storage.stat(file.path).generation]
            for name, file in named_files(track)
        ]
        settings = dataclasses.asdict(self.settings) | {"separators": None, "device": None}
        content = [FORMAT, settings, made_by, files]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def _record_if_made(self, name: str, digest: str) -> TrackRecord | None:
        try:
            found = json.loads(self.tree.read(name))
            if found["digest"] != digest:
                return None
            return from_plain(TrackRecord, found["record"])
        except (StorageError, ValueError, TypeError, KeyError):
            return None  # it is not there, or another program's

    def _scored(self, track: EvaluationTrack) -> TrackScores:
        references = [file for each in track.references.values() for file in each.files]
        files = {file for _, file in named_files(track)}
        opened = self._opened_shard(references) if self.settings.shards else {}
        opened |= {
            file: FileSignal(self.files, each)
            for file, each in self.files.opened([*files - {*opened}]).items()
        }
        form = Form.of([opened[file] for file in references])
        if track.mixture is not None:
            form.require(opened[track.mixture], track.mixture.path)
        for file in track.estimates.values():
            form.require(opened[file], file.path)

        def reader(file: StemFile) -> Reader:
            return form.reader(opened[file])

        readers = {
            stem: summed([reader(file) for file in reference.files])
            for stem, reference in track.references.items()
        }
        if track.mixture is not None:
            mixture = reader(track.mixture)
        else:
            mixture = summed([*readers.values()])
        scoring = self.settings.scoring
        if track.estimates:
            estimates = {stem: reader(file) for stem, file in track.estimates.items()}
            return form.score(readers, estimates, mixture, scoring)
        with tempfile.TemporaryDirectory(prefix="beamsplitter-") as folder:
            estimates = self._separated(track, mixture, form, Path(folder))
            return form.score(readers, estimates, mixture, scoring)

    def _opened_shard(self, files: Sequence[StemFile]) -> dict[StemFile, Signal]:
        """The rows of a track's tar."""
        (path,) = {file.path for file in files}
        storage = self.tree.storage
        index = read_shard_index(self.settings.shards, storage)
        records = records_by_file(self.settings.shards, storage)
        record = records[path.removeprefix(f"{self.settings.shards}/")]

        def read_bytes(start: int, stop: int) -> bytes:
            with storage.reading(path) as file:
                file.seek(start)
                return file.read(stop - start)

        track = ShardTrack(index.settings, record, read_bytes, name=path)
        return {file: ShardSignal(track, file.stream) for file in files}

    def _separated(
        self, track: EvaluationTrack, mixture: Reader, form: Form, folder: Path
    ) -> dict[str, Reader]:
        """The estimates of a separator, on this machine's disk."""
        separators = (self.settings.separators[track.system],)
        description = describe(separators)
        names = {stem: self.settings.names.get(stem, stem) for stem in description.all_stems}
        stems = tuple(stem for stem, name in names.items() if name in track.references)
        shape = (form.channels, form.samples)
        kept = {
            stem: np.memmap(folder / str(number), np.float32, "w+", shape=shape)
            for number, stem in enumerate(stems)
        }
        done = 0
        for blocks in separated_blocks(
            mixture,
            description,
            models_of(separators, self.settings.device),
            samples=form.samples,
            channels=form.channels,
            sample_rate=form.sample_rate,
            stems=stems,
            part_seconds=self.settings.part_seconds,
        ):
            for stem, block in blocks.items():
                kept[stem][:, done : done + block.shape[-1]] = block
            done += blocks[stems[0]].shape[-1]
        return {names[stem]: _range_of(samples) for stem, samples in kept.items()}


def named_files(track: EvaluationTrack) -> Iterator[tuple[str, StemFile]]:
    """All files of a track, with what they are."""
    for stem, reference in track.references.items():
        for file in reference.files:
            yield f"reference {stem}", file
    if track.mixture is not None:
        yield "mixture", track.mixture
    for stem, file in track.estimates.items():
        yield f"estimate {stem}", file


def scores_name(track: EvaluationTrack) -> str:
    """Where the scores of a track lie."""
    return f"tracks/{track.system}/{track.name}.json"


def over_time(
    track: EvaluationTrack, scores: TrackScores, hop_s: float
) -> Iterator[tuple[str, bytes]]:
    """Pictures of a track's scores, frame by frame: names and contents."""
    measures = next(iter(scores.stems.values())).measures
    for measure in measures:
        frames = {stem: each.measures[measure].frames for stem, each in scores.stems.items()}
        if any(frames.values()):
            name = scores_name(track).removesuffix(".json")
            yield f"{name}-{measure}.png", over_time_png(frames, measure, hop_s)


def _range_of(samples: np.ndarray) -> Reader:
    return lambda start, stop: np.array(samples[:, start:stop])
