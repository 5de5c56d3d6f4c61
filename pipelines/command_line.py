"""The command `beamsplitter`."""

import functools
import importlib.metadata
import io
import json
import signal
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from ..audio.features.settings import KINDS
from ..audio.stem_format import Container
from ..models.feature_sets.arrays import RecordingFormat, ShardFormat
from ..storage import Access, OutputTree, Storage, absolute
from .commands import one_file
from .commands.dataset_command import dataset_app
from .commands.evaluate_command import evaluate
from .commands.export_command import export
from .commands.models_command import models_app
from .commands.option_values import options_of, pair_of
from .commands.prepare_command import prepare
from .commands.report_command import report
from .commands.running import INTERRUPTED, require_output, run_batch, run_job
from .commands.told_errors import Commands
from .commands.train_classifier_command import train_classifier
from .commands.train_command import config, train
from .events.elements import InputError
from .job.job_config import JobConfig, JobFileError, load_job
from .job.locations import expanded
from .local.preparing import require_ready
from .separate_files import split_job

app = typer.Typer(
    name="beamsplitter",
    cls=Commands,
    help="Split recordings into stems and draw their spectrograms.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
# Headings of the commands in the help text.
RECORDINGS, JOBS, MODELS = "Recordings", "Jobs", "Models and data"
USAGE_ERROR = 2
# What the options of `separate` fill of a job, as messages call it.
FLAGS = {
    "job_config.events.inputs": "INPUT",
    "job_config.data.outputs.0.location": "--output",
    "job_config.data.inputs.0.location": "--root",
    "separation": "--separator, --option",
    "separation.separator": "--separator",
    "separation.options": "--option",
    "separation.recipe": "--recipe",
    "separation.device": "--device",
    "separation.part_seconds": "--part-seconds",
    "separation.start_s": "--start",
    "separation.duration_s": "--duration",
    "stems": "--format",
    "stems.select": "--stems",
    "stems.format": "--format",
    "stems.bit_depth": "--bit-depth",
    "stems.file_name": "--file-name",
    "stems.bit_rate_kbps": "--bit-rate",
    "stems.quality": "--quality",
    "stems.sample_rate": "--sample-rate",
    "stems.peaks": "--peaks",
    "stems.two_stems": "--two-stems",
    "scores.references": "--references",
}
FLAGS_OF_SPECTROGRAMS = {
    **FLAGS,
    "features.sets": "--kind, --option",
    "features.of": "--of",
    "features.excerpts": "--take",
    "features.excerpts.start_s": "--start",
    "features.excerpts.duration_s": "--duration",
    "features.excerpts.hop_s": "--hop",
    "features.format": "--format",
    "features.shards": "--shards",
    "features.plots": "--plots",
}
FLAGS_OF_LABEL = {**FLAGS, "labels": "--model, --option", "labels.model": "--model"}

Inputs = Annotated[
    list[str],
    typer.Argument(metavar="INPUT", help="Files, folders (walked recursively) and glob patterns."),
]
Root = Annotated[
    str | None,
    typer.Option(
        help="Call recordings by their paths below this folder; default: below the INPUT that "
        "names them."
    ),
]
Device = Annotated[str, typer.Option(help="For models: auto, cpu, cuda, cuda:N, mps.")]
Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--override",
        "-O",
        help="dotted.path=value: anything else that a job file can say, as plots.range_db=60.",
    ),
]
Workers = Annotated[
    int | None, typer.Option(min=1, help="Worker processes; default one for each core.")
]
LogFormat = Annotated[
    Literal["text", "json"], typer.Option(help="json: one object a line for each event.")
]
Page = Annotated[
    bool,
    typer.Option("--report/--no-report", help="Make a page to look and listen: OUT/index.html."),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="List what would be done, skipped and refused.")
]
Force = Annotated[bool, typer.Option("--force", help="Do finished recordings again.")]
Replace = Annotated[
    bool, typer.Option("--replace", help="Replace results that other settings have made.")
]
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


