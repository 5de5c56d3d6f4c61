"""What the launcher tells the engine: a module of its own, since the engine imports Beam."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class EngineSpec:
    """What the launcher tells the engine."""

    job: dict[str, Any]
    elements: list[str]
    workers: int
    progress_path: str
    result_path: str
    given_up: dict[str, tuple[str, str | None]]
    done: list[str]
    launcher: int

    def write(self, path: Path) -> None:
        """Write it for the engine to read."""
        path.write_text(json.dumps(asdict(self)))
