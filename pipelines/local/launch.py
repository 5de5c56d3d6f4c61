"""Running a job on this machine: the engine process, its crashes, its end, and `run.json`."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import BeamsplitterError
from ...storage import DEAD_LETTERS
from ...transforms.progress_lines import progress_of
from ...transforms.whereabouts import read_whereabouts
from ..events.elements import place_of
from ..job.job_config import JobConfig
from ..outcomes.run_state import CRASHED, RunState
from ..outcomes.summary import NAME as RUN_FACTS
from ..outcomes.summary import summary_json
from ..outcomes.unusable import FAILED_EXIT_CODE, SET_UP_EXIT_CODE, UNUSABLE_EXIT_CODE
from ..report.watching import watched_page
from .engine_spec import EngineSpec
from .finished_before import receipts_if_finished
from .watchdog import Hang, Watchdog

MAX_TRIES = 2
# Of an engine that ends so without any recording in work.
MAX_ENDS = 2
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
# A model's threads that wait for each other sleep after so many turns. To spin takes the cores from
# all else that runs: beside three other processes on two cores, a small Demucs took 27 and 56 s,
# not 14 and 10.
PATIENT_THREADS = {"GOMP_SPINCOUNT": "1000"}


class LaunchError(BeamsplitterError, RuntimeError):
    """The engine could not do its work at all."""

    def __str__(self) -> str:
        return f"the job could not go on; run it again to go on\n{super().__str__()}"


class SetUpError(BeamsplitterError, RuntimeError):
    """The job can't be run on this machine as it is set up: to run it again is no cure."""


@dataclass(frozen=True)
class Outcome:
    """How a run of the engine ended.

    `metrics` are None if it ended before its work was done, `hang` says what it was ended for,
    `suspects` are the recordings that it was at, with the steps that they were in, if known.
    """

    code: int
    metrics: dict[str, Any] | None
    log: str
    hang: Hang | None
    suspects: dict[str, str | None]

    @property
    def reason(self) -> str:
        """Why a recording that it was at, alone, is given up."""
        return hang_text(self.hang) if self.hang else CRASHED


def hang_text(hang: Hang) -> str:
    """Why a recording that hangs is given up."""
    return (
        f"it was in step {hang.step} for more than {hang.limit_s:.0f} s each time that it was "
        "tried: leave the file out, or raise limits.step_s in the job file"
    )


def suspects_of(state: RunState, folder: Path) -> dict[str, str | None]:
    """The recordings that processes which are gone were at, and the steps that they were in.

    Parameters
    ----------
    folder
        where the processes told their steps
    """
    alive = state.alive or []
    steps = {
        told["element"]: told["step"]
        for process, told in read_whereabouts(folder)
        if told and process not in alive
    }
    # RunInference takes in the next part before it works on one: both have started.
    return dict(sorted(steps.items())) or dict.fromkeys(state.suspects())


def run_local(
    job: JobConfig,
    elements: Sequence[str],
    *,
    workers: int,
    show: Callable[[RunState, dict[str, Any] | None], None],
) -> RunState:
    """Run a job on FnApiRunner, in a process of its own, to its end.

    A recording that takes its worker process down, or hangs in it, is tried once more, alone, and
    given up as a dead letter when it does so again; then the others go on.

    Parameters
    ----------
    elements
        the events
    workers
        worker processes
    show
        called with the state and each new line of progress, and with None now and then

    Raises
    ------
    SetUpError
        a model can't be loaded
    LaunchError
        the engine failed for a reason that is no recording's
    StorageError
        the output folder can't be written
    KeyboardInterrupt
        after the engine and its workers are gone
    """
    tree = job.output_tree
    started = time.monotonic()
    with tree.owned_scratch(), watched_page(job, len(elements)) as tell_page:

        def show_both(state: RunState, line: dict[str, Any] | None) -> None:
            tell_page(line)
            show(state, line)

        run = _LocalRun(job, elements, workers=workers, show=show_both)
        metrics = run.without_engine() or run.to_the_end()
        state = run.state
        wall_s = time.monotonic() - started
        summary = summary_json(
            job, state.counts, metrics, audio_s=state.done_s, wall_s=wall_s, workers=workers
        )
        tree.write_json(summary, RUN_FACTS)
        show(state, {"event": "summary", **summary})
    return state


