"""Finished messages to files, Avro files, Pub/Sub and BigQuery: all of them, or a dead letter."""

import dataclasses
import gzip
import json
import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import apache_beam as beam
import fastavro
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from bigquery_server import BigQueryServer
from conftest import dead_letters
from facts import assert_names
from pubsub_server import PubSubServer
from storage_server import Fault, StorageServer

from beamsplitter.models.evaluation.rows import Row
from beamsplitter.pipelines.events import bigquery as bigquery_client
from beamsplitter.pipelines.events.listing import InputError
from beamsplitter.pipelines.events.outputs import PAYLOAD_SCHEMA, prepare_outputs
from beamsplitter.pipelines.events.pubsub import PubSubError
from beamsplitter.pipelines.events.reading import avro_elements_of, lines_of
from beamsplitter.pipelines.events.sources import ReadEvents
from beamsplitter.pipelines.events.writing import WriteEvents
from beamsplitter.pipelines.job.event_config import AvroEvents, FileEvents
from beamsplitter.pipelines.job.job_config import JobConfig, parse_job
from beamsplitter.pipelines.run import build
from beamsplitter.storage import Storage, StorageError
from beamsplitter.transforms import coders  # noqa: F401  (registers the coders)
from beamsplitter.transforms.klio.message import new_message, parse_message
from beamsplitter.transforms.records import FileReceipt, LabelShare, Receipt, SignalLevel
from beamsplitter.transforms.reporting import finished_message, line_of

SHARE = LabelShare("speech", 0.75, 6.5, 0.9)
LEVEL = SignalLevel("vocals", -14.5, None)
SCORE = Row("vocals", "si_sdr", 3.5, None, 1.25, None, 4, 4)
ELEMENTS = [b"one.wav", b"two words.wav", "名前.wav".encode(), b"caf\xe9.wav", b"one.wav"]


def message(element: bytes, payload: object = None) -> bytes:
    if payload is None:
        facts = ("vocals.flac", "stems", "vocals", "ab", "AAAAAA==", 7, 8, 0.5, 0)
        file = FileReceipt(*facts, scores=(SCORE,), labels=(SHARE,), levels=(LEVEL,))
        asked = new_message(element).SerializeToString()
        receipt = Receipt(os.fsdecode(element), "one", 0.5, (file,), message=asked)
        return finished_message(receipt, "gs://music/out")
    data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return new_message(element, payload=data).SerializeToString()


MESSAGES = [message(element) for element in ELEMENTS]


def job_of(*outputs: dict[str, Any], **options: Any) -> JobConfig:
    return parse_job(
        {
            "job_name": "events",
            "pipeline_options": {"runner": "DirectRunner", "streaming": False, **options},
            "job_config": {"events": {"outputs": list(outputs)}},
        },
        source="job",
    )


class Writer:
    """Prepares outputs and writes messages to them, as a job does; gives the dead letters."""

    def __init__(self, folder: Path) -> None:
        self.letters = folder / "letters"

    def __call__(
        self, *outputs: dict[str, Any], messages: list[bytes] = MESSAGES, workers: int = 1
    ) -> list[dict[str, Any]]:
        job = job_of(*outputs)
        prepare_outputs(job)
        self.letters.write_text("")
        letters = str(self.letters)

        def append(line: str) -> None:
            with open(letters, "a") as file:
                file.write(line + "\n")

        options = PipelineOptions(
            [],
            runner="FnApiRunner",
            direct_num_workers=workers,
            direct_running_mode="multi_processing" if workers > 1 else "in_memory",
        )
        with beam.Pipeline(options=options) as pipeline:
            events = pipeline | beam.Create(messages).with_output_types(bytes)
            failures = events | WriteEvents(job.job_config.events.outputs, job.file_storage)
            failures | beam.Map(line_of) | beam.Map(append)
        return [json.loads(line) for line in self.letters.read_text().splitlines()]


