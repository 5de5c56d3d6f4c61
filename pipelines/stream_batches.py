"""The launcher's side of a stream's engine: micro-batches, the process they are forked from."""

import base64
import json
import os
import queue
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from ..transforms.storage import RUN_IDENTITY_VARIABLE
from .job_config import JobConfig
from .launch import (
    LaunchError,
    RunState,
    complete_lines,
    end_engine,
    engine_command,
    engine_environment,
)
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

    `code` is its exit code when it has ended.
    """

    number: int
    events: list[Event]
    folder: Path
    progress: TextIO
    state: RunState
    started_s: float = field(default_factory=time.monotonic)
    process: int | None = None
    code: int | None = None

    def follow(self) -> Iterator[dict[str, Any]]:
        """New lines of progress."""
        for line in complete_lines(self.progress):
            self.state.take(line)
            yield line

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

    def suspects(self) -> list[Event]:
        """The events that the process was at when it crashed; all, if that can't be told."""
        named = set(self.state.suspects())
        return [event for event in self.events if event.names & named] or self.events

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
    job : the job
    folder : an empty one, for its files; the folder that it is in goes with a killed launcher
    inbox : takes what it tells, as `Told`
    workers : micro-batches at once
    """

    def __init__(
        self, job: JobConfig, folder: Path, inbox: "queue.SimpleQueue[Any]", *, workers: int
    ) -> None:
        self.folder = folder
        self.inbox = inbox
        self.is_ready = False
        self.channel, theirs = socket.socketpair()
        with theirs, open(folder / LOG, "wb") as log:
            self.process = subprocess.Popen(
                engine_command("stream_engine", str(theirs.fileno())),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=engine_environment(folder),
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        plain = job.model_dump(mode="json")
        self._tell({"job": plain, "folder": str(folder.parent), "workers": workers})
        threading.Thread(target=self._listen, name="listen_to_engine", daemon=True).start()

    def start(self, number: int, events: Sequence[Event], given_up: dict[str, str]) -> Batch:
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
        )

    def end(self) -> None:
        """Kill it with all that it has forked."""
        end_engine(self.process)

    def error(self) -> LaunchError:
        """Why it could not begin."""
        return LaunchError((self.folder / LOG).read_text(errors="replace")[-LOG_TAIL:])

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
