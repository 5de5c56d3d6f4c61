"""Shards: the excerpts of a track, cut once, in a tar that is read from its beginning to its end.

    OUT/train/song.tar          train/song/000000000.json            what and where it is
                                train/song/000000000.vocals.flac     one a target
                                train/song/000000000.rest_of_mixture.flac
                                train/song/000132300.json  …
    OUT/train/song.shard.json   the track's record: written when its tar is complete
    OUT/shards.jsonl            settings and counts, then the records of all tracks, one a line

The tars are those that the package `webdataset` reads. Sound is FLAC of 24 bits, so that sources of
16 and 24 bits are kept as they are; what is above full scale is divided by a power of two, `scales`
in the JSON.
"""

import bisect
import hashlib
import io
import json
import math
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, BinaryIO

import numpy as np

from ...audio.decoding.audio_reader import read_audio
from ...audio.encoding import StemWriter
from ...audio.stem_format import StemFormat
from .excerpts import Excerpt, ExcerptGrid, TrackLength
from .stem_folders import DatasetError, require_distinct

INDEX = "shards.jsonl"
FORMAT = 1
BIT_DEPTH = 24
REST = "rest_of_mixture"
SILENCE_DBFS = -60.0


@dataclass(frozen=True)
class ShardSettings:
    """What shards are made of.

    Attributes
    ----------
    targets
        the stems that are to be learnt
    sample_rate
        Hz
    channels
        1: the mean of all; more: as the files have, or copies of their only one
    excerpt_s, hop_s
        seconds: the length of an excerpt, and from one to the next
    silence_dbfs
        excerpts whose mixture has a lower level (root mean square) are left out

    Raises
    ------
    DatasetError
        there is no target, one is named twice, or a length is not above 0
    """

    targets: tuple[str, ...]
    sample_rate: int
    channels: int
    excerpt_s: float
    hop_s: float
    silence_dbfs: float = SILENCE_DBFS

    def __post_init__(self) -> None:
        require_distinct(self.targets)
        if not all(0 < each < math.inf for each in (self.excerpt_s, self.hop_s)):
            raise DatasetError(
                "excerpts and hops last longer than 0 s: they are "
                f"{self.excerpt_s:g} and {self.hop_s:g} s"
            )

    @property
    def rows(self) -> tuple[str, ...]:
        """What each excerpt consists of: together the mixture."""
        return (*self.targets, REST)

    @property
    def digest(self) -> str:
        """SHA-256 of the settings and of the format."""
        return hashlib.sha256(json.dumps([FORMAT, asdict(self)]).encode()).hexdigest()

    def excerpts_of(self, track: TrackLength) -> list[Excerpt]:
        """All excerpts of a track, silent ones too; none if it is too short."""
        try:
            grid = ExcerptGrid([track], excerpt_s=self.excerpt_s, hop_s=self.hop_s)
        except ValueError:
            return []
        return [grid.excerpt(number) for number in range(grid.count)]

    def is_silent(self, rows: np.ndarray) -> bool:
        """Whether the mixture of an excerpt, float32 `(rows, channels, samples)`, is silent."""
        mixture = rows.sum(axis=0, dtype=np.float64)
        return float(np.mean(mixture**2)) < 10 ** (self.silence_dbfs / 10)


@dataclass(frozen=True)
class ShardRecord:
    """What the shard of a track holds.

    Attributes
    ----------
    name
        of the track
    samples
        per channel, at the rate of the shards
    file
        the tar, below the folder of the shards; empty if there is nothing to be in it
    size_bytes, sha256, crc32c
        of the tar
    silent
        how many excerpts were left out
    starts
        the samples that the others begin at
    offsets
        the bytes that each begins at in the tar, and the one where the last ends
    """

    name: str
    samples: int
    file: str = ""
    size_bytes: int = 0
    sha256: str = ""
    crc32c: str = ""
    silent: int = 0
    starts: tuple[int, ...] = ()
    offsets: tuple[int, ...] = ()

    def bytes_of(self, start_sample: int) -> tuple[int, int]:
        """The first byte of the excerpt that begins at a sample, and the one behind its last.

        Raises
        ------
        ValueError
            no such excerpt was kept
        """
        number = bisect.bisect_left(self.starts, start_sample)
        if self.starts[number : number + 1] != (start_sample,):
            raise ValueError(f"{self.name}: none was kept that begins at sample {start_sample}")
        return self.offsets[number], self.offsets[number + 1]


def shard_name(track: str) -> str:
    """The path of a track's tar below the folder of the shards."""
    return "track.tar" if track == "." else f"{track}.tar"


# Writing ------------------------------------------------------------------------------------------


