"""Recordings of folders and buckets are found lazily, in order, each once, and no results."""

import itertools
import json
import math
import os
import tempfile
import tracemalloc
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.testing.util import assert_that, equal_to
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from storage_server import Fault, StorageServer

from beamsplitter.pipelines.events import listing
from beamsplitter.pipelines.events.elements import list_events
from beamsplitter.pipelines.events.listing import InputError, recordings_of
from beamsplitter.pipelines.events.sources import ReadEvents
from beamsplitter.pipelines.job.event_config import FolderEvents, GlobEvents
from beamsplitter.pipelines.job.job_config import JobConfig, parse_job
from beamsplitter.storage import Storage, StorageError, UnusableStorageError
from beamsplitter.storage import gcs as gcs_files
from beamsplitter.transforms.klio.message import parse_message
from beamsplitter.transforms.settings import SplitSettings

ROOT = "gs://music/in"
STEMS = {"background", "foreground"}
names_of_stems = SplitSettings().file_names


def manifest(*files: str) -> str:
    named = [{"name": name} for name in files]
    return json.dumps({"format": 1, "digests": {}, "files": named})


def folder_of(location: str) -> FolderEvents:
    return FolderEvents(type="folder", location=location)


def below(location: str, output: str | None = None) -> list[str]:
    """Names of the recordings below a folder."""
    found = recordings_of(folder_of(location), Storage(), output=output, stems=names_of_stems)
    return [path.removeprefix(f"{location}/") for path in found]


def pages(gcs: StorageServer) -> list[str]:
    """The listing requests so far."""
    return [request for request in gcs.requests if "/o?" in request]


def downloads(gcs: StorageServer) -> list[str]:
    """The requests for contents so far."""
    return [request for request in gcs.requests if "alt=media" in request]


# What a recording is ------------------------------------------------------------------------------


def gathered(files: dict[str, str], output: str | None) -> list[str]:
    """What `recordings_of` is to find: all names are gathered first.

    `output` is relative to the folder: empty for the folder itself, `..` for one around it.
    """
    folders: dict[str, dict[str, str]] = defaultdict(dict)
    for name, text in files.items():
        folder, _, base = name.rpartition("/")
        is_output = bool(output) and output != ".." and f"{folder}/".startswith(f"{output}/")
        if base and not is_output and not any(part.startswith(".") for part in name.split("/")):
            folders[folder][base] = text
    audio = {
        folder: [base for base in bases if base.endswith((".wav", ".flac", ".mp3"))]
        for folder, bases in folders.items()
    }
    found = []
    for folder, bases in audio.items():
        results: set[str] = set()
        try:
            named = json.loads(folders[folder].get("manifest.json", ""))
            results |= {os.path.splitext(file["name"])[0] for file in named["files"]}
        except ValueError:
            pass
        parent, _, own = folder.rpartition("/")
        is_beside = folder and own in {os.path.splitext(base)[0] for base in audio.get(parent, ())}
        if is_beside and output in ("", ".."):
            results |= STEMS
        found += [
            f"{folder}/{base}".lstrip("/")
            for base in bases
            if os.path.splitext(base)[0] not in results
        ]
    return sorted(found)


FOLDERS = st.sampled_from(["a", "a.b", "a.wav", "b", "n", "m", "ü", "a-", "A", ".h", "out"])
AUDIO = ["a.wav", "a.flac", "a.b.wav", "a-.wav", "b.mp3", "m.wav", "n.wav", "ü.wav", "z.flac"]
BASES = st.sampled_from(
    [*AUDIO, "background.flac", "foreground.wav", ".a.wav", "a.txt", "manifest.png", "out.wav"]
)
MANIFESTS = st.sampled_from(
    [manifest("background.flac", "foreground.flac"), manifest("z.flac", "a.wav"), "{", manifest()]
)


