"""What Klio takes in its job files, and in changes of them from the command line, is taken here."""

import json
from pathlib import Path
from typing import Any, get_args

import jsonschema
import pytest
import yaml
from apache_beam.options.pipeline_options import (
    GoogleCloudOptions,
    PipelineOptions,
    ProfilingOptions,
    StandardOptions,
    WorkerOptions,
)
from apache_beam.runners.runner import create_runner
from facts import assert_names
from google.cloud.bigquery import SchemaField

from beamsplitter.pipelines.commands.schema import schema_of
from beamsplitter.pipelines.job.event_config import GONE_OF_INPUTS, GONE_OF_OUTPUTS
from beamsplitter.pipelines.job.job_config import (
    DECIDED_HERE,
    DISK_TYPES,
    RUNNERS,
    JobConfig,
    JobFileError,
    TimerUnit,
    load_job,
    parse_job,
)
from beamsplitter.pipelines.local.engine import local_options
from beamsplitter.pipelines.services.submission import parse_options
from beamsplitter.transforms.klio.context import KlioContext, KlioTimer

BATCH = {"runner": "DirectRunner", "streaming": False}
STREAM = {"runner": "DirectRunner", "streaming": True, "project": "my-project"}


def job_of(
    *, options: dict[str, Any] | None = None, upstream: Any = None, **job_config: Any
) -> JobConfig:
    plain = {
        "job_name": "j",
        "pipeline_options": options or BATCH,
        "job_config": {**job_config, **({"upstream": upstream} if upstream else {})},
    }
    # What an editor makes of the file by the schema, it must not call wrong.
    jsonschema.validate(plain, schema_of("job"))
    job = parse_job(plain, source="job.yaml")
    assert parse_job(json.loads(job.model_dump_json()), source="again") == job
    return job


def refused(**sections: Any) -> str:
    with pytest.raises(JobFileError) as error:
        parse_job({"job_name": "j", "pipeline_options": BATCH, **sections}, source="job.yaml")
    return str(error.value)


# Names --------------------------------------------------------------------------------------------

JOB_OF_NAMES = """
job_name: j
pipeline_options: {runner: DirectRunner, streaming: false, project: my-project}
job_config:
  events:
    inputs:
      - {type: file, location: a}
      - {type: bq, table: d.t}
      - {type: FILE, location: b, name: second}
      - {type: file, location: c}
      - {type: file, location: d, name: bq0}
    outputs:
      - {type: pubsub, topic: finished, name: done}
  data:
    inputs: [{type: gcs, location: gs://b/in, name: songs}]
    outputs: [{type: gcs, location: gs://b/out}]
"""


def changed(tmp_path: Path, *overrides: str) -> JobConfig:
    path = tmp_path / "job.yaml"
    path.write_text(JOB_OF_NAMES)
    return load_job(str(path), overrides=overrides)


@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("file0", 0),
        ("file1", 3),  # Klio counts those of a type that have no name of their own
        ("second", 2),
        ("bq0", 4),  # a name of one's own goes before the one that Klio would give
        ("1", 1),
    ],
)
def test_event_inputs_are_changed_by_name(tmp_path: Path, name: str, index: int) -> None:
    before, after = (
        changed(tmp_path),
        changed(tmp_path, f"job_config.events.inputs.{name}.skip_klio_read=true"),
    )
    skipped = [each.skip_klio_read for each in after.job_config.events.inputs]
    assert skipped == [number == index for number in range(5)]
    assert not any(each.skip_klio_read for each in before.job_config.events.inputs)


def test_outputs_and_data_are_changed_by_name(tmp_path: Path) -> None:
    section = changed(
        tmp_path,
        "job_config.events.outputs.done.topic=others",
        "job_config.data.inputs.songs.file_suffix=.ogg",
        "job_config.data.outputs.gcs0.location=gs://c/out",
    ).job_config
    assert section.events.outputs[0].topic == "projects/my-project/topics/others"
    assert section.data.inputs[0].file_suffix == ".ogg"
    assert section.data.outputs[0].location == "gs://c/out"


