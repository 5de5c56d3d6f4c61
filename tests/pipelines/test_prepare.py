"""`beamsplitter prepare` as a user runs it: folders and buckets to shards, and what goes wrong."""

import dataclasses
import json
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pytest
import soundfile
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.testing.util import assert_that
from conftest import Command, dead_letters
from repeating_engine import NONE, Engine, Mischief
from started_commands import started
from storage_server import StorageServer
from typer.testing import CliRunner
from warm_command import HOOK

from beamsplitter.models.datasets.excerpts import ExcerptGrid
from beamsplitter.models.datasets.shards import INDEX, ShardRecord, ShardSettings
from beamsplitter.models.datasets.sources import open_source
from beamsplitter.models.datasets.stem_folders import StemTrack
from beamsplitter.pipelines.command_line import app
from beamsplitter.pipelines.outcomes.run_state import CRASHED
from beamsplitter.pipelines.services.dataflow import OFFLINE_ENDPOINT
from beamsplitter.pipelines.services.submission import parse_options
from beamsplitter.storage import OutputTree, Storage
from beamsplitter.transforms import PrepareShards, list_stem_tracks
from beamsplitter.transforms.coders import RecordCoder

RATE = 8000
NAMES = ("train/plain", "train/album ü #1%?/-two's.x", "train/album ü #1%?/名前", "val/three")
SMALL = ("--targets", "vocals", "--sample-rate", RATE, "--excerpt-seconds", 2, "--workers", 2)
IN, OUT = "gs://music/in", "gs://music/out"
TIME_LIMIT_S = 60.0
LETHAL = """
import os
from beamsplitter.audio.decoding import audio_reader

read_audio = audio_reader.read_audio

def read_or_die(source, *, name, **options):
    if "lethal" in name:
        os._exit(139)
    return read_audio(source, name=name, **options)

audio_reader.read_audio = read_or_die
"""


def write_track(folder: Path, *, seconds: float = 5.0, seed: int = 0, rate: int = RATE) -> None:
    """A track of two stems, without a mixture."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(seed)
    for stem in ("vocals", "rest"):
        samples = 0.1 * generator.standard_normal((round(seconds * rate), 2))
        soundfile.write(folder / f"{stem}.flac", samples, rate)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Tracks with awkward names."""
    for seed, name in enumerate(NAMES):
        write_track(tmp_path / "in" / name, seed=seed)
    return tmp_path / "in"


def shard_files(out: Path) -> dict[str, bytes]:
    """The tars and the index of a folder of shards."""
    paths = sorted(path for path in out.rglob("*") if path.is_file())
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in paths
        if path.suffix == ".tar" or path.name == INDEX
    }


def counts(done: subprocess.CompletedProcess[str]) -> dict[str, int]:
    """What the command told with --json."""
    told: dict[str, int] = json.loads(done.stdout)
    return told


def test_a_folder_becomes_shards_with_the_same_excerpts(
    data: Path, tmp_path: Path, command: Command
) -> None:
    write_track(data / "train" / "short", seconds=1)
    out = tmp_path / "out"
    done = command("prepare", data, "-o", out, *SMALL)
    assert done.returncode == 0, done.stderr
    assert "5 tracks (0 as they were); 8 excerpts, " in done.stdout
    assert "1 tracks too short" in done.stdout
    assert not (out / ".beamsplitter").exists()
    chosen: dict[str, Any] = {"targets": ["vocals"], "sample_rate": RATE, "channels": 1}
    for split in ("train", "val"):
        folder, shards = (open_source(each / split, **chosen) for each in (data, out))
        assert shards.tracks == folder.tracks
        grid = shards.grid(excerpt_s=2)
        every = ExcerptGrid(folder.tracks, excerpt_s=2)
        assert grid.count == every.count
        for number in range(grid.count):
            excerpt = grid.excerpt(number)
            assert excerpt == every.excerpt(number)
            assert np.abs(shards.read(excerpt) - folder.read(excerpt)).max() < 1e-6


