"""Shards of feature sets: what is written is what the readers of each format read."""

import io
import json
import re
import struct
import tempfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import oracles
import pyarrow.parquet
import pytest
import webdataset
import zarr
from feature_samples import (
    ARRAYS,
    SHARD_FORMATS,
    any_samples,
    facts_of,
    keys,
    made_samples,
    written_shard,
)
from hypothesis import given, settings
from zarr.storage import ZipStore

from beamsplitter.models.feature_sets.arrays import ShardFormat
from beamsplitter.models.feature_sets.errors import FeatureSetError
from beamsplitter.models.feature_sets.formats import parquet
from beamsplitter.models.feature_sets.formats.escaping import dotted, in_utf8, unescaped
from beamsplitter.models.feature_sets.formats.webdataset import member_key
from beamsplitter.models.feature_sets.formats.zarr import group_name
from beamsplitter.models.feature_sets.index import IndexEntry
from beamsplitter.models.feature_sets.samples import Sample
from beamsplitter.models.feature_sets.shard_writing import write_shard

# What the readers of a format give: key, facts, and arrays by name.
Read = list[tuple[str, dict[str, Any], dict[str, np.ndarray]]]


def read_by_webdataset(path: Path, names: tuple[str, ...]) -> Read:
    found: Read = []
    for sample in webdataset.WebDataset(str(path), shardshuffle=False, empty_check=False):
        facts = json.loads(sample["json"])
        # webdataset tells names in lower case.
        arrays = {
            name: np.load(io.BytesIO(sample[f"{dotted(name)}.npy".lower()])) for name in names
        }
        found.append((unescaped(sample["__key__"]), facts, arrays))
    return found


def read_by_tfrecord(path: Path, names: tuple[str, ...]) -> Read:
    """By the package tfrecord, which does not look at checksums; they are looked at here."""
    data, offset = path.read_bytes(), 0
    while offset < len(data):
        (length, of_length) = struct.unpack_from("<QI", data, offset)
        content = data[offset + 12 : offset + 12 + length]
        (of_content,) = struct.unpack_from("<I", data, offset + 12 + length)
        for checksum, covered in ((of_length, data[offset : offset + 8]), (of_content, content)):
            crc = oracles.crc32c.crc32c(covered)
            assert checksum == ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32
        offset += 16 + length
    found: Read = []
    for record in oracles.tfrecord.reader.tfrecord_loader(str(path), None):
        arrays = {
            name: np.frombuffer(record[name], bytes(record[f"{name}/dtype"]).decode()).reshape(
                record[f"{name}/shape"]
            )
            for name in names
        }
        found.append((bytes(record["key"]).decode(), json.loads(bytes(record["facts"])), arrays))
    return found


def read_by_pyarrow(path: Path, names: tuple[str, ...]) -> Read:
    found: Read = []
    for row in pyarrow.parquet.read_table(path).to_pylist():
        arrays = {
            name: np.array(row[name]["data"], np.float32).reshape(row[name]["shape"])
            for name in names
        }
        facts = {name: value for name, value in row.items() if name not in ("key", *names)}
        found.append((row["key"], facts, arrays))
    return found


def read_by_zarr(path: Path, names: tuple[str, ...]) -> Read:
    found: Read = []
    with ZipStore(path, mode="r") as store:
        root = zarr.open_group(store, mode="r")
        for name, group in root.groups():
            arrays = {each: np.asarray(group[dotted(each)][...]) for each in names}
            found.append((unescaped(name), dict(group.attrs), arrays))
    return found


READERS: dict[ShardFormat, Callable[[Path, tuple[str, ...]], Read]] = {
    "webdataset": read_by_webdataset,
    "tfrecord": read_by_tfrecord,
    "parquet": read_by_pyarrow,
    "zarr": read_by_zarr,
}


