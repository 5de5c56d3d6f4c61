"""The command `beamsplitter evaluate`: how near estimated stems come to true ones."""

import json
import os
import sys
from collections.abc import Container, Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import Annotated, Any

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from ...audio.extensions import has_lossy_extension
from ...models.datasets.stem_folders import MOST_NAMED, DatasetError
from ...models.evaluation.matching import Matched, match, separated_tracks
from ...models.evaluation.measures import (
    BSSEVAL,
    DEFAULT_MEASURES,
    MEASURES,
    ScoringSettings,
    main_span,
    title_of,
)
from ...models.separators.by_name import SeparatorName, describe, fetch, require_usable
from ...storage import DEAD_LETTERS, OutputTree, Storage, absolute
from ...transforms.reference_tracks import find_references
from ...transforms.scoring_settings import EvaluationSettings
from ...transforms.stem_tracks import list_stem_tracks
from ..job.locations import expanded
from ..local.cores import available_cores
from ..local.score_launch import Scored, score_tracks
from .option_values import options_of, pair_of
from .tables import table_console
from .track_progress import shown_tracks

FAILED = 1


def evaluate(
    references: Annotated[
        str,
        typer.Argument(
            metavar="REFERENCES",
            help="Folder of the true stems, here or on gs://: REFERENCES/TRACK/vocals.wav, …; or "
            "of the shards of them that `prepare` has made.",
        ),
    ],
    output: Annotated[str, typer.Option("--output", "-o", help="Folder of the scores.")],
    estimates: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[ESTIMATES]...",
            help="Folders of separations, by this tool, demucs, spleeter, open-unmix or others; "
            "LABEL=FOLDER calls one something else than its folder.",
        ),
    ] = None,
    separators: Annotated[
        list[str] | None,
        typer.Option(
            "--separator",
            help="Separate the mixtures by it, and score what it gives; LABEL=NAME calls it "
            "something else. No stems are kept.",
        ),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", help="NAME=value: an option of the separators."),
    ] = None,
    measures: Annotated[
        str, typer.Option(help=f"Of {', '.join(MEASURES)}, with commas between.")
    ] = ",".join(DEFAULT_MEASURES),
    name: Annotated[
        list[str] | None,
        typer.Option(
            "--name", help="THEIRS=OURS: what a stem, or a track, of ESTIMATES is called here."
        ),
    ] = None,
    frame_s: Annotated[float, typer.Option("--frame-seconds", min=0.1, help="Of a frame.")] = 1.0,
    hop_s: Annotated[
        float | None,
        typer.Option("--hop-seconds", min=0.1, help="From one to the next; default: its length."),
    ] = None,
    pictures: Annotated[
        bool, typer.Option("--track-plots", help="Draw the scores of each track over time.")
    ] = False,
    device: Annotated[str, typer.Option(help="For models: auto, cpu, cuda, cuda:N, mps.")] = "auto",
    workers: Annotated[
        int | None, typer.Option(min=1, help="Worker processes; default one for each core.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the content of scores.json.")
    ] = False,
) -> None:
    """Score separations against true stems: SI-SDR, SNR, BSSEval v4 and others.

    A run that was stopped goes on where it was. Several systems are compared with each other. Exit
    code: 0 if every track was scored, 1 if some failed (OUT/failures.jsonl says why) or have no
    estimates, 2 for a mistake in the call.
    """
    storage = Storage()
    scoring = ScoringSettings(
        measures=tuple(each.strip() for each in measures.split(",") if each.strip()),
        frame_s=frame_s,
        hop_s=frame_s if hop_s is None else hop_s,
    )
    names = dict(pair_of(each, "--name") for each in name or ())
    tracks, shards = find_references(absolute(expanded(references)), storage)
    by_label = _separators(separators or (), options_of(option or ()), device)
    systems = [
        match(label, tracks, list_stem_tracks(absolute(expanded(folder)), storage), names=names)
        for label, folder in map(_labelled, estimates or ())
    ]
    systems += [
        separated_tracks(label, tracks, describe((each,)).all_stems, names=names)
        for label, each in by_label.items()
    ]
    _require_something(systems)
    for each in systems:
        _tell_what_is_left_out(each)
    if BSSEVAL in scoring.measures:
        _tell_of_lossy_references(systems)
    settings = EvaluationSettings(
        scoring, separators=by_label, names=names, shards=shards, device=device, pictures=pictures
    )
    tree = OutputTree(absolute(expanded(output)))
    scored_tracks = [track for each in systems for track in each.tracks]
    with shown_tracks("scoring", len(scored_tracks)) as show:
        scored = score_tracks(
            scored_tracks, tree, settings, workers=workers or available_cores(), show=show
        )
    if as_json:
        print(json.dumps(scored.content, indent=2))
    else:
        _print_scores(scored, tree)
    if scored.failures or any(each.missing for each in systems):
        raise typer.Exit(FAILED)


