"""Objects appear whole or not at all; what the service does in the meantime is waited for."""

import contextlib
import io
import os
import time
from typing import Any

import pytest
from google.cloud import storage as google_storage
from storage_server import Fault, StorageServer

from beamsplitter.storage import (
    Access,
    OutputTree,
    Storage,
    StorageError,
    crc32c_of,
)
from beamsplitter.storage.gcs import READ_CHUNK_BYTES, GcsFiles
from beamsplitter.transforms.resuming import Resumption
from beamsplitter.transforms.settings import SplitSettings

OUT = "gs://music/out"
AWKWARD = ["ü x", "#1", "a%b", "a%20b", "a?b", "-x", "a+b", "a'b", "a\nb", "a:b&c=d", "名前", "%?#"]


@pytest.fixture
def tree(gcs: StorageServer) -> OutputTree:
    return OutputTree(OUT)


def test_what_is_written_is_read(tree: OutputTree) -> None:
    data = os.urandom(3 * READ_CHUNK_BYTES + 17)
    tree.write(data, "a", "b")
    path = tree.path("a", "b")
    assert Storage().read(path) == data
    assert Storage().stat(path).size_bytes == len(data)
    assert tree.has("a", "b", size_bytes=len(data), crc32c=crc32c_of(io.BytesIO(data)))
    assert not tree.has("a", "b", size_bytes=len(data), crc32c=crc32c_of(io.BytesIO(b"")))
    assert not tree.has("a", "c", size_bytes=0, crc32c="")
    assert len(Storage().sha256_of(path)) == 64
    with Storage().reading(path) as file:
        for start in (0, 5, READ_CHUNK_BYTES - 3, 2 * READ_CHUNK_BYTES, len(data) - 4, len(data)):
            file.seek(start)
            assert file.read(1000) == data[start : start + 1000]
        assert file.seek(-5, io.SEEK_END) == len(data) - 5
        assert file.read() == data[-5:]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.b/background.flac", "audio/flac"),
        ("a/vocals.m4a", "audio/mp4"),
        ("a/vocals.opus", "audio/ogg"),
        ("a/spectrogram.png", "image/png"),
        ("a/manifest.json", "application/json"),
        ("a/labels.txt", "text/plain"),
        ("a/00000-vocals.f32", "application/octet-stream"),
    ],
)
def test_objects_say_what_they_are(
    name: str, kind: str, tree: OutputTree, gcs: StorageServer
) -> None:
    tree.write(b"content", name)
    assert gcs.bucket.get_blob(f"out/{name}").content_type == kind


def test_forked_processes_do_not_share_connections(tree: OutputTree) -> None:
    names = [str(index) for index in range(4)]
    for name in names:
        tree.write(name.encode() * 10_000, name)
    workers = []
    for name in names:
        worker = os.fork()
        if not worker:
            # Whatever is raised must not leave this block.
            with contextlib.suppress(Exception):
                right = [tree.read(name) == name.encode() * 10_000 for _ in range(50)]
                os._exit(0 if all(right) else 1)
            os._exit(2)
        workers.append(worker)
    assert [os.waitpid(worker, 0)[1] for worker in workers] == [0] * 4


def test_reading_keeps_to_one_generation(tree: OutputTree, gcs: StorageServer) -> None:
    tree.write(b"old content", "f")
    with tree.reading("f") as file:
        file.read(1)
    downloads = [each for each in gcs.requests if "alt=media" in each]
    generation = Storage().stat(tree.path("f")).generation
    assert downloads and all(f"generation={generation}" in each for each in downloads)


@pytest.mark.parametrize("name", AWKWARD)
def test_awkward_names(tree: OutputTree, name: str) -> None:
    tree.write(b"content", name, f"{name}.x")
    path = tree.path(name, f"{name}.x")
    assert Storage().read(path) == b"content"
    with Storage().reading(path) as file:
        assert file.read() == b"content"
    assert list(GcsFiles(Access()).list_names(OUT)) == [f"{name}/{name}.x"]
    assert GcsFiles(Access()).names_alike(path) == {f"{name}.x"}
    tree.remove(name, f"{name}.x")
    tree.remove(name, f"{name}.x")
    assert list(GcsFiles(Access()).list_names(OUT)) == []


def test_an_exception_leaves_what_was_there(tree: OutputTree) -> None:
    tree.write(b"old", "f")
    with pytest.raises(ZeroDivisionError), tree.writing("f") as file:
        file.write(b"new")
        raise ZeroDivisionError
    assert tree.read("f") == b"old"


def test_scratch_files_of_this_run_are_cleared_and_no_others(tree: OutputTree) -> None:
    from beamsplitter.storage import run_identity

    tree.write(b"", ".beamsplitter", f"scratch-{run_identity()}", "parts", "x")
    tree.write(b"", ".beamsplitter", "scratch-other-1", "x")
    tree.clear_scratch()
    assert list(GcsFiles(Access()).list_names(OUT)) == [".beamsplitter/scratch-other-1/x"]