@app.command(rich_help_panel=RECORDINGS)
def separate(
    inputs: Inputs,
    output: Annotated[
        str, typer.Option("--output", "-o", help="Folder of the results, or one file.")
    ],
    workers: Workers = None,
    force: Force = False,
    replace: Replace = False,
    dry_run: DryRun = False,
    root: Root = None,
    format: Annotated[
        Container | None,
        typer.Option(help="File format of the stems; default flac, or as OUT is called."),
    ] = None,
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
    file_name: Annotated[
        str,
        typer.Option(help="Of stems, with {stem} and, if wished, {recording} and {separator}."),
    ] = "{stem}",
    plots: Annotated[bool, typer.Option("--plots/--no-plots", help="Draw spectrograms.")] = True,
    references: Annotated[
        str | None,
        typer.Option(
            metavar="WHERE",
            help="Score the stems against true ones, which lie there: a folder or .stem.mp4, with "
            "{folder}, that of the recording, {recording}, its path without extension, or {file}.",
        ),
    ] = None,
    page: Page = True,
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
    device: Device = "auto",
    part_seconds: Annotated[
        float, typer.Option(min=10, max=3600, help="Longest part of a long recording.")
    ] = 300.0,
    override: Changes = None,
    log_format: LogFormat = "text",
) -> None:
    """Split recordings into stems and draw their spectrograms.

    Results lie in `OUT/PATH_OF_THE_RECORDING/`. What is finished there is left alone, so a run
    that was stopped goes on where it was. Where OUT is called as a sound file, that one file is
    written, of one recording and one stem. Exit code: 0 if every recording came out, 1 if some
    failed (OUT/failures.jsonl says why), 2 for a mistake in the call.
    """
    is_one_file = one_file.is_one_file(output)
    stem_format: str = format or "flac"
    if is_one_file:
        plots, page, stem_format = False, False, one_file.format_of(output, format)
        if references is not None:
            raise InputError("--references: scores lie beside stems: let --output be a folder")
    job_into = functools.partial(
        split_job,
        inputs,
        force=force,
        replace=replace,
        root=root,
        separation={
            "separator": separator,
            "options": options_of(option or ()),
            "recipe": recipe,
            "device": device,
            "part_seconds": part_seconds,
            "start_s": start,
            "duration_s": duration,
        },
        stems={
            "format": stem_format,
            "bit_depth": bit_depth,
            "bit_rate_kbps": bit_rate,
            "quality": quality,
            "sample_rate": sample_rate,
            "peaks": peaks,
            "two_stems": two_stems,
            "file_name": file_name,
            "select": [name.strip() for name in stems.split(",")] if stems else None,
        },
        plots={"enabled": plots},
        scores={"references": references},
        report={"enabled": page},
        changes=override or (),
        flags=FLAGS,
    )
    run = functools.partial(run_job, workers=workers, dry_run=dry_run, log_format=log_format)
    if is_one_file:
        may_replace = replace or force or dry_run
        raise typer.Exit(one_file.write_one_file(job_into, output, run, replace=may_replace))
    raise typer.Exit(run(job_into(output)))


@app.command(rich_help_panel=RECORDINGS)
def spectrograms(
    inputs: Inputs,
    output: Annotated[str, typer.Option("--output", "-o", help="Folder of the results.")],
    kind: Annotated[
        list[str] | None,
        typer.Option(
            "--kind",
            "-k",
            help=f"One of {', '.join(KINDS)}; default log_mel.",
        ),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            "--option", help="NAME=value: a parameter, as n_fft=400; of all kinds that have it."
        ),
    ] = None,
    take: Annotated[
        Literal["whole", "range", "every", "chorus"],
        typer.Option(
            help="Of the whole recording, one range of it, excerpts at regular intervals, or the "
            "chorus."
        ),
    ] = "whole",
    start: Annotated[
        float, typer.Option(min=0, help="Where the range, or the first excerpt, begins: seconds.")
    ] = 0.0,
    duration: Annotated[float | None, typer.Option(min=0, help="Of an excerpt: seconds.")] = None,
    hop: Annotated[
        float | None,
        typer.Option(min=0, help="From one excerpt to the next: seconds; default: their duration."),
    ] = None,
    separator: Annotated[
        str, typer.Option(help="Separate, too, by this one; none: features of the mixture alone.")
    ] = "none",
    of: Annotated[
        str, typer.Option(help="Signals, with commas between: mixture, and stems.")
    ] = "mixture",
    format: Annotated[RecordingFormat, typer.Option(help="Of a recording's file.")] = "npz",
    shards: Annotated[
        ShardFormat | None,
        typer.Option(help="Pack the features of all recordings into shards, too."),
    ] = None,
    plots: Annotated[
        bool, typer.Option("--plots/--no-plots", help="Draw waveforms and features, too.")
    ] = False,
    device: Device = "auto",
    workers: Workers = None,
    force: Force = False,
    replace: Replace = False,
    dry_run: DryRun = False,
    root: Root = None,
    override: Changes = None,
    log_format: LogFormat = "text",
) -> None:
    """Write features of recordings: spectrograms, mel bands, MFCC, chroma and others.

    Results are `OUT/PATH_OF_THE_RECORDING/features.npz`: see docs/feature-sets.md. A run that was
    stopped goes on where it was. Exit codes as for `separate`.
    """
    from .commands.feature_options import sets_of

    job = split_job(
        inputs,
        output,
        force=force,
        replace=replace,
        root=root,
        separation={"separator": separator, "device": device},
        plots={"enabled": False},
        features={
            "sets": sets_of(kind or ["log_mel"], options_of(option or ())),
            "of": [name.strip() for name in of.split(",")],
            "excerpts": {"take": take, "start_s": start, "duration_s": duration, "hop_s": hop},
            "format": format,
            "shards": shards,
            "plots": plots,
        },
        changes=override or (),
        flags=FLAGS_OF_SPECTROGRAMS,
    )
    raise typer.Exit(run_job(job, workers=workers, dry_run=dry_run, log_format=log_format))