class ShardWriter:
    """Writes the excerpts of a track into a tar; the same samples give the same bytes.

    Parameters
    ----------
    file
        empty; it is left open
    settings
        of the shards

    Attributes
    ----------
    starts, offsets
        see `ShardRecord`
    """

    def __init__(self, file: BinaryIO, settings: ShardSettings) -> None:
        self.settings = settings
        self.starts: list[int] = []
        self.offsets = [0]
        self._tar = tarfile.TarFile(fileobj=file, mode="w", format=tarfile.PAX_FORMAT)
        self._format = StemFormat(
            container="flac",
            bit_depth=BIT_DEPTH,
            sample_rate=settings.sample_rate,
            channels=settings.channels,
        )

    def write(self, excerpt: Excerpt, rows: np.ndarray) -> None:
        """Append an excerpt: float32 `(rows, channels, samples)`."""
        scales = [_scale_of(row, self._format.full_scale) for row in rows]
        facts = {
            "track": excerpt.track,
            "start_sample": excerpt.start_sample,
            "samples": excerpt.samples,
            "sample_rate": self.settings.sample_rate,
            "rows": self.settings.rows,
            "scales": scales,
        }
        key = f"{excerpt.track}/{excerpt.start_sample:09d}"
        self._add(f"{key}.json", json.dumps(facts).encode())
        for name, row, scale in zip(self.settings.rows, rows, scales, strict=True):
            flac = io.BytesIO()
            with StemWriter(flac, stem_format=self._format) as writer:
                writer.write(row / np.float32(scale))
            self._add(f"{key}.{name}.flac", flac.getvalue())
        self.starts.append(excerpt.start_sample)
        self.offsets.append(self._tar.offset)

    def _add(self, name: str, data: bytes) -> None:
        # Its other fields have defaults that do not depend on time or user.
        member = tarfile.TarInfo(name)
        member.size = len(data)
        self._tar.addfile(member, io.BytesIO(data))

    def close(self) -> None:
        """Write the end of the tar."""
        self._tar.close()


def _scale_of(row: np.ndarray, full_scale: float) -> float:
    """The power of two, at least 1, that samples are divided by so that none is clipped."""
    peak = float(np.abs(row).max(initial=0))
    return max(1.0, 2.0 ** math.ceil(math.log2(peak / full_scale))) if peak else 1.0


def index_text(settings: ShardSettings, records: Iterable[ShardRecord]) -> str:
    """The content of the index, whatever the order of the records, and if some come twice."""
    ordered = sorted({*records}, key=lambda record: record.name)
    head = {
        "format": FORMAT,
        "settings": asdict(settings),
        "digest": digest_of(settings, ordered),
        "counts": counts_of(settings, ordered),
    }
    return "".join(json.dumps(line) + "\n" for line in (head, *map(asdict, ordered)))


def digest_of(settings: ShardSettings, records: Iterable[ShardRecord]) -> str:
    """SHA-256 of what is in shards, by the digests of their tars, in this order."""
    content = [settings.digest, [[record.name, record.sha256] for record in records]]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def counts_of(settings: ShardSettings, records: Sequence[ShardRecord]) -> dict[str, int]:
    """How many tracks and excerpts there are, and how many were left out."""
    lengths = (TrackLength(each.name, each.samples, settings.sample_rate) for each in records)
    return {
        "tracks": len(records),
        "short_tracks": sum(not settings.excerpts_of(length) for length in lengths),
        "excerpts": sum(len(record.starts) for record in records),
        "silent_excerpts": sum(record.silent for record in records),
        "size_bytes": sum(record.size_bytes for record in records),
    }


# Reading ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ShardIndex:
    """What an index says."""

    settings: ShardSettings
    digest: str
    records: tuple[ShardRecord, ...]

    @classmethod
    def parse(cls, lines: Iterable[str]) -> "ShardIndex":
        """The index of its lines.

        Raises
        ------
        ValueError, TypeError, KeyError
            they are no index of this format
        """
        head, *tracks = map(json.loads, lines)
        if head["format"] != FORMAT:
            raise ValueError(f"its format is {head['format']}")
        settings = head["settings"]
        settings["targets"] = tuple(settings["targets"])
        return cls(ShardSettings(**settings), head["digest"], tuple(map(record_of, tracks)))


def record_of(plain: dict[str, Any]) -> ShardRecord:
    """The record of a track, as JSON has it; TypeError if it is none."""
    record = ShardRecord(**plain)
    return ShardRecord(**plain | {name: tuple(getattr(record, name)) for name in _LISTS})


_LISTS = ("starts", "offsets")


def rows_of(data: bytes, *, name: str) -> np.ndarray:
    """The rows of an excerpt, float32 `(rows, channels, samples)`, of its bytes in a tar.

    Raises
    ------
    tarfile.TarError, ValueError, KeyError
        the bytes are no excerpt; AudioError is a ValueError
    """
    members = iter(_members(data))
    facts = json.loads(next(members, b"{}"))
    rows = [
        read_audio(flac, name=name) * np.float32(scale)
        for flac, scale in zip(members, facts["scales"], strict=True)
    ]
    return np.stack(rows)


def _members(data: bytes) -> Iterator[bytes]:
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
        for member in tar:
            file = tar.extractfile(member)
            yield file.read() if file else b""
