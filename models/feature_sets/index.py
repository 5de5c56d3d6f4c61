"""What lies in a feature set, and where.

    OUT/features-00003-of-00016.tar      samples
    OUT/features-00003-of-00016.jsonl    a line for each, in their order: key, facts, arrays
    OUT/features.json                    settings, and all shards with their sizes and SHA-256

`shard_writing.write_shard` gives what `index_lines` makes the lines of.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any

import numpy as np
from pydantic import Field, TypeAdapter, ValidationError

from ...storage import Storage, absolute
from ...validation import problems_of
from .arrays import ArrayForm, ShardFormat, raw_bytes
from .errors import FeatureSetError, told
from .json_text import json_bytes, json_object

INDEX = "features.json"
FORMAT = 1
EXTENSIONS: dict[ShardFormat, str] = {
    "webdataset": ".tar",
    "tfrecord": ".tfrecord",
    "parquet": ".parquet",
    "zarr": ".zarr.zip",
}
ADVICE = "make the set again, or copy it again"
_ENDINGS = "|".join(map(re.escape, (".jsonl", *EXTENSIONS.values())))
_SHARD_FILE = re.compile(rf"features-\d{{5,}}-of-\d{{5,}}({_ENDINGS})")


@dataclass(frozen=True)
class StoredArray:
    """An array in a shard.

    Attributes
    ----------
    form
        shape and dtype
    offset
        in bytes: where its values begin in the shard, little endian, in C order, one after the
        other; None in Parquet, where the n-th sample is the n-th row
    sha256
        of its values, in hexadecimal
    """

    form: ArrayForm
    offset: int | None
    sha256: str

    @classmethod
    def of(cls, array: np.ndarray, offset: int | None) -> "StoredArray":
        """That of an array that was written."""
        digest = hashlib.sha256(raw_bytes(array)).hexdigest()
        return cls(ArrayForm.of(array), offset, digest)


@dataclass(frozen=True)
class IndexEntry:
    """A sample in a shard: see `samples.Sample`."""

    key: str
    facts: dict[str, Any]
    arrays: dict[str, StoredArray]

    def line(self) -> bytes:
        """Its line in an index."""
        arrays = {
            name: {
                "shape": array.form.shape,
                "dtype": array.form.dtype,
                "offset": array.offset,
                "size_bytes": array.form.size_bytes,
                "sha256": array.sha256,
            }
            for name, array in self.arrays.items()
        }
        return json_bytes({"key": self.key, "facts": self.facts, "arrays": arrays}) + b"\n"

    @classmethod
    def parse(cls, line: bytes) -> "IndexEntry":
        """The sample of a line.

        Raises
        ------
        ValueError, TypeError, LookupError
            it is none
        """
        content = json_object(line)
        if not isinstance(content["key"], str) or not isinstance(content["facts"], dict):
            raise TypeError("a sample has no key or no facts")
        arrays = {name: _stored_array(each) for name, each in content["arrays"].items()}
        return cls(content["key"], content["facts"], arrays)


def _stored_array(plain: Mapping[str, Any]) -> StoredArray:
    form = ArrayForm.parse(plain["shape"], plain["dtype"])
    offset = plain["offset"]
    if form.size_bytes != plain["size_bytes"]:
        raise ValueError("an array is not as large as its shape")
    if offset is not None and (type(offset) is not int or offset < 0):
        raise ValueError(f"{offset!r} is no offset")
    return StoredArray(form, offset, plain["sha256"])


def index_lines(entries: Iterable[IndexEntry]) -> bytes:
    """The index of a shard."""
    return b"".join(entry.line() for entry in entries)


@dataclass(frozen=True)
class ShardFile:
    """A shard as `features.json` tells it.

    Attributes
    ----------
    name
        see `shard_name`
    samples
        how many
    size_bytes, sha256
        of the file
    sources
        a digest of what it was packed of: where that is the same, it need not be packed again
    index_sha256
        of its index
    """

    name: str
    samples: Annotated[int, Field(ge=0)]
    size_bytes: Annotated[int, Field(ge=0)]
    sha256: str
    sources: str = ""
    index_sha256: str = ""


def shard_name(number: int, shards: int, format: ShardFormat) -> str:
    """Name of the file of a shard: `features-00003-of-00016.tar`."""
    return _stem(number, shards) + EXTENSIONS[format]


def shard_index_name(number: int, shards: int) -> str:
    """Name of the index of a shard: `features-00003-of-00016.jsonl`."""
    return _stem(number, shards) + ".jsonl"


def is_shard_file(name: str) -> bool:
    """Whether a file is called as a shard is, or the index of one."""
    return _SHARD_FILE.fullmatch(name) is not None


def _stem(number: int, shards: int) -> str:
    return f"features-{number:05d}-of-{shards:05d}"


@dataclass(frozen=True)
class FeatureSetIndex:
    """`features.json`.

    Attributes
    ----------
    shard_format
        of all shards
    sets
        the parameters of each set of features, by name
    signals
        what features are of: "mixture", and stems
    excerpts
        which excerpts of recordings were asked for
    shards
        all of them, in order
    """

    shard_format: ShardFormat
    sets: dict[str, dict[str, Any]]
    signals: tuple[str, ...]
    excerpts: dict[str, Any]
    shards: tuple[ShardFile, ...]

    def to_json(self) -> bytes:
        """The content of the file."""
        return json.dumps({"format": FORMAT} | asdict(self), indent=1, allow_nan=False).encode()

    @classmethod
    def parse(cls, data: bytes) -> "FeatureSetIndex":
        """What a file says.

        Raises
        ------
        ValueError, LookupError
            it is no such file, of another format, or names other files than its shards
        """
        content = json_object(data)
        if content["format"] != FORMAT:
            raise ValueError("it is of another version")
        try:
            index = TypeAdapter(cls).validate_python(content)
        except ValidationError as error:
            raise ValueError("; ".join(problems_of(error))) from error
        for number, shard in enumerate(index.shards):
            if shard.name != shard_name(number, len(index.shards), index.shard_format):
                raise ValueError(f"{shard.name!r} is no name of shard {number}")
        return index


class ShardIndex:
    """The samples of a shard, in order; a line is parsed when it is asked for.

    Parameters
    ----------
    path
        of the index, in messages
    lines
        those of the index
    shard, format
        what they are of
    arrays
        names of those that each sample has

    Raises
    ------
    FeatureSetError
        there are more or fewer lines than samples; of an entry: it is none
    """

    def __init__(
        self,
        path: str,
        lines: list[bytes],
        shard: ShardFile,
        format: ShardFormat,
        arrays: Iterable[str],
    ) -> None:
        if len(lines) != shard.samples:
            raise FeatureSetError(
                f"{path}: has {len(lines)} lines for {shard.samples} samples: {ADVICE}"
            )
        self._path = path
        self._lines = lines
        self._shard = shard
        self._format = format
        self._arrays = {*arrays}

    def __len__(self) -> int:
        return len(self._lines)

    def entry(self, row: int) -> IndexEntry:
        """What is known of a sample by its number in the shard."""
        with told(self._path, ADVICE):
            entry = IndexEntry.parse(self._lines[row])
            if {*entry.arrays} != self._arrays:
                raise ValueError(f"{entry.key} has other arrays than the set")
            for array in entry.arrays.values():
                if (array.offset or 0) + array.form.size_bytes > self._shard.size_bytes:
                    raise ValueError("an array lies beyond the end of the shard")
                if (array.offset is None) != (self._format == "parquet"):
                    raise ValueError("an array has no place")
        return entry


@dataclass(frozen=True)
class FeatureSet:
    """A feature set that is there.

    Attributes
    ----------
    location
        its folder
    index
        what it holds
    storage
        how it is read
    """

    location: str
    index: FeatureSetIndex
    storage: Storage = field(default_factory=Storage)

    def __len__(self) -> int:
        """How many samples there are."""
        return sum(shard.samples for shard in self.index.shards)

    @property
    def arrays(self) -> tuple[str, ...]:
        """Names of the arrays that each sample has."""
        sets, signals = self.index.sets, self.index.signals
        return tuple(f"{name}/{signal}" for name in sets for signal in signals)

    def path_of(self, shard: int) -> str:
        """Where a shard is."""
        return f"{self.location}/{self.index.shards[shard].name}"

    def shard_index(self, shard: int) -> ShardIndex:
        """What is known of the samples of a shard; it is read anew.

        Raises
        ------
        FeatureSetError
            it is not whole
        StorageError
            it can't be read
        """
        shards = self.index.shards
        path = f"{self.location}/{shard_index_name(shard, len(shards))}"
        lines = self.storage.read(path).splitlines()
        return ShardIndex(path, lines, shards[shard], self.index.shard_format, self.arrays)

    def entries(self) -> Iterator[IndexEntry]:
        """What is known of all samples, in order."""
        for shard in range(len(self.index.shards)):
            index = self.shard_index(shard)
            yield from map(index.entry, range(len(index)))


def open_feature_set(location: str, storage: Storage | None = None) -> FeatureSet:
    """A feature set in a folder, here or on `gs://`.

    Raises
    ------
    FeatureSetError
        its index is not whole
    StorageError
        it can't be read
    """
    storage = storage or Storage()
    location = absolute(location)
    path = f"{location}/{INDEX}"
    data = storage.read(path)
    with told(path, ADVICE):
        index = FeatureSetIndex.parse(data)
    return FeatureSet(location, index, storage)