@app.command(rich_help_panel=RECORDINGS)
def label(
    inputs: Inputs,
    output: Annotated[str, typer.Option("--output", "-o", help="Folder of the results.")],
    model: Annotated[
        str,
        typer.Option(
            "--model", "-m", help="A model package that gives labels: folder, address or name."
        ),
    ],
    option: Annotated[
        list[str] | None, typer.Option("--option", help="NAME=value: an option of the package.")
    ] = None,
    uncertain: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Call labels of less confidence `uncertain`."),
    ] = None,
    plots: Annotated[bool, typer.Option("--plots/--no-plots", help="Draw spectrograms.")] = False,
    page: Page = True,
    device: Device = "auto",
    workers: Workers = None,
    force: Force = False,
    replace: Replace = False,
    dry_run: DryRun = False,
    root: Root = None,
    override: Changes = None,
    log_format: LogFormat = "text",
) -> None:
    """Label recordings by a model: what is when.

    Results are `OUT/PATH_OF_THE_RECORDING/labels.json`, `labels.txt`, a label track for Audacity,
    and `OUT/labels.csv`, how much of each recording has which label. A run that was stopped goes on
    where it was. Exit codes as for `separate`.
    """
    job = split_job(
        inputs,
        output,
        force=force,
        replace=replace,
        root=root,
        separation={"separator": "none", "device": device},
        plots={"enabled": plots},
        labels={"model": model, "options": options_of(option or ()), "uncertain": uncertain},
        report={"enabled": page},
        changes=override or (),
        flags=FLAGS_OF_LABEL,
    )
    raise typer.Exit(run_job(job, workers=workers, dry_run=dry_run, log_format=log_format))


@app.command(rich_help_panel=RECORDINGS)
def chorus(
    inputs: Inputs,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", help="Folder of the results; default: print them only."),
    ] = None,
    clip_s: Annotated[
        float,
        typer.Option(
            "--clip-seconds", min=5, help="Of an excerpt; sections are about as long, or longer."
        ),
    ] = 15.0,
    cut: Annotated[bool, typer.Option("--cut", help="Write the excerpts, too.")] = False,
    format: Annotated[
        Literal["flac", "wav"] | None, typer.Option(help="Of the excerpts; default flac.")
    ] = None,
    workers: Workers = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print an object for each recording, in a list.")
    ] = False,
) -> None:
    """Find the sections of songs that come again, as choruses do.

    Results are `OUT/PATH_OF_THE_RECORDING/chorus.json`, `chorus.txt`, a label track for Audacity,
    and with --cut `chorus.flac`: where the best section comes first, or if there is none, what
    follows two fifths of the song. Exit code: 0 if every recording could be read, 1 if some could
    not, 2 for a mistake in the call.
    """
    from .commands.chorus_command import find_and_print

    if cut and output is None:
        raise JobFileError("--cut: excerpts need a folder: give --output")
    if format and not cut:
        raise JobFileError("--format: is that of excerpts: give --cut")
    job = split_job(inputs, output, flags=FLAGS)
    code = find_and_print(
        job,
        clip_s=clip_s,
        cut_format=(format or "flac") if cut else None,
        workers=workers,
        as_json=as_json,
    )
    raise typer.Exit(code)


@app.command(rich_help_panel=JOBS)
def run(
    job_file: JobFile,
    override: Override = None,
    template: Template = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Worker processes; default as the file says, or one a core."),
    ] = None,
    force: Force = False,
    replace: Replace = False,
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
    if replace:
        overrides.append("job_config.data.outputs.0.replace=true")
    if update:
        overrides.append("pipeline_options.update=true")
    job = _load(job_file, overrides, template)
    if update and job.pipeline_options.runner != "DataflowRunner":
        raise JobFileError("--update: the job does not run on Dataflow")
    workers = workers or job.pipeline_options.direct_num_workers
    raise typer.Exit(run_job(job, workers=workers, dry_run=dry_run, log_format=log_format))


@app.command(rich_help_panel=JOBS)
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
    with sending.opened_elements(elements or (), from_file) as numbered:
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
    unit = "line" if from_file else "element"
    sending.print_outcome(outcome, unit=unit, log_format=log_format)
    if outcome.stopped:
        raise typer.Exit(INTERRUPTED if outcome.interrupted else USAGE_ERROR)
    raise typer.Exit(1 if outcome.failed else 0)


