"""The files that an evaluation leaves of all tracks."""

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from .measures import ScoringSettings, main_span
from .plots import distributions_png, side_by_side_png
from .rows import CSV, JSON, MARKDOWN, PARQUET, TrackRecord
from .tables import (
    csv_text,
    duels_of,
    markdown_text,
    parquet_bytes,
    scores_of,
    values_by_key,
)

FORMAT = 1


def result_files(
    records: Sequence[TrackRecord], settings: ScoringSettings
) -> Iterator[tuple[str, bytes]]:
    """Names and contents: tables, and pictures of what they hold.

    The order of the records makes no difference, nor if some come twice.
    """
    records = sorted({*records}, key=lambda record: (record.system, record.name))
    values = values_by_key(records)
    scores, duels = scores_of(values), duels_of(values)
    yield CSV, csv_text(records).encode()
    yield PARQUET, parquet_bytes(records)
    yield MARKDOWN, markdown_text(scores, duels).encode()
    for measure in dict.fromkeys(each.measure for each in scores):
        span = main_span(measure)
        picture = distributions_png(values, measure, span)
        if picture is not None:
            yield f"plots/{measure}.png", picture
        for first, second in itertools.combinations({r.system: None for r in records}, 2):
            picture = side_by_side_png(values, first, second, measure, span)
            if picture is not None:
                yield f"plots/{first}-against-{second}-{measure}.png", picture
    content: dict[str, Any] = {
        "format": FORMAT,
        "settings": asdict(settings),
        "tracks": {
            system: sum(record.system == system for record in records)
            for system in sorted({record.system for record in records})
        },
        "scores": [asdict(each) for each in scores],
        "side_by_side": [asdict(each) for each in duels],
    }
    yield JSON, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode()