def test_a_whole_item_is_replaced_by_name(tmp_path: Path) -> None:
    new = "job_config.events.inputs.second={type: folder, location: x}"
    assert changed(tmp_path, new).job_config.events.inputs[2].type == "folder"


def test_one_item_more_is_added_by_the_name_it_will_have(tmp_path: Path) -> None:
    plain = "job_config.events.inputs.file2.location=e"
    (*before, last) = changed(tmp_path, plain).job_config.events.inputs
    assert before == changed(tmp_path).job_config.events.inputs
    assert (last.type, last.location) == ("file", "e")
    path = tmp_path / "bare.yaml"
    path.write_text("job_name: j\npipeline_options: {streaming: false}")
    events = "job_config.events"
    added = [f"{events}.inputs.file0.location=a", f"{events}.inputs.file1.location=b"]
    outputs = ["job_config.data.outputs.gcs0.location=gs://b/out"]
    section = load_job(str(path), overrides=[*added, *outputs]).job_config
    assert [each.location for each in section.events.inputs] == ["a", "b"]
    assert section.data.outputs[0].location == "gs://b/out"


@pytest.mark.parametrize("name", ["file3", "first", "0file", "5"])
def test_a_name_that_no_item_has_is_told_with_those_there_are(tmp_path: Path, name: str) -> None:
    with pytest.raises(JobFileError) as error:
        changed(tmp_path, f"job_config.events.inputs.{name}.location=x")
    assert_names(error.value, f"'{name}'", "file0", "file1", "second", "from 0")


@pytest.mark.parametrize("section", ["inputs", "outputs"])
def test_no_two_have_one_name(section: str) -> None:
    twice = [{"type": "file", "location": each, "name": "same"} for each in "ab"]
    message = refused(job_config={"events": {section: twice}})
    assert_names(message, f"job_config.events.{section}: ", "'same'")


# Types, topics and locations ----------------------------------------------------------------------


def test_types_are_in_small_or_capital_letters() -> None:
    section = job_of(
        events={"inputs": [{"type": "file", "location": "x"}]},
        data={"outputs": [{"type": "gcs", "location": "gs://b/out"}]},
    ).job_config
    capital = parse_job(
        {
            "job_name": "j",
            "pipeline_options": BATCH,
            "job_config": {
                "events": {"inputs": [{"type": "FILE", "location": "x"}]},
                "data": {"outputs": [{"type": "GCS", "location": "gs://b/out"}]},
            },
        },
        source="",
    )
    assert capital.job_config == section


def test_short_names_are_those_of_the_project() -> None:
    events = {
        "inputs": [
            {"type": "pubsub", "topic": "songs"},
            {"type": "pubsub", "topic": "songs", "subscription": "songs-to-stems"},
            {"type": "pubsub", "topic": "projects/other-project/topics/songs"},
        ],
        "outputs": [{"type": "pubsub", "topic": "stems"}],
    }
    found = job_of(options=STREAM, events=events).job_config.events
    assert [each.topic for each in found.inputs] == [
        *["projects/my-project/topics/songs"] * 2,
        "projects/other-project/topics/songs",
    ]
    assert found.inputs[1].subscription == "projects/my-project/subscriptions/songs-to-stems"
    assert found.outputs[0].topic == "projects/my-project/topics/stems"


def test_short_names_of_other_topics() -> None:
    def upstream(**more: str) -> Any:
        section = job_of(options=STREAM, upstream={"job_name": "up", "topic": "up-in", **more})
        return section.job_config.upstream

    assert upstream().topic == "projects/my-project/topics/up-in"
    assert upstream(gcp_project="their-project").topic == "projects/their-project/topics/up-in"
    plain = {
        "job_name": "j",
        "pipeline_options": STREAM,
        "streaming": {"dead_letter_topic": "failed"},
    }
    assert parse_job(plain, source="").streaming.dead_letter_topic == (
        "projects/my-project/topics/failed"
    )


