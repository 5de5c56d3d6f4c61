"""The cache of model files, against a server on loopback."""

import errno
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import requests
from model_server import ModelServer, serving
from storage_server import BUCKET, Fault, StorageServer
from urllib3.exceptions import MaxRetryError, NewConnectionError

from beamsplitter.models import model_cache
from beamsplitter.models.model_cache import (
    CACHE_VARIABLE,
    MIRROR_VARIABLE,
    OFFLINE_VARIABLE,
    ModelCache,
)
from beamsplitter.models.model_registry import ModelEntry
from beamsplitter.models.separators.base import ModelError

CONTENT = np.random.default_rng(0).bytes(3 << 20)
METADATA, MODEL = b'{"labels": []}', np.random.default_rng(1).bytes(1 << 20)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with serving() as running:
        yield running


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, short waits, and a process that has fetched nothing yet."""
    for variable in (MIRROR_VARIABLE, OFFLINE_VARIABLE):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(model_cache, "FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(model_cache, "TRIES", 3)
    monkeypatch.setattr(model_cache, "_validated", {})
    return tmp_path / "cache"


def entry_of(
    server: ModelServer,
    contents: dict[str, bytes] | None = None,
    *,
    name: str = "demucs:tiny",
    digest_length: int = 64,
) -> ModelEntry:
    """An entry whose files the server has."""
    contents = {"a.th": CONTENT} if contents is None else contents
    return ModelEntry.model_validate(
        {
            "name": name,
            "summary": "tiny",
            "stems": ["vocals"],
            "sample_rate": 44100,
            "licence": "MIT",
            "homepage": "https://example.org",
            "files": [
                {
                    "name": file,
                    "address": server.add(f"/origin/{file}", content),
                    "sha256": sha256(content)[:digest_length],
                }
                for file, content in contents.items()
            ],
        }
    )


def test_files_are_fetched_once_and_not_read_again(
    server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = entry_of(server, {"a.th": CONTENT, "b.th": MODEL}, digest_length=8)
    folder = ModelCache().fetch(entry)
    assert (folder / "a.th").read_bytes() == CONTENT
    assert (folder / "b.th").read_bytes() == MODEL
    assert not list(folder.glob("*.part"))
    record = json.loads((folder / "checked.json").read_text())["files"]["a.th"]
    assert record["sha256"] == sha256(CONTENT)

    monkeypatch.setattr(model_cache, "sha256_of", lambda path: pytest.fail(f"{path} was hashed"))
    assert ModelCache().fetch(entry) == folder
    assert server.bodies == ["/origin/a.th whole", "/origin/b.th whole"]


def test_progress_ends_at_all_bytes(server: ModelServer) -> None:
    seen: list[tuple[str, int, int | None]] = []
    ModelCache(lambda *values: seen.append(values)).fetch(entry_of(server))
    assert {(name, total) for name, _, total in seen} == {("a.th", len(CONTENT))}
    counts = [done for _, done, _ in seen]
    assert counts == sorted(set(counts)) and counts[-1] == len(CONTENT)


def test_cut_download_is_resumed(server: ModelServer) -> None:
    server.faults = [("cut", 1 << 20), ("cut", 300_000)]
    folder = ModelCache().fetch(entry_of(server))
    assert (folder / "a.th").read_bytes() == CONTENT
    first, second, third = (each.partition("=")[2] for each in server.bodies)
    assert first == "" and second == f"{1 << 20}-"
    assert (1 << 20) + 200_000 < int(third[:-1]) <= (1 << 20) + 300_000
    # What came in the last moments before a cut is asked for again.
    assert server.sent_bytes <= len(CONTENT) + model_cache.CHUNK_BYTES


def test_download_is_resumed_by_another_process(
    server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = entry_of(server)
    monkeypatch.setattr(model_cache, "TRIES", 1)
    server.faults = [("cut", 2 << 20)]
    with pytest.raises(ModelError, match=r"a\.th .*the connection broke"):
        ModelCache().fetch(entry)
    server.sent_bytes = 0
    folder = ModelCache().fetch(entry)
    assert (folder / "a.th").read_bytes() == CONTENT
    assert server.bodies[1:] == [f"/origin/a.th bytes={2 << 20}-"]
    assert server.sent_bytes == 1 << 20


def test_server_without_ranges_serves_the_whole_again(server: ModelServer) -> None:
    server.knows_ranges = False
    server.faults = [("cut", 2 << 20)]
    folder = ModelCache().fetch(entry_of(server))
    assert (folder / "a.th").read_bytes() == CONTENT
    assert len(server.bodies) == 2


@pytest.mark.parametrize("changed", [CONTENT[:-1], CONTENT[::-1]], ids=["size", "time"])
def test_file_that_no_longer_looks_as_it_did_is_fetched_anew(
    server: ModelServer, changed: bytes
) -> None:
    entry = entry_of(server)
    path = ModelCache().fetch(entry) / "a.th"
    path.write_bytes(changed)
    os.utime(path, (1, 1))
    assert ModelCache().fetch(entry) == path.parent
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize(
    "left", [b"x" * 100, CONTENT[:-1] + b"x", CONTENT + b"more"], ids=["begun", "whole", "longer"]
)
def test_what_lies_there_of_another_file_does_not_get_in(server: ModelServer, left: bytes) -> None:
    entry = entry_of(server)
    folder = ModelCache().folder_of(entry)
    folder.mkdir(parents=True)
    (folder / "a.th.part").write_bytes(left)
    assert (ModelCache().fetch(entry) / "a.th").read_bytes() == CONTENT


def test_complete_part_is_not_asked_for_again(server: ModelServer) -> None:
    entry = entry_of(server)
    folder = ModelCache().folder_of(entry)
    folder.mkdir(parents=True)
    (folder / "a.th.part").write_bytes(CONTENT)
    assert (ModelCache().fetch(entry) / "a.th").read_bytes() == CONTENT
    assert server.sent_bytes == 0


def test_transient_faults_are_tried_again(server: ModelServer) -> None:
    server.probe_faults = [503]
    server.faults = [502]
    folder = ModelCache().fetch(entry_of(server))
    assert (folder / "a.th").read_bytes() == CONTENT


def test_tries_have_an_end(server: ModelServer) -> None:
    server.faults = [503] * 9
    with pytest.raises(
        ModelError, match=r"demucs:tiny: a\.th .*HTTP 503.*BEAMSPLITTER_MODEL_MIRROR"
    ):
        ModelCache().fetch(entry_of(server))
    assert len(server.bodies) == 3


def test_where_nobody_answers_two_tries_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no network, say: that is told in seconds."""
    tries = []

    def refused(*_arguments: object, **_options: object) -> None:
        tries.append(1)
        reason = NewConnectionError(None, "no such host")  # type: ignore[arg-type]
        raise requests.ConnectionError(MaxRetryError(None, "", reason))  # type: ignore[arg-type]

    monkeypatch.setattr(model_cache, "TRIES", 8)
    monkeypatch.setattr(requests, "get", refused)
    with serving() as gone:
        entry = entry_of(gone)
    with pytest.raises(ModelError, match=r"/origin/a\.th: .*no such host"):
        ModelCache().fetch(entry)
    assert len(tries) == 2


