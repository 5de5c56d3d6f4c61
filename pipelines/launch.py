"""Running a job on this machine: the engine process, its crashes, its end, and `run.json`."""

import contextlib
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..transforms.storage import DEAD_LETTERS, OutputTree
from .engine_spec import UNUSABLE_EXIT_CODE, EngineSpec
from .job_config import JobConfig

CRASHES_BEFORE_GIVING_UP = 2
CRASHED = (
    "its worker process crashed each time that it was tried (out of memory, or a fault in a "
    "decoder): convert the file, or leave it out"
)
NO_RECORDING = ""
POLL_S = 0.1
THREADS_OF_LIBRARIES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
# glibc keeps the memory of a recording for the next: to get it anew took a sixth of the time.
KEPT_MEMORY = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(1 << 40),
}
REPORTED_PACKAGES = ("apache-beam", "av", "librosa", "numba", "numpy", "scipy", "soundfile")


class LaunchError(RuntimeError):
    """The engine could not do its work at all."""


@dataclass
class RunState:
    """What is known of a run, from the lines of its progress file.

    `passed` are the pings, and the messages that are for other jobs. `planned_s` and `done_s` are
    seconds of audio, `open_s` those still to do by element and part, `in_flight` the processes
    that parts are being worked on in.
    """

    total: int
    finished: set[str] = field(default_factory=set)
    skipped: set[str] = field(default_factory=set)
    passed: set[str] = field(default_factory=set)
    clipped: set[str] = field(default_factory=set)
    failures: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    planned_s: float = 0.0
    done_s: float = 0.0
    open_s: dict[str, dict[int, float]] = field(default_factory=dict)
    in_flight: dict[tuple[str, int], int] = field(default_factory=dict)
    alive: list[int] | None = None

    def take(self, line: dict[str, Any]) -> None:
        """Take one line of the progress file."""
        event, element, part = line["event"], line.get("element", ""), line.get("part_index") or 0
        if event == "worker died":
            self.alive = line["alive"]
        elif event in ("opened", "started"):
            self.in_flight[element, part] = line["process"]
        elif event == "planned":
            self.in_flight.pop((element, 0), None)
            self.open_s.setdefault(element, {})[part] = line["duration_s"]
            self.planned_s += line["duration_s"]
        elif event == "part":
            self._done(element, part)
        elif event == "finished":
            (self.skipped if line["skipped"] else self.finished).add(element)
            if line["clipped_samples"]:
                self.clipped.add(element)
            for each in list(self.open_s.get(element, ())):
                self._done(element, each)
        elif event == "passed":
            self.passed.add(element)
        elif event == "failed":
            self.failures.setdefault(element, []).append(line)
            self.in_flight.pop((element, part), None)
            self.planned_s -= sum(self.open_s.pop(element, {}).values())

    def _done(self, element: str, part: int) -> None:
        # A part tells of each of its branches; the first counts.
        self.done_s += self.open_s.get(element, {}).pop(part, 0.0)
        self.in_flight.pop((element, part), None)

    @property
    def ended(self) -> int:
        """How many recordings are finished, were so before, were passed through, or failed."""
        return len(self.finished | self.skipped | self.passed | self.failures.keys())

    @property
    def counts(self) -> dict[str, int]:
        """How many recordings came to which end."""
        return {
            "finished": len(self.finished),
            "skipped": len(self.skipped - self.finished),
            "passed_through": len(self.passed),
            "failed": len(self.failures),
            "clipped": len(self.clipped),
            "total": self.total,
        }

    def begin_again(self) -> None:
        """Forget what a new engine will tell again."""
        self.planned_s -= sum(sum(parts.values()) for parts in self.open_s.values())
        self.open_s.clear()
        self.in_flight.clear()
        self.failures.clear()
        self.alive = None

    def suspects(self) -> list[str]:
        """The recordings that a process that is gone was working on."""
        alive = self.alive or []
        return sorted({key[0] for key, pid in self.in_flight.items() if pid not in alive})


