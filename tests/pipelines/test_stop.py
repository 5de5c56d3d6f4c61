"""Stopping, waiting for and updating jobs on Dataflow."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import Command
from dataflow_server import (
    BATCH,
    CANCELLED,
    DONE,
    DRAINED,
    DRAINING,
    FAILED,
    PENDING,
    RUNNING,
    CloudServer,
    serving,
)
from facts import assert_names
from storage_server import BUCKET

from beamsplitter.pipelines.job.job_config import JobConfig, JobFileError, parse_job
from beamsplitter.pipelines.services import dataflow_jobs
from beamsplitter.pipelines.services.dataflow import describe, submit, summary
from beamsplitter.pipelines.services.dataflow_jobs import (
    DataflowError,
    DataflowJobs,
    NoSuchJobError,
    stop_job,
)

NAME = "my-stream"
SUBSCRIPTION = "projects/my-project/subscriptions/uploads"


@pytest.fixture
def cloud() -> Iterator[CloudServer]:
    """A Dataflow without jobs."""
    with serving() as server:
        yield server


@pytest.fixture(autouse=True)
def asked_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits ten seconds between two questions."""
    monkeypatch.setattr(dataflow_jobs, "POLL_S", 0.001)


def plain_stream(endpoint: str, **options: Any) -> dict[str, Any]:
    return {
        "job_name": NAME,
        "pipeline_options": {
            "runner": "DataflowRunner",
            "project": "my-project",
            "region": "europe-west4",
            "temp_location": f"gs://{BUCKET}/temp",
            "sdk_container_image": "docker.pkg.dev/p/r/image:1",
            "dataflow_endpoint": endpoint,
            "no_auth": True,
            **options,
        },
        "job_config": {
            "events": {"inputs": [{"type": "pubsub", "subscription": SUBSCRIPTION}]},
            "data": {
                "inputs": [{"type": "gcs", "location": "gs://my-bucket/in"}],
                "outputs": [{"type": "gcs", "location": "gs://my-bucket/out"}],
            },
        },
    }


def stream(cloud: CloudServer, **options: Any) -> JobConfig:
    return parse_job(plain_stream(cloud.address, **options), source="job.yaml")


def test_a_stream_is_drained(cloud: CloudServer) -> None:
    other, job_id = cloud.add_job("my-stream-2"), cloud.add_job(NAME)
    found, state = stop_job(stream(cloud))
    assert (found.id, state) == (job_id, "draining")
    assert cloud.jobs[job_id]["currentState"] == DRAINING
    assert cloud.jobs[other]["currentState"] == RUNNING
    assert stop_job(stream(cloud), wait=True)[1] == "drained"


def test_a_stream_can_be_cancelled_even_while_it_drains(cloud: CloudServer) -> None:
    job_id = cloud.add_job(NAME, state=DRAINING)
    assert stop_job(stream(cloud), mode="cancel", wait=True)[1] == "cancelled"
    assert cloud.jobs[job_id]["currentState"] == CANCELLED


def test_a_batch_job_is_cancelled_and_never_drained(cloud: CloudServer) -> None:
    job_id = cloud.add_job(NAME, type=BATCH)
    with pytest.raises(JobFileError, match=r"batch .*drain"):
        stop_job(stream(cloud), mode="drain")
    assert cloud.jobs[job_id]["currentState"] == RUNNING
    assert stop_job(stream(cloud), wait=True)[1] == "cancelled"


def test_a_job_that_is_being_stopped_is_left_to_it(cloud: CloudServer) -> None:
    cloud.add_job(NAME, state=DRAINING)
    assert stop_job(stream(cloud))[1] == "draining"
    assert not [request for request in cloud.requests if request.startswith("PUT")]


@pytest.mark.parametrize("state", [None, DONE, FAILED, DRAINED, CANCELLED])
def test_no_running_job_of_the_name_is_told(cloud: CloudServer, state: str | None) -> None:
    if state:
        cloud.add_job(NAME, state=state)
    with pytest.raises(NoSuchJobError, match=f"{NAME} .*my-project"):
        stop_job(stream(cloud))


def test_a_job_that_fails_in_the_end_says_why(cloud: CloudServer) -> None:
    job_id = cloud.add_job(NAME, state=DRAINING)
    cloud.states[job_id] = [DRAINING, FAILED]
    cloud.messages = ["Workflow failed: out of memory"]
    with pytest.raises(DataflowError, match="Workflow failed: out of memory"):
        stop_job(stream(cloud), wait=True)


def test_no_permission_is_told(cloud: CloudServer) -> None:
    cloud.refusals["GET /v1b3"] = (403, "Could not list jobs in my-project")
    with pytest.raises(DataflowError, match=r"permission.*: Could not list jobs in my-project"):
        stop_job(stream(cloud))


