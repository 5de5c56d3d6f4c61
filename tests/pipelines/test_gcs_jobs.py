"""The job with its recordings and its results on `gs://`, as a user runs it."""

import json
from pathlib import Path

import apache_beam as beam
import pytest
import soundfile
from apache_beam.options.pipeline_options import PipelineOptions
from conftest import Command, dead_letters, made_signal
from facts import assert_names
from result_checks import assert_whole, manifests, read_json
from storage_server import Fault, StorageServer

from beamsplitter.pipelines.commands.dry_run import counts_of_plan
from beamsplitter.pipelines.events.elements import list_events
from beamsplitter.pipelines.events.outputs import prepare_outputs
from beamsplitter.pipelines.events.sources import ReadEvents
from beamsplitter.pipelines.job.job_config import JobConfig, parse_job
from beamsplitter.pipelines.run import build
from beamsplitter.storage import Storage

IN, OUT = "gs://music/in", "gs://music/out"
SMALL = ("--workers", 2, "--part-seconds", 10)


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recordings of one part and of two, in folders, with awkward names."""
    folder = tmp_path_factory.mktemp("in")
    for seed, name in enumerate(("one", "album ü #1%?/-two's", "album ü #1%?/名前", "three")):
        path = folder / f"{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, made_signal(2, 8000, 1, seed).T, 8000)
    soundfile.write(folder / "long.wav", made_signal(15, 8000, 2, 9).T, 8000)
    soundfile.write(folder / "three.flac", made_signal(2, 8000, 1, 7).T, 8000)
    (folder / "broken.mp3").write_text("no audio")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """The files of an output tree but for those that name the place of the input."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
        and path.suffix not in (".json", ".jsonl")
        and path.name != "run.js"
        and not path.name.startswith("facts-")
    }


def downloaded(gcs: StorageServer, folder: Path) -> dict[str, bytes]:
    gcs.download("out", folder)
    assert_whole(folder)
    return contents(folder)


@pytest.fixture(scope="module")
def expected(
    songs: Path, tmp_path_factory: pytest.TempPathFactory, command: Command
) -> dict[str, bytes]:
    """What the job makes of the same files on this machine."""
    out = tmp_path_factory.mktemp("local")
    assert command("separate", songs, "-o", out, *SMALL).returncode == 1
    assert len(manifests(out)) == 6
    return contents(out)


@pytest.fixture
def bucket(gcs: StorageServer, songs: Path) -> StorageServer:
    """The server, with the recordings in its bucket."""
    gcs.upload(songs, "in")
    return gcs


def test_a_bucket_gives_the_same_bytes_as_a_folder(
    bucket: StorageServer, tmp_path: Path, command: Command, expected: dict[str, bytes]
) -> None:
    run = command("separate", IN, "-o", OUT, *SMALL)
    assert run.returncode == 1, run.stderr
    assert downloaded(bucket, tmp_path / "first") == expected
    assert set(dead_letters(tmp_path / "first")) == {"broken.mp3"}
    manifest = read_json(tmp_path / "first" / "long" / "manifest.json")
    assert manifest["input"]["uri"] == "gs://music/in/long.wav"
    assert not bucket.names("out/.beamsplitter")

    again = command("separate", IN, "-o", OUT, *SMALL, "--log-format", "json")
    lines = [json.loads(line) for line in again.stdout.splitlines()]
    finished = [line for line in lines if line["event"] == "finished"]
    assert len(finished) == 6 and all(line["skipped"] for line in finished)

    bucket.bucket.blob("out/long/background.flac").delete()
    bucket.bucket.blob("out/one/foreground.flac").upload_from_string(
        b"x" * len(expected["one/foreground.flac"])
    )
    command("separate", IN, "-o", OUT, *SMALL)
    assert read_json(tmp_path / "first" / "run.json")["recordings"]["finished"] == 6
    assert downloaded(bucket, tmp_path / "second") == expected
    assert read_json(tmp_path / "second" / "run.json")["recordings"]["finished"] == 2


def test_a_service_that_falters_costs_nothing(
    bucket: StorageServer, tmp_path: Path, command: Command, expected: dict[str, bytes]
) -> None:
    bucket.faults = [
        # Of recordings: the launcher, whose tries nobody counts, reads manifests only.
        Fault("GET .*/in.*alt=media", 503, times=3),
        Fault("GET .*/in.*alt=media", "truncate", times=2),
        Fault("POST /upload", "lost answer", times=2),
        Fault("POST /upload", 503, times=2),
        Fault("GET /storage", "reset", times=3),
        Fault("DELETE", 503, times=1),
    ]
    run = command("separate", IN, "-o", OUT, *SMALL)
    assert run.returncode == 1, run.stderr
    assert not any(fault.times for fault in bucket.faults)
    assert downloaded(bucket, tmp_path / "out") == expected
    assert set(dead_letters(tmp_path / "out")) == {"broken.mp3"}
    assert read_json(tmp_path / "out" / "run.json")["steps"]["Storage"]["retries"] > 3


