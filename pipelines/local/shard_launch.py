"""Making shards on this machine, and what came of it."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ...models.datasets.shards import FORMAT, INDEX, ShardIndex, ShardSettings, counts_of
from ...models.datasets.stem_folders import DatasetError, StemTrack
from ...storage import DEAD_LETTERS, OutputTree, StorageError
from .track_launch import Show, run_tracks

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
    show: Show = lambda _: None,
) -> Prepared:
    """Make the shards of tracks; those that are whole are left as they are: see `run_tracks`.

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
    _claim(tree, settings, replace=replace)
    by_name = {track.name: track for track in tracks}
    metrics = run_tracks("shards", by_name, tree, settings, workers=workers, show=show)
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
