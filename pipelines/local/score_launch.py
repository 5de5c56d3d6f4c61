"""Scoring the tracks of a dataset on this machine, and what came of it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ...models.evaluation.matching import EvaluationTrack
from ...models.evaluation.rows import JSON
from ...storage import DEAD_LETTERS, OutputTree
from ...transforms.scoring_settings import EvaluationSettings
from .track_launch import Show, run_tracks


@dataclass(frozen=True)
class Scored:
    """What came of an evaluation.

    Attributes
    ----------
    content
        of `scores.json`
    kept
        how many tracks had their scores already
    failures
        dead letters
    """

    content: dict[str, Any]
    kept: int
    failures: tuple[dict[str, Any], ...]


def score_tracks(
    tracks: Sequence[EvaluationTrack],
    tree: OutputTree,
    settings: EvaluationSettings,
    *,
    workers: int,
    show: Show = lambda _: None,
) -> Scored:
    """Score tracks; what is scored already is left as it is: see `run_tracks`.

    Parameters
    ----------
    tree
        the folder of the scores
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
    by_element = {track.element: track for track in tracks}
    metrics = run_tracks("scores", by_element, tree, settings, workers=workers, show=show)
    failures = map(json.loads, tree.read(DEAD_LETTERS).decode().splitlines())
    return Scored(
        content=json.loads(tree.read(JSON)),
        kept=metrics.get("ScoreTrack", {}).get("kept", 0),
        failures=tuple(failures),
    )
