"""Feature sets in PyTorch: what is read, in any way, is what was written."""

import copy
import itertools
import json
import multiprocessing
import os
import pickle
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from feature_samples import ARRAYS, SHARD_FORMATS, made_samples, set_files, write_set
from hypothesis import given, settings
from hypothesis import strategies as st
from storage_server import BUCKET, StorageServer
from torch.utils.data import DataLoader

from beamsplitter.models.feature_sets import shard_reading, torch_dataset
from beamsplitter.models.feature_sets.arrays import ShardFormat
from beamsplitter.models.feature_sets.errors import FeatureSetError
from beamsplitter.models.feature_sets.formats import parquet
from beamsplitter.models.feature_sets.index import (
    INDEX,
    FeatureSetIndex,
    open_feature_set,
    shard_index_name,
    shard_name,
)
from beamsplitter.models.feature_sets.samples import Sample
from beamsplitter.models.feature_sets.torch_dataset import (
    FeatureDataset,
    FeatureStream,
    padded_batch,
)
from beamsplitter.storage import StorageError, UnusableStorageError

# One is empty, one has a single sample.
SHARDS = [made_samples(count, seed=seed) for seed, count in enumerate((7, 0, 1, 12))]
SAMPLES = [*itertools.chain(*SHARDS)]
Item = dict[str, Any]


@pytest.fixture(autouse=True)
def several_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards take more than one read, and more than one row group."""
    monkeypatch.setattr(shard_reading, "READ_BYTES", 2000)
    monkeypatch.setattr(parquet, "GROUP_BYTES", 1000)


@pytest.fixture(params=SHARD_FORMATS)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A feature set of each format."""
    return write_set(tmp_path / "set", SHARDS, request.param)


def assert_items(
    items: Iterable[Item], samples: list[Sample], names: tuple[str, ...] = ARRAYS
) -> None:
    items = [*items]
    assert [item["key"] for item in items] == [sample.key for sample in samples]
    for item, sample in zip(items, samples, strict=True):
        assert {*item} == {"key", "facts", *names}
        assert item["facts"] == sample.facts
        for name in names:
            np.testing.assert_array_equal(item[name].numpy(), sample.arrays[name])
            assert item[name].numpy().dtype == sample.arrays[name].dtype


def assert_each_once(items: Iterable[Item], samples: list[Sample] = SAMPLES) -> None:
    by_key = {item["key"]: item for item in items}
    assert_items([by_key[sample.key] for sample in samples], samples)


@pytest.mark.parametrize("verify", [False, True])
def test_random_and_sequential_reads_give_what_was_written(folder: Path, verify: bool) -> None:
    features = open_feature_set(str(folder))
    dataset = FeatureDataset(features, verify=verify)
    assert len(dataset) == len(features) == len(SAMPLES)
    order = np.random.default_rng(0).permutation(len(dataset)).tolist()
    assert_items((dataset[index] for index in order), [SAMPLES[index] for index in order])
    assert_items(FeatureStream(features, verify=verify), SAMPLES)
    assert [entry.key for entry in features.entries()] == [sample.key for sample in SAMPLES]
    for beyond in (-1, len(dataset)):
        with pytest.raises(IndexError, match="no sample"):
            dataset[beyond]


@pytest.mark.parametrize("nearby", [0, 1 << 20])
def test_some_of_the_arrays(folder: Path, nearby: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_reading, "NEARBY_BYTES", nearby)
    features = open_feature_set(str(folder))
    names = (ARRAYS[2], ARRAYS[0])
    dataset = FeatureDataset(features, arrays=names)
    assert_items((dataset[index] for index in range(len(dataset))), SAMPLES, names)
    assert_items(FeatureStream(features, arrays=names), SAMPLES, names)
    with pytest.raises(FeatureSetError, match="has no mel/x, but log_mel/mixture, "):
        FeatureDataset(features, arrays=["mel/x"])


def test_items_are_nobody_elses(folder: Path) -> None:
    """What is done to a tensor is not seen in others."""
    features = open_feature_set(str(folder))
    dataset = FeatureDataset(features)
    for items in ((dataset[index] for index in (0, 1, 0, 1)), FeatureStream(features)):
        for item, again in itertools.pairwise(
            copy.deepcopy(item) | {"own": item} for item in items
        ):
            for name in ARRAYS:
                item["own"][name].fill_(7)
                np.testing.assert_array_equal(again["own"][name], again[name])


@pytest.mark.parametrize("format", ["webdataset", "tfrecord", "zarr"])
def test_complex_arrays(format: ShardFormat, tmp_path: Path) -> None:
    samples = made_samples(5, dtype="complex64")
    features = open_feature_set(str(write_set(tmp_path, [samples], format)))
    assert_items(FeatureStream(features), samples)
    dataset = FeatureDataset(features)
    assert_items((dataset[index] for index in range(5)), samples)


