"""What Klio's contract says of whole jobs: existence checks, finished messages, upstream jobs."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apache_beam as beam
import fastavro
import pytest
from apache_beam.io.gcp.pubsub import PubsubMessage
from apache_beam.options.pipeline_options import PipelineOptions
from bigquery_server import BigQueryServer
from conftest import Command, dead_letters
from graph_runs import run
from pubsub_server import PubSubServer
from storage_server import StorageServer

from beamsplitter.pipelines.commands.progress import counts_of_run
from beamsplitter.pipelines.job.job_config import JobConfig, parse_job
from beamsplitter.pipelines.run import build
from beamsplitter.storage import OutputTree
from beamsplitter.transforms.klio.message import KlioJob, new_message, parse_message

WriteAudio = Callable[..., Path]


def job_for(tmp_path: Path, output: dict[str, Any] | None = None, **job_config: Any) -> JobConfig:
    return parse_job(
        {
            "job_name": "stems",
            "pipeline_options": {"runner": "DirectRunner", "streaming": False, "project": "tests"},
            "job_config": {
                "data": {
                    "inputs": [
                        {
                            "type": "file",
                            "location": str(tmp_path / "music"),
                            "file_suffix": ".wav",
                        }
                    ],
                    "outputs": [
                        {"type": "file", "location": str(tmp_path / "out"), **(output or {})}
                    ],
                },
                **job_config,
            },
            "plots": {"enabled": False},
        },
        source="test",
    )


@pytest.fixture
def music(write_audio: WriteAudio, tmp_path: Path) -> Path:
    """A folder of one recording."""
    write_audio("music/song.wav", seconds=2.5, sample_rate=8000)
    return tmp_path / "music"


def is_made(tmp_path: Path) -> bool:
    return (tmp_path / "out" / "song" / "manifest.json").is_file()


def test_what_the_suffix_of_the_output_finds_is_finished(music: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "song.png").write_bytes(b"made by another job")
    (finished,) = run(job_for(tmp_path, {"file_suffix": ".png"}), [new_message("song")])
    assert json.loads(finished.data.payload)["skipped"] is True
    assert not is_made(tmp_path)


@pytest.mark.parametrize(
    "output",
    [
        {"file_suffix": ".jpg"},
        {"file_suffix": ".png", "skip_klio_existence_check": True},
        {"file_suffix": ".png", "force": True},
        {},
    ],
)
def test_else_it_is_done(music: Path, tmp_path: Path, output: dict[str, Any]) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "song.png").write_bytes(b"made by another job")
    run(job_for(tmp_path, output), [new_message("song")])
    assert is_made(tmp_path)


def test_force_on_the_message_does_it_again(music: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "song.png").write_bytes(b"made by another job")
    message = new_message("song")
    message.metadata.force = True
    run(job_for(tmp_path, {"file_suffix": ".png"}), [message])
    assert is_made(tmp_path)


def test_the_message_of_a_finished_recording_says_what_lies_where(
    music: Path, tmp_path: Path
) -> None:
    job = job_for(tmp_path)
    (first,) = run(job, [new_message("song", payload=b"from upstream")])
    made = json.loads(first.data.payload)
    assert made["folder"] == str(tmp_path / "out" / "song")
    assert made["duration_s"] == 2.5
    assert made["skipped"] is False
    manifest = json.loads((tmp_path / "out" / "song" / "manifest.json").read_text())
    assert made["files"] == manifest["files"]
    assert first.data.element == b"song"
    assert [item.klio_job.job_name for item in first.metadata.job_audit_log] == ["stems"]
    assert first.metadata.intended_recipients.WhichOneof("recipients") == "anyone"
    (second,) = run(job, [new_message("song")])
    assert json.loads(second.data.payload) == {**made, "skipped": True}


def test_a_message_of_version_1_keeps_its_payload(music: Path, tmp_path: Path) -> None:
    (message,) = run(job_for(tmp_path), [new_message("song", version=1)])
    assert message.data.entity_id == "song"
    assert message.data.payload == b""


def test_pings_go_on_untouched_and_messages_for_others_do_not(music: Path, tmp_path: Path) -> None:
    ping = new_message("song")
    ping.metadata.ping = True
    other = new_message("song", recipients=[KlioJob(job_name="another", gcp_project="tests")])
    (passed,) = run(job_for(tmp_path), [ping, other])
    assert passed.metadata.ping
    assert passed.data.payload == b""
    assert not is_made(tmp_path)


def test_an_upstream_job_is_asked_for_what_is_not_there(
    music: Path, tmp_path: Path, pubsub: PubSubServer
) -> None:
    topic = pubsub.topic()
    subscription = pubsub.subscription(topic)
    upstream = {"job_name": "record", "gcp_project": "tests", "topic": topic}
    job = job_for(tmp_path, upstream=upstream)
    messages = [new_message("song"), new_message("gone"), new_message("old", version=1)]
    run(job, messages)
    (asked,) = (parse_message(message.data) for message in pubsub.pull_all(subscription))
    assert asked.data.element == b"gone"
    limited = asked.metadata.intended_recipients.limited
    assert [each.job_name for each in limited.recipients] == ["record", "stems"]
    assert limited.trigger_children_of.job_name == "stems"
    assert is_made(tmp_path)
    (failure,) = dead_letters(tmp_path / "out").values()
    assert failure["element"] == "old"
    assert "a message of version 1 can't ask record for it" in failure["message"]


@pytest.mark.parametrize("output", ["gs://music/in", "gs://music/in/stems", "gs://music/stems"])
def test_a_watched_bucket_may_hold_the_results(
    gcs: StorageServer, music: Path, tmp_path: Path, output: str
) -> None:
    gcs.upload(music, "in")
    (tmp_path / "out").mkdir()
    job = parse_job(
        {
            "job_name": "stems",
            "pipeline_options": {"streaming": True},
            "job_config": {
                "allow_non_klio_messages": True,
                "data": {
                    "inputs": [{"type": "gcs", "location": "gs://music/in"}],
                    "outputs": [{"type": "gcs", "location": output}],
                },
            },
        },
        source="test",
    )

    def notify() -> dict[str, bytes]:
        """Tell the job of all objects, and give them then."""
        events = [
            PubsubMessage(
                b"", {"eventType": "OBJECT_FINALIZE", "bucketId": "music", "objectId": blob.name}
            )
            for blob in gcs.bucket.list_blobs()
        ]
        with beam.Pipeline(options=PipelineOptions([], runner="FnApiRunner")) as pipeline:
            build(job, pipeline | beam.Create(events), local_workers=1)
        OutputTree(output).clear_scratch()
        return {blob.name: blob.download_as_bytes() for blob in gcs.bucket.list_blobs()}

    first = notify()
    assert len(first) == 1 + 2 + 3 + 1
    assert notify() == first


def test_the_graph_of_ones_own_in_the_docs_runs(
    music: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    docs = Path(__file__).parents[2] / "docs" / "porting-from-klio.md"
    (code,) = (each for each in docs.read_text().split("```") if "built = build(job" in each)
    noted = """
    next_messages | "Note" >> beam.Map(lambda message: open("noted", "ab").write(message))
