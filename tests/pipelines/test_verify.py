"""Checks of a job's resources, against servers on loopback."""

import json
import platform
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import Command
from dataflow_server import BATCH, CloudServer, serving
from facts import assert_names
from google.api_core.exceptions import (
    InvalidArgument,
    MethodNotImplemented,
    PermissionDenied,
    ServiceUnavailable,
)
from google.cloud import pubsub_v1
from google.iam.v1 import iam_policy_pb2
from google.protobuf.duration_pb2 import Duration
from google.pubsub_v1 import types
from pubsub_server import PubSubServer
from storage_server import BUCKET, StorageServer

from beamsplitter.pipelines.checks.dataflow_checks import (
    DOCKER_HUB,
    cores_of,
    gpu_metric,
    parse_image,
)
from beamsplitter.pipelines.checks.findings import Finding
from beamsplitter.pipelines.checks.verify import complete, verify_job
from beamsplitter.pipelines.job.job_config import JobFileError, parse_job
from beamsplitter.pipelines.services.dataflow_jobs import DataflowError
from beamsplitter.storage.gcs import client as storage_client

PYTHON = platform.python_version()
TITLE, VERSION = "org.opencontainers.image.title", "org.opencontainers.image.version"
LABELS = {
    "org.apache.beam.version": version("apache-beam"),
    TITLE: "beamsplitter",
    VERSION: version("beamsplitter"),
}
REGION = "us-central1"
QUOTAS = [
    {"metric": "CPUS", "limit": 100, "usage": 20},
    {"metric": "N2_CPUS", "limit": 40, "usage": 8},
    {"metric": "IN_USE_ADDRESSES", "limit": 8, "usage": 0},
    {"metric": "NVIDIA_L4_GPUS", "limit": 4, "usage": 1},
]


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[CloudServer]:
    """Dataflow, Compute Engine, IAM, BigQuery and a registry; nobody needs credentials."""
    with serving() as server:
        server.quotas = QUOTAS
        monkeypatch.setenv(
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_COMPUTE", f"{server.address}/compute/v1/"
        )
        monkeypatch.setenv("CLOUDSDK_API_ENDPOINT_OVERRIDES_IAM", f"{server.address}/")
        monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", server.address)
        yield server


def batch(cloud: CloudServer, image: str | None = None, **options: Any) -> dict[str, Any]:
    image = image or cloud.add_image("beamsplitter:1", python=PYTHON, labels=LABELS)
    return {
        "job_name": "my-job",
        "pipeline_options": {
            "runner": "DataflowRunner",
            "streaming": False,
            "project": "my-project",
            "region": REGION,
            "temp_location": f"gs://{BUCKET}/temp",
            "sdk_container_image": image,
            "dataflow_endpoint": cloud.address,
            "no_auth": True,
            "max_num_workers": 4,
            "worker_machine_type": "n2-standard-4",
            **options,
        },
        "job_config": {
            "events": {"inputs": [{"type": "folder", "location": f"gs://{BUCKET}/in"}]},
            "data": {"outputs": [{"type": "gcs", "location": f"gs://{BUCKET}/out"}]},
        },
    }


def local(output: Path, *inputs: dict[str, Any], **options: Any) -> dict[str, Any]:
    return {
        "job_name": "my-job",
        "pipeline_options": {"runner": "DirectRunner", "streaming": False, **options},
        "job_config": {
            "events": {"inputs": list(inputs)},
            "data": {"outputs": [{"type": "file", "location": str(output)}]},
        },
    }


def verified(plain: dict[str, Any], *, create: bool = False) -> list[Finding]:
    return verify_job(parse_job(plain, source="job.yaml"), create=create)


def states(findings: list[Finding]) -> dict[str, str]:
    return {each.name: each.status for each in findings}


def found(findings: list[Finding], name: str) -> Finding:
    (finding,) = [each for each in findings if each.name == name]
    return finding


def test_a_job_whose_resources_are_all_there(cloud: CloudServer, gcs: StorageServer) -> None:
    gcs.bucket.blob("in/song.wav").upload_from_string(b"")
    cloud.accounts.add("worker@my-project.iam.gserviceaccount.com")
    plain = batch(cloud, service_account_email="worker@my-project.iam.gserviceaccount.com")
    findings = verified(plain)
    assert {each.status for each in findings} == {"ok"}, findings
    assert {each.kind for each in findings} == {
        "bucket",
        "recordings",
        "Dataflow",
        "image",
        "service account",
        "quota",
    }
    assert complete(findings)