@given(
    counts=st.lists(st.integers(0, 5), max_size=5),
    ranks=st.integers(1, 3),
    workers=st.integers(1, 3),
    epoch=st.integers(0, 2),
    shuffle=st.booleans(),
)
@settings(deadline=None, max_examples=40)
def test_readers_divide_the_samples_among_themselves(
    counts: list[int],
    ranks: int,
    workers: int,
    epoch: int,
    shuffle: bool,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    shards = [made_samples(count, seed=seed, bins=1) for seed, count in enumerate(counts)]
    folder = write_set(tmp_path_factory.mktemp("set"), shards, "tfrecord")
    shares = []
    for rank in range(ranks):
        stream = FeatureStream(
            open_feature_set(str(folder)),
            shuffle_shards=shuffle,
            shuffle_buffer=3 * shuffle,
            rank=rank,
            world_size=ranks,
        )
        stream.set_epoch(epoch)
        # What a worker of a DataLoader is told.
        for worker in range(workers):
            with pytest.MonkeyPatch.context() as patch:
                told = SimpleNamespace(num_workers=workers, id=worker)
                patch.setattr(torch_dataset, "get_worker_info", lambda told=told: told)
                shares.append([*stream])
    assert_each_once(itertools.chain(*shares), [*itertools.chain(*shards)])
    lengths = [len(share) for share in shares]
    assert sum(lengths) == sum(counts)
    assert max(lengths) - min(lengths) <= 1


@pytest.mark.parametrize(
    ("format", "context"), [*((each, "fork") for each in SHARD_FORMATS), ("parquet", "spawn")]
)
def test_workers_of_loaders_give_each_sample_once(
    format: ShardFormat, context: str, tmp_path: Path
) -> None:
    features = open_feature_set(str(write_set(tmp_path, SHARDS, format)))
    dataset, stream = FeatureDataset(features, verify=True), FeatureStream(features)
    # Both have files open in this process.
    dataset[0]
    next(iter(stream))
    options: dict[str, Any] = {
        "batch_size": None,
        "num_workers": 2 if context == "fork" else 1,
        "multiprocessing_context": multiprocessing.get_context(context),
    }
    assert_each_once(DataLoader(stream, **options))
    order = [*range(len(SAMPLES))][::-1]
    assert_items(DataLoader(dataset, sampler=order, **options), SAMPLES[::-1])


def test_orders_follow_from_seed_and_epoch(folder: Path) -> None:
    features = open_feature_set(str(folder))

    def keys_of(seed: int, epoch: int) -> list[str]:
        stream = FeatureStream(features, shuffle_shards=True, shuffle_buffer=5, seed=seed)
        stream.set_epoch(epoch)
        items = [*stream]
        assert_each_once(items)
        return [item["key"] for item in items]

    assert keys_of(1, 2) == keys_of(1, 2)
    orders = [keys_of(seed, epoch) for seed in (1, 2) for epoch in (0, 1)]
    assert len({*map(tuple, [*orders, [sample.key for sample in SAMPLES]])}) == 5


def test_workers_that_live_on_learn_of_the_epoch(tmp_path: Path) -> None:
    features = open_feature_set(str(write_set(tmp_path, SHARDS, "webdataset")))
    stream = FeatureStream(features, shuffle_buffer=10)
    loader = DataLoader(stream, batch_size=None, num_workers=1, persistent_workers=True)
    orders = []
    for epoch in (0, 1, 0):
        stream.set_epoch(epoch)
        orders.append([item["key"] for item in loader])
    assert orders[0] == orders[2] != orders[1]


def test_the_rank_is_that_of_torch_distributed(tmp_path: Path) -> None:
    features = open_feature_set(str(write_set(tmp_path, SHARDS, "webdataset")))
    assert (FeatureStream(features).rank, FeatureStream(features).world_size) == (0, 1)
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        assert (FeatureStream(features).rank, FeatureStream(features).world_size) == (0, 1)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.distributed, "get_rank", lambda: 2)
            patch.setattr(torch.distributed, "get_world_size", lambda: 3)
            stream = FeatureStream(features)
    finally:
        torch.distributed.destroy_process_group()
    assert_items(stream, SAMPLES[-7:])
    with pytest.raises(ValueError, match="no rank 2 of 2"):
        FeatureStream(features, rank=2, world_size=2)