def test_a_bucket_gives_the_same_bytes_as_a_folder(
    data: Path, tmp_path: Path, command: Command, gcs: StorageServer
) -> None:
    """From it, to it, and what is whole there is left alone."""
    assert command("prepare", data, "-o", tmp_path / "out", *SMALL).returncode == 0
    expected = shard_files(tmp_path / "out")
    assert len(expected) == len(NAMES) + 1
    gcs.upload(data, "in")
    done = command("prepare", IN, "-o", OUT, *SMALL, "--json")
    assert done.returncode == 0, done.stderr
    assert counts(done)["kept_tracks"] == 0
    gcs.download("out", tmp_path / "downloaded")
    assert shard_files(tmp_path / "downloaded") == expected
    assert not gcs.names("out/.beamsplitter")

    gcs.bucket.blob("out/train/plain.tar").delete()
    gcs.bucket.blob("out/val/three.tar").upload_from_string(b"x" * len(expected["val/three.tar"]))
    done = command("prepare", IN, "-o", OUT, *SMALL, "--json")
    assert counts(done)["kept_tracks"] == 2
    gcs.download("out", tmp_path / "again")
    assert shard_files(tmp_path / "again") == expected


def test_what_is_missing_is_made_again_and_nothing_else(
    data: Path, tmp_path: Path, command: Command
) -> None:
    out = tmp_path / "out"
    assert command("prepare", data, "-o", out, *SMALL).returncode == 0
    expected = shard_files(out)
    kept = out / "val" / "three.tar"
    written_ns = kept.stat().st_mtime_ns
    (out / "train" / "plain.tar").unlink()
    damaged = out / "train" / "album ü #1%?" / "名前.tar"
    damaged.write_bytes(b"x" * len(damaged.read_bytes()))
    (out / "train" / "album ü #1%?" / "-two's.x.shard.json").write_text("no record")
    done = command("prepare", data, "-o", out, *SMALL, "--json")
    assert done.returncode == 0, done.stderr
    assert counts(done)["kept_tracks"] == 1
    assert kept.stat().st_mtime_ns == written_ns
    assert shard_files(out) == expected

    # A track that is another by now is done again, too.
    shutil.rmtree(data / "val" / "three")
    write_track(data / "val" / "three", seed=77)
    done = command("prepare", data, "-o", out, *SMALL, "--json")
    assert counts(done)["kept_tracks"] == 3
    changed = shard_files(out)
    assert {name for name in expected if changed[name] != expected[name]} == {
        "val/three.tar",
        INDEX,
    }


def test_tracks_that_can_not_be_done_cost_themselves(
    data: Path, tmp_path: Path, command: Command
) -> None:
    for name in ("broken", "cut off", "lacking", "wide"):
        write_track(data / "train" / name)
    (data / "train" / "broken" / "rest.flac").write_bytes(b"no sound at all")
    cut = data / "train" / "cut off" / "vocals.flac"
    cut.write_bytes(cut.read_bytes()[:40000])
    (data / "train" / "lacking" / "vocals.flac").unlink()
    soundfile.write(data / "train" / "wide" / "rest.flac", np.zeros((RATE * 3, 3)), RATE)
    out = tmp_path / "out"
    done = command("prepare", data, "-o", out, *SMALL, "--channels", 2)
    assert done.returncode == 1
    assert "4 tracks (0 as they were)" in done.stdout
    assert "4 failed: " in done.stdout
    letters = dead_letters(out)
    assert {name: letter["exception"] for name, letter in letters.items()} == {
        "train/broken": "UndecodableAudioError",
        "train/cut off": "TruncatedAudioError",
        "train/lacking": "DatasetError",
        "train/wide": "DatasetError",
    }
    for name, letter in letters.items():
        assert letter["step"] == "WriteShard"
        assert "traceback" not in letter
        assert f"{name}: " in done.stderr
        assert not (out / f"{name}.tar").exists()
    source = open_source(out, targets=["vocals"], sample_rate=RATE, channels=2)
    assert {track.name for track in source.tracks} == {*NAMES}

    for name in letters:
        shutil.rmtree(data / name)
    done = command("prepare", data, "-o", out, *SMALL, "--channels", 2)
    assert done.returncode == 0
    assert (out / "failures.jsonl").read_text() == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("gone",), "gone: is no folder"),
        (("empty",), "empty: holds no tracks"),
        (("in", "--targets", "drums"), "4 of 4 tracks lack some of drums: "),
        (("in", "--targets", ","), "the targets are none: name one stem"),
        (("in", "--excerpt-seconds", 0), "longer than 0 s: they are 0"),
    ],
)
def test_a_mistake_in_the_call_is_told_and_nothing_is_written(
    data: Path, tmp_path: Path, arguments: tuple[object, ...], message: str
) -> None:
    (tmp_path / "empty").mkdir()
    source, *options = arguments
    out = tmp_path / "out"
    line = ("prepare", tmp_path / str(source), "-o", out, *SMALL, *options)
    done = CliRunner().invoke(app, [*map(str, line)])
    assert done.exit_code == 2
    assert message in done.stderr
    assert not out.exists()


