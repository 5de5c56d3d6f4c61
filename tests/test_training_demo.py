"""The data of the demonstration of training, and its table of scores, on toy sizes."""

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from audio_files import RECORDINGS
from conftest import Command
from programs import run_program

from beamsplitter.errors import BeamsplitterError
from beamsplitter.models.datasets.stem_folders import find_tracks

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
SAMPLE_RATE = 16_000
LIMIT_S = 120

HALF = """
from beamsplitter.models.separators.base import Separator

class Half(Separator):
    name = "half"
    stems = ("speech",)

    def separate(self, block, sample_rate):
        return block[None] / 2
"""


Demo = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def demo(command: Command) -> Demo:
    """Runs the program."""

    def demo(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, str(BENCHMARKS / "training_demo.py"), *map(str, arguments)]
        return command.warm.run(line, {**os.environ, **environment}, LIMIT_S)

    return demo


def make(demo: Demo, folder: Path, *options: object, audio: Path = RECORDINGS) -> None:
    """Data without the recordings that Debian's packages hold."""
    done = demo("data", "--audio", audio, "--to", folder, "--recorded", 0, *options)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, demo: Demo) -> Path:
    run_program("espeak-ng", "--version", package="espeak-ng")
    folder = tmp_path_factory.mktemp("demo") / "data"
    make(demo, folder, "--minutes", 1, "--workers", 1)
    return folder


def stems_of(folder: Path) -> dict[str, dict[str, np.ndarray]]:
    return {
        track.name: {
            stem: soundfile.read(file.path, dtype="float32")[0]
            for stem, file in track.stems.items()
        }
        for track in find_tracks(folder)
    }


def level_db(signal: np.ndarray) -> float:
    return 10 * float(np.log10(np.mean(signal.astype(np.float64) ** 2)))


def test_each_track_has_both_stems_of_one_length_with_sound_in_them(data: Path) -> None:
    for split, count in (("train", 2), ("val", 6), ("test", 24)):
        tracks = stems_of(data / split)
        assert len(tracks) == count
        for stems in tracks.values():
            assert set(stems) == {"speech", "music"}
            assert stems["speech"].size == stems["music"].size >= 20 * SAMPLE_RATE
            assert all(-45 < level_db(stem) < -5 for stem in stems.values())


def test_recorded_tracks_have_the_level_that_they_are_named_by(data: Path) -> None:
    for name, stems in {**stems_of(data / "val"), **stems_of(data / "test")}.items():
        difference_db = level_db(stems["speech"]) - level_db(stems["music"])
        assert difference_db == pytest.approx(float(name[-5:-2].lstrip("s")), abs=0.05)


def test_mixtures_are_the_sums_of_their_stems(data: Path) -> None:
    for track in [*find_tracks(data / "val"), *find_tracks(data / "test")]:
        assert track.mixture is not None
        mixture, _ = soundfile.read(track.mixture.path)
        parts = [soundfile.read(file.path)[0] for file in track.stems.values()]
        assert np.abs(sum(parts) - mixture).max() < 2 / 2**15
        assert np.abs(mixture).max() < 1


def test_nothing_of_a_test_is_heard_before(data: Path, demo: Demo, tmp_path: Path) -> None:
    """With noise for the recordings of the test, all that is trained on stays as it is."""
    heard = {path.name for path in RECORDINGS.glob("*.ogg")}
    tested = {part for track in find_tracks(data / "test") for part in track.name.split("-")[:2]}
    for name in heard:
        recording = tmp_path / "audio" / name
        recording.parent.mkdir(exist_ok=True)
        if recording.stem.removeprefix("speech_") in tested:
            noise = 0.1 * np.random.default_rng(0).standard_normal(70 * SAMPLE_RATE)
            soundfile.write(recording, noise, SAMPLE_RATE)
        else:
            recording.symlink_to(RECORDINGS / name)
    folder = tmp_path / "data"
    make(demo, folder, "--minutes", 1, audio=tmp_path / "audio")
    for split in ("train", "val"):
        for path in (data / split).rglob("*.wav"):
            assert (folder / path.relative_to(data)).read_bytes() == path.read_bytes()
    (path, *_) = (data / "test").rglob("speech.wav")
    assert (folder / path.relative_to(data)).read_bytes() != path.read_bytes()


