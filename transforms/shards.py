"""From tracks with their stems to shards that a training reads: PrepareShards."""

import dataclasses
import functools
import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import apache_beam as beam
import numpy as np

from ..models.datasets.excerpts import Excerpt, TrackLength
from ..models.datasets.shards import (
    INDEX,
    ShardRecord,
    ShardSettings,
    ShardWriter,
    index_text,
    record_of,
    shard_name,
)
from ..models.datasets.stem_excerpts import require_channels, shared_length
from ..models.datasets.stem_folders import (
    NeededFiles,
    StemFile,
    StemTrack,
    require_targets,
)
from ..storage import OutputTree, StorageError, crc32c_of
from .coders import RecordCoder
from .records import Track
from .steps import GivenUpError, Step
from .track_files import TrackFiles
from .track_graph import through_step

# What is decoded at a time, so that memory does not grow with the length of a track.
BLOCK_S = 30.0

beam.coders.registry.register_coder(StemTrack, RecordCoder)
beam.coders.registry.register_coder(ShardRecord, RecordCoder)


@dataclasses.dataclass
class PrepareShards(beam.PTransform):
    """Cuts tracks into excerpts once, for trainings to read: `StemTrack` to `ShardRecord`.

    Only names of files, and records of shards, cross a shuffle. What a track's shard is called, and
    what is in it, follows from the track and the settings alone. Shards that are whole are left as
    they are.

    Parameters
    ----------
    settings
        of the shards
    tree
        where they go, with their index, and `failures.jsonl`; its storage reads the tracks, too
    given_up
        names of tracks that go straight to the dead letters, with the reason
    progress_path
        file that a line is appended to for each track that is through
    reports
        write index and dead letters
    """

    settings: ShardSettings
    tree: OutputTree
    given_up: Mapping[str, str] = dataclasses.field(default_factory=dict)
    progress_path: str | None = None
    reports: bool = True

    def expand(self, tracks: beam.PCollection) -> beam.PCollection:
        """Tracks to the records of their shards."""
        return through_step(
            tracks,
            WriteShard(self.settings, self.tree, given_up=self.given_up),
            ShardRecord,
            tree=self.tree,
            write_all="WriteIndex" >> beam.Map(write_index, self.settings, self.tree),
            progress_path=self.progress_path,
            reports=self.reports,
        )


def write_index(records: list[ShardRecord], settings: ShardSettings, tree: OutputTree) -> None:
    """Write the index of shards that are complete."""
    tree.write(index_text(settings, records).encode(), INDEX)


