"""Trainings of classifiers: what they learn, keep, record and refuse."""

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from facts import assert_names
from safetensors.torch import load_file
from sklearn.preprocessing import StandardScaler
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from toy_classifiers import (
    TOY_SETTINGS,
    ToySource,
    plan,
    toy_labels,
    toy_source,
    train,
    write_labels,
)

from beamsplitter.errors import BeamsplitterError
from beamsplitter.models.classifiers.classifier_training import ClassifierTraining, label_weights
from beamsplitter.models.classifiers.excerpt_data import Batch, EpochOrder, mean_and_deviation
from beamsplitter.models.classifiers.sequence_classifier import SequenceClassifier
from beamsplitter.models.classifiers.settings import classifier_settings
from beamsplitter.models.classifiers.trained_classifier import (
    CLASSIFIER_FILE,
    WEIGHTS_FILE,
    load_classifier,
    read_description,
)
from beamsplitter.models.training.keeping import CHECKPOINT_FILE, RECORD_FILE, TRAINER_FILE

ENCODERS = ("lstm", "gru", "cnn", "transformer")


def losses(record: dict[str, Any]) -> list[tuple[float, float, float]]:
    return [
        (each["training_loss"], each["validation_loss"], each["balanced_accuracy"])
        for each in record["epochs"]
    ]


# What they learn ----------------------------------------------------------------------------------


@pytest.mark.parametrize("encoder", ENCODERS)
def test_what_can_be_heard_is_learned(tmp_path: Path, encoder: str) -> None:
    source = toy_source({"a": 10, "b": 8, "c": 8}, difference_db=25)
    record, report = train(
        tmp_path / "net", source, toy_labels(tmp_path, source), encoder=encoder, max_epochs=15
    )
    compared = report.sides["test"]["excerpts"]
    assert compared.classifier.balanced_accuracy > 0.9
    assert compared.classifier.auroc is not None
    assert compared.classifier.auroc > 0.95
    assert compared.baseline.balanced_accuracy == pytest.approx(1 / 3)
    assert record["best"]["validation_loss"] < 0.7 * math.log(3)


def test_labels_that_mean_nothing_are_not_learned(tmp_path: Path) -> None:
    """A leak would be seen here: each recording has a colour by which it could be known again."""
    source = toy_source({"a": 20, "b": 20}, difference_db=0, excerpts=6)
    _, report = train(tmp_path / "net", source, toy_labels(tmp_path, source), max_epochs=12)
    area = report.sides["test"]["excerpts"].classifier.auroc
    assert area is not None
    assert area < 0.9


def test_several_labels(tmp_path: Path) -> None:
    source = toy_source({"a": 8, "b": 8}, difference_db=25)
    labels = [(each.recording, each.recording[0]) for each in source.excerpts[::4]]
    both = [
        (each.recording, "all") for each in source.excerpts[::4] if each.recording[-1] in "0246"
    ]
    labels = write_labels(tmp_path / "labels.csv", labels + both)
    record, report = train(tmp_path / "net", source, labels, max_epochs=15)
    assert report.multi_label
    assert read_description(tmp_path / "net").multi_label
    figures = report.sides["test"]["excerpts"]
    for place in range(2):  # "a" and "all" sort before "b"
        assert figures.baseline.labels[place].auroc == 0.5
    named = dict(zip(report.labels, figures.classifier.labels, strict=True))
    assert min(named["a"].auroc or 0, named["b"].auroc or 0) > 0.9
    assert record["data"]["sides"]["train"]["of_labels"].keys() == {"a", "all", "b"}


def test_weights_make_rare_labels_count_as_much() -> None:
    targets = np.repeat(np.eye(2, dtype=np.float32), [30, 10], axis=0)
    weights = label_weights(targets, multi_label=False)
    assert (targets @ weights).mean() == pytest.approx(1)
    assert 30 * weights[0] == pytest.approx(10 * weights[1])
    of_pairs = label_weights(targets, multi_label=True)
    np.testing.assert_allclose(targets.sum(axis=0) * of_pairs, (1 - targets).sum(axis=0))


def made_training(**changes: Any) -> ClassifierTraining:
    settings = classifier_settings({"hidden_size": 4, **changes})
    model = SequenceClassifier(settings.network, 2, 2, torch.zeros(2), torch.ones(2))
    targets = np.repeat(np.eye(2, dtype=np.float32), [30, 10], axis=0)
    return ClassifierTraining(model, settings, targets, multi_label=False)