@pytest.fixture
def write(tmp_path: Path) -> Writer:
    """`write(output, …, messages=…)`."""
    return Writer(tmp_path)


def file_output(location: object, **options: Any) -> dict[str, Any]:
    return {"type": "file", "location": str(location), **options}


def avro_output(location: object, **options: Any) -> dict[str, Any]:
    return {"type": "avro", "location": str(location), **options}


# Files --------------------------------------------------------------------------------------------


def test_a_line_for_each_element(tmp_path: Path, write: Writer) -> None:
    out = tmp_path / "out" / "done"
    assert write(file_output(out)) == []
    assert os.listdir(tmp_path / "out") == ["done-00000-of-00001"]
    path = tmp_path / "out" / "done-00000-of-00001"
    assert path.read_bytes().splitlines() == sorted(ELEMENTS)
    assert path.read_bytes().endswith(b"\n")
    found = lines_of(FileEvents(type="file", location=f"{out}-*"), Storage())
    assert sorted(found) == sorted(map(os.fsdecode, ELEMENTS))


def test_options_of_klio(tmp_path: Path, write: Writer) -> None:
    write(
        file_output(tmp_path / "a", shard_name_template="", file_name_suffix=".txt"),
        file_output(tmp_path / "b", header="title", file_name_suffix=".gz"),
        file_output(tmp_path / "c", header="T", append_trailing_newlines=False),
        file_output(tmp_path / "d", compression_type="gzip", shard_name_template=".S-N"),
        file_output(tmp_path / "e", skip_klio_write=True),
        {"type": "custom", "mine": "x"},
    )
    lines = b"".join(element + b"\n" for element in sorted(ELEMENTS))
    assert (tmp_path / "a.txt").read_bytes() == lines
    assert gzip.decompress((tmp_path / "b-00000-of-00001.gz").read_bytes()) == b"title\n" + lines
    whole = b"T" + lines.replace(b"\n", b"")
    assert (tmp_path / "c-00000-of-00001").read_bytes() == whole
    assert gzip.decompress((tmp_path / "d.0-1").read_bytes()) == lines
    assert not list(tmp_path.glob("e*"))


@pytest.mark.parametrize("kind", ["bzip2", "deflate", "gzip", "lzma", "zstd"])
def test_what_is_written_can_be_read(tmp_path: Path, write: Writer, kind: str) -> None:
    write(file_output(tmp_path / "x", compression_type=kind))
    events = FileEvents(type="file", location=f"{tmp_path}/x-*", compression_type=kind)
    assert sorted(lines_of(events, Storage())) == sorted(map(os.fsdecode, ELEMENTS))


def test_shards_hold_each_element_once_and_are_the_same_again(
    tmp_path: Path, write: Writer
) -> None:
    elements = [f"{number}.wav".encode() for number in range(50)]
    messages = [message(element) for element in elements]
    outputs = [
        file_output(tmp_path / "s", num_shards=4),
        avro_output(tmp_path / "s", num_shards=4, file_name_suffix=".avro"),
    ]

    def contents() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in tmp_path.glob("s-*")}

    write(*outputs, messages=messages)
    first = contents()
    assert len(first) == 8
    lines = [line for name in first if "." not in name for line in first[name].splitlines()]
    assert sorted(lines) == sorted(elements)
    assert len({name for name in first if first[name]}) == 8
    (tmp_path / "s-00000-of-00007").write_text("of an earlier run\n")
    (tmp_path / "s-mine").write_text("not of a run\n")
    write(*outputs, messages=messages[::-1], workers=2)
    assert contents() == {**first, "s-mine": b"not of a run\n"}


def test_no_events_make_empty_files(tmp_path: Path, write: Writer) -> None:
    write(file_output(tmp_path / "f", num_shards=2), avro_output(tmp_path / "a"), messages=[])
    assert (tmp_path / "f-00001-of-00002").read_bytes() == b""
    with open(tmp_path / "a-00000-of-00001", "rb") as file:
        assert list(fastavro.reader(file)) == []


