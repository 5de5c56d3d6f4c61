"""Running a job where it says, and telling how it went."""

import itertools
import json
import sys
import time
from typing import Any

from rich.console import Console
from rich.text import Text

from ...models.evaluation.rows import MARKDOWN
from ...models.separators.by_name import describe, fetch, missing
from ..events.elements import list_events
from ..job.job_config import JobConfig, JobFileError
from ..local.cores import available_cores
from ..local.preparing import make_ready, require_ready
from ..report.page_files import INDEX
from .models_command import shown_progress

INTERRUPTED = 130


def run_job(
    job: JobConfig,
    *,
    workers: int | None,
    dry_run: bool,
    log_format: str,
    shown_location: str | None = None,
) -> int:
    """Run a job; gives the exit code.

    Parameters
    ----------
    workers
        processes on this machine; None: one for each core
    dry_run
        only print what would be done
    shown_location
        where the results of a batch on this machine will lie in the end; default:
        where the job writes them
    """
    runner, settings = job.pipeline_options.runner, job.pipeline_options
    if runner == "DataflowRunner":
        return _run_on_dataflow(job, dry_run=dry_run, log_format=log_format)
    require_output(job)
    if runner == "PortableRunner":
        from ..services.portable import portable_options

        portable_options(job)
    is_here = runner != "PortableRunner" or settings.environment_type == "LOOPBACK"
    if is_here:
        require_ready(job, load_packages=dry_run)
    else:
        job.resolve()
    if dry_run:
        return _print_plan(job, log_format)
    if runner == "PortableRunner":
        return _run_portable(job, is_here=is_here, log_format=log_format)
    if settings.streaming:
        return _run_stream(job, workers=workers or available_cores(), log_format=log_format)
    return run_batch(job, workers=workers, log_format=log_format, shown_location=shown_location)


def require_output(job: JobConfig) -> None:
    """Refuse a job that does not say where its results go.

    Raises
    ------
    JobFileError
        it does not
    """
    if not job.job_config.data.outputs:
        raise JobFileError("job_config.data.outputs: name the folder of the results")


def _print_plan(job: JobConfig, log_format: str) -> int:
    from .dry_run import print_plan

    if job.pipeline_options.streaming:
        raise JobFileError(
            "--dry-run: what a stream will do depends on the messages that come; "
            "`beamsplitter verify` says whether it can begin"
        )
    return print_plan(job, list_events(job), log_format=log_format)


def run_batch(
    job: JobConfig, *, workers: int | None, log_format: str, shown_location: str | None = None
) -> int:
    """Run a batch job on this machine; gives the exit code."""
    from ..local.launch import run_local
    from .progress import Bar, JsonLog, print_summary

    started = time.monotonic()
    console = Console(stderr=True, soft_wrap=True)
    elements = list_events(job)
    _make_ready(job, log_format)
    workers = min(workers or available_cores(), len(elements))
    try:
        if log_format == "json":
            state = run_local(job, elements, workers=workers, show=JsonLog())
        else:
            with Bar(console, loading=_models_of(job)) as bar:
                state = run_local(job, elements, workers=workers, show=bar)
    except KeyboardInterrupt:
        console.print("interrupted; run it again to go on where it stopped")
        return INTERRUPTED
    if log_format == "text":
        wall_s = time.monotonic() - started
        location = shown_location or job.output_location
        print_summary(console, state, wall_s=wall_s, location=location)
        if "scores" in job.settings.branches and state.finished:
            console.print(Text(f"scores: {location}/{MARKDOWN}"))
        if job.report.enabled:
            console.print(Text(f"page: {location}/{INDEX}"))
    return 1 if state.failures else 0


def _models_of(job: JobConfig) -> str:
    """The names of the models that a job loads; empty if it loads none."""
    loaded = [models for models in job.models if describe(models).uses_device]
    return " + ".join(each.name for models in loaded for each in models)


