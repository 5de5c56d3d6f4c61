"""Fixtures: real recordings, made recordings, and ways to run a job."""

import contextlib
import functools
import gc
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import bigquery_server
import numpy as np
import pubsub_server
import pytest
import soundfile
from apache_beam.runners.portability import stager
from storage_server import StorageServer, serving
from warm_command import COMMAND, WarmCommand, warm_command

from beamsplitter.pipelines.events import bigquery as bigquery_client
from beamsplitter.pipelines.local import launch
from beamsplitter.storage.gcs import client

# Workers are processes, in tests as in jobs: one thread each.
for _variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_variable] = "1"

# Where Python is told to keep no bytecode, each process that tests start would compile the package.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# In the background of a script it is ignored, and would be by the commands that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


@functools.cache
def output_of(*command: str) -> bytes:
    """What a command writes."""
    return subprocess.check_output(command)


# Of pip, for each graph that goes to a service, what is installed: a second of CPU.
stager.subprocess = SimpleNamespace(check_output=lambda command: output_of(*command))


def pytest_collection_finish() -> None:
    """Look for garbage seldom, and not in what was imported: it took a sixth of the CPU."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


@pytest.fixture
def write_audio(tmp_path: Path) -> Callable[..., Path]:
    """`write_audio("music/a.wav", seconds=3, …)`: a repeating tone with a varying one over it."""

    def write(
        name: str,
        *,
        seconds: float = 3.0,
        sample_rate: int = 16000,
        channels: int = 1,
        subtype: str | None = None,
        seed: int = 0,
        samples: np.ndarray | None = None,
    ) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if samples is None:
            samples = made_signal(seconds, sample_rate, channels, seed)
        soundfile.write(path, samples.T, sample_rate, subtype=subtype)
        return path

    return write


def made_signal(seconds: float, sample_rate: int, channels: int, seed: int = 0) -> np.ndarray:
    """float32 `(channels, samples)`: a beat that repeats, a sweep and some noise."""
    time_s = np.arange(round(seconds * sample_rate)) / sample_rate
    generator = np.random.default_rng(seed)
    beat = np.sin(2 * np.pi * 220 * time_s) * (time_s % 0.5 < 0.2)
    sweep = np.sin(2 * np.pi * (400 + 150 * np.sin(time_s + seed)) * time_s)
    noise = generator.standard_normal((channels, time_s.size)) * 0.01
    return (0.3 * beat + 0.2 * sweep + noise).astype(np.float32)


MAKE_PAGES = (["separate"], ["label"])


class Command:
    """Runs `beamsplitter` in a process of its own."""

    def __init__(self, warm: WarmCommand) -> None:
        self.warm = warm

    def __call__(
        self, *arguments: object, timeout_s: float = 300, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run to the end; never raises for an exit code."""
        variables = {**os.environ, **environment}
        if self.warm.takes(variables):
            return self.warm.run(self.line(*arguments), variables, timeout_s)
        return self.anew(*arguments, timeout_s=timeout_s, **environment)

    def anew(
        self, *arguments: object, timeout_s: float = 300, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """The same, started as a user starts it."""
        return subprocess.run(
            self.line(*arguments),
            capture_output=True,
            text=True,
            timeout=timeout_s,
            env={**os.environ, **environment},
        )

    def start(
        self, *arguments: object, environment: Mapping[str, str] = os.environ, **options: Any
    ) -> Any:
        """Start it, as `subprocess.Popen` does; what is given has some of its methods."""
        if self.warm.takes(environment):
            return self.warm.start(self.line(*arguments), env=environment, **options)
        return self.start_anew(*arguments, environment=environment, **options)

    def start_anew(
        self, *arguments: object, environment: Mapping[str, str] = os.environ, **options: Any
    ) -> subprocess.Popen[Any]:
        """The same, as a user starts it."""
        return subprocess.Popen(self.line(*arguments), env=environment, **options)

    @staticmethod
    def line(*arguments: object) -> list[str]:
        """The command line; without a page, which takes its time, but where a test asks for it."""
        words = [*map(str, arguments)]
        if words[:1] in MAKE_PAGES and "--report" not in words:
            words.insert(1, "--no-report")
        return [sys.executable, *COMMAND, *words]


@pytest.fixture(scope="session")
def command() -> Iterator[Command]:
    """`command("separate", folder, "-o", out)`."""
    with warm_command() as warm:
        yield Command(warm)


@pytest.fixture(scope="session", autouse=True)
def engines(request: pytest.FixtureRequest) -> Iterator[None]:
    """Engines of jobs that tests run in their own process are forked as those of commands are."""

    def start(line: list[str], **options: Any) -> Any:
        return request.getfixturevalue("command").warm.start_engine(line, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launch, "subprocess", SimpleNamespace(Popen=start))
        yield


def dead_letters(out: Path) -> dict[str, dict[str, Any]]:
    """The failures of a run by element."""
    lines = (out / "failures.jsonl").read_text().splitlines()
    return {letter["element"]: letter for letter in map(json.loads, lines)}


def result_files(out: Path) -> dict[str, bytes]:
    """All published files by path; manifests without times, and nothing else that tells of them."""
    # Not rglob: it fails when a scratch folder of a running job vanishes under it.
    paths = sorted(Path(folder, name) for folder, _, names in os.walk(out) for name in names)
    files = {}
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            if path.name not in ("run.json", "run.js") and not path.name.startswith("facts-"):
                files[str(path.relative_to(out))] = path.read_bytes()
    return {
        name: without_times(data) if name.endswith("manifest.json") else data
        for name, data in files.items()
    }


def without_times(manifest: bytes) -> bytes:
    """A manifest without when its files were made, and how long that took."""
    content = json.loads(manifest)
    for branch in content["branches"].values():
        del branch["made"], branch["work_s"]
    return json.dumps(content, sort_keys=True).encode()


@pytest.fixture(scope="session")
def storage_process() -> Iterator[StorageServer]:
    """A server of Google Cloud Storage on loopback."""
    with serving() as server:
        yield server


@pytest.fixture
def gcs(storage_process: StorageServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[StorageServer]:
    """The server with an empty bucket; every client in this test goes there."""
    storage_process.clear()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", storage_process.address)
    client.cache_clear()
    yield storage_process
    client.cache_clear()


@pytest.fixture(scope="session")
def bigquery_process() -> Iterator[bigquery_server.BigQueryServer]:
    """A server of BigQuery on loopback."""
    with bigquery_server.serving() as server:
        yield server


@pytest.fixture
def bigquery(
    bigquery_process: bigquery_server.BigQueryServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[bigquery_server.BigQueryServer]:
    """The server with an empty dataset; every client in this test goes there."""
    bigquery_process.clear()
    monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", bigquery_process.address)
    bigquery_client.client.cache_clear()
    yield bigquery_process
    bigquery_client.client.cache_clear()


@pytest.fixture(scope="session")
def pubsub_process() -> Iterator[pubsub_server.PubSubServer]:
    """A Pub/Sub server on loopback."""
    with pubsub_server.serving() as server:
        yield server


@pytest.fixture
def pubsub(
    pubsub_process: pubsub_server.PubSubServer, monkeypatch: pytest.MonkeyPatch
) -> pubsub_server.PubSubServer:
    """The server; every client in this test goes there. Each test makes topics of its own."""
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", pubsub_process.address)
    return pubsub_process
