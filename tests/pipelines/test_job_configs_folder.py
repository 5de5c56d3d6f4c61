"""Each job file that comes along loads and runs."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import Command, result_files
from model_packages import Loudness, write_labeler

from beamsplitter.pipelines.job.job_config import load_job

JOB_FOLDER = Path(__file__).parents[2] / "job-configs"
JOB_FILES = sorted(JOB_FOLDER.glob("*.yaml"))
DATAFLOW_FILES = [path for path in JOB_FILES if "dataflow" in path.name]
VALUES = {
    "EVENTS": "ids.txt",
    "TOPIC": "uploads",
    "SUBSCRIPTION": "uploads-to-stems",
    "INPUT": "in",
    "OUTPUT": "out",
    "PROJECT": "my-project",
    "REGION": "europe-west4",
    "BUCKET": "my-bucket",
    "IMAGE": "europe-west4-docker.pkg.dev/my-project/beamsplitter/beamsplitter:0.1.0",
}


def test_there_are_job_files() -> None:
    assert {path.name for path in JOB_FILES} >= {
        "local-folder.yaml",
        "klio-excerpt.yaml",
        "pubsub-local.yaml",
        "gcs-batch-dataflow.yaml",
        "gcs-batch-dataflow-gpu.yaml",
        "pubsub-dataflow.yaml",
        "spectrogram-set.yaml",
        "label.yaml",
        "all-branches.yaml",
    }


@pytest.fixture(scope="module")
def labeler(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_labeler(tmp_path_factory.mktemp("labels") / "net", Loudness())


@pytest.mark.parametrize("path", JOB_FILES, ids=lambda path: path.name)
def test_a_job_file_loads_under_its_own_name(path: Path, labeler: str) -> None:
    assert load_job(str(path), templates={**VALUES, "MODEL": labeler}).job_name == path.stem


@pytest.mark.parametrize("path", DATAFLOW_FILES, ids=lambda path: path.name)
def test_a_job_file_for_dataflow_can_be_submitted(path: Path, command: Command) -> None:
    templates = [each for name in VALUES for each in ("-T", f"{name}={VALUES[name]}")]
    done = command("run", path, "--dry-run", *templates)
    assert done.returncode == 0, done.stderr
    assert f"{path.stem}, " in done.stdout
    assert ("accelerator" in done.stdout) is ("gpu" in path.name)
    assert (f"{path.stem}, streaming" in done.stdout) is ("pubsub" in path.name)


def test_local_folder_makes_what_separate_makes(
    write_audio: Callable[..., Path], tmp_path: Path, command: Command
) -> None:
    write_audio("in/song.wav", seconds=2)
    templates = ["-T", f"INPUT={tmp_path / 'in'}", "-T", f"OUTPUT={tmp_path / 'a'}"]
    done = command("run", JOB_FOLDER / "local-folder.yaml", *templates)
    assert done.returncode == 0, done.stderr
    assert command("separate", tmp_path / "in", "-o", tmp_path / "b", "--report").returncode == 0
    made = [result_files(tmp_path / out) for out in "ab"]
    assert made[0] == made[1]
    assert made[0].keys() >= {"song/background.flac", "song/foreground.png", "song/manifest.json"}


def test_klio_excerpt_does_five_seconds_from_second_ten_on(
    write_audio: Callable[..., Path], tmp_path: Path, command: Command
) -> None:
    write_audio("inputs/song one.ogg", seconds=17)
    write_audio("inputs/song two.ogg", seconds=16, seed=1)
    (tmp_path / "audio_ids.txt").write_text("song one\nsong two\n")
    out = tmp_path / "outputs"
    values = {"EVENTS": tmp_path / "audio_ids.txt", "INPUT": tmp_path / "inputs", "OUTPUT": out}
    templates = [each for name in values for each in ("-T", f"{name}={values[name]}")]
    done = command("run", JOB_FOLDER / "klio-excerpt.yaml", *templates)
    assert done.returncode == 0, done.stderr
    for element in ("song one", "song two"):
        manifest = json.loads((out / element / "manifest.json").read_text())
        assert manifest["input"]["start_sample"] == 10 * 16000
        assert {file["frames"] for file in manifest["files"] if file["branch"] == "stems"} == {
            5 * 16000
        }
        assert (out / element / "spectrogram.png").is_file()


def run(name: str, command: Command, **values: object) -> None:
    templates = [each for name in values for each in ("-T", f"{name}={values[name]}")]
    done = command("run", JOB_FOLDER / name, *templates)
    assert done.returncode == 0, done.stderr


def test_spectrogram_set_makes_what_spectrograms_makes(
    write_audio: Callable[..., Path], tmp_path: Path, command: Command
) -> None:
    write_audio("in/song.wav", seconds=13)
    run("spectrogram-set.yaml", command, INPUT=tmp_path / "in", OUTPUT=tmp_path / "a")
    parameters = {
        "sample_rate": 22050,
        "n_fft": 400,
        "hop_length": 200,
        "pad_mode": "reflect",
        "n_mels": 64,
        "htk": "true",
        "mel_norm": "null",
        "top_db": 80,
    }
    options = [each for name in parameters for each in ("--option", f"{name}={parameters[name]}")]
    excerpts = ("--take", "every", "--duration", 5, "--hop", 5, "--shards", "webdataset")
    done = command("spectrograms", tmp_path / "in", "-o", tmp_path / "b", *options, *excerpts)
    assert done.returncode == 0, done.stderr
    made = [result_files(tmp_path / out) for out in "ab"]
    assert made[0] == made[1]
    assert made[0].keys() == {
        *("song/features.npz", "song/manifest.json", "failures.jsonl", "features.json"),
        *("features-statistics.json", "features-00000-of-00001.tar"),
        "features-00000-of-00001.jsonl",
    }
    with np.load(tmp_path / "a/song/features.npz") as features:
        shapes = {name: features[name].shape for name in features.files if "/" in name}
    assert shapes == {f"log_mel/mixture/{index:05d}": (552, 64) for index in range(2)}


def test_label_makes_what_label_makes(
    write_audio: Callable[..., Path], tmp_path: Path, command: Command, labeler: str
) -> None:
    write_audio("in/song.wav", seconds=3)
    run("label.yaml", command, INPUT=tmp_path / "in", OUTPUT=tmp_path / "a", MODEL=labeler)
    options = ("--model", labeler, "--uncertain", 0.5, "--report")
    done = command("label", tmp_path / "in", "-o", tmp_path / "b", *options)
    assert done.returncode == 0, done.stderr
    made = [result_files(tmp_path / out) for out in "ab"]
    assert made[0] == made[1]
    assert made[0].keys() >= {"song/labels.json", "song/labels.txt", "labels.csv"}


def test_all_branches_are_made_in_one_pass(
    write_audio: Callable[..., Path], tmp_path: Path, command: Command, labeler: str
) -> None:
    for name in ("mixture", "vocals"):
        write_audio(f"in/track/{name}.wav", seconds=3)
    run("all-branches.yaml", command, INPUT=tmp_path / "in", OUTPUT=tmp_path / "out", MODEL=labeler)
    manifest = json.loads((tmp_path / "out/track/mixture/manifest.json").read_text())
    assert manifest["branches"].keys() == {
        *("stems", "labels", "scores", "features", "report", "plots")
    }
    decoded = json.loads((tmp_path / "out/run.json").read_text())["steps"]["LoadAudio"]
    assert decoded["in"] == 1
    with np.load(tmp_path / "out/track/mixture/features.npz") as features:
        assert {name for name in features.files if "/" in name} == {
            *("log_mel/mixture", "log_mel/foreground", "chroma/mixture", "chroma/foreground")
        }


@pytest.mark.parametrize("path", JOB_FILES, ids=lambda path: path.name)
def test_a_missing_template_value_is_explained(path: Path, command: Command) -> None:
    done = command("run", path, "-T", "OTHER=x")
    assert done.returncode == 2
    assert "is missing: give it with --template" in done.stderr
