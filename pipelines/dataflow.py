"""Jobs on Google Cloud Dataflow: checked and described without a cloud, or submitted."""

import contextlib
import io
import json
import logging
import os
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apache_beam as beam
import google.auth
from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.portability.common_urns import resource_hints
from google.api_core.exceptions import GoogleAPIError
from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError
from google.auth.transport.requests import Request

from ..transforms.file_facts import GCS_SCHEME, HOW_TO_SIGN_IN
from .events import EventList, list_events
from .job_config import FileEvents, JobConfig, JobFileError, PipelineSettings
from .run import build

JOB_NAME = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
CLOUD_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
DATAFLOW_ENDPOINT = "https://dataflow.googleapis.com"
# Beam takes local folders for buckets, and needs no credentials, where the endpoint is localhost.
OFFLINE_ENDPOINT = "http://localhost:1"
NO_IMAGE = (
    "name a container image that holds beamsplitter and its dependencies (docs/dataflow.md says "
    "how to build one), or a setup_file that the workers install it from"
)


class SubmissionError(RuntimeError):
    """Dataflow, the storage or the credentials do not let a job be submitted, or it failed."""


@dataclass(frozen=True)
class JobDescription:
    """What is sent to Dataflow: the job, as its JSON, and the graph that the job refers to."""

    job: dict[str, Any]
    pipeline: beam_runner_api_pb2.Pipeline

    @property
    def steps(self) -> tuple[str, ...]:
        """Full names of the innermost steps, in order of name."""
        transforms = self.pipeline.components.transforms.values()
        return tuple(sorted(each.unique_name for each in transforms if not each.subtransforms))

    @property
    def accelerators(self) -> dict[str, str]:
        """The accelerator of each innermost step that asks for one."""
        components = self.pipeline.components
        found = {}
        for each in components.transforms.values():
            hints = components.environments[each.environment_id].resource_hints
            accelerator = hints.get(resource_hints.ACCELERATOR.urn)
            if accelerator and not each.subtransforms:
                found[each.unique_name] = accelerator.decode()
        return found


@dataclass(frozen=True)
class Submission:
    """A submitted job. `job_id` and `url` are None where a template was written instead."""

    job_id: str | None
    url: str | None
    result: Any

    def wait(self) -> None:
        """Wait until the job is over.

        Raises
        ------
        SubmissionError : the job failed or was cancelled
        """
        with _explained_by_dataflow():
            self.result.wait_until_finish()


def dataflow_options(job: JobConfig) -> PipelineOptions:
    """Beam's options of a job on Dataflow.

    Raises
    ------
    JobFileError : what Dataflow needs is missing, or an option has a value that Beam refuses
    """
    return _parse_options(_plain_options(job))


def build_dataflow_job(
    job: JobConfig, options: PipelineOptions, events: EventList
) -> beam.Pipeline:
    """The graph of a job, ready to be run.

    Parameters
    ----------
    options : those of `dataflow_options`, or changed ones
    events : the recordings; those of `unlisted_events` give the same graph

    Raises
    ------
    JobFileError : Beam finds the options wrong
    """
    try:
        pipeline = beam.Pipeline(options=options)
    except ValueError as error:
        complaints = [line.strip() for line in str(error).splitlines()[1:] if line.strip()]
        raise JobFileError(f"pipeline_options: {' '.join(complaints) or error}") from error
    build(pipeline, job, events)
    return pipeline


def unlisted_events(job: JobConfig) -> EventList:
    """A job's events as they are before its bucket is listed, to describe the job with."""
    first = job.job_config.events.inputs[0]
    if isinstance(first, FileEvents):
        data = job.job_config.data.inputs[0]
        return EventList(location=data.location, suffix=data.file_suffix, elements=())
    return EventList(location=first.location, suffix="", elements=())


