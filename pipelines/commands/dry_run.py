"""`--dry-run`: what a job would do, without doing it."""

import json
from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from ...audio.errors import AudioError
from ...storage import StorageError
from ...transforms.part_planning import part_references
from ...transforms.records import Receipt
from ...transforms.resuming import OtherResultsError, Resumption
from ..events.elements import resumption_of
from ..job.job_config import JobConfig
from .progress import print_left_alone, printable


def print_plan(job: JobConfig, elements: Sequence[str], *, log_format: str) -> int:
    """Print a line for each recording: what would be done, skipped, refused.

    Returns the exit code that a run would at least have: 1 if a recording would be refused.
    """
    resumption = resumption_of(job)
    console = Console(soft_wrap=True)
    counts = {"do": 0, "skip": 0, "refuse": 0}
    left_alone: list[str] = []
    for element in elements:
        try:
            action, detail = _plan_of(element, resumption, job)
        except (AudioError, StorageError, OtherResultsError) as error:
            action, detail = "refuse", str(error)
            if isinstance(error, OtherResultsError):
                left_alone.append(detail)
        counts[action] += 1
        if log_format == "json":
            print(json.dumps({"element": element, "action": action, "detail": detail}))
        else:
            named = action == "refuse" and element in detail
            text = detail if named else f"{element}: {detail}"
            console.print(Text(f"{action:<7}{printable(text)}"))
    if log_format == "text":
        console.print(counts_of_plan(**counts), highlight=False)
        print_left_alone(console, left_alone)
    return 1 if counts["refuse"] else 0


def counts_of_plan(do: int, skip: int, refuse: int) -> str:
    """How many recordings there are to do, in words."""
    return f"{do} to do, {skip} already done, {refuse} refused"


def _plan_of(element: str, resumption: Resumption, job: JobConfig) -> tuple[str, str]:
    pending = resumption.pending_or_receipt(element, force=job.force)
    if isinstance(pending, Receipt):
        return "skip", "already done"
    references = part_references(pending, job.settings, job.file_storage)
    recording = references[0].recording
    *others, last = recording.todo
    branches = f"{', '.join(others)} and {last}" if others else last
    detail = f"{branches}, {recording.duration_s:.1f} s"
    if len(references) > 1:
        detail += f", {len(references)} parts"
    if recording.stale:
        detail += f", in place of {', '.join(recording.stale)}"
    return "do", detail
