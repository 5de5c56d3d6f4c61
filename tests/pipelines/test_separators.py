"""Jobs with any separator: the graph is the same, and so is what must hold of its results."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pytest
import soundfile
from apache_beam.options.pipeline_options import PipelineOptions
from conftest import Command, dead_letters

from beamsplitter.audio.decoding import AudioInfo, probe
from beamsplitter.audio.parts import plan_parts
from beamsplitter.pipelines.events import list_events
from beamsplitter.pipelines.job_config import JobConfig, JobFileError, parse_job
from beamsplitter.pipelines.run import build
from beamsplitter.pipelines.sources import CreateEvents
from beamsplitter.transforms.records import PartReference, Recording, Track
from beamsplitter.transforms.storage import OutputTree

WriteAudio = Callable[..., Path]
RATE = 16000
SMOOTHING = {
    "separator": "separators:Smoothing",
    "options": {"block_samples": 5000, "context_samples": 200},
}


def job_for(folder: Path, out: Path, separation: dict[str, Any], **sections: Any) -> JobConfig:
    return parse_job(
        {
            "job_name": "test",
            "pipeline_options": {"runner": "DirectRunner", "streaming": False},
            "job_config": {
                "events": {"inputs": [{"type": "folder", "location": str(folder)}]},
                "data": {"outputs": [{"type": "file", "location": str(out)}]},
            },
            "separation": separation,
            "plots": {"enabled": False},
            "stems": {"format": "wav", "bit_depth": "32f"},
            **sections,
        },
        source="test",
    )


def run(job: JobConfig) -> Any:
    pipeline = beam.Pipeline(options=PipelineOptions([], runner="FnApiRunner"))
    build(job, pipeline | CreateEvents(list_events(job)), local_workers=1)
    result = pipeline.run()
    OutputTree(job.output_location).clear_scratch()
    return result


def read(path: Path) -> np.ndarray:
    return soundfile.read(path, dtype="float32", always_2d=True)[0].T


def stems_of(folder: Path) -> dict[str, np.ndarray]:
    return {path.stem: read(path) for path in sorted(folder.glob("*.wav"))}


@pytest.mark.parametrize(
    "separation",
    [
        {"separator": "hpss"},
        {"separator": "hpss", "options": {"margin": 2}},
        SMOOTHING,
        {
            "separator": "separators:Smoothing",
            "options": {"block_samples": 5000, "context_samples": 200, "sample_rate": 44100},
        },
        {"ensemble": [{"separator": "nn-filter"}, {"separator": "hpss", "weight": 2}]},
    ],
    ids=["hpss", "hpss with a rest", "class", "at another rate", "ensemble"],
)
def test_stems_have_the_length_of_the_recording_and_sum_to_it(
    separation: dict[str, Any], write_audio: WriteAudio, tmp_path: Path
) -> None:
    for name, channels, seconds in (("mono", 1, 1.2345), ("stereo", 2, 2), ("surround", 6, 1)):
        write_audio(f"music/{name}.wav", seconds=seconds, channels=channels, subtype="FLOAT")
    job = job_for(tmp_path / "music", tmp_path / "out", separation)
    run(job)
    assert dead_letters(tmp_path / "out") == {}
    for name in ("mono", "stereo", "surround"):
        mixture = read(tmp_path / "music" / f"{name}.wav")
        stems = stems_of(tmp_path / "out" / name)
        assert stems.keys() == set(job.separation.stem_names)
        assert all(stem.shape == mixture.shape for stem in stems.values())
        np.testing.assert_allclose(sum(stems.values()), mixture, atol=1e-5)
        assert all(np.abs(stem).max() > 1e-3 for name, stem in stems.items() if name != "residual")


@pytest.mark.parametrize("normalizes", [False, True])
@pytest.mark.parametrize("sample_rate", [None, 11025])
def test_parts_of_a_long_recording_join_to_what_the_whole_gives(
    normalizes: bool, sample_rate: int | None, write_audio: WriteAudio, tmp_path: Path
) -> None:
    write_audio("music/long.wav", seconds=33, channels=2, subtype="FLOAT")
    separation = {
        "separator": "separators:Inventing",
        "options": {"block_samples": 9000, "normalizes": normalizes, "sample_rate": sample_rate},
        "shifts": 1,
    }
    for name, part_seconds in (("whole", 300), ("parts", 10)):
        settings = {**separation, "part_seconds": part_seconds}
        run(job_for(tmp_path / "music", tmp_path / name, settings))
    whole, parts = (stems_of(tmp_path / name / "long") for name in ("whole", "parts"))
    assert whole.keys() == parts.keys() == {"same", "nothing", "residual"}
    for stem, samples in whole.items():
        np.testing.assert_allclose(parts[stem], samples, atol=2e-5)


def test_the_nearest_neighbour_filter_is_the_same_behind_the_door(
    write_audio: WriteAudio, tmp_path: Path
) -> None:
    write_audio("music/song.wav", seconds=4, channels=2)
    door = {"ensemble": [{"separator": "nn-filter"}], "residual": False}
    run(job_for(tmp_path / "music", tmp_path / "door", door))
    run(job_for(tmp_path / "music", tmp_path / "steps", {"separator": "nn-filter"}))
    made, expected = (stems_of(tmp_path / name / "song") for name in ("door", "steps"))
    assert made.keys() == expected.keys() == {"background", "foreground"}
    for stem, samples in expected.items():
        np.testing.assert_array_equal(made[stem], samples)


@pytest.mark.parametrize(
    ("fault", "exception", "said"),
    [
        ("nan", "ModelError", "failing: gives numbers that are not finite"),
        ("shape", "ModelError", "failing: gives an array of shape (1, 2, 4000)"),
        ("raises", "KeyError", "no such layer"),
    ],
)
def test_a_model_that_fails_on_a_recording_costs_that_recording(
    fault: str, exception: str, said: str, write_audio: WriteAudio, tmp_path: Path
) -> None:
    for name, channels in (("a", 1), ("b", 2), ("c", 1)):
        write_audio(f"music/{name}.wav", seconds=1, channels=channels)
    separation = {"separator": "separators:FailingOnStereo", "options": {"fault": fault}}
    run(job_for(tmp_path / "music", tmp_path / "out", separation))
    letters = dead_letters(tmp_path / "out")
    assert letters.keys() == {"b.wav"}
    assert letters["b.wav"]["step"] == "RunInference"
    assert letters["b.wav"]["exception"] == exception
    assert said in letters["b.wav"]["message"]
    assert ("traceback" in letters["b.wav"]) == (fault == "raises")
    assert {path.parent.name for path in (tmp_path / "out").rglob("manifest.json")} == {"a", "c"}


def test_inference_keeps_its_metrics(write_audio: WriteAudio, tmp_path: Path) -> None:
    for name in "abc":
        write_audio(f"music/{name}.wav", seconds=1)
    metrics = run(job_for(tmp_path / "music", tmp_path / "out", SMOOTHING)).metrics().query()
    counters = {
        each.key.metric.name: each.committed
        for each in metrics["counters"]
        if each.key.metric.namespace == "RunInference"
    }
    assert counters["num_inferences"] == 3
    sizes = {
        each.key.metric.name: each.committed
        for each in metrics["distributions"]
        if each.key.metric.namespace == "RunInference"
    }
    assert sizes["inference_request_batch_byte_size"].max == RATE * 4
    assert sizes["load_model_latency_milli_secs"].count == 1


def test_arrays_are_never_pickled(
    write_audio: WriteAudio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Track, __: object) -> None:
        raise AssertionError("a track was pickled")

    monkeypatch.setattr(Track, "__reduce_ex__", refuse)
    for name in "abc":
        write_audio(f"music/{name}.wav", seconds=1)
    run(job_for(tmp_path / "music", tmp_path / "out", SMOOTHING))
    assert len(list((tmp_path / "out").rglob("manifest.json"))) == 3


def test_only_the_stems_that_are_asked_for_are_written(
    write_audio: WriteAudio, tmp_path: Path
) -> None:
    write_audio("music/a.wav", seconds=1, subtype="FLOAT")
    stems = {"select": ["same", "residual"], "format": "wav", "rename": {"residual": "rest"}}
    run(job_for(tmp_path / "music", tmp_path / "out", SMOOTHING, stems=stems))
    made = stems_of(tmp_path / "out" / "a")
    assert made.keys() == {"same", "rest"}
    np.testing.assert_allclose(
        made["same"] + made["rest"], read(tmp_path / "music" / "a.wav"), atol=1e-6
    )


def track_of(path: Path) -> Track:
    info: AudioInfo = probe(path.read_bytes(), name=path.name)
    recording = Recording(
        element=path.name,
        uri=str(path),
        folder=path.stem,
        size_bytes=1,
        generation="1",
        todo=("stems",),
        info=info,
        start_sample=0,
        total_samples=info.frames,
    )
    (part,) = plan_parts(info.frames, info.sample_rate, info.channels, part_seconds=300)
    return Track(PartReference(recording, part), samples=read(path))


@pytest.mark.parametrize(
    ("separation", "mistake"),
    [
        ({"separator": "nn-filtre"}, "nn-filtre"),
        ({"separator": "hpss", "recipe": "librosa"}, "recipe: is one of nn-filter"),
        ({"separator": "hpss", "options": {"margin": 0.5}}, "margin: .*greater than or equal to 1"),
        ({"separator": "separators:Nothing"}, "Nothing is no Separator of separators"),
        ({"separator": "no_such_module:Model"}, "no_such_module"),
        ({"separator": "separators:Smoothing", "options": {"blocks": 1}}, "blocks"),
        ({"separator": "hpss", "model_sha256": "00"}, "model_sha256: .*no digest"),
        ({"separator": "hpss", "ensemble": [{"separator": "hpss"}]}, "give one of them"),
        ({"device": "gpu"}, "device"),
    ],
)
def test_mistakes_are_told_when_the_job_is_read(
    separation: dict[str, Any], mistake: str, tmp_path: Path
) -> None:
    with pytest.raises(JobFileError, match=mistake):
        job_for(tmp_path, tmp_path, separation)


def test_the_literal_graph_is_of_one_method(tmp_path: Path) -> None:
    with pytest.raises(JobFileError, match="cogbk is the graph of nn-filter"):
        job_for(tmp_path, tmp_path, {"separator": "hpss", "duration_s": 5}, join="cogbk")


def test_what_decides_the_results_is_in_the_digest_and_nothing_else(tmp_path: Path) -> None:
    def digest(**separation: Any) -> str:
        return job_for(tmp_path, tmp_path, separation).settings.digests()["stems"]

    assert digest() == digest(recipe="default") == digest(options={"power": 1.0})
    assert digest(device="cpu", batch_size=3, compile=True) == digest()
    assert digest(ensemble=[{"separator": "hpss"}]) == digest(separator="hpss")
    different = [
        digest(),
        digest(options={"power": 2}),
        digest(recipe="librosa"),
        digest(separator="hpss"),
        digest(separator="hpss", shifts=1),
        digest(separator="hpss", precision="bfloat16"),
        digest(ensemble=[{"separator": "hpss", "weight": 2}, {"separator": "nn-filter"}]),
        digest(ensemble=[{"separator": "hpss"}, {"separator": "nn-filter"}]),
    ]
    assert len(set(different)) == len(different)


def test_the_command_takes_a_separator_and_its_options(
    write_audio: WriteAudio, tmp_path: Path, command: Command
) -> None:
    song = write_audio("song.wav", seconds=2)
    done = command(
        "separate", song, "-o", tmp_path / "out", "--separator", "hpss", "--option", "margin=3.0"
    )
    assert done.returncode == 0, done.stderr
    names = {path.name for path in (tmp_path / "out" / "song").iterdir()}
    assert {"harmonic.flac", "percussive.flac", "residual.flac", "residual.png"} <= names
    again = command(
        "separate", song, "-o", tmp_path / "out", "--separator", "hpss", "--option", "margin=3"
    )
    assert "1 already done" in again.stderr
    wrong = command("separate", song, "-o", tmp_path / "out", "--option", "margin")
    assert wrong.returncode == 2
    assert "--option margin: write it as NAME=value" in wrong.stderr
    assert json.loads((tmp_path / "out" / "run.json").read_text())["recordings"]["skipped"] == 1
