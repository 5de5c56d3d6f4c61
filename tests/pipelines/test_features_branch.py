"""The branch `features`: what its files hold, of wholes and parts, of mixtures and stems."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pytest
import soundfile
from apache_beam.options.pipeline_options import PipelineOptions
from conftest import Command, dead_letters
from graph_runs import finish
from PIL import Image
from storage_server import StorageServer

from beamsplitter.audio.chorus import find_choruses
from beamsplitter.audio.features.extraction import features_of
from beamsplitter.audio.features.settings import feature_settings
from beamsplitter.models.feature_sets.index import open_feature_set
from beamsplitter.models.feature_sets.torch_dataset import FeatureDataset
from beamsplitter.pipelines.commands.check import check, read_tree
from beamsplitter.pipelines.events.elements import list_events
from beamsplitter.pipelines.events.sources import CreateEvents
from beamsplitter.pipelines.job.job_config import JobConfig, JobFileError
from beamsplitter.pipelines.local.launch import run_local
from beamsplitter.pipelines.run import build
from beamsplitter.pipelines.separate_files import split_job

RATE = 8000
SETS: dict[str, Any] = {
    "log_mel": {"n_fft": 512, "hop_length": 200, "n_mels": 24},
    "cepstra": {"kind": "mfcc", "n_mels": 24, "n_mfcc": 12, "sample_rate": 5512},
    "onset": {"n_mels": 24},
    "stft": {"kind": "complex", "n_fft": 256, "hop_length": 128, "mono": False},
}
HPSS = {"separator": "hpss"}
NOTHING = {"separator": "none"}
EVERY = {"take": "every", "duration_s": 5}
REPAIR = ("--repair", "--workers", "1")


def sound(seconds: float, channels: int = 2) -> np.ndarray:
    generator = np.random.default_rng(round(10 * seconds))
    samples = 0.1 * generator.standard_normal((channels, round(seconds * RATE)))
    samples *= 1 + np.sin(np.arange(samples.shape[1]) / RATE)
    return (np.cumsum(samples, axis=1) / 30 + 0.3 * samples).clip(-1, 1).astype(np.float32)


def write(path: Path, seconds: float) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, sound(seconds).T, RATE, subtype="PCM_16")
    return soundfile.read(path, dtype="float32", always_2d=True)[0].T


def job_of(data: Path | str, out: Path | str, **sections: Any) -> JobConfig:
    return split_job(
        [data],
        out,
        **{"separation": NOTHING, "plots": {"enabled": False}, "features": {"sets": SETS}}
        | sections,
    )


def again(job: JobConfig) -> None:
    """Run a finished job, as a command does."""
    run_local(job, list_events(job), workers=1, show=lambda state, line: None)


def arrays_in(folder: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    with np.load(folder / "features.npz", allow_pickle=False) as file:
        names = [name for name in file.files if name != "metadata.json"]
        return {name: file[name] for name in names}, json.loads(file["metadata.json"])


def expected(samples: np.ndarray, name: str, sets: dict[str, Any] = SETS) -> np.ndarray:
    settings = feature_settings({"kind": name, **sets[name]})
    rows = features_of(samples, RATE, settings).transpose(2, 0, 1)
    return rows[:, 0] if settings.mono else rows


def files_of(out: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in out.rglob("*")
        if path.is_file() and path.name not in ("run.json", "manifest.json")
    }


def test_the_file_holds_the_features_of_the_mixture(tmp_path: Path) -> None:
    samples = write(tmp_path / "data/a.wav", 3.3)
    out = finish(job_of(tmp_path / "data", tmp_path / "out"))
    arrays, metadata = arrays_in(out / "a")
    assert sorted(arrays) == sorted(f"{name}/mixture" for name in SETS)
    for name in SETS:
        np.testing.assert_array_equal(arrays[f"{name}/mixture"], expected(samples, name))
    assert metadata["excerpts"] == [{"start_s": 0.0, "duration_s": 3.3}]
    assert metadata["sets"]["cepstra"]["n_mfcc"] == 12
    assert not list(out.rglob("*.flac"))


def test_the_seeds_parameters_give_its_shape(tmp_path: Path) -> None:
    write(tmp_path / "data/a.wav", 21)
    seed = {
        "kind": "log_mel",
        "sample_rate": 22050,
        "n_fft": 400,
        "hop_length": 200,
        "pad_mode": "reflect",
        "n_mels": 64,
        "htk": True,
        "mel_norm": None,
        "top_db": 80,
    }
    excerpts = {"take": "range", "start_s": 0.5, "duration_s": 20}
    features = {"sets": {"seed": seed}, "excerpts": excerpts}
    arrays, _ = arrays_in(
        finish(job_of(tmp_path / "data", tmp_path / "out", features=features)) / "a"
    )
    assert arrays["seed/mixture"].shape == (2206, 64)
    assert arrays["seed/mixture"].dtype == np.float32


@pytest.mark.parametrize("take", ["whole", "range", "every"])
def test_parts_give_the_frames_of_the_whole(tmp_path: Path, take: str) -> None:
    write(tmp_path / "data/a.wav", 31.7)
    excerpts = {
        "whole": {},
        "range": {"take": "range", "start_s": 4, "duration_s": 22.2},
        "every": {"take": "every", "duration_s": 7, "hop_s": 3.1},
    }[take]
    features = {"sets": SETS, "excerpts": excerpts}
    whole = finish(job_of(tmp_path / "data", tmp_path / "whole", features=features))
    separation = {**NOTHING, "part_seconds": 10}
    parts = finish(
        job_of(tmp_path / "data", tmp_path / "parts", features=features, separation=separation)
    )
    arrays, metadata = arrays_in(whole / "a")
    of_parts, metadata_of_parts = arrays_in(parts / "a")
    assert arrays.keys() == of_parts.keys()
    assert len(arrays) == len(SETS) * len(metadata["excerpts"])
    assert metadata["excerpts"] == metadata_of_parts["excerpts"]
    for name, array in arrays.items():
        if name.startswith("cepstra"):  # resampled
            np.testing.assert_allclose(of_parts[name], array, atol=1e-3)
        else:
            np.testing.assert_array_equal(of_parts[name], array)


def test_silence_has_the_same_chroma_in_parts(tmp_path: Path) -> None:
    """Where it is resampled, it is 1e-20 or so, and another 1e-20 in parts."""
    samples = sound(30)
    for start_s in (7, 9, 16, 21):
        samples[:, start_s * RATE : (start_s + 1) * RATE] = 0
    (tmp_path / "data").mkdir()
    soundfile.write(tmp_path / "data/a.wav", samples.T, RATE, subtype="PCM_16")
    made = []
    for part_seconds in (300, 10):
        job = job_of(
            tmp_path / "data",
            tmp_path / f"out-{part_seconds}",
            features={"sets": {"chroma": {"sample_rate": 5512}}},
            separation={**NOTHING, "part_seconds": part_seconds},
        )
        made.append(arrays_in(finish(job) / "a")[0]["chroma/mixture"])
    np.testing.assert_allclose(*made, atol=1e-4)


@pytest.mark.parametrize("part_seconds", [10, 300])
def test_features_of_stems_are_those_of_their_files(tmp_path: Path, part_seconds: float) -> None:
    write(tmp_path / "data/a.wav", 22)
    sets = {name: SETS[name] for name in ("log_mel", "stft")}
    features = {"sets": sets, "of": ["percussive", "mixture", "harmonic"]}
    separation = {**HPSS, "part_seconds": part_seconds}
    out = finish(
        job_of(tmp_path / "data", tmp_path / "out", features=features, separation=separation)
    )
    arrays, metadata = arrays_in(out / "a")
    assert metadata["signals"] == ["percussive", "mixture", "harmonic"]
    for stem in ("percussive", "harmonic"):
        stored, rate = soundfile.read(out / f"a/{stem}.flac", dtype="float32", always_2d=True)
        assert rate == RATE
        for name in sets:
            np.testing.assert_array_equal(arrays[f"{name}/{stem}"], expected(stored.T, name))


def test_stems_of_another_rate_have_features_at_it(tmp_path: Path) -> None:
    write(tmp_path / "data/a.wav", 12.5)
    excerpts = {"take": "every", "duration_s": 5}
    features = {"sets": {"onset": {}}, "of": ["harmonic"], "excerpts": excerpts}
    for part_seconds in (10, 300):
        job = job_of(
            tmp_path / "data",
            tmp_path / f"out{part_seconds}",
            features=features,
            separation={**HPSS, "part_seconds": part_seconds},
            stems={"sample_rate": 11025},
        )
        arrays, _ = arrays_in(finish(job) / "a")
        assert [each.shape for each in arrays.values()] == [(1 + 5 * 11025 // 512, 1)] * 2


@pytest.mark.parametrize("part_seconds", [10, 300])
def test_features_are_added_without_separating_again(tmp_path: Path, part_seconds: float) -> None:
    write(tmp_path / "data/a.wav", 12)
    separation = {**HPSS, "part_seconds": part_seconds}
    features = {"sets": SETS, "of": ["mixture", "harmonic"]}
    both: dict[str, Any] = {"separation": separation, "features": features}
    at_once = finish(job_of(tmp_path / "data", tmp_path / "at-once", **both))
    later = finish(job_of(tmp_path / "data", tmp_path / "later", **{**both, "features": {}}))
    stem = later / "a/harmonic.flac"
    written = stem.stat().st_mtime_ns
    finish(job_of(tmp_path / "data", tmp_path / "later", **both))
    assert stem.stat().st_mtime_ns == written
    assert files_of(later) == files_of(at_once)


def test_other_stems_make_features_of_stems_anew_and_no_others(tmp_path: Path) -> None:
    write(tmp_path / "data/a.wav", 3)
    for of, anew in (("mixture", False), ("harmonic", True)):
        out = tmp_path / of
        features = {"sets": {"onset": {}}, "of": [of]}
        finish(job_of(tmp_path / "data", out, separation=HPSS, features=features))
        (out / "a/harmonic.flac").unlink()
        before = (out / "a/features.npz").stat().st_mtime_ns
        finish(job_of(tmp_path / "data", out, separation=HPSS, features=features))
        assert (out / "a/harmonic.flac").exists()
        assert ((out / "a/features.npz").stat().st_mtime_ns > before) == anew


@pytest.mark.parametrize("part_seconds", [10, 300])
def test_the_chorus_is_that_of_find_choruses(tmp_path: Path, part_seconds: float) -> None:
    generator = np.random.default_rng(3)
    pitches = {section: generator.integers(0, 12, 8) for section in "ABC"}
    times = np.arange(RATE) / RATE
    song = np.concatenate(
        [
            0.2 * np.sin(2 * np.pi * 220 * 2 ** (pitch / 12) * times)
            for section in "ABCB"
            for pitch in pitches[section]
        ]
    ).astype(np.float32)
    path = tmp_path / "data/song.wav"
    path.parent.mkdir()
    soundfile.write(path, song, RATE, subtype="PCM_16")
    found = find_choruses(soundfile.read(path, dtype="float32")[0][None], RATE, clip_s=6)
    assert found.sections
    features = {"sets": {"onset": {}}, "excerpts": {"take": "chorus", "duration_s": 6}}
    job = job_of(
        tmp_path / "data",
        tmp_path / "out",
        features=features,
        separation={**NOTHING, "part_seconds": part_seconds},
    )
    arrays, metadata = arrays_in(finish(job) / "song")
    (excerpt,) = metadata["excerpts"]
    assert excerpt["start_s"] == pytest.approx(found.excerpt_start_s, abs=1e-4)
    start = round(found.excerpt_start_s * RATE)
    samples = soundfile.read(path, dtype="float32")[0][None, start : start + 6 * RATE]
    np.testing.assert_array_equal(
        arrays["onset/mixture"], expected(samples, "onset", {"onset": {}})
    )


def test_recordings_that_end_before_the_excerpt_are_dead_letters(tmp_path: Path) -> None:
    write(tmp_path / "data/short.wav", 2)
    write(tmp_path / "data/long.wav", 9)
    features = {"sets": {"onset": {}}, "excerpts": {"take": "range", "start_s": 3}}
    job = job_of(tmp_path / "data", tmp_path / "out", features=features)
    with beam.Pipeline(options=PipelineOptions([], runner="FnApiRunner")) as pipeline:
        build(job, pipeline | CreateEvents(list_events(job), "test"))
    letters = dead_letters(tmp_path / "out")
    assert [*letters] == ["short.wav"]
    assert "before the excerpt begins" in letters["short.wav"]["message"]
    assert "traceback" not in letters["short.wav"]
    assert (tmp_path / "out/long/features.npz").exists()
    assert not (tmp_path / "out/short").exists()


@pytest.mark.parametrize(
    ("features", "told"),
    [
        ({"sets": {"mel": {"n_mel": 3}}}, r"features\.sets: mel: n_mel: .*, n_mels"),
        ({"sets": {"spectrum": {"kind": "spektrum"}}}, r"magnitude"),
        ({"sets": {"a/b": {"kind": "mel"}}}, r"letters, digits"),
        ({"sets": {"mel": {}}, "of": ["vocals"]}, r"'vocals' is neither mixture nor a stem"),
        ({"sets": {"mel": {}}, "of": ["mixture", "mixture"]}, r"stands twice"),
        ({"sets": {"mel": {}}, "excerpts": {"take": "every"}}, r"duration_s"),
        ({"sets": {"mel": {}}, "excerpts": EVERY, "plots": True}, r"plots: take: every"),
        ({"sets": {"complex": {}}, "shards": "parquet"}, r"parquet holds no complex64"),
        ({"sets": {"mel": {}}, "excerpts": {"take": "chorus", "duration_s": 2}}, r"at least 5"),
        ({"sets": {"mel": {}}, "excerpts": {"hop_s": 2}}, r"hop_s: take: whole does not use it"),
        ({"sets": {"mel": {}}, "excerpts": {"take": "range", "start_s": np.inf}}, r"finite number"),
        ({"sets": {"mel": {}}, "of": "mixture"}, r"features\.of: write a list, .* \[mixture\]"),
        ({"sets": {"mel": {}}, "of": []}, r"features\.of: the list is empty"),
        ({"shards": "zarr"}, r"features: sets: name features: there are none for shards"),
        (
            {"sets": {"mel": {"sample_rate": 8000, "fmax_hz": 5000}}},
            r"mel: fmax_hz: 5000 is beyond what a sample_rate of 8000 has, 0 to 4000 Hz",
        ),
        ({"sets": {"mel": {"sample_rate": 8000, "fmin_hz": 4000}}}, r"mel: fmin_hz: 4000 is beyo"),
    ],
)
def test_mistakes_are_told(tmp_path: Path, features: dict[str, Any], told: str) -> None:
    with pytest.raises(JobFileError) as caught:
        job_of(tmp_path, tmp_path / "out", features=features)
    assert re.search(told, str(caught.value)), caught.value


def job_of_shards(data: Path, out: Path, shards: str, shard_mb: float = 0.025) -> JobConfig:
    sets = {name: SETS[name] for name in ("log_mel", "cepstra")}
    features = {"sets": sets, "shards": shards, "shard_mb": shard_mb}
    return job_of(data, out, features=features)


@pytest.mark.parametrize("shards", ["webdataset", "tfrecord", "parquet", "zarr"])
def test_shards_hold_what_the_files_of_recordings_do(tmp_path: Path, shards: str) -> None:
    for index in range(9):
        write(tmp_path / f"data/{index % 2}/ü {index}.wav", 0.5 + index / 5)
    out = finish(job_of_shards(tmp_path / "data", tmp_path / "out", shards))
    found = FeatureDataset(open_feature_set(str(out)))
    assert len(found) == 9
    assert len(found.features.index.shards) > 2
    seen = set()
    for item in found:
        arrays, metadata = arrays_in(out / item["facts"]["folder"])
        assert item["key"] == metadata["folder"]
        seen.add(item["key"])
        for name, array in arrays.items():
            np.testing.assert_array_equal(item[name].numpy(), array)
    assert len(seen) == 9


def test_shards_depend_on_the_recordings_and_the_job_alone(tmp_path: Path) -> None:
    for index in range(7):
        write(tmp_path / f"data/{index}.wav", 0.5 + index / 5)
    once = finish(job_of_shards(tmp_path / "data", tmp_path / "once", "webdataset"))
    out = tmp_path / "twice"
    write(tmp_path / "part/3.wav", 1.1)
    finish(job_of_shards(tmp_path / "part", out, "webdataset"))
    shutil.rmtree(out / "3")
    finish(job_of_shards(tmp_path / "data", out, "webdataset"))
    assert files_of(out) == files_of(once)
    # What did not change is left alone, and what is gone is packed again.
    shards = sorted(out.glob("*.tar"))
    written = [shard.stat().st_mtime_ns for shard in shards]
    shards[1].unlink()
    finish(job_of_shards(tmp_path / "data", out, "webdataset"))
    assert files_of(out) == files_of(once)
    assert [
        shard.stat().st_mtime_ns == before for shard, before in zip(shards, written, strict=True)
    ] == [index != 1 for index in range(len(shards))]


def test_shards_of_a_run_that_was_stopped_do_not_stay(tmp_path: Path) -> None:
    """It has packed, and written no index yet: readers of all shards would have them twice."""
    for index in range(3):
        write(tmp_path / f"data/{index}.wav", 1)
    out = finish(job_of_shards(tmp_path / "data", tmp_path / "out", "webdataset"))
    (out / "features.json").unlink()
    stopped = {path.name for path in out.glob("features-*-of-*")}
    for index in range(3, 12):
        write(tmp_path / f"data/{index}.wav", 1)
    once = finish(job_of_shards(tmp_path / "data", tmp_path / "once", "webdataset"))
    finish(job_of_shards(tmp_path / "data", out, "webdataset"))
    assert not stopped <= {path.name for path in once.glob("features-*-of-*")}
    assert files_of(out) == files_of(once)


def test_statistics_are_those_of_all_values(tmp_path: Path) -> None:
    for index in range(3):
        write(tmp_path / f"data/{index}.wav", 1 + index)
    sets = {"log_mel": SETS["log_mel"], "stft": SETS["stft"]}
    out = finish(job_of(tmp_path / "data", tmp_path / "out", features={"sets": sets}))
    told = json.loads((out / "features-statistics.json").read_text())
    assert told["recordings"] == 3
    assert sum(each["count"] for each in told["excerpt_durations"]) == 3
    assert [*told["arrays"]] == ["log_mel/mixture"]  # complex numbers have no deviation
    frames = np.concatenate(
        [arrays_in(out / str(index))[0]["log_mel/mixture"] for index in range(3)]
    )
    statistics = told["arrays"]["log_mel/mixture"]
    np.testing.assert_allclose(statistics["mean"], frames.mean(axis=0, dtype=float), rtol=1e-6)
    np.testing.assert_allclose(statistics["deviation"], frames.std(axis=0, dtype=float), rtol=1e-6)


def test_statistics_are_written_anew_only_where_they_are_of_other_files(tmp_path: Path) -> None:
    """Who runs a finished job again does not have each recording's file read for them."""
    for index in range(3):
        write(tmp_path / f"data/{index}.wav", 1 + index)
    job = job_of(tmp_path / "data", tmp_path / "out", features={"sets": {"onset": {}}})
    out = finish(job)
    path = out / "features-statistics.json"
    first, written = path.read_bytes(), path.stat().st_mtime_ns
    again(job)
    assert path.stat().st_mtime_ns == written
    for damaged in ("{", json.dumps({**json.loads(first), "sources": "0" * 32})):
        path.write_text(damaged)
        again(job)
        assert path.read_bytes() == first