class WriteShard(Step):
    """Writes the shard of a track, and gives its record.

    The tar appears when it is complete, then its record beside it: a shard is left as it is where
    that names the same settings and the same files, and the tar is as it says.

    Parameters
    ----------
    settings
        of the shards
    tree
        where they go; its storage reads the tracks, too
    given_up
        names of tracks that are not tried any more, with the reason

    Raises
    ------
    StorageError
        a file is not there, or the track's name leads out of the tree
    AudioError
        a file can't be decoded
    DatasetError
        the track lacks a target, or a file has channels that can't become those wanted
    """

    def __init__(
        self,
        settings: ShardSettings,
        tree: OutputTree,
        *,
        given_up: Mapping[str, str] | None = None,
    ) -> None:
        self.settings = settings
        self.tree = tree
        self.given_up = given_up or {}
        self.files = TrackFiles(tree.storage)

    def identify(self, record: StemTrack) -> dict[str, Any]:
        """What a dead letter calls the track."""
        return {"element": record.name}

    def apply(self, record: StemTrack) -> Iterable[ShardRecord]:
        """One track to one record."""
        if record.name in self.given_up:
            raise GivenUpError(self.given_up[record.name], None)
        self.tree.path(shard_name(record.name))  # refuses what leads out of it
        require_targets([record], self.settings.targets)
        needed = record.needed_for(self.settings.targets)
        facts = facts_name(record.name)
        digest = self._digest_of(needed)
        made = self._record_if_whole(facts, digest)
        if made is not None:
            self.count("kept")
            return [made]
        made = self._written(record.name, self._loaded(needed))
        told = {"digest": digest, "record": dataclasses.asdict(made)}
        self.tree.write(json.dumps(told).encode(), facts)
        return [made]

    def _digest_of(self, needed: NeededFiles[StemFile]) -> str:
        """SHA-256 of the settings, and of the files as they are now."""
        storage = self.tree.storage
        files = [[*dataclasses.astuple(e), storage.stat(e.path).generation] for e in needed.all]
        content = [self.settings.digest, needed.mixture is None, files]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def _record_if_whole(self, facts: str, digest: str) -> ShardRecord | None:
        try:
            found = json.loads(self.tree.read(facts))
            record = record_of(found["record"])
        except (StorageError, ValueError, TypeError, KeyError):
            return None  # it is not there, or another program's
        if found["digest"] != digest:
            return None
        is_whole = not record.file or self.tree.has(
            record.file,
            size_bytes=record.size_bytes,
            crc32c=record.crc32c,
            written_ns=self.tree.written_ns(facts),
        )
        return record if is_whole else None

    def _loaded(self, needed: NeededFiles[StemFile]) -> NeededFiles[Track]:
        opened = self.files.opened(needed.all)
        for file, track in opened.items():
            require_channels(track.recording.info, self.settings.channels, file.path)
        return needed.converted(opened.__getitem__)

    def _written(self, name: str, files: NeededFiles[Track]) -> ShardRecord:
        infos = [track.recording.info for track in files.all]
        rate = self.settings.sample_rate
        length = TrackLength(name, shared_length(infos, rate), rate)
        excerpts = self.settings.excerpts_of(length)
        blocks = self._blocks(excerpts, files)
        # Most tracks have an excerpt that is not silent: of one that has none, no tar is left.
        kept = (each for each in blocks if not self.settings.is_silent(each[1]))
        first = next(kept, None)
        self.count("excerpts", len(excerpts))
        self.count("short_tracks", not excerpts)
        if first is None:
            self.tree.remove(shard_name(name))
            return ShardRecord(name, length.samples, silent=len(excerpts))
        file = shard_name(name)
        with self.tree.writing(file) as opened:
            writer = ShardWriter(opened, self.settings)
            for excerpt, rows in itertools.chain([first], kept):
                writer.write(excerpt, rows)
            writer.close()
            size_bytes = opened.tell()
            crc32c = crc32c_of(opened)
            opened.seek(0)
            sha256 = hashlib.file_digest(opened, "sha256").hexdigest()
        silent = len(excerpts) - len(writer.starts)
        self.count("silent_excerpts", silent)
        self.count("bytes", size_bytes)
        return ShardRecord(
            name=name,
            samples=length.samples,
            file=file,
            size_bytes=size_bytes,
            sha256=sha256,
            crc32c=crc32c,
            silent=silent,
            starts=tuple(writer.starts),
            offsets=tuple(writer.offsets),
        )

    def _blocks(
        self, excerpts: list[Excerpt], files: NeededFiles[Track]
    ) -> Iterator[tuple[Excerpt, np.ndarray]]:
        """Each excerpt with its rows; those that lie together are decoded together."""
        block_samples = BLOCK_S * self.settings.sample_rate

        def block_of(excerpt: Excerpt) -> int:
            return int(excerpt.start_sample // block_samples)

        for _, group in itertools.groupby(excerpts, block_of):
            together = [*group]
            start = together[0].start_sample
            stop = together[-1].start_sample + together[-1].samples
            rows = files.rows(functools.partial(self._read, start=start, stop=stop))
            for excerpt in together:
                first = excerpt.start_sample - start
                yield excerpt, rows[:, :, first : first + excerpt.samples]

    def _read(self, track: Track, *, start: int, stop: int) -> np.ndarray:
        """A range of a file, at the rate and with the channels of the shards."""
        return self.files.read(
            track,
            sample_rate=self.settings.sample_rate,
            channels=self.settings.channels,
            start_sample=start,
            stop_sample=stop,
        )


def facts_name(track: str) -> str:
    """The path of the record of a track's shard."""
    return f"{shard_name(track).removesuffix('.tar')}.shard.json"
