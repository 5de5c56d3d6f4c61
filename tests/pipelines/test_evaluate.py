"""`beamsplitter evaluate` as a user runs it: folders, separators, buckets, and what goes wrong."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow.parquet
import pytest
import soundfile
import torch
from apache_beam.options.pipeline_options import PipelineOptions
from conftest import Command, dead_letters
from oracles import museval
from repeating_engine import NONE, Engine, Mischief
from storage_server import StorageServer
from torchmetrics.functional.audio import scale_invariant_signal_distortion_ratio
from typer.testing import CliRunner

import beamsplitter
from beamsplitter.models.evaluation.matching import match, separated_tracks
from beamsplitter.models.evaluation.measures import ScoringSettings
from beamsplitter.models.separators.by_name import SeparatorName
from beamsplitter.pipelines.command_line import app
from beamsplitter.pipelines.outcomes.run_state import CRASHED
from beamsplitter.storage import OutputTree, Storage
from beamsplitter.transforms import (
    EvaluationSettings,
    ScoreTracks,
    find_references,
    list_stem_tracks,
)

RATE = 8000
STEMS = ("vocals", "drums")
NAMES = ("test/A", "test/album ü/b #1", "test/名前")
FAST = ("--measures", "si_sdr,snr")
HALF = """
from beamsplitter.models.separators.base import Separator

class Half(Separator):
    name = "half"
    stems = ("vocals",)

    def separate(self, block, sample_rate):
        return block[None] / 2
"""
# It dies of the longest track.
FATAL = """
import os
from beamsplitter.models.separators.base import Separator

class Fatal(Separator):
    name = "fatal"
    stems = ("vocals", "drums")

    def separate(self, block, sample_rate):
        if block.shape[-1] > 4 * sample_rate:
            os._exit(139)
        return (block / 2)[None].repeat(2, axis=0)
