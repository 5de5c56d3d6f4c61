"""Arrays of samples out of shards, in any order or one after the other."""

import contextlib
import hashlib
import os
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import pyarrow
from pyarrow import parquet

from .arrays import DTYPES, raw_bytes, read_into
from .errors import FeatureSetError, told
from .index import ADVICE, FeatureSet, IndexEntry, ShardIndex, StoredArray

READ_BYTES = 8 << 20
"""What is read at once where samples are taken one after the other."""
NEARBY_BYTES = 64 << 10
"""What is read, too, if it lies between arrays that are wanted: sooner done than a second read."""
MOST_OPEN = 16
"""Shards; each of Parquet holds a row group, so that there is only one of these."""

Arrays = dict[str, np.ndarray]


class ShardReader(Protocol):
    """Reads a shard."""

    def read(self, row: int, entry: IndexEntry, names: Sequence[str]) -> Arrays:
        """Arrays of a sample by its number in the shard, and what is known of it."""

    def stream(
        self, rows: range, entries: Iterable[IndexEntry], names: Sequence[str]
    ) -> Iterator[tuple[IndexEntry, Arrays]]:
        """Samples that follow each other, by their numbers and what is known of them."""


class OpenShards:
    """The shards of a set. Each process opens for itself those that it needs; it can be pickled.

    Parameters
    ----------
    features
        the set
    names
        of the arrays that are wanted; None: all
    verify
        whether all that is read is held against the index's SHA-256

    Raises
    ------
    FeatureSetError
        there is no such array
    """

    def __init__(self, features: FeatureSet, names: Sequence[str] | None, *, verify: bool) -> None:
        missing = [name for name in names or () if name not in features.arrays]
        if missing:
            raise FeatureSetError(
                f"{features.location}: has no {', '.join(missing)}, but "
                f"{', '.join(features.arrays)}: name some of these"
            )
        self.features = features
        self.names = features.arrays if names is None else tuple(names)
        self.verify = verify
        self._forget()

    def _forget(self) -> None:
        self._process = os.getpid()
        self._indexes: dict[int, ShardIndex] = {}
        self._opened: OrderedDict[int, tuple[Any, ShardReader]] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        """Without what is open."""
        return {"features": self.features, "names": self.names, "verify": self.verify}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__dict__ |= state
        self._forget()

    def read(self, shard: int, row: int) -> tuple[IndexEntry, Arrays]:
        """A sample, by its number in a shard: what is known of it, and its arrays by name.

        Raises
        ------
        FeatureSetError
            the shard or its index is not whole
        StorageError
            one can't be read
        """
        # Processes that share an open file move each other's position.
        if self._process != os.getpid():
            self._forget()
        if shard not in self._indexes:
            self._indexes[shard] = self.features.shard_index(shard)
        entry = self._indexes[shard].entry(row)
        opening, reader = self._kept_open(shard)
        try:
            arrays = self._verified(shard, entry, reader.read(row, entry, self.names))
        except Exception as error:
            del self._opened[shard]
            # What it leaves explains the error.
            opening.__exit__(type(error), error, error.__traceback__)
            raise
        return entry, arrays

    def stream(self, shard: int, rows: range) -> Iterator[tuple[IndexEntry, Arrays]]:
        """Samples that follow each other, many of them read at a time: see `read`."""
        entries = map(self.features.shard_index(shard).entry, rows)
        with opened_shard(self.features, shard) as reader:
            for entry, arrays in reader.stream(rows, entries, self.names):
                yield entry, self._verified(shard, entry, arrays)

    def _kept_open(self, shard: int) -> tuple[Any, ShardReader]:
        if shard not in self._opened:
            most = 1 if self.features.index.shard_format == "parquet" else MOST_OPEN
            while len(self._opened) >= most:
                _, (opening, _) = self._opened.popitem(last=False)
                opening.__exit__(None, None, None)
            opening = opened_shard(self.features, shard)
            self._opened[shard] = opening, opening.__enter__()
        self._opened.move_to_end(shard)
        return self._opened[shard]

    def _verified(self, shard: int, entry: IndexEntry, arrays: Arrays) -> Arrays:
        for name, array in arrays.items() if self.verify else ():
            if hashlib.sha256(raw_bytes(array)).hexdigest() != entry.arrays[name].sha256:
                raise FeatureSetError(
                    f"{self.features.path_of(shard)}: {name} of {entry.key} is not what was "
                    f"written: {ADVICE}"
                )
        return arrays


@contextlib.contextmanager
def opened_shard(features: FeatureSet, shard: int) -> Iterator[ShardReader]:
    """Open a shard; errors that leave it are those of `OpenShards.read`."""
    path = features.path_of(shard)
    wanted = features.index.shards[shard].size_bytes
    with features.storage.reading(path) as file, told(path, ADVICE):
        found = file.seek(0, os.SEEK_END)
        if found != wanted:
            raise FeatureSetError(
                f"{path}: has {found} bytes, not the {wanted} of the index: {ADVICE}"
            )
        is_parquet = features.index.shard_format == "parquet"
        yield ParquetReader(file) if is_parquet else RangeReader(file)