"""
    monkeypatch.chdir(tmp_path)
    Path("job.yaml").write_text(
        """
job_name: mine
pipeline_options: {streaming: false}
job_config:
  events: {inputs: [{type: folder, location: music}]}
  data: {outputs: [{type: file, location: out}]}
"""
    )
    example = tmp_path / "example.py"
    example.write_text(code.removeprefix("python") + noted)
    done = subprocess.run([sys.executable, example], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    payload = parse_message(Path("noted").read_bytes()).data.payload.decode()
    assert f"mine {tmp_path}/out/song/background.flac" in payload.splitlines()


def test_inputs_and_outputs_of_all_types_in_one_job(
    write_audio: WriteAudio,
    tmp_path: Path,
    command: Command,
    bigquery: BigQueryServer,
    pubsub: PubSubServer,
) -> None:
    names = ["in a folder", "matched", "named", "a line", "a row", "a record"]
    for seed, name in enumerate(names):
        folder = "folder" if name == "in a folder" else "."
        write_audio(f"music/{folder}/{name}.wav", seconds=2.5, sample_rate=8000, seed=seed)
    table = bigquery.table("songs", "name:STRING", [{"name": "a row"}, {"name": "named"}])
    (tmp_path / "lines.txt").write_text("a line\nnamed\ngone\n")
    with open(tmp_path / "records.avro", "wb") as file:
        schema = {"type": "record", "name": "R", "fields": [{"name": "element", "type": "string"}]}
        fastavro.writer(file, fastavro.parse_schema(schema), [{"element": "a record"}])
    topic = pubsub.topic()
    subscription = pubsub.subscription(topic)
    music, done = tmp_path / "music", tmp_path / "done"
    job = tmp_path / "job.json"
    job.write_text(
        json.dumps(
            {
                "job_name": "all",
                "pipeline_options": {"runner": "DirectRunner", "streaming": False},
                "job_config": {
                    "events": {
                        "inputs": [
                            {"type": "folder", "location": f"{music}/folder"},
                            {"type": "glob", "location": f"{music}/match*.wav"},
                            {"type": "recording", "location": f"{music}/named.wav"},
                            {"type": "file", "location": f"{tmp_path}/lines.txt"},
                            {"type": "bq", "table": table, "columns": ["name"]},
                            {"type": "avro", "file_pattern": f"{tmp_path}/*.avro"},
                        ],
                        "outputs": [
                            {"type": "file", "location": f"{done}/lines", "num_shards": 1},
                            {"type": "avro", "location": f"{done}/records"},
                            {"type": "bq", "table": table.replace("songs", "done")},
                            {"type": "pubsub", "topic": topic},
                        ],
                    },
                    "data": {
                        "inputs": [{"type": "file", "location": str(music), "file_suffix": ".wav"}],
                        "outputs": [{"type": "file", "location": str(tmp_path / "out")}],
                    },
                },
                "plots": {"enabled": False},
            }
        )
    )
    ran = command("run", job, "--workers", 2)
    assert ran.returncode == 1, ran.stderr
    assert counts_of_run(finished=6, skipped=0, failed=1) in ran.stderr
    assert set(dead_letters(tmp_path / "out")) == {"gone"}
    elements = sorted("folder/in a folder" if name == "in a folder" else name for name in names)
    (lines,) = done.glob("lines*")
    assert lines.read_text().splitlines() == elements
    (records,) = done.rglob("records*")
    with open(records, "rb") as file:
        assert sorted(each["element"].decode() for each in fastavro.reader(file)) == elements
    assert sorted(row["element"] for row in bigquery.rows("done")) == elements
    published = map(parse_message, (each.data for each in pubsub.pull_all(subscription)))
    assert sorted(each.data.element.decode() for each in published) == elements


def test_run_json_counts_by_step(write_audio: WriteAudio, tmp_path: Path, command: Command) -> None:
    size_bytes = [
        write_audio(f"music/{name}", seconds=seconds, sample_rate=8000).stat().st_size
        for name, seconds in (("a.wav", 2.5), ("b.wav", 3))
    ]
    (tmp_path / "music" / "broken.wav").write_bytes(b"RIFF")
    out = tmp_path / "out"
    counts = []
    for _ in range(2):
        done = command(
            "separate", tmp_path / "music", "-o", out, "--report", "--log-format", "json"
        )
        assert done.returncode == 1
        steps = json.loads((out / "run.json").read_text())["steps"]
        (summary,) = (
            line for line in map(json.loads, done.stdout.splitlines()) if line["event"] == "summary"
        )
        assert summary["steps"] == steps
        counts.append(steps)
    first, second = counts
    assert first["LoadBinary"]["bytes"] == sum(size_bytes)
    assert first["LoadAudio"]["audio_milliseconds"] == 5500
    assert first["PublishTrack"]["audio_milliseconds"] == 5500
    folders = [path.parent for path in out.rglob("manifest.json")]
    files = [path for each in folders for path in each.iterdir() if path.suffix != ".json"]
    assert first["PublishTrack"]["bytes"] == sum(path.stat().st_size for path in files)
    assert first["PublishTrack"]["milliseconds"]["count"] == 2
    assert first["PlanParts"]["failures"] == 1
    assert second["SkipFinished"]["skipped"] == 2
    assert "LoadAudio" not in second