def test_padded_batches(folder: Path) -> None:
    features = open_feature_set(str(folder))
    (batch,) = DataLoader(FeatureStream(features), batch_size=99, collate_fn=padded_batch)
    assert batch["key"] == [sample.key for sample in SAMPLES]
    assert batch["facts"] == [sample.facts for sample in SAMPLES]
    for name in ARRAYS:
        longest = max(len(sample.arrays[name]) for sample in SAMPLES)
        assert batch[name].shape == (len(SAMPLES), longest, 4)
        for values, frames, sample in zip(batch[name], batch["frames"][name], SAMPLES, strict=True):
            np.testing.assert_array_equal(values[:frames], sample.arrays[name])
            assert not values[frames:].any()
    items = [{"key": "", "facts": {}, "mel/x": torch.zeros(2, bins)} for bins in (3, 4)]
    with pytest.raises(FeatureSetError, match=r"mel/x: differs .*: \(3,\), \(4,\)"):
        padded_batch(items)
    items = [{"key": "", "facts": {}, "mel/x": torch.zeros(frames, 3)} for frames in (1, 2)]
    padded = padded_batch(items, padding=-80)["mel/x"]
    assert padded[0].tolist() == [[0, 0, 0], [-80, -80, -80]]


# Elsewhere ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", SHARD_FORMATS)
def test_sets_in_buckets(format: ShardFormat, gcs: StorageServer) -> None:
    for name, data in set_files(SHARDS, format).items():
        gcs.bucket.blob(f"set/{name}").upload_from_string(data)
    features = open_feature_set(f"gs://{BUCKET}/set/")
    dataset = FeatureDataset(features, verify=True)
    assert_items((dataset[index] for index in range(len(dataset))), SAMPLES)
    assert_items(FeatureStream(features), SAMPLES)
    loader = DataLoader(FeatureStream(features), batch_size=None, num_workers=2)
    assert_each_once(loader)


def test_of_a_bucket_no_more_is_read_than_is_wanted(gcs: StorageServer) -> None:
    for name, data in set_files([made_samples(3)], "webdataset").items():
        gcs.bucket.blob(f"set/{name}").upload_from_string(data)
    dataset = FeatureDataset(open_feature_set(f"gs://{BUCKET}/set"))
    dataset[0]
    gcs.requests.clear()
    dataset[1]
    assert len(gcs.requests) == 1


