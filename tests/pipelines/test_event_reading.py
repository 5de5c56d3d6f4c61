"""Elements from files, Avro files and BigQuery: each one, as it stands there, or a clear error."""

import bz2
import gzip
import json
import lzma
import os
import zlib
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import fastavro
import pytest
import zstandard
from bigquery_server import BigQueryServer
from conftest import Command
from facts import assert_names
from hypothesis import given
from hypothesis import strategies as st
from storage_server import Fault, StorageServer

from beamsplitter.pipelines.events import bigquery
from beamsplitter.pipelines.events.elements import list_events
from beamsplitter.pipelines.events.listing import InputError
from beamsplitter.pipelines.events.reading import (
    avro_elements_of,
    files_matching,
    lines_of,
    require_readable,
    rows_of,
)
from beamsplitter.pipelines.job.event_config import AvroEvents, BigQueryEvents, FileEvents
from beamsplitter.pipelines.job.job_config import parse_job
from beamsplitter.storage import Storage, StorageError

COMPRESSED: dict[str, Callable[[bytes], bytes]] = {
    ".txt": bytes,
    ".gz": gzip.compress,
    ".GZ": gzip.compress,
    ".bz2": bz2.compress,
    ".deflate": zlib.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.compress,
}
NAMES = ["one.wav", "two words.wav", " with spaces ", "名前.wav", os.fsdecode(b"caf\xe9.wav")]


def bytes_of(names: list[str], end: str = "\n") -> bytes:
    return b"".join(os.fsencode(name + end) for name in names)


def lines(path: object, **options: Any) -> list[str]:
    return list(lines_of(FileEvents(type="file", location=str(path), **options), Storage()))