def test_what_is_missing_is_told_and_nothing_made(cloud: CloudServer, gcs: StorageServer) -> None:
    plain = batch(
        cloud,
        image=f"{cloud.address.removeprefix('http://')}/other:2",
        temp_location="gs://no-such-bucket/temp",
        service_account_email="nobody@my-project.iam.gserviceaccount.com",
    )
    findings = verified(plain)
    assert not complete(findings)
    bucket = found(findings, "gs://no-such-bucket")
    assert bucket.status == "missing"
    assert f"gcloud storage buckets create gs://no-such-bucket --location={REGION}" in bucket.remark
    assert found(findings, "nobody@my-project.iam.gserviceaccount.com").status == "missing"
    assert found(findings, plain["pipeline_options"]["sdk_container_image"]).status == "missing"
    assert found(findings, f"gs://{BUCKET}/in").status == "warning"
    assert not [request for request in gcs.requests if not request.startswith("GET")]


def test_old_scratch_files_are_told_and_removed_where_things_are_made(
    cloud: CloudServer, gcs: StorageServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = [f"out/.beamsplitter/scratch-host-1/parts/{number}.f32" for number in range(3)]
    for each in (*left, "out/song/manifest.json", "in/song.wav"):
        gcs.bucket.blob(each).upload_from_string(b"")
    plain, name = batch(cloud), f"gs://{BUCKET}/out/.beamsplitter"
    assert name not in states(verified(plain, create=True))
    later_s = time.time() + 15 * 24 * 3600
    monkeypatch.setattr(time, "time", lambda: later_s)
    finding = found(verified(plain), name)
    assert (finding.kind, finding.status) == ("scratch files", "warning")
    assert_names(finding.remark, "3 of ", "14 days", "--create")
    assert gcs.names("out") == [*left, "out/song/manifest.json"]
    finding = found(verified(plain, create=True), name)
    assert (finding.status, finding.remark[:9]) == ("ok", "removed 3")
    assert gcs.names("out") == ["out/song/manifest.json"]
    assert gcs.names("in") == ["in/song.wav"]


@pytest.fixture
def buckets(cloud: CloudServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[CloudServer]:
    """The same server holds the buckets, too: it keeps their places and permissions."""
    cloud.buckets[BUCKET] = {"name": BUCKET, "location": REGION, "locationType": "region"}
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", cloud.address)
    storage_client.cache_clear()
    yield cloud
    storage_client.cache_clear()


def test_missing_buckets_are_made_in_the_job_s_region(buckets: CloudServer) -> None:
    plain = batch(buckets, temp_location="gs://made-bucket/temp")
    assert found(verified(plain), "gs://made-bucket").status == "missing"
    assert set(buckets.buckets) == {BUCKET}
    assert found(verified(plain, create=True), "gs://made-bucket").status == "created"
    made = buckets.buckets["made-bucket"]
    assert (made["location"], made["project"]) == (REGION, "my-project")
    assert made["iamConfiguration"]["uniformBucketLevelAccess"]["enabled"] is True
    assert found(verified(plain, create=True), "gs://made-bucket").status == "ok"


def test_a_bucket_is_not_made_just_anywhere(buckets: CloudServer, tmp_path: Path) -> None:
    plain = local(tmp_path, {"type": "folder", "location": "gs://nowhere/in"})
    finding = found(verified(plain, create=True), "gs://nowhere")
    assert finding.status == "missing"
    assert "pipeline_options.region" in finding.remark
    assert set(buckets.buckets) == {BUCKET}


@pytest.mark.parametrize(
    ("location", "kind", "status"),
    [
        ("us-central1", "region", "ok"),
        ("US-CENTRAL1", "region", "ok"),
        ("US", "multi-region", "ok"),
        ("NAM4", "dual-region", "ok"),
        ("EU", "multi-region", "warning"),
        ("EUROPE-WEST4", "region", "warning"),
    ],
)
def test_a_bucket_far_from_the_job_is_told(
    buckets: CloudServer, location: str, kind: str, status: str
) -> None:
    buckets.buckets[BUCKET] = {"name": BUCKET, "location": location, "locationType": kind}
    finding = found(verified(batch(buckets)), f"gs://{BUCKET}")
    assert finding.status == status
    assert ("between regions" in finding.remark) is (status == "warning")


def test_permissions_on_a_bucket_are_asked_for(buckets: CloudServer) -> None:
    # Who may read and write objects need not be allowed to look at the bucket.
    buckets.refusals["/storage/v1/b/locked$"] = (403, "no storage.buckets.get")
    plain = batch(buckets, temp_location="gs://locked/temp")
    buckets.permissions = ["storage.objects.get", "storage.objects.list"]
    finding = found(verified(plain), "gs://locked")
    assert finding.status == "no access"
    assert_names(finding.remark, "storage.objects.create", "storage.objects.delete")
    assert "storage.objects.get" not in finding.remark
    buckets.permissions = None
    assert found(verified(plain), "gs://locked").status == "ok"
    buckets.refusals["testPermissions"] = (403, "Access denied.")
    finding = found(verified(plain), "gs://locked")
    assert (finding.status, finding.remark) == ("no access", "Access denied.")


def stream(cloud: CloudServer, *inputs: dict[str, Any], **options: Any) -> dict[str, Any]:
    plain = batch(cloud, streaming=True, **options)
    plain["job_config"]["events"]["inputs"] = list(inputs)
    plain["job_config"]["data"]["inputs"] = [{"type": "gcs", "location": f"gs://{BUCKET}/in"}]
    return plain


@pytest.mark.usefixtures("gcs")
def test_topics_and_subscriptions_are_checked_and_made(
    cloud: CloudServer, pubsub: PubSubServer
) -> None:
    topic = pubsub.topic()
    short = pubsub.subscription(topic, ack_deadline_s=10)
    fresh = short.replace("/subscriptions/", "/subscriptions/new-")
    outgoing = topic.replace("/topics/", "/topics/new-")
    plain = stream(
        cloud,
        {"type": "pubsub", "subscription": short},
        {"type": "pubsub", "topic": topic, "subscription": fresh},
    )
    plain["job_config"]["events"]["outputs"] = [{"type": "pubsub", "topic": outgoing}]
    findings = verified(plain)
    finding = found(findings, short)
    assert finding.status == "warning"
    assert "ack deadline 10 s" in finding.remark
    assert found(findings, topic).status == "ok"
    assert found(findings, fresh).status == found(findings, outgoing).status == "missing"
    assert f"--topic={topic} --ack-deadline=600" in found(findings, fresh).remark
    findings = verified(plain, create=True)
    assert found(findings, fresh).status == found(findings, outgoing).status == "created"
    made = pubsub.subscriber.get_subscription(subscription=fresh)
    assert (made.topic, made.ack_deadline_seconds) == (topic, 600)
    findings = verified(plain, create=True)
    assert found(findings, fresh).status == found(findings, outgoing).status == "ok"
    assert pubsub.subscriber.get_subscription(subscription=short).ack_deadline_seconds == 10


@pytest.mark.usefixtures("gcs")
def test_what_can_t_be_made_is_missing(
    cloud: CloudServer, pubsub: PubSubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = pubsub.topic()
    outgoing = topic.replace("/topics/", "/topics/new-")
    fresh = topic.replace("/topics/", "/subscriptions/new-")
    plain = stream(cloud, {"type": "pubsub", "topic": topic, "subscription": fresh})
    plain["job_config"]["events"]["outputs"] = [{"type": "pubsub", "topic": outgoing}]
    for client, call in (
        (pubsub_v1.PublisherClient, "create_topic"),
        (pubsub_v1.SubscriberClient, "create_subscription"),
    ):

        def refuse(*_: object, **__: object) -> None:
            raise ServiceUnavailable("come back later")

        monkeypatch.setattr(client, call, refuse)
    findings = verified(plain, create=True)
    for name in (outgoing, fresh):
        finding = found(findings, name)
        assert finding.status == "missing"
        assert "503 come back later" in finding.remark
    assert not complete(findings)


def test_a_bucket_whose_name_is_taken_can_t_be_made(buckets: CloudServer) -> None:
    buckets.refusals["POST /storage/v1/b$"] = (409, "The requested bucket name is not available.")
    plain = batch(buckets, temp_location="gs://of-others/temp")
    findings = verified(plain, create=True)
    finding = found(findings, "gs://of-others")
    assert finding.status == "missing"
    assert "The requested bucket name is not available." in finding.remark
    assert not complete(findings)


@pytest.mark.usefixtures("gcs")
def test_what_a_service_refuses_is_told(
    cloud: CloudServer, pubsub: PubSubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise InvalidArgument("Invalid [subscriptions] name")

    subscription = pubsub.subscription(pubsub.topic())
    monkeypatch.setattr(pubsub_v1.SubscriberClient, "get_subscription", refuse)
    findings = verified(stream(cloud, {"type": "pubsub", "subscription": subscription}))
    finding = found(findings, subscription)
    assert finding.status == "refused"
    assert_names(finding.remark, "Invalid [subscriptions] name", "job file")
    assert not complete(findings)


@pytest.mark.usefixtures("gcs")
def test_a_subscription_without_a_topic_can_t_be_made(
    cloud: CloudServer, pubsub: PubSubServer
) -> None:
    name = f"projects/{pubsub.project}/subscriptions/never-made"
    plain = stream(cloud, {"type": "pubsub", "subscription": name})
    finding = found(verified(plain, create=True), name)
    assert finding.status == "missing"
    assert "topic" in finding.remark


@pytest.mark.usefixtures("gcs")
def test_a_subscription_of_another_topic_is_told(cloud: CloudServer, pubsub: PubSubServer) -> None:
    topic, other = pubsub.topic(), pubsub.topic()
    name = pubsub.subscription(other, ack_deadline_s=600)
    findings = verified(stream(cloud, {"type": "pubsub", "topic": topic, "subscription": name}))
    assert found(findings, name).status == "warning"
    assert_names(found(findings, name).remark, other, topic)
    assert complete(findings)


def granting(permissions: list[str], error: Exception | None = None) -> Callable[..., Any]:
    """What stands in for a service that grants just these: the server here grants all."""

    def answer(*_arguments: Any, **_options: Any) -> iam_policy_pb2.TestIamPermissionsResponse:
        if error:
            raise error
        return iam_policy_pb2.TestIamPermissionsResponse(permissions=permissions)

    return answer


@pytest.mark.usefixtures("gcs")
@pytest.mark.parametrize(
    ("answer", "status", "remark"),
    [
        (granting([]), "no access", "pubsub.topics.publish"),
        (granting(["pubsub.topics.publish"]), "ok", "events written"),
        (granting([], PermissionDenied("no such luck")), "no access", "no such luck"),
        (
            granting([], MethodNotImplemented("not here")),
            "ok",
            "permissions",
        ),
    ],
)
def test_permissions_on_a_topic_are_asked_for(
    answer: Callable[..., Any],
    status: str,
    remark: str,
    cloud: CloudServer,
    pubsub: PubSubServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pubsub_v1.PublisherClient, "test_iam_permissions", answer)
    topic = pubsub.topic()
    plain = batch(cloud)
    plain["job_config"]["events"]["outputs"] = [{"type": "pubsub", "topic": topic}]
    finding = found(verified(plain), topic)
    assert finding.status == status
    assert remark in finding.remark


def test_tables_are_checked(cloud: CloudServer, gcs: StorageServer) -> None:
    schema = {"schema": {"fields": [{"name": "element", "type": "STRING"}]}, "numRows": "3"}
    cloud.datasets = {"catalogue": {"songs": schema, "done": schema}}
    plain = batch(cloud)
    plain["job_config"]["data"]["inputs"] = [{"type": "gcs", "location": f"gs://{BUCKET}/in"}]
    plain["job_config"]["events"] = {
        "inputs": [
            {"type": "bq", "dataset": "catalogue", "table": "songs", "columns": ["element"]},
            {"type": "bq", "dataset": "catalogue", "table": "songs", "columns": ["uri"]},
            {"type": "bq", "dataset": "catalogue", "table": "nothing"},
        ],
        "outputs": [
            {"type": "bq", "dataset": "catalogue", "table": "done"},
            {"type": "bq", "dataset": "catalogue", "table": "new"},
            {"type": "bq", "dataset": "elsewhere", "table": "new"},
        ],
    }
    tables = [
        (each.name.removeprefix("my-project."), each.status)
        for each in verified(plain)
        if each.kind == "table"
    ]
    assert tables == [
        ("catalogue.songs", "ok"),
        ("catalogue.songs", "missing"),
        ("catalogue.nothing", "missing"),
        ("catalogue.done", "warning"),
        ("catalogue.new", "ok"),
        ("elsewhere.new", "missing"),
    ]


@pytest.mark.usefixtures("gcs")
@pytest.mark.parametrize(
    ("python", "labels", "complaint"),
    [
        ("3.9.1", LABELS, "Python 3.9,"),
        (PYTHON, {"org.apache.beam.version": "2.1.0"}, "Beam 2.1.0,"),
        (PYTHON, {**LABELS, VERSION: "0.0.9"}, "beamsplitter 0.0.9, as its label"),
    ],
)
def test_an_image_of_other_versions_is_told(
    cloud: CloudServer, python: str, labels: dict[str, str], complaint: str
) -> None:
    image = cloud.add_image("team/old:7", python=python, labels=labels)
    finding = found(verified(batch(cloud, image=image)), image)
    assert finding.status == "warning"
    assert complaint in finding.remark


@pytest.mark.usefixtures("gcs")
@pytest.mark.parametrize(
    ("tag", "labels", "status", "remark"),
    [
        ("1", LABELS, "ok", f"beamsplitter {version('beamsplitter')}, as its label"),
        ("9.9.9", LABELS, "ok", f"beamsplitter {version('beamsplitter')}, as its label"),
        (version("beamsplitter"), {}, "ok", "as its tag"),
        ("v0.0.9-cuda", {}, "warning", "beamsplitter 0.0.9, as its tag"),
        ("cuda", {}, "can't tell", "neither a label nor the tag"),
        # That of another program below it.
        ("cuda", {VERSION: "22.04", TITLE: "ubuntu"}, "can't tell", "neither a label nor the tag"),
    ],
)
def test_the_beamsplitter_in_an_image_is_compared(
    cloud: CloudServer, tag: str, labels: dict[str, str], status: str, remark: str
) -> None:
    image = cloud.add_image(f"team/songs:{tag}", python=PYTHON, labels=labels)
    finding = found(verified(batch(cloud, image=image)), image)
    assert finding.status == status
    assert remark in finding.remark


@pytest.mark.usefixtures("gcs")
def test_an_image_that_may_not_be_read_is_told(cloud: CloudServer) -> None:
    cloud.refusals["/v2/"] = (403, "denied")
    plain = batch(cloud)
    finding = found(verified(plain), plain["pipeline_options"]["sdk_container_image"])
    assert finding.status == "no access"
    assert "roles/artifactregistry.reader" in finding.remark


@pytest.mark.parametrize(
    ("image", "parsed"),
    [
        ("python", (DOCKER_HUB, "library/python", "latest")),
        ("apache/flink:2.0", (DOCKER_HUB, "apache/flink", "2.0")),
        ("docker.io/apache/flink", (DOCKER_HUB, "apache/flink", "latest")),
        ("eu-docker.pkg.dev/p/r/i:1", ("eu-docker.pkg.dev", "p/r/i", "1")),
        ("gcr.io/p/i@sha256:abc", ("gcr.io", "p/i", "sha256:abc")),
        ("localhost:5000/i:1", ("localhost:5000", "i", "1")),
        ("gcr.io/p/i:1@sha256:abc", ("gcr.io", "p/i", "sha256:abc")),
    ],
)
def test_names_of_images(image: str, parsed: tuple[str, str, str]) -> None:
    assert parse_image(image) == parsed


@pytest.mark.parametrize(
    ("machine", "cores"),
    [
        ("n2-standard-4", 4),
        ("g2-standard-48", 48),
        ("custom-6-8192", 6),
        ("n2-custom-10-20480", 10),
        ("e2-custom-4-8192-ext", 4),
        ("c3-standard-22-lssd", 22),
        ("e2-micro", None),
        ("a2-highgpu-1g", None),
    ],
)
def test_cores_of_a_machine_type(machine: str, cores: int | None) -> None:
    assert cores_of(machine) == cores


def test_quotas_of_gpus() -> None:
    assert gpu_metric("nvidia-tesla-t4") == "NVIDIA_T4_GPUS"
    assert gpu_metric("nvidia-l4") == "NVIDIA_L4_GPUS"
    assert gpu_metric("nvidia-a100-80gb") == "NVIDIA_A100_80GB_GPUS"


@pytest.mark.usefixtures("gcs")
def test_quotas_are_compared_with_the_most_workers(cloud: CloudServer) -> None:
    gpu = "type:nvidia-l4;count:1;install-nvidia-driver"
    findings = verified(batch(cloud, max_num_workers=8, accelerator=gpu))
    assert_names(found(findings, "N2_CPUS").remark, "32 needed", "4 for each n2-standard-4")
    assert found(findings, "N2_CPUS").status == "ok"
    assert found(findings, "IN_USE_ADDRESSES").status == "ok"
    assert found(findings, "NVIDIA_L4_GPUS").status == "warning"
    assert found(findings, "GPUS_ALL_REGIONS").status == "can't tell"
    cloud.project_quotas = [{"metric": "GPUS_ALL_REGIONS", "limit": 0, "usage": 0}]
    findings = verified(batch(cloud, max_num_workers=9, accelerator=gpu, use_public_ips=False))
    assert found(findings, "N2_CPUS").status == "warning"
    assert found(findings, "GPUS_ALL_REGIONS").status == "missing"
    assert "IN_USE_ADDRESSES" not in states(findings)
    findings = verified(batch(cloud, worker_machine_type="e2-standard-8", max_num_workers=10))
    assert found(findings, "CPUS").status == "ok"  # there is no quota of E2 alone
    findings = verified(batch(cloud, max_num_workers=None, worker_machine_type=None))
    assert found(findings, "CPUS").status == "can't tell"


@pytest.mark.usefixtures("gcs")
def test_what_can_t_be_seen_is_told_and_is_no_failure(cloud: CloudServer) -> None:
    cloud.refusals["/serviceAccounts/"] = (403, "no iam.serviceAccounts.get")
    findings = verified(batch(cloud, service_account_email="worker@p.iam.gserviceaccount.com"))
    assert found(findings, "worker@p.iam.gserviceaccount.com").status == "can't tell"
    assert complete(findings)


@pytest.mark.usefixtures("gcs")
def test_dataflow_is_asked_for_jobs_of_the_name(cloud: CloudServer, pubsub: PubSubServer) -> None:
    place = f"my-project, {REGION}"
    assert found(verified(batch(cloud)), place).status == "ok"
    cloud.add_job("my-job", type=BATCH)
    finding = found(verified(batch(cloud)), place)
    assert finding.status == "warning"
    assert "refused" in finding.remark
    cloud.jobs.clear()
    cloud.add_job("my-job")
    events = {"type": "pubsub", "topic": pubsub.topic()}
    assert found(verified(stream(cloud, events)), place).status == "warning"
    assert found(verified(stream(cloud, events, update=True)), place).status == "ok"
    cloud.refusals["/v1b3/"] = (403, "Dataflow API has not been used in project my-project")
    findings = verified(batch(cloud))
    (finding,) = [each for each in findings if each.kind == "Dataflow"]
    assert finding.status == "no access"
    assert "Dataflow API has not been used in project my-project" in finding.remark


def test_a_local_job_s_files_and_decoders(write_audio: Callable[..., Path], tmp_path: Path) -> None:
    folder = write_audio("in/song.wav").parent
    lines = tmp_path / "songs.txt"
    plain = local(
        tmp_path / "new" / "out",
        {"type": "folder", "location": str(folder)},
        {"type": "glob", "location": str(tmp_path / "**" / "*.wav")},
        {"type": "recording", "location": str(tmp_path / "none.wav")},
        {"type": "file", "location": str(lines)},
    )
    plain["job_config"]["data"]["inputs"] = [{"type": "file", "location": str(folder)}]
    findings = verified(plain)
    assert states(findings) == {
        str(folder): "ok",
        str(tmp_path / "**" / "*.wav"): "ok",
        str(tmp_path / "none.wav"): "missing",
        str(lines): "missing",
        str(tmp_path / "new" / "out"): "ok",
        "soundfile": "ok",
        "av": "ok",
    }
    assert not (tmp_path / "new").exists()


def test_results_below_a_file_can_t_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    plain = local(tmp_path / "file" / "out", {"type": "folder", "location": str(tmp_path)})
    assert found(verified(plain), str(tmp_path / "file" / "out")).status == "no access"


def test_places_on_other_file_systems_can_t_be_told(tmp_path: Path) -> None:
    plain = local("s3://music/stems", {"type": "folder", "location": str(tmp_path)})
    assert found(verified(plain), "s3://music/stems").status == "can't tell"


def test_weights_that_are_not_in_the_cache_are_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BEAMSPLITTER_MODEL_CACHE", str(tmp_path / "cache"))
    plain = local(tmp_path / "out", {"type": "folder", "location": str(tmp_path)})
    members = [{"separator": "hpss"}, {"separator": "umx:umxhq"}]
    findings = verified({**plain, "separation": {"ensemble": members}})
    assert found(findings, "hpss").status == "ok"
    lacking = found(findings, "umx:umxhq")
    assert (lacking.kind, lacking.status) == ("separator", "warning")
    assert "fetched" in lacking.remark
    assert complete(findings)


def test_a_job_that_can_t_run_on_dataflow_is_a_mistake(cloud: CloudServer) -> None:
    with pytest.raises(JobFileError, match=r"pipeline_options\.temp_location: .*gs://"):
        verified(batch(cloud, temp_location=None))


def test_nobody_signed_in_is_one_line(
    cloud: CloudServer, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    nobody = {"HOME": str(tmp_path), "CLOUDSDK_CONFIG": str(tmp_path), "NO_GCE_CHECK": "true"}
    nobody["GOOGLE_APPLICATION_CREDENTIALS"] = ""
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(batch(cloud, no_auth=False)))
    done = command("verify", path, timeout_s=60, **nobody)
    assert done.returncode == 2
    assert_names(done.stderr, "error: ", "Google credentials", "gcloud auth")
    assert len(done.stderr.splitlines()) == 1
    for name, value in nobody.items():
        monkeypatch.setenv(name, value)
    plain = local(tmp_path, {"type": "recording", "location": "gs://my-bucket/a.wav"})
    with pytest.raises(DataflowError, match="Google credentials"):
        verified(plain)


def test_the_command_prints_a_table_or_json(
    cloud: CloudServer, gcs: StorageServer, tmp_path: Path, command: Command
) -> None:
    gcs.bucket.blob("in/song.wav").upload_from_string(b"")
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(batch(cloud)))
    done = command("verify", path, "--log-format", "json")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert {line["status"] for line in lines} == {"ok"}
    done = command("verify", path, "-O", "pipeline_options.temp_location=gs://none-such/temp")
    assert done.returncode == 1, done.stderr
    row, fix = [line for line in done.stdout.splitlines() if "none-such" in line]
    assert "missing" in row and "gcloud storage buckets create gs://none-such" in fix
    assert "Permissions" in done.stdout
    assert command("verify", tmp_path / "nothing.yaml").returncode == 2


@pytest.mark.usefixtures("gcs")
def test_a_deleted_dead_letter_topic_is_told(cloud: CloudServer, pubsub: PubSubServer) -> None:
    topic, letters = pubsub.topic(), pubsub.topic()
    name = f"{topic.replace('/topics/', '/subscriptions/')}"
    wanted = types.Subscription(
        name=name,
        topic=topic,
        ack_deadline_seconds=600,
        message_retention_duration=Duration(seconds=3600),
        dead_letter_policy={"dead_letter_topic": letters, "max_delivery_attempts": 5},
    )
    made = pubsub.subscriber.create_subscription(wanted)
    if made.dead_letter_policy.dead_letter_topic != letters:
        pytest.skip("this server keeps no dead-letter policies")
    plain = stream(cloud, {"type": "pubsub", "subscription": name})
    assert found(verified(plain), letters).status == "ok"
    pubsub.publisher.delete_topic(topic=letters)
    findings = verified(plain)
    assert not complete(findings)
