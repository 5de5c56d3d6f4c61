"""Stopped, killed and crashed runs: nothing half done stays, and the next run does the rest."""

import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import soundfile
from conftest import Command, dead_letters, made_signal, result_files
from facts import assert_names
from result_checks import assert_whole, manifests, read_json
from started_commands import StartedCommand, have_ended, started
from warm_command import HOOK

from beamsplitter.pipelines.commands.progress import counts_of_run
from beamsplitter.pipelines.outcomes.run_state import CRASHED

RATE = 22050
SONGS = 8
TIME_LIMIT_S = 60
LETHAL = """
import os
from beamsplitter.audio.decoding import audio_reader

read_audio = audio_reader.read_audio

def read_or_die(source, *, name, **options):
    if name.startswith("lethal"):
        os._exit(139)
    return read_audio(source, name=name, **options)

audio_reader.read_audio = read_or_die
"""


def write_song(path: Path, seconds: float, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, made_signal(seconds, RATE, 1, seed).T, RATE)


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of recordings that take a while; the last is done in parts."""
    folder = tmp_path_factory.mktemp("songs")
    for seed in range(SONGS - 1):
        write_song(folder / f"{seed}.wav", 30, seed)
    write_song(folder / "long.wav", 45, SONGS)
    return folder


def arguments(folder: Path, out: Path) -> tuple[object, ...]:
    return ("separate", folder, "-o", out, "--workers", 2, "--part-seconds", 35)


@pytest.fixture(scope="module")
def undisturbed(
    songs: Path, tmp_path_factory: pytest.TempPathFactory, command: Command
) -> dict[str, bytes]:
    """What a run that nobody disturbs writes."""
    out = tmp_path_factory.mktemp("undisturbed")
    done = command(*arguments(songs, out))
    assert done.returncode == 0, done.stderr
    assert len(manifests(out)) == SONGS
    return result_files(out)


def wait_until(condition: Callable[[], object], *, limit_s: float = TIME_LIMIT_S) -> None:
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def family_in_the_middle(run: StartedCommand, out: Path) -> list[psutil.Process]:
    """All processes of a run, its own first, when it has finished some recordings and not all."""
    wait_until(lambda: manifests(out))
    assert len(manifests(out)) < SONGS
    return run.family()


def written(out: Path) -> dict[Path, int]:
    """When the files of finished recordings were written."""
    folders = [path.parent for path in manifests(out)]
    return {path: path.stat().st_mtime_ns for each in folders for path in each.iterdir()}


def assert_next_run_does_the_rest(
    songs: Path, out: Path, command: Command, undisturbed: dict[str, bytes]
) -> None:
    finished = len(manifests(out))
    before = written(out)
    again = command(*arguments(songs, out))
    assert again.returncode == 0, again.stderr
    said = counts_of_run(finished=SONGS - finished, skipped=finished, failed=0)
    assert said in again.stderr
    after = written(out)
    assert {path: after[path] for path in before} == before
    assert result_files(out) == undisturbed
    assert_whole(out)


def test_after_all_processes_are_killed_the_next_run_does_the_rest(
    songs: Path, tmp_path: Path, command: Command, undisturbed: dict[str, bytes]
) -> None:
    out = tmp_path / "out"
    with started(command, tmp_path / "tmp", *arguments(songs, out)) as run:
        family = family_in_the_middle(run, out)
        for process in family:
            with suppress(psutil.NoSuchProcess):  # those of a killed launcher end by themselves
                process.kill()
        assert have_ended(family, limit_s=TIME_LIMIT_S)
    assert_next_run_does_the_rest(songs, out, command, undisturbed)


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_ends_at_once_and_leaves_finished_recordings_only(
    songs: Path,
    tmp_path: Path,
    command: Command,
    undisturbed: dict[str, bytes],
    stop: signal.Signals,
) -> None:
    out = tmp_path / "out"
    anew = stop == signal.SIGINT
    with started(command, tmp_path / "tmp", *arguments(songs, out), anew=anew) as run:
        family = family_in_the_middle(run, out)
        family[0].send_signal(stop)
        assert run.wait(4) == 130
    (line,) = run.message.splitlines()
    assert_names(line, "interrupted", "again")
    assert have_ended(family)
    assert not list((tmp_path / "tmp").iterdir())
    assert not (out / ".beamsplitter").exists()
    if stop == signal.SIGINT:
        assert_next_run_does_the_rest(songs, out, command, undisturbed)


def test_the_engine_does_not_outlive_a_killed_launcher(
    songs: Path, tmp_path: Path, command: Command, undisturbed: dict[str, bytes]
) -> None:
    out = tmp_path / "out"
    with started(command, tmp_path / "tmp", *arguments(songs, out)) as run:
        family = family_in_the_middle(run, out)
        assert len(family) >= 4
        family[0].kill()
        assert have_ended(family)
    assert not list((tmp_path / "tmp").iterdir())
    assert len(manifests(out)) < SONGS
    assert_next_run_does_the_rest(songs, out, command, undisturbed)


def test_a_launcher_that_is_killed_while_its_engine_begins_leaves_nothing(
    songs: Path, tmp_path: Path, command: Command
) -> None:
    with started(command, tmp_path / "tmp", *arguments(songs, tmp_path / "out")) as run:
        wait_until(run.children)
        family = run.family()
        family[0].kill()
        wait_until(lambda: not list((tmp_path / "tmp").iterdir()))
        assert have_ended(family, limit_s=TIME_LIMIT_S)


def test_a_killed_worker_costs_no_recording(
    songs: Path, tmp_path: Path, command: Command, undisturbed: dict[str, bytes]
) -> None:
    out = tmp_path / "out"
    with started(command, tmp_path / "tmp", *arguments(songs, out)) as run:
        family = family_in_the_middle(run, out)
        engine = next(each for each in family if each.ppid() == family[0].pid)
        workers = [each for each in family if each.ppid() == engine.pid]
        assert len(workers) == 2
        workers[-1].kill()
        assert run.wait(TIME_LIMIT_S) == 0, run.message
    assert result_files(out) == undisturbed
    assert_whole(out)


@pytest.mark.parametrize(("workers", "lethal"), [(1, ["lethal", "lethal-too"]), (2, ["lethal"])])
def test_a_recording_that_kills_its_worker_is_given_up_and_the_rest_is_done(
    tmp_path: Path, command: Command, workers: int, lethal: list[str]
) -> None:
    for seed, name in enumerate(("a", "b", *lethal, "y", "z")):
        write_song(tmp_path / "in" / f"{name}.wav", 1, seed)
    (tmp_path / "in" / "empty.wav").write_bytes(b"")
    out = tmp_path / "out"
    run = command(
        *("separate", tmp_path / "in", "-o", out, "--workers", workers, "--no-plots"),
        **{HOOK: LETHAL},
    )
    assert run.returncode == 1, run.stderr
    letters = dead_letters(out)
    assert letters.keys() == {"empty.wav", *(f"{name}.wav" for name in lethal)}
    assert letters["empty.wav"]["exception"] == "EmptyAudioError"
    for letter in (letters[f"{name}.wav"] for name in lethal):
        assert letter["exception"] == "GivenUpError"
        assert CRASHED in letter["message"]
        assert "traceback" not in letter
    assert [path.parent.name for path in manifests(out)] == ["a", "b", "y", "z"]
    assert_whole(out)


@pytest.fixture(scope="module")
def at_once(tmp_path_factory: pytest.TempPathFactory, command: Command) -> Path:
    """A folder with `in`, of which one recording has two parts, and its results in `out`."""
    base = tmp_path_factory.mktemp("small")
    for seed, seconds in enumerate((3, 15)):
        write_song(base / "in" / f"{seconds}.wav", seconds, seed)
    assert small_run(command, base / "in", base / "out").returncode == 0
    return base


def small_run(
    command: Command, folder: Path, out: Path, *options: object
) -> subprocess.CompletedProcess[str]:
    return command(*("separate", folder, "-o", out, "--part-seconds", 10, "--workers", 1, *options))


@pytest.mark.parametrize("recording", ["3", "15"])
def test_a_deleted_stem_is_restored_with_its_recording_alone(
    at_once: Path, tmp_path: Path, command: Command, recording: str
) -> None:
    out = tmp_path / "out"
    shutil.copytree(at_once / "out", out)
    (out / recording / "background.flac").unlink()
    before = written(out)
    again = small_run(command, at_once / "in", out)
    assert again.returncode == 0
    assert "1 finished, 1 already done" in again.stderr
    assert result_files(out) == result_files(at_once / "out")
    untouched = {path for path, time_ns in written(out).items() if before.get(path) == time_ns}
    assert {path.parent.name for path in untouched} == {"3", "15"} - {recording}


def test_plots_are_added_without_separating_again(
    at_once: Path, tmp_path: Path, command: Command
) -> None:
    out = tmp_path / "out"
    assert small_run(command, at_once / "in", out, "--no-plots").returncode == 0
    assert not list(out.rglob("*.png"))
    stems = {path: time_ns for path, time_ns in written(out).items() if path.suffix == ".flac"}
    assert len(stems) == 4
    again = small_run(command, at_once / "in", out)
    assert "2 finished" in again.stderr
    assert {path: written(out)[path] for path in stems} == stems
    assert "GetSTFT" not in read_json(out / "run.json")["steps"]
    assert result_files(out) == result_files(at_once / "out")
    assert_whole(out)
