"""What jobs have in common that are handed to another service: Dataflow, or a Beam job server."""

import contextlib
import io
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from ...transforms.attempts import new_attempts
from ..events.sources import ReadEvents
from ..job.job_config import JobConfig, JobFileError
from ..outcomes.summary import NAME as RUN_FACTS
from ..outcomes.summary import summary_json
from ..report.building import tell_of_run
from ..run import build


def parse_options(plain: dict[str, Any]) -> PipelineOptions:
    """Beam's options, by the names of its flags.

    Raises
    ------
    JobFileError
        an option has a value that Beam refuses
    """
    options = PipelineOptions.from_dictionary(plain)
    with contextlib.redirect_stderr(io.StringIO()) as complaint:
        try:
            options.get_all_options()
        except SystemExit as error:
            message = complaint.getvalue().rpartition(" error: ")[2].strip()
            raise JobFileError(f"pipeline_options: {message}") from error
    return options


def build_for_service(job: JobConfig, options: PipelineOptions) -> beam.Pipeline:
    """The graph of a job, ready to be run: it lists the events itself, and notes its tries.

    Raises
    ------
    JobFileError
        Beam finds the options wrong
    """
    try:
        pipeline = beam.Pipeline(options=options)
    except ValueError as error:
        complaints = [line.strip() for line in str(error).splitlines()[1:] if line.strip()]
        raise JobFileError(f"pipeline_options: {' '.join(complaints) or error}") from error
    try:
        messages = pipeline | ReadEvents(job)
    except ValueError as error:
        raise JobFileError(f"job_config.events.inputs: {error}") from error
    build(job, messages, attempts=new_attempts())
    return pipeline


def write_summary(
    job: JobConfig, metrics: dict[str, dict[str, Any]], *, wall_s: float
) -> dict[str, Any]:
    """Write the `run.json` of a job that is over, by the counters of its steps; gives the content.

    Raises
    ------
    StorageError
        it can't be written
    """
    summary = summary_json(
        job,
        recordings_of(metrics),
        metrics,
        audio_s=metrics.get("PublishTrack", {}).get("audio_milliseconds", 0) / 1000,
        wall_s=wall_s,
        workers=None,
    )
    job.output_tree.write_json(summary, RUN_FACTS)
    if job.report.enabled and not job.pipeline_options.streaming:
        tell_of_run(job.output_tree)
    return summary


def recordings_of(metrics: dict[str, dict[str, Any]]) -> dict[str, int]:
    """How many events came to which end, by the counters of the steps."""

    def counter(step: str, name: str) -> int:
        return int(metrics.get(step, {}).get(name, 0))

    accepted = counter("SkipFinished", "in")
    total = counter("AcceptMessages", "in")
    passed = total - counter("AcceptMessages", "failures") - accepted
    for name in ("results", "kmsg-data-not-found-input"):
        passed += counter("SkipFinished", name)
    return {
        "finished": counter("PublishTrack", "recordings"),
        "skipped": counter("SkipFinished", "skipped"),
        "passed_through": passed,
        "failed": counter("WriteDeadLetters", "recordings"),
        "clipped": counter("PublishTrack", "clipped_recordings"),
        "total": total,
    }