def test_scratch_files_of_others_are_left_alone(tmp_path: Path, write: Writer) -> None:
    mine = tmp_path / ".beamsplitter" / "scratch-other-host-1" / "part"
    mine.parent.mkdir(parents=True)
    mine.write_text("x")
    write(file_output(tmp_path / "x"))
    assert mine.read_text() == "x"


def test_a_place_that_can_not_be_written_is_found_out_before_the_job(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match="file"):
        prepare_outputs(job_of(file_output(tmp_path / "file" / "x")))


# Avro ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", ["null", "deflate", "bzip2", "xz"])
def test_avro_is_klios(tmp_path: Path, write: Writer, codec: str) -> None:
    places = {"location": str(tmp_path), "file_path_prefix": "done"}
    write({"type": "avro", **places, "codec": codec, "file_name_suffix": ".avro"})
    with open(tmp_path / "done-00000-of-00001.avro", "rb") as file:
        reader = fastavro.reader(file)
        assert reader.codec == codec
        assert reader.writer_schema["name"] == "klio.avro.KlioMessage"
        assert reader.writer_schema["fields"] == [{"name": "element", "type": "bytes"}]
        assert [each["element"] for each in reader] == sorted(ELEMENTS)
    found = avro_elements_of(AvroEvents(type="avro", location=f"{tmp_path}/*.avro"), Storage())
    assert sorted(found) == sorted(map(os.fsdecode, ELEMENTS))


@pytest.mark.skipif(find_spec("cramjam") is not None, reason="the library is there")
def test_a_codec_without_its_library_is_found_out_before_the_job(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="snappy codec is supported but you need to install"):
        prepare_outputs(job_of(avro_output(tmp_path / "x", codec="snappy")))


def test_files_and_avro_in_a_bucket(gcs: StorageServer, write: Writer) -> None:
    outputs = [
        file_output("gs://music/done/list", num_shards=2),
        avro_output("gs://music/done", file_path_prefix="a", mime_type="application/mine"),
    ]
    gcs.bucket.blob("done/list-00000-of-00009").upload_from_string("of an earlier run\n")
    gcs.bucket.blob("done/list/-00000-of-00009").upload_from_string("not of a run\n")
    write(*outputs, workers=2)
    assert set(gcs.names("done")) == {
        "done/a-00000-of-00001",
        "done/list-00000-of-00002",
        "done/list-00001-of-00002",
        "done/list/-00000-of-00009",
    }
    found = lines_of(FileEvents(type="file", location="gs://music/done/list-*"), Storage())
    assert sorted(found) == sorted(map(os.fsdecode, ELEMENTS))
    avro = AvroEvents(type="avro", location="gs://music/done", file_pattern="a-*")
    assert sorted(avro_elements_of(avro, Storage())) == sorted(map(os.fsdecode, ELEMENTS))
    blob = gcs.bucket.get_blob("done/a-00000-of-00001")
    assert blob is not None and blob.content_type == "application/mine"


# Pub/Sub ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2])
def test_messages_are_published_whole(pubsub: PubSubServer, write: Writer, workers: int) -> None:
    topics = [pubsub.topic(), pubsub.topic()]
    subscriptions = [pubsub.subscription(topic) for topic in topics]
    many = MESSAGES + [message(f"{number}.wav".encode()) for number in range(250)]
    outputs = [{"type": "pubsub", "topic": topic} for topic in topics]
    assert write(*outputs, messages=many, workers=workers) == []
    for subscription in subscriptions:
        pulled = [bytes(each.data) for each in pubsub.pull_all(subscription)]
        assert sorted(pulled) == sorted(many)
    assert parse_message(pulled[0]).metadata.intended_recipients.HasField("anyone")