@st.composite
def trees(draw: st.DrawFn) -> dict[str, str]:
    """Names of files and their texts; no name is both a file's and a folder's."""
    folders = draw(
        st.lists(st.lists(FOLDERS, max_size=3).map(tuple), min_size=1, max_size=5, unique=True)
    )
    files = {}
    for folder in folders:
        for base in draw(st.lists(BASES, max_size=5, unique=True)):
            files["/".join((*folder, base))] = ""
        if draw(st.booleans()):
            files["/".join((*folder, "manifest.json"))] = draw(MANIFESTS)
    return {
        name: text
        for name, text in files.items()
        if not any(other.startswith(f"{name}/") for other in files)
    }


OUTPUTS = st.sampled_from([None, "", "..", "../elsewhere", "out", "a", "a/out"])
HELD = st.sampled_from([0, 1, 3, 500])
UNFINISHED = {"x/a.wav": "", "x/a.b.wav": "", "x/a/background.flac": "", "x/a/z.wav": ""}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(files=trees(), output=OUTPUTS, held=HELD)
@example(files=UNFINISHED, output="", held=500)
@example(files=UNFINISHED, output="..", held=0)
@example(files=UNFINISHED, output="../elsewhere", held=0)
@example(files={**UNFINISHED, "x/a/manifest.json": manifest("z.wav")}, output=None, held=0)
def test_folders_give_what_gathering_everything_first_gives(
    files: dict[str, str], output: str | None, held: int
) -> None:
    with tempfile.TemporaryDirectory() as base, pytest.MonkeyPatch.context() as patched:
        patched.setattr(listing, "HELD_RECORDINGS", held)
        root = Path(base).resolve() / "in"
        root.mkdir()
        for name, text in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
        place = None if output is None else os.path.normpath(root / output)
        assert below(str(root), place) == gathered(files, output)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(files=trees(), output=OUTPUTS, held=HELD, page_size=st.sampled_from([1, 3, 1000]))
@example(files=UNFINISHED, output="", held=500, page_size=1)
@example(files=UNFINISHED, output="../elsewhere", held=0, page_size=1)
@example(files={"a.wav": "", "a.wav/b.wav": "", "b//c.wav": ""}, output=None, held=0, page_size=1)
def test_buckets_give_what_gathering_everything_first_gives(
    gcs: StorageServer, files: dict[str, str], output: str | None, held: int, page_size: int
) -> None:
    gcs.clear()
    gcs.page_size = page_size
    for name, text in files.items():
        gcs.fill([f"in/{name}"], text.encode())
    place = None if output is None else f"gs://{os.path.normpath(f'music/in/{output}')}"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(listing, "HELD_RECORDINGS", held)
        assert below(ROOT, place) == gathered(files, output)


TREE = [
    *(
        "2023/a.wav",
        "2024-01/a.wav",
        "2024-01/cd 1/b.flac",
        "2024-01/cd 1/x/c.wav",
        "2024-01/a.txt",
    ),
    *("2024-02/.hidden/a.wav", "2024-02/.a.wav", "2024.wav", "2024-.wav", "[1]/a.wav", "ü/ü.wav"),
]


@pytest.mark.parametrize(
    ("pattern", "beginning"),
    [
        ("2024-*/**/*.wav", "2024-"),
        ("2024-*/*", "2024-"),
        ("2024*", "2024"),
        ("**", ""),
        ("**/*.wav", ""),
        ("*/cd ?/**", ""),
        ("2024-01/cd 1/*", "2024-01/cd 1/"),
        ("2024-0[12]/a.*", "2024-0"),
        ("[[]1]/*", ""),
        ("?/*", ""),
        ("2024-01/.*", "2024-01/."),
        ("2024-02/.hidden/*", "2024-02/.hidden/"),
        ("nothing*", "nothing"),
    ],
)
def test_globs_match_as_those_on_this_machine_do(
    gcs: StorageServer, tmp_path: Path, pattern: str, beginning: str
) -> None:
    gcs.fill([f"in/{name}" for name in TREE])
    for name in TREE:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    here, there = (
        [
            path.removeprefix(f"{root}/")
            for path in recordings_of(
                GlobEvents(type="glob", location=f"{root}/{pattern}"),
                Storage(),
                output=None,
                stems=names_of_stems,
            )
        ]
        for root in (str(tmp_path), ROOT)
    )
    assert there == here
    prefix = f"prefix=in/{beginning}&".replace(" ", "+")
    assert [prefix in request for request in pages(gcs)] == [True]


