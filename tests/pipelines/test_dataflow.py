"""Jobs on Dataflow: what would be submitted, and to whom it is handed."""

import errno
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
import soundfile
import yaml
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.runners.pipeline_context import PipelineContext
from apache_beam.runners.portability.fn_api_runner import translations
from conftest import Command, made_signal
from dataflow_server import CANCELLED, DONE, FAILED, PENDING, RUNNING, CloudServer, serving
from facts import assert_names
from google.cloud.dataflow_v1beta3 import JobType
from repeated_graphs import BROKEN, GONE, LONG, RATE, Scenario, write
from storage_server import BUCKET, StorageServer

from beamsplitter.pipelines.command_line import app
from beamsplitter.pipelines.commands.progress import counts_of_run
from beamsplitter.pipelines.events.elements import InputError
from beamsplitter.pipelines.events.sources import CreateEvents
from beamsplitter.pipelines.job.job_config import JobConfig, JobFileError, parse_job
from beamsplitter.pipelines.outcomes.step_metrics import metrics_by_step
from beamsplitter.pipelines.run import build
from beamsplitter.pipelines.services import dataflow, dataflow_jobs
from beamsplitter.pipelines.services.dataflow import (
    JobDescription,
    dataflow_options,
    describe,
    submit,
)
from beamsplitter.pipelines.services.dataflow_jobs import DataflowError
from beamsplitter.storage.file_facts import StorageError
from beamsplitter.storage.gcs import GcsFiles
from beamsplitter.transforms.attempts import new_attempts
from beamsplitter.transforms.records import Failure, PartReceipt, PartReference, Receipt

ACCELERATOR = "type:nvidia-l4;count:1;machine_type:g2-standard-4;install-nvidia-driver"
OPTIONS = {
    "runner": "DataflowRunner",
    "streaming": False,
    "project": "my-project",
    "region": "europe-west4",
    "temp_location": "gs://music/temp",
    "sdk_container_image": "docker.pkg.dev/p/r/image:1",
}


