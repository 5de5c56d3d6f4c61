"""The command `beamsplitter dataset`: folders of stems for training."""

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from ...models.datasets.checking import TrackReport, check_tracks, usual_stems
from ...models.datasets.stem_folders import StemTrack, find_tracks
from .tables import table_console
from .told_errors import command_group

dataset_app = command_group(
    "dataset", help="Folders of tracks with their stems, to train separators on."
)
FAILED = 1


@dataset_app.callback()
def about() -> None:
    """Folders of tracks with their stems, to train separators on."""


@dataset_app.command("check")
def check(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER", help="FOLDER/train/TRACK/vocals.wav, …, or one of its splits."
        ),
    ],
    stems: Annotated[
        str | None,
        typer.Option(help="Those that each track is to have, with commas; default: as most have."),
    ] = None,
    minimum_s: Annotated[
        float, typer.Option("--min-seconds", min=0, help="Shorter tracks are reported.")
    ] = 3.0,
    as_json: Annotated[bool, typer.Option("--json", help="An object for the dataset.")] = False,
) -> None:
    """Find tracks whose stems are missing, silent, short, unequal, or do not sum to the mixture.

    Each file is decoded once. The exit code is 1 if something was found.
    """
    tracks = find_tracks(folder)
    wanted = tuple(filter(None, stems.split(","))) if stems else usual_stems(tracks)
    reports = _checked(tracks, wanted, minimum_s)
    faulty = [report for report in reports if report.problems]
    if as_json:
        print(json.dumps(_summary(folder, wanted, reports), indent=2))
    else:
        _print_reports(wanted, reports, faulty)
    if faulty:
        raise typer.Exit(FAILED)


def _checked(
    tracks: list[StemTrack], wanted: tuple[str, ...], minimum_s: float
) -> list[TrackReport]:
    columns = TextColumn("checking"), BarColumn(), MofNCompleteColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=len(tracks))
        return check_tracks(
            tracks, stems=wanted, minimum_s=minimum_s, done=lambda _: progress.advance(task)
        )


def _summary(folder: Path, wanted: tuple[str, ...], reports: list[TrackReport]) -> dict[str, Any]:
    return {
        "folder": str(folder),
        "stems": list(wanted),
        "tracks": [dataclasses.asdict(report) for report in reports],
        "duration_s": sum(report.duration_s for report in reports),
        "faulty_tracks": sum(bool(report.problems) for report in reports),
    }


def _print_reports(
    wanted: tuple[str, ...], reports: list[TrackReport], faulty: list[TrackReport]
) -> None:
    if faulty:
        table = Table(box=box.SIMPLE)
        table.add_column("track", overflow="fold")
        table.add_column("length", justify="right", no_wrap=True)
        table.add_column("what is wrong", overflow="fold")
        for report in faulty:
            told = "\n".join(problem.message for problem in report.problems)
            table.add_row(*map(Text, (report.name, f"{report.duration_s:.1f} s", told)))
        table_console().print(table)
    hours = sum(report.duration_s for report in reports) / 3600
    print(
        f"{len(reports)} tracks, {hours:.2f} hours, stems {', '.join(wanted) or 'none'}: "
        + (f"{len(faulty)} with something wrong" if faulty else "all fine")
    )
