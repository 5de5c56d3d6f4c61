"""`--dry-run`: what a job would do, without doing it."""

import json
from collections.abc import Sequence

from apache_beam.pvalue import TaggedOutput
from rich.console import Console
from rich.text import Text

from ...audio.errors import AudioError
from ...storage import StorageError
from ...transforms.planning import PlanParts, SkipFinished
from ..events.elements import place_of
from ..job.job_config import JobConfig
from .progress import printable


def print_plan(job: JobConfig, elements: Sequence[str], *, log_format: str) -> int:
    """Print a line for each recording: what would be done, skipped, refused.

    Returns the exit code that a run would at least have: 1 if a recording would be refused.
    """
    place = place_of(job)
    skip = SkipFinished(
        place.location,
        job.output_location,
        job.settings,
        suffix=place.suffix,
        finished_suffix=job.finished_suffix,
    )
    plan = PlanParts(job.settings)
    console = Console(soft_wrap=True)
    counts = {"do": 0, "skip": 0, "refuse": 0}
    for element in elements:
        action, detail = _plan_of(element, skip, plan, force=job.force)
        counts[action] += 1
        if log_format == "json":
            print(json.dumps({"element": element, "action": action, "detail": detail}))
        else:
            named = action == "refuse" and element in detail
            text = detail if named else f"{element}: {detail}"
            console.print(Text(f"{action:<7}{printable(text)}"))
    if log_format == "text":
        console.print(counts_of_plan(**counts), highlight=False)
    return 1 if counts["refuse"] else 0


def counts_of_plan(do: int, skip: int, refuse: int) -> str:
    """How many recordings there are to do, in words."""
    return f"{do} to do, {skip} already done, {refuse} refused"


def _plan_of(element: str, skip: SkipFinished, plan: PlanParts, *, force: bool) -> tuple[str, str]:
    try:
        pending = skip.pending_or_receipt(element, force=force)
        if isinstance(pending, TaggedOutput):
            return "skip", "already done"
        references = list(plan.apply(pending))
    except (AudioError, StorageError) as error:
        return "refuse", str(error)
    recording = references[0].recording
    parts = f", {len(references)} parts" if len(references) > 1 else ""
    return "do", f"{' and '.join(recording.todo)}, {recording.duration_s:.1f} s{parts}"
