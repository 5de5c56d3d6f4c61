"""The command `beamsplitter`."""

import glob
import io
import json
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.text import Text

from ..audio.extensions import AUDIO_EXTENSIONS
from ..transforms.storage import GCS_SCHEME
from .events import InputError, list_events
from .job_config import JobConfig, JobFileError, load_job, parse_job

if TYPE_CHECKING:
    from .dataflow import Submission

app = typer.Typer(
    name="beamsplitter",
    help="Split recordings into stems and draw their spectrograms.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
USAGE_ERROR = 2
INTERRUPTED = 130

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
        Literal["flac", "wav", "ogg", "mp3"], typer.Option(help="File format of the stems.")
    ] = "flac",
    bit_depth: Annotated[
        Literal["source", "16", "24", "32", "32f"],
        typer.Option(help="flac: source, 16, 24; wav: also 32 and 32f (float)."),
    ] = "source",
    stems: Annotated[
        str | None, typer.Option(help="Stems to write, with commas between; default all.")
    ] = None,
    plots: Annotated[bool, typer.Option("--plots/--no-plots", help="Draw spectrograms.")] = True,
    start: Annotated[float, typer.Option(min=0, help="Begin this many seconds in.")] = 0.0,
    duration: Annotated[
        float | None, typer.Option(min=0, help="Do no more than this many seconds.")
    ] = None,
    recipe: Annotated[
        Literal["default", "librosa"],
        typer.Option(help="Numbers of the method; librosa: those of librosa's tutorial."),
    ] = "default",
    part_seconds: Annotated[
        float, typer.Option(min=10, max=3600, help="Longest part of a long recording.")
    ] = 300.0,
    log_format: LogFormat = "text",
) -> None:
    """Split recordings into stems and draw their spectrograms.

    Results lie in OUT/<path of the recording>/. What is finished there is left alone, so a run
    that was stopped goes on where it was. Exit code: 0 if every recording came out, 1 if some
    failed (OUT/failures.jsonl says why), 2 for a mistake in the call.
    """
    plain = {
        "job_name": "separate",
        "pipeline_options": {"runner": "DirectRunner", "streaming": False},
        "job_config": {
            "events": {"inputs": [_event_input(each) for each in inputs]},
            "data": {"outputs": [{"type": "file", "location": output, "force": force}]},
        },
        "separation": {
            "recipe": recipe,
            "part_seconds": part_seconds,
            "start_s": start,
            "duration_s": duration,
        },
        "stems": {
            "format": format,
            "bit_depth": bit_depth,
            "select": [name.strip() for name in stems.split(",")] if stems else None,
        },
        "plots": {"enabled": plots},
    }
    with _explained():
        job = parse_job(plain, source="separate")
    _run(job, workers=workers, dry_run=dry_run, log_format=log_format)


@app.command()
def run(
    job_file: Annotated[str, typer.Argument(metavar="JOB.yaml", help="A job file.")],
    override: Annotated[
        list[str] | None,
        typer.Option("--override", "-O", help="dotted.path=value: change a value of the file."),
    ] = None,
    template: Annotated[
        list[str] | None,
        typer.Option("--template", "-T", help="NAME=value: for ${NAME} in the file."),
    ] = None,
    workers: Workers = None,
    force: Force = False,
    dry_run: DryRun = False,
    log_format: LogFormat = "text",
) -> None:
    """Run a job file. Exit codes as for `separate`."""
    with _explained():
        templates = dict(_pair(each) for each in template or ())
        overrides = list(override or ())
        if force:
            overrides.append("job_config.data.outputs.0.force=true")
        job = load_job(job_file, overrides=overrides, templates=templates)
    _run(
        job,
        workers=workers or job.pipeline_options.direct_num_workers,
        dry_run=dry_run,
        log_format=log_format,
    )


@app.command()
def demo(
    output: Annotated[str, typer.Option("--output", "-o", help="Folder of the results.")] = "out",
    log_format: LogFormat = "text",
) -> None:
    """Synthesise a short song, split it, and print how near the stems come to the true ones."""
    from .demo import print_scores, write_song

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
    if job.pipeline_options.runner == "DataflowRunner":
        raise typer.Exit(_run_on_dataflow(job, dry_run=dry_run, log_format=log_format))
    if dry_run:
        from .dry_run import print_plan

        with _explained():
            raise typer.Exit(print_plan(job, list_events(job), log_format=log_format))
    raise typer.Exit(_run_job(job, workers=workers, log_format=log_format))


def _run_job(job: JobConfig, *, workers: int | None, log_format: str) -> int:
    from .launch import LaunchError, require_writable, run_local
    from .progress import Bar, JsonLog, print_summary

    started = time.monotonic()
    console = Console(stderr=True, soft_wrap=True)
    with _explained():
        if not job.job_config.data.outputs:
            raise JobFileError("job_config.data.outputs: name the folder of the results")
        events = list_events(job)
        require_writable(job.output_location)
    workers = min(workers or _cores(), len(events.elements))
    state = None
    try:
        if log_format == "json":
            state = run_local(job, events, workers=workers, show=JsonLog())
        else:
            with Bar(console) as bar:
                state = run_local(job, events, workers=workers, show=bar)
    except KeyboardInterrupt:
        console.print("interrupted; run it again to go on where it stopped")
        return INTERRUPTED
    except (LaunchError, OSError) as error:
        console.print("[bold red]the job could not go on[/]: run it again to go on")
        console.print(Text(str(error)))
        return USAGE_ERROR
    if log_format == "text":
        print_summary(
            console, state, wall_s=time.monotonic() - started, location=job.output_location
        )
    return 1 if state.failures else 0


def _run_on_dataflow(job: JobConfig, *, dry_run: bool, log_format: str) -> int:
    from .dataflow import SubmissionError, describe, submit, summary

    try:
        with _explained():
            if dry_run:
                description = describe(job)
            else:
                submission = submit(job)
    except SubmissionError as error:
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
    return _wait(submission) if submission.job_id and job.job_config.blocking else 0


def _wait(submission: "Submission") -> int:
    from .dataflow import SubmissionError

    try:
        submission.wait()
    except SubmissionError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("no longer waiting; the job goes on without", file=sys.stderr)
        return INTERRUPTED
    return 0


class _explained:
    """Mistakes in the call end it with their message, and no stack trace."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: Any, error: BaseException | None, _trace: Any) -> None:
        if isinstance(error, JobFileError | InputError | OSError):
            print(f"error: {error}", file=sys.stderr)
            raise typer.Exit(USAGE_ERROR) from error


def _event_input(path: str) -> dict[str, str]:
    if path.startswith(GCS_SCHEME):
        recording = os.path.splitext(path)[1].lower() in AUDIO_EXTENSIONS
        magic = glob.has_magic(path)
        kind = "glob" if magic else "recording" if recording else "folder"
        return {"type": kind, "location": path}
    path = os.path.expanduser(path)
    if os.path.isdir(path):
        return {"type": "folder", "location": path}
    if not os.path.lexists(path) and glob.has_magic(path):
        return {"type": "glob", "location": path}
    return {"type": "recording", "location": path}


def _pair(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator:
        raise JobFileError(f"--template {text}: write it as NAME=value")
    return name, value


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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
