"""The command `beamsplitter`."""

import functools
import importlib.metadata
import io
import json
import signal
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
import yaml
from rich.console import Console
from rich.text import Text

from ..models.separators.base import ModelError
from ..models.separators.by_name import fetch, missing, require_usable
from ..storage import require_writable, use_access
from .commands.models_command import models_app, shown_progress
from .events.elements import InputError, list_events
from .events.outputs import prepare_outputs
from .job.job_config import JobConfig, JobFileError, load_job, parse_job
from .local.cores import available_cores
from .separate_files import split_job

app = typer.Typer(
    name="beamsplitter",
    help="Split recordings into stems and draw their spectrograms.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(models_app)
USAGE_ERROR = 2
INTERRUPTED = 130
# What the options of `separate` fill of a job, as messages call it.
FLAGS = {
    "job_config.events.inputs": "INPUT",
    "job_config.data.outputs.0.location": "--output",
    "separation": "--separator, --option",
    "separation.separator": "--separator",
    "separation.options": "--option",
    "separation.recipe": "--recipe",
    "separation.device": "--device",
    "separation.part_seconds": "--part-seconds",
    "separation.start_s": "--start",
    "separation.duration_s": "--duration",
    "stems": "--stems",
    "stems.format": "--format",
    "stems.bit_depth": "--bit-depth",
    "stems.bit_rate_kbps": "--bit-rate",
    "stems.quality": "--quality",
    "stems.sample_rate": "--sample-rate",
    "stems.peaks": "--peaks",
    "stems.two_stems": "--two-stems",
}

Workers = Annotated[
    int | None, typer.Option(min=1, help="Worker processes; default one for each core.")
]
LogFormat = Annotated[
    Literal["text", "json"], typer.Option(help="json: one object a line for each event.")
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="List what would be done, skipped and refused.")
]
Force = Annotated[bool, typer.Option("--force", help="Do finished recordings again.")]
JobFile = Annotated[str, typer.Argument(metavar="JOB.yaml", help="A job file.")]
Override = Annotated[
    list[str] | None,
    typer.Option("--override", "-O", help="dotted.path=value: change a value of the file."),
]
Template = Annotated[
    list[str] | None, typer.Option("--template", "-T", help="NAME=value: for ${NAME} in the file.")
]


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"beamsplitter {importlib.metadata.version('beamsplitter')}")
        raise typer.Exit


