"""The process that makes shards on FnApiRunner, apart from the launcher that watches it."""

from pathlib import Path
from typing import Any

import apache_beam as beam

from ...models.datasets.shards import ShardSettings
from ...models.datasets.stem_folders import StemTrack
from ...storage import DEAD_LETTERS, OutputTree
from ...transforms.plain import from_plain
from ...transforms.shards import PrepareShards
from ..outcomes.step_metrics import metrics_by_step
from .engine import execute, fn_api_options, serve
from .engine_spec import ShardSpec


def run(spec: ShardSpec) -> dict[str, Any]:
    """Run the graph; gives the metrics by step."""
    tracks = [from_plain(StemTrack, plain) for plain in spec.tracks]
    pipeline = beam.Pipeline(options=fn_api_options("prepare", workers=spec.workers))
    prepare = PrepareShards(
        from_plain(ShardSettings, spec.settings),
        OutputTree(spec.location),
        given_up=spec.given_up,
        progress_path=spec.progress_path,
        reports=spec.reports,
    )
    pipeline | "ReadTracks" >> beam.Create(tracks) | "Prepare" >> prepare
    result = pipeline.run()
    result.wait_until_finish()
    return metrics_by_step(result)


def work(spec: ShardSpec, folder: Path) -> int:
    """Run a spec, whose files lie in a folder; gives the exit code of this process."""

    def prepare() -> None:
        if spec.reports:
            OutputTree(spec.location).write(b"", DEAD_LETTERS)

    return execute(spec, folder, prepare, lambda: run(spec))


def main() -> None:
    """Run the spec of shards to make."""
    serve(ShardSpec, work)