def test_an_empty_bucket_is_told(gcs: StorageServer) -> None:
    done = CliRunner().invoke(app, [*map(str, ("prepare", IN, "-o", OUT, *SMALL))])
    assert done.exit_code == 2
    assert f"{IN}: holds no tracks" in done.stderr


def test_shards_of_other_settings_are_replaced_only_if_asked(
    data: Path, tmp_path: Path, command: Command
) -> None:
    out = tmp_path / "out"
    assert command("prepare", data, "-o", out, *SMALL).returncode == 0
    before = shard_files(out)
    done = command("prepare", data, "-o", out, *SMALL, "--hop-seconds", 1)
    assert done.returncode == 2
    assert "holds shards that were made with hop_s 2.0: name another folder" in done.stderr
    assert shard_files(out) == before
    done = command("prepare", data, "-o", out, *SMALL, "--hop-seconds", 1, "--replace", "--json")
    assert done.returncode == 0, done.stderr
    assert counts(done)["kept_tracks"] == 0
    assert counts(done)["excerpts"] == 4 * 4


def test_a_track_that_kills_its_worker_is_given_up_and_the_rest_is_done(
    data: Path, tmp_path: Path, command: Command
) -> None:
    write_track(data / "train" / "lethal")
    out = tmp_path / "out"
    line = ("prepare", data, "-o", out, *SMALL, "--workers", 2)
    done = command(*line, **{HOOK: LETHAL})
    assert done.returncode == 1, done.stderr
    (letter,) = dead_letters(out).values()
    assert letter["element"] == "train/lethal"
    assert letter["exception"] == "GivenUpError"
    assert CRASHED in letter["message"]
    source = open_source(out, targets=["vocals"], sample_rate=RATE, channels=1)
    assert {track.name for track in source.tracks} == {*NAMES}


def wait_for(condition: Callable[[], object]) -> None:
    """Until it is true."""
    end = time.monotonic() + TIME_LIMIT_S
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM])
def test_after_a_stopped_run_the_next_does_the_rest(
    tmp_path: Path,
    command: Command,
    sent: signal.Signals,
) -> None:
    data = tmp_path / "in"
    for seed in range(8):
        write_track(data / f"{seed}", seconds=30, seed=seed, rate=44100)
    line = ("prepare", data, "--targets", "vocals", "--workers", 2)
    assert command(*line, "-o", tmp_path / "undisturbed").returncode == 0
    expected = shard_files(tmp_path / "undisturbed")

    out = tmp_path / "out"
    with started(command, tmp_path / "tmp", *line, "-o", out) as run:
        wait_for(lambda: [*out.glob("*.shard.json")])
        family = run.family()
        family[0].send_signal(sent)
        code = run.wait(10)
        wait_for(lambda: not any(each.is_running() for each in family))
    if sent == signal.SIGTERM:
        assert code == 130
        assert run.message == "interrupted; run it again to go on where it stopped\n"
        assert not (out / ".beamsplitter").exists()
    assert not (out / INDEX).exists()
    finished = {path: path.stat().st_mtime_ns for path in out.glob("*.shard.json")}
    assert 0 < len(finished) < 8

    done = command(*line, "-o", out, "--json")
    assert done.returncode == 0, done.stderr
    assert counts(done)["kept_tracks"] == len(finished)
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    assert shard_files(out) == expected
    assert not (out / ".beamsplitter").exists()


