"""Classifiers read feature sets: of each format, in each process, and say what is wrong."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from facts import assert_names
from storage_server import StorageServer
from toy_classifiers import TOY_FEATURES, toy_labels, toy_source, train, write_feature_set

from beamsplitter.models.classifiers.errors import ClassifierError
from beamsplitter.models.classifiers.feature_set_source import open_source
from beamsplitter.models.feature_sets.index import INDEX, shard_name


@pytest.mark.parametrize("format", ["webdataset", "tfrecord", "parquet", "zarr"])
def test_excerpts_are_those_that_were_written(tmp_path: Path, format: str) -> None:
    source = toy_source({"a": 3, "b": 3})
    found = open_source(str(write_feature_set(tmp_path, source, format=format)))  # type: ignore[arg-type]
    assert found.excerpts == source.excerpts
    assert found.settings == TOY_FEATURES
    assert found.signal == "mixture"
    for copy in (found, pickle.loads(pickle.dumps(found))):
        for place in (0, 23, 5, 5):
            np.testing.assert_array_equal(copy.frames(place), source.arrays[place])


def test_a_training_on_disk_is_one_in_memory(tmp_path: Path) -> None:
    source = toy_source({"a": 5, "b": 5})
    labels = toy_labels(tmp_path, source)
    on_disk = open_source(str(write_feature_set(tmp_path / "set", source)))
    in_memory, _ = train(tmp_path / "memory", source, labels, max_epochs=2)
    for workers in (0, 2):
        read, _ = train(
            tmp_path / f"disk-{workers}",
            on_disk,
            labels,
            max_epochs=2,
            num_workers=workers,
        )
        for ours, theirs in zip(read["epochs"], in_memory["epochs"], strict=True):
            assert ours["training_loss"] == theirs["training_loss"]
            assert ours["validation_loss"] == theirs["validation_loss"]


def test_a_set_in_a_bucket(tmp_path: Path, gcs: StorageServer) -> None:
    source = toy_source({"a": 2, "b": 2})
    gcs.upload(write_feature_set(tmp_path, source), "sets")
    found = open_source(f"gs://{gcs.bucket.name}/sets")
    assert found.excerpts == source.excerpts
    np.testing.assert_array_equal(found.frames(7), source.arrays[7])


def test_sets_and_signals_are_chosen(tmp_path: Path) -> None:
    source = toy_source({"a": 2, "b": 2})
    several = str(
        write_feature_set(
            tmp_path / "several", source, sets=("fine", "coarse"), signals=("mixture", "vocals")
        )
    )
    assert open_source(several, set_name="fine").signal == "mixture"
    assert open_source(several, set_name="fine", signal="vocals").signal == "vocals"
    stems = str(write_feature_set(tmp_path / "stems", source, signals=("bass", "vocals")))
    for facts, location, options in (
        (("fine, coarse", "--set"), several, {}),
        (("--set loud", "fine, coarse"), several, {"set_name": "loud"}),
        (("--signal drums", "mixture, vocals"), several, {"signal": "drums", "set_name": "fine"}),
        (("bass, vocals", "--signal"), stems, {}),
    ):
        with pytest.raises(ClassifierError) as told:
            open_source(location, **options)
        assert_names(told.value, *facts)


def test_what_is_no_set_is_told(tmp_path: Path) -> None:
    with pytest.raises(
        ClassifierError, match=r"no feature set, which has features\.json.*--shards"
    ):
        open_source(str(tmp_path / "gone"))
    source = toy_source({"a": 2, "b": 2})
    folder = write_feature_set(tmp_path / "set", source)
    index = folder / INDEX
    content = index.read_text()
    index.write_text(content.replace('"log_mel"', '"loudness"'))
    with pytest.raises(ClassifierError, match=r"is no feature set of recordings .*kind"):
        open_source(str(folder))
    index.write_text(content)
    lines = (folder / "features-00000-of-00002.jsonl").read_text()
    (folder / "features-00000-of-00002.jsonl").write_text(lines.replace('"folder"', '"directory"'))
    with pytest.raises(ClassifierError, match=r"is no feature set of recordings .*folder"):
        open_source(str(folder))


def test_a_shard_that_is_cut_off_is_told(tmp_path: Path) -> None:
    source = toy_source({"a": 4, "b": 4})
    folder = write_feature_set(tmp_path / "set", source)
    labels = toy_labels(tmp_path, source)
    opened = open_source(str(folder))
    shard = folder / shard_name(1, 2, "webdataset")
    shard.write_bytes(shard.read_bytes()[:1000])
    with pytest.raises(ClassifierError) as told:
        train(tmp_path / "net", opened, labels)
    assert_names(told.value, shard.name)