@app.command(rich_help_panel=JOBS)
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
    from .services.dataflow_jobs import stop_job

    job = _load(job_file, override, template)
    if drain and cancel:
        raise JobFileError("--drain and --cancel: give one of them")
    mode = "drain" if drain else "cancel" if cancel else None
    try:
        found, state = stop_job(job, mode=mode, wait=wait)
    except KeyboardInterrupt as error:
        print("no longer waiting; the job goes on stopping", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from error
    shown = {"job_name": found.name, "job_id": found.id, "state": state}
    if log_format == "json":
        print(json.dumps(shown))
    else:
        print(f"{found.name} ({found.id}): {state}")


@app.command(rich_help_panel=JOBS)
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

    job = _load(job_file, override, template)
    require_output(job)
    job.resolve()
    findings = verify_job(job, create=create)
    print_findings(findings, log_format=log_format)
    raise typer.Exit(0 if complete(findings) else 1)


@app.command(rich_help_panel=RECORDINGS)
def check(
    output: Annotated[str, typer.Argument(metavar="OUT", help="Folder of the results.")],
    repair: Annotated[
        bool,
        typer.Option("--repair", help="Make anew what is missing or changed, on this machine."),
    ] = False,
    user_project: Annotated[
        str | None,
        typer.Option(help="Project that pays for requests to a bucket whose owner doesn't."),
    ] = None,
    workers: Workers = None,
    log_format: LogFormat = "text",
) -> None:
    """Hold all results against the digests in their manifests, and shards against features.json.

    On gs:// the checksums that the service keeps are compared, of shards sizes. Exit code: 0 if
    all files are whole, in the end with --repair; 1 if some are not; 2 for a mistake in the call.
    """
    from .commands.check import (
        check_with_bar,
        print_check,
        read_tree,
        repairs,
        write_tables_of_all,
    )

    results = OutputTree(absolute(expanded(output)), Storage(Access(user_project=user_project)))
    tree = read_tree(results)
    damages = check_with_bar(tree, log_format=log_format)
    print_check(tree, damages, log_format=log_format)
    if damages and repair:
        jobs = repairs(tree, damages)
        for job in jobs:
            require_ready(job)
            run_batch(job, workers=workers, log_format=log_format)
        tree = read_tree(results)
        if jobs or any(not each.folder for each in damages):
            write_tables_of_all(tree, damages)
        damages = check_with_bar(tree, log_format=log_format)
        print_check(tree, damages, log_format=log_format)
    raise typer.Exit(1 if damages else 0)


@app.command(rich_help_panel=JOBS)
def schema(
    name: Annotated[
        Literal["job", "manifest", "run"],
        typer.Argument(
            metavar="NAME", help="job, manifest or run: of job files, manifest.json, or run.json."
        ),
    ],
) -> None:
    """Print the JSON Schema of job files, manifests, or run.json."""
    from .commands.schema import schema_of

    print(json.dumps(schema_of(name), indent=2))


@app.command("job-configs", rich_help_panel=JOBS)
def job_configs(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where to.")] = Path(
        "job-configs"
    ),
) -> None:
    """Write out the example job files, one for each way to go. What is there already stays."""
    from .commands.job_configs import write_job_configs

    for path in write_job_configs(folder.expanduser()):
        print(path)


@app.command(rich_help_panel=RECORDINGS)
def demo(
    output: Annotated[str, typer.Option("--output", "-o", help="Folder of the results.")] = "out",
    log_format: LogFormat = "text",
) -> None:
    """Synthesise a short song, split it, and print how near the stems come to the true ones."""
    from .commands.demo import print_scores, write_song

    job = split_job([write_song(output)], output, report={"enabled": True})
    require_ready(job)
    code = run_batch(job, workers=1, log_format=log_format)
    if code == 0 and log_format == "text":
        print_scores(output)
    raise typer.Exit(code)


# Auralflow's page writes options with either sign.
AURALFLOW_NAMES = {"token_normalize_func": lambda name: name.replace("_", "-")}
app.command(rich_help_panel=RECORDINGS)(report)
app.add_typer(models_app, rich_help_panel=MODELS)
app.add_typer(dataset_app, rich_help_panel=MODELS)
app.command(rich_help_panel=MODELS)(prepare)
app.command("config", context_settings=AURALFLOW_NAMES, rich_help_panel=MODELS)(config)
app.command("train", context_settings=AURALFLOW_NAMES, rich_help_panel=MODELS)(train)
app.command(rich_help_panel=MODELS)(evaluate)
app.command("train-classifier", rich_help_panel=MODELS)(train_classifier)
app.command(rich_help_panel=MODELS)(export)


def _load(path: str, overrides: list[str] | None, templates: list[str] | None) -> JobConfig:
    values = dict(pair_of(each, "--template") for each in templates or ())
    return load_job(path, overrides=overrides or (), templates=values)


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