def assert_read(found: Read, samples: list[Sample], format: ShardFormat) -> None:
    if format == "zarr":  # groups have no order
        found = sorted(found, key=lambda each: each[0])
        samples = sorted(samples, key=lambda sample: sample.key)
    assert len(found) == len(samples)
    for (key, facts, arrays), sample in zip(found, samples, strict=True):
        lossy = format in ("tfrecord", "parquet")
        assert key == (in_utf8(sample.key) if lossy else sample.key)
        told = {"key": sample.key, **sample.facts}
        if format == "parquet":
            told = {
                name: in_utf8(fact) if isinstance(fact, str) else fact
                for name, fact in told.items()
            }
        assert facts == {name: told[name] for name in facts}
        assert {*facts} >= {*sample.facts}
        for name, array in sample.arrays.items():
            assert (arrays[name].dtype, arrays[name].shape) == (array.dtype, array.shape)
            np.testing.assert_array_equal(arrays[name], array)


@pytest.mark.parametrize("format", SHARD_FORMATS)
@given(samples=any_samples)
@settings(deadline=None, max_examples=60)
def test_the_readers_of_each_format_read_what_was_written(
    format: ShardFormat, samples: tuple[Sample, ...], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("shards") / "shard.tar"
    data, _ = written_shard(samples, format)
    path.write_bytes(data)
    assert_read(READERS[format](path, ARRAYS[:2]), [*samples], format)


@pytest.mark.parametrize("format", SHARD_FORMATS)
@given(samples=any_samples)
@settings(deadline=None, max_examples=60)
def test_the_index_tells_where_values_lie(format: ShardFormat, samples: tuple[Sample, ...]) -> None:
    data, index = written_shard(samples, format)
    assert written_shard(samples, format) == (data, index)
    entries = [IndexEntry.parse(line) for line in index.splitlines()]
    assert [entry.key for entry in entries] == [sample.key for sample in samples]
    assert [entry.facts for entry in entries] == [sample.facts for sample in samples]
    for entry, sample in zip(entries, samples, strict=True):
        assert [*entry.arrays] == [*sample.arrays]
        for name, stored in entry.arrays.items():
            array = sample.arrays[name]
            assert (stored.form.shape, stored.form.dtype) == (array.shape, array.dtype.name)
            if stored.offset is None:
                assert format == "parquet"
            else:
                stop = stored.offset + stored.form.size_bytes
                assert data[stored.offset : stop] == array.tobytes()


@pytest.mark.parametrize("format", ["webdataset", "tfrecord", "zarr"])
def test_complex_arrays(format: ShardFormat, tmp_path: Path) -> None:
    samples = [
        Sample(each.key, each.facts, {name: array * 1j for name, array in each.arrays.items()})
        for each in made_samples(3, dtype="complex64")
    ]
    (tmp_path / "shard").write_bytes(written_shard(samples, format)[0])
    assert_read(READERS[format](tmp_path / "shard", ARRAYS), samples, format)


@given(key=keys)
def test_keys_are_escaped_reversibly(key: str) -> None:
    for name in (member_key(key), group_name(key)):
        assert unescaped(name) == key
        assert name.isprintable() or not key.isprintable()
        assert not name.startswith("__")
    assert member_key(key).count("/") == key.count("/")
    assert "." not in member_key(key).rpartition("/")[2]
    assert "/" not in group_name(key)


def test_names_of_arrays_with_dots_stay_apart() -> None:
    assert len({dotted(name) for name in ("a.b/c", "a/b.c", "a/b/c", "a%2Eb/c")}) == 4


@pytest.mark.parametrize("format", SHARD_FORMATS)
def test_long_keys(format: ShardFormat, tmp_path: Path) -> None:
    key = "/".join(["ü" * 200] * 20)
    sample = Sample(key, facts_of(key, 0), made_samples(1)[0].arrays)
    (tmp_path / "shard").write_bytes(written_shard([sample], format)[0])
    assert_read(READERS[format](tmp_path / "shard", ARRAYS), [sample], format)


@pytest.mark.parametrize("format", SHARD_FORMATS)
@pytest.mark.parametrize(
    ("second", "message"),
    [
        (
            Sample("a", {"index": 1}, {"mel/mixture": np.zeros((1, 2), np.float32)}),
            "a: comes twice",
        ),
        (Sample("b", {"index": 1}, {"mel/vocals": np.zeros((1, 2), np.float32)}), "b: has other"),
        (Sample("b", {}, {"mel/mixture": np.zeros((1, 2), np.float32)}), "b: has other"),
        (Sample("b", {"index": 1}, {"mel/mixture": np.zeros((1, 2, 3), np.float32)}), "has other"),
        (Sample("b", {"index": 1}, {"mel/mixture": np.zeros((1, 2), np.float64)}), "float64"),
    ],
)
def test_samples_that_do_not_fit_together_are_refused(
    format: ShardFormat, second: Sample, message: str
) -> None:
    first = Sample("a", {"index": 0}, {"mel/mixture": np.zeros((1, 2), np.float32)})
    with pytest.raises(FeatureSetError, match=message):
        write_shard([first, second], io.BytesIO(), format)


def test_what_formats_can_not_hold_is_refused() -> None:
    arrays = {"stft/mixture": np.zeros((1, 2), np.complex64)}
    with pytest.raises(FeatureSetError, match="parquet holds no complex64"):
        write_shard([Sample("a", {}, arrays)], io.BytesIO(), "parquet")
    of_case = {name: np.zeros((1, 2), np.float32) for name in ("mel/Voice", "mel/voice")}
    with pytest.raises(FeatureSetError, match="differ in case"):
        write_shard([Sample("a", {}, of_case)], io.BytesIO(), "webdataset")
    facts = [{"tempo": 120.5}, {"tempo": "fast"}]
    with pytest.raises(FeatureSetError, match="tempo: is of another type"):
        write_shard([Sample(str(each), each, {}) for each in facts], io.BytesIO(), "parquet")


def test_facts_of_any_kind_are_columns_of_parquet() -> None:
    facts = {"tempo": 120, "tags": ["a", {"b": None}], "live": True, "note": None}
    file = io.BytesIO()
    write_shard([Sample("a", facts, {})], file, "parquet")
    (row,) = pyarrow.parquet.read_table(file).to_pylist()
    assert row == {"key": "a", **facts, "tags": json.dumps(facts["tags"]), "note": "null"}


@pytest.mark.parametrize("format", SHARD_FORMATS)
def test_no_more_than_a_sample_is_held(
    format: ShardFormat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of Parquet a row group; pyarrow's own memory is not traced, and not held either."""
    array = np.zeros((1024, 256), np.float32)
    monkeypatch.setattr(parquet, "GROUP_BYTES", 2 * array.nbytes)
    samples = (Sample(str(index), {}, {"mel/mixture": array.copy()}) for index in range(40))
    tracemalloc.start()
    with (tmp_path / "shard").open("w+b") as file:
        write_shard(samples, file, format)
        assert file.tell() > 40 * array.nbytes
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 * array.nbytes
    if format == "parquet":
        held = pyarrow.parquet.ParquetFile(tmp_path / "shard")
        assert held.metadata.num_row_groups == 20


@pytest.mark.parametrize("format", SHARD_FORMATS)
def test_files_that_storage_gives_will_do(format: ShardFormat, tmp_path: Path) -> None:
    """On disk, and held in memory until they are large."""
    wanted, _ = written_shard(made_samples(9), format)
    with (
        tempfile.SpooledTemporaryFile(3000) as spooled,
        (tmp_path / "shard").open("x+b") as on_disk,
    ):
        for file in (spooled, on_disk):
            write_shard(made_samples(9), file, format)
            file.seek(0)
            assert file.read() == wanted


@pytest.mark.parametrize("format", SHARD_FORMATS)
def test_nothing_tells_when_or_by_whom_shards_were_made(
    format: ShardFormat, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, _ = written_shard(made_samples(3), format)
    with monkeypatch.context() as later:
        later.setattr("time.time", lambda: 2e9)
        later.setattr("time.localtime", lambda *_: (2033, 5, 18, 3, 33, 20, 2, 138, 0))
        later.setattr("os.getuid", lambda: 12345)
        assert written_shard(made_samples(3), format)[0] == here
    assert not re.search(rb"20(2[6-9]|3\d)-", here)
