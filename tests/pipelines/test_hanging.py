"""Recordings that hang or end their process: each costs itself, and some seconds."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Command, dead_letters
from result_checks import assert_whole, manifests, read_json
from separators import Ending
from warm_command import HOOK

from beamsplitter.pipelines.commands.progress import counts_of_run

RATE = 8000
LIMIT_S = 5
WriteAudio = Callable[..., Path]
TESTS = str(Path(__file__).parents[1])
# One that ends all processes of the engine, once another is being worked on beside it.
CULPRIT = """
import os, signal, time
from pathlib import Path
from beamsplitter.audio.decoding import audio_reader

read_audio = audio_reader.read_audio
both_work = Path(os.environ["BOTH_WORK"])

def read_or_end(source, *, name, **options):
    if name == "culprit.wav":
        while not both_work.exists():
            time.sleep(0.01)
        os.killpg(0, signal.SIGKILL)
    if name == "innocent.wav":
        both_work.touch()
        time.sleep(2)
    return read_audio(source, name=name, **options)

audio_reader.read_audio = read_or_end
"""
IN_THE_END = """
import os
from beamsplitter.audio import parts

def join_parts(*_):
    os._exit(9)

parts.join_parts = join_parts
"""


def constant(level: float) -> np.ndarray:
    return np.full((1, RATE), level, np.float32)


def job_file(folder: Path, **changes: Any) -> Path:
    plain = {
        "job_name": "hanging",
        "pipeline_options": {"runner": "DirectRunner", "streaming": False},
        "job_config": {
            "events": {"inputs": [{"type": "folder", "location": str(folder / "in")}]},
            "data": {"outputs": [{"type": "file", "location": str(folder / "out")}]},
        },
        "plots": {"enabled": False},
        "limits": {"step_s": LIMIT_S, "step_times_length": 0},
        **changes,
    }
    path = folder / "job.yaml"
    path.write_text(json.dumps(plain))
    return path


def ended_badly(log: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in log.splitlines()]
    return [line for line in lines if line["event"] == "crashed"]


@pytest.mark.parametrize(
    ("workers", "culprits"),
    [
        (1, {"stops": Ending.STOPS, "leaves": Ending.LEAVES, "exits": Ending.EXITS}),
        (2, {"hangs": Ending.HANGS, "leaves": Ending.LEAVES}),
    ],
)
def test_what_hangs_or_leaves_is_given_up_with_its_step_and_the_rest_is_done(
    tmp_path: Path,
    write_audio: WriteAudio,
    command: Command,
    workers: int,
    culprits: dict[str, float],
) -> None:
    for seed, name in enumerate("az"):
        write_audio(f"in/{name}.wav", seconds=1, sample_rate=RATE, seed=seed)
    for name, level in culprits.items():
        write_audio(f"in/{name}.wav", sample_rate=RATE, samples=constant(level))
    path = job_file(tmp_path, separation={"separator": "separators:Ending"})
    run = command(*("run", path, "--workers", workers, "--log-format", "json"), PYTHONPATH=TESTS)
    assert run.returncode == 1, run.stderr
    letters = dead_letters(tmp_path / "out")
    assert letters.keys() == {f"{name}.wav" for name in culprits}
    for name in culprits:
        letter = letters[f"{name}.wav"]
        tried = [line for line in ended_badly(run.stdout) if line["element"] == f"{name}.wav"]
        if name == "exits":
            assert (letter["exception"], letter["message"]) == ("SystemExit", "no licence")
            assert not tried
            continue
        hung = name != "leaves"
        said = f"step RunInference for more than {LIMIT_S} s" if hung else "process crashed"
        assert said in letter["message"]
        assert (letter["exception"], letter["step"]) == ("GivenUpError", "RunInference")
        assert [(line["tries"], line["hung"]) for line in tried] == [(1, hung), (2, hung)]
    assert len(ended_badly(run.stdout)) == 2 * len(culprits.keys() - {"exits"})
    assert [path.parent.name for path in manifests(tmp_path / "out")] == ["a", "z"]
    assert read_json(tmp_path / "out" / "run.json")["recordings"]["finished"] == 2
    assert_whole(tmp_path / "out")


def test_an_innocent_recording_is_not_given_up_with_a_culprit_beside_it(
    tmp_path: Path, write_audio: WriteAudio, command: Command
) -> None:
    for name in ("culprit", "innocent"):
        write_audio(f"in/{name}.wav", seconds=2)
    run = command(
        *("run", job_file(tmp_path), "--workers", 2, "--log-format", "json"),
        **{HOOK: CULPRIT, "BOTH_WORK": str(tmp_path / "both-work")},
    )
    assert run.returncode == 1, run.stderr
    assert dead_letters(tmp_path / "out").keys() == {"culprit.wav"}
    assert [path.parent.name for path in manifests(tmp_path / "out")] == ["innocent"]
    tried = [(line["element"], line["tries"]) for line in ended_badly(run.stdout)]
    assert tried == [("culprit.wav", 1), ("innocent.wav", 1), ("culprit.wav", 2)]


def test_what_ends_its_process_when_its_parts_are_joined_is_given_up_with_that_step(
    tmp_path: Path, write_audio: WriteAudio, command: Command
) -> None:
    write_audio("in/long.wav", seconds=15, sample_rate=RATE)
    write_audio("in/short.wav", seconds=2, sample_rate=RATE)
    path = job_file(tmp_path, separation={"part_seconds": 10})
    run = command(*("run", path, "--workers", 1, "--force"), **{HOOK: IN_THE_END})
    assert run.returncode == 1, run.stderr
    assert dead_letters(tmp_path / "out")["long.wav"]["step"] == "JoinParts"
    assert [path.parent.name for path in manifests(tmp_path / "out")] == ["short"]
    assert counts_of_run(finished=1, skipped=0, failed=1) in run.stderr
    # It was finished once, also in a run that does finished recordings again.
    assert "PublishTrack" not in read_json(tmp_path / "out" / "run.json")["steps"]
    assert run.stderr.count("crashed long.wav: its process ended in step JoinParts") == 2
