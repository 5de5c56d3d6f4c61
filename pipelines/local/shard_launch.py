"""Making shards on this machine: the engine process, its crashes, and what came of it."""

import json
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ...models.datasets.shards import FORMAT, INDEX, ShardIndex, ShardSettings, counts_of
from ...models.datasets.stem_folders import DatasetError, StemTrack
from ...storage import DEAD_LETTERS, OutputTree, StorageError
from ...transforms.plain import to_plain
from ...transforms.whereabouts import read_whereabouts
from ..outcomes.run_state import CRASHED
from ..outcomes.unusable import UNUSABLE_EXIT_CODE
from .engine_spec import ShardSpec
from .launch import POLL_S, LaunchError, complete_lines, started_engine

SETTINGS = "settings.json"


@dataclass(frozen=True)
class Prepared:
    """What came of making shards.

    Attributes
    ----------
    counts
        of the index: see `counts_of`
    kept
        how many tracks had their shards already
    failures
        dead letters
    """

    counts: dict[str, int]
    kept: int
    failures: tuple[dict[str, Any], ...] = field(default=())


def prepare_shards(
    tracks: Sequence[StemTrack],
    tree: OutputTree,
    settings: ShardSettings,
    *,
    workers: int,
    replace: bool = False,
    show: Callable[[dict[str, Any]], None] = lambda _: None,
) -> Prepared:
    """Make the shards of tracks; those that are whole are left as they are.

    A track that takes its worker process down is tried once more, alone, and given up as a dead
    letter when it does so again; then the others go on.

    Parameters
    ----------
    tree
        the folder of the shards
    replace
        make anew what other settings have made there
    show
        is told of each track that is through: a line of progress, with `event` and `element`

    Raises
    ------
    DatasetError
        the folder holds shards that other settings have made
    LaunchError
        the engine failed for a reason that is no track's
    StorageError
        the folder can't be written
    KeyboardInterrupt
        after the engine and its workers are gone
    """
    tree.require_writable()
    with tree.owned_scratch():
        _claim(tree, settings, replace=replace)
        launch = _Launch(tracks, tree, settings, show)
        metrics = launch.to_the_end(workers)
    index = ShardIndex.parse(tree.read(INDEX).decode().splitlines())
    failures = map(json.loads, tree.read(DEAD_LETTERS).decode().splitlines())
    return Prepared(
        counts=counts_of(index.settings, index.records),
        kept=metrics.get("WriteShard", {}).get("kept", 0),
        failures=tuple(failures),
    )


def _claim(tree: OutputTree, settings: ShardSettings, *, replace: bool) -> None:
    """Note what settings the shards of a folder are made with; refuse others than before."""
    ours = json.loads(json.dumps({"format": FORMAT, **asdict(settings)}))
    try:
        theirs = json.loads(tree.read(SETTINGS))
    except (StorageError, ValueError):
        theirs = ours
    if theirs != ours:
        if not replace:
            changed = ", ".join(
                f"{name} {theirs.get(name)}" for name in ours if theirs.get(name) != ours[name]
            )
            raise DatasetError(
                f"{tree.location}: holds shards that were made with {changed}: name another "
                "folder, or give --replace"
            )
        # It would name shards of both.
        tree.remove(INDEX)
    tree.write_json(ours, SETTINGS)


class _Launch:
    """Engine after engine, until one has gone through all tracks."""

    def __init__(
        self,
        tracks: Sequence[StemTrack],
        tree: OutputTree,
        settings: ShardSettings,
        show: Callable[[dict[str, Any]], None],
    ) -> None:
        self.tracks = {track.name: track for track in tracks}
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
            spec = ShardSpec(
                workers=min(workers, len(names)),
                progress_path=str(folder / "progress"),
                result_path=str(folder / "result"),
                launcher=os.getpid(),
                settings=asdict(self.settings),
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
                started_engine("local.shard_engine", folder, log_path) as engine,
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
