"""What is known of a run while it goes on, from what its steps tell of recordings."""

from dataclasses import dataclass, field
from typing import Any

CRASHED = (
    "its worker process crashed each time that it was tried (out of memory, or a fault in a "
    "decoder): convert the file, or leave it out"
)


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
