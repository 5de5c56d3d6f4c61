"""Commands that are watched, stopped or killed while they run."""

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from conftest import Command


@dataclass
class StartedCommand:
    """One that runs, or has ended."""

    process: Any  # as of subprocess.Popen
    messages: Path

    def wait(self, timeout_s: float) -> int:
        """The exit code, once it has ended."""
        return int(self.process.wait(timeout_s))

    @property
    def message(self) -> str:
        """What it has told so far."""
        return self.messages.read_text()

    def children(self) -> list[psutil.Process]:
        """The processes that it has started, and those that they have."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def family(self) -> list[psutil.Process]:
        """It, and its children; none if it has ended."""
        if self.process.poll() is not None:
            return []
        return [psutil.Process(self.process.pid), *self.children()]


def have_ended(processes: list[psutil.Process], *, limit_s: float = 3) -> bool:
    """Whether all have ended, within a time: what is killed takes a moment."""
    end_s = time.monotonic() + limit_s
    while any(map(_is_alive, processes)):
        if time.monotonic() > end_s:
            return False
        time.sleep(0.02)
    return True


def _is_alive(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):  # it ends between the two questions
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


@contextmanager
def started(
    command: Command,
    folder: Path,
    *arguments: object,
    anew: bool = False,
    stdout: Any = subprocess.DEVNULL,
    **environment: str,
) -> Iterator[StartedCommand]:
    """A command in a session of its own, with its temporary files in the folder, killed at the end.

    Forked, or started `anew` as a user starts it.
    """
    folder.mkdir(exist_ok=True)
    messages = folder.with_name(f"{folder.name}-messages")
    start = command.start_anew if anew else command.start
    with open(messages, "wb") as file:
        process = start(
            *arguments,
            environment={**os.environ, "TMPDIR": str(folder), **environment},
            stdout=stdout,
            stderr=file,
            start_new_session=True,
        )
    run = StartedCommand(process, messages)
    try:
        yield run
    finally:
        for each in run.family():
            with suppress(psutil.NoSuchProcess):
                each.kill()
        process.wait()
