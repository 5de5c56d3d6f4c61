"""Job files: Klio's `klio-job.yaml` version 2, with typed sections for what Beamsplitter adds."""

import functools
import json
import logging
import os
import re
import string
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from ...audio.extensions import AUDIO_EXTENSIONS
from ...errors import BeamsplitterError
from ...models.separators.by_name import is_package
from ...models.separators.recipes import NearestNeighborRecipe, recipe_of
from ...storage import (
    GCS_SCHEME,
    Access,
    OutputTree,
    Storage,
    StorageError,
    UnusableStorageError,
    absolute,
    scheme_of,
)
from ...transforms.section import Section
from ...transforms.settings import LimitSettings, SplitSettings, StorageSettings
from ...validation import in_words
from .event_config import (
    EventInput,
    EventOutput,
    NamedSection,
    StreamingSettings,
    Topic,
    parsed_json,
    require_different_names,
    with_small_type,
)
from .hints import advice, keys_at, require_no_misspelt
from .locations import Location

EXCERPT_LIMIT_S = 60.0
TEMPLATE_NAME = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
INPUTS_AND_OUTPUTS = tuple(
    ("job_config", section, list_name)
    for section in ("events", "data")
    for list_name in ("inputs", "outputs")
)
AUTOMATIC_NAME = re.compile(r"([a-z]+)([0-9]+)")
KLIO_IMAGE = "worker_harness_container_image"
DECIDED_HERE = {
    "job_name": "the name at the top of the file counts",
    "direct_running_mode": "workers on this machine are processes",
    "save_main_session": "steps are found by their modules",
}
# What Klio's version 1 had in one entry with the location of data, and Klio passes over.
BESIDE_KLIO_DATA = ("topic", "subscription", "data_location")
Runner = Literal["DirectRunner", "FnApiRunner", "DataflowRunner", "PortableRunner"]
RUNNERS = {name.lower(): name for name in get_args(Runner)}
DISK_TYPES = ("local-ssd", "pd-ssd", "pd-standard")
DISK_TYPE_ADDRESS = re.compile(
    r"compute\.googleapis\.com/projects/(?P<project>[^/]*)/(?P<kind>zones|regions)/"
    r"(?P<place>[^/]*)/diskTypes/[a-z][-a-z0-9]*"
)
TimerUnit = Literal["ns", "nanoseconds", "us", "microseconds", "ms", "milliseconds", "s", "seconds"]


class JobFileError(BeamsplitterError, ValueError):
    """A job file that can't be used; the message names file, place in it, and the fix."""


class DataFolder(NamedSection):
    """A folder that recordings are read from, or results are written to."""

    type: Literal["file", "gcs"] = Field(
        description="`gcs`: on `gs://`, or, as in Klio, a full path of this machine"
    )
    location: Location = Field(description="the folder, here or on `gs://`")
    file_suffix: str = ""
    skip_klio_existence_check: bool = False

    @model_validator(mode="before")
    @classmethod
    def _without_what_klio_passes_over(cls, plain: Any) -> Any:
        plain = with_small_type(plain)
        if not isinstance(plain, dict) or plain.get("type") != "gcs":
            return plain
        rest = {key: value for key, value in plain.items() if key not in BESIDE_KLIO_DATA}
        if plain.get("data_location"):
            rest.setdefault("location", plain["data_location"])
        return rest

    @field_validator("file_suffix")
    @classmethod
    def _has_its_dot(cls, suffix: str) -> str:
        """Klio adds one, but only where it loads recordings."""
        if f".{suffix}" in AUDIO_EXTENSIONS:
            raise ValueError(f"{suffix!r} is added to elements as it is: write '.{suffix}'")
        return suffix

    @model_validator(mode="after")
    def _gcs_means_a_bucket(self) -> "DataFolder":
        # Klio takes any path. A full one can't be meant for a bucket whose gs:// was forgotten.
        is_bucket = self.location.startswith(GCS_SCHEME)
        if self.type == "gcs" and not is_bucket and not os.path.isabs(self.location):
            raise ValueError(
                f"location of type gcs: {self.location!r} does not begin with gs://: write "
                "gs://BUCKET/FOLDER, or type: file"
            )
        return self


class DataInput(DataFolder):
    """The folder that the recordings lie in: elements are paths below it."""

    file_suffix: str = Field("", description="added to each element, such as `.wav`")
    skip_klio_existence_check: bool = Field(False, description="Klio's: without effect here")
    ping: bool = Field(False, description="pass every message through, do nothing")


