"""Jobs on a runner behind a Beam job server: `runner: PortableRunner`.

The workers are started by that runner, as `environment_type` says: in this process (LOOPBACK), by a
worker pool (EXTERNAL), as processes (PROCESS) or in containers (DOCKER).
"""

import contextlib
import logging
import os
import re
import socket
import sys
import time
from collections.abc import Iterator
from typing import Any, NoReturn

import grpc
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.runner import PipelineState

from ...errors import BeamsplitterError
from ...storage import scheme_of
from ..events.elements import require_events
from ..events.outputs import prepare_outputs
from ..job.job_config import JobConfig, JobFileError
from ..job.resources import places_of
from ..outcomes.step_metrics import metrics_by_step
from ..outcomes.unusable import what_is_unusable
from .submission import build_for_service, parse_options, write_summary

CONNECT_LIMIT_S = 10.0
RUNNING_LIMIT_S = 600.0
POLL_S = 0.2
CONFIGURATIONS = {
    "EXTERNAL": "the address of the worker pool, such as localhost:50000",
    "PROCESS": "{command: …}, the program that starts a worker",
    "DOCKER": "a container image that holds beamsplitter",
}


class PortableError(BeamsplitterError, RuntimeError):
    """The job server can't be reached or refuses."""


class PortableJobFailedError(PortableError):
    """A job failed, or was cancelled."""

    exit_code = 1


class PortableJob:
    """A job that was submitted.

    Parameters
    ----------
    result
        Beam's
    """

    def __init__(self, job: JobConfig, result: Any) -> None:
        self.job = job
        self.result = result
        self.started = time.monotonic()

    @property
    def id(self) -> str:
        """What the job server calls it."""
        name: str = self.result._job_id  # which Beam tells in no other way
        return name

    @property
    def is_here(self) -> bool:
        """Whether its workers are in this process: it ends with them."""
        return self.job.pipeline_options.environment_type == "LOOPBACK"

    def wait_until_running(self) -> None:
        """Wait until it runs, or has done so.

        Raises
        ------
        PortableJobFailedError
            it failed or was cancelled
        PortableError
            it does not run after ten minutes, or the job server can't be asked
        """
        deadline = time.monotonic() + RUNNING_LIMIT_S
        while True:
            with _explained(self.job):
                state = self.result.state
            if state == PipelineState.RUNNING:
                return
            if PipelineState.is_terminal(state):
                self.wait()
                return
            if time.monotonic() > deadline:
                raise PortableError(
                    f"job {self.id} is still {state.lower()} after {RUNNING_LIMIT_S / 60:g} "
                    "minutes; it goes on"
                )
            time.sleep(POLL_S)

    def wait(self) -> None:
        """Wait until it is over.

        Raises
        ------
        PortableJobFailedError
            it failed or was cancelled
        PortableError
            the job server can't be asked
        """
        with _explained(self.job):
            try:
                self.result.wait_until_finish()
            except RuntimeError as error:
                raise PortableJobFailedError(_reason(error, self.result.state)) from error

    def write_summary(self) -> dict[str, Any]:
        """Wait until it is over, and write its `run.json`; gives the content.

        Raises
        ------
        PortableError
            see `wait`
        StorageError
            `run.json` can't be written
        """
        self.wait()
        with _explained(self.job):
            metrics = metrics_by_step(self.result)
        return write_summary(self.job, metrics, wall_s=time.monotonic() - self.started)

    def end_here(self, exit_code: int) -> NoReturn:
        """End it with this process: Beam's threads that work for it can't be stopped otherwise, and
        would miss scratch files that go. Those go with the next run.
        """
        with contextlib.suppress(grpc.RpcError):
            self.result.cancel()
        sys.stderr.flush()
        os._exit(exit_code)


