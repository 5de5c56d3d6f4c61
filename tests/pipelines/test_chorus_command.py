"""`beamsplitter chorus` as a user runs it: tables, files, and what goes wrong."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import soundfile
from conftest import Command
from late_imports import late_imports
from made_songs import made_song
from storage_server import StorageServer

from beamsplitter.audio.chorus import find_choruses
from beamsplitter.pipelines.local import chorus_launch
from beamsplitter.pipelines.local.processes import in_processes

WriteAudio = Callable[..., Path]
RATE = 8000


@pytest.fixture
def songs(write_audio: WriteAudio, tmp_path: Path) -> Path:
    """A song with a chorus, one without, and a file that is none."""
    song = made_song("ABCB", sample_rate=RATE)
    stereo = np.stack([song, song[::-1] / 100])
    write_audio("songs/with ü #1.flac", samples=stereo, sample_rate=RATE)
    write_audio("songs/below/without.wav", samples=made_song("ABC")[None], sample_rate=RATE)
    (tmp_path / "songs" / "broken.mp3").write_text("no audio")
    return tmp_path / "songs"


def content_of(out: Path, name: str) -> dict[str, Any]:
    return json.loads((out / name / "chorus.json").read_text())


def test_files_tell_of_choruses_and_one_bad_file_costs_itself(
    songs: Path, tmp_path: Path, command: Command
) -> None:
    out = tmp_path / "out"
    done = command("chorus", songs, "-o", out, "--cut", "--workers", "2", "--json")
    assert done.returncode == 1
    (told,) = done.stderr.splitlines()
    assert told.startswith("broken.mp3: not audio that any decoder here reads (it is text)")
    without, broken, with_chorus = json.loads(done.stdout)
    assert broken == {"recording": "broken.mp3", "failure": told.removeprefix("broken.mp3: ")}
    files = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert files == {
        f"{folder}/chorus.{extension}"
        for folder in ("with ü #1", "below/without")
        for extension in ("json", "txt", "flac")
    }

    assert content_of(out, "below/without") == without
    assert (without["recording"], without["sections"]) == ("below/without.wav", [])
    assert without["reason"] == "nothing repeats"
    assert (without["excerpt_start_s"], without["excerpt_stop_s"]) == (24, 39)
    assert (out / "below/without/chorus.txt").read_text() == "24.000000\t39.000000\texcerpt\n"

    assert content_of(out, "with ü #1") == with_chorus
    song, _ = soundfile.read(songs / "with ü #1.flac", dtype="float32")
    (expected,) = find_choruses(song.T, RATE).sections
    (section,) = with_chorus["sections"]
    assert section["start_s"] == pytest.approx(expected.start_s, abs=1e-6)
    assert section["repeats_s"] == pytest.approx(expected.repeats_s, abs=1e-6)
    start = round(section["start_s"] * RATE)
    cut, rate = soundfile.read(out / "with ü #1/chorus.flac", dtype="float32")
    assert rate == RATE
    np.testing.assert_array_equal(cut, song[start : start + 15 * RATE])
    labels = [line.split("\t") for line in (out / "with ü #1/chorus.txt").read_text().splitlines()]
    assert [label[2] for label in labels] == ["excerpt", "section 1", "section 1"]
    assert float(labels[0][1]) - float(labels[0][0]) == pytest.approx(15)
    starts_s = [section["start_s"], *section["repeats_s"]]
    assert [float(label[0]) for label in labels[1:]] == pytest.approx(starts_s, abs=1e-5)
    assert all(float(label[1]) <= 80 for label in labels)


def test_without_a_folder_a_table_is_printed_and_nothing_written(
    songs: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(songs.parent)
    loop = np.tile(made_song("A", section_s=6), 40)
    soundfile.write(songs / "below" / "loop.wav", loop, RATE)
    before = sorted(songs.parent.rglob("*"))
    done = command("chorus", songs / "below", "songs/with*.flac", "--clip-seconds", "18")
    assert done.returncode == 0, done.stderr
    assert sorted(songs.parent.rglob("*")) == before
    rows = {line.split()[0]: " ".join(line.split()[1:]) for line in done.stdout.splitlines()[3:6]}
    assert " more" in rows["below/loop.wav"]
    assert rows["below/without.wav"] == "(0:24.0) (18.0 s) nothing repeats"
    assert rows["with"].startswith("ü #1.flac 0:20.")
    assert "1:00." in rows["with"]
    assert done.stdout.splitlines()[-1] == "3 recordings"


def test_folders_of_recordings_and_results_may_be_one(
    write_audio: WriteAudio, tmp_path: Path, command: Command
) -> None:
    """What is written there is no recording in the next run."""
    for name in ("a.wav", "chorus.wav"):
        write_audio(f"songs/{name}", seconds=2)
    songs = tmp_path / "songs"
    first, second = (
        command("chorus", songs, "-o", songs, "--cut", "--format", "wav", "--json")
        for _ in range(2)
    )
    assert (first.returncode, first.stderr) == (0, "")
    assert second.stdout == first.stdout
    named = [each["recording"] for each in json.loads(first.stdout)]
    assert named == ["a.wav", "chorus.wav"]
    for name in ("a", "chorus"):
        assert soundfile.info(songs / name / "chorus.wav").frames == 2 * 16000


def test_recordings_that_differ_in_their_extension_have_folders_of_their_own(
    write_audio: WriteAudio, tmp_path: Path, command: Command
) -> None:
    for name in ("a.wav", "b.wav", "b.flac"):
        write_audio(f"songs/{name}", seconds=2)
    done = command("chorus", tmp_path / "songs", "-o", tmp_path / "out")
    assert (done.returncode, done.stderr) == (0, "")
    folders = {path.parent.name for path in (tmp_path / "out").rglob("chorus.json")}
    assert folders == {"a", "b.wav", "b.flac"}


def test_buckets(
    gcs: StorageServer, write_audio: WriteAudio, tmp_path: Path, command: Command
) -> None:
    write_audio("songs/song.wav", samples=made_song("BB")[None], sample_rate=RATE)
    gcs.upload(tmp_path / "songs", "songs")
    there = "gs://music/songs", "-o", "gs://music/out"
    done = command("chorus", *there, "--cut")
    assert done.returncode == 0, done.stderr
    files = ("chorus.json", "chorus.txt", "chorus.flac")
    assert set(gcs.names("out")) == {f"out/song/{name}" for name in files}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--cut"], "--cut: excerpts need a folder: give --output"),
        (["--format", "wav"], "--format: is that of excerpts: give --cut"),
        (["nowhere"], "nowhere: no such file or folder"),
    ],
)
def test_mistakes_are_told(
    arguments: list[str], said: str, write_audio: WriteAudio, command: Command
) -> None:
    done = command("chorus", write_audio("a.wav"), *arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_an_error_that_nobody_foresaw_costs_its_recording(
    write_audio: WriteAudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("something else")

    monkeypatch.setattr(chorus_launch, "read_audio", fail)
    path = write_audio("a.wav")
    task = chorus_launch.ChorusTask("a.wav", str(path), chorus_launch.Storage(), clip_s=15)
    assert chorus_launch.find_in_file(task).failure == "RuntimeError: something else"


def test_an_item_that_takes_its_process_down_costs_itself() -> None:
    """Those that were beside it are done again."""
    fatal = "__import__('os')._exit(3)"
    sums = [f"{number} + 1" for number in range(12)]
    items = [*sums[:5], fatal, *sums[5:]]
    results = dict(in_processes(eval, items, workers=3))
    assert results.pop(fatal) is None
    assert results == {text: eval(text) for text in sums}


def test_what_all_processes_need_is_imported_once(write_audio: WriteAudio) -> None:
    """Three seconds of CPU for each of them otherwise."""
    forkserver._forkserver._stop()  # which other tests have had import less
    path = write_audio("a.wav", samples=made_song("AB")[None], sample_rate=RATE)
    task = chorus_launch.ChorusTask("a.wav", str(path), chorus_launch.Storage(), clip_s=15)
    ((_, late),) = in_processes(late_imports, [task], workers=1, imports=chorus_launch.IMPORTS)
    assert late == set()


def test_what_work_raises_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        list(in_processes(eval, ["1 + 1", "1 / 0"], workers=1))


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_no_process_outlives_the_command(
    sent: signal.Signals, write_audio: WriteAudio, tmp_path: Path, command: Command
) -> None:
    song = np.tile(made_song("ABCDEF"), 4)
    for index in range(8):
        write_audio(f"songs/{index}.wav", samples=song[None], sample_rate=RATE)
    line = command.line("chorus", tmp_path / "songs", "--workers", "2")
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    begun = psutil.Process(process.pid)
    # The server that forks, what tracks its resources, and a worker.
    while len(below := begun.children(recursive=True)) < 3:
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, sent)
    _, told = process.communicate(timeout=60)
    _, alive = psutil.wait_procs(below, timeout=60)
    assert not alive
    if sent == signal.SIGINT:
        assert process.returncode == 130
        assert told.splitlines()[-1] == "interrupted; run it again"