def test_a_missing_topic_is_found_out_before_the_job(pubsub: PubSubServer) -> None:
    topic = f"projects/{pubsub.project}/topics/none"
    with pytest.raises(PubSubError, match="topics/none: there is no such topic"):
        prepare_outputs(job_of({"type": "pubsub", "topic": topic}))


def test_a_topic_that_goes_away_fails_the_job(pubsub: PubSubServer, write: Writer) -> None:
    topic = pubsub.topic()
    job = job_of({"type": "pubsub", "topic": topic})
    prepare_outputs(job)
    pubsub.publisher.delete_topic(topic=topic)
    with (
        pytest.raises(Exception, match=r"(?i)not.?found"),
        beam.Pipeline(options=PipelineOptions([], runner="FnApiRunner")) as pipeline,
    ):
        events = pipeline | beam.Create(MESSAGES)
        events | WriteEvents(job.job_config.events.outputs, job.file_storage)


# BigQuery -----------------------------------------------------------------------------------------


def table_output(table: str = "done", **options: Any) -> dict[str, Any]:
    return {"type": "bq", "dataset": "music", "table": table, **options}


APPEND = {"write_disposition": "WRITE_APPEND"}


def test_a_table_is_made_of_all_that_is_known(bigquery: BigQueryServer, write: Writer) -> None:
    (letter,) = write(table_output())
    assert letter["element"] == os.fsdecode(b"caf\xe9.wav")
    assert_names(letter["message"], "UTF-8", "BigQuery")
    (row, *others) = sorted(bigquery.rows("done"), key=lambda row: str(row["element"]))
    # The two events of one element tell the same: BigQuery takes the row once.
    assert len(others) == len(set(ELEMENTS)) - 2
    assert row == {
        "element": "one.wav",
        "folder": "gs://music/out/one",
        "duration_s": 0.5,
        "skipped": False,
        "files": [
            {
                "name": "vocals.flac",
                "branch": "stems",
                "stem": "vocals",
                "sha256": "ab",
                "crc32c": "AAAAAA==",
                "size_bytes": 7,
                "frames": 8,
                "duration_s": 0.5,
                "clipped_samples": 0,
                "sample_rate": None,
                "channels": None,
                "gain_db": None,
                "scores": [dataclasses.asdict(SCORE)],
                "references": None,
                "labels": [dataclasses.asdict(SHARE)],
                "levels": [dataclasses.asdict(LEVEL)],
            }
        ],
    }


def test_the_schema_has_all_that_a_payload_has() -> None:
    payload = json.loads(parse_message(MESSAGES[0]).data.payload)
    assert [each["name"] for each in PAYLOAD_SCHEMA] == list(payload)
    (files,) = (each["fields"] for each in PAYLOAD_SCHEMA if each["name"] == "files")
    assert [each["name"] for each in files] == list(payload["files"][0])
    (scores,) = (each["fields"] for each in files if each["name"] == "scores")
    assert [each["name"] for each in scores] == [field.name for field in dataclasses.fields(Row)]


@pytest.mark.parametrize(
    "schema",
    [
        "element:STRING,duration_s:FLOAT",
        {
            "fields": [
                {"name": "element", "type": "string", "mode": "required"},
                {"name": "duration_s", "type": "float", "mode": "nullable"},
            ]
        },
    ],
)
def test_a_row_holds_what_the_table_has_columns_for(
    bigquery: BigQueryServer, write: Writer, schema: Any
) -> None:
    assert write(table_output(schema=schema), messages=MESSAGES[:1]) == []
    assert bigquery.rows("done") == [{"element": "one.wav", "duration_s": 0.5}]


def test_messages_without_payload_give_their_element(
    bigquery: BigQueryServer, write: Writer
) -> None:
    assert write(table_output(), messages=[new_message("x.wav").SerializeToString()]) == []
    assert [row["element"] for row in bigquery.rows("done")] == ["x.wav"]


