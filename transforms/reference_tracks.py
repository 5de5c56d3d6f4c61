"""The true stems that separations are scored against, as files or in shards. No Beam."""

import functools

from ..models.datasets.shards import INDEX, ShardIndex, ShardRecord
from ..models.datasets.stem_folders import DatasetError, StemTrack
from ..models.evaluation.matching import shard_tracks
from ..storage import Storage, StorageError, UnusableStorageError
from .stem_tracks import list_stem_tracks


def find_references(location: str, storage: Storage) -> tuple[list[StemTrack], str]:
    """The tracks of a dataset, and where its shards lie if it is one of them.

    Raises
    ------
    DatasetError
        there are none, or the index of shards can't be read
    StorageError
        the folder can't be listed
    """
    try:
        storage.stat(f"{location}/{INDEX}")
    except UnusableStorageError:
        raise
    except StorageError:
        return list_stem_tracks(location, storage), ""
    return shard_tracks(location, read_shard_index(location, storage)), location


@functools.lru_cache(1)
def read_shard_index(location: str, storage: Storage) -> ShardIndex:
    """The index of a folder of shards.

    Raises
    ------
    DatasetError
        there is none, or it is none of this format
    """
    path = f"{location}/{INDEX}"
    try:
        return ShardIndex.parse(storage.read(path).decode().splitlines())
    except (ValueError, TypeError, KeyError) as error:
        raise DatasetError(
            f"{path}: is no index of shards ({error}): run `beamsplitter prepare` again"
        ) from error


@functools.lru_cache(1)
def records_by_file(location: str, storage: Storage) -> dict[str, ShardRecord]:
    """The records of that index, by the tar that each is of."""
    return {record.file: record for record in read_shard_index(location, storage).records}