# Files --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", COMPRESSED)
def test_lines_are_the_same_however_they_are_compressed(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"names{suffix}"
    many = NAMES + [f"{number}.wav" for number in range(30_000)]
    path.write_bytes(COMPRESSED[suffix](bytes_of(many)))
    assert lines(path) == many


@pytest.mark.parametrize("suffix", COMPRESSED)
def test_compression_can_be_declared(tmp_path: Path, suffix: str) -> None:
    kinds = {"g": "gzip", "b": "bzip2", "d": "deflate", "x": "lzma", "z": "zstd", "t": "auto"}
    path = tmp_path / "names"
    path.write_bytes(COMPRESSED[suffix](bytes_of(NAMES)))
    kind = kinds[suffix.removeprefix(".txt").strip(".").lower()[:1] or "t"]
    assert lines(path, compression_type=kind) == NAMES


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".deflate", ".xz", ".zst"])
def test_files_compressed_one_after_the_other_are_one(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"names{suffix}"
    parts = [bytes_of(NAMES), bytes_of(["and"])[:-1], b" more\n"]
    path.write_bytes(b"".join(map(COMPRESSED[suffix], parts)))
    assert lines(path) == [*NAMES, "and more"]


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".deflate", ".xz", ".zst"])
def test_a_compressed_file_that_is_cut_off_or_damaged_is_named(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"names{suffix}"
    whole = COMPRESSED[suffix](bytes_of([f"{os.urandom(9).hex()}.wav" for _ in range(9000)]))
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=rf"names\{suffix}: is cut off"):
        lines(path)
    path.write_bytes(b"one.wav\n" * 9)
    with pytest.raises(InputError, match=rf"names\{suffix}: .*damaged"):
        lines(path)
    assert lines(path, compression_type="uncompressed") == ["one.wav"] * 9


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".deflate", ".xz", ".zst"])
def test_what_is_wrong_with_a_second_compressed_file_is_told(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"names{suffix}"
    whole = COMPRESSED[suffix](bytes_of([f"{os.urandom(9).hex()}.wav" for _ in range(9000)]))
    path.write_bytes(whole + whole[: len(whole) // 2])
    with pytest.raises(InputError, match=rf"names\{suffix}: is cut off"):
        lines(path)
    for wrong in (bytes([whole[0] ^ 0xFF]) + whole[1:], b"one.wav\n" * 9):
        path.write_bytes(whole + wrong)
        with pytest.raises(InputError, match=rf"names\{suffix}: is damaged, or is not compr"):
            lines(path)


@given(st.lists(st.text(st.characters(exclude_characters="\n\r", codec="utf-8")), max_size=20))
def test_line_ends_marks_and_blank_lines_are_no_elements(names: list[str]) -> None:
    expected = [name for name in names if name.encode().strip()]
    path = Path(os.environ["PYTEST_FOLDER"]) / "names"
    for end, mark in (("\n", b""), ("\r\n", b""), ("\r\n", b"\xef\xbb\xbf"), ("\n\n", b"")):
        path.write_bytes(mark + bytes_of(names, end))
        assert lines(path) == expected
    path.write_bytes(bytes_of(names).removesuffix(b"\n"))
    assert lines(path) == expected


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # hypothesis does not take fixtures of a test.
    monkeypatch.setenv("PYTEST_FOLDER", str(tmp_path))


def test_header_lines_are_skipped_in_each_file(tmp_path: Path) -> None:
    for name in "ba":
        (tmp_path / f"{name}.csv").write_text(f"title\n\n{name}.wav\n")
    assert lines(tmp_path / "*.csv", skip_header_lines=2) == ["a.wav", "b.wav"]
    assert lines(tmp_path / "*.csv", skip_header_lines=9) == []


def test_lines_are_read_as_they_are_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "names.gz"
    whole = gzip.compress(bytes_of([f"{os.urandom(9).hex()}.wav" for _ in range(99_000)]))
    path.write_bytes(whole[:-100])
    found = lines_of(FileEvents(type="file", location=str(path)), Storage())
    assert next(found).endswith(".wav")  # though the end is missing


def test_a_pattern_names_files_below_any_folders(tmp_path: Path) -> None:
    for name in ("x/1.txt", "x/y/2.txt", "3.txt", "x/no.md", "x/.hidden.txt", "[1].txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name + "\n")
    assert lines(f"{tmp_path}/**/[0-9].txt") == ["3.txt", "x/1.txt", "x/y/2.txt"]
    assert lines(f"{tmp_path}/x/*.txt") == ["x/1.txt"]
    assert lines(f"{tmp_path}/[1].txt") == ["[1].txt"]
    with pytest.raises(InputError, match=r"\*\.csv: no file matches"):
        lines(tmp_path / "*.csv")


def test_a_bucket_is_read_as_a_folder_is(gcs: StorageServer, tmp_path: Path) -> None:
    for suffix, compress in COMPRESSED.items():
        gcs.bucket.blob(f"lists/a/names{suffix}").upload_from_string(compress(bytes_of(NAMES)))
    gcs.bucket.blob("lists/other.txt").upload_from_string("other.wav\r\n")
    gcs.bucket.blob("bracketed/[1].txt").upload_from_string("bracketed.wav\n")
    gcs.bucket.blob("bracketed/1.txt").upload_from_string("plain.wav\n")
    for suffix in COMPRESSED:
        assert lines(f"gs://music/lists/a/names{suffix}") == NAMES
    assert lines("gs://music/lists/**/*.txt") == [*NAMES, "other.wav"]
    assert lines("gs://music/lists/*.txt") == ["other.wav"]
    assert lines("gs://music/bracketed/[1].txt") == ["bracketed.wav"]
    assert lines("gs://music/bracketed/[12].txt") == ["plain.wav"]
    assert files_matching("gs://music/lists/a/names.[xz]*", Storage()) == [
        "gs://music/lists/a/names.xz",
        "gs://music/lists/a/names.zst",
    ]
    with pytest.raises(InputError, match=r"\*\.csv: no file matches"):
        lines("gs://music/lists/*.csv")
    with pytest.raises(StorageError, match="gs://music/none: is not there"):
        lines("gs://music/none")


def test_a_missing_file_is_found_out_before_the_job(tmp_path: Path, gcs: StorageServer) -> None:
    for place in (tmp_path / "none", "gs://music/none"):
        with pytest.raises(StorageError, match="none: is not there"):
            require_readable(FileEvents(type="file", location=str(place)), Storage())
    (tmp_path / "some").write_text("x")
    require_readable(FileEvents(type="file", location=str(tmp_path / "some")), Storage())


# Avro ---------------------------------------------------------------------------------------------


def write_avro(path: Path, fields: list[Any], records: list[Any], codec: str = "deflate") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    schema = {"type": "record", "name": "r", "fields": fields}
    with open(path, "wb") as file:
        fastavro.writer(file, schema, records, codec=codec, sync_interval=200)
    return path


def element_field(kind: Any) -> list[Any]:
    return [{"name": "element", "type": kind}]


def records_of(**places: Any) -> list[str]:
    return list(avro_elements_of(AvroEvents(type="avro", **places), Storage()))


def test_the_element_of_a_record_is_its_field_of_that_name(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    text = NAMES[:-1]
    write_avro(folder / "1-text.avro", element_field("string"), [{"element": x} for x in text])
    coded = [{"element": os.fsencode(name)} for name in NAMES]
    write_avro(folder / "2-bytes", element_field("bytes"), coded, codec="bzip2")
    (folder / ".hidden").write_text("no avro")
    for places in (
        {"location": str(folder)},
        {"location": f"{folder}/"},
        {"location": str(folder), "file_pattern": "[12]*"},
        {"file_pattern": f"{folder}/?-*"},
        {"location": f"{tmp_path}/*/*"},
    ):
        assert records_of(**places) == [*text, *NAMES], places
    assert records_of(location=str(folder / "1-text.avro")) == text
    assert records_of(location=str(folder), file_pattern="2-bytes") == NAMES


def test_other_records_are_json(tmp_path: Path) -> None:
    kinds = {
        "name": "string",
        "bytes": "bytes",
        "when": {"type": "long", "logicalType": "timestamp-micros"},
        "day": {"type": "int", "logicalType": "date"},
        "cost": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2},
        "tags": {"type": "array", "items": "string"},
        "element": ["null", "string"],
    }
    record = {
        "name": "ü",
        "bytes": b"\xff",
        "when": datetime(2024, 1, 31, 12, tzinfo=UTC),
        "day": date(2024, 1, 31),
        "cost": Decimal("1.50"),
        "tags": ["a"],
        "element": None,
    }
    fields = [{"name": name, "type": kind} for name, kind in kinds.items()]
    path = write_avro(tmp_path / "a.avro", fields, [record])
    (element,) = records_of(location=str(path))
    assert json.loads(element) == {
        "name": "ü",
        "bytes": "/w==",
        "when": "2024-01-31 12:00:00 UTC",
        "day": "2024-01-31",
        "cost": "1.50",
        "tags": ["a"],
        "element": None,
    }
    # Where every type is one that Klio can write, the element is the same as Klio's.
    plain = {"title": "Öl", "artist": "a", "seconds": 1.5, "live": True, "label": None}
    types = {
        "title": "string",
        "artist": "string",
        "seconds": "double",
        "live": "boolean",
        "label": ["null", "string"],
    }
    write_avro(path, [{"name": name, "type": kind} for name, kind in types.items()], [plain])
    assert records_of(location=str(path)) == [json.dumps(plain)]


def test_avro_files_of_a_bucket(gcs: StorageServer, tmp_path: Path) -> None:
    write_avro(tmp_path / "in" / "a.avro", element_field("string"), [{"element": "a.wav"}])
    write_avro(tmp_path / "in" / "b", element_field("string"), [{"element": "b.wav"}])
    gcs.upload(tmp_path / "in", "events")
    assert records_of(location="gs://music/events") == ["a.wav", "b.wav"]
    assert records_of(location="gs://music/events/", file_pattern="*.avro") == ["a.wav"]
    assert records_of(location="gs://music/events/b") == ["b.wav"]
    with pytest.raises(InputError, match="no file matches"):
        require_readable(AvroEvents(type="avro", location="gs://music/none"), Storage())
    require_readable(AvroEvents(type="avro", location="gs://music/none", validate=False), Storage())


@pytest.mark.parametrize("damage", ["text", "cut", "changed", "empty"])
def test_a_damaged_avro_file_is_named(tmp_path: Path, damage: str) -> None:
    records = [{"element": os.urandom(30).hex()} for _ in range(500)]
    path = write_avro(tmp_path / "a.avro", element_field("string"), records)
    whole = path.read_bytes()
    middle = len(whole) // 2
    path.write_bytes(
        {
            "text": b"one.wav\n",
            "cut": whole[:-20],
            "changed": whole[:middle] + b"\0" * 300 + whole[middle + 300 :],
            "empty": b"",
        }[damage]
    )
    with pytest.raises(InputError, match=r"a\.avro: .*Avro.* \d+ rec"):
        records_of(location=str(tmp_path))


# BigQuery -----------------------------------------------------------------------------------------


def rows(**options: Any) -> list[str]:
    return list(rows_of(BigQueryEvents(type="bq", **options)))


SONGS = {"dataset": "music", "table": "songs"}


@pytest.fixture
def songs(bigquery: BigQueryServer) -> BigQueryServer:
    """A table of 25 songs, read in pages of 10."""
    bigquery.table(
        "songs",
        "name:STRING,id:INTEGER,raw:BYTES,made:TIMESTAMP,score:FLOAT,live:BOOLEAN",
        [
            {
                "name": f"{number}.wav",
                "id": number,
                "raw": "Y2Fm6Q==",
                "made": "2024-01-31T12:00:00.5+00:00",
                "score": number / 2,
                "live": number % 2 == 0,
            }
            for number in range(25)
        ],
    )
    return bigquery


@pytest.fixture(autouse=True)
def _small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("beamsplitter.pipelines.events.reading.ROWS_A_PAGE", 10)


def test_one_column_that_is_named_is_its_value(songs: BigQueryServer) -> None:
    names = [f"{number}.wav" for number in range(25)]
    assert rows(**SONGS, columns=["name"]) == names
    assert rows(**SONGS, columns=["Name"], project="test-project") == names
    assert rows(table="test-project:music.songs", columns=["name"]) == names
    assert set(rows(**SONGS, columns=["raw"])) == {os.fsdecode(b"caf\xe9")}
    assert rows(**SONGS, columns=["id"])[24] == "24"
    assert rows(**SONGS, columns=["made"])[0] == "2024-01-31 12:00:00.500000 UTC"
    assert rows(**SONGS, columns=["score"])[1] == "0.5"
    assert rows(**SONGS, columns=["live"])[:2] == ["true", "false"]


def test_other_rows_are_the_json_that_klio_writes(bigquery: BigQueryServer) -> None:
    """In Klio an element is `json.dumps` of the row, unless one column is named."""
    songs = [{"title": "Öl", "id": 1}, {"title": "b", "id": 2}]
    bigquery.table("titles", "title:STRING,id:INTEGER", songs)
    bigquery.table("ids", "entity_id:INTEGER", [{"entity_id": 1}, {"entity_id": None}])
    titles, ids = ({"dataset": "music", "table": name} for name in ("titles", "ids"))
    expected = [json.dumps(song) for song in songs]
    assert expected[0] == '{"title": "\\u00d6l", "id": 1}'
    assert rows(**titles) == rows(**titles, columns=["id", "title"]) == expected
    assert rows(**titles, columns=[]) == expected
    assert rows(**ids) == ['{"entity_id": 1}', '{"entity_id": null}']
    assert rows(**ids, columns=["entity_id", "entity_id"]) == rows(**ids)
    assert rows(query="SELECT id, title FROM [music.titles]") == [
        json.dumps({"id": song["id"], "title": song["title"]}) for song in songs
    ]
    assert rows(query="SELECT entity_id FROM [music.ids] WHERE entity_id = 1") == rows(**ids)[:1]


def test_values_in_json(songs: BigQueryServer) -> None:
    (first, *others) = rows(**SONGS)
    assert len(others) == 24
    assert json.loads(first) == {
        "name": "0.wav",
        "id": 0,
        "raw": "Y2Fm6Q==",
        "made": "2024-01-31 12:00:00.500000 UTC",
        "score": 0.0,
        "live": True,
    }


def test_nested_and_exact_values_are_json(bigquery: BigQueryServer) -> None:
    fields = [
        {"name": "tags", "type": "STRING", "mode": "REPEATED"},
        {
            "name": "maker",
            "type": "RECORD",
            "fields": [{"name": "who", "type": "STRING"}, {"name": "on", "type": "DATE"}],
        },
        {"name": "cost", "type": "NUMERIC"},
        {"name": "at", "type": "DATETIME"},
    ]
    row = {
        "tags": ["b", "a"],
        "maker": {"who": "名", "on": "2024-01-31"},
        "cost": "1.50",
        "at": "2024-01-31T12:00:00",
    }
    bigquery.table("nested", fields, [row, {"tags": []}])
    first, second = map(json.loads, rows(dataset="music", table="nested"))
    assert first == row
    assert second == {"tags": [], "maker": None, "cost": None, "at": None}
    assert rows(dataset="music", table="nested", columns=["tags"]) == ['["b", "a"]', "[]"]


def test_rows_are_fetched_page_by_page(songs: BigQueryServer) -> None:
    def pages() -> list[str]:
        return [each for each in songs.requests if "/data?" in each]

    found = rows_of(BigQueryEvents(type="bq", **SONGS, columns=["name"]))
    assert next(found) == "0.wav"
    assert len(pages()) == 1 and "selectedFields=name" in pages()[0]
    assert len(list(found)) == 24
    assert len(pages()) == 3


@pytest.mark.parametrize(
    ("query", "standard"),
    [
        ("SELECT name FROM [test-project:music.songs] WHERE id > 12", False),
        ("SELECT name FROM [music.songs] WHERE id > 12", False),
        ("SELECT name FROM `test-project.music.songs` WHERE id > 12", True),
    ],
)
def test_a_query_in_either_dialect(songs: BigQueryServer, query: str, standard: bool) -> None:
    events = BigQueryEvents(type="bq", query=query, use_standard_sql=standard, kms_key="k")
    require_readable(events, Storage())
    found = [json.loads(element) for element in rows_of(events)]
    assert found == [{"name": f"{number}.wav"} for number in range(13, 25)]
    checked, run = songs.configurations
    assert checked["dryRun"] and not run["dryRun"]
    assert run["useLegacySql"] is not standard
    assert run.get("flattenResults") is (None if standard else True)
    assert run["destinationEncryptionConfiguration"] == {"kmsKeyName": "k"}


def test_columns_of_a_query(songs: BigQueryServer) -> None:
    query = "SELECT id, name, live FROM [music.songs] WHERE id < 2"
    assert rows(query=query, columns=["Name"]) == ["0.wav", "1.wav"]
    assert rows(query=query, columns=["live", "id"])[1] == json.dumps({"id": 1, "live": False})
    with pytest.raises(InputError, match=r"column titel; its columns are id, name, live"):
        rows(query=query, columns=["titel"])


def test_a_view_is_queried(songs: BigQueryServer) -> None:
    songs.table("live", "name:STRING,id:INTEGER")
    resource = songs.tables["test-project.music.live"].resource
    query = "SELECT name, id FROM `test-project.music.songs` WHERE live"
    resource.update({"type": "VIEW", "view": {"query": query}})
    assert rows(dataset="music", table="live", columns=["name"])[:2] == ["0.wav", "2.wav"]


def test_a_row_without_a_value_is_named(bigquery: BigQueryServer) -> None:
    bigquery.table("gap", "name:STRING", [{"name": "a"}, {"name": None}])
    found = rows_of(BigQueryEvents(type="bq", dataset="music", table="gap", columns=["name"]))
    assert next(found) == "a"
    with pytest.raises(InputError, match=r"BigQuery music\.gap: row 1 .*name"):
        next(found)


def test_what_is_not_there_is_found_out_before_the_job(songs: BigQueryServer) -> None:
    def complaint(error: type[Exception] = InputError, **options: Any) -> str:
        with pytest.raises(error) as raised:
            require_readable(BigQueryEvents(type="bq", **options), Storage())
        return str(raised.value)

    missing = complaint(dataset="music", table="none")
    assert_names(missing, "BigQuery music.none: ", "no such table")
    assert "no such table" in complaint(dataset="none", table="songs")
    wrong = complaint(**SONGS, columns=["name", "nam"])
    assert_names(wrong, "music.songs", "column nam;", "name, id")
    assert "no such column: nope" in complaint(StorageError, query="SELECT nope FROM [music.songs]")
    require_readable(BigQueryEvents(type="bq", **SONGS), Storage())
    unchecked = BigQueryEvents(type="bq", dataset="music", table="none", validate=False)
    require_readable(unchecked, Storage())
    with pytest.raises(InputError, match="no such table"):
        list(rows_of(unchecked))


def test_a_service_that_falters_costs_nothing(
    songs: BigQueryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    songs.faults += [Fault("GET .*/tables/songs", 503, 2), Fault("GET .*/data", 500, 2)]
    songs.faults += [Fault("GET .*/data", "lost answer", 1)]
    quick = bigquery.RETRY.with_delay(initial=0.01, maximum=0.05)
    monkeypatch.setattr(bigquery, "RETRY", quick)
    assert len(rows(**SONGS)) == 25
    assert not any(fault.times for fault in songs.faults)


def test_without_credentials_there_is_one_clear_error(tmp_path: Path, command: Command) -> None:
    job = tmp_path / "job.yaml"
    event = {"type": "bq", "project": "test-project", **SONGS}
    job.write_text(json.dumps(job_of(tmp_path, event)))
    run = command(
        *("run", job),
        timeout_s=30,
        BIGQUERY_EMULATOR_HOST="",
        GOOGLE_APPLICATION_CREDENTIALS="",
        CLOUDSDK_CONFIG=str(tmp_path),
        NO_GCE_CHECK="true",
    )
    assert run.returncode == 2
    assert run.stderr.count("\n") == 1
    assert_names(run.stderr, "music.songs: ", "credentials for BigQuery", "gcloud auth")


# As events of a job -------------------------------------------------------------------------------


def job_of(folder: Path, *inputs: dict[str, Any]) -> dict[str, Any]:
    return {
        "job_name": "events",
        "pipeline_options": {"runner": "DirectRunner", "streaming": False},
        "job_config": {
            "events": {"inputs": list(inputs)},
            "data": {
                "inputs": [{"type": "file", "location": str(folder)}],
                "outputs": [{"type": "file", "location": str(folder / "out")}],
            },
        },
    }


def test_a_job_takes_all_its_inputs_once(songs: BigQueryServer, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("0.wav\nx.wav\n")
    write_avro(tmp_path / "a.avro", element_field("string"), [{"element": "y.wav"}])
    job = parse_job(
        job_of(
            tmp_path,
            {"type": "file", "location": str(tmp_path / "names.txt")},
            {"type": "bq", **SONGS, "columns": ["name"]},
            {"type": "avro", "location": str(tmp_path), "file_pattern": "*.avro"},
        ),
        source="job",
    )
    found = ["0.wav", "x.wav", *(f"{number}.wav" for number in range(1, 25)), "y.wav"]
    assert list_events(job) == tuple(found)
    songs.table("none", "name:STRING")
    none = {"type": "bigquery", "dataset": "music", "table": "none"}
    with pytest.raises(InputError, match=r"music\.none"):
        list_events(parse_job(job_of(tmp_path, none), source="job"))