@pytest.mark.parametrize(
    ("project", "topic", "facts"),
    [
        (None, "songs", ["'songs'", "projects/PROJECT/topics/songs", "pipeline_options.project"]),
        ("my-project", "go", ["projects/my-project/topics/go", "3 to 255"]),
        ("Mine", "songs", ["'Mine'", "gcloud projects list"]),
        ("my-project", "topics/songs", ["'topics/songs'", "projects/…/topics/…"]),
        ("my-project", "projects/my-project/subscriptions/songs", ["projects/…/topics/…"]),
        ("my-project", "", ["topic"]),
    ],
)
def test_topics_that_can_not_be(project: str | None, topic: str, facts: list[str]) -> None:
    message = refused(
        pipeline_options={**STREAM, "project": project},
        job_config={"events": {"outputs": [{"type": "pubsub", "topic": topic}]}},
    )
    assert_names(message, "job.yaml: job_config.events.outputs.0", *facts)


def test_gcs_takes_full_paths_and_what_klio_passes_over() -> None:
    place = {"type": "gcs", "location": "/not/a/real/file", "skip_klio_existence_check": True}
    found = job_of(data={"inputs": [place], "outputs": [place]}).job_config.data
    assert found.inputs[0].location == found.outputs[0].location == "/not/a/real/file"
    old = {"type": "gcs", "topic": "a", "subscription": "b", "data_location": "gs://b/in"}
    found = parse_job(
        {"job_name": "j", "job_config": {"data": {"inputs": [old]}}}, source=""
    ).job_config.data
    assert found.inputs[0].location == "gs://b/in"
    message = refused(job_config={"data": {"inputs": [{"type": "gcs", "location": "b/in"}]}})
    assert_names(message, "job_config.data.inputs.0: ", "'b/in'", "gs://", "type: file")


def test_a_schema_may_be_json_text() -> None:
    fields = [
        {"name": "element", "type": "STRING", "mode": "REQUIRED"},
        {"name": "files", "type": "RECORD", "mode": "REPEATED",
         "fields": [{"name": "name", "type": "STRING", "mode": "NULLABLE"}]},
    ]  # fmt: skip

    def schema(value: Any) -> Any:
        output = {"type": "bq", "dataset": "d", "table": "t", "schema": value}
        (found,) = job_of(events={"outputs": [output]}).job_config.events.outputs
        return [SchemaField.from_api_repr(each) for each in found.schema_["fields"]]

    as_mapping = schema({"fields": fields})
    assert schema(json.dumps({"fields": fields})) == as_mapping
    assert schema(f"\n{json.dumps({'fields': fields}, indent=2)}\n") == as_mapping


@pytest.mark.parametrize(
    ("schema", "facts"),
    [
        ('{"fields": [', ["no JSON"]),
        ('{"fields": []}', ["fields", "name"]),
        ('{"fields": [{"name": "a"}]}', ["fields", "type"]),
        ('{"columns": []}', ["fields"]),
    ],
)
def test_json_that_is_no_schema(schema: str, facts: list[str]) -> None:
    output = {"type": "bq", "dataset": "d", "table": "t", "schema": schema}
    message = refused(job_config={"events": {"outputs": [output]}})
    assert_names(message, "job_config.events.outputs.0.schema: ", *facts)


# A file as Klio saves it --------------------------------------------------------------------------