class RangeReader:
    """Reads shards in which each array is a range of bytes: all but Parquet's."""

    def __init__(self, file: Any) -> None:
        # A buffer would read on, up to megabytes behind each range.
        self._file = getattr(file, "raw", file)

    def read(self, _row: int, entry: IndexEntry, names: Sequence[str]) -> Arrays:
        """See `ShardReader`: one read, if what is wanted lies together."""
        arrays: Arrays = {}
        for run in _runs({name: entry.arrays[name] for name in names}):
            start, stop = _span(run.values())
            data = np.empty(stop - start, np.uint8)
            self._read_range(start, data)
            for name, place in run.items():
                array = _array_in(data, start, place)
                arrays[name] = array if array.flags.aligned else array.copy()
        return {name: arrays[name] for name in names}

    def stream(
        self, _rows: range, entries: Iterable[IndexEntry], names: Sequence[str]
    ) -> Iterator[tuple[IndexEntry, Arrays]]:
        """See `ShardReader`: samples are copied out of a buffer."""
        buffer = np.empty(0, np.uint8)
        for batch in _batches(entries):
            start, stop = _span(place for entry in batch for place in entry.arrays.values())
            if len(buffer) < stop - start:
                buffer = np.empty(max(READ_BYTES, stop - start), np.uint8)
            self._read_range(start, buffer[: stop - start])
            for entry in batch:
                arrays = {name: _array_in(buffer, start, entry.arrays[name]) for name in names}
                yield entry, {name: array.copy() for name, array in arrays.items()}

    def _read_range(self, start: int, data: np.ndarray) -> None:
        self._file.seek(start)
        read_into(self._file, data)


def _span(places: Iterable[Any]) -> tuple[int, int]:
    """The bytes that arrays lie in."""
    ranges = [(place.offset, place.offset + place.form.size_bytes) for place in places]
    return min((start for start, _ in ranges), default=0), max(
        (end for _, end in ranges), default=0
    )


def _runs(places: Mapping[str, StoredArray]) -> Iterator[dict[str, StoredArray]]:
    """Arrays that are read together, since not much lies between them."""
    run: dict[str, StoredArray] = {}
    for name, place in sorted(places.items(), key=lambda item: item[1].offset or 0):
        if run and (place.offset or 0) > _span(run.values())[1] + NEARBY_BYTES:
            yield run
            run = {}
        run[name] = place
    if run:
        yield run


def _batches(entries: Iterable[IndexEntry]) -> Iterator[list[IndexEntry]]:
    """Samples that lie within what is read at once; one at least."""
    batch: list[IndexEntry] = []
    begin = 0
    for entry in entries:
        start, stop = _span(entry.arrays.values())
        if batch and stop > begin + READ_BYTES:
            yield batch
            batch = []
        begin = begin if batch else start
        batch.append(entry)
    if batch:
        yield batch


def _array_in(data: np.ndarray, start: int, place: StoredArray) -> np.ndarray:
    """A view of an array in bytes that begin at an offset of the shard."""
    begin = (place.offset or 0) - start
    return np.ndarray(place.form.shape, DTYPES[place.form.dtype], data, begin)


class ParquetReader:
    """Reads shards of Parquet, a row group at a time, the last of which is held."""

    def __init__(self, file: Any) -> None:
        self._parquet = parquet.ParquetFile(file, pre_buffer=False)
        held = self._parquet.metadata
        counts = [held.row_group(group).num_rows for group in range(held.num_row_groups)]
        self._ends = np.cumsum(counts, dtype=np.int64)
        self._group = -1
        self._columns: dict[str, list[np.ndarray]] = {}

    def read(self, row: int, entry: IndexEntry, names: Sequence[str]) -> Arrays:
        """See `ShardReader`; all of a row group is read for it."""
        group = int(np.searchsorted(self._ends, row, side="right"))
        if group != self._group:
            # Threads of Arrow's do not survive the fork of a process.
            table = self._parquet.read_row_group(group, [*names], use_threads=False)
            self._columns = {name: _arrays_of(table.column(name)) for name in names}
            self._group = group
        first = int(self._ends[group - 1]) if group else 0
        arrays = {name: self._columns[name][row - first] for name in names}
        for name, array in arrays.items():
            if array.shape != entry.arrays[name].form.shape:
                raise ValueError(f"{name} of {entry.key} is not of the shape in the index")
        return {name: array.copy() for name, array in arrays.items()}

    def stream(
        self, rows: range, entries: Iterable[IndexEntry], names: Sequence[str]
    ) -> Iterator[tuple[IndexEntry, Arrays]]:
        """See `ShardReader`."""
        for row, entry in zip(rows, entries, strict=True):
            yield entry, self.read(row, entry, names)


def _arrays_of(column: pyarrow.ChunkedArray) -> list[np.ndarray]:
    """The arrays of a column, without a copy: see `formats.parquet`."""
    arrays: list[np.ndarray] = []
    for chunk in column.chunks:
        data, shapes = chunk.field("data"), chunk.field("shape")
        values = data.values.to_numpy()
        ends = data.offsets.to_numpy()
        lengths = shapes.values.to_numpy().reshape(len(chunk), shapes.type.list_size)
        for start, stop, shape in zip(ends[:-1], ends[1:], lengths, strict=True):
            arrays.append(values[start:stop].reshape(shape))
    return arrays
