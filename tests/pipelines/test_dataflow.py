"""Jobs on Dataflow: what would be submitted, and to whom it is handed."""

import http.server
import json
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions
from conftest import Command

from beamsplitter.pipelines import dataflow
from beamsplitter.pipelines.dataflow import JobDescription, dataflow_options, describe, submit
from beamsplitter.pipelines.events import EventList
from beamsplitter.pipelines.job_config import JobConfig, JobFileError, parse_job

ACCELERATOR = "type:nvidia-l4;count:1;machine_type:g2-standard-4;install-nvidia-driver"
OPTIONS = {
    "runner": "DataflowRunner",
    "streaming": False,
    "project": "my-project",
    "region": "europe-west4",
    "temp_location": "gs://my-bucket/temp",
    "sdk_container_image": "docker.pkg.dev/p/r/image:1",
}


def plain_job(**options: Any) -> dict[str, Any]:
    merged = {**OPTIONS, **options}
    return {
        "job_name": "my-job",
        "pipeline_options": {name: each for name, each in merged.items() if each is not None},
        "job_config": {
            "events": {"inputs": [{"type": "folder", "location": "gs://my-bucket/in"}]},
            "data": {"outputs": [{"type": "gcs", "location": "gs://my-bucket/out"}]},
        },
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
    assert (pool["diskSizeGb"], pool["diskType"]) == (50, "pd-ssd")
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


def test_a_streaming_job_has_the_flags_of_one() -> None:
    description = described(streaming=True)
    assert description.job["type"] == "JOB_TYPE_STREAMING"
    assert "enable_streaming_engine" in description.job["environment"]["experiments"]


def test_the_accelerator_is_for_the_separation_alone() -> None:
    description = described(accelerator=ACCELERATOR)
    separation = {step for step in description.steps if step.startswith("Separate/")}
    assert description.accelerators == dict.fromkeys(separation, ACCELERATOR)
    assert len(separation) > 3
    assert described().accelerators == {}


def test_on_this_machine_an_accelerator_changes_nothing() -> None:
    settings = make_job(accelerator=ACCELERATOR, runner="DirectRunner").pipeline_options
    assert settings.separation_hints == {}


def test_the_description_shows_the_places_of_the_job() -> None:
    description = described(staging_location="gs://my-bucket/staging")
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
    ("options", "complaint"),
    [
        ({"machine_typ": "n1"}, "'machine_typ' is no pipeline option of Beam: did you mean 'mach"),
        ({"worker_harness_container_image": "other"}, "two names of one option, and differ"),
        ({"accelerator": "nvidia-l4"}, "pipeline_options.accelerator: String should match"),
        ({"flexrs_goal": "CHEAP"}, "pipeline_options.flexrs_goal: Input should be"),
        ({"num_workers": 0}, "greater than or equal to 1"),
    ],
)
def test_wrong_options_are_refused_when_the_file_is_read(
    options: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(JobFileError) as error:
        make_job(**options)
    assert complaint in str(error.value)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"project": None}, "pipeline_options.project: name the"),
        ({"temp_location": None}, "pipeline_options.temp_location: name a folder on gs://"),
        ({"temp_location": "temp"}, "pipeline_options.temp_location: temp: the workers"),
        ({"staging_location": "x"}, "pipeline_options.staging_location: x: the workers"),
        ({"sdk_container_image": None}, "pipeline_options.sdk_container_image: name a container"),
        ({"setup_file": "nowhere/setup.py"}, "pipeline_options.setup_file: nowhere/setup.py: no"),
        ({"disk_provisioned_iops": "many"}, "pipeline_options: argument --disk_provisioned_iops"),
        ({"accelerator": ACCELERATOR, "flexrs_goal": "COST_OPTIMIZED"}, "no accelerators in Flex"),
        (
            {"accelerator": ACCELERATOR, "dataflow_service_options": ["worker_accelerator=x"]},
            "takes one or the other",
        ),
    ],
)
def test_what_dataflow_needs_is_named(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(JobFileError) as error:
        dataflow_options(make_job(**options))
    assert complaint in str(error.value)


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
    with pytest.raises(JobFileError, match=r"'out' does not begin with gs://"):
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
    assert lines["accelerator"].startswith(f"{ACCELERATOR} on Separate (")
    assert lines["labels"] == "team=audio"
    assert lines["results"] == "gs://my-bucket/out"
    done = command("run", path, "--dry-run", "--log-format", "json")
    assert json.loads(done.stdout)["type"] == "JOB_TYPE_BATCH"


def test_missing_credentials_are_one_line(tmp_path: Path, command: Command) -> None:
    nobody = {"HOME": str(tmp_path), "CLOUDSDK_CONFIG": str(tmp_path), "NO_GCE_CHECK": "true"}
    nobody["GOOGLE_APPLICATION_CREDENTIALS"] = ""
    done = command("run", write_job(tmp_path), timeout_s=60, **nobody)
    assert done.returncode == 2
    assert done.stderr.startswith("error: no Google credentials: run `gcloud auth")
    assert len(done.stderr.splitlines()) == 1


class Dataflow(http.server.BaseHTTPRequestHandler):
    """As much of Dataflow as takes a job."""

    jobs: list[dict[str, Any]]

    def do_POST(self) -> None:
        job = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.jobs.append(job)
        answer = json.dumps({"id": "2030-01-01_1", "name": job["name"]}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_arguments: Any) -> None:
        """Be quiet."""


@pytest.fixture
def service() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Address of a stand-in for Dataflow, and the jobs that it was sent."""
    jobs: list[dict[str, Any]] = []
    handler = type("Handler", (Dataflow,), {"jobs": jobs})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://localhost:{server.server_address[1]}", jobs
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_job_is_submitted_with_its_recordings(
    service: tuple[str, list[dict[str, Any]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint, jobs = service

    def into_a_folder(job: JobConfig) -> PipelineOptions:
        options = dataflow_options(job)
        options.view_as(GoogleCloudOptions).temp_location = str(tmp_path)
        options.view_as(GoogleCloudOptions).staging_location = str(tmp_path)
        return options

    listed = EventList("gs://my-bucket/in", "", ("one song.wav",))
    monkeypatch.setattr(dataflow, "dataflow_options", into_a_folder)
    monkeypatch.setattr(dataflow, "list_events", lambda job: listed)
    built = []
    build = dataflow.build
    monkeypatch.setattr(
        dataflow, "build", lambda *given: (built.append(given[2]), build(*given))[1]
    )
    submission = submit(make_job(dataflow_endpoint=endpoint, no_auth=True))
    assert submission.job_id == "2030-01-01_1"
    assert submission.url == (
        "https://console.cloud.google.com/dataflow/jobs/europe-west4/2030-01-01_1"
        "?project=my-project"
    )
    assert [job["name"] for job in jobs] == ["my-job"]
    assert built == [listed]