def portable_options(job: JobConfig) -> PipelineOptions:
    """Beam's options of a job for a job server.

    Raises
    ------
    JobFileError
        something is missing, can't work, or is refused by Beam
    """
    problems = list(_problems(job))
    if problems:
        raise JobFileError("\n".join(problems))
    return parse_options({**job.pipeline_options.beam_options(), "job_name": job.job_name})


@contextlib.contextmanager
def submitted(job: JobConfig) -> Iterator[PortableJob]:
    """Submit a job. Scratch files of this process's own workers are gone afterwards.

    Raises
    ------
    JobFileError
        see `portable_options`
    InputError
        an event input or output is not there, or a folder holds no recordings
    StorageError
        one may not be used
    PortableError
        the job server can't be reached, or refuses
    """
    options = portable_options(job)
    require_server(job)
    require_events(job)
    job.output_tree.require_writable()
    prepare_outputs(job)
    # What its workers and its messages have to say is in the error, or in the dead letters.
    logging.disable(logging.CRITICAL)
    try:
        with job.output_tree.owned_scratch():
            with _explained(job):
                result = build_for_service(job, options).run()
            yield PortableJob(job, result)
    finally:
        logging.disable(logging.NOTSET)


def require_server(job: JobConfig) -> None:
    """Find out whether the job server answers.

    Raises
    ------
    PortableError
        it does not
    """
    endpoint = job.pipeline_options.job_endpoint or ""
    if not answers(endpoint):
        raise PortableError(
            f"pipeline_options.job_endpoint: no job server answers at {endpoint}: start it, or "
            "correct the address"
        )


def answers(address: str) -> bool:
    """Whether a server takes connections at HOST:PORT."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_LIMIT_S).close()
    except (OSError, ValueError):
        return False
    return True


def _problems(job: JobConfig) -> Iterator[str]:
    settings = job.pipeline_options
    if settings.streaming:
        yield (
            "pipeline_options.streaming: a stream runs on this machine (runner: DirectRunner) or "
            "on Dataflow: set it to false"
        )
    if not settings.job_endpoint:
        yield "pipeline_options.job_endpoint: name the address of the job server, HOST:PORT"
    kind = settings.environment_type
    if not kind:
        yield (
            "pipeline_options.environment_type: name where the workers run: LOOPBACK, EXTERNAL, "
            "PROCESS or DOCKER"
        )
        return
    if (settings.model_extra or {}).get("environment_options"):
        yield "pipeline_options.environment_options: write environment_config instead"
    elif kind == "LOOPBACK" and settings.environment_config:
        yield "pipeline_options.environment_config: LOOPBACK has none: leave it out"
    elif kind != "LOOPBACK" and not settings.environment_config:
        yield f"pipeline_options.environment_config: for {kind}, name {CONFIGURATIONS[kind]}"
    for place in places_of(job) if kind == "DOCKER" else ():
        if not scheme_of(place.location):
            yield (
                f"{place.key}: {place.location}: the workers in containers have files of their "
                "own: name a place that they reach, such as gs://…"
            )


@contextlib.contextmanager
def _explained(job: JobConfig) -> Iterator[None]:
    """Turn what goes wrong on the way to the job server into a line.

    Raises
    ------
    PortableError
        for each of them
    """
    try:
        yield
    except grpc.RpcError as error:
        details = error.details() if isinstance(error, grpc.Call) else str(error)
        raise PortableError(
            f"the job server at {job.pipeline_options.job_endpoint} gives no answer, or refuses: "
            f"{details}"
        ) from error


def _reason(error: RuntimeError, state: str) -> str:
    """Why a job failed, in a line: the runner gives stack traces of its own, and of its workers."""
    if state == PipelineState.CANCELLED:
        return "the job was cancelled"
    unusable = what_is_unusable(error)
    # Beam puts its own error, and the type of that of a step, before what the step said.
    *_, last = str(error).strip().splitlines()
    said = re.sub(r"^(?:[\w.]+Error: )*(.*?)(?: \[while running .*)?$", r"\1", last)
    return f"the job failed: {unusable[1] if unusable else said}"