def asked(gcs: StorageServer, bucket: str = "music") -> list[str]:
    """The requests so far about a bucket and what lies in it."""
    # The client looks the bucket itself up for its traces, in the background.
    itself = f"GET /storage/v1/b/{bucket}?"
    found = (each for each in gcs.requests if f"/b/{bucket}" in each)
    return [each for each in found if not each.startswith(itself)]


def assert_paid(requests: list[str], project: str) -> None:
    """A project is named as the one that pays for each of the requests."""
    assert requests
    assert not [each for each in requests if f"userProject={project}" not in each]


KEY = "projects/p/locations/eu/keyRings/r/cryptoKeys/{}"


def test_the_project_that_pays_and_the_key_are_passed_on(
    bucket: StorageServer, tmp_path: Path, command: Command
) -> None:
    job = tmp_path / "job.yaml"
    key = KEY.format("k")
    job.write_text(
        f"""
job_name: keys
pipeline_options: {{runner: DirectRunner, streaming: false}}
storage: {{user_project: my-budget, kms_key: {key}}}
job_config:
  events:
    inputs: [{{type: file, location: "gs://music/lists/*.txt"}}]
    outputs: [{{type: avro, location: "gs://music/done/list", mime_type: application/x-songs}}]
  data:
    inputs: [{{type: gcs, location: "{IN}"}}]
    outputs: [{{type: gcs, location: "{OUT}"}}]
separation: {{part_seconds: 10}}
plots: {{enabled: false}}
"""
    )
    bucket.bucket.blob("lists/songs.txt").upload_from_string("long.wav\none.wav\n")
    # Of an earlier run with more shards: it goes.
    bucket.bucket.blob("done/list-00001-of-00002").upload_from_string("old")
    bucket.requests.clear()
    for workers in (1, 2):
        run = command("run", job, "--workers", workers, "--force")
        assert run.returncode == 0, run.stderr
    assert command("run", job, "--dry-run").returncode == 0
    assert_paid(asked(bucket), "my-budget")
    methods = {each.split()[0] for each in asked(bucket)}
    assert methods == {"GET", "POST", "PATCH", "DELETE"}
    assert any("GET /storage/v1/b/music/o?" in each for each in asked(bucket))
    uploads = [request for request in bucket.requests if request.startswith("POST /upload")]
    assert len(uploads) > 8
    assert all(f"kmsKeyName={key}" in request for request in uploads)
    (name,) = bucket.names("done")
    assert bucket.bucket.get_blob(name).content_type == "application/x-songs"


def test_the_project_pays_for_commands_too(
    bucket: StorageServer, tmp_path: Path, command: Command
) -> None:
    pays = ("-O", "storage.user_project=my-budget")
    bucket.requests.clear()
    done = command("separate", f"{IN}/o*.wav", "-o", OUT, "--no-plots", *pays)
    assert done.returncode == 0, done.stderr
    # Whether it is a pattern is asked for, too.
    assert any("/o/in/o*.wav?" in each for each in asked(bucket))
    assert_paid(asked(bucket), "my-budget")
    bucket.requests.clear()
    done = command("check", OUT, "--user-project", "my-budget")
    assert done.returncode == 0, done.stderr
    assert_paid(asked(bucket), "my-budget")
    job = tmp_path / "job.yaml"
    job.write_text(
        f"""
job_name: checked
pipeline_options: {{runner: DirectRunner, streaming: false}}
storage: {{user_project: my-budget}}
job_config:
  events: {{inputs: [{{type: folder, location: "{IN}"}}]}}
  data: {{outputs: [{{type: gcs, location: "{OUT}"}}]}}
"""
    )
    bucket.requests.clear()
    command("verify", job)
    assert any("prefix=out/.beamsplitter/" in each for each in asked(bucket))
    assert_paid(asked(bucket), "my-budget")


class Whole(beam.PTransform):
    """The graph of a job, as a step of another one."""

    def __init__(self, job: JobConfig) -> None:
        super().__init__()
        self.job = job

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection:
        """The receipts."""
        return build(self.job, pipeline | ReadEvents(self.job), local_workers=1)["receipts"]


def test_jobs_in_one_process_use_buckets_each_in_its_own_way(
    gcs: StorageServer, songs: Path
) -> None:
    other = gcs.bucket.client.create_bucket("other")
    for name in ("one.wav", "three.wav", "long.wav"):
        for place in (gcs.bucket, other):
            place.blob(f"in/{name}").upload_from_filename(str(songs / name))
    jobs = {
        each: parse_job(
            {
                "job_name": each,
                "pipeline_options": {"runner": "DirectRunner", "streaming": False},
                "storage": {"user_project": f"of-{each}", "kms_key": KEY.format(each)},
                "job_config": {
                    "events": {
                        "inputs": [{"type": "folder", "location": f"gs://{each}/in"}],
                        "outputs": [{"type": "avro", "location": f"gs://{each}/done"}],
                    },
                    "data": {"outputs": [{"type": "gcs", "location": f"gs://{each}/out"}]},
                },
                "separation": {"part_seconds": 10},
            },
            source="test",
        )
        for each in ("music", "other")
    }
    gcs.requests.clear()
    try:
        listed = [list_events(job) for job in jobs.values()]
        assert listed[0] == listed[1] == ("long.wav", "one.wav", "three.wav")
        for job in jobs.values():
            job.output_tree.require_writable()
            prepare_outputs(job)
        # Bundles of both come in turns.
        with beam.Pipeline(options=PipelineOptions([], runner="FnApiRunner")) as pipeline:
            for name, job in jobs.items():
                pipeline | name >> Whole(job)
        for job in jobs.values():
            job.output_tree.clear_scratch()
        requests = {name: asked(gcs, name) for name in jobs}
        for name, of_job in requests.items():
            assert_paid(of_job, f"of-{name}")
            assert {each.split()[0] for each in of_job} == {"GET", "POST", "PATCH", "DELETE"}
            uploads = [each for each in of_job if each.startswith("POST /upload")]
            assert all(f"kmsKeyName={KEY.format(name)}" in each for each in uploads)
            stored = Storage().list_names(f"gs://{name}/out")
            assert sum(each.endswith("/manifest.json") for each in stored) == 3
    finally:
        other.delete(force=True)