@pytest.mark.parametrize("part_seconds", [10, 300])
def test_pictures_show_each_signal(tmp_path: Path, part_seconds: float) -> None:
    write(tmp_path / "data/a.wav", 23)
    sets = {"log_mel": {"n_mels": 24}, "onset": {}, "chroma": {}, "phase": {"n_fft": 256}}
    features = {"sets": sets, "of": ["mixture", "harmonic"], "plots": True}
    job = job_of(
        tmp_path / "data",
        tmp_path / "out",
        features=features,
        separation={**HPSS, "part_seconds": part_seconds},
    )
    out = finish(job) / "a"
    manifest = json.loads((out / "manifest.json").read_text())
    names = {
        each["name"]: each["stem"] for each in manifest["files"] if each["branch"] == "features"
    }
    assert names == {
        "features.npz": None,
        "features.png": None,
        "features-harmonic.png": "harmonic",
    }
    for name in ("features.png", "features-harmonic.png"):
        with Image.open(out / name) as picture:
            assert picture.size == (1100, 800)
            assert len(picture.convert("RGB").getcolors(1 << 24)) > 100


def test_a_repair_makes_the_set_whole_again(tmp_path: Path, command: Command) -> None:
    for index in range(3):
        write(tmp_path / f"data/{index}.wav", 1 + index / 3)
    out = tmp_path / "out"
    options = ("--option", "n_mels=16", "--shards", "tfrecord", "--workers", "1")
    done = command("spectrograms", tmp_path / "data", "-o", out, *options)
    assert done.returncode == 0, done.stderr
    before = files_of(out)
    damaged = out / "1/features.npz"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    assert command("check", out).returncode == 1
    repaired = command("check", out, *REPAIR)
    assert repaired.returncode == 0, repaired.stderr
    assert files_of(out) == before