def _run_stream(job: JobConfig, *, workers: int, log_format: str) -> int:
    from ..stream.streaming import run_stream
    from .progress import JsonLog, StreamLines, print_stream_summary

    console = Console(stderr=True, soft_wrap=True)
    show = JsonLog() if log_format == "json" else StreamLines(console)
    _make_ready(job, log_format)
    totals = run_stream(job, workers=workers, show=show)
    if log_format == "text":
        print_stream_summary(console, totals, location=job.output_location)
    return 1 if totals.failed else 0


def _make_ready(job: JobConfig, log_format: str) -> None:
    _tell_missing(job, log_format)
    with shown_progress(log_format) as on_progress:
        make_ready(job, on_progress)


def _tell_missing(job: JobConfig, log_format: str) -> None:
    """Say which models will be fetched."""
    if log_format == "text":
        for name in itertools.chain.from_iterable(map(missing, job.models)):
            print(f"fetching {name}", file=sys.stderr)


def _run_on_dataflow(job: JobConfig, *, dry_run: bool, log_format: str) -> int:
    from ..services.dataflow import describe, submit, summary

    job.resolve()
    if dry_run:
        description = describe(job)
        if log_format == "json":
            print(json.dumps(description.job))
        else:
            print("\n".join(f"{name:<12}{value}" for name, value in summary(job, description)))
        return 0
    submission = submit(job)
    shown = {"job_id": submission.job_id, "url": submission.url}
    if submission.job_id is None:
        shown = {"template": job.pipeline_options.template_location}
    text = json.dumps(shown) if log_format == "json" else "\n".join(map(str, shown.values()))
    print(text, flush=True)
    return _wait(job, submission.job_id, log_format) if submission.job_id else 0


def _wait(job: JobConfig, job_id: str, log_format: str) -> int:
    """Wait as the job file says: until the job runs, until it is over, or not at all."""
    from ..services.dataflow import wait_for_results
    from ..services.dataflow_jobs import DataflowJobs
    from .told_errors import failing_with

    try:
        # It was submitted: whatever is wrong now is no mistake in the call.
        with failing_with(1):
            if job.job_config.blocking:
                return _told_summary(job, wait_for_results(job, job_id), log_format)
            if job.job_config.wait_for_pipeline_running:
                DataflowJobs(job.pipeline_options).wait_until_running(job_id)
    except KeyboardInterrupt:
        print("no longer waiting; the job goes on without", file=sys.stderr)
        return INTERRUPTED
    return 0


def _run_portable(job: JobConfig, *, is_here: bool, log_format: str) -> int:
    from ..services.portable import submitted

    if is_here:
        _tell_missing(job, log_format)
        with shown_progress(log_format) as on_progress:
            for models in job.models:
                fetch(models, on_progress)
    with submitted(job) as submission:
        line = json.dumps({"job_id": submission.id}) if log_format == "json" else submission.id
        print(line, flush=True)
        try:
            if job.job_config.blocking or submission.is_here:
                return _told_summary(job, submission.write_summary(), log_format)
            if job.job_config.wait_for_pipeline_running:
                submission.wait_until_running()
        except KeyboardInterrupt:
            if submission.is_here:
                print("interrupted; run it again to go on where it stopped", file=sys.stderr)
                submission.end_here(INTERRUPTED)
            print("no longer waiting; the job goes on without", file=sys.stderr)
            return INTERRUPTED
    return 0


def _told_summary(job: JobConfig, summary: dict[str, Any], log_format: str) -> int:
    """Print the content of the `run.json` of a job that ran elsewhere; gives the exit code."""
    from .progress import JsonLog, print_service_summary

    if log_format == "json":
        JsonLog()(None, {"event": "summary", **summary})
    else:
        print_service_summary(
            Console(stderr=True, soft_wrap=True),
            summary,
            location=job.output_location,
            is_stream=job.pipeline_options.streaming,
        )
    return 1 if summary["recordings"]["failed"] else 0
