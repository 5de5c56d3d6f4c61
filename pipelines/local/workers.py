"""FnApiRunner's worker processes: forked from the engine once it has imported all that they need.

Beam would start each as a new interpreter, which imports for seconds and takes another to end.
"""

import functools
import json
import multiprocessing
import os
import threading
from typing import Any

import psutil
from apache_beam.portability import python_urns
from apache_beam.runners.portability.fn_api_runner.worker_handlers import (
    GrpcWorkerHandler,
    WorkerHandler,
)
from apache_beam.runners.worker import sdk_worker_main
from google.protobuf import json_format, text_format

WORKER_DIED = 70
# Its own, so that a worker which anything else ends, also with code 0, has died.
WORKER_ENDED = 71
ENGINE_POLL_S = 1.0
_fork = multiprocessing.get_context("fork")


class WorkerProcess:
    """A process that waits to be told where to connect to. Fork it before there are threads."""

    def __init__(self) -> None:
        told, self._tell = _fork.Pipe(duplex=False)
        self.process = _fork.Process(target=_work, args=(told, os.getpid()))
        self.process.start()

    def begin(self, environment: dict[str, str]) -> None:
        """Tell it, in Beam's environment variables."""
        self._tell.send_bytes(json.dumps(environment).encode())


def _work(told: Any, engine: int) -> None:
    while not told.poll(ENGINE_POLL_S):
        if os.getppid() != engine:
            return
    os.environ.update(json.loads(told.recv_bytes()))
    sdk_worker_main.main([])
    # Beam leaves threads behind that would keep the process for a second.
    os._exit(WORKER_ENDED)


def use_workers(processes: list[WorkerProcess], progress_path: str) -> None:
    """Have Beam's mode `multi_processing` use these processes, in place of new interpreters."""
    waiting = list(processes)
    WorkerHandler.register_environment(python_urns.SUBPROCESS_SDK, bytes)(
        functools.partial(ForkedWorker, waiting=waiting, progress_path=progress_path)
    )


class ForkedWorker(GrpcWorkerHandler):
    """Beam's handle of a worker process.

    Ends the engine when the process crashes: Beam would wait for it for ever.
    """

    def __init__(
        self,
        _command: bytes,
        *arguments: Any,
        waiting: list[WorkerProcess],
        progress_path: str,
    ) -> None:
        super().__init__(*arguments)
        self.worker = waiting.pop()
        self.progress_path = progress_path

    def start_worker(self) -> None:
        """Set the process to work, and watch it."""
        options = self.provision_info.provision_info.pipeline_options
        descriptor = self.control_api_service_descriptor()
        self.worker.begin(
            {
                "CONTROL_API_SERVICE_DESCRIPTOR": text_format.MessageToString(descriptor),
                "PIPELINE_OPTIONS": json_format.MessageToJson(options),
                "WORKER_ID": self.worker_id,
            }
        )
        self.watch = threading.Thread(target=self._watch, name="watch_worker", daemon=True)
        self.watch.start()

    def stop_worker(self) -> None:
        """Wait for its end, which Beam has asked it for."""
        self.watch.join()

    def _watch(self) -> None:
        self.worker.process.join()
        if self.worker.process.exitcode == WORKER_ENDED:
            return
        alive = [child.pid for child in psutil.Process().children(recursive=True)]
        with open(self.progress_path, "a") as progress:
            progress.write(json.dumps({"event": "worker died", "alive": alive}) + "\n")
        os._exit(WORKER_DIED)
