"""The program that Dataflow's launcher runs for a flex template: submits the job of a job file.

Its parameters are described in flex_template.json; docs/dataflow.md says how to use it.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from apache_beam.options.pipeline_options import PipelineOptions

from ..errors import BeamsplitterError
from .job.job_config import JobConfig, JobFileError, PipelineSettings, load_job, parse_job
from .services.dataflow import submit

# Options that a job file, as Klio's, calls otherwise than Beam does.
NAMES_IN_JOB_FILES = {"machine_type": "worker_machine_type", "disk_type": "worker_disk_type"}
SEMICOLON = "\0"


def argument_parser() -> argparse.ArgumentParser:
    """The template's own parameters; all others are pipeline options of Beam."""
    parser = argparse.ArgumentParser(
        prog="flex_template", description=__doc__, allow_abbrev=False, add_help=False
    )
    parser.add_argument("--job_file", required=True)
    parser.add_argument("--overrides", default="")
    parser.add_argument("--templates", default="")
    return parser


def job_of(arguments: Sequence[str]) -> JobConfig:
    """The job that the launcher's arguments ask for.

    The pipeline options among them win over those of the file; lists, such as labels and
    experiments, are joined.

    Raises
    ------
    JobFileError
        the file or an argument is wrong
    """
    own, rest = argument_parser().parse_known_args(arguments)
    job = load_job(
        own.job_file, overrides=split_pairs(own.overrides), templates=_templates(own.templates)
    )
    given = _pipeline_options(rest)
    name = given.pop("job_name", job.job_name)
    options = _joined(job.pipeline_options, given)
    plain = {**job.model_dump(mode="json"), "job_name": name, "pipeline_options": options}
    return parse_job(plain, source=own.job_file)


def split_pairs(text: str) -> list[str]:
    """The pairs of a parameter, one a line or with `;` between; `;;` stands for a semicolon."""
    separated = text.replace(";;", SEMICOLON).replace(";", "\n")
    pairs = (line.strip().replace(SEMICOLON, ";") for line in separated.splitlines())
    return [pair for pair in pairs if pair]


def main(arguments: Sequence[str] | None = None) -> int:
    """Submit the job, or write it where `--template_location` says; gives the exit code."""
    try:
        job = job_of(sys.argv[1:] if arguments is None else arguments)
        if job.pipeline_options.runner != "DataflowRunner":
            raise JobFileError("pipeline_options.runner: a flex template runs on Dataflow")
        job.resolve()
        submission = submit(job)
    except (BeamsplitterError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(submission.url or job.pipeline_options.template_location)
    return 0


def _templates(text: str) -> dict[str, str]:
    pairs = split_pairs(text)
    for pair in pairs:
        if "=" not in pair:
            raise JobFileError(f"--templates: {pair}: write it as NAME=value")
    return dict(pair.split("=", 1) for pair in pairs)


def _pipeline_options(arguments: Sequence[str]) -> dict[str, Any]:
    """The pipeline options among some arguments, as job files call them."""
    try:
        options = PipelineOptions(list(arguments)).get_all_options(
            drop_default=True, retain_unknown_options=True
        )
    except SystemExit as error:
        raise JobFileError("a pipeline option among the arguments is wrong") from error
    return {NAMES_IN_JOB_FILES.get(name, name): value for name, value in options.items()}


def _joined(settings: PipelineSettings, given: dict[str, Any]) -> dict[str, Any]:
    options = settings.model_dump(mode="json", exclude_none=True)
    for name, value in given.items():
        if isinstance(value, list):
            value = list(dict.fromkeys([*options.get(name, ()), *value]))
        options[name] = value
    return options


if __name__ == "__main__":
    sys.exit(main())
