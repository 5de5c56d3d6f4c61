"""The commands config and train, as a user calls them."""

import importlib.util
import json
import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from conftest import Command
from facts import assert_names
from toy_training import write_dataset, write_network
from typer.testing import CliRunner, Result

from beamsplitter.models.networks.settings import SETTINGS
from beamsplitter.models.training.settings import TrainerSettings
from beamsplitter.pipelines.command_line import app

QUICK = ("--batch-size=4", "--num-workers=0", "--max-epochs=2", "--no-tensorboard")


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments)])


def written(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "model.json").read_text()))


# config -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", SETTINGS)
def test_defaults_are_those_of_the_network(tmp_path: Path, model: str) -> None:
    done = invoke("config", model, "--save", tmp_path / "net", "--vocals")
    assert done.exit_code == 0, done.output
    settings = SETTINGS[model](targets=("vocals",))
    assert written(tmp_path / "net") == settings.model_dump(mode="json")


def test_the_command_of_auralflows_page_works(tmp_path: Path) -> None:
    line = (
        "--vocals --num-channels 1 --num-hidden-channels 16 --sample-length 3 "
        "--sample-rate 44100 --dropout-p 0.4 --leak-factor 0 --normalize-input "
        "--normalize-output --recurrent-depth 3 --hidden-size 1024 --input-axis 1 "
        "--mask-act-fn sigmoid --num-fft 2048 --window-size 2048 --hop-length 1024"
    )
    folder = tmp_path / "my_model"
    done = invoke("config", "SpectrogramNetLSTM", "--save", folder, "--display", *line.split())
    assert done.exit_code == 0, done.output
    found = written(folder)
    assert found["normalize_input"] is found["normalize_output"] is True
    assert (found["num_fft"], found["hop_length"]) == (2048, 1024)
    assert found["targets"] == ["vocals"]
    assert '"recurrent_depth": 3' in done.output


def test_names_may_have_underscores(tmp_path: Path) -> None:
    done = invoke(
        "config", "SpectrogramNetSimple", "--save", tmp_path, "--bass", "--num_channels", "2"
    )
    assert done.exit_code == 0, done.output
    assert written(tmp_path)["num_channels"] == 2


def test_stems_of_any_name(tmp_path: Path) -> None:
    done = invoke(
        "config", "SpectrogramNetSimple", "--save", tmp_path, "--targets", "speech,birds", "--drums"
    )
    assert done.exit_code == 0, done.output
    assert written(tmp_path)["targets"] == ["speech", "birds", "drums"]


@pytest.mark.parametrize(
    ("arguments", "facts"),
    [
        (["SpectrogramNetSimple"], ("which stems", "--targets")),
        (["SpectrogramNet", "--vocals"], ("SpectrogramNet", *SETTINGS)),
        (["SpectrogramNetSimple", "--vocals", "--hidden-size", "9"], ("hidden_size", "unknown")),
        (["SpectrogramNetSimple", "--vocals", "--hop-length", "1024"], ("hop_length", "half")),
        (["SpectrogramNetSimple", "--vocals", "--mask-act-fn", "step"], ("mask_act_fn", "tanh")),
        (["SpectrogramNetSimple", "--targets", "a,a"], ("targets", "twice")),
        (["SpectrogramNetSimple", "--vocals", "--dropout-p", "1"], ("dropout_p", "less than 1")),
    ],
)
def test_mistakes_are_told(tmp_path: Path, arguments: list[str], facts: tuple[str, ...]) -> None:
    done = invoke("config", *arguments, "--save", tmp_path / "net")
    assert done.exit_code == 2
    (line,) = done.output.splitlines()
    assert_names(line, *facts)
    assert not (tmp_path / "net").exists()