def test_refused_rows_are_dead_letters_and_the_others_are_written(
    bigquery: BigQueryServer, write: Writer
) -> None:
    fields = [
        {"name": "element", "type": "STRING", "mode": "REQUIRED"},
        {"name": "duration_s", "type": "FLOAT"},
        {"name": "owners", "type": "STRING", "mode": "REPEATED"},
    ]
    bigquery.table("done", fields)
    messages = [
        message(b"good.wav"),
        message(b"bad.wav", {"element": "bad.wav", "duration_s": "long"}),
        message(b"text.wav", b"no JSON"),
        message(b"list.wav", [1]),
        message(b"bytes.wav", b"\xff"),
        message(b"also.wav"),
    ]
    letters = {letter["element"]: letter for letter in write(table_output(), messages=messages)}
    assert sorted(row["element"] for row in bigquery.rows("done")) == ["also.wav", "good.wav"]
    assert letters.keys() == {"bad.wav", "text.wav", "list.wav", "bytes.wav"}
    assert {letter["step"] for letter in letters.values()} == {"WriteRows"}
    said = {name: letter["message"] for name, letter in letters.items()}
    reason = "duration_s: Cannot convert value to float"
    assert_names(said["bad.wav"], "BigQuery music.done: ", "refused", reason)
    assert_names(said["text.wav"], "payload", "no JSON: ")
    assert_names(said["list.wav"], "payload", "no JSON object")


def test_a_request_that_is_refused_as_a_whole_costs_only_the_rows_at_fault(
    bigquery: BigQueryServer, write: Writer
) -> None:
    messages = [message(f"{number}.wav".encode()) for number in range(8)]
    bigquery.faults += [Fault("POST .*insertAll", status, 1) for status in (413, 400)]
    assert write(table_output(), messages=messages) == []
    assert len(bigquery.rows("done")) == 8
    bigquery.table("other", "element:STRING")
    bigquery.faults += [Fault("POST .*insertAll", 413, 100)]
    letters = write(table_output("other"), messages=messages[:3])
    assert sorted(letter["element"] for letter in letters) == ["0.wav", "1.wav", "2.wav"]
    assert_names(letters[0]["message"], "music.other: ", "refused")