@app.callback()
def main_options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Split recordings into stems and draw their spectrograms."""


@app.command()
def separate(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT…", help="Files, folders (walked recursively) and glob patterns."
        ),
    ],
    output: Annotated[str, typer.Option("--output", "-o", help="Folder of the results.")],
    workers: Workers = None,
    force: Force = False,
    dry_run: DryRun = False,
    format: Annotated[
        Literal["flac", "wav", "ogg", "mp3", "m4a", "opus"],
        typer.Option(help="File format of the stems."),
    ] = "flac",
    bit_depth: Annotated[
        Literal["source", "16", "24", "32", "32f"],
        typer.Option(help="flac: source, 16, 24; wav: also 32 and 32f (float)."),
    ] = "source",
    bit_rate: Annotated[
        int | None, typer.Option(help="Of mp3, m4a and opus: kbit/s of all channels together.")
    ] = None,
    quality: Annotated[float | None, typer.Option(help="Of ogg: 0 to 10.")] = None,
    sample_rate: Annotated[
        int | None, typer.Option(help="Of the stems, in Hz; default that of the recording.")
    ] = None,
    peaks: Annotated[
        Literal["clip", "limit", "rescale"],
        typer.Option(
            help="Beyond full scale: clip; limit, each stem by itself; or rescale all stems alike."
        ),
    ] = "clip",
    stems: Annotated[
        str | None, typer.Option(help="Stems to write, with commas between; default all.")
    ] = None,
    two_stems: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Write this stem and the sum of all others, no_NAME."),
    ] = None,
    plots: Annotated[bool, typer.Option("--plots/--no-plots", help="Draw spectrograms.")] = True,
    start: Annotated[float, typer.Option(min=0, help="Begin this many seconds in.")] = 0.0,
    duration: Annotated[
        float | None, typer.Option(min=0, help="Do no more than this many seconds.")
    ] = None,
    separator: Annotated[
        str,
        typer.Option(
            help="nn-filter, hpss, demucs:NAME, umx:NAME, a model package's folder or address, "
            "or module:Class."
        ),
    ] = "nn-filter",
    option: Annotated[
        list[str] | None,
        typer.Option("--option", help="NAME=value: an option of the separator."),
    ] = None,
    recipe: Annotated[
        Literal["default", "librosa"] | None,
        typer.Option(help="Of nn-filter; librosa: the numbers of librosa's tutorial."),
    ] = None,
    device: Annotated[str, typer.Option(help="For models: auto, cpu, cuda, cuda:N, mps.")] = "auto",
    part_seconds: Annotated[
        float, typer.Option(min=10, max=3600, help="Longest part of a long recording.")
    ] = 300.0,
    override: Annotated[
        list[str] | None,
        typer.Option(
            "--override",
            "-O",
            help="dotted.path=value: anything else that a job file can say, as plots.range_db=60.",
        ),
    ] = None,
    log_format: LogFormat = "text",
) -> None:
    """Split recordings into stems and draw their spectrograms.

    Results lie in `OUT/PATH_OF_THE_RECORDING/`. What is finished there is left alone, so a run
    that was stopped goes on where it was. Exit code: 0 if every recording came out, 1 if some
    failed (OUT/failures.jsonl says why), 2 for a mistake in the call.
    """
    with _explained():
        job = split_job(
            inputs,
            output,
            force=force,
            separation={
                "separator": separator,
                "options": _options_of(option or ()),
                "recipe": recipe,
                "device": device,
                "part_seconds": part_seconds,
                "start_s": start,
                "duration_s": duration,
            },
            stems={
                "format": format,
                "bit_depth": bit_depth,
                "bit_rate_kbps": bit_rate,
                "quality": quality,
                "sample_rate": sample_rate,
                "peaks": peaks,
                "two_stems": two_stems,
                "select": [name.strip() for name in stems.split(",")] if stems else None,
            },
            plots={"enabled": plots},
            changes=override or (),
            flags=FLAGS,
        )
    _run(job, workers=workers, dry_run=dry_run, log_format=log_format)


@app.command()
def run(
    job_file: JobFile,
    override: Override = None,
    template: Template = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Worker processes; default as the file says, or one a core."),
    ] = None,
    force: Force = False,
    update: Annotated[
        bool, typer.Option("--update", help="Replace the running stream of this name on Dataflow.")
    ] = False,
    dry_run: DryRun = False,
    log_format: LogFormat = "text",
) -> None:
    """Run a job file. Exit codes as for `separate`."""
    overrides = list(override or ())
    if force:
        overrides.append("job_config.data.outputs.0.force=true")
    if update:
        overrides.append("pipeline_options.update=true")
    job = _load(job_file, overrides, template)
    if update and job.pipeline_options.runner != "DataflowRunner":
        print("error: --update: the job does not run on Dataflow", file=sys.stderr)
        raise typer.Exit(USAGE_ERROR)
    _run(
        job,
        workers=workers or job.pipeline_options.direct_num_workers,
        dry_run=dry_run,
        log_format=log_format,
    )


@app.command()
def publish(
    job_file: JobFile,
    elements: Annotated[
        list[str] | None,
        typer.Argument(metavar="ELEMENT", help="What the job shall work on: names of files."),
    ] = None,
    from_file: Annotated[
        str | None, typer.Option(help="A file of elements, one a line; - is standard input.")
    ] = None,
    top_down: Annotated[
        bool,
        typer.Option(
            "--top-down/--bottom-up", help="For every job that gets the events, or for this alone."
        ),
    ] = False,
    force: Force = False,
    ping: Annotated[bool, typer.Option("--ping", help="Let events pass, and do nothing.")] = False,
    override: Override = None,
    template: Template = None,
    log_format: LogFormat = "text",
) -> None:
    """Publish events to the Pub/Sub topic that a job reads.

    Exit code: 0 if all were published, 1 if some could not be, 2 for a mistake in the call, or if
    Pub/Sub does not take them.
    """
    from .events import sending

    job = _load(job_file, override, template)
    try:
        with _explained(), sending.opened_elements(elements or (), from_file) as numbered:
            outcome = sending.publish(
                job,
                numbered,
                top_down=top_down,
                force=force,
                ping=ping,
                on_failure=functools.partial(sending.print_failure, log_format=log_format),
            )
            if not outcome.published + outcome.failed and not outcome.stopped:
                raise InputError(f"{from_file}: holds no elements")
    except sending.PublishError as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(USAGE_ERROR) from error
    unit = "line" if from_file else "element"
    sending.print_outcome(outcome, unit=unit, log_format=log_format)
    if outcome.stopped:
        raise typer.Exit(INTERRUPTED if outcome.interrupted else USAGE_ERROR)
    raise typer.Exit(1 if outcome.failed else 0)


@app.command()
def stop(
    job_file: JobFile,
    override: Override = None,
    template: Template = None,
    drain: Annotated[
        bool, typer.Option("--drain", help="Finish what was read; default for streams.")
    ] = False,
    cancel: Annotated[
        bool, typer.Option("--cancel", help="End at once; default for batch jobs.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Until the job is over.")] = False,
    log_format: LogFormat = "text",
) -> None:
    """Stop a running job on Dataflow, found by the job_name of its file.

    Exit code: 0 if it is stopping, or has stopped with --wait; 1 if no job of the name is running,
    or it failed in the end; 2 for a mistake in the call, or no access.
    """
    from .services.dataflow_jobs import DataflowError, JobFailedError, NoSuchJobError, stop_job

    job = _load(job_file, override, template)
    try:
        with _explained():
            if drain and cancel:
                raise JobFileError("--drain and --cancel: give one of them")
            mode = "drain" if drain else "cancel" if cancel else None
            found, state = stop_job(job, mode=mode, wait=wait)
    except DataflowError as error:
        print(f"error: {error}", file=sys.stderr)
        no_stop = isinstance(error, NoSuchJobError | JobFailedError)
        raise typer.Exit(1 if no_stop else USAGE_ERROR) from error
    except KeyboardInterrupt as error:
        print("no longer waiting; the job goes on stopping", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from error
    shown = {"job_name": found.name, "job_id": found.id, "state": state}
    if log_format == "json":
        print(json.dumps(shown))
    else:
        print(f"{found.name} ({found.id}): {state}")


@app.command()
def verify(
    job_file: JobFile,
    override: Override = None,
    template: Template = None,
    create: Annotated[
        bool,
        typer.Option(
            "--create",
            help="Make missing buckets, topics and subscriptions; remove scratch files that killed "
            "runs left on gs://.",
        ),
    ] = False,
    log_format: LogFormat = "text",
) -> None:
    """Check that all that a job names is there and may be used. Nothing is run, and without
    --create nothing is made or deleted.

    Exit code: 0 if nothing is missing, 1 if something is, 2 for a mistake in the call, or no
    credentials.
    """
    from .checks.verify import complete, print_findings, verify_job
    from .services.dataflow_jobs import DataflowError

    job = _load(job_file, override, template)
    try:
        with _explained():
            _require_output(job)
            use_access(job.access)
            job.resolve()
            findings = verify_job(job, create=create)
    except DataflowError as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(USAGE_ERROR) from error
    print_findings(findings, log_format=log_format)
    raise typer.Exit(0 if complete(findings) else 1)


@app.command("job-configs")
def job_configs(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where to.")] = Path(
        "job-configs"
    ),
) -> None:
    """Write out the example job files, one for each way to go. What is there already stays."""
    from .commands.job_configs import write_job_configs

    with _explained():
        for path in write_job_configs(folder.expanduser()):
            print(path)


@app.command()
def demo(
    output: Annotated[str, typer.Option("--output", "-o", help="Folder of the results.")] = "out",
    log_format: LogFormat = "text",
) -> None:
    """Synthesise a short song, split it, and print how near the stems come to the true ones."""
    from .commands.demo import print_scores, write_song

    song = write_song(output)
    with _explained():
        job = parse_job(
            {
                "job_name": "demo",
                "pipeline_options": {"runner": "DirectRunner", "streaming": False},
                "job_config": {
                    "events": {"inputs": [{"type": "recording", "location": song}]},
                    "data": {"outputs": [{"type": "file", "location": output}]},
                },
            },
            source="demo",
        )
    code = _run_job(job, workers=1, log_format=log_format)
    if code == 0 and log_format == "text":
        print_scores(output)
    raise typer.Exit(code)


def _run(job: JobConfig, *, workers: int | None, dry_run: bool, log_format: str) -> None:
    use_access(job.access)
    with _explained():
        job.resolve()
    if job.pipeline_options.runner == "DataflowRunner":
        raise typer.Exit(_run_on_dataflow(job, dry_run=dry_run, log_format=log_format))
    is_portable = job.pipeline_options.runner == "PortableRunner"
    is_here = not is_portable or job.pipeline_options.environment_type == "LOOPBACK"
    with _explained():
        _require_output(job)
        if is_portable:
            from .services.portable import portable_options

            portable_options(job)
        if is_here:
            require_usable(job.separation.separators, job.separation.device, load_packages=dry_run)
    if dry_run:
        from .commands.dry_run import print_plan

        with _explained():
            if job.pipeline_options.streaming:
                raise JobFileError(
                    "--dry-run: what a stream will do depends on the messages that come; "
                    "`beamsplitter verify` says whether it can begin"
                )
            raise typer.Exit(print_plan(job, list_events(job), log_format=log_format))
    if is_portable:
        if is_here:
            _fetch_models(job, log_format)
        raise typer.Exit(_run_portable(job, log_format=log_format))
    if job.pipeline_options.streaming:
        raise typer.Exit(
            _run_stream(job, workers=workers or available_cores(), log_format=log_format)
        )
    raise typer.Exit(_run_job(job, workers=workers, log_format=log_format))


def _run_job(job: JobConfig, *, workers: int | None, log_format: str) -> int:
    from .commands.progress import Bar, JsonLog, print_summary
    from .local.launch import LaunchError, SetUpError, run_local

    started = time.monotonic()
    console = Console(stderr=True, soft_wrap=True)
    with _explained():
        elements = list_events(job)
        require_writable(job.output_location)
        prepare_outputs(job)
        _fetch_models(job, log_format)
    workers = min(workers or available_cores(), len(elements))
    state = None
    try:
        if log_format == "json":
            state = run_local(job, elements, workers=workers, show=JsonLog())
        else:
            with Bar(console) as bar:
                state = run_local(job, elements, workers=workers, show=bar)
    except KeyboardInterrupt:
        console.print("interrupted; run it again to go on where it stopped")
        return INTERRUPTED
    except SetUpError as error:
        print(f"error: {error}", file=sys.stderr)
        return USAGE_ERROR
    except (LaunchError, OSError) as error:
        console.print("[bold red]the job could not go on[/]: run it again to go on")
        console.print(Text(str(error)))
        return USAGE_ERROR
    if log_format == "text":
        print_summary(
            console, state, wall_s=time.monotonic() - started, location=job.output_location
        )
    return 1 if state.failures else 0


def _run_stream(job: JobConfig, *, workers: int, log_format: str) -> int:
    from .commands.progress import JsonLog, StreamLines, print_stream_summary
    from .local.launch import LaunchError, SetUpError
    from .stream.streaming import run_stream

    console = Console(stderr=True, soft_wrap=True)
    show = JsonLog() if log_format == "json" else StreamLines(console)
    try:
        with _explained():
            require_writable(job.output_location)
            prepare_outputs(job)
            _fetch_models(job, log_format)
            totals = run_stream(job, workers=workers, show=show)
    except SetUpError as error:
        print(f"error: {error}", file=sys.stderr)
        return USAGE_ERROR
    except LaunchError as error:
        console.print("[bold red]the stream could not go on[/]: run it again to go on")
        console.print(Text(str(error)))
        return USAGE_ERROR
    if log_format == "text":
        print_stream_summary(console, totals, location=job.output_location)
    return 1 if totals.failed else 0


def _fetch_models(job: JobConfig, log_format: str) -> None:
    """Have the models that a job on this machine needs, before it begins."""
    if job.separation.is_nn_filter:
        return
    if log_format == "text":
        for name in missing(job.separation.separators):
            print(f"fetching {name}", file=sys.stderr)
    with shown_progress(log_format) as on_progress:
        fetch(job.separation.separators, on_progress)


def _require_output(job: JobConfig) -> None:
    if not job.job_config.data.outputs:
        raise JobFileError("job_config.data.outputs: name the folder of the results")


def _run_on_dataflow(job: JobConfig, *, dry_run: bool, log_format: str) -> int:
    from .services.dataflow import describe, submit, summary
    from .services.dataflow_jobs import DataflowError

    try:
        with _explained():
            if dry_run:
                description = describe(job)
            else:
                submission = submit(job)
    except DataflowError as error:
        print(f"error: {error}", file=sys.stderr)
        return USAGE_ERROR
    if dry_run and log_format == "json":
        print(json.dumps(description.job))
        return 0
    if dry_run:
        print("\n".join(f"{name:<12}{value}" for name, value in summary(job, description)))
        return 0
    shown = {"job_id": submission.job_id, "url": submission.url}
    if submission.job_id is None:
        shown = {"template": job.pipeline_options.template_location}
    text = json.dumps(shown) if log_format == "json" else "\n".join(map(str, shown.values()))
    print(text, flush=True)
    return _wait(job, submission.job_id, log_format) if submission.job_id else 0


def _run_portable(job: JobConfig, *, log_format: str) -> int:
    from .services.portable import PortableError, PortableJobFailedError, submitted

    try:
        with _explained(), submitted(job) as submission:
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
    except PortableError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1 if isinstance(error, PortableJobFailedError) else USAGE_ERROR
    return 0


def _told_summary(job: JobConfig, summary: dict[str, Any], log_format: str) -> int:
    """Print the content of the `run.json` of a job that ran elsewhere; gives the exit code."""
    from .commands.progress import JsonLog, print_service_summary

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


def _wait(job: JobConfig, job_id: str, log_format: str) -> int:
    """Wait as the job file says: until the job runs, until it is over, or not at all."""
    from .services.dataflow import wait_for_results
    from .services.dataflow_jobs import DataflowError, DataflowJobs

    try:
        if job.job_config.blocking:
            return _told_summary(job, wait_for_results(job, job_id), log_format)
        if job.job_config.wait_for_pipeline_running:
            DataflowJobs(job.pipeline_options).wait_until_running(job_id)
    except (DataflowError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("no longer waiting; the job goes on without", file=sys.stderr)
        return INTERRUPTED
    return 0


def _load(path: str, overrides: list[str] | None, templates: list[str] | None) -> JobConfig:
    with _explained():
        values = dict(_pair(each, "--template") for each in templates or ())
        return load_job(path, overrides=overrides or (), templates=values)


class _explained:
    """Mistakes in the call end it with their message, and no stack trace."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: Any, error: BaseException | None, _trace: Any) -> None:
        if isinstance(error, JobFileError | InputError | ModelError | OSError):
            print(f"error: {error}", file=sys.stderr)
            raise typer.Exit(USAGE_ERROR) from error


def _options_of(pairs: Iterable[str]) -> dict[str, Any]:
    with _explained():
        try:
            return {
                name: yaml.safe_load(value)
                for name, value in (_pair(each, "--option") for each in pairs)
            }
        except yaml.YAMLError as error:
            raise JobFileError(f"--option: the value is no YAML: {error}") from error


def _pair(text: str, flag: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator:
        raise JobFileError(f"{flag} {text}: write it as NAME=value")
    return name, value


def main() -> None:
    """Entry point of the command."""
    for stream in (sys.stdout, sys.stderr):
        # Names of files may hold what the terminal's encoding does not.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    app()


if __name__ == "__main__":
    main()