def plain_job(*, separation: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
    merged = {**OPTIONS, **options}
    return {
        "job_name": "my-job",
        "pipeline_options": {name: each for name, each in merged.items() if each is not None},
        "job_config": {
            "events": {"inputs": [{"type": "folder", "location": "gs://music/in"}]},
            "data": {"outputs": [{"type": "gcs", "location": "gs://music/out"}]},
        },
        "separation": separation or {},
    }


def make_job(**options: Any) -> JobConfig:
    return parse_job(plain_job(**options), source="job.yaml")


def described(**options: Any) -> JobDescription:
    return describe(make_job(**options))


def sdk_options(description: JobDescription) -> dict[str, Any]:
    return description.job["environment"]["sdkPipelineOptions"]["options"]


def test_a_batch_job_says_what_its_file_says() -> None:
    description = described(
        worker_machine_type="n2-standard-4",
        disk_size_gb=50,
        worker_disk_type="pd-ssd",
        max_num_workers=7,
        labels=["team=audio", "stage=test"],
        experiments=["no_use_multiple_sdk_containers"],
        number_of_worker_harness_threads=3,
        use_public_ips=False,
    )
    environment = description.job["environment"]
    pool = environment["workerPools"][0]
    assert description.job["name"] == "my-job"
    assert description.job["type"] == "JOB_TYPE_BATCH"
    assert description.job["labels"] == {"team": "audio", "stage": "test"}
    assert pool["machineType"] == "n2-standard-4"
    assert pool["diskSizeGb"] == 50
    assert pool["diskType"] == (
        "compute.googleapis.com/projects/my-project/regions/europe-west4/diskTypes/pd-ssd"
    )
    assert pool["numThreadsPerWorker"] == 3
    assert pool["autoscalingSettings"]["maxNumWorkers"] == 7
    assert pool["ipConfiguration"] == "WORKER_IP_PRIVATE"
    image = pool["sdkHarnessContainerImages"][0]
    assert image["containerImage"] == OPTIONS["sdk_container_image"]
    assert image["useSingleCorePerContainer"] is True
    assert {"use_runner_v2", "no_use_multiple_sdk_containers"} <= set(environment["experiments"])
    for each in description.pipeline.components.environments.values():
        assert OPTIONS["sdk_container_image"].encode() in each.payload


def test_the_main_session_is_not_sent_and_beam_is_not_installed_again() -> None:
    options = sdk_options(described())
    assert options["save_main_session"] is False
    assert options["sdk_location"] == "container"


FUSED_STAGE = (
    "CountAttempts",
    "LoadBinary",
    "LoadAudio",
    "Separate",
    "LoadStems",
    "EncodeStems",
    "GetSpec",
    "SpecToPlot",
    "UploadPlots",
    "PublishTrack",
)
"""The steps that hold samples, by the beginnings of their names."""
BY_MODEL = {"separator": "separators:Smoothing", "options": {"normalizes": True}}


def accelerated_stage(description: JobDescription) -> tuple[set[str], set[type]]:
    """What Beam's fuser makes of a described job: the steps of the only stage with an accelerator,
    and the types of what enters and leaves it."""
    graph = beam_runner_api_pb2.Pipeline.FromString(description.pipeline.SerializeToString())
    components = graph.components
    coders = PipelineContext(components).coders
    types = {
        name: coders.get_by_id(each.coder_id).to_type_hint()
        for name, each in components.pcollections.items()
    }
    _, stages = translations.create_and_optimize_stages(
        graph, translations.standard_optimize_phases(), known_runner_urns=frozenset()
    )
    accelerated = [
        each
        for each in stages
        if each.environment and components.environments[each.environment].resource_hints
    ]
    steps = {step.unique_name for each in accelerated for step in each.transforms}
    assert len(accelerated) == 1, steps
    others = {name for each in stages if each not in accelerated for name in collections_of(each)}
    crossing = collections_of(accelerated[0]) & others
    return steps, {types[name] for name in crossing}


def collections_of(stage: translations.Stage) -> set[str]:
    return {
        name
        for step in stage.transforms
        for names in (step.inputs.values(), step.outputs.values())
        for name in names
    }


@pytest.mark.parametrize("streaming", [False, True], ids=["batch", "stream"])
@pytest.mark.parametrize("separation", [{}, BY_MODEL], ids=["nn-filter", "model"])
def test_no_samples_leave_the_stage_with_the_accelerator(
    separation: dict[str, Any], streaming: bool
) -> None:
    described_so = described_stream if streaming else described
    description = described_so(accelerator=ACCELERATOR, separation=separation)
    steps, crossing = accelerated_stage(description)
    assert crossing == {PartReference, PartReceipt, Receipt, Failure}
    assert {each.partition("/")[0] for each in steps} == set(FUSED_STAGE)
    assert set(description.accelerators.values()) == {ACCELERATOR}
    assert {each.partition("/")[0] for each in description.accelerators} == set(FUSED_STAGE)
    assert described_so(separation=separation).accelerators == {}


def test_on_this_machine_an_accelerator_changes_nothing() -> None:
    settings = make_job(accelerator=ACCELERATOR, runner="DirectRunner").pipeline_options
    assert settings.fused_stage_hints == {}


def test_the_description_shows_the_places_of_the_job() -> None:
    description = described(staging_location="gs://music/staging")
    text = json.dumps(description.job)
    assert dataflow.OFFLINE_ENDPOINT not in text and tempfile.gettempdir() not in text
    options = sdk_options(description)
    assert options["temp_location"] == OPTIONS["temp_location"]
    assert options["no_auth"] is False
    assert options["template_location"] is None
    assert description.job["environment"]["tempStoragePrefix"] == OPTIONS["temp_location"]


def test_options_without_a_field_pass_through() -> None:
    description = described(
        disk_provisioned_iops=100, sdk_harness_log_level_overrides={"a": "INFO"}
    )
    assert description.job["environment"]["workerPools"][0]["diskProvisionedIops"] == "100"
    assert sdk_options(description)["sdk_harness_log_level_overrides"] == {"a": "INFO"}


def test_a_limit_for_what_hangs_is_handed_on() -> None:
    options = sdk_options(described(element_processing_timeout_minutes=30))
    assert options["element_processing_timeout_minutes"] == 30


def test_what_is_not_set_is_left_to_beam() -> None:
    bare = PipelineOptions([]).get_all_options()
    given = {"runner", "project", "region", "temp_location", "sdk_container_image"}
    own = {"job_name", "save_main_session", "sdk_location"}
    ours = dataflow_options(make_job()).get_all_options()
    assert {name for name in ours if ours[name] != bare[name]} == given | own


def test_klio_s_name_of_the_image_and_its_lists_work() -> None:
    job = make_job(
        sdk_container_image=None,
        worker_harness_container_image="gcr.io/p/i:1",
        labels={"team": "audio"},
        experiments="a,b",
    )
    options = dataflow_options(job).get_all_options()
    assert options["sdk_container_image"] == "gcr.io/p/i:1"
    assert options["labels"] == ["team=audio"]
    assert options["experiments"] == ["a", "b"]


@pytest.mark.parametrize(
    ("options", "facts"),
    [
        ({"machine_typ": "n1"}, ["'machine_typ'", "'machine_type'"]),
        (
            {"worker_harness_container_image": "other"},
            ["worker_harness_container_image", "sdk_container_image"],
        ),
        ({"accelerator": "nvidia-l4"}, ["'nvidia-l4'", "type:…;count:N"]),
        ({"flexrs_goal": "CHEAP"}, ["pipeline_options.flexrs_goal", "COST_OPTIMIZED"]),
        ({"num_workers": 0}, ["pipeline_options.num_workers", "1"]),
    ],
)
def test_wrong_options_are_refused_when_the_file_is_read(
    options: dict[str, Any], facts: list[str]
) -> None:
    with pytest.raises(JobFileError) as error:
        make_job(**options)
    assert_names(error.value, *facts)


@pytest.mark.parametrize(
    ("options", "facts"),
    [
        ({"project": None}, ["project"]),
        ({"worker_disk_type": "pd-ssd", "region": None}, ["region", "worker_zone", "pd-ssd"]),
        ({"temp_location": None}, ["temp_location", "gs://"]),
        ({"temp_location": "temp"}, ["temp_location: temp"]),
        ({"staging_location": "x"}, ["staging_location: x"]),
        ({"sdk_container_image": None}, ["sdk_container_image"]),
        ({"setup_file": "nowhere/setup.py"}, ["setup_file: nowhere/setup.py"]),
        ({"disk_provisioned_iops": "many"}, ["--disk_provisioned_iops", "many"]),
        (
            {"accelerator": ACCELERATOR, "flexrs_goal": "COST_OPTIMIZED"},
            ["flexrs_goal", "accelerator"],
        ),
        (
            {"accelerator": ACCELERATOR, "dataflow_service_options": ["worker_accelerator=x"]},
            ["accelerator", "dataflow_service_options"],
        ),
    ],
)
def test_what_dataflow_needs_is_named(options: dict[str, Any], facts: list[str]) -> None:
    with pytest.raises(JobFileError) as error:
        dataflow_options(make_job(**options))
    assert_names(error.value, "pipeline_options", *facts)


def test_local_places_and_a_wrong_name_are_named_together() -> None:
    plain = plain_job()
    plain["job_name"] = "My_Job"
    plain["job_config"]["events"]["inputs"][0]["location"] = "in"
    plain["job_config"]["data"]["outputs"][0] = {"type": "file", "location": "out"}
    with pytest.raises(JobFileError) as error:
        dataflow_options(parse_job(plain, source="job.yaml"))
    places = [line.split(": ")[0] for line in str(error.value).splitlines()]
    assert places == [
        "job_config.events.inputs.0.location",
        "job_config.data.outputs.0.location",
        "job_name",
    ]


def test_gcs_data_lie_on_gs() -> None:
    plain = plain_job()
    plain["job_config"]["data"]["outputs"][0]["location"] = "out"
    with pytest.raises(JobFileError, match=r"'out' .*gs://"):
        parse_job(plain, source="job.yaml")


def write_job(tmp_path: Path, **options: Any) -> Path:
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(plain_job(**options)))
    return path


