"""Whether a feature set is whole: its shards and their indexes against `features.json`."""

import hashlib
from collections.abc import Iterator
from typing import Literal

from ...storage import StorageError, scheme_of
from .index import FeatureSet, ShardFile, shard_index_name

Wrong = Literal["missing", "changed"]


def damaged_files(features: FeatureSet) -> Iterator[tuple[str, Wrong]]:
    """The files of a set that are not as its index says, by their names.

    Shards of this machine are read and hashed; of others elsewhere the size is compared.
    """
    shards = features.index.shards
    for number, shard in enumerate(shards):
        index_name = shard_index_name(number, len(shards))
        for name, wrong in (
            (shard.name, _of_shard(features, number, shard)),
            (index_name, _of_index(features, index_name, shard)),
        ):
            if wrong:
                yield name, wrong


def _of_shard(features: FeatureSet, number: int, shard: ShardFile) -> Wrong | None:
    path, storage = features.path_of(number), features.storage
    try:
        is_whole = storage.stat(path).size_bytes == shard.size_bytes and (
            bool(scheme_of(path)) or storage.sha256_of(path) == shard.sha256
        )
    except StorageError:
        return "missing"
    return None if is_whole else "changed"


def _of_index(features: FeatureSet, name: str, shard: ShardFile) -> Wrong | None:
    try:
        lines = features.storage.read(f"{features.location}/{name}")
    except StorageError:
        return "missing"
    # Sets of before `index_sha256` was told have lines to count.
    is_whole = (
        hashlib.sha256(lines).hexdigest() == shard.index_sha256
        if shard.index_sha256
        else lines.count(b"\n") == shard.samples
    )
    return None if is_whole else "changed"