"""


def song(seed: int, seconds: float) -> dict[str, np.ndarray]:
    """Stems of stereo noise of different colours."""
    generator = np.random.default_rng(seed)
    vocals, drums = 0.05 * generator.standard_normal((2, 2, round(seconds * RATE)))
    return {"vocals": vocals, "drums": drums + np.roll(drums, 1, axis=-1)}


def write(path: Path, samples: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples.T, RATE, subtype="FLOAT" if path.suffix == ".wav" else "PCM_16")


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """`data`, and estimates of it in the folders `good` and `bad`."""
    for seed, name in enumerate(NAMES):
        stems = song(seed, 2.5 + seed)
        generator = np.random.default_rng(100 + seed)
        write(tmp_path / "data" / name / "mixture.wav", sum(stems.values(), np.zeros(())))
        for stem, samples in stems.items():
            write(tmp_path / "data" / name / f"{stem}.wav", samples)
            for system, error in (("good", 0.01), ("bad", 0.04)):
                estimate = samples + error * generator.standard_normal(samples.shape)
                write(tmp_path / system / name.removeprefix("test/") / f"{stem}.flac", estimate)
    return tmp_path


def evaluate(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments), "--workers", "2"])


def rows_of(out: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((out / "scores.csv").read_text().splitlines()))


def files_of(out: Path) -> dict[str, bytes]:
    paths = (path for path in out.rglob("*") if path.is_file())
    return {str(path.relative_to(out)): path.read_bytes() for path in paths}


def test_scores_are_those_of_torchmetrics_and_stand_in_all_tables(folders: Path) -> None:
    out = folders / "scores"
    done = evaluate(folders / "data", folders / "good", folders / "bad", "-o", out)
    assert done.exit_code == 0, done.output
    rows = rows_of(out)
    assert len(rows) == 2 * len(NAMES) * len(STEMS) * 7
    for row in rows:
        if row["measure"] == "si_sdr":
            folder = folders / row["system"] / row["track"].removeprefix("test/")
            estimate, _ = soundfile.read(folder / f"{row['stem']}.flac")
            reference, _ = soundfile.read(folders / "data" / row["track"] / f"{row['stem']}.wav")
            mixture, _ = soundfile.read(folders / "data" / row["track"] / "mixture.wav")
            expected, before = (
                scale_invariant_signal_distortion_ratio(
                    torch.from_numpy(each.T), torch.from_numpy(reference.T)
                ).mean()
                for each in (estimate, mixture)
            )
            assert float(row["whole"]) == pytest.approx(float(expected), abs=1e-4)
            improvement = float(expected - before)
            assert float(row["whole_improvement"]) == pytest.approx(improvement, abs=1e-4)
            assert int(row["frames"]) == int(2.5 + NAMES.index(row["track"]))
    table = pyarrow.parquet.read_table(out / "scores.parquet").to_pylist()
    assert [float(row["whole"]) for row in rows] == [row["whole"] for row in table]
    content = json.loads((out / "scores.json").read_text())
    (duel,) = (
        each
        for each in content["side_by_side"]
        if (each["stem"], each["measure"], each["span"]) == ("vocals", "si_sdr", "track")
    )
    assert (duel["first"], duel["second"]) == ("bad", "good")
    assert duel["comparison"]["worse"] == duel["comparison"]["tracks"] == len(NAMES)
    assert "| bad | good | vocals | SI-SDR (dB)" in (out / "scores.md").read_text()
    assert (out / "plots" / "sdr.png").read_bytes().startswith(b"\x89PNG")
    assert (out / "plots" / "bad-against-good-si_sdr.png").exists()


def test_museval_reads_its_files(folders: Path) -> None:
    out = folders / "scores"
    measures = ("--measures", "bsseval")
    done = evaluate(folders / "data", folders / "good", "-o", out, *measures)
    assert done.exit_code == 0, done.output
    store = museval.MethodStore()
    store.add_eval_dir(out / "museval" / "good")
    medians = store.agg_frames_tracks_scores()
    content = json.loads((out / "scores.json").read_text())
    for each in content["scores"]:
        if each["span"] == "frames":
            theirs = medians["good", each["stem"], each["measure"].upper()]
            assert each["score"]["median"] == pytest.approx(theirs, abs=1e-4)


def test_a_separator_is_scored_as_what_it_writes(folders: Path) -> None:
    out, data = folders / "scores", folders / "data"
    names = ("--name", "foreground=vocals", "--name", "background=drums")
    for name in NAMES:
        mixture = beamsplitter.separate(data / name / "mixture.wav")
        for stem, samples in mixture.items():
            write(folders / "written" / name / f"{stem}.wav", samples)
    systems = (folders / "written", "--separator", "nn-filter")
    done = evaluate(data, *systems, "-o", out, *names, *FAST)
    assert done.exit_code == 0, done.output
    scores = {(r["system"], r["track"], r["stem"], r["measure"]): r["whole"] for r in rows_of(out)}
    for (system, *key), score in scores.items():
        other = scores[("written" if system == "nn-filter" else "nn-filter", *key)]
        assert float(score) == pytest.approx(float(other), abs=1e-4)


def test_shards_are_scored_as_the_tracks_that_they_were_made_of(
    folders: Path, command: Command
) -> None:
    """Folders and a separator; the last half second of a track is all that shards lack."""
    data, shards, names = folders / "data", folders / "shards", ("--name", "drums=rest_of_mixture")
    done = command(
        *("prepare", data, "-o", shards, "--targets", "vocals", "--sample-rate", RATE),
        *("--channels", 2, "--excerpt-seconds", 0.5, "--workers", 2),
    )
    assert done.returncode == 0, done.stderr
    systems = (folders / "good", "--separator", "half=half_of:Half")
    (folders / "half_of.py").write_text(HALF)
    scores = []
    for references, options in ((data, ()), (shards, names)):
        out = folders / f"scores of {references.name}"
        done = command(
            *("evaluate", references, *systems, "-o", out, *FAST, *options, "--workers", 2),
            PYTHONPATH=str(folders),
        )
        assert done.returncode == 0, done.stderr
        scores.append(
            {
                (row["system"], row["track"], row["measure"]): float(row["whole"])
                for row in rows_of(out)
                if row["stem"] == "vocals"
            }
        )
    assert len(scores[0]) == 2 * len(NAMES) * 2
    assert scores[1] == pytest.approx(scores[0], abs=1e-3)


def test_it_goes_on_where_it_was_and_gives_the_same_bytes(folders: Path) -> None:
    out, again = folders / "scores", folders / "again"
    arguments = (folders / "data", folders / "good", "--measures", "si_sdr", "--track-plots")
    assert evaluate(*arguments, "-o", out).exit_code == 0
    assert (out / "tracks" / "good" / f"{NAMES[1]}-si_sdr.png").exists()
    first = files_of(out)
    assert evaluate(*arguments, "-o", again).exit_code == 0
    assert files_of(again) == first
    (out / "tracks" / "good" / f"{NAMES[0]}.json").unlink()
    done = evaluate(*arguments, "-o", out)
    assert "3 tracks scored (2 before)" in done.output
    assert files_of(out) == first
    changed = folders / "good" / "A" / "vocals.flac"
    write(changed, song(9, 2.5)["vocals"])
    done = evaluate(*arguments, "-o", out)
    assert "3 tracks scored (2 before)" in done.output
    assert files_of(out) != first


def graph_of(folders: Path, out: Path) -> beam.Pipeline:
    """The transform over estimates, and a separator, in a pipeline that is not run yet."""
    storage = Storage()
    tracks, shards = find_references(str(folders / "data"), storage)
    estimates = list_stem_tracks(str(folders / "good"), storage)
    names = {"foreground": "vocals", "background": "drums"}
    found = [
        *match("good", tracks, estimates).tracks,
        *separated_tracks("filter", tracks, (*names,), names=names).tracks,
    ]
    settings = EvaluationSettings(
        ScoringSettings(("si_sdr",)),
        separators={"filter": SeparatorName("nn-filter")},
        names=names,
        shards=shards,
        pictures=True,
    )
    pipeline = beam.Pipeline(options=PipelineOptions([], runner="FnApiRunner"))
    pipeline | beam.Create(found) | ScoreTracks(settings, OutputTree(str(out)))
    return pipeline


def test_engines_may_do_all_of_it_again_in_any_order(folders: Path) -> None:
    """While storage fails now and then; a track that can't be decoded is one dead letter."""
    (folders / "good" / "A" / "vocals.flac").write_bytes(b"no sound")
    Engine(0, NONE).run(graph_of(folders, folders / "undisturbed"), {})
    expected = files_of(folders / "undisturbed")
    assert len(rows_of(folders / "undisturbed")) == (2 + 3) * 2
    for seed in range(3):
        out = folders / f"out {seed}"
        engine = Engine(seed, Mischief(repeats=0.3, doubles=0.3, faults=0.01, turns=0.3))
        engine.run(graph_of(folders, out), {})
        assert engine.repeated
        assert files_of(out) == expected, seed