def test_a_dry_run_prints_a_summary_or_the_job(tmp_path: Path, command: Command) -> None:
    path = write_job(tmp_path, accelerator=ACCELERATOR, labels=["team=audio"])
    done = command("run", path, "--dry-run")
    assert done.returncode == 0, done.stderr
    lines = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert lines["job"] == "my-job, batch"
    assert lines["accelerator"].startswith(f"{ACCELERATOR} on CountAttempts, EncodeStems, ")
    assert lines["labels"] == "team=audio"
    assert lines["results"] == "gs://music/out"
    done = command("run", path, "--dry-run", "--log-format", "json")
    assert json.loads(done.stdout)["type"] == "JOB_TYPE_BATCH"


def test_missing_credentials_are_one_line(tmp_path: Path, command: Command) -> None:
    nobody = {"HOME": str(tmp_path), "CLOUDSDK_CONFIG": str(tmp_path), "NO_GCE_CHECK": "true"}
    nobody["GOOGLE_APPLICATION_CREDENTIALS"] = ""
    done = command("run", write_job(tmp_path), timeout_s=60, **nobody)
    assert done.returncode == 2
    assert_names(done.stderr, "error: ", "Google credentials", "gcloud auth")
    assert len(done.stderr.splitlines()) == 1


@pytest.fixture
def cloud() -> Iterator[CloudServer]:
    """A Dataflow without jobs."""
    with serving() as server:
        yield server


