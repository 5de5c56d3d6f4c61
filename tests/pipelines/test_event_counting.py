"""Messages that come in and go out are counted by the names of Klio's own steps."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import apache_beam as beam
import fastavro
import yaml
from apache_beam.options.pipeline_options import PipelineOptions
from bigquery_server import BigQueryServer
from conftest import Command
from pubsub_server import PubSubServer
from result_checks import read_json

from beamsplitter.pipelines.events.outputs import prepare_outputs
from beamsplitter.pipelines.events.sources import ReadEvents
from beamsplitter.pipelines.events.upstream import TriggerUpstream
from beamsplitter.pipelines.events.writing import WriteEvents
from beamsplitter.pipelines.job.job_config import UpstreamJob, parse_job
from beamsplitter.pipelines.outcomes.step_metrics import metrics_by_step
from beamsplitter.transforms import coders  # noqa: F401  (registers the coders)
from beamsplitter.transforms.klio.message import KlioJob, new_message

WriteAudio = Callable[..., Path]


def job_of(folder: Path, inputs: list[Any], outputs: list[Any] | None = None) -> dict[str, Any]:
    return {
        "job_name": "counted",
        "pipeline_options": {"runner": "DirectRunner", "streaming": False},
        "job_config": {
            "events": {"inputs": inputs, "outputs": outputs or []},
            "data": {
                "inputs": [{"type": "file", "location": str(folder / "music")}],
                "outputs": [{"type": "file", "location": str(folder / "out")}],
            },
        },
        "plots": {"enabled": False},
    }


def counted(build: Callable[[beam.Pipeline], Any], name: str) -> dict[str, int]:
    """The counters of one name of a graph, by their namespaces."""
    pipeline = beam.Pipeline(options=PipelineOptions([], runner="FnApiRunner"))
    build(pipeline)
    result = pipeline.run()
    result.wait_until_finish()
    metrics = metrics_by_step(result)
    return {step: values[name] for step, values in metrics.items() if name in values}


def test_what_each_kind_of_input_gives(
    bigquery: BigQueryServer, write_audio: WriteAudio, tmp_path: Path
) -> None:
    write_audio("music/0.wav")
    write_audio("music/1.wav")
    (tmp_path / "names.txt").write_text("0.wav\nx.wav\ny.wav\n")
    schema = {"type": "record", "name": "r", "fields": [{"name": "element", "type": "string"}]}
    with open(tmp_path / "a.avro", "wb") as file:
        fastavro.writer(file, schema, [{"element": "0.wav"}])
    bigquery.table("asked", "name:STRING", [{"name": f"{number}.wav"} for number in range(4)])
    inputs = [
        {"type": "file", "location": str(tmp_path / "names.txt")},
        {"type": "avro", "location": str(tmp_path / "a.avro")},
        {"type": "bigquery", "dataset": "music", "table": "asked", "columns": ["name"]},
        {"type": "folder", "location": str(tmp_path / "music")},
    ]
    job = parse_job(job_of(tmp_path, inputs), source="job")
    # What two inputs name is read twice, and worked on once.
    assert counted(lambda pipeline: pipeline | ReadEvents(job), "kmsg-read") == {
        "KlioReadFromText": 3,
        "KlioReadFromAvro": 1,
        "KlioReadFromBigQuery": 4,
        "ReadEvents": 2,
    }


def test_what_goes_to_each_kind_of_output(
    bigquery: BigQueryServer, pubsub: PubSubServer, tmp_path: Path
) -> None:
    topic = pubsub.topic()
    outputs: list[dict[str, Any]] = [
        {"type": "file", "location": str(tmp_path / "list")},
        {"type": "file", "location": str(tmp_path / "other")},
        {"type": "avro", "location": str(tmp_path / "avro")},
        {"type": "bq", "dataset": "music", "table": "done"},
        {"type": "pubsub", "topic": topic},
        {"type": "pubsub", "topic": topic, "skip_klio_write": True},
        {"type": "custom"},
    ]
    job = parse_job(job_of(tmp_path, [], outputs), source="job")
    prepare_outputs(job)
    messages = [new_message(name).SerializeToString() for name in ("a", "b", "c")]

    def write(pipeline: beam.Pipeline) -> None:
        events = pipeline | beam.Create(messages).with_output_types(bytes)
        events | WriteEvents(job.job_config.events.outputs, job.file_storage)

    assert counted(write, "kmsg-write") == {
        "KlioWriteToText": 6,
        "KlioWriteToAvro": 3,
        "KlioWriteToBigQuery": 3,
        "KlioWriteToPubSub": 3,
    }


def test_to_ask_an_upstream_job_is_no_event_that_is_written(pubsub: PubSubServer) -> None:
    topic = pubsub.topic()
    subscription = pubsub.subscription(topic)
    upstream = UpstreamJob(job_name="record", gcp_project="tests", topic=topic)

    def ask(pipeline: beam.Pipeline) -> None:
        missing = pipeline | beam.Create([new_message("gone").SerializeToString()])
        missing | TriggerUpstream(upstream, KlioJob(job_name="stems", gcp_project="tests"))

    assert counted(ask, "kmsg-write") == {}
    assert counted(ask, "kmsg-trigger-upstream") == {"KlioTriggerUpstream": 1}
    assert len(pubsub.pull_all(subscription)) == 2


def test_a_job_on_this_machine_has_them_in_its_run_json(
    write_audio: WriteAudio, tmp_path: Path, command: Command
) -> None:
    write_audio("music/a.wav", seconds=1)
    write_audio("music/b.wav", seconds=1)
    (tmp_path / "names.txt").write_text("a.wav\nb.wav\n")
    names = {"type": "file", "location": str(tmp_path / "names.txt")}
    listed = {"type": "file", "location": str(tmp_path / "done.txt")}
    recording = {"type": "recording", "location": str(tmp_path / "music" / "a.wav")}
    for inputs, expected in (
        ([names], {"KlioReadFromText": 2}),
        ([names, recording], {"ReadEvents": 2}),
    ):
        plain = job_of(tmp_path, inputs, [listed])
        plain["job_config"]["data"]["outputs"][0]["force"] = True
        (tmp_path / "job.yaml").write_text(yaml.safe_dump(plain))
        done = command("run", tmp_path / "job.yaml")
        assert done.returncode == 0, done.stderr
        steps = read_json(tmp_path / "out" / "run.json")["steps"]
        read = {step: told["kmsg-read"] for step, told in steps.items() if "kmsg-read" in told}
        assert read == expected
        assert steps["KlioWriteToText"]["kmsg-write"] == 2