def test_what_is_wrong_with_a_track_is_told_and_the_others_are_scored(folders: Path) -> None:
    out, good = folders / "scores", folders / "good"
    (good / "A" / "vocals.flac").write_bytes(b"no sound")
    short = good / "名前" / "drums.flac"
    write(short, song(2, 1.0)["drums"])
    shutil.rmtree(good / "album ü")
    write(good / "Z" / "vocals.flac", song(3, 1.0)["vocals"])
    write(good / "A" / "kazoo.flac", song(3, 1.0)["vocals"])
    done = evaluate(folders / "data", good, folders / "bad", "-o", out, *FAST)
    assert done.exit_code == 1
    failures = dead_letters(out)
    assert {*failures} == {"good/test/A", "good/test/名前"}
    messages = " ".join(each["message"] for each in failures.values())
    assert "drums.flac: is 3.50 s shorter than its references" in messages
    for told in (
        "good: 1 tracks have no estimates: test/album ü/b #1",
        "good: 1 folders are of no track: Z",
        "good: 1 stems have no reference: kazoo",
    ):
        assert told in done.output
    assert {row["system"] for row in rows_of(out)} == {"bad"}


@pytest.mark.parametrize("measures", ["bsseval,snr", "snr"])
def test_lossy_references_are_told_once_where_bsseval_is_measured(
    folders: Path, measures: str
) -> None:
    for name in NAMES[:2]:
        path = folders / "data" / name / "vocals.wav"
        samples, rate = soundfile.read(path)
        soundfile.write(path.with_suffix(".ogg"), samples, rate, format="OGG")
        path.unlink()
    done = evaluate(
        *(folders / each for each in ("data", "good", "bad")),
        *("-o", folders / "scores", "--measures", measures),
    )
    assert done.exit_code == 0, done.output
    told = [line for line in done.stderr.splitlines() if "lossy" in line]
    if "bsseval" in measures:
        (line,) = told
        assert "of 2 tracks" in line and "FLAC of 16 bits" in line
    else:
        assert not told


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("good", "--measures", "loudness"), "there is no measure loudness"),
        (("good", "good"), "two systems are called good"),
        (("--separator", "a=hpss", "--separator", "a=hpss"), "two systems are called a"),
        (("good", "--name", "vocals"), "--name vocals: write it as NAME=value"),
        ((), "name a folder of ESTIMATES, or a --separator"),
        (("data/test/A",), "no track of the references has an estimate there"),
        (("nowhere",), "nowhere: is no folder"),
        (("--separator", "magic"), "magic"),
        (("--separator", "nn-filter"), "its stems background, foreground have no reference"),
    ],
)
def test_mistakes_in_the_call_are_told(
    folders: Path, arguments: tuple[str, ...], message: str
) -> None:
    given = [str(folders / each) if (folders / each).exists() else each for each in arguments]
    done = evaluate(folders / "data", *given, "-o", folders / "scores")
    assert done.exit_code == 2
    assert message in done.output.replace("\n", " ")
    assert not (folders / "scores").exists()


