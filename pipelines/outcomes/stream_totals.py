"""What came of a stream's events so far: counts only, so that it does not grow with them."""

from collections.abc import Collection
from dataclasses import asdict, dataclass, field
from typing import Any

from .run_state import RunState
from .step_metrics import sum_of


@dataclass
class StreamTotals:
    """Counts of all batches that have ended.

    `metrics` are those of the steps, by name: counters, and distributions as
    `{sum, count, min, max}`. `audio_s` are seconds of audio that were worked on.
    """

    finished: int = 0
    skipped: int = 0
    passed: int = 0
    failed: int = 0
    clipped: int = 0
    audio_s: float = 0.0
    metrics: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(
        self, state: RunState, metrics: dict[str, dict[str, Any]], *, told_before: Collection[str]
    ) -> None:
        """Add a batch that has ended well.

        Parameters
        ----------
        told_before
            elements that `add_finished` has counted; now they were skipped
        """
        self.add_finished(state)
        self.skipped += len(state.skipped - state.finished - set(told_before))
        self.passed += len(state.passed)
        self.failed += len(state.failures)
        for step, values in metrics.items():
            sums = self.metrics.setdefault(step, {})
            for name, value in values.items():
                sums[name] = sum_of(sums[name], value) if name in sums else value

    def add_finished(self, state: RunState) -> None:
        """Add the recordings that a batch finished which has crashed then."""
        self.finished += len(state.finished)
        self.clipped += len(state.clipped & state.finished)
        self.audio_s += state.done_s

    @property
    def counts(self) -> dict[str, int]:
        """How many events came to which end."""
        return {
            "finished": self.finished,
            "skipped": self.skipped,
            "passed_through": self.passed,
            "failed": self.failed,
            "clipped": self.clipped,
            "total": self.finished + self.skipped + self.passed + self.failed,
        }


@dataclass(frozen=True)
class Health:
    """How a stream does: counts of events. `oldest_waiting_s` is its age since publishing."""

    finished: int
    skipped: int
    passed_through: int
    failed: int
    clipped: int
    total: int
    in_work: int
    waiting: int
    oldest_waiting_s: float
    trouble: str

    def as_json(self) -> dict[str, Any]:
        """For the log."""
        return {**asdict(self), "oldest_waiting_s": round(self.oldest_waiting_s, 1)}
