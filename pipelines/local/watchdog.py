"""What tells that a process hangs: it has been in one step for longer than a recording may take."""

import time
from dataclasses import dataclass
from pathlib import Path

from ...transforms.whereabouts import read_whereabouts
from ..job.job_config import JobConfig

CHECK_EVERY_S = 0.5
# What counts of the time between two checks: the launcher itself may have been stopped.
LONGEST_CHECK_S = 5.0


@dataclass(frozen=True)
class Hang:
    """A process that hangs: in which step of which recording, and after how many seconds."""

    process: int
    element: str
    step: str
    limit_s: float


class Watchdog:
    """Watches the processes that tell in a folder which step they are in.

    Parameters
    ----------
    folder
        that of `tell_whereabouts`
    job
        says how long a step may take
    """

    def __init__(self, folder: Path, job: JobConfig) -> None:
        separation = job.separation
        self.folder = folder
        self.limits = job.limits
        self.passes = (1 + separation.shifts) * sum(map(len, job.models))
        """How often the job has models work on each recording."""
        self.checked_s = time.monotonic()
        self.waited_s: dict[tuple[int, int], float] = {}
        """Seconds by process and count of its step."""

    def find_hang(self) -> Hang | None:
        """A process that hangs, if there is one; looks no more than twice a second."""
        since_s = time.monotonic() - self.checked_s
        if since_s < CHECK_EVERY_S:
            return None
        self.checked_s += since_s
        waited_s, self.waited_s = self.waited_s, {}
        for process, told in read_whereabouts(self.folder):
            if told is None:
                continue
            key = process, told["count"]
            # Seen for the first time, it may have begun just now.
            before_s = waited_s.get(key)
            waited = 0.0 if before_s is None else before_s + min(since_s, LONGEST_CHECK_S)
            self.waited_s[key] = waited
            limit_s = self.limit_s(told["length_s"])
            if waited > limit_s:
                return Hang(process, told["element"], told["step"], limit_s)
        return None

    def limit_s(self, length_s: float) -> float:
        """How long a step may take for a recording of a length."""
        return self.limits.step_s + self.limits.step_times_length * length_s * self.passes
