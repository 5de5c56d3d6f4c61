"""The process that runs tracks of a dataset on FnApiRunner, apart from the launcher."""

from pathlib import Path
from typing import Any

import apache_beam as beam

from ...storage import DEAD_LETTERS, OutputTree
from ...transforms.plain import from_plain
from ..outcomes.step_metrics import metrics_by_step
from .engine import execute, fn_api_options, serve
from .engine_spec import TrackSpec


def parts_of(kind: str) -> tuple[type, type, Any]:
    """The records of a kind of work, its settings and its transform; of "shards" or "scores"."""
    # SciPy, with which scores are measured, takes half a second to import.
    if kind == "scores":
        from ...models.evaluation.matching import EvaluationTrack
        from ...transforms.scoring import ScoreTracks
        from ...transforms.scoring_settings import EvaluationSettings

        return EvaluationTrack, EvaluationSettings, ScoreTracks
    from ...models.datasets.shards import ShardSettings
    from ...models.datasets.stem_folders import StemTrack
    from ...transforms.shards import PrepareShards

    return StemTrack, ShardSettings, PrepareShards


def run(spec: TrackSpec) -> dict[str, Any]:
    """Run the graph; gives the metrics by step."""
    record, settings, transform = parts_of(spec.kind)
    tracks: list[Any] = [from_plain(record, plain) for plain in spec.tracks]
    pipeline = beam.Pipeline(options=fn_api_options(spec.kind, workers=spec.workers))
    made = transform(
        from_plain(settings, spec.settings),
        OutputTree(spec.location),
        given_up=spec.given_up,
        progress_path=spec.progress_path,
        reports=spec.reports,
    )
    pipeline | "ReadTracks" >> beam.Create(tracks) | "Run" >> made
    result = pipeline.run()
    result.wait_until_finish()
    return metrics_by_step(result)


def work(spec: TrackSpec, folder: Path) -> int:
    """Run a spec, whose files lie in a folder; gives the exit code of this process."""

    def prepare() -> None:
        # Processes forked after this need it, too.
        parts_of(spec.kind)
        if spec.reports:
            OutputTree(spec.location).write(b"", DEAD_LETTERS)

    return execute(spec, folder, prepare, lambda: run(spec))


def main() -> None:
    """Run the spec of tracks."""
    serve(TrackSpec, work)