class DataOutput(DataFolder):
    """The folder of the results: see docs/results.md."""

    file_suffix: str = Field(
        "",
        description="what has a file `location/element + file_suffix` counts as finished, too",
    )
    skip_klio_existence_check: bool = Field(
        False, description="only manifests say what is finished, whatever `file_suffix` is"
    )
    force: bool = Field(False, description="do finished recordings again")
    replace: bool = Field(False, description="replace results that other settings have made, too")


class UpstreamJob(Section):
    """The job that is asked, by its topic, for recordings that are not there.

    See docs/pubsub.md.
    """

    job_name: str = Field(min_length=1, description="name of that job")
    gcp_project: str = Field("", description="its project, which a `topic` without one is of")
    topic: Topic = Field(description="that it reads, with or without `projects/PROJECT/topics/`")


class Events(Section):
    """Where the events come from, and where those of finished recordings go."""

    inputs: Annotated[list[EventInput], AfterValidator(require_different_names)] = Field(
        default_factory=list,
        description="where the events come from: see docs/job-files.md#event-inputs",
    )
    outputs: Annotated[list[EventOutput], AfterValidator(require_different_names)] = Field(
        default_factory=list,
        description="where the messages of finished recordings go: see "
        "docs/job-files.md#event-outputs",
    )


class Data(Section):
    """Where the recordings lie, and where the results go."""

    inputs: list[DataInput] = Field(
        default_factory=list, max_length=1, description="at most one: the folder of the recordings"
    )
    outputs: list[DataOutput] = Field(
        default_factory=list, max_length=1, description="one: the folder of the results"
    )


def _log_level(level: str) -> str:
    if level.upper() not in logging.getLevelNamesMapping():
        raise ValueError(
            f"there is no log level {level!r}: it is debug, info, warning, error or critical"
        )
    return level


def _options_of_client(value: Any) -> Any:
    """Klio turns a client of metrics off with `false`; `true` is one with its defaults."""
    if isinstance(value, bool):
        return {} if value else None
    return value


class NativeMetrics(Section):
    """Beam's own metrics, which are always there."""

    timer_unit: TimerUnit = Field(
        "ms", description="of timers of steps of your own, if they name none"
    )


class LoggedMetrics(Section):
    """Steps of your own log each change of their metrics."""

    level: Annotated[str, AfterValidator(_log_level)] = Field(
        "debug", description="`debug`, `info`, `warning`, `error` or `critical`"
    )
    timer_unit: TimerUnit | None = Field(
        None, description="of times in the log; default: that of `native`"
    )


class ShumwayMetrics(Section):
    """Klio's client for FFWD agents: checked, but nothing is sent."""

    key: str | None = Field(None, description="Klio's")
    ffwd_addr: str | None = Field(None, description="Klio's")
    timer_unit: TimerUnit | None = Field(None, description="Klio's")


class MetricsSection(BaseModel):
    """Klio's clients of metrics. Those of plug-ins are kept; one that looks misspelt is refused."""

    model_config = ConfigDict(extra="allow", frozen=True)

    timer_unit: TimerUnit | None = Field(
        None,
        description="of `kmsg-timer`, the time that each step of your own takes; default: that of "
        "`native`",
    )
    native: Annotated[
        NativeMetrics,
        BeforeValidator(
            lambda value: {} if isinstance(value, bool) else value,
            json_schema_input_type=NativeMetrics | bool,
        ),
    ] = Field(NativeMetrics(), description="Beam's own metrics, which are always there")
    logger: Annotated[
        LoggedMetrics | None,
        BeforeValidator(_options_of_client, json_schema_input_type=LoggedMetrics | bool | None),
    ] = Field(None, description="log each change of the metrics of steps of your own")
    shumway: Annotated[
        ShumwayMetrics | None,
        BeforeValidator(_options_of_client, json_schema_input_type=ShumwayMetrics | bool | None),
    ] = Field(None, description="Klio's client for FFWD agents: checked, but nothing is sent")

    @model_validator(mode="after")
    def _other_clients_are_not_misspelt(self) -> "MetricsSection":
        require_no_misspelt(self)
        return self