def test_a_bucket_that_is_away_is_no_damage(
    gcs: StorageServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, data in set_files(SHARDS, "webdataset").items():
        gcs.bucket.blob(f"set/{name}").upload_from_string(data)
    dataset = FeatureDataset(open_feature_set(f"gs://{BUCKET}/set"))
    dataset[0]
    with monkeypatch.context() as patch:
        # What the client raises after all tries.
        def away(*_: Any, **__: Any) -> None:
            raise ConnectionError("no route")

        patch.setattr("google.cloud.storage.Blob.download_as_bytes", away)
        with pytest.raises(UnusableStorageError, match=r"features-00000-of-00004\.tar"):
            dataset[1]
    assert_items([dataset[1]], SAMPLES[1:2])


# Damaged and hostile sets -------------------------------------------------------------------------


def change(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(path.read_bytes()))


@pytest.mark.parametrize("format", SHARD_FORMATS)
@pytest.mark.parametrize("length", [0, 1, 100, -1])
def test_cut_shards_are_told(format: ShardFormat, length: int, tmp_path: Path) -> None:
    features = open_feature_set(str(write_set(tmp_path, SHARDS, format)))
    path = tmp_path / shard_name(0, 4, format)
    change(path, lambda data: data[:length])
    for read in (lambda: FeatureDataset(features)[0], lambda: [*FeatureStream(features)]):
        with pytest.raises(FeatureSetError, match=rf"{path.name}: has \d+ bytes, not the \d+ of"):
            read()


@pytest.mark.parametrize("format", SHARD_FORMATS)
@given(data=st.data())
@settings(deadline=None, max_examples=60)
def test_flipped_bits_are_told_where_that_is_asked_for(
    format: ShardFormat, data: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = write_set(tmp_path_factory.mktemp("set"), SHARDS[:1], format)
    content = bytearray((folder / shard_name(0, 1, format)).read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    (folder / shard_name(0, 1, format)).write_bytes(content)
    features = open_feature_set(str(folder))
    dataset = FeatureDataset(features, verify=True)
    for read in (
        lambda: [dataset[index] for index in range(len(dataset))],
        lambda: [*FeatureStream(features, verify=True)],
    ):
        try:
            items = read()
        except FeatureSetError as error:
            assert str(folder / shard_name(0, 1, format)) in str(error)
        else:  # what was flipped is none of the arrays
            assert_items(items, SHARDS[0])


@pytest.mark.parametrize("format", SHARD_FORMATS)
def test_all_flipped_values_are_found(format: ShardFormat, tmp_path: Path) -> None:
    features = open_feature_set(str(write_set(tmp_path, SHARDS, format)))
    values = SHARDS[0][3].arrays[ARRAYS[1]].tobytes()
    path = tmp_path / shard_name(0, 4, format)
    flipped = bytes([values[0] ^ 1]) + values[1:]
    assert values in path.read_bytes()
    change(path, lambda data: data.replace(values, flipped))
    assert len([*FeatureStream(features)]) == len(SAMPLES)
    for read in (
        lambda: FeatureDataset(features, verify=True)[3],
        lambda: [*FeatureStream(features, verify=True)],
    ):
        with pytest.raises(FeatureSetError, match="is not what was written: make the set again"):
            read()


def changed_line(data: bytes, **changes: Any) -> bytes:
    first, *others = data.splitlines(keepends=True)
    content = json.loads(first)
    array = content["arrays"][ARRAYS[0]]
    for name, value in changes.items():
        (array if name in array else content)[name] = value
    return b"".join([json.dumps(content).encode() + b"\n", *others])


@pytest.mark.parametrize("format", SHARD_FORMATS)
@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[: len(data) // 2],
        lambda data: b"",
        lambda data: data.replace(b"{", b"[", 1),
        lambda data: changed_line(data, offset=10**9),
        lambda data: changed_line(data, offset=-1),
        lambda data: changed_line(data, offset="0"),
        lambda data: changed_line(data, shape=[2**40, 2**40], size_bytes=2**82),
        lambda data: changed_line(data, shape=[10**6, 10**6]),
        lambda data: changed_line(data, dtype="object"),
        lambda data: changed_line(data, arrays={}),
        lambda data: changed_line(data, arrays=None),
        lambda data: changed_line(data, key=3),
    ],
)
def test_indexes_of_shards_that_do_not_fit_are_told(
    format: ShardFormat, damage: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    features = open_feature_set(str(write_set(tmp_path, SHARDS, format)))
    change(tmp_path / shard_index_name(0, 4), damage)
    for read in (lambda: FeatureDataset(features)[0], lambda: [*FeatureStream(features)]):
        with pytest.raises(FeatureSetError, match=shard_index_name(0, 4)):
            read()


SHARD = {"name": "features-00000-of-00001.tar", "samples": 1, "size_bytes": 1, "sha256": ""}


@pytest.mark.parametrize(
    "changes",
    [
        {"format": 2},
        {"shard_format": "pickle"},
        {"shards": [SHARD | {"name": f"../{SHARD['name']}"}]},
        {"shards": [SHARD | {"name": "/etc/passwd"}]},
        {"shards": [SHARD | {"samples": -1}]},
        {"shards": [{"name": SHARD["name"]}]},
        {"shards": [SHARD, SHARD]},
        {"shards": 3},
        {"sets": []},
        {"signals": None},
    ],
)
def test_hostile_indexes_are_refused(changes: dict[str, Any], tmp_path: Path) -> None:
    path = write_set(tmp_path, SHARDS, "webdataset") / INDEX
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(FeatureSetError, match=rf"{INDEX}: is not whole: .*: make the set again"):
        open_feature_set(str(tmp_path))
    path.write_bytes(b"[" * 10**6)
    with pytest.raises(FeatureSetError, match="is not whole"):
        open_feature_set(str(tmp_path))


def test_what_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=f"{INDEX}: is not there"):
        open_feature_set(str(tmp_path))
    features = open_feature_set(str(write_set(tmp_path, SHARDS, "zarr")))
    (tmp_path / shard_name(0, 4, "zarr")).unlink()
    with pytest.raises(StorageError, match=r"features-00000-of-00004\.zarr\.zip: is not there"):
        FeatureDataset(features)[0]


def test_indexes_are_what_was_written() -> None:
    data = set_files(SHARDS, "parquet")[INDEX]
    index = FeatureSetIndex.parse(data)
    assert index.to_json() == data
    assert index.shards[3].samples == 12


def test_open_files_are_few_and_pickles_have_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_reading, "MOST_OPEN", 2)
    shards = [made_samples(1, seed=seed) for seed in range(6)]
    features = open_feature_set(str(write_set(tmp_path, shards, "tfrecord")))
    dataset = FeatureDataset(features)

    def open_here() -> Counter[str]:
        links = (Path(f"/proc/self/fd/{each}") for each in os.listdir("/proc/self/fd"))
        return Counter(os.readlink(link) for link in links if link.is_symlink())

    samples = [*itertools.chain(*shards)]
    assert_items((dataset[index] for index in (*range(6), 0)), [*samples, samples[0]])
    assert sum(count for path, count in open_here().items() if str(tmp_path) in path) == 2
    again = pickle.loads(pickle.dumps(dataset))
    assert_items([again[4]], shards[4])
