"""Scores of a track as museval writes them, for its aggregation tools."""

import json

from .measures import ScoringSettings
from .scoring import TrackScores

MEASURES = {"SDR": "sdr", "SIR": "sir", "SAR": "sar", "ISR": "isr"}
# The only split that museval's tools look into.
SPLIT = "test/"


def museval_name(system: str, track: str) -> str:
    """Where the scores of a track lie: `museval/SYSTEM` is a folder for `add_eval_dir`."""
    return f"museval/{system}/{SPLIT}{track.removeprefix(SPLIT)}.json"


def museval_text(scores: TrackScores, settings: ScoringSettings) -> str | None:
    """BSSEval v4 of each frame, rounded as museval does; None if it was not measured.

    What is undefined is NaN there, as museval's own, which strict readers of JSON refuse.
    """
    targets = []
    for stem, of_stem in scores.stems.items():
        measures = of_stem.measures
        if not {*MEASURES.values()} <= {*measures}:
            return None
        columns = {title: measures[measure].frames for title, measure in MEASURES.items()}
        frames = [
            {
                "time": index * settings.hop_s,
                "duration": settings.frame_s,
                "metrics": dict(zip(columns, (round(value, 5) for value in values), strict=True)),
            }
            for index, values in enumerate(zip(*columns.values(), strict=True))
        ]
        targets.append({"name": stem, "frames": frames})
    return json.dumps({"targets": targets, "museval_version": "0.4.1"}, indent=2)