def test_a_bucket_gives_the_same_bytes_as_a_folder(
    folders: Path, command: Command, gcs: StorageServer
) -> None:
    """References and estimates from it, scores to it, and what is scored there is left alone."""
    here = command("evaluate", folders / "data", folders / "good", "-o", folders / "out", *FAST)
    assert here.returncode == 0, here.stderr
    gcs.upload(folders / "data", "data")
    gcs.upload(folders / "good", "good")
    there = ("gs://music/data", "gs://music/good", "-o", "gs://music/out")
    done = command("evaluate", *there, *FAST)
    assert done.returncode == 0, done.stderr
    gcs.download("out", folders / "downloaded")
    expected, found = (files_of(folders / each) for each in ("out", "downloaded"))
    assert {*found} == {*expected}
    for name, content in found.items():
        if not name.startswith("tracks/"):  # those name what the files were
            assert content == expected[name]
    assert "3 tracks scored (3 before)" in command("evaluate", *there, *FAST).stdout


def test_a_track_that_kills_its_worker_is_given_up_and_the_rest_is_scored(
    folders: Path, command: Command
) -> None:
    (folders / "fatal.py").write_text(FATAL)
    done = command(
        *("evaluate", folders / "data", "--separator", "fatal:Fatal", "-o", folders / "out"),
        *(*FAST, "--workers", 2),
        PYTHONPATH=str(folders),
    )
    assert done.returncode == 1
    (failure,) = dead_letters(folders / "out").values()
    assert failure["element"] == "fatal-Fatal/test/名前"
    assert failure["message"] == CRASHED
    assert {row["track"] for row in rows_of(folders / "out")} == {*NAMES[:2]}