def _labelled(text: str) -> tuple[str, str]:
    """The label of a folder or separator, and what it is of: its last name, if none is given."""
    label, separator, found = text.partition("=")
    if separator and label and "/" not in label and ":" not in label:
        return label, found
    return PurePath(text.rstrip("/")).name.replace(":", "-") or text, text


def _separators(
    given: Iterable[str], options: Mapping[str, Any], device: str
) -> dict[str, SeparatorName]:
    found: dict[str, SeparatorName] = {}
    for label, name in map(_labelled, given):
        _require_other_label(label, found)
        (found[label],) = fetch((SeparatorName.of(os.path.expanduser(name), options),))
        require_usable((found[label],), device)
        if describe((found[label],)).effect != "stems":
            raise DatasetError(f"{name}: gives labels, and no stems to score")
    return found


def _require_something(systems: Sequence[Matched]) -> None:
    if not systems:
        raise DatasetError("nothing to score: name a folder of ESTIMATES, or a --separator")
    labels: set[str] = set()
    for each in systems:
        _require_other_label(each.system, labels)
        labels.add(each.system)
        if not each.tracks:
            told = f"; its stems {_some(each.ignored)} have no reference" if each.ignored else ""
            raise DatasetError(
                f"{each.system}: no track of the references has an estimate there{told}. Folders "
                "are called as the tracks, and stems as theirs; --name THEIRS=OURS says otherwise"
            )


def _require_other_label(label: str, labels: Container[str]) -> None:
    if label in labels:
        raise DatasetError(f"two systems are called {label}: call one of them LABEL=…")


def _tell_what_is_left_out(matched: Matched) -> None:
    for what, names in (
        ("tracks have no estimates", matched.missing),
        ("folders are of no track", matched.unknown),
        ("stems have no reference", matched.ignored),
    ):
        if names:
            print(f"{matched.system}: {len(names)} {what}: {_some(names)}", file=sys.stderr)


def _tell_of_lossy_references(systems: Iterable[Matched]) -> None:
    lossy = {
        track.name
        for each in systems
        for track in each.tracks
        for reference in track.references.values()
        if any(has_lossy_extension(file.path) for file in reference.files)
    }
    if lossy:
        print(
            f"references of lossy formats, of {len(lossy)} tracks: where the codec left bands out, "
            "SIR and SAR of BSSEval mean nothing: write these references as FLAC of 16 bits, which "
            "mends most of it, or read SDR and ISR alone",
            file=sys.stderr,
        )


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more


def _print_scores(scored: Scored, tree: OutputTree) -> None:
    shown = [
        each for each in scored.content["scores"] if each["span"] == main_span(each["measure"])
    ]
    table = Table(box=box.SIMPLE_HEAD, caption="medians over tracks, in brackets 95 % of draws")
    for column in ("system", "stem", "measure"):
        table.add_column(column)
    for column in ("tracks", "score", "better than the mixture by"):
        table.add_column(column, justify="right")
    for each in shown:
        score, improvement = each["score"], each["improvement"]
        table.add_row(
            Text(each["system"]),
            Text(each["stem"]),
            title_of(each["measure"]),
            str(score["tracks"]),
            _interval(score),
            _interval(improvement),
        )
    table_console().print(table)
    counts = sum(scored.content["tracks"].values())
    told = [f"{counts} tracks scored ({scored.kept} before)", f"tables: {tree.path('scores.md')}"]
    if scored.failures:
        told.append(f"{len(scored.failures)} failed: {tree.path(DEAD_LETTERS)} says why")
    print("; ".join(told))


def _interval(summary: dict[str, Any]) -> str:
    if summary["median"] is None:
        return "undefined"
    if summary["low"] is None:
        return f"{summary['median']:.2f}"
    return f"{summary['median']:.2f} [{summary['low']:.2f}, {summary['high']:.2f}]"
