"""What the launcher tells the engine: a module of its own, since the engine imports Beam."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

# What is made of the tracks of a dataset.
TrackKind = Literal["shards", "scores"]


@dataclass(frozen=True, kw_only=True)
class ProcessSpec:
    """What every engine is told: its worker processes, and the launcher's process and files."""

    workers: int
    progress_path: str
    result_path: str
    launcher: int

    def write(self, path: Path) -> None:
        """Write it for the engine to read."""
        path.write_text(json.dumps(asdict(self)))


@dataclass(frozen=True, kw_only=True)
class EngineSpec(ProcessSpec):
    """What the launcher tells the engine of a job."""

    job: dict[str, Any]
    elements: list[str]
    given_up: dict[str, tuple[str, str | None]]
    done: list[str]


@dataclass(frozen=True, kw_only=True)
class TrackSpec(ProcessSpec):
    """What the launcher tells the engine of a dataset's tracks, all of it plain.

    `reports` is whether it writes what is of all tracks: not where a track is tried alone.
    """

    kind: TrackKind
    settings: dict[str, Any]
    tracks: list[dict[str, Any]]
    location: str
    given_up: dict[str, str]
    reports: bool