SAVED_BY_KLIO = r"""
version: 2
job_name: saved
pipeline_options:
  {job_name: saved, runner: DataflowRunner, streaming: true, experiments: [], sdk_location: null,
   setup_file: null, requirements_file: null, project: my-project, staging_location: gs://b/staging,
   temp_location: gs://b/temp, region: europe-west1, subnetwork: null, update: false,
   dataflow_endpoint: null, service_account_email: null, no_auth: false, template_location: null,
   labels: [team=audio, stage=test], label: stage=test, transform_name_mapping: null,
   enable_streaming_engine: false, dataflow_kms_key: null, flexrs_goal: null,
   autoscaling_algorithm: NONE, num_workers: 2, disk_size_gb: 32,
   worker_machine_type: n1-standard-2, worker_harness_container_image: gcr.io/my-project/image,
   worker_disk_type: "compute.googleapis.com/projects/my-project/regions/europe-west1/\
     diskTypes/pd-ssd",
   use_public_ips: null, min_cpu_platform: null, dataflow_worker_jar: null, gke_namespace: null,
   profile_location: null, profile_cpu: null, profile_memory: null, profile_sample_rate: null}
job_config:
  allow_non_klio_messages: false
  metrics: {logger: {}}
  blocking: false
  events:
    inputs: [{type: pubsub, topic: null, subscription: songs, skip_klio_read: false}]
    outputs: [{type: pubsub, topic: stems, skip_klio_write: false}]
  data:
    inputs:
      - {type: gcs, location: gs://b/in, file_suffix: "", skip_klio_existence_check: false,
         ping: false}
    outputs:
      - {type: gcs, location: gs://b/out, file_suffix: "", skip_klio_existence_check: false,
         force: false}
"""


def test_a_file_that_klio_has_saved_loads() -> None:
    plain = yaml.safe_load(SAVED_BY_KLIO)
    job = parse_job(plain, source="saved.yaml")
    assert job.pipeline_options.labels == ["team=audio", "stage=test"]
    options = parse_options(job.pipeline_options.beam_options())
    assert options.view_as(WorkerOptions).disk_type == plain["pipeline_options"]["worker_disk_type"]


# Pipeline options, as Beam has them ---------------------------------------------------------------


def beam_options(**options: Any) -> PipelineOptions:
    job = parse_job({"job_name": "j", "pipeline_options": options}, source="job.yaml")
    return parse_options(job.pipeline_options.beam_options())


@pytest.mark.parametrize("runner", RUNNERS.values())
@pytest.mark.parametrize("spell", [str.lower, str.upper, str.title, lambda name: name[:-6]])
def test_runners_are_in_any_letters(runner: str, spell: Any) -> None:
    options = beam_options(runner=spell(runner)).view_as(StandardOptions)
    assert options.runner == runner
    if runner != "FnApiRunner":
        # Beam itself reads these names so.
        assert type(create_runner(spell(runner))) is type(create_runner(runner))


@pytest.mark.parametrize("runner", ["DaskRunner", "dirrect", "", 3])
def test_other_runners_are_refused(runner: object) -> None:
    message = refused(pipeline_options={"runner": runner})
    assert_names(message, "pipeline_options.runner: ", "'DirectRunner'", "'DataflowRunner'")


@pytest.mark.parametrize(
    ("options", "labels"),
    [
        ({"label": "a=1"}, ["a=1"]),
        ({"label": "a=1", "labels": ["b=2"]}, ["b=2", "a=1"]),
        ({"label": "a=1", "labels": {"b": 2}}, ["b=2", "a=1"]),
        ({"label": "a=1", "labels": "b=2,c=3"}, ["b=2", "c=3", "a=1"]),
        ({"label": "a=1", "labels": ["a=1", "b=2"]}, ["a=1", "b=2"]),
        ({"label": None, "labels": ["b=2"]}, ["b=2"]),
        ({"label": None}, None),
    ],
)
def test_one_label_joins_the_others(options: dict[str, Any], labels: list[str] | None) -> None:
    found = beam_options(**options).view_as(GoogleCloudOptions).labels
    assert found == labels or (not found and not labels)


@pytest.mark.parametrize("options", [{"label": 3}, {"label": "a=1", "labels": 3}])
def test_labels_that_are_none(options: dict[str, Any]) -> None:
    assert_names(refused(pipeline_options=options), "pipeline_options", "label")


@pytest.mark.parametrize("as_text", [True, False])
def test_renamed_steps_may_be_json_text(as_text: bool) -> None:
    renamed = {"Old": "New", "Removed": ""}
    given = json.dumps(renamed) if as_text else renamed
    options = beam_options(transform_name_mapping=given).view_as(GoogleCloudOptions)
    assert options.transform_name_mapping == renamed