def test_a_bucket_that_is_not_there_is_named(gcs: StorageServer) -> None:
    with pytest.raises(StorageError, match=r"^gs://no-such-bucket/out: .*no such bucket"):
        OutputTree("gs://no-such-bucket/out").require_writable()


def test_scratch_files_of_killed_runs_go_by_age(
    tree: OutputTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree.write(b"", ".beamsplitter", "scratch-other-1", "x")
    tree.write(b"", "a", "manifest.json")
    day_s = 24 * 3600
    for days, left in ((13, 1), (15, 0)):
        later_s = time.time() + days * day_s
        with monkeypatch.context() as patch:
            patch.setattr(time, "time", lambda later_s=later_s: later_s)
            tree.clear_left_scratch()
        found = list(GcsFiles(Access()).list_names(OUT))
        assert found == [".beamsplitter/scratch-other-1/x"] * left + ["a/manifest.json"]


def test_files_alike_share_all_but_the_extension(tree: OutputTree) -> None:
    for name in ("a.wav", "a.flac", "a.b.wav", "ab.wav", "a/x.wav", "a.wav.bak/x"):
        tree.write(b"", name)
    assert GcsFiles(Access()).names_alike(tree.path("a.wav")) == {"a.wav", "a.flac"}


@pytest.mark.parametrize("kind", [503, 429, "reset", "slow", "truncate"])
def test_reading_outlasts_faults(tree: OutputTree, gcs: StorageServer, kind: int | str) -> None:
    data = os.urandom(100_000)
    tree.write(data, "f")
    gcs.faults = [Fault("alt=media", kind, times=1)]
    assert tree.read("f") == data
    gcs.faults = [Fault("alt=media", kind, times=1)]
    with tree.reading("f") as file:
        assert file.read() == data


@pytest.mark.parametrize("kind", [503, "reset", "lost answer"])
@pytest.mark.parametrize("size", [1000, 9 << 20])
def test_writing_outlasts_faults(
    tree: OutputTree, gcs: StorageServer, kind: int | str, size: int
) -> None:
    data = os.urandom(size)
    gcs.faults = [Fault("^(POST|PUT) /upload", kind, times=1)]
    tree.write(data, "f")
    assert gcs.faults[0].times == 0
    assert tree.read("f") == data


def test_two_writers_of_the_same_do_not_mind_each_other(
    tree: OutputTree, gcs: StorageServer
) -> None:
    with tree.writing("f") as mine:
        mine.write(b"same")
        gcs.bucket.blob("out/f").upload_from_string(b"same")
    assert tree.read("f") == b"same"


def test_a_writer_is_told_that_another_was_quicker(
    tree: OutputTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree.write(b"old", "f")
    found = google_storage.Bucket.get_blob

    def found_then_changed(
        self: google_storage.Bucket, name: str, **options: Any
    ) -> google_storage.Blob:
        blob = found(self, name, **options)
        self.blob(name).upload_from_string(b"theirs")
        return blob

    monkeypatch.setattr(google_storage.Bucket, "get_blob", found_then_changed)
    with pytest.raises(StorageError, match=r"gs://music/out/f: .*another run"):
        tree.write(b"mine", "f")
    assert tree.read("f") == b"theirs"


def test_errors_name_the_object(gcs: StorageServer) -> None:
    with pytest.raises(StorageError, match=r"gs://music/x\.wav: is not there"):
        Storage().read("gs://music/x.wav")
    with pytest.raises(StorageError, match="gs://nothing/x: is not there"):
        Storage().stat("gs://nothing/x")
    gcs.faults = [Fault("secret", 403)]
    with pytest.raises(StorageError, match=r"secret: .*roles"):
        Storage().stat("gs://music/secret")
    with pytest.raises(StorageError, match="names no bucket"):
        Storage().stat("gs:///x")


def test_an_element_may_be_a_whole_path_below_the_location(gcs: StorageServer) -> None:
    gcs.bucket.blob("in/album/x.wav").upload_from_string(b"content")
    step = Resumption("gs://music/in", OutputTree(OUT), SplitSettings(), suffix=".wav")
    by_path = step.pending_or_receipt("gs://music/in/album/x.wav", force=False)
    by_name = step.pending_or_receipt("album/x", force=False)
    assert (by_path.element, by_path.uri) == ("album/x.wav", by_name.uri)
    with pytest.raises(StorageError, match=r"gs://other/x\.wav: .*gs://music/in"):
        step.pending_or_receipt("gs://other/x.wav", force=False)
    with pytest.raises(StorageError, match="leads out"):
        step.pending_or_receipt("gs://music/in/../x.wav", force=False)
