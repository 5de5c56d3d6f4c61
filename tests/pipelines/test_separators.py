"""Jobs with any separator: the graph is the same, and so is what must hold of its results."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pytest
import soundfile
import torch
import yaml
from apache_beam.ml.inference.base import ModelMetadata, RunInference
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.testing.util import assert_that, equal_to
from conftest import Command, dead_letters, result_files
from demucs.apply import apply_model
from demucs_models import tiny_htdemucs, write_th
from facts import assert_names
from model_packages import Halves, Loudness, Twice, Volume, write_package

from beamsplitter.audio.decoding.audio_reader import probe
from beamsplitter.audio.parts import plan_parts
from beamsplitter.models.model_cache import sha256_of
from beamsplitter.models.model_registry import find_entry
from beamsplitter.models.separators import by_name as loading
from beamsplitter.models.separators.base import UnusableModelError
from beamsplitter.pipelines.events.elements import list_events
from beamsplitter.pipelines.events.sources import CreateEvents
from beamsplitter.pipelines.job.job_config import JobConfig, JobFileError, parse_job
from beamsplitter.pipelines.outcomes.unusable import SET_UP_EXIT_CODE, what_is_unusable
from beamsplitter.pipelines.run import build
from beamsplitter.storage import OutputTree
from beamsplitter.transforms.inference import SeparationHandler
from beamsplitter.transforms.records import PartReference, Recording, Track
from beamsplitter.transforms.settings import SeparationSettings

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
                "data": {"outputs": [{"type": "file", "location": str(out), "replace": True}]},
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
        {
            "ensemble": [
                {"separator": "hpss", "options": {"margin": 2}},
                {"separator": "hpss", "weight": 2},
            ]
        },
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


@pytest.mark.parametrize("members", [("nn-filter", "hpss"), ("nn-filter", "nn-filter", "hpss")])
def test_an_ensemble_that_splits_the_mixture_more_than_once_leaves_nothing(
    members: tuple[str, ...], write_audio: WriteAudio, tmp_path: Path
) -> None:
    mixture = read(write_audio("music/song.wav", seconds=2, channels=2, subtype="FLOAT"))
    separation = {"ensemble": [{"separator": name} for name in members]}
    job = job_for(tmp_path / "music", tmp_path / "out", separation)
    run(job)
    stems = stems_of(tmp_path / "out" / "song")
    for pair in (("background", "foreground"), ("harmonic", "percussive")):
        np.testing.assert_allclose(sum(stems.pop(name) for name in pair), mixture, atol=1e-5)
    assert not stems
    with pytest.raises(JobFileError, match="residual"):
        job_for(tmp_path / "music", tmp_path / "out", separation, stems={"select": ["residual"]})


def test_the_recipe_of_librosa_sums_to_the_mixture_with_its_residual(
    write_audio: WriteAudio, tmp_path: Path
) -> None:
    write_audio("music/song.wav", seconds=5, channels=2, subtype="FLOAT")
    mixture = read(tmp_path / "music" / "song.wav")
    for out, select in (("all", None), ("two", ["foreground", "residual"]), ("rest", ["residual"])):
        stem_settings = {"format": "wav", "bit_depth": "32f", "select": select}
        recipe = {"recipe": "librosa"}
        job = job_for(tmp_path / "music", tmp_path / out, recipe, stems=stem_settings)
        run(job)
        stems = stems_of(tmp_path / out / "song")
        assert stems.keys() == {*(select or ("background", "foreground", "residual"))}
        if select != ["residual"]:
            np.testing.assert_allclose(sum(stems.values()), mixture, atol=1e-5)
    np.testing.assert_array_equal(
        stems["residual"], stems_of(tmp_path / "all" / "song")["residual"]
    )


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
        ("nan", "ModelError", "failing: "),
        ("shape", "ModelError", "(1, 2, 4000)"),
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


@pytest.fixture
def package(tmp_path: Path) -> str:
    """A model package of two stems that sum to the mixture, at 8 kHz."""
    return write_package(tmp_path / "halves-net", Halves(), labels=["low", "high"])


def test_a_model_package_separates(package: str, write_audio: WriteAudio, tmp_path: Path) -> None:
    write_audio("music/a.wav", seconds=2, sample_rate=8000, channels=2, subtype="FLOAT")
    write_audio("music/long.wav", seconds=25, sample_rate=11025, subtype="FLOAT")
    separation = {"separator": package, "options": {"block_seconds": 2}, "device": "cpu"}
    for name, part_seconds in (("whole", 300), ("parts", 10)):
        settings = {**separation, "part_seconds": part_seconds}
        run(job_for(tmp_path / "music", tmp_path / name, settings))
        assert dead_letters(tmp_path / name) == {}
    for name in ("a", "long"):
        whole, parts = (stems_of(tmp_path / made / name) for made in ("whole", "parts"))
        assert whole.keys() == {"low", "high", "residual"}
        mixture = read(tmp_path / "music" / f"{name}.wav")
        np.testing.assert_allclose(sum(whole.values()), mixture, atol=1e-6)
        for stem, samples in whole.items():
            np.testing.assert_allclose(parts[stem], samples, atol=1e-5)
    a = stems_of(tmp_path / "whole" / "a")
    np.testing.assert_allclose(a["residual"], 0, atol=1e-6)
    assert min(np.abs(a["low"]).max(), np.abs(a["high"]).max()) > 0.05


@pytest.fixture
def tiny_demucs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> torch.nn.Module:
    """A small network with random weights that the registry calls `demucs:htdemucs`."""
    (tmp_path / "weights").mkdir()
    path = write_th(tiny_htdemucs(), tmp_path / "weights", "955717e8")
    entry = {
        **find_entry("demucs:htdemucs").model_dump(mode="json"),
        "files": [{"name": path.name, "address": str(path), "sha256": sha256_of(path)}],
    }
    (tmp_path / "registry.yaml").write_text(yaml.safe_dump({"models": [entry]}))
    monkeypatch.setenv("BEAMSPLITTER_MODEL_REGISTRY", str(tmp_path / "registry.yaml"))
    monkeypatch.setenv("BEAMSPLITTER_MODEL_CACHE", str(tmp_path / "cache"))
    loading.describe.cache_clear()
    return tiny_htdemucs()


def test_demucs_in_the_graph_makes_what_its_own_command_makes(
    tiny_demucs: torch.nn.Module, write_audio: WriteAudio, tmp_path: Path, command: Command
) -> None:
    path = write_audio(
        "music/song.wav", seconds=11.5, sample_rate=44100, channels=2, subtype="FLOAT"
    )
    options = ("--separator", "demucs:htdemucs", "--no-plots", "--format", "wav")
    for name, part_seconds in (("whole", 300), ("parts", 10)):
        done = command(
            *("separate", path, "-o", tmp_path / name, *options, "--bit-depth", "32f"),
            *("--device", "cpu", "--part-seconds", part_seconds),
        )
        assert done.returncode == 0, done.stderr
    whole, parts = (stems_of(tmp_path / name / "song") for name in ("whole", "parts"))
    mixture = torch.from_numpy(read(path))
    mono = mixture.mean(0)
    mean, deviation = mono.mean(), mono.std() + 1e-8
    with torch.inference_mode():
        normalised = ((mixture - mean) / deviation)[None]
        expected = apply_model(tiny_demucs, normalised, shifts=0)[0] * deviation + mean
    assert whole.keys() == {"drums", "bass", "other", "vocals", "residual"}
    for stem, samples in zip(("drums", "bass", "other", "vocals"), expected.numpy(), strict=True):
        np.testing.assert_allclose(whole[stem], samples, atol=1e-5)
        np.testing.assert_allclose(parts[stem], samples, atol=1e-5)
    np.testing.assert_allclose(sum(whole.values()), mixture.numpy(), atol=1e-5)


def test_batches_workers_and_the_order_of_files_change_next_to_nothing(
    tiny_demucs: torch.nn.Module, write_audio: WriteAudio, tmp_path: Path, command: Command
) -> None:
    for index in range(4):
        write_audio(
            f"music/{index}.wav",
            seconds=1 + index / 2,
            sample_rate=44100,
            seed=index,
            subtype="FLOAT",
        )
    job = {
        "job_name": "batches",
        "pipeline_options": {"runner": "DirectRunner", "streaming": False},
        "job_config": {
            "events": {"inputs": [{"type": "folder", "location": str(tmp_path / "music")}]},
            "data": {"outputs": [{"type": "file", "location": ""}]},
        },
        "separation": {"separator": "demucs:htdemucs", "device": "cpu", "batch_size": 1},
        "plots": {"enabled": False},
        "stems": {"format": "wav", "bit_depth": "32f"},
    }
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job))
    made = []
    for workers, batch_size in ((1, 1), (1, 3), (2, 1)):
        out = tmp_path / f"{workers}-{batch_size}"
        done = command(
            *("run", tmp_path / "job.yaml", "--workers", workers),
            *("-O", f"job_config.data.outputs.0.location={out}"),
            *("-O", f"separation.batch_size={batch_size}"),
        )
        assert done.returncode == 0, done.stderr
        made.append({path.relative_to(out): read(path) for path in out.rglob("*.wav")})
    assert len(made[0]) == 4 * 5
    for other in made[1:]:
        assert other.keys() == made[0].keys()
        for name, samples in made[0].items():
            np.testing.assert_allclose(other[name], samples, atol=1e-5)


def test_other_weights_are_another_model(package: str, tmp_path: Path) -> None:
    def digests() -> dict[str, str]:
        loading.describe.cache_clear()
        return job_for(tmp_path, tmp_path, {"separator": package}).settings.digests()

    before = digests()
    assert digests() == before
    write_package(Path(package), Volume(), labels=["low"])
    after = digests()
    assert after["stems"] != before["stems"]
    assert after["plots"] != before["plots"]


def test_a_model_of_another_digest_is_refused(package: str, tmp_path: Path) -> None:
    digest = job_for(tmp_path, tmp_path, {"separator": package}).separation.description.sha256
    job_for(tmp_path, tmp_path, {"separator": package, "model_sha256": digest})
    with pytest.raises(JobFileError, match=f"model_sha256: .*{digest}"):
        job_for(tmp_path, tmp_path, {"separator": package, "model_sha256": "0" * 64})


def test_a_package_of_labels_writes_a_label_track(write_audio: WriteAudio, tmp_path: Path) -> None:
    labeler = write_package(
        tmp_path / "loudness-net",
        Loudness(),
        labels=["quiet", "loud"],
        effect_type="waveform-to-labels",
    )
    samples = np.zeros((1, 25 * RATE), np.float32)
    samples[:, 7 * RATE : 16 * RATE] = np.sqrt(0.5)
    write_audio("music/a.wav", sample_rate=RATE, samples=samples)
    for name, part_seconds in (("whole", 300), ("parts", 10)):
        separation = {"separator": "none", "part_seconds": part_seconds}
        sections = {"labels": {"model": labeler}, "plots": {"enabled": True}}
        run(job_for(tmp_path / "music", tmp_path / name, separation, **sections))
        assert dead_letters(tmp_path / name) == {}
    whole, parts = (result_files(tmp_path / name) for name in ("whole", "parts"))
    assert {name for name in whole if name.startswith("a/")} == {
        f"a/{name}" for name in ("labels.json", "labels.txt", "spectrogram.png", "manifest.json")
    }
    assert {**whole, "a/manifest.json": b""} == {**parts, "a/manifest.json": b""}
    labels = json.loads(whole["a/labels.json"])
    loud = [each for each in labels if each["label"] == "loud"]
    assert loud[0]["start_s"] == pytest.approx(7, abs=0.1)
    assert loud[-1]["end_s"] == pytest.approx(16, abs=0.1)
    assert len(loud) == pytest.approx(90, abs=2)
    lines = whole["a/labels.txt"].decode().splitlines()
    assert lines[0] == "0.000000\t0.100000\tquiet"
    assert len(lines) == len(labels)
    separation = {"separator": "none"}
    again = run(
        job_for(tmp_path / "music", tmp_path / "whole", separation, labels={"model": labeler})
    )
    counters = again.metrics().query()["counters"]
    skipped = [each for each in counters if each.key.metric.name == "skipped"]
    assert skipped[0].committed == 1


def track_of(path: Path) -> Track:
    info = probe(path.read_bytes(), name=path.name)
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


def peaks(tracks: beam.PCollection) -> beam.PCollection:
    return tracks | beam.Map(lambda track: round(float(np.abs(track.stems["low"]).max()), 2))


def test_a_side_input_names_the_model_to_go_on_with(
    package: str, write_audio: WriteAudio, tmp_path: Path
) -> None:
    track = track_of(
        write_audio("a.wav", sample_rate=8000, samples=np.full((1, 8000), 0.25, np.float32))
    )
    twice = write_package(tmp_path / "twice-net", Twice(), labels=["low", "high"])
    separation = SeparationSettings(separator=package, residual=False, device="cpu")
    for update, peak in ((None, 0.26), (twice, 0.5), (f"{twice}/metadata.json", 0.5)):
        handler = SeparationHandler(separation, stems=("low",))
        with beam.Pipeline(options=PipelineOptions([], runner="FnApiRunner")) as pipeline:
            updates = (
                pipeline | "Updates" >> beam.Create([ModelMetadata(update, "twice")])
                if update
                else None
            )
            separated = (
                pipeline
                | beam.Create([track])
                | RunInference(handler, model_metadata_pcoll=updates)
            )
            assert_that(peaks(separated), equal_to([peak]))


def test_an_update_that_lacks_a_stem_ends_the_job_with_its_name(
    package: str, tmp_path: Path
) -> None:
    other = write_package(tmp_path / "volume-net", Volume())
    handler = SeparationHandler(SeparationSettings(separator=package), stems=("low", "high"))
    with pytest.raises(UnusableModelError) as raised:
        handler.update_model_path(other)
    said = what_is_unusable(raised.value)
    assert said is not None
    assert said[0] == SET_UP_EXIT_CODE
    assert_names(said[1], other, "high, low")


def test_a_model_that_is_gone_ends_the_job_in_one_line(
    package: str, write_audio: WriteAudio, tmp_path: Path
) -> None:
    write_audio("music/a.wav", seconds=1)
    job = job_for(tmp_path / "music", tmp_path / "out", {"separator": package, "device": "cpu"})
    (Path(package) / "model.pt").write_bytes(b"no model")
    with pytest.raises(Exception) as raised:
        run(job)
    said = what_is_unusable(raised.value)
    assert said is not None
    assert said[1].startswith(package)


@pytest.mark.parametrize(
    ("separation", "mistake"),
    [
        ({"separator": "nn-filtre"}, "nn-filtre"),
        ({"separator": "./no/such/folder"}, "./no/such/folder.*no such folder"),
        ({"separator": "hpss", "recipe": "librosa"}, "recipe: .*nn-filter"),
        ({"separator": "hpss", "options": {"margin": 0.5}}, "margin: .*1"),
        ({"separator": "separators:Nothing"}, "'separators:Nothing'"),
        ({"separator": "no_such_module:Model"}, "no_such_module"),
        ({"separator": "separators:Smoothing", "options": {"blocks": 1}}, "blocks"),
        ({"separator": "hpss", "model_sha256": "00"}, "model_sha256: .*no digest"),
        ({"separator": "hpss", "ensemble": [{"separator": "hpss"}]}, "separator and ensemble"),
        ({"options": {"power": 1}, "ensemble": [{"separator": "hpss"}]}, "options: .*ensemble"),
        ({"separator": "separators:Unwilling"}, "options of Unwilling: KeyError"),
        ({"separator": "hpss", "model_updates": "gs://a/*"}, "model_updates: .*Dataflow"),
        ({"device": "gpu"}, "device"),
    ],
)
def test_mistakes_are_told_when_the_job_is_read(
    separation: dict[str, Any], mistake: str, tmp_path: Path
) -> None:
    with pytest.raises(JobFileError, match=mistake):
        job_for(tmp_path, tmp_path, separation)


def test_the_literal_graph_is_of_one_method(tmp_path: Path) -> None:
    with pytest.raises(JobFileError, match=r"cogbk .*nn-filter"):
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


def test_updates_are_for_packages_of_stems(package: str, tmp_path: Path) -> None:
    stream = {"runner": "DataflowRunner", "streaming": True}
    events = {
        "inputs": [{"type": "pubsub", "subscription": "projects/project/subscriptions/songs"}]
    }
    data = {"outputs": [{"type": "file", "location": "gs://bucket/out"}]}

    def job(separator: str) -> JobConfig:
        separation = {"separator": separator, "model_updates": "gs://models/*/metadata.json"}
        sections = {"pipeline_options": stream, "job_config": {"events": events, "data": data}}
        return job_for(tmp_path, tmp_path, separation, **sections)

    assert job(package).separation.model_updates
    for other in ("hpss", "demucs:htdemucs", "separators:Smoothing"):
        with pytest.raises(JobFileError, match=r"model_updates: .*model package"):
            job(other)


def test_a_job_file_takes_an_ensemble(
    write_audio: WriteAudio, tmp_path: Path, command: Command
) -> None:
    song = write_audio("song.wav", seconds=1)
    (tmp_path / "job.yaml").write_text(
        yaml.safe_dump(
            {
                "job_name": "ensemble",
                "pipeline_options": {"runner": "DirectRunner", "streaming": False},
                "job_config": {
                    "events": {"inputs": [{"type": "recording", "location": str(song)}]},
                    "data": {"outputs": [{"type": "file", "location": str(tmp_path / "out")}]},
                },
                "separation": {"ensemble": [{"separator": "hpss"}, {"separator": "nn-filter"}]},
            }
        )
    )
    done = command("run", tmp_path / "job.yaml")
    assert done.returncode == 0, done.stderr
    names = {path.stem for path in (tmp_path / "out" / "song").glob("*.flac")}
    assert names == {"harmonic", "percussive", "background", "foreground"}


def test_weights_that_can_t_be_had_are_told_before_the_job_begins(
    write_audio: WriteAudio, tmp_path: Path, command: Command
) -> None:
    done = command(
        *("separate", write_audio("song.wav"), "-o", tmp_path / "out"),
        *("--separator", "umx:umxhq"),
        BEAMSPLITTER_OFFLINE="1",
        BEAMSPLITTER_MODEL_CACHE=str(tmp_path / "cache"),
    )
    assert done.returncode == 2
    fetching, error = done.stderr.splitlines()
    assert fetching == "fetching umx:umxhq"
    assert_names(error, "error: umx:umxhq: ", "vocals-b62c91ce.pth", "cache")
    assert not (tmp_path / "out" / "run.json").exists()


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
    assert_names(wrong.stderr, "--option margin: ", "NAME=value")
    assert json.loads((tmp_path / "out" / "run.json").read_text())["recordings"]["skipped"] == 1
