"""The process that runs a job's graph on FnApiRunner, apart from the launcher that watches it.

The launcher names its spec, kills it, with its workers, when the job is interrupted, and starts it
again when a recording took a worker down.
"""

import contextlib
import gc
import json
import os
import shutil
import signal
import sys
import threading
import time
import traceback
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import apache_beam as beam
import psutil
from apache_beam.options.pipeline_options import PipelineOptions

from ...models.separators.base import ModelError, UnusableModelError
from ...models.separators.by_name import describe
from ...storage import DEAD_LETTERS, StorageError
from ...transforms.whereabouts import tell_whereabouts
from ..events.counting import common_namespace_read
from ..events.sources import CreateEvents
from ..job.job_config import JobConfig, parse_job
from ..outcomes.step_metrics import metrics_by_step
from ..outcomes.unusable import (
    FAILED_EXIT_CODE,
    UNUSABLE_EXIT_CODE,
    what_is_unusable,
)
from ..run import build
from .cores import threads_of
from .engine_spec import EngineSpec, ProcessSpec
from .workers import WorkerProcess, use_workers

PARENT_POLL_S = 0.2
Spec = TypeVar("Spec", bound=ProcessSpec)


def run(spec: EngineSpec, job: JobConfig) -> dict[str, Any]:
    """Run the graph; gives the metrics by step."""
    pipeline = beam.Pipeline(options=local_options(job, workers=spec.workers))
    namespace = common_namespace_read(job.job_config.events.inputs)
    build(
        job,
        pipeline | "ReadEvents" >> CreateEvents(spec.elements, namespace),
        local_workers=spec.workers,
        model_threads=threads_of(spec.workers),
        progress_path=spec.progress_path,
        given_up=spec.given_up,
        done=spec.done,
    )
    result = pipeline.run()
    result.wait_until_finish()
    return metrics_by_step(result)


def preload(job: JobConfig) -> None:
    """Load what processes forked from this one will need, and what not every job does.

    Raises
    ------
    UnusableModelError
        a model can't be loaded
    """
    if "plots" in job.settings.branches:
        from ...audio import drawing  # noqa: F401
    if "scores" in job.settings.branches:
        from ...transforms import stem_scores  # noqa: F401
    if "features" in job.settings.branches:
        from ...transforms import features  # noqa: F401
    if "report" in job.settings.branches:
        from ...transforms import report  # noqa: F401
    if job.separation.is_nn_filter:
        from ...transforms import separation  # noqa: F401
    if not job.runs_models:
        return
    if not any(describe(models).uses_device for models in job.models):
        _leave_out_model_manager()
    from ...models.separators import server
    from ...transforms import inference  # noqa: F401

    try:
        for models in job.models:
            server.preload(models, job.separation.device)
    except ModelError as error:
        raise UnusableModelError(str(error)) from error


def _leave_out_model_manager() -> None:
    """Have RunInference do without it, as where torch, which comes with it, is not installed.

    No job has use for it, and to import torch takes seconds.
    """
    manager: Any = types.ModuleType("apache_beam.ml.inference.model_manager")
    manager.ModelManager = None
    sys.modules.setdefault(manager.__name__, manager)


def local_options(job: JobConfig, *, workers: int) -> PipelineOptions:
    """The options of a job on this machine."""
    extra = job.pipeline_options.model_extra or {}
    return fn_api_options(job.job_name, workers=workers, **extra)


def fn_api_options(job_name: str, *, workers: int, **others: Any) -> PipelineOptions:
    """FnApiRunner by name: `DirectRunner` would look for another engine first.

    Workers are processes: Beam's multi-threaded mode corrupts elements.
    """
    return PipelineOptions(
        [],
        **others,
        runner="FnApiRunner",
        job_name=job_name,
        direct_num_workers=workers,
        direct_running_mode="multi_processing" if workers > 1 else "in_memory",
        save_main_session=False,
    )


def end_with(parent: int, folder: Path) -> None:
    """End this process and its group when its parent was killed, and remove a folder."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_POLL_S)
        end_group(folder)

    threading.Thread(target=watch, name="watch_parent", daemon=True).start()


def end_group(folder: Path) -> NoReturn:
    """End this process with its group, and remove a folder that they write to."""
    for process in psutil.process_iter():
        with contextlib.suppress(OSError, psutil.Error):
            if process.pid != os.getpid() and os.getpgid(process.pid) == os.getpgrp():
                process.kill()
    shutil.rmtree(folder, ignore_errors=True)
    os.killpg(0, signal.SIGKILL)
    raise RuntimeError("not reached")


def work(spec: EngineSpec, folder: Path) -> int:
    """Run a spec, whose files lie in a folder; gives the exit code of this process."""
    job = parse_job(spec.job, source="job")

    def prepare() -> None:
        preload(job)
        # Those of an earlier run are of no more use, also where this one does not come to its end.
        job.output_tree.write(b"", DEAD_LETTERS)

    return execute(spec, folder, prepare, lambda: run(spec, job))


def execute(
    spec: ProcessSpec,
    folder: Path,
    prepare: Callable[[], None],
    run: Callable[[], dict[str, Any]],
) -> int:
    """Prepare this process, fork the workers, and run; gives the exit code.

    Parameters
    ----------
    folder
        of the spec's files
    run
        gives the metrics by step
    """
    try:
        prepare()
        tell_whereabouts(folder)
        # To look for garbage in what was imported would copy its memory in each worker.
        gc.freeze()
        gc.enable()
        if spec.workers > 1:
            use_workers([WorkerProcess() for _ in range(spec.workers)], spec.progress_path)
        end_with(spec.launcher, folder)
        metrics = run()
    except StorageError as error:
        print(error, file=sys.stderr, flush=True)
        return UNUSABLE_EXIT_CODE
    except Exception as error:
        unusable = what_is_unusable(error)
        if unusable is None:
            traceback.print_exc()
            return FAILED_EXIT_CODE
        code, reason = unusable
        print(reason, file=sys.stderr, flush=True)
        return code
    Path(spec.result_path).write_text(json.dumps(metrics))
    return 0


def serve(spec_type: type[Spec], work: Callable[[Spec, Path], int]) -> NoReturn:
    """Run the spec that the first argument names, and end this process."""
    path = Path(sys.argv[1])
    spec = spec_type(**json.loads(path.read_text()))
    code = work(spec, path.parent)
    if os.getppid() != spec.launcher:
        # It was killed before this process watched it.
        end_group(path.parent)
    sys.stderr.flush()
    # Beam leaves threads behind that would keep the process for seconds.
    os._exit(code)


def main() -> None:
    """Run the spec of a job."""
    serve(EngineSpec, work)