def test_shards_that_are_not_whole_are_told_and_packed_anew(
    tmp_path: Path, command: Command
) -> None:
    for index in range(12):
        write(tmp_path / f"data/{index}.wav", 1)
    out = tmp_path / "out"
    options = ("--shards", "tfrecord", "-O", "features.shard_mb=0.05", "--workers", "1")
    done = command("spectrograms", tmp_path / "data", "-o", out, *options)
    assert done.returncode == 0, done.stderr
    before = files_of(out)
    shards = sorted(path.name for path in out.glob("*.tfrecord"))
    indexes = sorted(path.name for path in out.glob("features-*.jsonl"))
    assert len(shards) == len(indexes) >= 4
    (out / shards[0]).unlink()
    (out / indexes[1]).unlink()
    # To a run, what is as large as before looks whole.
    for name in (shards[2], indexes[3]):
        content = bytearray(before[name])
        content[len(content) // 2] ^= 1
        (out / name).write_bytes(content)
    checked = command("check", out)
    assert checked.returncode == 1
    assert {*checked.stdout.splitlines()[:-1]} == {
        *(f"missing    {name}" for name in (shards[0], indexes[1])),
        *(f"changed    {name}" for name in (shards[2], indexes[3])),
    }
    repaired = command("check", out, *REPAIR)
    assert repaired.returncode == 0, repaired.stderr
    assert files_of(out) == before
    (out / "features.json").write_text("{")
    repaired = command("check", out, *REPAIR)
    assert repaired.returncode == 0, repaired.stderr
    assert "unreadable features.json" in repaired.stdout
    assert files_of(out) == before
    assert not (out / ".beamsplitter").exists()


def test_a_repair_packs_nothing_of_other_settings(tmp_path: Path, command: Command) -> None:
    """The last run was of other settings, which were refused."""
    write(tmp_path / "data/a.wav", 1)
    out, options = tmp_path / "out", ("--shards", "tfrecord", "--workers", "1")
    done = command("spectrograms", tmp_path / "data", "-o", out, *options)
    assert done.returncode == 0, done.stderr
    refused = command(
        "spectrograms", tmp_path / "data", "-o", out, *options, "--option", "n_mels=16"
    )
    assert refused.returncode == 1
    before = files_of(out)
    (shard,) = out.glob("*.tfrecord")
    shard.unlink()
    assert command("check", out, *REPAIR).returncode == 1
    del before[shard.name]
    made = files_of(out)
    assert {name: made.get(name) for name in before} == before


def test_a_bucket_has_the_same_set(tmp_path: Path, gcs: StorageServer) -> None:
    write(tmp_path / "data/long ü#1.wav", 23)
    write(tmp_path / "data/short.wav", 2)
    gcs.upload(tmp_path / "data", "data")
    bucket = f"gs://{gcs.bucket.name}"
    features = {"sets": SETS, "of": ["mixture", "harmonic"], "shards": "zarr"}
    sections: dict[str, Any] = {
        "separation": {**HPSS, "part_seconds": 10},
        "features": features,
    }
    here = finish(job_of(tmp_path / "data", tmp_path / "here", **sections))
    job = job_of(f"{bucket}/data", f"{bucket}/out", **sections)
    for _ in range(2):  # the second finds all done, and what a run left that was stopped
        with beam.Pipeline(options=PipelineOptions([], runner="FnApiRunner")) as pipeline:
            build(job, pipeline | CreateEvents(list_events(job), "test"))
        left = gcs.bucket.blob("out/features-00002-of-00003.zarr.zip")
        is_removed = not left.exists()
        left.upload_from_string(b"PK")
    assert is_removed
    left.delete()
    gcs.download("out", tmp_path / "there")
    made, wanted = files_of(tmp_path / "there"), files_of(here)
    assert {name for name in made if not name.startswith(".")} == {*wanted}
    for name in wanted:
        assert made[name] == wanted[name], name
    found = FeatureDataset(open_feature_set(f"{bucket}/out"))
    assert {item["key"] for item in found} == {"long ü#1", "short"}
    assert not check(read_tree(job.output_tree))
    index, shard = "features-00000-of-00001.jsonl", "features-00000-of-00001.zarr.zip"
    gcs.bucket.blob(f"out/{index}").delete()
    gcs.bucket.blob(f"out/{shard}").upload_from_string(b"PK")
    damages = {each.path: each.what for each in check(read_tree(job.output_tree))}
    assert damages == {index: "missing", shard: "changed"}
