"""The command `beamsplitter prepare`: excerpts cut once, for trainings to read."""

import json
from typing import Annotated

import typer

from ...models.datasets.shards import SILENCE_DBFS, ShardSettings
from ...models.datasets.stem_folders import require_targets
from ...storage import DEAD_LETTERS, OutputTree, Storage, absolute
from ..job.locations import expanded
from ..local.cores import available_cores
from ..local.shard_launch import Prepared, prepare_shards
from .track_progress import shown_tracks

FAILED = 1


def prepare(
    tracks: Annotated[
        str,
        typer.Argument(
            metavar="INPUT", help="Folder, here or on gs://: INPUT/train/TRACK/vocals.wav, …"
        ),
    ],
    output: Annotated[str, typer.Option("--output", "-o", help="Folder of the shards.")],
    targets: Annotated[
        str, typer.Option(help="The stems that are to be learnt, with commas between.")
    ],
    sample_rate: Annotated[int, typer.Option(min=1, help="Hz, of all excerpts.")] = 44100,
    channels: Annotated[
        int, typer.Option(min=1, max=8, help="1: the mean of a file's channels.")
    ] = 1,
    excerpt_s: Annotated[float, typer.Option("--excerpt-seconds", help="Of an excerpt.")] = 3.0,
    hop_s: Annotated[
        float | None,
        typer.Option("--hop-seconds", help="From one to the next; default: its length."),
    ] = None,
    silence_dbfs: Annotated[
        float,
        typer.Option("--silence-db", help="Leave out excerpts whose mixture is below, in dBFS."),
    ] = SILENCE_DBFS,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace shards that other settings have made.")
    ] = False,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Worker processes; default one for each core.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the counts as JSON.")] = False,
) -> None:
    """Decode, resample and cut the tracks of a dataset once, into shards for training.

    A run that was stopped goes on where it was. Exit code: 0 if every track came out, 1 if some
    failed (OUT/failures.jsonl says why), 2 for a mistake in the call.
    """
    # Beam takes a second to import.
    from ...transforms.stem_tracks import list_stem_tracks

    settings = ShardSettings(
        targets=tuple(name.strip() for name in targets.split(",") if name.strip()),
        sample_rate=sample_rate,
        channels=channels,
        excerpt_s=excerpt_s,
        hop_s=excerpt_s if hop_s is None else hop_s,
        silence_dbfs=silence_dbfs,
    )
    found = list_stem_tracks(absolute(expanded(tracks)), Storage())
    if not any({*settings.targets} <= {*track.stems} for track in found):
        require_targets(found, settings.targets)
    tree = OutputTree(absolute(expanded(output)))
    with shown_tracks("preparing", len(found)) as show:
        prepared = prepare_shards(
            found,
            tree,
            settings,
            workers=workers or available_cores(),
            replace=replace,
            show=show,
        )
    _print_counts(prepared, tree, as_json=as_json)
    if prepared.failures:
        raise typer.Exit(FAILED)


def _print_counts(prepared: Prepared, tree: OutputTree, *, as_json: bool) -> None:
    counts, failed = prepared.counts, len(prepared.failures)
    if as_json:
        print(json.dumps({**counts, "kept_tracks": prepared.kept, "failed_tracks": failed}))
        return
    told = [
        f"{counts['tracks']} tracks ({prepared.kept} as they were)",
        f"{counts['excerpts']} excerpts, {counts['size_bytes'] / 1e6:.1f} MB",
        f"{counts['silent_excerpts']} silent ones left out",
        f"{counts['short_tracks']} tracks too short",
    ]
    if failed:
        told.append(f"{failed} failed: {tree.path(DEAD_LETTERS)} says why")
    print("; ".join(told))
