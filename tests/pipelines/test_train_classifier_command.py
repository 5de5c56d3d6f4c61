"""The command train-classifier, as a user calls it."""

import csv
import importlib.util
import json
import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from conftest import Command
from facts import assert_names
from toy_classifiers import (
    RATE,
    made_sound,
    sounding_source,
    toy_labels,
    toy_source,
    write_feature_set,
    write_labels,
)
from typer.testing import CliRunner, Result

from beamsplitter.models.classifiers.settings import ClassifierSettings
from beamsplitter.pipelines.command_line import app

QUICK = ("--hidden-size=8", "--lr=0.02", "--max-epochs=6", "--batch-size=8", "--no-tensorboard")


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["train-classifier", *map(str, arguments)])


def test_there_is_an_option_for_each_setting() -> None:
    shown = CliRunner().invoke(
        app, ["train-classifier", "--help"], env={"COLUMNS": "200", "TERM": "dumb"}
    )
    options = set(re.findall(r"--([a-z-]+)", shown.output))
    for name in ClassifierSettings.model_fields:
        assert name.replace("_", "-") in options


def test_from_features_to_labels_of_a_recording(tmp_path: Path, command: Command) -> None:
    source = sounding_source({"tone": 5, "noise": 5})
    features = write_feature_set(tmp_path / "features", source)
    labels = toy_labels(tmp_path, source)
    net = tmp_path / "net"
    done = command("train-classifier", features, "--labels", labels, "-o", net, *QUICK)
    assert done.returncode == 0, done.stderr
    assert_names(
        done.stderr, "lstm, for one of noise, tone", "train: ", "epoch 6: loss", "report.md"
    )
    assert_names(done.stdout, "balanced accuracy", "AUROC", "baseline", "0.500", "6,", "parameters")
    content = json.loads((net / "report.json").read_text())
    assert content["sides"]["test"]["excerpts"]["classifier"]["balanced_accuracy"] == 1
    with (net / "split.csv").open() as file:
        assert {row["split"] for row in csv.DictReader(file)} == {"train", "validation", "test"}

    package = tmp_path / "package"
    done = command("export", net, "--to", package)
    assert done.returncode == 0, done.stderr
    assert_names(done.stdout, "model.pt", "from the original")
    song = np.concatenate([made_sound("tone", 1, 4), made_sound("noise", 2, 2.5)], axis=1)
    soundfile.write(tmp_path / "song.wav", song.T, RATE)
    out = tmp_path / "out"
    done = command("label", tmp_path / "song.wav", "-o", out, "--model", package)
    assert done.returncode == 0, done.stderr
    found = json.loads((out / "song" / "labels.json").read_text())
    assert [each["label"] for each in found[:6]] == ["tone"] * 4 + ["noise"] * 2
    assert [each["start_s"] for each in found] == [0, 1, 2, 3, 4, 5, 6]
    assert found[-1]["end_s"] == 6.5
    assert all(0.5 < each["confidence"] <= 1 for each in found)


def test_settings_may_stand_in_a_file(tmp_path: Path) -> None:
    source = toy_source({"a": 4, "b": 4})
    features, labels = write_feature_set(tmp_path / "set", source), toy_labels(tmp_path, source)
    config = tmp_path / "settings.yaml"
    config.write_text("encoder: gru\nhidden_size: 4\nmax_epochs: 1\ntensorboard: false\n")
    done = invoke(
        features, "--labels", labels, "-o", tmp_path / "net", "--config", config, "--hidden-size=6"
    )
    assert done.exit_code == 0, done.output
    settings = json.loads((tmp_path / "net/trainer.json").read_text())
    assert (settings["encoder"], settings["hidden_size"], settings["max_epochs"]) == ("gru", 6, 1)


def test_what_is_left_out_is_told(tmp_path: Path) -> None:
    source = toy_source({"a": 5, "b": 5})
    features = write_feature_set(tmp_path / "set", source)
    rows = [(f"{label}/{number}", label) for label in "ab" for number in range(1, 5)]
    labels = write_labels(tmp_path / "labels.csv", [*rows, ("c/0", "a")])
    line = (features, "--labels", labels, "-o", tmp_path / "net", *QUICK, "--max-epochs=1")
    refused = invoke(*line)
    assert refused.exit_code == 2
    assert_names(refused.output, "c/0", "--allow-missing", "line 10")
    done = invoke(*line, "--allow-missing")
    assert done.exit_code == 0, done.output
    assert_names(
        done.output,
        "2 recordings have no label and are left out: a/0, b/0",
        "1 elements of the table have no features and are left out: c/0",
    )


