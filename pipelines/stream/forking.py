"""The process that a stream's micro-batches are forked from.

To import Beam and all that the graph needs takes seconds, to build the graph most of another one.
So that is done once, in a process that has no threads; for each micro-batch it forks one that runs
the graph and ends. All the memory that a recording took goes with it, and so does a crash.

It is told the job and the batches, and tells of their ends, in lines of JSON on a socket.
"""

import base64
import dataclasses
import gc
import json
import os
import selectors
import signal
import socket
import sys
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.io.gcp.pubsub import PubsubMessage
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from ...models.separators.base import UnusableModelError
from ...storage import RUN_IDENTITY_VARIABLE
from ...transforms.planning import GivenUp
from ...transforms.whereabouts import tell_whereabouts
from ..events.counting import READ, CountMessages, namespace_read
from ..job.job_config import JobConfig, parse_job
from ..local.cores import threads_of
from ..local.engine import end_group, end_with, local_options, preload
from ..outcomes.step_metrics import metrics_by_step
from ..outcomes.unusable import (
    FAILED_EXIT_CODE,
    SET_UP_EXIT_CODE,
    UNUSABLE_EXIT_CODE,
    what_is_unusable,
)
from ..run import build
from .batches import EVENTS, LOG, PROGRESS, RESULT, batch_identity

CHUNK_BYTES = 1 << 16


class PreparedGraph(FnApiRunner):
    """A job's graph, built and translated once, to be run many times."""

    def __init__(self, job: JobConfig, threads: int, given_up: GivenUp | None = None) -> None:
        super().__init__()
        self.threads = threads
        options = local_options(job, workers=1)
        pipeline = beam.Pipeline(options=options)
        build(
            job,
            pipeline | "ReadEvents" >> EventsOfBatch(),
            local_workers=1,
            model_threads=threads,
            progress_path=ProgressOfBatch(),
            given_up=given_up,
        )
        self.run_pipeline(pipeline, options)

    def run_via_runner_api(self, *translated: Any) -> None:
        """Called by `run_pipeline` when the graph is translated: keeps it."""
        self.translated = translated

    def run_batch(self) -> dict[str, Any]:
        """Run the graph on this process's micro-batch; gives the metrics by step."""
        return metrics_by_step(super().run_via_runner_api(*self.translated))


@dataclasses.dataclass
class _Current:
    """The folder of the micro-batch of this process, for the graph that was built before it."""

    folder: Path = Path()


_current = _Current()


class EventsOfBatch(beam.PTransform):
    """The messages of this process's micro-batch."""

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection:
        """Nothing to `PubsubMessage`s."""
        return (
            pipeline
            | beam.Impulse()
            | beam.FlatMap(events_of_batch).with_output_types(PubsubMessage)
            | CountMessages(namespace_read("pubsub"), READ)
        )


def events_of_batch(_: bytes) -> Iterator[PubsubMessage]:
    """Read the messages from the folder of the batch."""
    for event in json.loads((_current.folder / EVENTS).read_text()):
        yield PubsubMessage(base64.b64decode(event["data"]), event["attributes"])


class ProgressOfBatch(os.PathLike[str]):
    """The path of the progress file of this process's micro-batch."""

    def __fspath__(self) -> str:
        return str(_current.folder / PROGRESS)