class JobSection(BaseModel):
    """Klio's `job_config`. Keys of your own are kept; one that looks misspelt is refused."""

    model_config = ConfigDict(extra="allow", frozen=True)

    allow_non_klio_messages: bool = Field(
        False,
        description="take plain text for an element, and storage notifications for events: see "
        "docs/pubsub.md",
    )
    blocking: bool = Field(
        False,
        description="on Dataflow and behind a job server: wait for the end of the job, and write "
        "its `run.json`",
    )
    wait_for_pipeline_running: bool = Field(
        False, description="there, too: wait until it runs, ten minutes at most"
    )
    metrics: MetricsSection = MetricsSection()
    events: Events = Events()
    data: Data = Data()
    upstream: UpstreamJob | None = Field(
        None, description="the job that is asked for recordings that are not there"
    )

    @model_validator(mode="after")
    def _extra_keys_are_not_misspelt(self) -> "JobSection":
        require_no_misspelt(self)
        return self


class PipelineSettings(BaseModel):
    """Beam's pipeline options, in Klio's spelling. What is not set is left to Beam.

    Options that have no field here pass through to Beam; one that Beam does not know is refused.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    runner: Runner = Field(
        "DataflowRunner",
        description="`DirectRunner` is this machine: Beam's FnApiRunner, by name; `PortableRunner` "
        "is a runner behind a Beam job server: see "
        "docs/job-files.md#a-runner-behind-a-beam-job-server. In small or capital letters, with or "
        "without `Runner`: `direct`",
    )
    streaming: bool = Field(
        True, description="`true` goes with events of type `pubsub`, `false` with all others"
    )
    direct_num_workers: int | None = Field(
        None,
        ge=1,
        description="worker processes on this machine; `--workers` goes first. Default: one a core "
        "of the process's affinity and its container's CPU quota",
    )

    job_endpoint: str | None = Field(
        None,
        pattern=r"^[^/]+:[0-9]+$",
        description="`HOST:PORT` of the job server of `PortableRunner`",
    )
    environment_type: Literal["LOOPBACK", "EXTERNAL", "PROCESS", "DOCKER"] | None = Field(
        None,
        description="where workers behind a job server run: `LOOPBACK` (in the command itself, for "
        "a try), `EXTERNAL` (a worker pool), `PROCESS`, `DOCKER`",
    )
    environment_config: str | dict[str, Any] | None = Field(
        None,
        description="for `EXTERNAL` the address of the pool, `localhost:50000`; for `PROCESS` "
        "`{command: /opt/apache/beam/boot}`; for `DOCKER` the image",
    )

    project: str | None = Field(None, description="the Google Cloud project: required on Dataflow")
    region: str | None = Field(None, description="where the job runs; default: that of gcloud")
    worker_region: str | None = Field(
        None, description="where the workers are, if not anywhere in `region`"
    )
    worker_zone: str | None = Field(
        None, description="where the workers are, if not anywhere in `region`"
    )
    temp_location: str | None = Field(
        None, description="folder on `gs://` for Dataflow's own files: required there"
    )
    staging_location: str | None = Field(
        None,
        description="folder on `gs://` for what the job brings along; default: `temp_location`",
    )
    template_location: str | None = Field(
        None, description="write a template there instead of starting a job"
    )
    service_account_email: str | None = Field(None, description="the account that the workers have")
    dataflow_endpoint: str | None = Field(
        None, description="address of the service, if it is another one"
    )
    no_auth: bool | None = Field(None, description="ask without credentials")
    labels: list[str] | None = Field(
        None, description="list of `name=value`, or names with values; Klio's `label` is one more"
    )
    experiments: list[str] | None = Field(None, description="Beam's and Dataflow's")
    dataflow_service_options: list[str] | None = Field(None, description="Dataflow's")
    dataflow_kms_key: str | None = Field(None, description="key of what Dataflow keeps")
    enable_streaming_engine: bool | None = Field(
        None, description="Beam 2.77 uses it for every streaming job, also with `false`"
    )
    flexrs_goal: Literal["COST_OPTIMIZED", "SPEED_OPTIMIZED"] | None = Field(
        None, description="cheaper batch jobs that may start later; not with `accelerator`"
    )
    update: bool | None = Field(
        None, description="replace the streaming job of the same name, as `--update` does"
    )
    transform_name_mapping: dict[str, str] | None = Field(
        None, description="new names of steps by their old ones, with `update`; may be JSON text"
    )

    num_workers: int | None = Field(None, ge=1, description="how many workers to begin with")
    max_num_workers: int | None = Field(None, ge=1, description="how many workers at most")
    autoscaling_algorithm: Literal["NONE", "THROUGHPUT_BASED"] | None = Field(
        None, description="`NONE`: as many workers all the time"
    )
    worker_machine_type: str | None = Field(None, description="machine of the workers")
    worker_disk_type: str | None = Field(
        None,
        description="`pd-standard`, `pd-ssd` or `local-ssd`: sent as the type of this name in "
        "`worker_zone`, if one is given, or else in the region. Or the whole address, "
        "`compute.googleapis.com/projects/PROJECT/zones/ZONE/diskTypes/TYPE`, of the job's own "
        "project and region",
    )
    disk_size_gb: int | None = Field(None, ge=0, description="disk of a worker")
    min_cpu_platform: str | None = Field(
        None, description="of the workers, such as `Intel Skylake`"
    )
    number_of_worker_harness_threads: int | None = Field(
        None, ge=1, description="threads of a worker process"
    )
    network: str | None = Field(None, description="of the workers")
    subnetwork: str | None = Field(None, description="of the workers")
    use_public_ips: bool | None = Field(None, description="whether workers have public addresses")

    sdk_container_image: str | None = Field(
        None,
        description="image of the workers; also as `worker_harness_container_image`, Klio's name",
    )
    sdk_location: str | None = Field(
        None, description="default: `container` where an image is named, as Beam is in it"
    )
    setup_file: str | None = Field(
        None, description="in place of an image: installed by each worker when it starts"
    )
    requirements_file: str | None = Field(
        None, description="in place of an image: installed by each worker when it starts"
    )

    accelerator: str | None = Field(
        None,
        pattern=r"^type:[^;]+;count:[1-9][0-9]*(;[^;]+)*$",
        description="GPU for the steps that hold samples, such as "
        "`type:nvidia-l4;count:1;install-nvidia-driver`; ignored on this machine",
    )

    @model_validator(mode="before")
    @classmethod
    def _klio_names_the_image_otherwise(cls, plain: Any) -> Any:
        if not isinstance(plain, dict) or KLIO_IMAGE not in plain:
            return plain
        rest = {name: value for name, value in plain.items() if name != KLIO_IMAGE}
        image = rest.get("sdk_container_image") or plain[KLIO_IMAGE]
        if plain[KLIO_IMAGE] not in (None, image):
            raise ValueError(
                f"{KLIO_IMAGE} and sdk_container_image are two names of one option, and differ: "
                "leave the first out"
            )
        return {**rest, "sdk_container_image": image}

    @model_validator(mode="before")
    @classmethod
    def _klio_may_name_one_label_apart(cls, plain: Any) -> Any:
        if not isinstance(plain, dict) or "label" not in plain:
            return plain
        rest = {name: value for name, value in plain.items() if name != "label"}
        labels, label = _listed(rest.get("labels")) or [], _listed(plain["label"]) or []
        if not isinstance(labels, list) or not isinstance(label, list):
            raise ValueError("labels: is a list of name=value; label: is one of them")
        return {**rest, "labels": [*labels, *(each for each in label if each not in labels)]}

    @field_validator("runner", mode="before")
    @classmethod
    def _in_any_letters(cls, runner: Any) -> Any:
        """As Beam has it: in small or capital letters, with or without `Runner`."""
        if not isinstance(runner, str):
            return runner
        small = runner.lower()
        if small == "directgkerunner":
            raise ValueError(
                "DirectGKERunner: here DirectRunner runs streams in any pod, see docs/pubsub.md"
            )
        return RUNNERS.get(small) or RUNNERS.get(f"{small}runner", runner)

    @field_validator(
        "labels",
        "experiments",
        "dataflow_service_options",
        mode="before",
        json_schema_input_type=list[str] | dict[str, Any] | str | None,
    )
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return _listed(value)

    @field_validator(
        "transform_name_mapping", mode="before", json_schema_input_type=dict[str, str] | str | None
    )
    @classmethod
    def _maybe_as_json(cls, mapping: Any) -> Any:
        return parsed_json(mapping) if isinstance(mapping, str) else mapping

    @field_validator("worker_disk_type")
    @classmethod
    def _is_a_disk_type(cls, disk_type: str | None) -> str | None:
        if disk_type in (None, *DISK_TYPES) or DISK_TYPE_ADDRESS.fullmatch(disk_type or ""):
            return disk_type
        raise ValueError(
            f"{disk_type!r} is no type of disk: write {', '.join(DISK_TYPES)}, or an address, "
            "compute.googleapis.com/projects/PROJECT/zones/ZONE/diskTypes/TYPE"
        )

    @model_validator(mode="after")
    def _disk_is_where_the_workers_are(self) -> "PipelineSettings":
        address = DISK_TYPE_ADDRESS.fullmatch(self.worker_disk_type or "")
        if not address:
            return self
        project, kind, place = address["project"], address["kind"], address["place"]
        if project and self.project and project != self.project:
            raise ValueError(
                f"worker_disk_type: is a type of the project {project}, and the job's is "
                f"{self.project}: name one of that"
            )
        region = place.rpartition("-")[0] if kind == "zones" else place
        if place and self.workers_region and region != self.workers_region:
            raise ValueError(
                f"worker_disk_type: is a type of {place}, and the workers are in "
                f"{self.workers_region}: name one of there"
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def _others_have_a_value(cls, plain: Any) -> Any:
        """Klio writes all its options into files that it saves, those without a value as null."""
        if not isinstance(plain, dict):
            return plain
        return {
            name: value
            for name, value in plain.items()
            if value is not None or name in cls.model_fields
        }

    @model_validator(mode="after")
    def _others_are_not_decided_here(self) -> "PipelineSettings":
        for name in self.model_extra or {}:
            if name in DECIDED_HERE:
                raise ValueError(f"{name}: leave it out: {DECIDED_HERE[name]}")
        return self

    @model_validator(mode="after")
    def _beam_knows_the_other_options(self) -> "PipelineSettings":
        others = self.model_extra or {}
        known = beam_option_names() if others else frozenset()
        for name in others:
            if name not in known:
                hint = advice(name, sorted({*known, *type(self).model_fields}), JobConfig)
                said = f"{name!r} is no pipeline option of Beam"
                raise ValueError(f"{said}: {hint}" if hint else said)
        return self

    @property
    def workers_region(self) -> str | None:
        """Where the workers are, as far as the options say it."""
        if self.worker_zone:
            return self.worker_zone.rpartition("-")[0]
        return self.worker_region or self.region

    @property
    def full_disk_type(self) -> str | None:
        """The address of the workers' type of disk; the name alone where their place is not said.

        That of a region is the form that Klio sends to Dataflow.
        """
        disk_type, region, project = self.worker_disk_type, self.workers_region, self.project
        if disk_type not in DISK_TYPES or not project or not region:
            return disk_type
        place = f"zones/{self.worker_zone}" if self.worker_zone else f"regions/{region}"
        return f"compute.googleapis.com/projects/{project}/{place}/diskTypes/{disk_type}"

    @property
    def fused_stage_hints(self) -> dict[str, str]:
        """Resource hints of all steps that hold samples; none on this machine."""
        if self.accelerator is None or self.runner != "DataflowRunner":
            return {}
        return {"accelerator": self.accelerator}

    def beam_options(self) -> dict[str, Any]:
        """The options that are set, by the names of Beam's flags."""
        options = self.model_dump(exclude={"accelerator"}, exclude_none=True)
        if isinstance(self.environment_config, dict):
            options["environment_config"] = json.dumps(self.environment_config)
        if self.worker_disk_type is not None:
            options["worker_disk_type"] = self.full_disk_type
        return {"save_main_session": False, **options}