def test_a_table_that_can_not_be_split_is_named(tmp_path: Path) -> None:
    source = toy_source({"a": 5, "b": 2})
    features, labels = write_feature_set(tmp_path / "set", source), toy_labels(tmp_path, source)
    refused = invoke(features, "--labels", labels, "-o", tmp_path / "net")
    assert refused.exit_code == 2
    assert_names(refused.output, f"{labels}: the label b has 2 of the 3 groups")


def test_an_interrupt_leaves_what_can_be_gone_on_from(tmp_path: Path, command: Command) -> None:
    source = toy_source({"a": 5, "b": 5})
    features, labels = write_feature_set(tmp_path / "set", source), toy_labels(tmp_path, source)
    net = tmp_path / "net"
    arguments = ("train-classifier", features, "--labels", labels, "-o", net)
    endless = ("--max-epochs=100000", "--patience=100000")
    line = command.line(*arguments, *QUICK, *endless)
    with subprocess.Popen(line, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for text in process.stderr:
            if text.startswith("epoch 2"):
                process.send_signal(signal.SIGINT)
                break
        rest = process.stderr.read().splitlines()
    assert process.returncode == 130
    assert_names(rest[-1], "interrupted", "--resume")
    assert not any("Traceback" in each for each in rest)
    done = command(*arguments, "--resume", "--max-epochs=4")
    assert done.returncode == 0, done.stderr
    assert len(json.loads((net / "training.json").read_text())["epochs"]) >= 4
    assert (net / "report.json").is_file()


def test_silence_is_silent(tmp_path: Path) -> None:
    source = toy_source({"a": 4, "b": 4})
    features, labels = write_feature_set(tmp_path / "set", source), toy_labels(tmp_path, source)
    done = invoke(features, "--labels", labels, "-o", tmp_path / "net", *QUICK, "--silent")
    assert (done.exit_code, done.output) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "facts"),
    [
        (["--encoder=rnn"], ("encoder", "lstm")),
        (["--encoder=cnn", "--bidirectional"], ("bidirectional", "cnn")),
        (["--validation-share=0.6", "--test-share=0.5"], ("nothing to train on",)),
        (["--set=loud"], ("--set loud", "log_mel")),
        (["--signal=drums"], ("--signal drums", "mixture")),
        (["--config=gone.yaml"], ("gone.yaml", "can't be read")),
        (["--accelerator=quantum"], ("quantum",)),
        (["--batch-size=0"], ("batch_size", "greater")),
    ],
)
def test_mistakes_are_told(tmp_path: Path, arguments: list[str], facts: tuple[str, ...]) -> None:
    source = toy_source({"a": 4, "b": 4})
    features, labels = write_feature_set(tmp_path / "set", source), toy_labels(tmp_path, source)
    done = invoke(features, "--labels", labels, "-o", tmp_path / "net", "--silent", *arguments)
    assert done.exit_code == 2, done.output
    (line,) = done.output.splitlines()
    assert_names(line, *facts)


@pytest.mark.parametrize(
    ("content", "fact"),
    [("- a\n", "no list of settings"), ("a: [", "no YAML"), ("learning: 1", "learning")],
)
def test_files_of_settings_that_are_none_are_told(tmp_path: Path, content: str, fact: str) -> None:
    source = toy_source({"a": 4, "b": 4})
    features, labels = write_feature_set(tmp_path / "set", source), toy_labels(tmp_path, source)
    config = tmp_path / "settings.yaml"
    config.write_text(content)
    done = invoke(features, "--labels", labels, "-o", tmp_path / "net", "--config", config)
    assert done.exit_code == 2
    assert_names(done.output.splitlines()[0], "error: ", fact)


def test_what_is_not_installed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = importlib.util.find_spec

    def without(name: str, *arguments: Any) -> Any:
        return None if name == "sklearn" else original(name, *arguments)

    monkeypatch.setattr(importlib.util, "find_spec", without)
    done = invoke(tmp_path, "--labels", "labels.csv", "-o", tmp_path / "net")
    assert done.exit_code == 2
    assert_names(done.output, "sklearn", "pip install 'beamsplitter[train]'")


def test_a_classifier_has_no_options_to_export(tmp_path: Path) -> None:
    (tmp_path / "classifier.json").write_text("{}")
    done = CliRunner().invoke(
        app, ["export", str(tmp_path), "--to", str(tmp_path / "p"), "--option", "a=1"]
    )
    assert done.exit_code == 2
    assert_names(done.output, "--option", "classifier")