def test_nobody_signed_in_is_told(
    cloud: CloudServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HOME", "CLOUDSDK_CONFIG"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    with pytest.raises(DataflowError, match=r"Google credentials.*gcloud auth"):
        stop_job(stream(cloud, no_auth=False))
    assert cloud.requests == []


def test_a_service_that_is_away_is_told() -> None:
    with serving() as gone:
        job = stream(gone)
    with pytest.raises(DataflowError, match=r"Dataflow .*reached"):
        stop_job(job)


def test_the_region_is_that_of_gcloud_unless_the_file_names_one(
    cloud: CloudServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLOUDSDK_COMPUTE_REGION", "asia-east1")
    assert DataflowJobs(stream(cloud).pipeline_options).region == "europe-west4"
    anywhere = stream(cloud, region=None).pipeline_options
    assert DataflowJobs(anywhere).region == "asia-east1"
    monkeypatch.delenv("CLOUDSDK_COMPUTE_REGION")
    monkeypatch.setenv("PATH", "")  # no gcloud either
    with pytest.raises(JobFileError, match=r"pipeline_options\.region: name the region"):
        DataflowJobs(anywhere)


def test_a_job_on_this_machine_is_stopped_otherwise(cloud: CloudServer) -> None:
    with pytest.raises(JobFileError, match="Ctrl-C"):
        stop_job(stream(cloud, runner="DirectRunner"))


def test_the_command_stops_a_job(cloud: CloudServer, tmp_path: Path, command: Command) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(plain_stream(cloud.address)))
    done = command("stop", path)
    assert (done.returncode, done.stdout) == (1, "")
    assert_names(done.stderr, "error: ", NAME)
    assert len(done.stderr.splitlines()) == 1
    job_id = cloud.add_job(NAME)
    done = command("stop", path, "--log-format", "json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"job_name": NAME, "job_id": job_id, "state": "draining"}
    assert command("stop", path, "--drain", "--cancel").returncode == 2
    done = command("stop", path, "-O", "pipeline_options.project=")
    assert done.returncode == 2
    assert done.stderr.startswith("error: pipeline_options.project: ")


def test_waiting_ends_when_the_job_runs(cloud: CloudServer) -> None:
    jobs = DataflowJobs(stream(cloud).pipeline_options)
    job_id = cloud.add_job(NAME, state=PENDING)
    cloud.states[job_id] = ["JOB_STATE_QUEUED", PENDING, RUNNING, DONE]
    jobs.wait_until_running(job_id)
    assert cloud.states[job_id] == [DONE]


def test_waiting_ends_with_a_job_that_never_ran(
    cloud: CloudServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = DataflowJobs(stream(cloud).pipeline_options)
    job_id = cloud.add_job(NAME, state=PENDING)
    cloud.states[job_id] = [PENDING, FAILED]
    cloud.messages = ["no such image"]
    with pytest.raises(DataflowError, match=r"failed.*: no such image"):
        jobs.wait_until_running(job_id)
    monkeypatch.setattr(dataflow_jobs, "RUNNING_TIMEOUT_S", 0.0)
    slow_id = cloud.add_job(NAME, state=PENDING)
    with pytest.raises(DataflowError, match=f"pending .*{slow_id}"):
        jobs.wait_until_running(slow_id)


@pytest.mark.parametrize("end", [DONE, DRAINED, "JOB_STATE_UPDATED"])
def test_waiting_for_the_end_goes_on_while_dataflow_is_away(cloud: CloudServer, end: str) -> None:
    jobs = DataflowJobs(stream(cloud).pipeline_options)
    job_id = cloud.add_job(NAME)
    cloud.states[job_id] = [RUNNING, RUNNING, end]
    cloud.outages = [503, 429]
    jobs.wait(job_id)
    assert cloud.states[job_id] == cloud.outages == []


def test_waiting_for_a_cancelled_job_says_so(cloud: CloudServer) -> None:
    job_id = cloud.add_job(NAME, state=CANCELLED)
    with pytest.raises(DataflowError, match="cancelled"):
        DataflowJobs(stream(cloud).pipeline_options).wait(job_id)


@pytest.mark.usefixtures("gcs")
def test_an_update_replaces_the_running_job(cloud: CloudServer) -> None:
    cloud.add_job("another")
    running = cloud.add_job(NAME)
    renamed = {"Separate/Old": "Separate/New", "Gone": ""}
    submission = submit(stream(cloud, update=True, transform_name_mapping=renamed))
    (job,) = cloud.submitted
    assert job["replaceJobId"] == running
    assert job["transformNameMapping"] == renamed
    assert submission.job_id in cloud.jobs
    assert submission.job_id != running


@pytest.mark.parametrize(
    ("type", "state", "complaint"),
    [
        (None, None, f"{NAME} .*without --update"),
        ("JOB_TYPE_STREAMING", DRAINED, f"{NAME} .*without --update"),
        ("JOB_TYPE_STREAMING", DRAINING, "is draining"),
        (BATCH, RUNNING, "batch .*stream"),
    ],
)
def test_what_can_t_be_updated_is_told(
    cloud: CloudServer, type: str | None, state: str, complaint: str
) -> None:
    if type:
        cloud.add_job(NAME, type=type, state=state)
    with pytest.raises(DataflowError, match=complaint):
        submit(stream(cloud, update=True))
    assert cloud.submitted == []


def test_an_update_is_described_without_a_service() -> None:
    plain = plain_stream("http://localhost:1", update=True, transform_name_mapping={"A": "B"})
    job = parse_job(plain, source="job.yaml")
    description = describe(job)
    assert description.job["transformNameMapping"] == {"A": "B"}
    assert description.job["environment"]["sdkPipelineOptions"]["options"]["update"] is True
    assert dict(summary(job, description))["updates"].endswith("renamed steps A=B")


def test_the_command_updates_only_on_dataflow(tmp_path: Path, command: Command) -> None:
    plain = plain_stream("http://localhost:1", streaming=False)
    plain["job_config"]["events"]["inputs"] = [{"type": "folder", "location": "gs://my-bucket/in"}]
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(plain))
    done = command("run", path, "--update")
    assert done.returncode == 2
    assert "error: pipeline_options.update: " in done.stderr
    done = command("run", path, "--update", "-O", "pipeline_options.runner=DirectRunner")
    assert done.returncode == 2
    assert_names(done.stderr, "error: --update: ", "Dataflow")