def test_nothing_is_deleted(tmp_path: Path) -> None:
    """Auralflow's took the whole folder away."""
    (tmp_path / "thesis.txt").write_text("chapter 1")
    for _ in range(2):
        assert invoke("config", "SpectrogramNetSimple", "--save", tmp_path, "--bass").exit_code == 0
    assert (tmp_path / "thesis.txt").read_text() == "chapter 1"
    (tmp_path / "model.json").write_text('{"somebody": "else"}')
    assert invoke("config", "SpectrogramNetSimple", "--save", tmp_path, "--bass").exit_code == 2
    assert (tmp_path / "model.json").read_text() == '{"somebody": "else"}'
    write_network(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    done = invoke("config", "SpectrogramNetSimple", "--save", tmp_path, "--drums")
    assert done.exit_code == 2
    assert "holds a trained network" in done.output
    assert written(tmp_path)["targets"] == ["vocals"]


# train --------------------------------------------------------------------------------------------


def test_there_is_an_option_for_each_setting() -> None:
    shown = CliRunner().invoke(app, ["train", "--help"], env={"COLUMNS": "200", "TERM": "dumb"})
    options = set(re.findall(r"--([a-z-]+)", shown.output))
    for name, field in TrainerSettings.model_fields.items():
        assert name.replace("_", "-") in options
        if field.annotation is bool:
            assert f"no-{name.replace('_', '-')}" in options


def test_from_stems_to_stems(tmp_path: Path, command: Command) -> None:
    data = write_dataset(tmp_path / "data")
    network = ("--num-fft=128", "--window-size=128", "--hop-length=64", "--sample-rate=8000")
    size = ("--sample-length=0.5", "--num-hidden-channels=1")
    folder = tmp_path / "net"
    done = command("config", "SpectrogramNetSimple", "--save", folder, "--vocals", *network, *size)
    assert done.returncode == 0, done.stderr
    done = command("train", folder, data, *QUICK, "--lr=0.001", "--display")
    assert done.returncode == 0, done.stderr
    assert_names(done.stderr, "18 excerpts of 0.5 s to train on", "3 tracks", "epoch 2: loss")
    assert_names(done.stdout, "validation", "vocals (dB)", "best", '"batch_size": 4')
    song = data / "val" / "song 0" / "vocals.wav"
    out = tmp_path / "out"
    done = command("separate", song, "-o", out, "--separator", folder)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (out / "vocals").iterdir()} >= {"vocals.flac", "residual.flac"}


def test_shards_train_as_folders_do(tmp_path: Path, command: Command) -> None:
    data = write_dataset(tmp_path / "data")
    shards = tmp_path / "shards"
    cut = ("--targets=vocals", "--sample-rate=8000", "--excerpt-seconds=0.5")
    done = command("prepare", data, "-o", shards, *cut)
    assert done.returncode == 0, done.stderr
    losses = []
    for name, source in (("folders", data), ("shards", shards)):
        folder = write_network(tmp_path / name)
        done = command("train", folder, source, *QUICK, "--lr=0.001")
        assert done.returncode == 0, done.stderr
        epochs = json.loads((folder / "training.json").read_text())["epochs"]
        losses.append([(each["training_loss"], each["validation_loss"]) for each in epochs])
    # Shards have 24 bits, of which some processors make more than others.
    assert losses[0] == [pytest.approx(each, abs=1e-2) for each in losses[1]]


def test_an_interrupt_leaves_what_can_be_gone_on_from(tmp_path: Path, command: Command) -> None:
    data = write_dataset(tmp_path / "data")
    folder = write_network(tmp_path / "net")
    line = command.line("train", folder, data, *QUICK, "--max-epochs=100000")
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
    done = command("train", folder, data, "--resume", "--max-epochs=4")
    assert done.returncode == 0, done.stderr
    epochs = json.loads((folder / "training.json").read_text())["epochs"]
    assert len(epochs) >= 4


def test_silence_is_silent(tmp_path: Path, command: Command) -> None:
    data = write_dataset(tmp_path / "data")
    done = command("train", write_network(tmp_path / "net"), data, *QUICK, "--silent")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("arguments", "facts"),
    [
        (["--criterion=kl_div"], ("kl_div", "SpectrogramNetVAE")),
        (["--criterion=magic"], ("criterion", "si_sdr")),
        (["--best-perm"], ("best_perm", "several targets")),
        (["--batch-size=0"], ("batch_size", "greater")),
        (["--scale-grad"], ("scale_grad", "use_amp")),
        (["--sample-length=3"], ("sample-length",)),
    ],
)
def test_wrong_settings_are_told(
    tmp_path: Path, arguments: list[str], facts: tuple[str, ...]
) -> None:
    data = write_dataset(tmp_path / "data", training=1)
    folder = write_network(tmp_path / "net")
    done = invoke("train", folder, data, *arguments)
    assert done.exit_code == 2
    assert_names(done.output, *facts)
    assert {path.name for path in folder.iterdir()} == {"model.json"}


def test_wrong_places_are_told(tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "data", training=1)
    folder = write_network(tmp_path / "net", targets=["piano"])
    cases = {
        "holds no model.json": (tmp_path, data),
        "is no folder": (folder, tmp_path / "nothing"),
        "piano": (folder, data),
    }
    for message, (where, what) in cases.items():
        done = invoke("train", where, what)
        assert done.exit_code == 2
        (line,) = done.output.splitlines()
        assert message in line


def test_what_is_not_installed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = importlib.util.find_spec

    def without(name: str, *arguments: Any) -> Any:
        return None if name == "lightning" else original(name, *arguments)

    monkeypatch.setattr(importlib.util, "find_spec", without)
    done = invoke("train", tmp_path, tmp_path)
    assert done.exit_code == 2
    assert_names(done.output, "lightning", "pip install 'beamsplitter[train]'")