def test_a_service_that_falters_doubles_no_row(
    bigquery: BigQueryServer, write: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = bigquery_client.RETRY.with_delay(initial=0.01, maximum=0.05)
    monkeypatch.setattr(bigquery_client, "RETRY", quick)
    messages = [message(f"{number}.wav".encode()) for number in range(1200)]
    bigquery.faults += [
        Fault("POST .*insertAll", 503, 2),
        Fault("POST .*insertAll", "lost answer", 2),
    ]
    assert write(table_output(**APPEND), messages=messages) == []
    assert not any(fault.times for fault in bigquery.faults)
    assert len(bigquery.rows("done")) == 1200
    assert sum("insertAll" in request for request in bigquery.requests) < 20
    # A bundle that the runner repeats.
    assert write(table_output(**APPEND), messages=messages[:9]) == []
    assert len(bigquery.rows("done")) == 1200


def test_write_dispositions(bigquery: BigQueryServer, write: Writer) -> None:
    columns = "element:STRING"
    bigquery.table("done", columns, [{"element": "old"}])
    one = [message(b"new")]

    def elements() -> list[str]:
        return sorted(row["element"] for row in bigquery.rows("done"))

    with pytest.raises(InputError, match=r"music\.done: .*rows.* write_disposition .*WRITE_EMPTY"):
        write(table_output(), messages=one)
    prepare_outputs(job_of(table_output(), update=True))
    prepare_outputs(job_of(table_output(), streaming=True))
    write(table_output(**APPEND), messages=one)
    assert elements() == ["new", "old"]
    truncate = table_output(write_disposition="WRITE_TRUNCATE")
    with pytest.raises(InputError, match="last hour"):
        write(truncate, messages=one)
    bigquery.settle()
    write(truncate, messages=one)
    assert elements() == ["new"]
    with pytest.raises(InputError, match="has rows"):
        write(table_output(), messages=one)


def test_outputs_that_no_row_fits_are_found_out_before_the_job(bigquery: BigQueryServer) -> None:
    def complaint(table: str, **options: Any) -> str:
        with pytest.raises(InputError) as raised:
            prepare_outputs(job_of(table_output(table, **options)))
        return str(raised.value)

    none = complaint("none", create_disposition="CREATE_NEVER")
    assert_names(none, "BigQuery music.none: ", "no such table", "create_disposition")
    assert_names(complaint("done", dataset="nowhere"), "nowhere.done", "no such dataset")
    bigquery.table("klio", "entity_id:STRING,value:STRING")
    assert_names(complaint("klio"), "music.klio", "element, folder")
    assert_names(complaint("new", schema="entity_id:STRING"), "music.new", "element, folder")
    fields = [
        {"name": "element", "type": "STRING"},
        {"name": "owner", "type": "STRING", "mode": "REQUIRED"},
    ]
    bigquery.table("owned", fields)
    assert_names(complaint("owned"), "music.owned", "owner;", "element")
    bigquery.tables["test-project.music.klio"].resource["type"] = "VIEW"
    assert "is a view" in complaint("klio")
    assert set(bigquery.tables) == {"test-project.music.klio", "test-project.music.owned"}


def test_a_job_reads_and_writes_events(
    bigquery: BigQueryServer, write_audio: Callable[..., Path], tmp_path: Path
) -> None:
    for name in ("one", "two"):
        write_audio(f"in/{name}.wav", seconds=2)
    names = [{"name": name} for name in ("one", "two", "missing")]
    bigquery.table("asked", "name:STRING", names)
    bigquery.table("done", "element:STRING,duration_s:FLOAT")
    events = {
        "inputs": [{"type": "bq", "dataset": "music", "table": "asked", "columns": ["name"]}],
        "outputs": [table_output(), file_output(tmp_path / "done")],
    }
    data = {
        "inputs": [{"type": "file", "location": str(tmp_path / "in"), "file_suffix": ".wav"}],
        "outputs": [{"type": "file", "location": str(tmp_path / "out")}],
    }
    job = parse_job(
        {
            "job_name": "events",
            "pipeline_options": {"runner": "DirectRunner", "streaming": False},
            "job_config": {"events": events, "data": data},
            "plots": {"enabled": False},
        },
        source="job",
    )
    prepare_outputs(job)
    with beam.Pipeline(options=PipelineOptions([], runner="FnApiRunner")) as pipeline:
        build(job, pipeline | ReadEvents(job), local_workers=1)
    assert sorted((row["element"], row["duration_s"]) for row in bigquery.rows("done")) == [
        ("one", 2.0),
        ("two", 2.0),
    ]
    assert (tmp_path / "done-00000-of-00001").read_text() == "one\ntwo\n"
    assert set(dead_letters(tmp_path / "out")) == {"missing"}


def test_all_outputs_are_written(
    bigquery: BigQueryServer, pubsub: PubSubServer, tmp_path: Path, write: Writer
) -> None:
    topic = pubsub.topic()
    subscription = pubsub.subscription(topic)
    outputs = [file_output(tmp_path / "f"), avro_output(tmp_path / "a"), table_output()]
    write(*outputs, {"type": "pubsub", "topic": topic}, file_output(tmp_path / "g"))
    assert len(pubsub.pull_all(subscription)) == len(ELEMENTS)
    assert len(bigquery.rows("done")) == len(set(ELEMENTS)) - 1
    assert (tmp_path / "f-00000-of-00001").read_bytes().splitlines() == sorted(ELEMENTS)
    assert (tmp_path / "g-00000-of-00001").exists() and (tmp_path / "a-00000-of-00001").exists()