def submittable(cloud: CloudServer) -> dict[str, Any]:
    return {
        "dataflow_endpoint": cloud.address,
        "no_auth": True,
        "temp_location": f"gs://{BUCKET}/temp",
    }


@pytest.fixture
def bucket(gcs: StorageServer) -> StorageServer:
    """The storage, with many recordings in the job's bucket."""
    gcs.fill(f"in/{number:04}.wav" for number in range(5000))
    return gcs


def test_a_job_is_submitted_and_lists_its_recordings_on_a_worker(
    cloud: CloudServer, bucket: StorageServer
) -> None:
    submission = submit(make_job(**submittable(cloud)))
    ((job_id, job),) = cloud.jobs.items()
    assert (submission.job_id, job["name"]) == (job_id, "my-job")
    assert submission.url == (
        f"https://console.cloud.google.com/dataflow/jobs/europe-west4/{job_id}?project=my-project"
    )
    (sent,) = cloud.submitted
    assert sent["type"] == JobType.JOB_TYPE_BATCH
    assert not sent.get("replaceJobId")
    # To see that there is something takes no more.
    assert sum("prefix=in" in request for request in bucket.requests) <= 2
    (staged,) = [name for name in bucket.names("temp") if name.endswith("/pipeline.pb")]
    content = bucket.bucket.blob(staged).download_as_bytes()
    graph = beam_runner_api_pb2.Pipeline.FromString(content)
    names = {each.unique_name for each in graph.components.transforms.values()}
    assert "ReadEvents/List" in names
    # A file that ends its process is held back there.
    assert {"CountPlanning", "CountAttempts"} <= names


