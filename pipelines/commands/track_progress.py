"""Progress of commands that work on the tracks of a dataset."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from .running import INTERRUPTED


@contextlib.contextmanager
def _told_interrupts(cure: str) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt as error:
        print(f"interrupted; {cure}", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from error


@contextlib.contextmanager
def shown_tracks(
    doing: str, total: int, *, cure: str = "run it again to go on where it stopped"
) -> Iterator[Callable[[dict[str, Any]], None]]:
    """A bar on a terminal; what fails is told anywhere, as it comes.

    Parameters
    ----------
    doing
        what is done to the tracks, in one word
    total
        how many there are
    cure
        what is told after an interrupt

    Yields
    ------
    What is to be told of each track that is through: a line of progress.

    Raises
    ------
    typer.Exit
        for an interrupt, which is told
    """
    console = Console(stderr=True, soft_wrap=True)
    columns = TextColumn(doing), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    with _told_interrupts(cure), bar as progress:
        task = progress.add_task("", total=total)

        def show(line: dict[str, Any]) -> None:
            progress.advance(task)
            if line["event"] == "failed":
                console.print(Text(f"{line['element']}: {line['message']}"))

        yield show