def describe(job: JobConfig) -> JobDescription:
    """What `submit` would send, built without network and credentials.

    Raises
    ------
    JobFileError : see `dataflow_options`
    SubmissionError : a file that the job brings along can't be packed
    """
    plain = _plain_options(job)
    with tempfile.TemporaryDirectory() as folder:
        temp, template = os.path.join(folder, "temp"), os.path.join(folder, "job")
        for each in (temp, template):
            os.mkdir(each)  # Beam would try for minutes to write into a folder that is not there
        changes = {
            "temp_location": temp,
            "staging_location": temp,
            "template_location": os.path.join(template, "job.json"),
            "dataflow_endpoint": OFFLINE_ENDPOINT,
            "no_auth": True,
        }
        if "requirements_file" in plain:
            changes["requirements_cache"] = "skip"
        with _explained_by_dataflow():
            options = _parse_options({**plain, **changes})
            build_dataflow_job(job, options, unlisted_events(job)).run()
        pipeline = Path(temp, "pipeline.pb").read_bytes()
        text = Path(template, "job.json").read_text("utf-8")
    # The description is to show the job's own places, not those that it was built with.
    text = text.replace(temp, (plain.get("staging_location") or plain["temp_location"]).rstrip("/"))
    text = text.replace(OFFLINE_ENDPOINT, plain.get("dataflow_endpoint", DATAFLOW_ENDPOINT))
    description = json.loads(text)
    _restore_options(description, _parse_options(plain), set(changes))
    return JobDescription(description, beam_runner_api_pb2.Pipeline.FromString(pipeline))


def summary(job: JobConfig, description: JobDescription) -> list[tuple[str, str]]:
    """A described job for people: what, and its value."""
    settings = job.pipeline_options
    environment = description.job["environment"]
    pool = environment["workerPools"][0]
    data = job.job_config.data
    streaming = description.job["type"] == "JOB_TYPE_STREAMING"
    lines = [
        ("job", f"{job.job_name}, {'streaming' if streaming else 'batch'}"),
        ("project", f"{settings.project}, region {settings.region or 'as set for gcloud'}"),
        ("image", settings.sdk_container_image or f"Beam's, and {settings.setup_file}"),
        ("machine", _machine(pool)),
        ("workers", _workers(settings)),
        ("accelerator", _accelerator(description)),
        ("experiments", ", ".join(environment.get("experiments", ()))),
        ("labels", _pairs(description.job.get("labels", {}))),
        ("steps", f"{len(description.steps)}"),
        ("events", ", ".join(each.location for each in job.job_config.events.inputs)),
        ("recordings", ", ".join(each.location for each in data.inputs)),
        ("results", ", ".join(each.location for each in data.outputs)),
        ("temporary", settings.temp_location or ""),
    ]
    return [(name, value) for name, value in lines if value]


def submit(job: JobConfig) -> Submission:
    """Submit a job to Dataflow; does not wait for it.

    Raises
    ------
    JobFileError : see `dataflow_options`
    InputError : the bucket holds no recordings
    SubmissionError : no credentials, or Dataflow or the storage refuses
    """
    options = dataflow_options(job)
    if not job.pipeline_options.no_auth:
        require_credentials()
    with _explained_by_dataflow():
        result = build_dataflow_job(job, options, list_events(job)).run()
    if not result.has_job:
        return Submission(None, None, result)
    cloud = options.view_as(GoogleCloudOptions)
    url = (
        f"https://console.cloud.google.com/dataflow/jobs/{cloud.region}/{result.job_id()}"
        f"?project={cloud.project}"
    )
    return Submission(result.job_id(), url, result)


def require_credentials() -> None:
    """Ask for Google credentials now: Beam would go on without, and fail minutes later.

    Raises
    ------
    SubmissionError : there are none, or they are no longer good
    """
    # What it warns of is what the error says.
    logging.getLogger("google.auth").setLevel(logging.ERROR)
    try:
        credentials, _ = google.auth.default(scopes=[CLOUD_SCOPE])
        if not credentials.valid:
            credentials.refresh(Request())
    except DefaultCredentialsError as error:
        raise SubmissionError(f"no Google credentials: {HOW_TO_SIGN_IN}") from error
    except GoogleAuthError as error:
        raise SubmissionError(
            f"the Google credentials are refused: {_first_line(error)}: run `gcloud auth "
            "application-default login` again"
        ) from error


def _plain_options(job: JobConfig) -> dict[str, Any]:
    problems = [*_problems_of_places(job), *_problems_of_options(job)]
    if problems:
        raise JobFileError("\n".join(problems))
    plain = {**job.pipeline_options.beam_options(), "job_name": job.job_name}
    if job.pipeline_options.sdk_container_image:
        # The image holds Beam already: without this, each worker is sent another one.
        plain.setdefault("sdk_location", "container")
    return plain


