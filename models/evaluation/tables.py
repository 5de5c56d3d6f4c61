"""Scores of a dataset as tables: rows of tracks, summaries over tracks, and what papers print."""

import csv
import io
import itertools
import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from .measures import main_span, title_of
from .rows import Row, TrackRecord
from .scoring import TrackScores
from .statistics import Comparison, Summary, compare, summarize

# Of the whole track, and the median over its frames.
SPANS = ("track", "frames")


@dataclass(frozen=True)
class Score:
    """A number over tracks: of a system, a stem and a measure, of whole tracks or of frames."""

    system: str
    stem: str
    measure: str
    span: str
    score: Summary
    improvement: Summary


@dataclass(frozen=True)
class Duel:
    """Two systems on the same tracks."""

    first: str
    second: str
    stem: str
    measure: str
    span: str
    comparison: Comparison


Key = tuple[str, str, str]  # stem, measure, span
# Score and improvement, by system, key and track: see `values_by_key`.
Values = dict[str, dict[Key, dict[str, tuple[float, float]]]]


def record_of(system: str, name: str, scores: TrackScores) -> TrackRecord:
    """A track's numbers without those of its frames."""
    return TrackRecord(
        system,
        name,
        tuple(
            Row(
                stem,
                measure,
                track=_defined(found.track),
                frames=_median(found.frames),
                track_improvement=_defined(found.track_improvement),
                frames_improvement=_median(found.frames_improvement),
                count=len(found.frames),
                undefined=found.undefined_frames,
            )
            for stem, of_stem in scores.stems.items()
            for measure, found in of_stem.measures.items()
        ),
    )


def _defined(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _median(values: Sequence[float]) -> float | None:
    defined = [value for value in values if math.isfinite(value)]
    return statistics.median(defined) if defined else None


def flat_rows(records: Iterable[TrackRecord]) -> list[dict[str, Any]]:
    """A row a track, stem and measure, as CSV and Parquet have them."""
    return [
        {"system": record.system, "track": record.name, **_renamed(asdict(row))}
        for record in records
        for row in record.rows
    ]


def _renamed(row: dict[str, Any]) -> dict[str, Any]:
    # `track` is the name of the track there.
    return {
        "stem": row["stem"],
        "measure": row["measure"],
        "whole": row["track"],
        "median_of_frames": row["frames"],
        "whole_improvement": row["track_improvement"],
        "median_of_frames_improvement": row["frames_improvement"],
        "frames": row["count"],
        "undefined_frames": row["undefined"],
    }


COLUMNS = ("system", "track", *_renamed(dict.fromkeys(field.name for field in fields(Row))))


def csv_text(records: Iterable[TrackRecord]) -> str:
    """All rows as CSV; what is undefined is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat_rows(records))
    return text.getvalue()


def parquet_bytes(records: Iterable[TrackRecord]) -> bytes:
    """All rows as Parquet; what is undefined is null."""
    import pyarrow
    from pyarrow import parquet

    kinds = {"frames": pyarrow.int64(), "undefined_frames": pyarrow.int64()}
    numbers = {name: kinds.get(name, pyarrow.float64()) for name in COLUMNS[4:]}
    schema = pyarrow.schema([*((name, pyarrow.string()) for name in COLUMNS[:4]), *numbers.items()])
    sink = pyarrow.BufferOutputStream()
    parquet.write_table(pyarrow.Table.from_pylist(flat_rows(records), schema), sink)
    return bytes(sink.getvalue())


def scores_of(values: Values) -> list[Score]:
    """Summaries over tracks, in the order of systems, stems and measures."""
    return [
        Score(
            system,
            *key,
            score=summarize([score for score, _ in found.values()]),
            improvement=summarize([improvement for _, improvement in found.values()]),
        )
        for system, keys in values.items()
        for key, found in keys.items()
    ]


def duels_of(values: Values) -> list[Duel]:
    """Each two systems on the tracks that both have."""
    duels = []
    for first, second in itertools.combinations(values, 2):
        for key in [key for key in values[first] if key in values[second]]:
            ours, theirs = values[first][key], values[second][key]
            tracks = [track for track in ours if track in theirs]
            comparison = compare(
                [ours[track][0] for track in tracks], [theirs[track][0] for track in tracks]
            )
            duels.append(Duel(first, second, *key, comparison=comparison))
    return duels


def values_by_key(records: Iterable[TrackRecord]) -> Values:
    """Score and improvement by system, key and track; keys without any score are left out."""
    found: Values = defaultdict(dict)
    for record in records:
        for row in record.rows:
            pairs = (row.track, row.track_improvement), (row.frames, row.frames_improvement)
            for span, pair in zip(SPANS, pairs, strict=True):
                by_track = found[record.system].setdefault((row.stem, row.measure, span), {})
                by_track[record.name] = _number(pair[0]), _number(pair[1])
    return {
        system: {
            key: by_track
            for key, by_track in keys.items()
            if not all(math.isnan(score) for score, _ in by_track.values())
        }
        for system, keys in found.items()
    }


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def markdown_text(scores: Sequence[Score], duels: Sequence[Duel]) -> str:
    """Tables for a paper: medians over tracks with their confidence intervals."""
    lines = ["# Scores", "", "Medians over tracks, with 95 % confidence intervals (bootstrap)."]
    duels = [each for each in duels if each.span == main_span(each.measure)]
    for measure in dict.fromkeys(each.measure for each in scores):
        span = main_span(measure)
        chosen = [each for each in scores if (each.measure, each.span) == (measure, span)]
        stems = sorted({each.stem for each in chosen})
        lines += ["", f"## {title_of(measure)}, {_span_words(span)}", ""]
        lines += [f"| system | {' | '.join(stems)} |", "|---|" + "---|" * len(stems)]
        for system in dict.fromkeys(each.system for each in chosen):
            cells = {each.stem: _cell(each.score) for each in chosen if each.system == system}
            row = " | ".join(cells.get(stem, "") for stem in stems)
            lines.append(f"| {_escaped(system)} | {row} |")
    if duels:
        lines += ["", "## Side by side", ""]
        lines += ["| | | stem | measure | of | tracks | better | difference | p |"]
        lines += ["|---|---|---|---|---|---|---|---|---|"]
    for duel in duels:
        found = duel.comparison
        difference = _interval(found.median_difference, found.low, found.high)
        p_value = "" if found.p_value is None else f"{found.p_value:.2g}"
        lines.append(
            f"| {_escaped(duel.first)} | {_escaped(duel.second)} | {duel.stem} "
            f"| {title_of(duel.measure)} | {duel.span} | {found.tracks} | {found.better} "
            f"| {difference} | {p_value} |"
        )
    return "\n".join(lines) + "\n"


def _span_words(span: str) -> str:
    return "whole tracks" if span == "track" else "median over frames"


def _cell(summary: Summary) -> str:
    return _interval(summary.median, summary.low, summary.high)


def _interval(middle: float | None, low: float | None, high: float | None) -> str:
    if middle is None:
        return "–"
    if low is None or high is None:
        return f"{middle:.2f}"
    return f"{middle:.2f} [{low:.2f}, {high:.2f}]"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")