def test_a_pattern_stands_for_no_buckets() -> None:
    with pytest.raises(InputError, match=r"gs://mu\*/a: a pattern names one bucket: gs://BUCKET/"):
        glob = GlobEvents(type="glob", location="gs://mu*/a")
        list(recordings_of(glob, Storage(), output=None, stems=names_of_stems))


# Lazily -------------------------------------------------------------------------------------------


def test_a_flat_bucket_is_listed_as_it_is_taken(
    gcs: StorageServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "HELD_RECORDINGS", 20)
    gcs.page_size = 10
    gcs.fill(f"in/{number:04}.wav" for number in range(1000))
    found = recordings_of(folder_of(ROOT), Storage(), output=None, stems=names_of_stems)
    assert not pages(gcs)
    for taken in range(1, 101):
        assert next(found) == f"{ROOT}/{taken - 1:04}.wav"
        # The 21st name asks for the manifest; from then on nothing is held.
        assert len(pages(gcs)) == max(3, math.ceil(taken / 10))
    assert len(downloads(gcs)) == 1
    found.close()


def test_a_folder_is_done_when_another_begins(gcs: StorageServer) -> None:
    gcs.page_size = 10
    gcs.fill(f"in/{number // 10:03}/{number % 10}.wav" for number in range(1000))
    found = recordings_of(folder_of(ROOT), Storage(), output=None, stems=names_of_stems)
    for taken in range(1, 101):
        next(found)
        assert len(pages(gcs)) == (taken - 1) // 10 + 2
    assert not downloads(gcs)
    found.close()


def test_results_in_the_output_folder_are_not_listed(gcs: StorageServer) -> None:
    gcs.page_size = 10
    gcs.fill(f"in/{name}.wav" for name in ("a", "out", "out-", "out.", "out0", "z"))
    gcs.fill(f"in/out/{number}/background.flac" for number in range(1000))
    expected = ["a.wav", "out-.wav", "out..wav", "out.wav", "out0.wav", "z.wav"]
    assert below(ROOT, f"{ROOT}/out") == expected
    assert len(pages(gcs)) == 2


def test_manifests_are_read_where_there_is_audio_beside_them(gcs: StorageServer) -> None:
    gcs.fill(f"in/{number}/spectrogram.png" for number in range(20))
    gcs.fill((f"in/{number}/manifest.json" for number in range(20)), manifest().encode())
    gcs.fill(["in/7/z.wav", "in/8/a.wav"])
    assert below(ROOT) == ["7/z.wav", "8/a.wav"]
    assert len(downloads(gcs)) == 2