def _problems_of_places(job: JobConfig) -> Iterator[str]:
    events, data = job.job_config.events, job.job_config.data
    places = {
        f"job_config.{name}.{index}.location": each.location
        for name, group in (
            ("events.inputs", events.inputs),
            ("data.inputs", data.inputs),
            ("data.outputs", data.outputs),
        )
        for index, each in enumerate(group)
    }
    settings = job.pipeline_options
    for name in ("temp_location", "staging_location"):
        if getattr(settings, name):
            places[f"pipeline_options.{name}"] = getattr(settings, name)
    for key, location in places.items():
        if not location.startswith(GCS_SCHEME):
            yield f"{key}: {location}: the workers on Dataflow reach gs:// only"
    if not events.inputs:
        yield "job_config.events.inputs: name the folder of the recordings on gs://"
    if any(isinstance(each, FileEvents) for each in events.inputs) and not data.inputs:
        yield "job_config.data.inputs: name the folder that the events of type file lie below"
    if not data.outputs:
        yield "job_config.data.outputs: name the folder of the results on gs://"
    if not settings.temp_location:
        yield "pipeline_options.temp_location: name a folder on gs:// for Dataflow's own files"


def _problems_of_options(job: JobConfig) -> Iterator[str]:
    settings = job.pipeline_options
    if not JOB_NAME.fullmatch(job.job_name):
        yield (
            f"job_name: {job.job_name}: on Dataflow lower-case letters, digits and hyphens, "
            "beginning with a letter and not ending with a hyphen, at most 63"
        )
    if not settings.project:
        yield "pipeline_options.project: name the Google Cloud project"
    if not settings.sdk_container_image and not settings.setup_file:
        yield f"pipeline_options.sdk_container_image: {NO_IMAGE}"
    for name in ("setup_file", "requirements_file"):
        path = getattr(settings, name)
        if path and not os.path.isfile(path):
            yield f"pipeline_options.{name}: {path}: no such file"
    if settings.accelerator and settings.flexrs_goal:
        yield "pipeline_options.flexrs_goal: Dataflow has no accelerators in FlexRS: leave one out"
    services = settings.dataflow_service_options or ()
    if settings.accelerator and any(each.startswith("worker_accelerator") for each in services):
        yield (
            "pipeline_options.accelerator: dataflow_service_options names a worker_accelerator "
            "for all steps; Dataflow takes one or the other"
        )


def _parse_options(plain: dict[str, Any]) -> PipelineOptions:
    options = PipelineOptions.from_dictionary(plain)
    with contextlib.redirect_stderr(io.StringIO()) as complaint:
        try:
            options.get_all_options()
        except SystemExit as error:
            message = complaint.getvalue().rpartition(" error: ")[2].strip()
            raise JobFileError(f"pipeline_options: {message}") from error
    return options


def _restore_options(
    description: dict[str, Any], options: PipelineOptions, changed: set[str]
) -> None:
    shown = description["environment"]["sdkPipelineOptions"]
    real = options.get_all_options()
    shown["options"].update({name: real[name] for name in changed})
    shown["display_data"] = [
        each for each in shown["display_data"] if each["key"] not in changed or real[each["key"]]
    ]
    description["environment"]["tempStoragePrefix"] = real["temp_location"]


@contextlib.contextmanager
def _explained_by_dataflow() -> Iterator[None]:
    try:
        yield
    except (GoogleAPIError, GoogleAuthError, RuntimeError, OSError) as error:
        raise SubmissionError(_first_line(error)) from error


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _machine(pool: dict[str, Any]) -> str:
    disk = [f"{pool['diskSizeGb']} GB"] if "diskSizeGb" in pool else []
    disk += [pool["diskType"]] if "diskType" in pool else []
    machine = pool.get("machineType", "Dataflow's default")
    return f"{machine}, disk {' '.join(disk)}" if disk else machine


def _workers(settings: PipelineSettings) -> str:
    first = settings.num_workers or "Dataflow's default"
    most = f", at most {settings.max_num_workers}" if settings.max_num_workers else ""
    fixed = settings.autoscaling_algorithm == "NONE"
    return f"{first}{most}, {'fixed' if fixed else 'autoscaled'}"


def _accelerator(description: JobDescription) -> str:
    found = description.accelerators
    groups = sorted({step.partition("/")[0] for step in found})
    hints = ", ".join(sorted(set(found.values())))
    return f"{hints} on {', '.join(groups)} ({len(found)} steps)" if found else ""


def _pairs(labels: dict[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in labels.items())