class _LocalRun:
    """Engine after engine, until one has gone through all events."""

    def __init__(
        self,
        job: JobConfig,
        elements: Sequence[str],
        *,
        workers: int,
        show: Callable[[RunState, dict[str, Any] | None], None],
    ) -> None:
        self.job = job
        self.elements = list(elements)
        self.workers = workers
        self.show = show
        self.state = RunState(total=len(elements))
        self.given_up: dict[str, tuple[str, str | None]] = {}
        self.tried_alone: set[str] = set()
        location = place_of(job).location
        self.element_of = {
            name: element
            for element in self.elements
            for name in (element, element.removeprefix(f"{location}/"))
        }
        """Elements by the names that steps may call them."""

    def without_engine(self) -> dict[str, Any] | None:
        """Tell of all recordings if they are finished already, and give the metrics."""
        receipts = receipts_if_finished(self.job, self.elements)
        if receipts is None:
            return None
        self.job.output_tree.write(b"", DEAD_LETTERS)
        if {"labels", "scores", "features"} & {*self.job.settings.branches}:
            # The run that made them may have been stopped before it came to the tables.
            from ...transforms.run_tables import write_run_tables

            results = ((each.folder, each.files) for each in receipts)
            write_run_tables(results, self.job.settings, self.job.output_tree)
        for receipt in receipts:
            line = {"event": "finished", "process": os.getpid(), **progress_of(receipt)}
            self.state.take(line)
            self.show(self.state, line)
        return {"SkipFinished": {"in": len(receipts), "skipped": len(receipts)}}

    def to_the_end(self) -> dict[str, Any]:
        """Run all; gives the metrics of the last engine."""
        ends = 0
        while True:
            outcome = self._run_engine(self.job, self.elements, self.workers)
            if outcome.metrics is not None:
                return outcome.metrics
            suspects = {
                name: step
                for name, step in outcome.suspects.items()
                if name in self.element_of and name not in self.state.finished
            }
            ends += not suspects
            if ends == MAX_ENDS:
                raise LaunchError(outcome.log)
            for name, step in suspects.items():
                self._tell(name, step, outcome, tries=1)
            for name, step in suspects.items():
                if name in self.tried_alone:
                    # Alone it came to an end, and that was none that is kept.
                    self.given_up[name] = outcome.reason, step
                else:
                    self._try_alone(name)
            self.state.begin_again()

    def _try_alone(self, name: str) -> None:
        self.tried_alone.add(name)
        self.state.begin_again()
        # What is told of it is told by the engine that goes through all.
        events = self.job.job_config.events.model_copy(update={"outputs": []})
        section = self.job.job_config.model_copy(update={"events": events})
        job = self.job.model_copy(update={"job_config": section})
        outcome = self._run_engine(job, [self.element_of[name]], 1)
        if outcome.metrics is None:
            step = outcome.suspects.get(name)
            self.given_up[name] = outcome.reason, step
            self._tell(name, step, outcome, tries=MAX_TRIES)

    def _tell(self, name: str, step: str | None, outcome: Outcome, *, tries: int) -> None:
        line = {"event": "crashed", "element": name, "code": outcome.code, "step": step}
        hung = outcome.hang is not None
        self.show(self.state, {**line, "hung": hung, "tries": tries, "max_tries": MAX_TRIES})

    def _run_engine(self, job: JobConfig, elements: list[str], workers: int) -> Outcome:
        """Run an engine.

        Raises
        ------
        SetUpError, LaunchError
            it failed for a reason that is no recording's
        """
        with tempfile.TemporaryDirectory(prefix="beamsplitter-") as name:
            folder = Path(name)
            spec = EngineSpec(
                job=job.model_dump(mode="json"),
                elements=elements,
                workers=workers,
                progress_path=str(folder / "progress"),
                result_path=str(folder / "result"),
                given_up=self.given_up,
                done=sorted(self.state.finished),
                launcher=os.getpid(),
            )
            outcome = _run_engine(job, spec, folder, self.state, self.show)
        if outcome.code in (SET_UP_EXIT_CODE, UNUSABLE_EXIT_CODE):
            error = SetUpError if outcome.code == SET_UP_EXIT_CODE else LaunchError
            raise error(outcome.log.strip().splitlines()[-1])
        if outcome.code == FAILED_EXIT_CODE:
            raise LaunchError(outcome.log)
        return outcome


def _run_engine(
    job: JobConfig,
    spec: EngineSpec,
    folder: Path,
    state: RunState,
    show: Callable[[RunState, dict[str, Any] | None], None],
) -> Outcome:
    """One run of the engine, to its end, or until it hangs."""
    log_path, result_path = folder / "log", Path(spec.result_path)
    Path(spec.progress_path).touch()
    spec.write(folder / "spec.json")
    watchdog, hang = Watchdog(folder, job), None
    with open(spec.progress_path, encoding="utf-8") as progress:
        with started_engine("local.engine", folder, log_path) as engine:
            while engine.poll() is None and hang is None:
                _follow(progress, folder, state, show)
                time.sleep(POLL_S)
                hang = watchdog.find_hang()
        _follow(progress, folder, state, show)
    is_done = hang is None and engine.returncode == 0 and result_path.exists()
    return Outcome(
        engine.returncode,
        json.loads(result_path.read_text()) if is_done else None,
        log_path.read_text(errors="replace")[-4000:],
        hang,
        {hang.element: hang.step} if hang else suspects_of(state, folder),
    )


@contextlib.contextmanager
def started_engine(module: str, folder: Path, log_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """An engine of a module, with the spec in a folder; it is gone in the end."""
    with open(log_path, "wb") as log:
        engine = subprocess.Popen(
            engine_command(module, str(folder / "spec.json")),
            stdout=log,
            stderr=log,
            env=engine_environment(folder),
            start_new_session=True,
        )
        try:
            yield engine
        finally:
            end_engine(engine)


def engine_command(module: str, *arguments: str) -> list[str]:
    """The command that starts an engine: `main` of a module of a room of ours.

    It begins without garbage collection, which would take a fifth of the time of its imports; it
    turns it on when they are done.
    """
    # Not `-m`: functions of the main module would be pickled with all that they refer to.
    program = f"import gc; gc.disable(); from beamsplitter.pipelines.{module} import main; main()"
    return [sys.executable, "-c", program, *arguments]


def engine_environment(folder: Path) -> dict[str, str]:
    """The environment variables of an engine whose temporary files are to lie in a folder."""
    return {
        **KEPT_MEMORY,
        **PATIENT_THREADS,
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
    progress: Any,
    folder: Path,
    state: RunState,
    show: Callable[[RunState, dict[str, Any] | None], None],
) -> None:
    for line in complete_lines(progress):
        state.take(line)
        show(state, line)
    state.see(told for _, told in read_whereabouts(folder))
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