def _listed(value: Any) -> Any:
    """The list that a text with commas, or names with values, stand for."""
    if isinstance(value, dict):
        return [f"{name}={each}" for name, each in value.items()]
    return value.split(",") if isinstance(value, str) else value


@functools.cache
def beam_option_names() -> frozenset[str]:
    """All names of Beam's pipeline options, as they are spelled on a command line."""
    # Only here: Beam takes a second to import, and most job files have no other options.
    from apache_beam.options import pipeline_options

    parser = pipeline_options._BeamArgumentParser(add_help=False, allow_abbrev=False)
    groups: list[Any] = [
        each
        for each in vars(pipeline_options).values()
        if isinstance(each, type) and issubclass(each, pipeline_options.PipelineOptions)
    ]
    for group in groups:
        group._add_argparse_args(parser)
    return frozenset(
        option.removeprefix("--") for action in parser._actions for option in action.option_strings
    )


class JobConfig(SplitSettings):
    """A whole job file."""

    job_name: str = Field(min_length=1, description="name of the job, in `run.json`, too")
    version: Literal[2] = Field(2, description="version of the schema")
    pipeline_options: PipelineSettings = PipelineSettings()
    job_config: JobSection = JobSection()
    streaming: StreamingSettings = StreamingSettings()
    storage: StorageSettings = StorageSettings()
    limits: LimitSettings = LimitSettings()

    @model_validator(mode="before")
    @classmethod
    def _name_may_stand_twice(cls, plain: Any) -> Any:
        """Klio writes it into the pipeline options, too, of files that it saves."""
        options = plain.get("pipeline_options") if isinstance(plain, dict) else None
        if not isinstance(options, dict) or options.get("job_name") != plain.get("job_name"):
            return plain
        rest = {name: value for name, value in options.items() if name != "job_name"}
        return {**plain, "pipeline_options": rest}

    @model_validator(mode="after")
    def _literal_graph_is_for_excerpts(self) -> "JobConfig":
        duration_s = self.separation.duration_s
        if self.join == "cogbk" and not self.separation.is_nn_filter:
            raise ValueError("join: cogbk is the graph of nn-filter: leave join out")
        if self.join == "cogbk" and self.nearest_neighbors.foreground != "mask":
            raise ValueError(
                "join: cogbk is the graph of Klio's example, whose foreground has a mask of its "
                "own: set separation.recipe: librosa, or separation.options.foreground: mask"
            )
        if self.join == "cogbk" and self.plots.enabled and self.plots.layout != "each":
            raise ValueError(
                "join: cogbk draws each plot in a branch of its own: set plots.layout: each"
            )
        if self.join == "cogbk" and (duration_s is None or duration_s > EXCERPT_LIMIT_S):
            raise ValueError(
                "join: cogbk moves whole spectrograms through shuffles, so it is for excerpts: "
                f"set separation.duration_s to at most {EXCERPT_LIMIT_S:g}, or leave join out"
            )
        return self

    @model_validator(mode="after")
    def _updates_are_for_streams_of_packages(self) -> "JobConfig":
        separation, options = self.separation, self.pipeline_options
        if separation.model_updates is None:
            return self
        if not (options.streaming and options.runner == "DataflowRunner"):
            raise ValueError(
                "separation.model_updates: is for streams on Dataflow; elsewhere a new run takes "
                "a new model"
            )
        if separation.ensemble or not is_package(separation.separator):
            raise ValueError("separation.model_updates: the separator must be a model package")
        return self

    def resolve(self) -> None:
        """Fetch what says what the separator gives, if that lies elsewhere, and check it.

        Parsing a job fetches nothing; this comes before a job is run or verified.

        Raises
        ------
        JobFileError
            it can't be had, or does not fit the job
        """
        try:
            self.separation.require_model()
            self.require_stems()
        except ValueError as error:
            raise JobFileError(f"separation: {error}") from error
        try:
            self.labels.require_model()
        except ValueError as error:
            raise JobFileError(f"labels: {error}") from error

    @model_validator(mode="after")
    def _streams_come_from_pubsub(self) -> "JobConfig":
        inputs, streaming = self.job_config.events.inputs, self.pipeline_options.streaming
        for index, each in enumerate(inputs):
            if each.type != "custom" and (each.type == "pubsub") != streaming:
                wanted = "streaming: false" if streaming else "streaming: true"
                raise ValueError(
                    f"job_config.events.inputs.{index}: events of type {each.type} need "
                    f"pipeline_options.{wanted}"
                )
        for index, output in enumerate(self.job_config.events.outputs if streaming else ()):
            if output.type in ("file", "avro"):
                raise ValueError(
                    f"job_config.events.outputs.{index}: a stream can't be written to events of "
                    f"type {output.type}, which are whole at the end only: use pubsub or bq"
                )
        return self

    @property
    def settings(self) -> SplitSettings:
        """What decides the content of the results.

        Raises
        ------
        JobFileError
            what the launcher has, such as a separator of one's own, a worker has not
        """
        try:
            return SplitSettings(
                separation=self.separation,
                stems=self.stems,
                plots=self.plots,
                scores=self.scores,
                labels=self.labels,
                features=self.features,
                report=self.report,
                join=self.join,
            )
        except ValidationError as error:
            raise JobFileError("; ".join(_explain(each, {}) for each in error.errors())) from error

    @property
    def nearest_neighbors(self) -> NearestNeighborRecipe:
        """The numbers of the separation, of a job whose separator is nn-filter."""
        return recipe_of(self.separation.separators[0].options)

    @property
    def file_storage(self) -> Storage:
        """What all files of the job are read and written through."""
        return Storage(Access(**self.storage.model_dump()))

    @property
    def output_tree(self) -> OutputTree:
        """The folder of the results."""
        return OutputTree(self.output_location, self.file_storage)

    @property
    def output_location(self) -> str:
        """The folder of the output tree."""
        return absolute(self.job_config.data.outputs[0].location)

    @property
    def finished_suffix(self) -> str:
        """Klio's check: what is added to an element to name a file that shows that it is finished.

        Empty where only manifests count.
        """
        output = self.job_config.data.outputs[0]
        return "" if output.skip_klio_existence_check else output.file_suffix

    @property
    def ping(self) -> bool:
        """Whether every message is passed through, and nothing done."""
        return any(each.ping for each in self.job_config.data.inputs)

    @property
    def force(self) -> bool:
        """Whether finished recordings are done again."""
        return any(output.force for output in self.job_config.data.outputs)

    @property
    def replace(self) -> bool:
        """Whether what other settings have made is replaced."""
        return any(output.replace for output in self.job_config.data.outputs)