def test_the_same_seed_makes_the_same_tracks(data: Path, demo: Demo, tmp_path: Path) -> None:
    for seed, same in ((0, True), (1, False)):
        folder = tmp_path / str(seed)
        make(demo, folder, "--minutes", 0.5, "--seed", seed)
        (name, again), *_ = stems_of(folder / "train").items()
        for stem, samples in stems_of(data / "train")[name].items():
            assert np.array_equal(samples, again[stem]) == same


def test_what_is_missing_is_named(demo: Demo, tmp_path: Path) -> None:
    done = demo("data", "--audio", tmp_path, "--to", tmp_path / "a", "--recorded", 0)
    assert done.returncode == 1
    assert "speech_ashiel.ogg is missing" in done.stderr
    done = demo("data", "--audio", RECORDINGS, "--to", tmp_path / "b", PATH=str(tmp_path))
    assert done.returncode == 1
    assert "apt-get install espeak-ng" in done.stderr
    (tmp_path / "c" / "train").mkdir(parents=True)
    done = demo("data", "--audio", RECORDINGS, "--to", tmp_path / "c")
    assert done.returncode == 1
    assert "is not empty" in done.stderr
    assert "Traceback" not in done.stderr


def test_packages_that_are_missing_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    recordings = importlib.import_module("training_demo_recordings")
    monkeypatch.setattr(recordings, "READERS", (tmp_path / "nobody",))
    with pytest.raises(BeamsplitterError, match=r"apt-get install asterisk-core-sounds-en-g722 .*"):
        recordings.require_recordings()


def test_a_reader_is_all_that_is_spoken_each_as_loud_as_the_next(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    recordings = importlib.import_module("training_demo_recordings")
    for name, seconds, level in (
        *(("a", 1.0, 0.5), ("digits/b", 2.0, 0.05)),
        *(("beep", 3.0, 0.5), ("silence/9", 3.0, 0.5), ("short", 0.3, 0.5)),
    ):
        path = tmp_path / f"{name}.g722"
        path.parent.mkdir(exist_ok=True)
        noise = f"anoisesrc=d={seconds}:r={SAMPLE_RATE}:a={level}"
        run_program("ffmpeg", "-v", "error", "-f", "lavfi", "-i", noise, path, package="ffmpeg")
    said = recordings.reader(tmp_path)
    assert said.size == pytest.approx(3 * SAMPLE_RATE, abs=100)
    assert level_db(said[:SAMPLE_RATE]) == pytest.approx(-20, abs=0.5)
    assert level_db(said[SAMPLE_RATE:]) == pytest.approx(-20, abs=0.5)


def test_a_stretch_of_music_lies_anywhere_in_its_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    recordings = importlib.import_module("training_demo_recordings")
    ramp = np.linspace(-0.5, 0.5, 10 * SAMPLE_RATE)
    soundfile.write(tmp_path / "ramp.wav", np.stack([ramp, ramp], axis=1), SAMPLE_RATE)
    starts = []
    for seed in range(5):
        chance = np.random.default_rng(seed)
        stretch = recordings.stretch_of(tmp_path / "ramp.wav", chance, 2.0)
        assert np.diff(stretch) == pytest.approx(np.diff(ramp)[0], abs=1e-4)
        assert stretch.size == 2 * SAMPLE_RATE
        starts.append(float(stretch[0]))
    assert len(set(starts)) == 5
    assert recordings.stretch_of(tmp_path / "ramp.wav", chance, 60).size == ramp.size


def test_scores_stand_in_a_table_and_in_json(data: Path, demo: Demo, tmp_path: Path) -> None:
    (tmp_path / "half.py").write_text(HALF)
    few = tmp_path / "few"
    (few / "test").mkdir(parents=True)
    for track in find_tracks(data / "test")[:2]:
        (few / "test" / track.name).symlink_to(data / "test" / track.name)
    done = demo(
        *("scores", "--data", few, "--separator", "half:Half", "--json", tmp_path / "s.json"),
        PYTHONPATH=str(tmp_path),
    )
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "s.json").read_text())
    assert len(content["mixtures"]) == 2
    for row in [*content["mixtures"].values(), content["mean"]]:
        assert row["half:Half"] == pytest.approx(row["mixture"], abs=0.01)
        assert row["ideal ratio mask"] > row["mixture"] + 5
    assert f"{content['mean']['nn-filter']:.1f}" in done.stdout.splitlines()[-1]
    done = demo("scores", "--data", few, "--separator", "hpss")
    assert done.returncode == 1
    assert "gives no speech" in done.stderr
    assert "Traceback" not in done.stderr
