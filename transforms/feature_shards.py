"""The features of all recordings, packed into shards: WriteFeatureShards.

Which recording goes into which shard depends on its folder and on how much there is in all: a set
that did not change is packed into the same shards, and those are left alone.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import apache_beam as beam
from apache_beam.transforms.combiners import ToListCombineFn

from ..models.feature_sets.arrays import ShardFormat
from ..models.feature_sets.index import (
    INDEX,
    FeatureSetIndex,
    ShardFile,
    index_lines,
    is_shard_file,
    shard_index_name,
    shard_name,
)
from ..models.feature_sets.recording_file import open_recording_file
from ..models.feature_sets.samples import Sample, samples_of
from ..models.feature_sets.shard_writing import write_shard
from ..storage import OutputTree, StorageError, scheme_of
from .published_files import published_file
from .records import FeatureFile, FileReceipt
from .settings import SplitSettings


@dataclass
class WriteFeatureShards(beam.PTransform):
    """The files of features of all recordings to shards, and what lists them, beside `run.json`."""

    settings: SplitSettings
    tree: OutputTree

    def expand(self, files: beam.PCollection) -> beam.PCollection:
        """`FeatureFile`s, each once, to nothing that is of use."""
        settings, tree = self.settings, self.tree
        shard_bytes = settings.features.shard_bytes
        total = (
            files
            | "Sizes" >> beam.Map(lambda file: file.size_bytes).with_output_types(int)
            | "TotalSize" >> beam.CombineGlobally(sum)
        )
        buckets = (
            files
            | "ToBucket"
            >> beam.Map(
                lambda file, total: (bucket_of(file, buckets_for(total, shard_bytes)), file),
                beam.pvalue.AsSingleton(total),
            ).with_output_types(tuple[int, FeatureFile])
            | "Buckets" >> beam.GroupByKey()
        )
        # Few recordings may leave buckets empty: shards are the others, numbered through.
        numbers = (
            buckets
            | "Numbers" >> beam.Map(lambda bucket: bucket[0]).with_output_types(int)
            | "AllNumbers" >> beam.CombineGlobally(ToListCombineFn())
        )
        return (
            buckets
            | "Pack"
            >> beam.Map(
                lambda bucket, numbers: (
                    0,
                    pack(sorted(numbers).index(bucket[0]), len(numbers), bucket[1], settings, tree),
                ),
                beam.pvalue.AsSingleton(numbers),
            ).with_output_types(tuple[int, ShardFile])
            | "AllShards" >> beam.GroupByKey()
            | "WriteIndex" >> beam.MapTuple(lambda _, shards: write_index(shards, settings, tree))
        )


def format_of_shards(settings: SplitSettings) -> ShardFormat:
    """That of a job which packs shards."""
    assert settings.features.shards is not None
    return settings.features.shards


def buckets_for(total_bytes: int, shard_bytes: int) -> int:
    """How many buckets files of so many bytes are dealt out to."""
    return max(1, -(-total_bytes // shard_bytes))


def bucket_of(file: FeatureFile, buckets: int) -> int:
    """The bucket of a recording: by its folder alone."""
    digest = hashlib.sha256(file.folder.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") % buckets


def pack(
    number: int,
    shards: int,
    files: Iterable[FeatureFile],
    settings: SplitSettings,
    tree: OutputTree,
) -> ShardFile:
    """Write a shard and its index, unless they are there already.

    Parameters
    ----------
    number, shards
        of the shard, and of all
    files
        of its recordings, in any order
    """
    wanted = sorted({*files}, key=lambda each: each.folder)
    shard_format = format_of_shards(settings)
    name = shard_name(number, shards, shard_format)
    sources = _digest_of(wanted)
    before = {each.name: each for each in shards_there(tree)}.get(name)
    index_name = shard_index_name(number, shards)
    if before and before.sources == sources and _is_whole(before, index_name, tree):
        return before
    with tree.writing(name) as file:
        entries = write_shard(_samples(wanted, tree), file, shard_format)
        receipt = published_file(file, name, branch="features", stem=None)
    lines = index_lines(entries)
    tree.write(lines, index_name)
    index_sha256 = hashlib.sha256(lines).hexdigest()
    return ShardFile(name, len(entries), receipt.size_bytes, receipt.sha256, sources, index_sha256)


def _samples(files: Iterable[FeatureFile], tree: OutputTree) -> Iterator[Sample]:
    for each in files:
        with tree.reading(each.folder, each.name) as file:
            yield from samples_of(open_recording_file(file, name=tree.path(each.folder, each.name)))


def _digest_of(files: Iterable[FeatureFile]) -> str:
    told = json.dumps([[each.folder, each.name, each.sha256] for each in files])
    return hashlib.sha256(told.encode()).hexdigest()


def _is_whole(shard: ShardFile, index_name: str, tree: OutputTree) -> bool:
    try:
        there = tree.storage.stat(tree.path(shard.name))
    except StorageError:
        return False
    return there.size_bytes == shard.size_bytes and tree.is_there(index_name)


def shards_there(tree: OutputTree) -> tuple[ShardFile, ...]:
    """The shards that an output tree has; none where their index can't be read."""
    try:
        return FeatureSetIndex.parse(tree.read(INDEX)).shards
    except (StorageError, ValueError, TypeError, LookupError):
        return ()


def write_index(shards: Iterable[ShardFile], settings: SplitSettings, tree: OutputTree) -> None:
    """Write what lists the shards, and remove all others.

    Those are of before, or what a run left that was stopped before it came to this: who reads all
    shards of the folder would have recordings twice.
    """
    wanted = settings.features
    index = FeatureSetIndex(
        shard_format=format_of_shards(settings),
        sets={name: each.model_dump(mode="json") for name, each in wanted.sets.items()},
        signals=wanted.of,
        excerpts=wanted.excerpts.model_dump(mode="json"),
        shards=tuple(sorted(shards, key=lambda each: each.name)),
    )
    tree.write(index.to_json(), INDEX)
    count = len(index.shards)
    names = {each.name for each in index.shards}
    names |= {shard_index_name(number, count) for number in range(count)}
    for name in _shard_files_in(tree):
        if name not in names:
            tree.remove(name)


def _shard_files_in(tree: OutputTree) -> list[str]:
    location = tree.location
    found: Iterable[str]
    if scheme_of(location):
        found = tree.storage.list_names(location, beginning="features-")
    else:
        found = os.listdir(location)
    return [name for name in found if is_shard_file(name)]


def feature_files_in(folder: str, files: Iterable[FileReceipt]) -> Iterator[FeatureFile]:
    """The file of a recording's features, if it has one."""
    for file in files:
        if file.branch == "features" and not file.name.endswith(".png"):
            yield FeatureFile(folder, file.name, file.sha256, file.size_bytes)


def write_feature_shards(
    files: Iterable[FeatureFile], settings: SplitSettings, tree: OutputTree
) -> None:
    """Pack shards where there is no graph: those that are there already are left alone."""
    files = [*files]
    count = buckets_for(sum(each.size_bytes for each in files), settings.features.shard_bytes)
    buckets: dict[int, list[FeatureFile]] = {}
    for file in files:
        buckets.setdefault(bucket_of(file, count), []).append(file)
    shards = [
        pack(number, len(buckets), buckets[bucket], settings, tree)
        for number, bucket in enumerate(sorted(buckets))
    ]
    if shards:
        write_index(shards, settings, tree)