def test_the_transform_runs_in_a_pipeline_of_ones_own(data: Path, tmp_path: Path) -> None:
    """On any runner: what crosses from step to step are names and records, as JSON.

    Objects in a bucket may have names that lead out of a folder here.
    """
    tree = OutputTree(str(tmp_path / "out"))
    chosen = ShardSettings(
        targets=("vocals",), sample_rate=RATE, channels=1, excerpt_s=2.0, hop_s=2.0
    )
    tracks = list_stem_tracks(str(data), Storage())

    outside = dataclasses.replace(tracks[0], name="train/../../outside")

    def complete(records: list[ShardRecord]) -> None:
        assert sorted(record.name for record in records) == sorted(NAMES)

    with beam.Pipeline(options=PipelineOptions([], runner="FnApiRunner")) as pipeline:
        created = pipeline | beam.Create([*tracks, outside])
        assert created.element_type is StemTrack
        assert_that(created | PrepareShards(chosen, tree), complete)
    assert {*shard_files(tmp_path / "out")} == {INDEX, *(f"{name}.tar" for name in NAMES)}
    (letter,) = dead_letters(tmp_path / "out").values()
    assert letter["element"] == outside.name
    assert "leads out of the output folder" in letter["message"]
    assert not (tmp_path / "outside.tar").exists()
    for record_type in (StemTrack, ShardRecord):
        coder = beam.coders.registry.get_coder(record_type)
        assert isinstance(coder, RecordCoder)
    coder = beam.coders.registry.get_coder(StemTrack)
    assert [coder.decode(coder.encode(track)) for track in tracks] == tracks


def graph_of(data: Path, out: Path, options: PipelineOptions) -> beam.Pipeline:
    """The transform over a folder, in a pipeline that is not run yet."""
    settings = ShardSettings(
        targets=("vocals",), sample_rate=RATE, channels=1, excerpt_s=2.0, hop_s=2.0
    )
    pipeline = beam.Pipeline(options=options)
    tracks = pipeline | beam.Create(list_stem_tracks(str(data), Storage()))
    tracks | PrepareShards(settings, OutputTree(str(out)))
    return pipeline


@pytest.mark.parametrize("seed", range(10))
def test_engines_may_do_all_of_it_again_in_any_order(data: Path, tmp_path: Path, seed: int) -> None:
    """While storage fails now and then; a track that can't be decoded is one dead letter."""
    (data / "train" / "plain" / "rest.flac").write_bytes(b"no sound at all")
    options = PipelineOptions([], runner="FnApiRunner")
    Engine(0, NONE).run(graph_of(data, tmp_path / "undisturbed", options), {})
    expected = shard_files(tmp_path / "undisturbed")
    assert {*expected} == {INDEX, *(f"{name}.tar" for name in NAMES[1:])}
    mischief = Mischief(repeats=0.3, doubles=0.3, faults=0.05, turns=0.3)
    engine = Engine(seed, mischief)
    engine.run(graph_of(data, tmp_path / "out", options), {})
    assert engine.repeated
    assert shard_files(tmp_path / "out") == expected
    assert dead_letters(tmp_path / "out") == dead_letters(tmp_path / "undisturbed")


def test_the_graph_is_translated_for_dataflow(data: Path, tmp_path: Path) -> None:
    """Without network or account."""
    for name in ("temp", "template"):
        (tmp_path / name).mkdir()
    options = parse_options(
        {
            "runner": "DataflowRunner",
            "project": "my-project",
            "region": "europe-west4",
            "temp_location": str(tmp_path / "temp"),
            "staging_location": str(tmp_path / "temp"),
            "template_location": str(tmp_path / "template" / "job.json"),
            "dataflow_endpoint": OFFLINE_ENDPOINT,
            "sdk_container_image": "example.org/beamsplitter",
            "sdk_location": "container",
            "no_auth": True,
            "save_main_session": False,
        }
    )
    graph_of(data, tmp_path / "out", options).run()
    assert (tmp_path / "template" / "job.json").stat().st_size
    described = (tmp_path / "temp" / "pipeline.pb").read_bytes()
    proto = beam_runner_api_pb2.Pipeline.FromString(described)
    names = {each.unique_name for each in proto.components.transforms.values()}
    assert {"PrepareShards/Spread", "PrepareShards/WriteShard", "PrepareShards/WriteIndex"} <= names
