"""What is kept of the scores of a track, and the files that tell those of all. Light to import."""

from dataclasses import dataclass

CSV, JSON, MARKDOWN, PARQUET = "scores.csv", "scores.json", "scores.md", "scores.parquet"


@dataclass(frozen=True)
class Row:
    """What one measure says of a stem of a track.

    Attributes
    ----------
    stem, measure
        their names
    track
        of the whole track; None: undefined, or no such value
    frames
        the median over frames where it is defined; None: it is in none
    track_improvement, frames_improvement
        the same of the difference to the mixture taken for the estimate
    count, undefined
        frames, and those of them that have no value
    """

    stem: str
    measure: str
    track: float | None
    frames: float | None
    track_improvement: float | None
    frames_improvement: float | None
    count: int
    undefined: int


@dataclass(frozen=True)
class TrackRecord:
    """The scores of a track by a system."""

    system: str
    name: str
    rows: tuple[Row, ...]