def test_the_loss_is_cross_entropy_of_logits() -> None:
    """The seed's went through a softmax first, and could not fall below 0.31."""
    training = made_training(class_weights="none")
    sure = torch.tensor([[40.0, -40.0], [-40.0, 40.0]])
    losses, weights = training.losses(sure, torch.eye(2))
    assert float(losses.sum() / weights.sum()) < 1e-6
    logits, targets = torch.randn(6, 2), torch.eye(2)[[0, 1, 0, 0, 1, 0]]
    losses, weights = made_training().losses(logits, targets)
    expected = torch.nn.functional.cross_entropy(
        logits, targets.argmax(dim=1), weight=made_training().label_weights
    )
    torch.testing.assert_close(losses.sum() / weights.sum(), expected)


# Normalisation ------------------------------------------------------------------------------------


def test_frames_are_normalised_by_those_of_the_training_alone(tmp_path: Path) -> None:
    source = toy_source({"a": 5, "b": 5})
    train(tmp_path / "net", source, toy_labels(tmp_path, source), max_epochs=1)
    with (tmp_path / "net/split.csv").open() as file:
        trained = {row["element"] for row in csv.DictReader(file) if row["split"] == "train"}
    frames = np.concatenate(
        [
            array
            for excerpt, array in zip(source.excerpts, source.arrays, strict=True)
            if excerpt.recording in trained
        ]
    )
    weights = load_file(tmp_path / "net" / WEIGHTS_FILE)
    scaler = StandardScaler().fit(frames.astype(np.float64))
    np.testing.assert_allclose(weights["mean"], scaler.mean_, rtol=1e-5)
    np.testing.assert_allclose(weights["deviation"], scaler.scale_, rtol=1e-5)


def test_means_of_blocks_are_those_of_all() -> None:
    chance = np.random.default_rng(0)
    frames = (1e4 + chance.standard_normal((500, 3)) * [1e-2, 1, 0]).astype(np.float32)
    mean, deviation = mean_and_deviation(np.split(frames, [1, 7, 300]))
    np.testing.assert_allclose(mean, frames.astype(np.float64).mean(axis=0), rtol=1e-6)
    of_all = frames.astype(np.float64).std(axis=0)
    np.testing.assert_allclose(deviation, [*of_all[:2], 1], rtol=1e-3)


# Epochs -------------------------------------------------------------------------------------------