def test_a_server_that_has_answered_is_given_time(
    server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its network may come back."""
    get, tries = requests.get, []

    def faltering(*arguments: object, **options: object) -> requests.Response:
        tries.append(1)
        if 2 < len(tries) < 7:
            reason = NewConnectionError(None, "no route")  # type: ignore[arg-type]
            raise requests.ConnectionError(MaxRetryError(None, "", reason))  # type: ignore[arg-type]
        return get(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(model_cache, "TRIES", 8)
    monkeypatch.setattr(requests, "get", faltering)
    entry = entry_of(server)
    server.faults = [("cut", 2)]
    folder = ModelCache().fetch(entry)
    assert sha256((folder / "a.th").read_bytes()) == entry.files[0].sha256


def test_server_that_is_away_is_named() -> None:
    with serving() as gone:
        entry = entry_of(gone)
    with pytest.raises(ModelError, match=r"/origin/a\.th: can't be reached .*refused"):
        ModelCache().fetch(entry)


def test_absent_file_is_not_tried_again(server: ModelServer) -> None:
    entry = entry_of(server)
    server.files.clear()
    server.faults = []
    with pytest.raises(ModelError, match=r"http\S+/origin/a\.th: .*HTTP 404"):
        ModelCache().fetch(entry)
    assert server.bodies == []


def test_wrong_content_is_refused_after_two_downloads(server: ModelServer) -> None:
    entry = entry_of(server)
    server.files["/origin/a.th"] = MODEL
    with pytest.raises(ModelError, match=f"{sha256(MODEL)}, not {sha256(CONTENT)}"):
        ModelCache().fetch(entry)
    assert len(server.bodies) == 2
    folder = ModelCache().folder_of(entry)
    assert [path.name for path in folder.iterdir()] == [".lock"]


def test_prefix_of_a_digest_has_to_be_the_beginning(server: ModelServer) -> None:
    entry = entry_of(server, digest_length=8)
    middle = entry.files[0].model_copy(update={"sha256": sha256(CONTENT)[1:9]})
    with pytest.raises(ModelError, match="is another file"):
        ModelCache().fetch(entry.model_copy(update={"files": (middle,)}))


def test_other_digests_get_another_folder(server: ModelServer) -> None:
    old = entry_of(server)
    old_folder = ModelCache().fetch(old)
    new = entry_of(server, {"a.th": MODEL})
    new_folder = ModelCache().fetch(new)
    assert (old_folder / "a.th").read_bytes() == CONTENT
    assert (new_folder / "a.th").read_bytes() == MODEL


FETCHING = """
import sys
from beamsplitter.models.model_cache import ModelCache
from beamsplitter.models.model_registry import ModelEntry
entry = ModelEntry.model_validate_json(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
print(ModelCache().fetch(entry))
"""


def test_processes_share_one_download(server: ModelServer) -> None:
    entry = entry_of(server)
    server.seconds_a_body = 0.5
    line = [sys.executable, "-c", FETCHING, entry.model_dump_json()]
    processes = [
        subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    for process in processes:
        assert process.stdout and process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin
        process.stdin.write("\n")
        process.stdin.flush()
    found = {process.communicate(timeout=60)[0] for process in processes}
    assert found == {f"{ModelCache().folder_of(entry)}\n"}
    assert server.bodies == ["/origin/a.th whole"]


def test_threads_share_one_download(server: ModelServer) -> None:
    server.seconds_a_body = 0.2
    entry, address = entry_of(server), add_package(server)
    with ThreadPoolExecutor(8) as threads:
        fetched = [threads.submit(ModelCache().fetch, entry) for _ in range(4)]
        packages = [threads.submit(fetch_package, address) for _ in range(4)]
        assert len({each.result() for each in fetched}) == 1
        assert len({each.result() for each in packages}) == 1
    assert sorted(server.bodies) == [
        "/origin/a.th whole",
        "/packages/toy/metadata.json whole",
        "/packages/toy/model.pt whole",
    ]


@pytest.mark.parametrize("kind", ["folder", "server"])
def test_mirror_comes_first(
    server: ModelServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    entry = entry_of(server)
    if kind == "folder":
        mirrored = tmp_path / "mirror" / "demucs" / "tiny" / "a.th"
        mirrored.parent.mkdir(parents=True)
        mirrored.write_bytes(CONTENT)
        monkeypatch.setenv(MIRROR_VARIABLE, f"{tmp_path}/mirror/")
    else:
        server.add("/mirror/demucs/tiny/a.th", CONTENT)
        monkeypatch.setenv(MIRROR_VARIABLE, f"{server.address}/mirror")
    folder = ModelCache().fetch(entry)
    assert (folder / "a.th").read_bytes() == CONTENT
    assert server.bodies == ([] if kind == "folder" else ["/mirror/demucs/tiny/a.th whole"])


@pytest.mark.parametrize(
    "mirrored", [None, b"<html>", CONTENT[: 1 << 20]], ids=["absent", "other", "begun"]
)
def test_origin_helps_out_where_the_mirror_does_not(
    server: ModelServer, monkeypatch: pytest.MonkeyPatch, mirrored: bytes | None
) -> None:
    if mirrored is not None:
        server.add("/mirror/demucs/tiny/a.th", mirrored)
    monkeypatch.setenv(MIRROR_VARIABLE, f"{server.address}/mirror")
    folder = ModelCache().fetch(entry_of(server))
    assert (folder / "a.th").read_bytes() == CONTENT


def test_offline_takes_the_cache_and_the_mirror_alone(
    server: ModelServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = entry_of(server)
    monkeypatch.setenv(OFFLINE_VARIABLE, "1")
    with pytest.raises(ModelError, match=r"demucs:tiny: a\.th .*BEAMSPLITTER_OFFLINE"):
        ModelCache().fetch(entry)
    assert server.bodies == []

    mirrored = tmp_path / "mirror" / "demucs" / "tiny" / "a.th"
    mirrored.parent.mkdir(parents=True)
    mirrored.write_bytes(CONTENT)
    monkeypatch.setenv(MIRROR_VARIABLE, str(tmp_path / "mirror"))
    folder = ModelCache().fetch(entry)
    shutil.rmtree(tmp_path / "mirror")
    assert ModelCache().fetch(entry) == folder
    assert server.bodies == []


def test_file_put_there_by_hand_is_checked(
    server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = entry_of(server)
    monkeypatch.setenv(OFFLINE_VARIABLE, "1")
    folder = ModelCache().folder_of(entry)
    folder.mkdir(parents=True)
    (folder / "a.th").write_bytes(MODEL)
    with pytest.raises(ModelError, match="not in the cache"):
        ModelCache().fetch(entry)
    (folder / "a.th").write_bytes(CONTENT)
    assert ModelCache().fetch(entry) == folder


@contextmanager
def as_nobody() -> Iterator[None]:
    """Without root's right to write anywhere."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_read_only_cache_serves_what_it_has(
    server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tempfile.TemporaryDirectory() as parent:
        os.chmod(parent, 0o755)
        monkeypatch.setenv(CACHE_VARIABLE, f"{parent}/cache")
        entry = entry_of(server)
        folder = ModelCache().fetch(entry)
        unrecorded = entry_of(server, {"b.th": MODEL}, name="demucs:copied")
        copied = ModelCache().folder_of(unrecorded)
        copied.mkdir(parents=True)
        (copied / "b.th").write_bytes(MODEL)
        paths = [Path(parent), *Path(parent).rglob("*")]
        for path in paths:
            path.chmod(0o555 if path.is_dir() else 0o444)
        try:
            with as_nobody():
                assert ModelCache().fetch(entry) == folder
                assert ModelCache().fetch(unrecorded) == copied
                with pytest.raises(ModelError, match=f"can't be written to: .*{CACHE_VARIABLE}"):
                    ModelCache().fetch(entry_of(server, {"c.th": b"c"}, name="demucs:new"))
        finally:
            for path in paths:
                path.chmod(0o755)


def test_full_disk_is_no_fault_of_the_model(
    server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    class FullFile(io.BytesIO):
        def write(self, _data: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(model_cache, "open", lambda *_: FullFile(), raising=False)
    with pytest.raises(OSError, match="No space left") as caught:
        ModelCache().fetch(entry_of(server))
    assert not isinstance(caught.value, ModelError)
    assert len(server.bodies) == 1


def test_default_folder_is_that_of_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(CACHE_VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert ModelCache().folder == tmp_path / "beamsplitter" / "models"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/me")
    assert ModelCache().folder == Path("/home/me/.cache/beamsplitter/models")


def states(cache: ModelCache, entry: ModelEntry) -> list[str]:
    return [file.state for file in cache.verify(entry)]


def test_verify_finds_what_size_and_time_do_not_show(server: ModelServer) -> None:
    cache, entry = ModelCache(), entry_of(server, {"a.th": CONTENT, "b.th": MODEL})
    assert states(cache, entry) == ["missing", "missing"]
    path = cache.fetch(entry) / "a.th"
    assert states(cache, entry) == ["ok", "ok"]

    before = path.stat()
    path.write_bytes(CONTENT[:-1] + bytes([CONTENT[-1] ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert cache.fetch(entry) == path.parent
    assert states(cache, entry) == ["changed", "ok"]
    # Now that it is known, it is replaced.
    assert (cache.fetch(entry) / "a.th").read_bytes() == CONTENT
    assert states(cache, entry) == ["ok", "ok"]


def test_verify_compares_with_the_download_where_the_registry_has_a_prefix(
    server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, entry = ModelCache(), entry_of(server, digest_length=8)
    cache.fetch(entry)
    forged = sha256(CONTENT)[:8] + "0" * 56
    monkeypatch.setattr(model_cache, "sha256_of", lambda _path: forged)
    assert states(cache, entry) == ["changed"]


def add_package(server: ModelServer, model: bytes = MODEL) -> str:
    server.add("/packages/toy/metadata.json", METADATA)
    server.add("/packages/toy/model.pt", model)
    return f"{server.address}/packages/toy"


REQUIRED, OPTIONAL = ["metadata.json"], ["model.pt2", "model.pt"]


def fetch_package(address: str) -> Path:
    return ModelCache().fetch_folder(address, REQUIRED, OPTIONAL)


def in_a_new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_cache, "_validated", {})


def test_package_is_fetched_once_and_asked_for_once_a_process(
    server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = add_package(server)
    folder = fetch_package(address)
    assert {path.name for path in folder.iterdir()} == {"metadata.json", "model.pt", "checked.json"}
    assert (folder / "model.pt").read_bytes() == MODEL
    assert len(server.bodies) == 2

    server.probe_faults = [500] * 100
    assert fetch_package(f"{address}/") == folder
    assert len(server.probe_faults) == 100
    in_a_new_process(monkeypatch)
    server.probe_faults = []
    assert fetch_package(address) == folder
    assert len(server.bodies) == 2


def test_changed_package_gets_a_folder_of_its_own(
    server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = add_package(server)
    old = fetch_package(address)
    add_package(server, MODEL[::-1])
    assert fetch_package(address) == old
    in_a_new_process(monkeypatch)
    new = fetch_package(address)
    assert (old / "model.pt").read_bytes() == MODEL
    assert (new / "model.pt").read_bytes() == MODEL[::-1]

    in_a_new_process(monkeypatch)
    monkeypatch.setenv(OFFLINE_VARIABLE, "1")
    assert fetch_package(address) == new


def test_package_that_changes_while_it_is_read_is_read_again(
    server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = add_package(server)
    plain = ModelCache._download
    others = [MODEL[::-1]]

    def download(self: ModelCache, source: str, part: Path) -> None:
        plain(self, source, part)
        if others and part.name == "metadata.json.part":
            add_package(server, others.pop())

    monkeypatch.setattr(ModelCache, "_download", download)
    assert (fetch_package(address) / "model.pt").read_bytes() == MODEL[::-1]

    in_a_new_process(monkeypatch)
    others = [b"1", b"2", b"3", b"4"]
    add_package(server, b"0")
    with pytest.raises(ModelError, match="changes while it is read"):
        fetch_package(address)


def test_package_offline_without_a_copy(
    server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(OFFLINE_VARIABLE, "1")
    with pytest.raises(ModelError, match=r"toy: .*cache .*BEAMSPLITTER_OFFLINE"):
        fetch_package(add_package(server))


def test_package_on_a_server_that_fails_is_not_taken_from_the_cache_unasked(
    server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = add_package(server)
    fetch_package(address)
    in_a_new_process(monkeypatch)
    server.probe_faults = [503] * 9
    with pytest.raises(ModelError, match=r"metadata\.json: .*HTTP 503.*BEAMSPLITTER_OFFLINE=1"):
        fetch_package(address)


@pytest.mark.parametrize("closed", [False, True])
def test_package_lacks_a_required_file(server: ModelServer, closed: bool) -> None:
    address = add_package(server)
    server.closed = closed
    assert not (fetch_package(address) / "model.pt2").exists()
    del server.files["/packages/toy/metadata.json"]
    with pytest.raises(ModelError, match=r"toy: .*metadata\.json"):
        ModelCache().fetch_folder(address, REQUIRED)


@pytest.mark.parametrize("tail", ["?token=secret", "#secret"])
def test_address_with_secrets_is_refused_without_repeating_them(tail: str) -> None:
    with pytest.raises(ModelError, match=r"https://example\.org/toy: give") as caught:
        fetch_package(f"https://example.org/toy{tail}")
    with pytest.raises(ModelError, match=r"https://example\.org/toy: give"):
        fetch_package("https://me:secret@example.org/toy")
    assert "secret" not in str(caught.value)


def test_unknown_scheme_is_told() -> None:
    with pytest.raises(ModelError, match="ftp://"):
        fetch_package("ftp://example.org/toy")


def test_local_folder_is_taken_as_it_is(tmp_path: Path, cache_folder: Path) -> None:
    folder = tmp_path / "toy"
    with pytest.raises(ModelError, match="is no folder"):
        fetch_package(str(folder))
    folder.mkdir()
    with pytest.raises(ModelError, match=r"holds no metadata\.json"):
        fetch_package(str(folder))
    (folder / "metadata.json").write_bytes(METADATA)
    assert fetch_package(str(folder)) == folder
    assert not cache_folder.exists()


def test_verify_of_a_package_fetched_by_its_address(
    server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = add_package(server)
    path = fetch_package(address) / "model.pt"
    assert {(file.model, file.state) for file in ModelCache().verify_addresses()} == {
        (address, "ok")
    }
    before = path.stat()
    path.write_bytes(MODEL[::-1])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    changed = [file.path for file in ModelCache().verify_addresses() if file.state == "changed"]
    assert changed == [path]
    in_a_new_process(monkeypatch)
    assert fetch_package(address) == path.parent
    assert path.read_bytes() == MODEL


class FakeBucket:
    """Files of a scheme that others add, as `gs://` is."""

    content = MODEL

    def stat(self, address: str) -> Any:
        if not address.endswith("/a.th"):
            raise OSError(errno.ENOENT, "is not there", address)
        return SimpleNamespace(size_bytes=len(self.content), generation="7")

    @contextmanager
    def reading(self, _address: str) -> Iterator[io.BytesIO]:
        try:
            yield io.BytesIO(self.content)
        except KeyError as error:
            raise OSError(None, "was refused") from error


def test_schemes_can_be_added(server: ModelServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_cache, "source_files_of", lambda _address: FakeBucket())
    monkeypatch.setenv(MIRROR_VARIABLE, "toy://bucket/models")
    monkeypatch.setenv(OFFLINE_VARIABLE, "1")
    folder = ModelCache().fetch(entry_of(server, {"a.th": MODEL}))
    assert (folder / "a.th").read_bytes() == MODEL
    assert (ModelCache().fetch(entry_of(server, {"a.th": MODEL})) / "a.th").exists()
    with pytest.raises(ModelError, match=r"toy://bucket/models/demucs/tiny/b\.th: is not there"):
        ModelCache().fetch(entry_of(server, {"b.th": MODEL}))


def test_buckets_are_read_by_the_files_of_jobs(
    gcs: StorageServer, server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(MIRROR_VARIABLE, f"gs://{BUCKET}/models")
    entry = entry_of(server, {"a.th": MODEL, "b.th": CONTENT})
    gcs.bucket.blob("models/demucs/tiny/a.th").upload_from_string(MODEL)
    gcs.faults.append(Fault("GET .*a.th.*alt=media", 503))
    folder = ModelCache().fetch(entry)
    assert (folder / "a.th").read_bytes() == MODEL
    assert server.bodies == ["/origin/b.th whole"]

    metadata = gcs.bucket.blob("toy/metadata.json")
    metadata.upload_from_string(METADATA)
    old = fetch_package(f"gs://{BUCKET}/toy")
    metadata.upload_from_string(METADATA)
    in_a_new_process(monkeypatch)
    assert fetch_package(f"gs://{BUCKET}/toy") != old
    assert (old / "metadata.json").read_bytes() == METADATA
    with pytest.raises(ModelError, match=r"metadata\.json: .*not there"):
        fetch_package(f"gs://{BUCKET}/none")
