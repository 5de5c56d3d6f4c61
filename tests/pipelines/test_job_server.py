"""Jobs behind a Beam job server: Beam's own, with its worker pool."""

import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import separators
import yaml
from apache_beam.options.pipeline_options import PortableOptions
from apache_beam.transforms.environments import Environment
from conftest import Command, dead_letters, result_files
from facts import assert_names
from portable_server import PortableServer, free_port, serving
from result_checks import manifests, read_json

from beamsplitter.pipelines.commands.dry_run import counts_of_plan
from beamsplitter.pipelines.commands.progress import counts_of_run
from beamsplitter.pipelines.job.job_config import JobFileError, parse_job
from beamsplitter.pipelines.services.portable import portable_options

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
    counts, results, failures = lines
    assert_names(counts, counts_of_run(finished=3, skipped=0, failed=1), "0:27 of audio")
    assert results.endswith(f" {tmp_path / 'there'}")
    assert failures.endswith(f" {tmp_path / 'there'}/failures.jsonl")
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
    while len(manifests(tmp_path / "out")) < 3:
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
    assert plan.stdout.splitlines()[-1] == counts_of_plan(do=3, skip=0, refuse=1)
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
    (line,) = done.stderr.splitlines()
    assert_names(line, "error: pipeline_options.job_endpoint: ", nobody.job_server)
    assert not (tmp_path / "out").exists()
    done = command("verify", job, "--log-format", "json")
    assert done.returncode == 1, done.stderr
    findings = {each["kind"]: each for each in map(json.loads, done.stdout.splitlines())}
    assert findings["job server"]["status"] == "missing"
    assert findings["worker pool"]["status"] == "warning"


def test_a_job_that_fails_is_told_in_a_line(
    server: PortableServer,
    write_audio: WriteAudio,
    job_file: Callable[..., Path],
    tmp_path: Path,
    command: Command,
) -> None:
    write_audio("music/short.wav", seconds=2, sample_rate=8000)
    job = job_file("out", keys={"blocking": True}, **portable(server, "EXTERNAL"))
    plain = yaml.safe_load(job.read_text())
    plain["separation"] = {"separator": "separators:Smoothing"}
    job.write_text(yaml.safe_dump(plain))
    # Known where the job is submitted, and not where the workers are.
    done = command("run", job, PYTHONPATH=str(Path(separators.__file__).parent))
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert_names(line, "error: ", "failed", "'separators:Smoothing'", "No module named")
    assert not (tmp_path / "out" / "run.json").exists()


def test_an_interrupt_ends_a_job_whose_workers_are_here(
    server: PortableServer,
    write_audio: WriteAudio,
    job_file: Callable[..., Path],
    tmp_path: Path,
    command: Command,
) -> None:
    for index in range(12):
        write_audio(f"music/{index}.wav", seconds=20, sample_rate=16000, seed=index)
    job = job_file("out", **portable(server, "LOOPBACK"))
    process = subprocess.Popen(
        command.line("run", job), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    until = time.monotonic() + END_LIMIT_S
    while not manifests(tmp_path / "out"):
        assert time.monotonic() < until
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=END_LIMIT_S)
    assert process.returncode == 130
    (line,) = stderr.splitlines()
    assert_names(line, "interrupted", "again")
    assert not (tmp_path / "out" / "run.json").exists()
    assert command("run", job).returncode == 0
    assert len(manifests(tmp_path / "out")) == 12
    assert not (tmp_path / "out" / ".beamsplitter").exists()


# Job files ----------------------------------------------------------------------------------------


SERVER = PortableServer("localhost:8099", "localhost:50000")


STREAM = {"type": "pubsub", "subscription": "projects/my-project/subscriptions/uploads"}


def options_of(
    *, location: str = "gs://music/in", events: dict[str, Any] | None = None, **options: Any
) -> PortableOptions:
    plain = {
        "job_name": "elsewhere",
        "pipeline_options": {"streaming": False, **options},
        "job_config": {
            "events": {"inputs": [events or {"type": "folder", "location": location}]},
            "data": {"outputs": [{"type": "file", "location": "gs://music/out"}]},
        },
    }
    return portable_options(parse_job(plain, source="job.yaml")).view_as(PortableOptions)


@pytest.mark.parametrize(
    ("kind", "config", "said"),
    [
        ("LOOPBACK", None, "PythonLoopbackEnvironment"),
        ("EXTERNAL", "localhost:50000", "url=localhost:50000"),
        ("EXTERNAL", {"url": "pool:1", "params": {"a": "b"}}, "url=pool:1,params={'a': 'b'}"),
        ("PROCESS", {"command": "/opt/apache/beam/boot"}, "command=/opt/apache/beam/boot"),
        ("DOCKER", "registry/beamsplitter:cpu", "container_image=registry/beamsplitter:cpu"),
    ],
)
def test_beam_makes_the_environment_that_the_file_names(kind: str, config: Any, said: str) -> None:
    changes = {} if config is None else {"environment_config": config}
    options = options_of(**{**portable(SERVER, kind), **changes})
    assert options.job_endpoint == "localhost:8099"
    assert said in str(Environment.from_options(options))


@pytest.mark.parametrize(
    ("changes", "facts"),
    [
        ({"streaming": True, "events": STREAM}, ["pipeline_options.streaming: "]),
        ({"job_endpoint": None}, ["pipeline_options.job_endpoint: "]),
        ({"job_endpoint": "http://localhost"}, ["job_endpoint: ", "'http://localhost'"]),
        ({"environment_type": None}, ["pipeline_options.environment_type: ", "EXTERNAL"]),
        ({"environment_type": "LOOPBACK"}, ["environment_config: ", "LOOPBACK"]),
        ({"environment_config": None}, ["environment_config: ", "EXTERNAL", "pool"]),
        (
            {"environment_type": "PROCESS", "environment_config": None},
            ["environment_config: ", "PROCESS", "{command"],
        ),
        (
            {"environment_type": "DOCKER", "environment_config": None},
            ["environment_config: ", "DOCKER", "container"],
        ),
        (
            {"environment_options": ["external_service_address=localhost:50000"]},
            ["pipeline_options.environment_options: ", "environment_config"],
        ),
        (
            {"environment_type": "DOCKER", "location": "/music"},
            ["job_config.events.inputs.0.location: /music: ", "containers"],
        ),
    ],
)
def test_mistakes_are_told_with_their_fix(changes: dict[str, Any], facts: list[str]) -> None:
    merged = {**portable(SERVER, "EXTERNAL"), **changes}
    with pytest.raises(JobFileError) as error:
        options_of(**{name: each for name, each in merged.items() if each is not None})
    assert_names(error.value, *facts)
    assert len(str(error.value).splitlines()) == 1