class Template:
    """Forks a process for each micro-batch that it is told of.

    Parameters
    ----------
    channel
        to the launcher
    job
        the job
    workers
        micro-batches at once
    """

    def __init__(self, channel: socket.socket, job: JobConfig, workers: int) -> None:
        self.channel = channel
        self.job = job
        preload(job)
        self.graph = PreparedGraph(job, threads_of(workers))
        self.numbers: dict[int, int] = {}
        """Numbers of running batches by process."""
        self.woken, self.wake = socket.socketpair()

    def serve(self) -> None:
        """Take orders until the launcher is gone."""
        for end in (self.woken, self.wake):
            end.setblocking(False)
        signal.set_wakeup_fd(self.wake.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        # What was made until now is no garbage; to look at it would copy its memory in each fork.
        gc.collect()
        gc.freeze()
        gc.enable()
        self.tell(ready=True)
        waiting = b""
        with selectors.DefaultSelector() as selector:
            selector.register(self.channel, selectors.EVENT_READ)
            selector.register(self.woken, selectors.EVENT_READ)
            while True:
                ready = {key.fileobj for key, _ in selector.select()}
                if self.woken in ready:
                    self.woken.recv(CHUNK_BYTES)
                    self.reap()
                if self.channel in ready:
                    received = self.channel.recv(CHUNK_BYTES)
                    if not received:
                        return
                    *lines, waiting = (waiting + received).split(b"\n")
                    for line in lines:
                        self.fork(**json.loads(line))

    def tell(self, **line: Any) -> None:
        """Tell the launcher."""
        self.channel.sendall(json.dumps(line).encode() + b"\n")

    def reap(self) -> None:
        """Tell of the processes that have ended."""
        while self.numbers:
            process, status = os.waitpid(-1, os.WNOHANG)
            if process == 0:
                return
            code = os.waitstatus_to_exitcode(status)
            self.tell(batch=self.numbers.pop(process), code=code)

    def fork(self, batch: int, folder: str, given_up: GivenUp) -> None:
        """Start the process of a micro-batch."""
        template = os.getpid()
        process = os.fork()
        if process:
            self.numbers[process] = batch
            self.tell(batch=batch, process=process)
            return
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for end in (self.channel, self.woken, self.wake):
                end.close()
            end_with(template, Path(folder))
            code = work(self.graph, self.job, Path(folder), given_up)
        except BaseException:
            traceback.print_exc()
            code = FAILED_EXIT_CODE
        sys.stderr.flush()
        # Beam leaves threads behind that would keep the process for seconds.
        os._exit(code)


def work(graph: PreparedGraph, job: JobConfig, folder: Path, given_up: GivenUp) -> int:
    """Run a micro-batch in this process; gives its exit code, and writes its metrics."""
    log = os.open(folder / LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    os.dup2(log, 1)
    os.dup2(log, 2)
    _current.folder = folder
    tell_whereabouts(folder)
    tempfile.tempdir = str(folder)
    # Each batch has scratch files of its own, so that what a crashed one has left can be told.
    os.environ[RUN_IDENTITY_VARIABLE] = batch_identity(int(folder.name))
    try:
        metrics = (PreparedGraph(job, graph.threads, given_up) if given_up else graph).run_batch()
        job.output_tree.clear_scratch()
    except Exception as error:
        unusable = what_is_unusable(error)
        if unusable is None:
            traceback.print_exc()
            return FAILED_EXIT_CODE
        # What was usable when the stream began may be so again.
        print(unusable[1], flush=True)
        return UNUSABLE_EXIT_CODE
    (folder / RESULT).write_text(json.dumps(metrics))
    return 0


def main() -> None:
    """Serve the launcher, at the other end of the socket that the first argument names.

    The second is the folder of all files of the stream: with the launcher, it goes.
    """
    folder = Path(sys.argv[2])
    # Until the launcher has ended well it kills this process.
    try:
        serve(socket.socket(fileno=int(sys.argv[1])))
    except OSError:
        traceback.print_exc()
    end_group(folder)


def serve(channel: socket.socket) -> None:
    """Take the job, then batches, until the launcher is gone."""
    with channel.makefile("rb") as lines:
        told = lines.readline()
    if not told:
        return
    first = json.loads(told)
    job = parse_job(first["job"], source="job")
    try:
        template = Template(channel, job, first["workers"])
    except UnusableModelError as error:
        print(error, file=sys.stderr, flush=True)
        os._exit(SET_UP_EXIT_CODE)
    template.serve()
