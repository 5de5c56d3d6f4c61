"""What is known of a run while it goes on, from what its steps tell of recordings."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

CRASHED = (
    "its worker process crashed each time that it was tried (out of memory, or a fault in a "
    "decoder): convert the file, or leave it out"
)
JOINING_STEP = "JoinParts"


@dataclass
class RunState:
    """What is known of a run: from lines of its progress file, and from where its processes are.

    `has_begun` is whether anything was told. `passed` are the pings, and the messages that are for
    other jobs. `planned_s` and `done_s` are seconds of audio, `open_s` those still to do by element
    and part, `in_flight` the processes that parts are being worked on in. `shares` are how much is
    done of parts that are open, `lost_s` the seconds that were worked on and gave nothing, as of
    recordings that failed. `joining` is how much is done of joining the parts of recordings.
    `first_streams` are names of the streams that were taken, of elements that hold several.
    """

    total: int
    finished: set[str] = field(default_factory=set)
    skipped: set[str] = field(default_factory=set)
    passed: set[str] = field(default_factory=set)
    clipped: set[str] = field(default_factory=set)
    first_streams: dict[str, str] = field(default_factory=dict)
    failures: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    has_begun: bool = False
    planned_s: float = 0.0
    done_s: float = 0.0
    lost_s: float = 0.0
    open_s: dict[str, dict[int, float]] = field(default_factory=dict)
    shares: dict[tuple[str, int], float] = field(default_factory=dict)
    joining: dict[str, float] = field(default_factory=dict)
    in_flight: dict[tuple[str, int], int] = field(default_factory=dict)
    alive: list[int] | None = None

    def take(self, line: dict[str, Any]) -> None:
        """Take one line of the progress file."""
        event, element, part = line["event"], line.get("element", ""), line.get("part_index") or 0
        self.has_begun = True
        if event == "worker died":
            self.alive = line["alive"]
        elif event in ("opened", "started"):
            self.in_flight[element, part] = line["process"]
        elif event == "planned":
            self.in_flight.pop((element, 0), None)
            parts = self.open_s.setdefault(element, {})
            self.planned_s += line["duration_s"] - parts.get(part, 0.0)
            parts[part] = line["duration_s"]
            if "stream" in line:
                self.first_streams[element] = line["stream"]
        elif event == "part":
            self._done(element, part)
        elif event == "finished":
            (self.skipped if line["skipped"] else self.finished).add(element)
            if line["clipped_samples"]:
                self.clipped.add(element)
            self.joining.pop(element, None)
            for each in list(self.open_s.get(element, ())):
                self._done(element, each)
        elif event == "passed":
            self.passed.add(element)
        elif event == "failed":
            self.failures.setdefault(element, []).append(line)
            self.in_flight.pop((element, part), None)
            self.joining.pop(element, None)
            self._lose(element)

    def see(self, whereabouts: Iterable[dict[str, Any] | None]) -> None:
        """Take what the processes tell of where they are, as `read_whereabouts` gives it."""
        for told in whereabouts:
            if told is None:
                continue
            element, part, share = told["element"], told["part_index"], told["share"]
            if told["step"] == JOINING_STEP:
                if element not in self.failures:
                    self.joining[element] = max(share, self.joining.get(element, 0.0))
            elif part in self.open_s.get(element, ()):
                self.shares[element, part] = max(share, self.shares.get((element, part), 0.0))

    def _done(self, element: str, part: int) -> None:
        # A part tells of each of its branches; the first counts.
        self.done_s += self.open_s.get(element, {}).pop(part, 0.0)
        self.shares.pop((element, part), None)
        self.in_flight.pop((element, part), None)

    def _lose(self, element: str) -> None:
        """Plan no more of a recording's open parts."""
        for part, seconds in self.open_s.pop(element, {}).items():
            self.planned_s -= seconds
            self.lost_s += seconds * self.shares.pop((element, part), 0.0)

    @property
    def worked_s(self) -> float:
        """Seconds of audio that are worked through, parts as far as they are; it only rises."""
        under_way = sum(
            share * self.open_s[element][part] for (element, part), share in self.shares.items()
        )
        return self.done_s + self.lost_s + under_way

    @property
    def known_s(self) -> float:
        """Seconds of audio that are worked through or planned."""
        return self.planned_s + self.lost_s

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
        for element in list(self.open_s):
            self._lose(element)
        self.joining.clear()
        self.in_flight.clear()
        self.failures.clear()
        self.alive = None

    def suspects(self) -> list[str]:
        """The recordings that a process that is gone was working on."""
        alive = self.alive or []
        return sorted({key[0] for key, pid in self.in_flight.items() if pid not in alive})
