"""Files on file systems that only Beam knows: read, listed, written and resumed as here."""

import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.internal.gcp import auth
from apache_beam.io.filesystem import FileMetadata
from apache_beam.io.localfilesystem import LocalFileSystem
from apache_beam.options.pipeline_options import PipelineOptions
from conftest import dead_letters, result_files
from storage_server import StorageServer

from beamsplitter.pipelines.events.elements import list_events
from beamsplitter.pipelines.events.sources import ReadEvents
from beamsplitter.pipelines.job.job_config import JobConfig, parse_job
from beamsplitter.pipelines.run import build
from beamsplitter.storage import (
    DEAD_LETTERS,
    OutputTree,
    Storage,
    StorageError,
    crc32c_of,
)
from beamsplitter.storage.beam_files import BeamFiles

SHELF = "shelf://"


class Shelf(LocalFileSystem):
    """A file system for Beam under a scheme of its own: a folder of the test."""

    root = Path()

    @classmethod
    def scheme(cls) -> str:
        return "shelf"

    def real(self, path: str) -> str:
        """The path here; Beam's own methods call each other with such paths, too."""
        return path if path.startswith("/") else f"{self.root}/{path.removeprefix(SHELF)}"

    def join(self, basepath: str, *paths: str) -> str:
        return "/".join([basepath.rstrip("/"), *paths])

    def split(self, path: str) -> tuple[str, str]:
        head, _, tail = path.rpartition("/")
        return head, tail

    def mkdirs(self, path: str) -> None:
        super().mkdirs(self.real(path))

    def _list(self, dir_or_prefix: str) -> Iterator[FileMetadata]:
        for found in super()._list(self.real(dir_or_prefix)):
            path = found.path.replace(f"{self.root}/", SHELF, 1)
            yield FileMetadata(path, found.size_in_bytes, found.last_updated_in_seconds)

    def create(self, path: str, *arguments: Any, **options: Any) -> Any:
        return super().create(self.real(path), *arguments, **options)

    def open(self, path: str, *arguments: Any, **options: Any) -> Any:
        return super().open(self.real(path), *arguments, **options)

    def exists(self, path: str) -> bool:
        return os.path.exists(self.real(path))

    def metadata(self, path: str) -> FileMetadata:
        found = super().metadata(self.real(path))
        return FileMetadata(path, found.size_in_bytes, found.last_updated_in_seconds)

    def delete(self, paths: list[str]) -> None:
        super().delete([self.real(path) for path in paths])


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that `shelf://` stands for."""
    monkeypatch.setattr(Shelf, "root", tmp_path / "shelf")
    (tmp_path / "shelf").mkdir()
    return tmp_path / "shelf"


@pytest.fixture(params=["shelf", "gs"])
def place(
    request: pytest.FixtureRequest, shelf: Path, gcs: StorageServer, monkeypatch: pytest.MonkeyPatch
) -> str:
    """A folder on a file system of Beam's: that of the test, and its own of Cloud Storage."""
    monkeypatch.setattr(auth._Credentials, "_credentials_init", True)  # without credentials
    return f"{SHELF}bucket/in" if request.param == "shelf" else "gs://music/in"


def write(path: str, data: bytes) -> None:
    with BeamFiles().writing(path, "") as file:
        file.write(data)


def test_what_is_written_is_read_and_told_of(place: str) -> None:
    files, path = BeamFiles(), f"{place}/a song ü.wav"
    write(path, b"first")
    first = files.stat(path)
    write(path, b"the second")
    assert files.read(path) == b"the second"
    with files.reading(path) as file:
        file.seek(4)
        assert file.read(3) == b"sec"
    assert files.stat(path).size_bytes == 10
    assert files.stat(path).generation != first.generation
    crc32c = crc32c_of(io.BytesIO(b"the second"))
    assert files.has(path, size_bytes=10, crc32c=crc32c)
    assert not files.has(path, size_bytes=10, crc32c="")
    assert not files.has(path, size_bytes=9, crc32c=crc32c)


