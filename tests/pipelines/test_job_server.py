"""Jobs behind a Beam job server: Beam's own, with its worker pool."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import Command, dead_letters, result_files
from portable_server import PortableServer, free_port, serving
from result_checks import read_json

WriteAudio = Callable[..., Path]
END_LIMIT_S = 120


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PortableServer]:
    """A job server and a worker pool."""
    with serving(tmp_path_factory.mktemp("servers")) as server:
        yield server


@pytest.fixture
def music(write_audio: WriteAudio, tmp_path: Path) -> Path:
    """A recording of three parts, two of one part, and one that fails."""
    write_audio("music/long.wav", seconds=22, sample_rate=8000)
    write_audio("music/short.flac", seconds=3, sample_rate=8000, channels=2)
    write_audio("music/below/other.wav", seconds=2, sample_rate=8000)
    (tmp_path / "music" / "broken.wav").write_bytes(b"RIFF, but nothing more")
    return tmp_path / "music"


@pytest.fixture
def job_file(tmp_path: Path) -> Callable[..., Path]:
    """`job_file(out, runner=…, …)`: a job that splits the recordings in `music`."""

    def write(out: str, *, keys: dict[str, Any] | None = None, **options: Any) -> Path:
        plain = {
            "job_name": "elsewhere",
            "pipeline_options": {"streaming": False, **options},
            "job_config": {
                "events": {"inputs": [{"type": "folder", "location": str(tmp_path / "music")}]},
                "data": {"outputs": [{"type": "file", "location": str(tmp_path / out)}]},
                **(keys or {}),
            },
            "separation": {"part_seconds": 10},
        }
        path = tmp_path / f"{out}.yaml"
        path.write_text(yaml.safe_dump(plain))
        return path

    return write


def portable(server: PortableServer, kind: str, **options: Any) -> dict[str, Any]:
    config = {"EXTERNAL": {"environment_config": server.worker_pool}}.get(kind, {})
    return {
        "runner": "PortableRunner",
        "job_endpoint": server.job_server,
        "environment_type": kind,
        **config,
        **options,
    }


@pytest.mark.parametrize("kind", ["LOOPBACK", "EXTERNAL"])
def test_the_results_are_those_of_this_machine(
    kind: str,
    server: PortableServer,
    music: Path,
    job_file: Callable[..., Path],
    tmp_path: Path,
    command: Command,
) -> None:
    here = command("run", job_file("here", runner="DirectRunner"), "--workers", 1)
    assert here.returncode == 1, here.stderr
    job = job_file("there", keys={"blocking": True}, **portable(server, kind))
    there = command("run", job)
    assert there.returncode == 1, there.stderr
    assert len(there.stdout.splitlines()) == 1  # the id of the job
    lines = there.stderr.splitlines()
    assert lines[0].startswith("3 finished, 0 already done, 1 failed; 0:27 of audio in ")
    assert lines[1:] == [
        f"results in {tmp_path / 'there'}",
        f"why some failed: {tmp_path / 'there'}/failures.jsonl",
    ]
    assert set(dead_letters(tmp_path / "there")) == {"broken.wav"}
    files = result_files(tmp_path / "there")
    assert files == result_files(tmp_path / "here")
    assert len(files) > 15

    run, expected = (read_json(tmp_path / out / "run.json") for out in ("there", "here"))
    assert run["recordings"] == expected["recordings"]
    assert run["audio_s"] == expected["audio_s"]
    counters, local = run["steps"], expected["steps"]
    for step in ("LoadBinary", "LoadAudio", "InverseSTFT", "EncodeStems", "JoinParts"):
        assert counters[step]["in"] == local[step]["in"] > 0

    (music / "broken.wav").unlink()
    again = command("run", job, "--log-format", "json")
    assert again.returncode == 0, again.stderr
    submitted, summary = map(json.loads, again.stdout.splitlines())
    assert submitted["job_id"]
    assert summary["event"] == "summary"
    assert summary["recordings"] == {
        "finished": 0,
        "skipped": 3,
        "passed_through": 0,
        "failed": 0,
        "clipped": 0,
        "total": 3,
    }
    assert (tmp_path / "there" / "failures.jsonl").read_bytes() == b""


@pytest.mark.usefixtures("music")
def test_the_command_need_not_wait(
    server: PortableServer, job_file: Callable[..., Path], tmp_path: Path, command: Command
) -> None:
    waiting = {"wait_for_pipeline_running": True}
    done = command("run", job_file("out", keys=waiting, **portable(server, "EXTERNAL")))
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert not (tmp_path / "out" / "run.json").exists()
    until = time.monotonic() + END_LIMIT_S
    while len(list((tmp_path / "out").rglob("manifest.json"))) < 3:
        assert time.monotonic() < until
        time.sleep(0.1)


@pytest.mark.usefixtures("music")
def test_verify_and_dry_run_say_what_is_there(
    server: PortableServer, job_file: Callable[..., Path], tmp_path: Path, command: Command
) -> None:
    job = job_file("out", **portable(server, "EXTERNAL"))
    done = command("verify", job, "--log-format", "json")
    assert done.returncode == 0, done.stderr
    findings = {each["kind"]: each for each in map(json.loads, done.stdout.splitlines())}
    assert findings["job server"]["status"] == "ok"
    assert findings["worker pool"]["status"] == "ok"
    assert findings["results"]["status"] == "ok"
    plan = command("run", job, "--dry-run")
    assert plan.returncode == 1
    assert plan.stdout.splitlines()[-1] == "3 to do, 0 already done, 1 refused"
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("music")
def test_servers_that_are_not_there_are_told(
    job_file: Callable[..., Path],
    tmp_path: Path,
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nobody = PortableServer(f"localhost:{free_port()}", f"localhost:{free_port()}")
    job = job_file("out", **portable(nobody, "EXTERNAL"))
    done = command("run", job)
    assert done.returncode == 2
    assert done.stderr == (
        f"error: pipeline_options.job_endpoint: no job server answers at {nobody.job_server}: "
        "start it, or correct the address\n"
    )
    assert not (tmp_path / "out").exists()
    done = command("verify", job, "--log-format", "json")
    assert done.returncode == 1, done.stderr
    findings = {each["kind"]: each for each in map(json.loads, done.stdout.splitlines())}
    assert findings["job server"]["status"] == "missing"
    assert findings["worker pool"]["status"] == "warning"