def test_results_beside_the_recordings_are_no_recordings(
    bucket: StorageServer, command: Command
) -> None:
    for place in (IN, f"{IN}/results"):
        assert command("separate", IN, "-o", place, "--no-plots").returncode == 1
        again = command("separate", IN, "-o", place, "--no-plots", "--dry-run")
        assert counts_of_plan(do=0, skip=6, refuse=1) in again.stdout


def test_globs_single_objects_and_lines_of_a_file(
    bucket: StorageServer, tmp_path: Path, command: Command
) -> None:
    def planned(*arguments: object) -> list[str]:
        run = command(*arguments, "--dry-run", "--log-format", "json")
        assert run.returncode == 0, run.stderr
        return [json.loads(line)["element"] for line in run.stdout.splitlines()]

    assert planned("separate", f"{IN}/*.wav", "-o", OUT) == ["long.wav", "one.wav", "three.wav"]
    assert len(planned("separate", f"{IN}/**/*.wav", "-o", OUT)) == 5
    bucket.bucket.blob("in/three.txt").upload_from_string("no recording")
    assert planned("separate", f"{IN}/three.*", "-o", OUT) == ["three.flac", "three.wav"]
    assert planned("separate", f"{IN}/three.flac", f"{IN}/one.wav", "-o", OUT) == [
        "three.flac",
        "one.wav",
    ]
    bucket.bucket.blob("lists/songs.txt").upload_from_string("one\nthree\n")
    job = tmp_path / "job.yaml"
    job.write_text(
        """
job_name: lines
pipeline_options: {runner: DirectRunner, streaming: false}
job_config:
  events: {inputs: [{type: file, location: "gs://music/lists/songs.txt"}]}
  data:
    inputs: [{type: gcs, location: "gs://music/in", file_suffix: .wav}]
    outputs: [{type: gcs, location: "gs://music/out"}]
"""
    )
    assert planned("run", job) == ["one", "three"]


def test_without_credentials_there_is_one_clear_error(tmp_path: Path, command: Command) -> None:
    run = command(
        *("separate", IN, "-o", tmp_path / "out"),
        timeout_s=20,
        STORAGE_EMULATOR_HOST="",
        GOOGLE_APPLICATION_CREDENTIALS="",
        CLOUDSDK_CONFIG=str(tmp_path),
        NO_GCE_CHECK="true",
    )
    assert run.returncode == 2
    assert run.stderr.count("\n") == 1
    assert_names(run.stderr, "credentials", "Cloud Storage", "gcloud auth")


def test_what_is_there_is_meant_before_a_pattern(
    gcs: StorageServer, tmp_path: Path, command: Command
) -> None:
    for name in ("a[1].wav", "a1.wav", "live[2]/b.wav", "live2/b.wav"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(tmp_path / "in" / name, made_signal(1, 8000, 1).T, 8000)
    gcs.upload(tmp_path / "in", "in")
    meant = {
        "a[1].wav": "a[1].wav",
        "live[2]": "live[2]/b.wav",
        "a[1-2].wav": "a1.wav",
        "live[23]/*.wav": "live2/b.wav",
    }
    for root in (IN, f"{tmp_path}/in"):
        inputs = (f"{root}/{name}" for name in meant)
        run = command("separate", *inputs, "-o", OUT, "--dry-run", "--log-format", "json")
        elements = [json.loads(line)["element"] for line in run.stdout.splitlines()]
        assert elements == list(meant.values()), run.stderr


def test_an_empty_or_missing_place_is_a_mistake_in_the_call(
    gcs: StorageServer, command: Command
) -> None:
    run = command("separate", "gs://music/nothing", "-o", OUT)
    assert run.returncode == 2
    assert_names(run.stderr, "gs://music/nothing", ".wav", ".flac")
    run = command("separate", "gs://no-such-bucket/in", "-o", OUT)
    assert run.returncode == 2
    assert_names(run.stderr, "gs://no-such-bucket/in: ", "not there")
    run = command("separate", "gs://music/in", "/tmp", "-o", OUT)
    assert run.returncode == 2
