"""What `beamsplitter chorus` does: choruses of the recordings of a job, and how they are told."""

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from ...audio.extensions import has_audio_extension
from ...transforms.resuming import shares_name
from ..events.elements import NamesInTree, list_events
from ..job.job_config import JobConfig
from ..local.chorus_launch import (
    NAME,
    ChorusTask,
    CutFormat,
    FoundChoruses,
    find_in_files,
)
from ..local.cores import available_cores
from .tables import table_console
from .track_progress import shown_tracks

FAILED = 1
MOST_SHOWN = 8


def find_and_print(
    job: JobConfig,
    *,
    clip_s: float,
    cut_format: CutFormat | None,
    workers: int | None,
    as_json: bool,
) -> int:
    """Find the choruses of a job's recordings, and print them; gives the exit code.

    Parameters
    ----------
    job
        says which recordings; files are written where its results go, if it says so
    clip_s
        seconds of an excerpt, and of the shortest section
    cut_format
        write the excerpts, too, in this format
    workers
        processes; None: one for each core
    as_json
        print an object for each recording, in a list

    Raises
    ------
    InputError
        there are no recordings
    StorageError
        the folder of the results can't be written
    """
    tasks = [*_tasks(job, clip_s, cut_format)]
    workers = min(workers or available_cores(), len(tasks))
    with shown_tracks("searching", len(tasks), cure="run it again") as show_line:

        def show(found: FoundChoruses) -> None:
            event = "failed" if found.failure else "finished"
            show_line({"event": event, "element": found.element, "message": found.failure})

        with _results_of(job):
            found = find_in_files(tasks, workers=workers, show=show)
    if as_json:
        print(json.dumps([_plain(each) for each in found], indent=2))
    else:
        _print_table(found)
    return FAILED if any(each.failure for each in found) else 0


@contextlib.contextmanager
def _results_of(job: JobConfig) -> Iterator[None]:
    """Own the scratch files of the results, if there are to be any."""
    if not job.job_config.data.outputs:
        yield
        return
    job.output_tree.require_writable()
    with job.output_tree.owned_scratch():
        yield


def _tasks(job: JobConfig, clip_s: float, cut_format: CutFormat | None) -> Iterator[ChorusTask]:
    names = NamesInTree(job)
    elements = list_events(job)
    named = {names.name_of(element) for element in elements}
    # Where recordings and results have one folder, excerpts of an earlier run lie there.
    recordings = [element for element in elements if not _is_excerpt(names.name_of(element), named)]
    for element in recordings:
        uri = os.path.join(names.location, element)
        folder = names.name_of(element)
        if not has_audio_extension(element) or shares_name(uri, job.file_storage):
            folder += os.path.splitext(element)[1]
        yield ChorusTask(
            element=element,
            uri=uri,
            storage=job.file_storage,
            clip_s=clip_s,
            tree=job.output_tree if job.job_config.data.outputs else None,
            folder=folder,
            cut_format=cut_format,
        )


def _is_excerpt(name: str, named: set[str]) -> bool:
    return os.path.basename(name) == NAME and os.path.dirname(name) in named


def _plain(found: FoundChoruses) -> dict[str, Any]:
    if found.content is None:
        return {"recording": found.element, "failure": found.failure}
    return found.content


def _print_table(found: Sequence[FoundChoruses]) -> None:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("recording", overflow="fold")
    for column in ("start", "length"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("again at", overflow="fold")
    table.add_column("score", justify="right", no_wrap=True)
    for each in found:
        if each.content:
            table.add_row(Text(each.element), *_cells(each.content))
    table_console().print(table)
    failures = sum(each.failure is not None for each in found)
    told = "1 recording" if len(found) == 1 else f"{len(found)} recordings"
    print(f"{told}; {failures} failed" if failures else told)


def _cells(content: dict[str, Any]) -> tuple[str, str, str, str]:
    """Of the best section; without one, of the excerpt that stands for it."""
    start_s, stop_s = content["excerpt_start_s"], content["excerpt_stop_s"]
    if content["reason"]:
        return f"({_clock(start_s)})", f"({stop_s - start_s:.1f} s)", content["reason"], ""
    best = content["sections"][0]
    repeats_s = best["repeats_s"]
    again = ", ".join(map(_clock, repeats_s[:MOST_SHOWN]))
    if len(repeats_s) > MOST_SHOWN:
        again += f" and {len(repeats_s) - MOST_SHOWN} more"
    return _clock(best["start_s"]), f"{best['length_s']:.1f} s", again, str(best["score"])


def _clock(seconds: float) -> str:
    minutes, tenths = divmod(round(10 * seconds), 600)
    return f"{minutes}:{tenths // 10:02d}.{tenths % 10}"