def test_a_job_that_is_submitted_removes_old_scratch_files(
    cloud: CloudServer, bucket: StorageServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = ["out/song/manifest.json", "out/song/vocals.flac"]
    for each in (*results, "out/.beamsplitter/scratch-host-1/parts/0.f32"):
        bucket.bucket.blob(each).upload_from_string(b"")
    submit(make_job(**submittable(cloud)))
    assert len(bucket.names("out")) == 3
    later_s = time.time() + 15 * 24 * 3600
    monkeypatch.setattr(time, "time", lambda: later_s)
    submit(make_job(**submittable(cloud)))
    assert bucket.names("out") == results


def test_who_may_not_remove_scratch_files_submits_all_the_same(
    cloud: CloudServer, bucket: StorageServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(files: GcsFiles, folder: str, before_s: float) -> Iterator[str]:
        raise StorageError(errno.EACCES, "may not be accessed", folder)

    monkeypatch.setattr(GcsFiles, "list_older", refused)
    assert submit(make_job(**submittable(cloud))).job_id in cloud.jobs


@pytest.mark.usefixtures("gcs")
def test_a_bucket_without_recordings_is_told_at_once(cloud: CloudServer) -> None:
    with pytest.raises(InputError, match="gs://music/in"):
        submit(make_job(**submittable(cloud)))
    assert not cloud.jobs


@pytest.mark.usefixtures("bucket")
def test_a_refusal_is_one_line(cloud: CloudServer) -> None:
    cloud.refusals["POST"] = (400, "The workflow could not be created")
    with pytest.raises(DataflowError) as error:
        submit(make_job(**submittable(cloud)))
    assert_names(error.value, "The workflow could not be created")
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("keys", "states", "messages", "code", "facts"),
    [
        ({}, [DONE], [], 0, []),
        ({"wait_for_pipeline_running": True}, [RUNNING], [], 0, []),
        (
            {"blocking": True},
            [DONE],
            [],
            0,
            [counts_of_run(finished=0, skipped=0, failed=0), "gs://music/out"],
        ),
        ({"blocking": True}, [FAILED], ["no quota"], 1, ["error: ", "failed", "no quota"]),
        ({"wait_for_pipeline_running": True}, [CANCELLED], [], 1, ["error: ", "cancelled"]),
    ],
)
def test_the_command_waits_as_the_file_says(
    keys: dict[str, Any],
    states: list[str],
    messages: list[str],
    code: int,
    facts: list[str],
    cloud: CloudServer,
    bucket: StorageServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    cloud.first_states, cloud.messages = [PENDING, *states], messages
    plain = plain_job(**submittable(cloud))
    plain["job_config"].update(keys)
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(plain))
    monkeypatch.setattr(sys, "argv", ["beamsplitter", "run", str(path)])
    monkeypatch.setattr(dataflow_jobs, "POLL_S", 0.001)
    with pytest.raises(SystemExit) as exit:
        app()
    (job_id,) = cloud.jobs
    assert exit.value.code == code
    output = capsys.readouterr()
    assert output.out.startswith(f"{job_id}\nhttps://console.cloud.google.com/")
    assert (output.err == "") is (not facts)
    assert_names(output.err, *facts)
    assert (cloud.states[job_id] == []) is bool(keys)  # else the command did not wait at all
    assert [name for name in bucket.names("temp") if name.endswith("/pipeline.pb")]


def run_counters(tmp_path: Path) -> dict[tuple[str, str], int]:
    """Counters of a real run: of six events one is finished before, and two fail."""
    music, out = tmp_path / "music", tmp_path / "out"
    for name in ("a.wav", "b.wav"):
        write(music / name, 2, 0)
    too_loud = 20 * made_signal(2, RATE, 1)
    soundfile.write(music / "c.wav", too_loud.T, RATE, subtype="FLOAT")
    write(music / LONG, 25, 0)
    (music / BROKEN).write_bytes(b"RIFF")
    scenario = Scenario(stems={"format": "wav", "bit_depth": "16"})
    counted: dict[tuple[str, str], int] = {}
    job = scenario.job(music, out)
    for elements in (("a.wav",), ("a.wav", "b.wav", "c.wav", LONG, BROKEN, GONE)):
        pipeline = beam.Pipeline(options=PipelineOptions([], runner="FnApiRunner"))
        build(job, pipeline | CreateEvents(elements), attempts=new_attempts())
        result = pipeline.run()
        result.wait_until_finish()
    for step, values in metrics_by_step(result).items():
        counted.update({(step, name): v for name, v in values.items() if isinstance(v, int)})
    return counted


def wait_blocking(
    cloud: CloudServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str
) -> int:
    plain = plain_job(**submittable(cloud))
    plain["job_config"]["blocking"] = True
    plain["job_config"]["data"]["outputs"][0]["location"] = f"gs://{BUCKET}/out"
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(plain))
    monkeypatch.setattr(sys, "argv", ["beamsplitter", "run", str(path), *arguments])
    monkeypatch.setattr(dataflow_jobs, "POLL_S", 0.001)
    with pytest.raises(SystemExit) as exit:
        app()
    return int(exit.value.code or 0)