def load_job(
    path: str, *, overrides: Iterable[str] = (), templates: Mapping[str, str] | None = None
) -> JobConfig:
    """Read a job file.

    Parameters
    ----------
    path
        the file, here or on `gs://`; relative locations in it are relative to the working
        directory
    overrides
        `dotted.path=value`; the values are YAML
    templates
        values for `${NAME}` in the file; `$$` is a dollar sign. Without any, `${NAME}` is
        the environment variable of this name

    Raises
    ------
    JobFileError
        the file can't be read, is no YAML, or does not fit the schema
    """
    path = os.path.expanduser(path)
    try:
        data = Storage().read(path) if scheme_of(path) else Path(path).read_bytes()
        text = data.decode("utf-8")
    except (StorageError, UnusableStorageError) as error:
        raise JobFileError(str(error)) from error
    except OSError as error:
        raise JobFileError(f"{path}: can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise JobFileError(f"{path}: is no UTF-8 (byte {error.start})") from error
    if templates:
        try:
            text = string.Template(text).substitute(templates)
        except KeyError as error:
            raise JobFileError(
                f"{path}: template value {error} is missing: give it with --template NAME=value"
            ) from error
        except ValueError as error:
            raise JobFileError(
                f"{path}: {error}: with --template, write $$ for a dollar sign"
            ) from error
    try:
        plain = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise JobFileError(f"{path}: is no YAML: {error}") from error
    if not isinstance(plain, dict):
        raise JobFileError(f"{path}: holds no keys: see docs/job-files.md for an example")
    if not templates:
        plain = _filled(plain)
    for override in overrides:
        change_value(plain, override)
    _require_filled(plain, path)
    return parse_job(plain, source=path)


def parse_job(
    plain: dict[str, Any], *, source: str, flags: Mapping[str, str] | None = None
) -> JobConfig:
    """A job from plain dicts and lists.

    Parameters
    ----------
    source
        what messages begin with; may be empty
    flags
        what places are called in messages, where a command line has filled them

    Raises
    ------
    JobFileError
        one line for each place that does not fit
    """
    options = plain.get("pipeline_options")
    # The project of topics and subscriptions that are named without one.
    context = {"project": options.get("project") if isinstance(options, dict) else None}
    try:
        return JobConfig.model_validate(plain, context=context)
    except ValidationError as error:
        lines = [_explain(problem, flags or {}) for problem in error.errors()]
        begin = f"{source}: " if source else ""
        raise JobFileError("\n".join(f"{begin}{line}" for line in lines)) from error


class _Unfilled(str):
    """A text with a `${NAME}` that the environment does not fill; `-O` may put another there."""


def _filled(value: Any) -> Any:
    """The same value, each `${NAME}` in its texts filled from the environment."""
    if isinstance(value, dict):
        return {_filled(key): _filled(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_filled(each) for each in value]
    if not isinstance(value, str):
        return value
    if any(name not in os.environ for name in TEMPLATE_NAME.findall(value)):
        return _Unfilled(value)
    return TEMPLATE_NAME.sub(lambda name: os.environ[name[1]], value)


def _require_filled(value: Any, source: str) -> None:
    for each in [*value, *value.values()] if isinstance(value, dict) else value:
        if isinstance(each, dict | list):
            _require_filled(each, source)
        elif isinstance(each, _Unfilled):
            name = next(name for name in TEMPLATE_NAME.findall(each) if name not in os.environ)
            raise JobFileError(
                f"{source}: ${{{name}}} is not filled: give it with --template {name}=value, or "
                "as an environment variable"
            )


def change_value(plain: dict[str, Any], override: str) -> None:
    """Change a value of a job, in place.

    Parameters
    ----------
    override
        `dotted.path=value`; the value is YAML

    Raises
    ------
    JobFileError
        it is not of this form, or there is no such place
    """
    path, separator, text = override.partition("=")
    keys = path.strip().split(".")
    if not separator or not all(keys):
        raise JobFileError(f"-O {override}: write it as dotted.path=value")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise JobFileError(f"-O {override}: the value is no YAML: {error}") from error
    holder: Any = plain
    for depth, key in enumerate(keys[:-1], 1):
        empty: Any = [] if tuple(keys[:depth]) in INPUTS_AND_OUTPUTS else {}
        holder = _step_into(holder, key, override, empty)
    if isinstance(holder, list):
        index = _find_in_list(holder, keys[-1], override)
        holder[index] = value
    else:
        holder[keys[-1]] = value


def _step_into(holder: Any, key: str, override: str, empty: Any) -> Any:
    if isinstance(holder, list):
        return holder[_find_in_list(holder, key, override)]
    if holder.get(key) is None:
        holder[key] = empty
    if not isinstance(holder[key], dict | list):
        raise JobFileError(f"-O {override}: {key!r} holds a value, not keys")
    return holder[key]


def _find_in_list(holder: list[Any], key: str, override: str) -> int:
    """The index of an item by its own name, its number, or the name that Klio gives it.

    The name that Klio would give to one item more adds it.
    """
    own = [item.get("name") if isinstance(item, dict) else None for item in holder]
    if key in own:
        return own.index(key)
    if key.isdigit() and int(key) < len(holder):
        return int(key)
    automatic = _automatic_names(holder)
    if key.lower() in automatic:
        return automatic.index(key.lower())
    new = AUTOMATIC_NAME.fullmatch(key.lower())
    if new and _automatic_names([*holder, {"type": new[1]}])[-1] == key.lower():
        holder.append({"type": new[1]})
        return len(holder) - 1
    names = [str(each) for pair in zip(own, automatic, strict=True) for each in pair if each]
    raise JobFileError(
        f"-O {override}: the list has no item {key!r}; items are numbered from 0"
        + (f", and called {', '.join(names)}" if names else "")
    )


def _automatic_names(items: list[Any]) -> list[str | None]:
    """Klio's names of items that have none: the type, and a number among those of the type."""
    counts: Counter[str] = Counter()
    names: list[str | None] = []
    for item in items:
        kind = item.get("type") if isinstance(item, dict) and not item.get("name") else None
        names.append(f"{kind.lower()}{counts[kind.lower()]}" if isinstance(kind, str) else None)
        if isinstance(kind, str):
            counts[kind.lower()] += 1
    return names


def _explain(problem: Any, flags: Mapping[str, str]) -> str:
    keys, context = problem["loc"], problem.get("ctx", {})
    if keys[:2] == ("job_config", "events"):
        # After the number of an input or output stands its type, which is no key of the file.
        keys = (*keys[:4], *keys[5:])
    place = _named(".".join(map(str, keys)), flags)
    message = in_words(problem)
    if problem["type"] == "extra_forbidden":
        *section, key = problem["loc"]
        hint = advice(str(key), keys_at(JobConfig, section), JobConfig)
        message = f"unknown key; {hint}" if hint else "unknown key"
    elif problem["type"] in ("model_type", "model_attributes_type", "dict_type"):
        message = "write keys below it"
    elif problem["type"] in ("tuple_type", "list_type"):
        message = f"write a list, such as [{problem['input']}]"
    elif problem["type"] == "too_short":
        message = "the list is empty: name one at least, or leave it out"
    elif problem["type"] == "string_pattern_mismatch":
        message = f"{problem['input']!r} is not of the form {_form_of(context['pattern'])}"
    elif problem["type"] == "union_tag_invalid":
        message = f"unknown type {context['tag']!r}: it is one of {context['expected_tags']}"
    elif problem["type"] == "union_tag_not_found":
        message = "name its type"
    elif problem["type"] == "too_long":
        message = (
            f"a job has {context['max_length']}, not {context['actual_length']}: leave the others "
            "out, or use them in a graph of your own (docs/porting-from-klio.md)"
        )
    return f"{place}: {message}" if place else message


def _named(place: str, flags: Mapping[str, str]) -> str:
    """A place by the longest beginning of it that has a name on the command line.

    A section has one only for what is wrong with it as a whole.
    """
    sections = {section for section in flags if any(key.startswith(f"{section}.") for key in flags)}
    known = [
        each
        for each in flags
        if place == each or (place.startswith(f"{each}.") and each not in sections)
    ]
    return flags[max(known, key=len)] if known else place


def _form_of(pattern: str) -> str:
    """A regular expression of this schema as people write what it means."""
    form = re.sub(r"\[\^.\]\+", "…", pattern.strip("^$"))
    return form.replace("[1-9][0-9]*", "N").replace("(;…)*", "")