def test_what_is_no_newer_than_its_manifest_is_not_read(place: str) -> None:
    files, path = BeamFiles(), f"{place}/a song.wav"
    write(path, b"a")
    written_ns = files.written_ns(path)
    assert written_ns is not None and files.written_ns(f"{place}/none.wav") is None
    assert files.has(path, size_bytes=1, crc32c="", written_ns=written_ns)
    assert not files.has(path, size_bytes=1, crc32c="", written_ns=written_ns - 1)


def test_an_exception_while_writing_leaves_what_was_there(place: str) -> None:
    path = f"{place}/a.wav"
    write(path, b"old")
    with pytest.raises(KeyError), BeamFiles().writing(path, "") as file:
        file.write(b"new")
        raise KeyError
    assert BeamFiles().read(path) == b"old"


def test_what_is_not_there_is_named(place: str) -> None:
    files = BeamFiles()
    for use in (files.stat, files.read):
        with pytest.raises(StorageError, match=f"^{place}/none.wav: is not there"):
            use(f"{place}/none.wav")
    assert not files.has(f"{place}/none.wav", size_bytes=0, crc32c="")
    files.remove(f"{place}/none.wav", place)
    write(f"{place}/some.wav", b"")
    files.remove(f"{place}/some.wav", place)
    assert not files.has(f"{place}/some.wav", size_bytes=0, crc32c="")


def test_names_come_in_order(place: str) -> None:
    names = ["a.flac", "a.wav", "b/c.wav", "b/d/e.wav", "out/x.wav"]
    for name in reversed(names):
        write(f"{place}/{name}", b"")
    files = BeamFiles()
    assert list(files.list_names(place)) == names
    assert list(files.list_names(place, without="out", beginning="b/")) == names[2:4]
    assert files.names_alike(f"{place}/a.wav") == {"a.wav", "a.flac"}


def test_a_scheme_that_nobody_knows_is_told() -> None:
    with pytest.raises(StorageError, match=r"hbase://.*install"):
        Storage().stat("hbase://table/a.wav")
    with pytest.raises(StorageError, match=r"as apache-beam\[aws\] for s3://"):
        Storage().read("hbase://table/a.wav")


def job_for(recordings: str, out: str) -> JobConfig:
    return parse_job(
        {
            "job_name": "elsewhere",
            "pipeline_options": {"runner": "DirectRunner", "streaming": False},
            "job_config": {
                "events": {"inputs": [{"type": "folder", "location": recordings}]},
                "data": {"outputs": [{"type": "file", "location": out}]},
            },
            "separation": {"part_seconds": 10},
        },
        source="test",
    )


def run(job: JobConfig) -> None:
    with beam.Pipeline(options=PipelineOptions([], runner="FnApiRunner")) as pipeline:
        build(job, pipeline | ReadEvents(job), local_workers=1)
    OutputTree(job.output_location).clear_scratch()


def test_a_job_on_such_a_file_system_makes_what_one_here_makes(
    shelf: Path, write_audio: Callable[..., Path], tmp_path: Path
) -> None:
    write_audio("shelf/music/one.wav", seconds=2.5, sample_rate=8000)
    write_audio("shelf/music/deeper/long.flac", seconds=22, sample_rate=8000, seed=1)
    (shelf / "music" / "notes.txt").write_text("no recording")
    (shelf / "music" / "broken.wav").write_bytes(b"no sound at all" * 100)
    there = job_for(f"{SHELF}music", f"{SHELF}music/stems")
    assert list_events(there) == ("broken.wav", "deeper/long.flac", "one.wav")
    run(there)
    run(job_for(str(shelf / "music"), str(tmp_path / "here")))
    made, expected = (
        {
            name: data
            for name, data in result_files(out).items()
            if "manifest" not in name and name != DEAD_LETTERS
        }
        for out in (shelf / "music" / "stems", tmp_path / "here")
    )
    assert made == expected
    assert len(made) == 2 * 5
    assert dead_letters(shelf / "music" / "stems").keys() == {"broken.wav"}
    changed = {path: path.stat().st_mtime_ns for path in (shelf / "music" / "stems").rglob("*.*")}
    run(there)
    for path, time_ns in changed.items():
        assert path.name == "failures.jsonl" or path.stat().st_mtime_ns == time_ns