@pytest.mark.parametrize("wrong", ["Old=New", "[1]", "{1: 2}"])
def test_renamed_steps_that_are_none(wrong: str) -> None:
    message = refused(pipeline_options={"transform_name_mapping": wrong})
    assert_names(message, "pipeline_options.transform_name_mapping: ")


@pytest.mark.parametrize("disk_type", DISK_TYPES)
@pytest.mark.parametrize(
    ("options", "place"),
    [
        ({"region": "europe-west1"}, "regions/europe-west1"),
        ({"region": "europe-west1", "worker_region": "us-east1"}, "regions/us-east1"),
        ({"region": "us-east1", "worker_zone": "us-east1-b"}, "zones/us-east1-b"),
    ],
)
def test_types_of_disks_are_sent_by_their_address(
    disk_type: str, options: dict[str, Any], place: str
) -> None:
    address = f"compute.googleapis.com/projects/my-project/{place}/diskTypes/{disk_type}"
    for given in (disk_type, address):
        found = beam_options(project="my-project", worker_disk_type=given, **options)
        assert found.view_as(WorkerOptions).disk_type == address


@pytest.mark.parametrize(
    ("disk_type", "facts"),
    [
        ("something", ["pipeline_options.worker_disk_type: ", "'something'", "pd-ssd"]),
        ("compute.googleapis.com/projects/p/pd-ssd", ["worker_disk_type: ", "diskTypes/TYPE"]),
        (
            "compute.googleapis.com/projects/other/regions/europe-west1/diskTypes/pd-ssd",
            ["worker_disk_type: ", "other", "my-project"],
        ),
        (
            "compute.googleapis.com/projects/my-project/regions/us-east1/diskTypes/pd-ssd",
            ["worker_disk_type: ", "us-east1", "europe-west1"],
        ),
        (
            "compute.googleapis.com/projects/my-project/zones/us-east1-b/diskTypes/pd-ssd",
            ["worker_disk_type: ", "us-east1-b", "europe-west1"],
        ),
    ],
)
def test_types_of_disks_that_the_workers_can_not_have(disk_type: str, facts: list[str]) -> None:
    options = {"project": "my-project", "region": "europe-west1", "worker_disk_type": disk_type}
    assert_names(refused(pipeline_options=options), "job.yaml: pipeline_options", *facts)


def test_an_address_without_project_and_zone_is_dataflows_to_fill() -> None:
    address = "compute.googleapis.com/projects//zones//diskTypes/pd-ssd"
    options = {"project": "my-project", "region": "europe-west1", "worker_disk_type": address}
    assert beam_options(**options).view_as(WorkerOptions).disk_type == address


# Metrics ------------------------------------------------------------------------------------------


def test_job_files_and_steps_know_the_same_units() -> None:
    for unit in get_args(TimerUnit):
        metrics = {"native": {"timer_unit": unit}, "shumway": {"timer_unit": unit, "key": "k"}}
        KlioContext(config=job_of(metrics=metrics)).metrics.timer("work")
    # What the steps refuse is named with all that they take, by its short name.
    with pytest.raises(ValueError) as error:
        KlioTimer(None, "minutes")
    assert_names(error.value, *(unit for unit in get_args(TimerUnit) if len(unit) <= 2))


@pytest.mark.parametrize(
    ("metrics", "logged"),
    [
        ({}, False),
        ({"logger": False}, False),
        ({"logger": None}, False),
        ({"logger": True}, True),
        ({"logger": {}}, True),
        ({"logger": {"level": "WARNING", "timer_unit": "s"}, "native": True}, True),
        ({"logger": {"level": "info"}, "shumway": False, "native": False}, True),
        ({"my_client": {"any": 1}, "stackdriver_logger": False}, False),
    ],
)
def test_clients_of_metrics(metrics: dict[str, Any], logged: bool) -> None:
    job = job_of(metrics=metrics)
    as_mapping = KlioContext(config={"job_config": {"metrics": metrics}}).metrics
    assert KlioContext(config=job).metrics == as_mapping
    assert (as_mapping.log_level is not None) == logged
    plug_ins = metrics.keys() - {"native", "logger", "shumway"}
    assert job.job_config.metrics.model_extra == {each: metrics[each] for each in plug_ins}


