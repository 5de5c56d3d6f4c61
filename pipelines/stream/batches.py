"""The launcher's side of a stream's engine: micro-batches, the process they are forked from."""

import base64
import contextlib
import json
import os
import queue
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from ...storage import RUN_IDENTITY_VARIABLE
from ...transforms.planning import GivenUp
from ..job.job_config import JobConfig
from ..local.launch import (
    LaunchError,
    SetUpError,
    complete_lines,
    end_engine,
    engine_command,
    engine_environment,
    suspects_of,
)
from ..local.watchdog import Hang, Watchdog
from ..outcomes.run_state import RunState
from ..outcomes.unusable import SET_UP_EXIT_CODE
from .subscriptions import Event

EVENTS = "events.json"
LOG = "log"
PROGRESS = "progress"
RESULT = "result.json"
LOG_TAIL = 4000


def batch_identity(number: int) -> str:
    """The owner of a micro-batch's scratch files: a part of the launcher's run."""
    return f"{os.environ[RUN_IDENTITY_VARIABLE]}.{number}"


@dataclass
class Batch:
    """Events that one process works on.

    `hang` is what its process was ended for, if it was.
    """

    number: int
    events: list[Event]
    folder: Path
    progress: TextIO
    state: RunState
    watchdog: Watchdog
    hang: Hang | None = None
    started_s: float = field(default_factory=time.monotonic)
    process: int | None = None

    def follow(self) -> Iterator[dict[str, Any]]:
        """New lines of progress."""
        for line in complete_lines(self.progress):
            self.state.take(line)
            yield line

    def end_if_it_hangs(self) -> None:
        """Kill the process if it has been in a step for too long."""
        if self.process is None or self.hang is not None:
            return
        self.hang = self.watchdog.find_hang()
        if self.hang is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process, signal.SIGKILL)

    @property
    def is_done(self) -> bool:
        """Whether the process came to its end; it may have ended before with code 0, too."""
        return (self.folder / RESULT).exists()

    @property
    def metrics(self) -> dict[str, Any]:
        """Metrics by step, of a batch that ended well."""
        metrics: dict[str, Any] = json.loads((self.folder / RESULT).read_text())
        return metrics

    @property
    def log(self) -> str:
        """What the process wrote last."""
        path = self.folder / LOG
        return path.read_text(errors="replace")[-LOG_TAIL:] if path.exists() else ""

    def suspects(self) -> list[tuple[Event, str | None]]:
        """The events that the process was at when it ended, and the steps that they were in, if
        known; all, if that can't be told.
        """
        hang = self.hang
        steps = {hang.element: hang.step} if hang else suspects_of(self.state, self.folder)
        found = [
            (event, next((steps[name] for name in names if steps[name]), None))
            for event in self.events
            if (names := event.names & steps.keys())
        ]
        return found or [(event, None) for event in self.events]

    def close(self) -> None:
        """Remove its files."""
        self.progress.close()
        shutil.rmtree(self.folder, ignore_errors=True)


@dataclass(frozen=True)
class Told:
    """A line that an engine told; None at its end."""

    engine: "Engine"
    line: dict[str, Any] | None


class Engine:
    """The process that micro-batches are forked from.

    Parameters
    ----------
    job
        the job
    folder
        an empty one, for its files; the folder that it is in goes with a killed launcher
    inbox
        takes what it tells, as `Told`
    workers
        micro-batches at once
    """

    def __init__(
        self, job: JobConfig, folder: Path, inbox: "queue.SimpleQueue[Any]", *, workers: int
    ) -> None:
        self.job = job
        self.folder = folder
        self.inbox = inbox
        self.is_ready = False
        self.channel, theirs = socket.socketpair()
        with theirs, open(folder / LOG, "wb") as log:
            self.process = subprocess.Popen(
                engine_command("stream.forking", str(theirs.fileno()), str(folder.parent)),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=engine_environment(folder),
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        plain = job.model_dump(mode="json")
        self._tell({"job": plain, "workers": workers})
        threading.Thread(target=self._listen, name="listen_to_engine", daemon=True).start()

    def start(self, number: int, events: Sequence[Event], given_up: GivenUp) -> Batch:
        """Have a process forked for a micro-batch."""
        folder = self.folder / str(number)
        folder.mkdir()
        (folder / PROGRESS).touch()
        plain = [
            {
                "data": base64.b64encode(event.message.data).decode(),
                "attributes": dict(event.message.attributes),
            }
            for event in events
        ]
        (folder / EVENTS).write_text(json.dumps(plain))
        self._tell({"batch": number, "folder": str(folder), "given_up": given_up})
        return Batch(
            number,
            list(events),
            folder,
            progress=open(folder / PROGRESS, encoding="utf-8"),
            state=RunState(total=len(events)),
            watchdog=Watchdog(folder, self.job),
        )

    def end(self) -> None:
        """Kill it with all that it has forked."""
        end_engine(self.process)

    def error(self) -> LaunchError | SetUpError:
        """Why it could not begin."""
        log = (self.folder / LOG).read_text(errors="replace")[-LOG_TAIL:]
        if self.process.wait() == SET_UP_EXIT_CODE:
            return SetUpError(log.strip().splitlines()[-1])
        return LaunchError(log)

    def _tell(self, line: dict[str, Any]) -> None:
        try:
            self.channel.sendall(json.dumps(line).encode() + b"\n")
        except OSError:
            # It is gone: that is told by the other thread.
            return

    def _listen(self) -> None:
        with self.channel, self.channel.makefile("rb") as lines:
            try:
                for line in lines:
                    self.inbox.put(Told(self, json.loads(line)))
            except (OSError, ValueError):
                pass  # Killed while it told something.
        self.inbox.put(Told(self, None))