def test_recordings_that_failed_are_told_at_the_end_of_a_blocking_job(
    cloud: CloudServer,
    bucket: StorageServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    cloud.first_states = [RUNNING, DONE]
    cloud.add_metrics(run_counters(tmp_path))
    cloud.metrics += [
        {"name": {"origin": "dataflow/v1b3", "name": "ElementCount"}, "scalar": 12},
        {
            "name": {
                "origin": "user",
                "name": "milliseconds",
                "context": {"namespace": "LoadAudio", "step": "s2"},
            },
            "distribution": {"sum": 12, "count": 2, "min": 5, "max": 7, "mean": 6},
        },
    ]
    assert wait_blocking(cloud, tmp_path, monkeypatch) == 1
    summary = json.loads(bucket.bucket.blob("out/run.json").download_as_bytes())
    assert summary["recordings"] == {
        "finished": 3,
        "skipped": 1,
        "passed_through": 0,
        "failed": 2,
        "clipped": 1,
        "total": 6,
    }
    assert summary["audio_s"] == 2 + 2 + 25
    assert summary["steps"]["LoadAudio"]["milliseconds"] == {
        "sum": 12,
        "count": 2,
        "min": 5,
        "max": 7,
    }
    said = capsys.readouterr().err
    assert_names(said, counts_of_run(finished=3, skipped=1, failed=2), "0:29 of audio")
    assert f"why some failed: gs://{BUCKET}/out/failures.jsonl" in said


def test_a_blocking_job_without_failures_ends_well(
    cloud: CloudServer,
    bucket: StorageServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    cloud.first_states = [RUNNING, DONE]
    cloud.add_metrics({("PublishTrack", "recordings"): 3, ("AcceptMessages", "in"): 3})
    assert wait_blocking(cloud, tmp_path, monkeypatch, "--log-format", "json") == 0
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (line["event"], line["recordings"]["finished"]) == ("summary", 3)
    assert "out/run.json" in bucket.names("out")


def test_a_job_whose_end_can_t_be_told_did_not_end_well(
    cloud: CloudServer,
    bucket: StorageServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    cloud.first_states = [RUNNING, DONE]
    cloud.refusals["GET .*/metrics"] = (403, "no dataflow.metrics.get")
    assert wait_blocking(cloud, tmp_path, monkeypatch) == 1
    assert "error: no permission: no dataflow.metrics.get" in capsys.readouterr().err
    assert "out/run.json" not in bucket.names("out")


STREAM: dict[str, Any] = {
    "type": "pubsub",
    "subscription": "projects/my-project/subscriptions/uploads",
}


def described_stream(events: dict[str, Any] = STREAM, **options: Any) -> JobDescription:
    plain = plain_job(streaming=True, **options)
    plain["job_config"]["events"]["inputs"] = [events]
    plain["job_config"]["data"]["inputs"] = [{"type": "gcs", "location": "gs://music/in"}]
    return describe(parse_job(plain, source="job.yaml"))


def test_a_streaming_job_has_the_flags_of_one() -> None:
    description = described_stream(
        labels=["team=audio"], accelerator=ACCELERATOR, max_num_workers=3, num_workers=1
    )
    environment = description.job["environment"]
    assert description.job["type"] == "JOB_TYPE_STREAMING"
    assert {
        "enable_streaming_engine",
        "enable_windmill_service",
        "use_runner_v2",
    } <= set(environment["experiments"])
    options = sdk_options(description)
    assert options["streaming"] is True
    assert options["enable_streaming_engine"] is True
    assert options["save_main_session"] is False
    assert options["sdk_location"] == "container"
    assert description.job["labels"] == {"team": "audio"}
    (pool,) = environment["workerPools"]
    assert pool["autoscalingSettings"]["maxNumWorkers"] == 3
    assert pool["numWorkers"] == 1
    for each in description.pipeline.components.environments.values():
        assert OPTIONS["sdk_container_image"].encode() in each.payload


@pytest.mark.parametrize(
    ("events", "field", "name"),
    [
        (STREAM, "subscription", STREAM["subscription"]),
        (
            {**STREAM, "topic": "projects/my-project/topics/new-objects"},
            "subscription",
            STREAM["subscription"],
        ),
        (
            {"type": "pubsub", "topic": "projects/my-project/topics/new-objects"},
            "topic",
            "projects/my-project/topics/new-objects",
        ),
    ],
)
def test_dataflow_reads_pubsub_itself(events: dict[str, Any], field: str, name: str) -> None:
    transforms = described_stream(events).pipeline.components.transforms.values()
    (read,) = [each for each in transforms if each.spec.urn == "beam:transform:pubsub_read:v1"]
    assert not read.subtransforms  # it is the service's, and no Python runs in it
    payload = beam_runner_api_pb2.PubSubReadPayload.FromString(read.spec.payload)
    assert payload.with_attributes is True
    assert getattr(payload, field) == name
    other = {"subscription": "topic", "topic": "subscription"}[field]
    assert getattr(payload, other) == ""
    assert not payload.id_attribute  # each notification of an object has one of its own


def test_a_stream_has_one_source_and_no_listing() -> None:
    description = described_stream()
    reads = [step for step in description.steps if step.startswith("ReadEvents/")]
    assert {step.split("/")[1] for step in reads} == {"Stream-0", "Count-0"}
    collections = description.pipeline.components.pcollections.values()
    assert beam_runner_api_pb2.IsBounded.UNBOUNDED in {each.is_bounded for each in collections}


@pytest.mark.parametrize("streaming", [False, True])
def test_topics_that_pubsub_can_not_have_are_told_before_anything_is_built(
    streaming: bool, command: Command, tmp_path: Path
) -> None:
    plain = plain_job(streaming=streaming)
    if streaming:
        plain["job_config"]["events"]["inputs"] = [STREAM]
    plain["job_config"]["events"]["outputs"] = [{"type": "pubsub", "topic": "projects/p/topics/xx"}]
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(plain))
    done = command("run", path, "--dry-run")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(
        f"error: {path}: job_config.events.outputs.0.topic: projects/p/topics/xx"
    )
    assert "'p' is no id of a project" in line


def test_events_that_are_no_recordings_need_the_folder_they_lie_below() -> None:
    plain = plain_job(streaming=True)
    plain["job_config"]["events"]["inputs"] = [STREAM]
    with pytest.raises(JobFileError) as error:
        describe(parse_job(plain, source="job.yaml"))
    assert_names(error.value, "job_config.data.inputs", "pubsub")