@pytest.mark.parametrize(
    ("metrics", "facts"),
    [
        ({"timer_unit": "minutes"}, ["metrics.timer_unit: ", "'ms'"]),
        ({"native": {"timer_unit": "minutes"}}, ["metrics.native.timer_unit: ", "'ms'"]),
        ({"logger": {"timer_unit": "S"}}, ["metrics.logger.timer_unit: ", "'seconds'"]),
        ({"shumway": {"timer_unit": 3}}, ["metrics.shumway.timer_unit: ", "'ns'"]),
        ({"logger": {"level": "loud"}}, ["metrics.logger.level: ", "'loud'", "debug", "critical"]),
        ({"logger": "debug"}, ["metrics.logger: ", "keys below"]),
        ({"logger": {"leval": "debug"}}, ["metrics.logger.leval: ", "'level'"]),
        ({"loger": {}}, ["job_config.metrics: ", "'loger'", "'logger'"]),
        (3, ["job_config.metrics: "]),
    ],
)
def test_bogus_metrics_are_named(metrics: Any, facts: list[str]) -> None:
    assert_names(refused(job_config={"metrics": metrics}), "job.yaml: ", *facts)


# What is decided here -----------------------------------------------------------------------------


def test_what_klio_saves_into_pipeline_options_is_no_option_twice() -> None:
    """`klio job config set` writes all that it knows, the name of the job, too."""
    job = job_of(options={**BATCH, "job_name": "j", "gke_namespace": None, "profile_cpu": True})
    options = local_options(job, workers=2)
    assert options.view_as(GoogleCloudOptions).job_name == "j"
    assert options.view_as(ProfilingOptions).profile_cpu


@pytest.mark.parametrize("name", DECIDED_HERE)
def test_options_that_are_decided_here_are_refused(name: str) -> None:
    message = refused(pipeline_options={**BATCH, name: "something"})
    assert_names(message, "job.yaml: pipeline_options", name, DECIDED_HERE[name])


def test_the_runner_for_kubernetes_has_an_heir() -> None:
    assert_names(
        refused(pipeline_options={"runner": "DirectGKERunner"}), "DirectRunner", "pubsub.md"
    )


def test_several_folders_of_recordings_are_for_graphs_of_ones_own() -> None:
    folders = [{"type": "file", "location": name} for name in ("a", "b")]
    message = refused(job_config={"data": {"inputs": folders}})
    assert_names(message, "job_config.data.inputs", "has 1, not 2", "porting-from-klio.md")


def test_a_suffix_without_its_dot_is_refused() -> None:
    """Klio adds one where it loads recordings, but not where it asks whether they are there."""
    folder = {"type": "file", "location": "in", "file_suffix": "ogg"}
    message = refused(job_config={"data": {"inputs": [folder]}})
    assert_names(message, "job_config.data.inputs.0.file_suffix", "'ogg'", "'.ogg'")


@pytest.mark.parametrize(
    ("places", "name", "reason"),
    [
        *(("inputs", *each) for each in GONE_OF_INPUTS.items()),
        *(("outputs", *each) for each in GONE_OF_OUTPUTS.items()),
    ],
)
def test_options_of_files_that_are_gone_say_why(places: str, name: str, reason: str) -> None:
    """They belong to events of other types, too, but no one who has them here meant those."""
    events = {places: [{"type": "file", "location": "a", name: "x"}]}
    message = refused(job_config={"events": events})
    assert_names(message, f"job_config.events.{places}.0", name, reason)
    assert "belongs" not in message


def test_keys_of_a_template_are_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "job.yaml"
    path.write_text("job_name: j\njob_config: {'${MY_KEY}': 1}\n")
    with pytest.raises(JobFileError, match=r"\$\{MY_KEY\} is not filled"):
        load_job(str(path))
    monkeypatch.setenv("MY_KEY", "my_key")
    assert load_job(str(path)).job_config.model_extra == {"my_key": 1}
