"""Tracks of a dataset through a graph on this machine: the engine process, and its crashes."""

import json
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...storage import OutputTree
from ...transforms.plain import to_plain
from ...transforms.whereabouts import read_whereabouts
from ..outcomes.run_state import CRASHED
from ..outcomes.unusable import UNUSABLE_EXIT_CODE
from .engine_spec import TrackKind, TrackSpec
from .launch import POLL_S, LaunchError, complete_lines, started_engine

Show = Callable[[dict[str, Any]], None]


def run_tracks(
    kind: TrackKind,
    tracks: Mapping[str, Any],
    tree: OutputTree,
    settings: Any,
    *,
    workers: int,
    show: Show,
) -> dict[str, Any]:
    """Run tracks through a graph; gives the metrics of its steps.

    A track that takes its worker process down is tried once more, alone, and given up as a dead
    letter when it does so again; then the others go on.

    Parameters
    ----------
    kind
        which graph
    tracks
        its elements, by what dead letters call them
    tree
        where its results go
    settings
        of the graph
    show
        is told of each track that is through: a line of progress, with `event` and `element`

    Raises
    ------
    LaunchError
        the engine failed for a reason that is no track's
    StorageError
        the folder can't be written
    KeyboardInterrupt
        after the engine and its workers are gone
    """
    tree.require_writable()
    with tree.owned_scratch():
        return _Launch(kind, tracks, tree, settings, show).to_the_end(workers)


class _Launch:
    """Engine after engine, until one has gone through all tracks."""

    def __init__(
        self,
        kind: TrackKind,
        tracks: Mapping[str, Any],
        tree: OutputTree,
        settings: Any,
        show: Show,
    ) -> None:
        self.kind = kind
        self.tracks = tracks
        self.tree = tree
        self.settings = settings
        self.show = show
        self.given_up: dict[str, str] = {}

    def to_the_end(self, workers: int) -> dict[str, Any]:
        """Run all; gives the metrics of the last engine."""
        tried_alone: set[str] = set()
        while True:
            outcome = self._run_engine([*self.tracks], workers=workers)
            if outcome.metrics is not None:
                return outcome.metrics
            suspects = [name for name in outcome.suspects if name not in self.given_up]
            if not suspects:
                raise LaunchError(outcome.log)
            for name in suspects:
                # Alone it may have come to an end that, beside others, it does not come to.
                is_done = name not in tried_alone and self._is_done_alone(name)
                tried_alone.add(name)
                if not is_done:
                    self.given_up[name] = CRASHED

    def _is_done_alone(self, name: str) -> bool:
        return self._run_engine([name], workers=1, reports=False).metrics is not None

    def _run_engine(
        self, names: Sequence[str], *, workers: int, reports: bool = True
    ) -> "_Outcome":
        with tempfile.TemporaryDirectory(prefix="beamsplitter-") as temporary:
            folder = Path(temporary)
            spec = TrackSpec(
                kind=self.kind,
                workers=min(workers, len(names)),
                progress_path=str(folder / "progress"),
                result_path=str(folder / "result"),
                launcher=os.getpid(),
                settings=to_plain(self.settings),
                tracks=[to_plain(self.tracks[name]) for name in names],
                location=self.tree.location,
                given_up=self.given_up,
                reports=reports,
            )
            spec.write(folder / "spec.json")
            Path(spec.progress_path).touch()
            log_path = folder / "log"
            with (
                open(spec.progress_path, encoding="utf-8") as progress,
                started_engine("local.track_engine", folder, log_path) as engine,
            ):
                while engine.poll() is None:
                    self._tell(progress, reports)
                    time.sleep(POLL_S)
                self._tell(progress, reports)
            log = log_path.read_text(errors="replace")[-4000:]
            if engine.returncode == UNUSABLE_EXIT_CODE:
                raise LaunchError(log.strip().splitlines()[-1])
            result = Path(spec.result_path)
            return _Outcome(
                json.loads(result.read_text()) if result.exists() else None,
                log,
                [told["element"] for _, told in read_whereabouts(folder) if told],
            )

    def _tell(self, progress: Any, reports: bool) -> None:
        for line in complete_lines(progress):
            if reports and "element" in line:
                self.show(line)


@dataclass(frozen=True)
class _Outcome:
    """How an engine ended: `metrics` are None if before its work was done; `suspects` are the
    tracks that it was at.
    """

    metrics: dict[str, Any] | None
    log: str
    suspects: list[str]
