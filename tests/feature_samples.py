"""Samples of feature sets, made: by a seed, and by hypothesis."""

import hashlib
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from beamsplitter.models.feature_sets.arrays import ShardFormat
from beamsplitter.models.feature_sets.index import (
    INDEX,
    FeatureSetIndex,
    ShardFile,
    index_lines,
    shard_index_name,
    shard_name,
)
from beamsplitter.models.feature_sets.samples import Sample
from beamsplitter.models.feature_sets.shard_writing import write_shard

SHARD_FORMATS: tuple[ShardFormat, ...] = ("webdataset", "tfrecord", "parquet", "zarr")
ARRAYS = ("log_mel/mixture", "log_mel/Gesang ü", "of.dots/mixture", "of.dots/Gesang ü")


def facts_of(key: str, index: int) -> dict[str, Any]:
    """Facts as `samples_of` gives them."""
    return {
        "element": f"gs://music/{key}.wav",
        "folder": key,
        "index": index,
        "start_s": 1.5 * index,
        "duration_s": 1.5,
    }


_parts = st.text(st.characters(exclude_characters="/\0"), min_size=1, max_size=12)
keys = st.lists(
    _parts.filter(lambda part: part not in (".", ".."))
    | st.sampled_from(["__a__", "a.b", "ü %2E"]),
    min_size=1,
    max_size=3,
).map("/".join)


def arrays_of(shape: st.SearchStrategy[tuple[int, ...]], dtype: str = "float32") -> Any:
    """An array, finite or not."""
    return hnp.arrays(np.dtype(dtype), shape)


any_samples = st.lists(keys, unique=True, max_size=4).flatmap(
    lambda chosen: st.tuples(
        *(
            st.tuples(
                arrays_of(st.tuples(st.integers(0, 4), st.just(3))),
                arrays_of(st.tuples(st.integers(0, 4), st.integers(1, 2), st.just(2))),
            ).map(
                lambda arrays, key=key, index=index: Sample(
                    key, facts_of(key, index), dict(zip(ARRAYS, arrays, strict=False))
                )
            )
            for index, key in enumerate(chosen)
        )
    )
)


def made_samples(
    count: int,
    *,
    seed: int = 0,
    frames: Sequence[int] = (5, 9),
    bins: int = 4,
    dtype: str = "float32",
) -> list[Sample]:
    """Samples of recordings of several lengths."""
    generator = np.random.default_rng(seed)
    samples = []
    for index in range(count):
        shape = (int(generator.integers(*frames)), bins)
        values = {name: generator.standard_normal(shape) for name in ARRAYS}
        arrays = {name: value.astype(dtype) for name, value in values.items()}
        samples.append(Sample(f"album.x/song {seed}.{index}", facts_of("song", index), arrays))
    return samples


def written_shard(samples: Iterable[Sample], format: ShardFormat) -> tuple[bytes, bytes]:
    """The bytes of a shard and of its index."""
    file = io.BytesIO()
    entries = write_shard(samples, file, format)
    return file.getvalue(), index_lines(entries)


def set_files(shards: Sequence[Sequence[Sample]], format: ShardFormat) -> dict[str, bytes]:
    """All files of a feature set, by name."""
    files: dict[str, bytes] = {}
    told = []
    for number, samples in enumerate(shards):
        name = shard_name(number, len(shards), format)
        files[name], files[shard_index_name(number, len(shards))] = written_shard(samples, format)
        digest = hashlib.sha256(files[name]).hexdigest()
        told.append(ShardFile(name, len(samples), len(files[name]), digest))
    index = FeatureSetIndex(
        format,
        {"log_mel": {"kind": "log_mel"}, "of.dots": {"kind": "mel"}},
        ("mixture", "Gesang ü"),
        {"seconds": 1.5},
        tuple(told),
    )
    return files | {INDEX: index.to_json()}


def write_set(folder: Path, shards: Sequence[Sequence[Sample]], format: ShardFormat) -> Path:
    """A feature set in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in set_files(shards, format).items():
        (folder / name).write_bytes(data)
    return folder
