"""Writing samples into a shard."""

from collections.abc import Callable, Iterable, Mapping
from typing import BinaryIO, Protocol

from .arrays import ShardFormat, require_dtype
from .errors import FeatureSetError
from .formats.parquet import ParquetWriter
from .formats.tfrecord import TfrecordWriter
from .formats.webdataset import WebdatasetWriter
from .formats.zarr import ZarrWriter
from .index import IndexEntry, StoredArray
from .samples import Sample


class ShardWriter(Protocol):
    """What writes a shard of a format into a file."""

    def write(self, sample: Sample) -> Mapping[str, int | None]:
        """Append a sample; gives where the values of each array begin, if anywhere, in bytes."""

    def close(self) -> None:
        """Write what the file ends with; it is left open."""


WRITERS: dict[ShardFormat, Callable[[BinaryIO], ShardWriter]] = {
    "webdataset": WebdatasetWriter,
    "tfrecord": TfrecordWriter,
    "parquet": ParquetWriter,
    "zarr": ZarrWriter,
}


def write_shard(samples: Iterable[Sample], file: BinaryIO, format: ShardFormat) -> list[IndexEntry]:
    """Write samples into a shard; the same samples give the same bytes.

    No more is held than a sample, in Parquet than a row group (`formats.parquet.GROUP_BYTES`).

    Parameters
    ----------
    samples
        all with the same facts and arrays, but for lengths
    file
        empty, seekable; it is left open

    Returns
    -------
    list of IndexEntry
        what was written where, in this order: `index.index_lines` makes the shard's index of it

    Raises
    ------
    FeatureSetError
        a key comes twice, samples have other arrays than the first, or the format can't hold one
    """
    entries: list[IndexEntry] = []
    keys: set[str] = set()
    first: Sample | None = None
    writer = WRITERS[format](file)
    for sample in samples:
        first = first or sample
        if sample.key in keys:
            raise FeatureSetError(f"{sample.key}: comes twice")
        _require_alike(sample, first, format)
        keys.add(sample.key)
        offsets = writer.write(sample)
        arrays = {
            name: StoredArray.of(array, offsets[name]) for name, array in sample.arrays.items()
        }
        entries.append(IndexEntry(sample.key, sample.facts, arrays))
    writer.close()
    return entries


def _require_alike(sample: Sample, first: Sample, format: ShardFormat) -> None:
    for array in sample.arrays.values():
        require_dtype(array.dtype.name, format)
    if _columns(sample) != _columns(first):
        raise FeatureSetError(
            f"{sample.key}: has other arrays or facts than {first.key}: make both of the same "
            "settings"
        )


def _columns(sample: Sample) -> tuple[list[str], dict[str, tuple[str, int]]]:
    arrays = {name: (array.dtype.name, array.ndim) for name, array in sample.arrays.items()}
    return [*sample.facts], arrays