def run_local(
    job: JobConfig,
    elements: Sequence[str],
    *,
    workers: int,
    show: Callable[[RunState, dict[str, Any] | None], None],
) -> RunState:
    """Run a job on FnApiRunner, in a process of its own, to its end.

    A recording that takes its worker process down is tried once more with the rest, and given up
    as a dead letter when it does so again.

    Parameters
    ----------
    elements : the events
    workers : worker processes
    show : called with the state and each new line of progress, and with None now and then

    Raises
    ------
    LaunchError : the engine failed for a reason that is no recording's
    StorageError : the output folder can't be written
    KeyboardInterrupt : after the engine and its workers are gone
    """
    tree = OutputTree(job.output_location)
    started = time.monotonic()
    state = RunState(total=len(elements))
    crashes: Counter[str] = Counter()
    metrics: dict[str, Any] = {}
    with tree.owned_scratch():
        tree.write(b"", DEAD_LETTERS)
        while True:
            given_up = {
                element: CRASHED
                for element, count in crashes.items()
                if count >= CRASHES_BEFORE_GIVING_UP
            }
            with tempfile.TemporaryDirectory(prefix="beamsplitter-") as folder:
                code, metrics = _run_engine(
                    job, elements, workers, given_up, Path(folder), state, show
                )
            if code == 0:
                break
            if code == UNUSABLE_EXIT_CODE:
                raise LaunchError(metrics["log"].strip().splitlines()[-1])
            suspects = state.suspects() or [NO_RECORDING]
            crashes.update(suspects)
            if code == 1 or crashes[NO_RECORDING] >= CRASHES_BEFORE_GIVING_UP:
                raise LaunchError(metrics["log"])
            state.begin_again()
        wall_s = time.monotonic() - started
        summary = summary_json(
            job, state.counts, metrics, audio_s=state.done_s, wall_s=wall_s, workers=workers
        )
        tree.write_json(summary, "run.json")
        show(state, {"event": "summary", **summary})
    return state


def _run_engine(
    job: JobConfig,
    elements: Sequence[str],
    workers: int,
    given_up: dict[str, str],
    folder: Path,
    state: RunState,
    show: Callable[[RunState, dict[str, Any] | None], None],
) -> tuple[int, dict[str, Any]]:
    """One run of the engine: its exit code, and its metrics or, if it failed, its `log`."""
    progress_path, result_path, log_path = folder / "progress", folder / "result", folder / "log"
    progress_path.touch()
    EngineSpec(
        job=job.model_dump(mode="json"),
        elements=list(elements),
        workers=workers,
        progress_path=str(progress_path),
        result_path=str(result_path),
        given_up=given_up,
        launcher=os.getpid(),
    ).write(folder / "spec.json")
    command = engine_command("engine", str(folder / "spec.json"))
    with open(log_path, "wb") as log, open(progress_path, encoding="utf-8") as progress:
        engine = subprocess.Popen(
            command,
            stdout=log,
            stderr=log,
            env=engine_environment(folder),
            start_new_session=True,
        )
        try:
            while engine.poll() is None:
                _follow(progress, state, show)
                time.sleep(POLL_S)
        finally:
            end_engine(engine)
        _follow(progress, state, show)
    if engine.returncode:
        text = log_path.read_text(errors="replace")
        return engine.returncode, {"log": text[-4000:]}
    return 0, json.loads(result_path.read_text())


def engine_command(module: str, argument: str) -> list[str]:
    """The command that starts an engine: `main` of a module of this package.

    It begins without garbage collection, which would take a fifth of the time of its imports; it
    turns it on when they are done.
    """
    # Not `-m`: functions of the main module would be pickled with all that they refer to.
    program = f"import gc; gc.disable(); from beamsplitter.pipelines.{module} import main; main()"
    return [sys.executable, "-c", program, argument]


def engine_environment(folder: Path) -> dict[str, str]:
    """The environment variables of an engine whose temporary files are to lie in a folder."""
    return {
        **KEPT_MEMORY,
        **os.environ,
        **dict.fromkeys(THREADS_OF_LIBRARIES, "1"),
        "PYTHONWARNINGS": "ignore",
        # Asking whether there is a GPU must not open it: processes are forked after that.
        "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
        # Beam leaves temporary folders behind; they go with this one.
        "TMPDIR": str(folder),
    }


def end_engine(engine: subprocess.Popen[bytes]) -> None:
    """Kill an engine with its workers, which are its process group; none publishes after this."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(engine.pid, signal.SIGKILL)
    engine.wait()


def _follow(
    progress: Any, state: RunState, show: Callable[[RunState, dict[str, Any] | None], None]
) -> None:
    for line in complete_lines(progress):
        state.take(line)
        show(state, line)
    show(state, None)


def complete_lines(progress: Any) -> Iterator[dict[str, Any]]:
    """The lines of a progress file, from where it is read to, that are written to their end."""
    while True:
        position = progress.tell()
        line = progress.readline()
        if not line.endswith("\n"):
            progress.seek(position)
            return
        yield json.loads(line)


def summary_json(
    job: JobConfig,
    recordings: dict[str, int],
    metrics: dict[str, Any],
    *,
    audio_s: float,
    wall_s: float,
    workers: int,
) -> dict[str, Any]:
    """The content of `run.json`."""
    return {
        "job_name": job.job_name,
        "recordings": recordings,
        "audio_s": round(audio_s, 3),
        "wall_s": round(wall_s, 3),
        "workers": workers,
        "steps": metrics,
        "versions": {
            "beamsplitter": version("beamsplitter"),
            "python": platform.python_version(),
            **{package: version(package) for package in REPORTED_PACKAGES},
        },
        "digests": job.settings.digests(),
    }