@pytest.mark.parametrize(
    "pattern",
    ["{0:06}.wav", "z{0:06}.wav", "{1:05}/{0:06}.wav", "{1:05}/{2}/{0:06}.flac", "a.{0:06}.wav"],
    ids=["flat", "behind the manifest", "folders", "deep folders", "long stems"],
)
def test_memory_does_not_grow_with_the_number_of_names(
    gcs: StorageServer, monkeypatch: pytest.MonkeyPatch, pattern: str
) -> None:
    produced = itertools.count()

    def many(*_: Any, **__: Any) -> Iterator[str]:
        for number in range(20_000):
            next(produced)
            yield pattern.format(number, number // 20, number % 20 // 5)

    # No server makes so many in the time of a test.
    monkeypatch.setattr(Storage, "list_names", many)
    found = recordings_of(folder_of(ROOT), Storage(), output=ROOT, stems=names_of_stems)
    next(found)
    tracemalloc.start()
    try:
        count = 1 + sum(1 for _ in found)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == next(produced) == 20_000
    assert peak_bytes < 500_000


# Faults -------------------------------------------------------------------------------------------


@pytest.fixture
def hundred(gcs: StorageServer) -> list[str]:
    """A bucket of ten pages."""
    names = [f"{number // 30}/{number:02}.wav" for number in range(100)]
    gcs.fill(f"in/{name}" for name in names)
    gcs.page_size = 10
    return names


@pytest.mark.parametrize("kind", [503, 429, "reset", "truncate", "lost answer"])
def test_a_page_that_fails_is_asked_for_again(
    gcs: StorageServer, hundred: list[str], kind: int | str
) -> None:
    gcs.faults = [Fault("pageToken=in/1/50", kind)]
    assert below(ROOT) == hundred
    assert not gcs.faults[0].times
    assert len(pages(gcs)) == 11


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests are given up after a second."""
    monkeypatch.setattr(gcs_files, "RETRY", gcs_files.RETRY.with_timeout(1).with_delay(0.1))


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("pattern", ["pageToken=in/1/50", r"manifest\.json"])
def test_a_service_that_stays_away_is_no_end_of_the_list(
    gcs: StorageServer, hundred: list[str], pattern: str
) -> None:
    gcs.fill(["in/2/manifest.json"], manifest("60.wav").encode())
    gcs.faults = [Fault(pattern, 503, times=1000)]
    found = recordings_of(folder_of(ROOT), Storage(), output=None, stems=names_of_stems)
    taken = []
    with pytest.raises(UnusableStorageError, match=r"gs://music/in.*: can't be reached"):
        taken += [next(found) for _ in hundred]
    with pytest.raises(UnusableStorageError):
        list_events(job_of(ROOT))


@pytest.mark.usefixtures("impatient")
def test_no_service_at_all(gcs: StorageServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9")
    with pytest.raises(UnusableStorageError, match="gs://music/in: can't be reached"):
        list_events(job_of(ROOT))


def test_a_bucket_that_is_not_there_or_may_not_be_listed(gcs: StorageServer) -> None:
    with pytest.raises(StorageError, match=r"gs://no-such-bucket/in: .*not there"):
        list_events(job_of("gs://no-such-bucket/in"))
    gcs.faults = [Fault("/o[?]", 403)]
    with pytest.raises(StorageError, match=r"gs://music/in: .*roles"):
        list_events(job_of(ROOT))
    with pytest.raises(InputError, match=r"gs://music/in.*[.]wav"):
        list_events(job_of(ROOT))


# In the graph -------------------------------------------------------------------------------------


def job_of(*locations: str) -> JobConfig:
    types = {location: "glob" if "*" in location else "folder" for location in locations}
    inputs = [{"type": kind, "location": location} for location, kind in types.items()]
    data = {"outputs": [{"type": "gcs", "location": f"{ROOT}/out"}]}
    return parse_job(
        {
            "job_name": "test",
            "pipeline_options": {"streaming": False},
            "job_config": {"events": {"inputs": inputs}, "data": data},
        },
        source="test",
    )


@pytest.mark.parametrize(
    "locations", [(ROOT,), (ROOT, f"{ROOT}/1"), (f"{ROOT}/1", f"{ROOT}/**/*.wav", ROOT)]
)
def test_the_graph_reads_each_recording_once(
    gcs: StorageServer, hundred: list[str], locations: tuple[str, ...]
) -> None:
    gcs.fill(["in/3/foreground.flac"])
    gcs.fill(["in/3/manifest.json"], manifest("foreground.flac", "99.wav").encode())
    # A pattern asks for results too.
    expected = hundred if any("*" in location for location in locations) else hundred[:-1]
    job = job_of(*locations)
    assert set(list_events(job)) == set(expected)
    with beam.Pipeline(options=PipelineOptions([], runner="FnApiRunner")) as pipeline:
        elements = pipeline | ReadEvents(job) | beam.Map(element_of)
        assert_that(elements, equal_to(expected))


def element_of(message: bytes) -> str:
    return os.fsdecode(parse_message(message).data.element)