def test_a_training_that_goes_on_is_one_that_was_not_stopped(tmp_path: Path) -> None:
    source = toy_source({"a": 6, "b": 6})
    labels = toy_labels(tmp_path, source)
    whole, of_whole = train(tmp_path / "whole", source, labels, max_epochs=5)
    train(tmp_path / "net", source, labels, max_epochs=2)
    parts, of_parts = train(tmp_path / "net", source, labels, resume=True, max_epochs=5)
    assert losses(parts) == losses(whole)
    assert of_parts == of_whole
    weights = [load_file(tmp_path / name / WEIGHTS_FILE) for name in ("whole", "net")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_it_ends_when_the_validation_gets_no_better_and_keeps_the_best(tmp_path: Path) -> None:
    source = toy_source({"a": 6, "b": 6}, difference_db=0)
    labels = toy_labels(tmp_path, source)
    kept: list[tuple[int, bytes]] = []

    def tell(state: Any) -> None:
        if state.finished and state.finished.is_best:
            kept.append((state.finished.epoch, (tmp_path / "net" / WEIGHTS_FILE).read_bytes()))

    record, report = train(
        tmp_path / "net", source, labels, tell, max_epochs=100, patience=3, lr=0.1
    )
    epochs = record["epochs"]
    assert len(epochs) < 100
    best = min(epochs, key=lambda each: each["validation_loss"])
    assert record["best"] == best
    assert len(epochs) == best["epoch"] + 3
    assert kept[-1] == (best["epoch"], (tmp_path / "net" / WEIGHTS_FILE).read_bytes())
    # The figures are those of the best network, and the validation's the same as in its epoch.
    found = report.sides["validation"]["excerpts"].classifier
    assert found.balanced_accuracy == pytest.approx(best["balanced_accuracy"])
    again, of_again = train(tmp_path / "net", source, labels, resume=True)
    assert losses(again) == losses(record)
    assert of_again == report


def test_balanced_accuracy_may_say_which_epoch_is_the_best(tmp_path: Path) -> None:
    source = toy_source({"a": 6, "b": 6})
    record, _ = train(
        tmp_path / "net", source, toy_labels(tmp_path, source), monitor="balanced_accuracy"
    )
    best = max(record["epochs"], key=lambda each: each["balanced_accuracy"])
    assert record["best"] == best


def test_each_epoch_has_all_excerpts_in_an_order_of_its_own() -> None:
    orders = [tuple(EpochOrder(20, seed, lambda: epoch)) for seed in (0, 1) for epoch in (0, 1)]  # noqa: B023
    assert all(sorted(order) == [*range(20)] for order in orders)
    assert len({*orders}) == 4


def test_processes_that_read_make_no_difference(tmp_path: Path) -> None:
    source = toy_source({"a": 5, "b": 5})
    labels = toy_labels(tmp_path, source)
    alone, _ = train(tmp_path / "alone", source, labels, max_epochs=2)
    read, _ = train(tmp_path / "read", source, labels, max_epochs=2, num_workers=2)
    assert losses(read) == losses(alone)


def test_batches_are_filled_up_with_zeros() -> None:
    batch = Batch.of(
        [(torch.ones(3, 2), torch.tensor([1.0, 0])), (torch.ones(5, 2), torch.tensor([0, 1.0]))]
    )
    assert batch.lengths.tolist() == [3, 5]
    assert batch.frames.sum(dim=(1, 2)).tolist() == [6, 10]
    assert batch.targets.tolist() == [[1, 0], [0, 1]]


# Records ------------------------------------------------------------------------------------------


def test_records_tell_of_data_settings_and_versions(tmp_path: Path) -> None:
    source = toy_source({"a": 6, "b": 4})
    labels = toy_labels(tmp_path, source)
    record, report = train(tmp_path / "net", source, labels)
    assert record == json.loads((tmp_path / "net" / RECORD_FILE).read_text())
    assert record["data"]["features_sha256"] == source.digest
    sides = record["data"]["sides"]
    assert sum(each["excerpts"] for each in sides.values()) == len(source.excerpts)
    assert sum(each["recordings"] for each in sides.values()) == 10
    assert record["settings"] == json.loads((tmp_path / "net" / TRAINER_FILE).read_text())
    assert {**record["settings"], **TOY_SETTINGS} == record["settings"]
    assert set(record["versions"]) == {"beamsplitter", "torch", "lightning", "scikit-learn"}
    assert report.content == json.loads((tmp_path / "net/report.json").read_text())
    counts = {name: units["excerpts"].classifier.count for name, units in report.sides.items()}
    assert counts == {name: sides[name]["excerpts"] for name in ("validation", "test")}


def test_the_split_that_is_written_makes_it_again(tmp_path: Path) -> None:
    source = toy_source({"a": 6, "b": 6})
    first, _ = train(tmp_path / "net", source, toy_labels(tmp_path, source), max_epochs=1)
    again = plan(tmp_path / "other", source, tmp_path / "net/split.csv", seed=5)
    for name, side in again.data.sides.items():
        assert len(side.places) == first["data"]["sides"][name]["excerpts"]
    train(tmp_path / "other", source, tmp_path / "net/split.csv", seed=5, max_epochs=1)
    assert (tmp_path / "other/split.csv").read_text() == (tmp_path / "net/split.csv").read_text()


def test_losses_are_written_for_tensorboard(tmp_path: Path) -> None:
    source = toy_source({"a": 5, "b": 5})
    record, _ = train(
        tmp_path / "net", source, toy_labels(tmp_path, source), tensorboard=True, max_epochs=2
    )
    events = EventAccumulator(str(tmp_path / "net/runs")).Reload()
    values = [each.value for each in events.Scalars("validation_loss")]
    assert values == pytest.approx([each["validation_loss"] for each in record["epochs"]])


def test_a_classifier_is_loaded_as_it_was_kept(tmp_path: Path) -> None:
    source = toy_source({"a": 5, "b": 5})
    train(tmp_path / "net", source, toy_labels(tmp_path, source))
    description = read_description(tmp_path / "net")
    assert description.labels == ("a", "b")
    assert description.excerpt_s == 2.0
    assert description.feature_settings == source.settings
    model = load_classifier(tmp_path / "net")
    rows = [place for place, each in enumerate(source.excerpts) if each.recording.startswith("a/")]
    batch = Batch.of([(torch.from_numpy(source.arrays[p]), torch.zeros(2)) for p in rows])
    with torch.inference_mode():
        found = model(batch.frames, batch.lengths).argmax(dim=1)
    assert (found == 0).float().mean() > 0.7


# What is refused ----------------------------------------------------------------------------------


def told_by(call: Callable[[], object]) -> str:
    with pytest.raises(BeamsplitterError) as told:
        call()
    (line,) = str(told.value).splitlines()
    return line


def test_a_training_that_is_there_is_not_overwritten(tmp_path: Path) -> None:
    source = toy_source({"a": 5, "b": 5})
    labels = toy_labels(tmp_path, source)
    train(tmp_path / "net", source, labels, max_epochs=1)
    assert_names(
        told_by(lambda: plan(tmp_path / "net", source, labels)),
        "holds a training already",
        "--resume",
    )


def test_a_training_goes_on_with_what_it_had_only(tmp_path: Path) -> None:
    source = toy_source({"a": 5, "b": 5})
    labels = toy_labels(tmp_path, source)
    train(tmp_path / "net", source, labels, max_epochs=1)
    other_set = toy_source({"a": 5, "b": 5})
    other_set.digest = "1" * 64
    for call in (
        lambda: plan(tmp_path / "net", other_set, labels, resume=True),
        lambda: plan(tmp_path / "net", source, labels, resume=True, seed=3),
        lambda: plan(tmp_path / "net", source, tmp_path / "net/split.csv", resume=True),
    ):
        assert_names(told_by(call), "other features, labels or sides of the split")
    told = told_by(lambda: train(tmp_path / "net", source, labels, resume=True, hidden_size=4))
    assert_names(told, CHECKPOINT_FILE, "another network")
    (tmp_path / "net" / CHECKPOINT_FILE).write_bytes(b"nothing of the kind")
    told = told_by(lambda: train(tmp_path / "net", source, labels, resume=True))
    assert_names(told, CHECKPOINT_FILE, "no whole checkpoint")


@pytest.mark.parametrize(
    ("array", "fact"),
    [
        (np.full((4, 6), np.nan, np.float32), "no number"),
        (np.ones((4, 6), np.complex64), "complex"),
        (np.ones((0, 6), np.float32), "no frames"),
        (np.ones((4, 7), np.float32), "bins, and others of"),
    ],
)
def test_features_that_are_none_are_told(tmp_path: Path, array: np.ndarray, fact: str) -> None:
    require_told(tmp_path, array, fact, place=1, workers=0)


@pytest.mark.parametrize("workers", [0, 1])
def test_features_that_are_none_are_told_of_a_validation(tmp_path: Path, workers: int) -> None:
    """Which is first read in the training, by a process of its own where there are some."""
    array = np.full((4, 6), np.inf, np.float32)
    require_told(tmp_path, array, "no number", place=2, workers=workers)


def require_told(folder: Path, array: np.ndarray, fact: str, *, place: int, workers: int) -> None:
    source = toy_source({"a": 2, "b": 2}, excerpts=2)
    sides = {"0": "train", "1": "validation"}
    names = dict.fromkeys(each.recording for each in source.excerpts)
    rows = [(name, name[0], sides[name[2]]) for name in names]
    labels = write_labels(folder / "labels.csv", rows, "split")
    source.arrays = [*source.arrays[:place], array, *source.arrays[place + 1 :]]
    told = told_by(lambda: train(folder / "net", source, labels, num_workers=workers))
    assert_names(told, f"toy-set: /music/a/{place // 2}.wav at", fact)


def test_channels_stand_side_by_side(tmp_path: Path) -> None:
    source = toy_source({"a": 4, "b": 4})
    source.arrays = [np.stack([each, each + 1], axis=1) for each in source.arrays]
    train(tmp_path / "net", source, toy_labels(tmp_path, source), max_epochs=1)
    assert read_description(tmp_path / "net").bins == 12


def test_a_set_without_features_is_told(tmp_path: Path) -> None:
    labels = write_labels(tmp_path / "labels.csv", [("x", "a")])
    empty = ToySource([], [])
    assert_names(
        told_by(lambda: plan(tmp_path / "net", empty, labels)), "toy-set: holds no features"
    )


def test_a_loss_that_is_no_number_is_told(tmp_path: Path) -> None:
    source = toy_source({"a": 4, "b": 4})
    labels = toy_labels(tmp_path, source)
    told = told_by(lambda: train(tmp_path / "net", source, labels, lr=1e30, max_epochs=30))
    assert_names(told, "the loss was", "--lr")


def test_files_that_are_no_classifier_are_told(tmp_path: Path) -> None:
    source = toy_source({"a": 4, "b": 4})
    train(tmp_path / "net", source, toy_labels(tmp_path, source), max_epochs=1)
    description = json.loads((tmp_path / "net" / CLASSIFIER_FILE).read_text())

    def told_of(content: str) -> str:
        (tmp_path / "net" / CLASSIFIER_FILE).write_text(content)
        return told_by(lambda: load_classifier(tmp_path / "net"))

    assert_names(told_of("{"), CLASSIFIER_FILE)
    assert_names(told_of(json.dumps({**description, "bins": 0})), "bins")
    assert_names(told_of(json.dumps({**description, "features": {"kind": "x"}})), "kind")
    assert_names(told_of(json.dumps({**description, "bins": 5})), WEIGHTS_FILE, "is not of")
    (tmp_path / "net" / CLASSIFIER_FILE).write_text(json.dumps(description))
    (tmp_path / "net" / WEIGHTS_FILE).write_bytes(b"x" * 100)
    assert_names(told_by(lambda: load_classifier(tmp_path / "net")), "not whole")
    (tmp_path / "net" / WEIGHTS_FILE).unlink()
    assert_names(told_by(lambda: load_classifier(tmp_path / "net")), "not trained yet")
    assert_names(told_by(lambda: load_classifier(tmp_path)), "train-classifier")
