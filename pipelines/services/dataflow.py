"""Jobs on Google Cloud Dataflow: checked and described without a cloud, or submitted."""

import contextlib
import json
import os
import re
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.portability.common_urns import resource_hints

from ...storage import StorageError, UnusableStorageError
from ...storage.file_facts import GCS_SCHEME
from ..events.elements import require_events
from ..events.outputs import prepare_outputs
from ..job.event_config import FolderEvents, GlobEvents, RecordingEvents
from ..job.job_config import DISK_TYPES, JobConfig, JobFileError, PipelineSettings
from ..job.resources import places_of
from .dataflow_jobs import DataflowJobs, explained
from .submission import build_for_service, parse_options, write_summary

JOB_NAME = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
DATAFLOW_ENDPOINT = "https://dataflow.googleapis.com"
# Beam takes local folders for buckets, and needs no credentials, where the endpoint is localhost.
OFFLINE_ENDPOINT = "http://localhost:1"
NO_IMAGE = (
    "name a container image that holds beamsplitter and its dependencies (docs/dataflow.md says "
    "how to build one), or a setup_file that the workers install it from"
)


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

    job_id: str | None = None
    url: str | None = None


def dataflow_options(job: JobConfig) -> PipelineOptions:
    """Beam's options of a job on Dataflow.

    Raises
    ------
    JobFileError
        what Dataflow needs is missing, or an option has a value that Beam refuses
    """
    return parse_options(_plain_options(job))


def describe(job: JobConfig) -> JobDescription:
    """What `submit` would send, built without network and credentials.

    Raises
    ------
    JobFileError
        see `dataflow_options`
    DataflowError
        a file that the job brings along can't be packed
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
        if plain.get("update"):
            changes["update"] = False  # Beam would ask Dataflow for the running job
        with explained():
            options = parse_options({**plain, **changes})
            build_for_service(job, options).run()
        pipeline = Path(temp, "pipeline.pb").read_bytes()
        text = Path(template, "job.json").read_text("utf-8")
    # The description is to show the job's own places, not those that it was built with.
    text = text.replace(temp, (plain.get("staging_location") or plain["temp_location"]).rstrip("/"))
    text = text.replace(OFFLINE_ENDPOINT, plain.get("dataflow_endpoint", DATAFLOW_ENDPOINT))
    description = json.loads(text)
    _restore_options(description, parse_options(plain), set(changes))
    if plain.get("update"):
        description["transformNameMapping"] = plain.get("transform_name_mapping") or {}
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
        ("updates", _update(settings)),
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
    JobFileError
        see `dataflow_options`
    InputError
        an event input or output is not there, or a folder holds no recordings
    StorageError
        one may not be used
    DataflowError
        no credentials, Dataflow or the storage refuses, or there is no job to update
    """
    options = dataflow_options(job)
    jobs = DataflowJobs(job.pipeline_options)
    if job.pipeline_options.update:
        # Beam would look for the job without end.
        jobs.require_updatable(job.job_name)
    require_events(job)
    prepare_outputs(job)
    # Nobody clears up behind a job that was killed. Who may not, can submit all the same.
    with contextlib.suppress(StorageError, UnusableStorageError):
        job.output_tree.clear_left_scratch()
    with explained():
        result = build_for_service(job, options).run()
    if not result.has_job:
        return Submission()
    return Submission(result.job_id(), jobs.url(result.job_id()))


def wait_for_results(job: JobConfig, job_id: str) -> dict[str, Any]:
    """Wait until a job is over, and write its `run.json`; gives the content.

    Raises
    ------
    JobFailedError
        it failed or was cancelled
    DataflowError
        Dataflow can't be asked
    StorageError
        `run.json` can't be written
    """
    jobs = DataflowJobs(job.pipeline_options)
    started = time.monotonic()
    jobs.wait(job_id)
    return write_summary(job, jobs.metrics(job_id), wall_s=time.monotonic() - started)


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
    for place in places_of(job):
        if not place.location.startswith(GCS_SCHEME):
            yield f"{place.key}: {place.location}: the workers on Dataflow reach gs:// only"
    events, data = job.job_config.events, job.job_config.data
    if not events.inputs:
        yield "job_config.events.inputs: name the folder of the recordings on gs://"
    for each in () if data.inputs else events.inputs:
        if not isinstance(each, FolderEvents | GlobEvents | RecordingEvents):
            yield (
                f"job_config.data.inputs: name the folder that the events of type {each.type} lie "
                "below"
            )
    if not data.outputs:
        yield "job_config.data.outputs: name the folder of the results on gs://"
    if not job.pipeline_options.temp_location:
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
    if settings.worker_disk_type in DISK_TYPES and not settings.workers_region:
        yield (
            "pipeline_options.region: name it, or worker_zone: what Dataflow calls "
            f"{settings.worker_disk_type} says where the workers are"
        )
    if not settings.sdk_container_image and not settings.setup_file:
        yield f"pipeline_options.sdk_container_image: {NO_IMAGE}"
    for name in ("setup_file", "requirements_file"):
        path = getattr(settings, name)
        if path and not os.path.isfile(path):
            yield f"pipeline_options.{name}: {path}: no such file"
    if settings.update and not settings.streaming:
        yield "pipeline_options.update: only a stream is updated; a batch job is run again"
    if settings.accelerator and settings.flexrs_goal:
        yield "pipeline_options.flexrs_goal: Dataflow has no accelerators in FlexRS: leave one out"
    services = settings.dataflow_service_options or ()
    if settings.accelerator and any(each.startswith("worker_accelerator") for each in services):
        yield (
            "pipeline_options.accelerator: dataflow_service_options names a worker_accelerator "
            "for all steps; Dataflow takes one or the other"
        )


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


def _update(settings: PipelineSettings) -> str:
    if not settings.update:
        return ""
    renamed = _pairs(settings.transform_name_mapping or {})
    return "the running job of this name" + (f", renamed steps {renamed}" if renamed else "")


def _pairs(labels: dict[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in labels.items())
