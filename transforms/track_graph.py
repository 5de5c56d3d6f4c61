"""The graph that tracks of a dataset go through, whatever is made of them."""

from typing import Any

import apache_beam as beam

from ..storage import OutputTree
from .beam_speed import speed_up_beam
from .reporting import ReportProgress, WriteDeadLetters
from .steps import Step, run_step

speed_up_beam()


def through_step(
    tracks: beam.PCollection,
    step: Step,
    record_type: type,
    *,
    tree: OutputTree,
    write_all: beam.PTransform,
    progress_path: str | None,
    reports: bool,
) -> Any:
    """Spread tracks, take each through a step, and write what is of all of them.

    Parameters
    ----------
    step, record_type
        the step, and what it makes of a track
    tree
        where `failures.jsonl` goes
    write_all
        takes the list of all records
    progress_path
        file that a line is appended to for each track that is through
    reports
        write what is of all, and dead letters

    Returns
    -------
    The records.
    """
    failed: list[beam.PCollection] = []
    records = run_step(tracks | "Spread" >> beam.Reshuffle(), step, record_type, failed)
    (failures,) = failed
    if progress_path:
        records |= "ReportRecord" >> ReportProgress(progress_path, "finished")
        failures |= "ReportFailure" >> ReportProgress(progress_path, "failed")
    if reports:
        records | "Together" >> beam.combiners.ToList() | write_all
        failures | WriteDeadLetters(tree)
    return records
