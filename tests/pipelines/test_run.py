"""The graph as a whole, on FnApiRunner in this process and as a command."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pytest
import soundfile
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.pipeline import PipelineVisitor
from apache_beam.runners.portability.fn_api_runner import execution
from conftest import Command, dead_letters, made_signal, result_files
from PIL import Image

from beamsplitter.audio.plot_layout import PlotLayout, plot_area
from beamsplitter.audio.pooling import pool_spectrogram, spectrogram_grid
from beamsplitter.audio.spectrum import magnitude_and_phase, stft
from beamsplitter.models.separators.nearest_neighbors import (
    filter_nearest,
    mask_options,
    stem_mask,
)
from beamsplitter.pipelines import run as run_module
from beamsplitter.pipelines.commands.dry_run import counts_of_plan
from beamsplitter.pipelines.commands.progress import counts_of_run
from beamsplitter.pipelines.events.elements import list_events
from beamsplitter.pipelines.events.sources import CreateEvents
from beamsplitter.pipelines.job.job_config import JobConfig, parse_job
from beamsplitter.transforms import LoadAudio, LoadBinary, separation
from beamsplitter.transforms.plots import draw_plots
from beamsplitter.transforms.records import Track
from beamsplitter.transforms.stem_files import grid_of
from beamsplitter.transforms.steps import Step, run_step

WriteAudio = Callable[..., Path]
SHUFFLE_LIMIT_BYTES = 64 << 10
IDENTITY = "separators:Identity"


def job_for(folder: Path, out: Path, **sections: Any) -> JobConfig:
    return parse_job(
        {
            "job_name": "test",
            "pipeline_options": {"runner": "DirectRunner", "streaming": False},
            "job_config": {
                "events": {"inputs": [{"type": "folder", "location": str(folder)}]},
                "data": {"outputs": [{"type": "file", "location": str(out), "replace": True}]},
            },
            **sections,
        },
        source="test",
    )


def run_graph(job: JobConfig) -> None:
    with beam.Pipeline(options=PipelineOptions([], runner="FnApiRunner")) as pipeline:
        messages = pipeline | CreateEvents(list_events(job))
        run_module.build(job, messages, local_workers=1)


def read_stem(path: Path) -> np.ndarray:
    return soundfile.read(path, dtype="float32", always_2d=True)[0].T


@pytest.fixture
def folder(write_audio: WriteAudio, tmp_path: Path) -> Path:
    write_audio("music/one.wav", seconds=2.5, channels=2)
    write_audio("music/deeper/two.flac", seconds=31, seed=1)
    write_audio("music/three.ogg", seconds=3, seed=2, sample_rate=22050)
    return tmp_path / "music"


def test_every_recording_gets_stems_plots_and_a_manifest(folder: Path, tmp_path: Path) -> None:
    run_graph(job_for(folder, tmp_path / "out", separation={"part_seconds": 10}))
    for name in ("one", "deeper/two", "three"):
        made = {path.name for path in (tmp_path / "out" / name).iterdir()}
        assert made == {
            "background.flac",
            "foreground.flac",
            "spectrogram.png",
            "background.png",
            "foreground.png",
            "manifest.json",
        }
    assert (tmp_path / "out" / "failures.jsonl").read_text() == ""


@pytest.mark.parametrize("part_seconds", [10, 300])
def test_stems_have_the_length_of_the_recording_and_sum_to_it(
    folder: Path, tmp_path: Path, part_seconds: int
) -> None:
    run_graph(job_for(folder, tmp_path / "out", separation={"part_seconds": part_seconds}))
    for path, name in ((folder / "one.wav", "one"), (folder / "deeper/two.flac", "deeper/two")):
        mixture = read_stem(path)
        stems = [
            read_stem(tmp_path / "out" / name / f"{stem}.flac")
            for stem in ("background", "foreground")
        ]
        assert all(stem.shape == mixture.shape for stem in stems)
        # Each stem is rounded to 16 bits once.
        assert np.abs(sum(stems) - mixture).max() <= 1 / 32768 + 1e-6


def test_float_stems_sum_to_the_mixture_below_minus_80_dbfs(folder: Path, tmp_path: Path) -> None:
    stems = {"format": "wav", "bit_depth": "32f"}
    run_graph(job_for(folder, tmp_path / "out", stems=stems, separation={"part_seconds": 10}))
    out = tmp_path / "out" / "deeper" / "two"
    total = read_stem(out / "background.wav") + read_stem(out / "foreground.wav")
    assert np.abs(total - read_stem(folder / "deeper/two.flac")).max() < 1e-6


MASKED = {"options": {"foreground": "mask"}}


@pytest.mark.parametrize("recipe", ["default", "librosa"])
def test_the_literal_fan_out_writes_the_same_stems(
    recipe: str, write_audio: WriteAudio, tmp_path: Path
) -> None:
    for seed, name in enumerate(("one.wav", "deeper/two.flac", "three.ogg")):
        write_audio(f"music/{name}", seconds=6, seed=seed, channels=1 + seed % 2)
    separation = {"duration_s": 5, "recipe": recipe, **MASKED}
    files = {}
    for join in ("parts", "cogbk"):
        run_graph(job_for(tmp_path / "music", tmp_path / join, separation=separation, join=join))
        files[join] = result_files(tmp_path / join)
    stems = [name for name in files["parts"] if name.endswith(".flac")]
    assert len(stems) == 3 * 3  # background, foreground, and what they leave
    assert {name: files["cogbk"][name] for name in stems} == {
        name: files["parts"][name] for name in stems
    }
    # There are no plots of spectra for what the stems leave.
    assert {*files["parts"]} - {*files["cogbk"]} == {
        f"{name}/residual.png" for name in ("one", "deeper/two", "three")
    }


def test_the_literal_fan_out_has_the_steps_of_the_example(folder: Path, tmp_path: Path) -> None:
    """Its joins, the subtraction, three chains of plots, Flatten and Distinct; and the stems."""
    job = job_for(folder, tmp_path / "out", separation={"duration_s": 2, **MASKED}, join="cogbk")
    pipeline = beam.Pipeline(runner="FnApiRunner")
    run_module.build(job, pipeline | beam.Create([b""]), local_workers=1)
    steps: set[str] = set()

    class Steps(PipelineVisitor):
        def enter_composite_transform(self, transform_node: Any) -> None:
            label = transform_node.full_label
            if label.startswith("Split/") and label.count("/") == 1:
                steps.add(label.removeprefix("Split/"))

        visit_transform = enter_composite_transform

    pipeline.visit(Steps())
    assert steps >= {
        *("GetSTFT", "GetMagnitude", "FilterNearestNeighbors", "Merge", "SubtractNearest"),
        *("Merge-background", "GetSoftMask-background"),
        *("Merge-foreground", "GetSoftMask-foreground"),
        *(
            f"{step}-{chain}"
            for step in ("GetSpec", "SpecToPlot", "UploadPlots")
            for chain in ("full", "background", "foreground")
        ),
        *("FlattenPaths", "RemoveDuplicates"),
        *("MergeStems", "InverseSTFT", "EncodeStems", "MergeFiles", "PublishTrack"),
    }


def test_the_literal_fan_out_draws_the_masked_spectra(folder: Path, tmp_path: Path) -> None:
    separation = {"duration_s": 2, **MASKED}
    job = job_for(folder, tmp_path / "out", separation=separation, join="cogbk")
    run_graph(job)
    track = next(iter(LoadAudio(duration=2).process(_loaded(folder / "one.wav"))))
    recipe = job.nearest_neighbors
    magnitude = magnitude_and_phase(stft(track.samples, n_fft=2048, hop_length=512))[0]
    nearest = filter_nearest(magnitude, recipe, sample_rate=16000, hop_length=512)
    grid = spectrogram_grid(grid_of(track.recording, job.plots), n_fft=2048, hop_length=512)
    for stem in ("background", "foreground"):
        options = mask_options(recipe, stem)
        mask = stem_mask(stem, magnitude, nearest, sample_rate=16000, **options)
        power = pool_spectrogram(mask * magnitude, grid)
        plots = draw_plots({stem: power}, {stem: grid}, track.recording, job.settings)
        assert (tmp_path / "out" / "one" / f"{stem}.png").read_bytes() == plots[stem]


def _loaded(path: Path) -> Track:
    return next(iter(LoadBinary(location=str(path.parent)).process(path.name)))


def test_other_plots_are_made_when_the_literal_fan_out_is_left(
    folder: Path, tmp_path: Path
) -> None:
    """They show something else, though all other settings are the same."""
    jobs = [
        job_for(folder, tmp_path / "out", separation={"duration_s": 2, **MASKED}, join=join)
        for join in ("cogbk", "parts")
    ]
    digests = [job.settings.digests() for job in jobs]
    assert digests[0]["stems"] == digests[1]["stems"]
    assert digests[0]["plots"] != digests[1]["plots"]


def test_the_literal_fan_out_is_for_excerpts_of_one_part(folder: Path, tmp_path: Path) -> None:
    separation = {"duration_s": 30, "part_seconds": 10, **MASKED}
    run_graph(job_for(folder, tmp_path / "out", separation=separation, join="cogbk"))
    letters = dead_letters(tmp_path / "out")
    assert letters.keys() == {"deeper/two.flac"}
    assert "cut into 3 parts" in letters["deeper/two.flac"]["message"]
    assert (tmp_path / "out" / "one" / "manifest.json").exists()


def test_a_failed_recording_costs_only_itself_in_the_fan_out_too(
    folder: Path, tmp_path: Path
) -> None:
    (folder / "text.mp3").write_text("no audio")
    separation = {"duration_s": 2, **MASKED}
    job = job_for(folder, tmp_path / "out", separation=separation, join="cogbk")
    run_graph(job)
    assert set(dead_letters(tmp_path / "out")) == {"text.mp3"}
    assert (tmp_path / "out" / "one" / "manifest.json").exists()


@pytest.fixture
def shuffled(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Sizes of all that FnApiRunner keeps between stages: every shuffle goes through these."""
    sizes: list[int] = []
    for buffer in (execution.ListBuffer, execution.GroupingBuffer):
        append = buffer.append

        def counted(self: Any, elements: bytes, append: Any = append) -> None:
            sizes.append(len(elements))
            append(self, elements)

        monkeypatch.setattr(buffer, "append", counted)
    yield sizes


def test_less_than_64_kib_a_recording_cross_the_shuffles(
    folder: Path, tmp_path: Path, shuffled: list[int]
) -> None:
    run_graph(job_for(folder, tmp_path / "out", separation={"part_seconds": 10}))
    assert 0 < sum(shuffled) < 3 * SHUFFLE_LIMIT_BYTES


def test_the_shuffle_count_sees_arrays(folder: Path, tmp_path: Path, shuffled: list[int]) -> None:
    separation = {"duration_s": 2, **MASKED}
    run_graph(job_for(folder, tmp_path / "out", separation=separation, join="cogbk"))
    assert sum(shuffled) > 3 * SHUFFLE_LIMIT_BYTES


class Identity(Step):
    branch = "stems"

    def apply(self, record: Track) -> list[Track]:
        samples = separation.cut_to_stem_range(record.samples, record.part)
        record.stems = {"background": samples, "foreground": np.zeros_like(samples)}
        return [record]


class SeparateNothing(beam.PTransform):
    def __init__(self, *_: Any, **__: Any) -> None:
        super().__init__()

    def expand(self, tracks: beam.PCollection) -> dict[str, Any]:
        failures: list[beam.PCollection] = []
        return {"tracks": run_step(tracks, Identity(), Track, failures), "failures": failures}


@pytest.mark.parametrize("sample_rate", [8000, 22050, 44100, 48000, 96000])
def test_an_identity_separator_gives_every_sample_back(
    write_audio: WriteAudio,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    sample_rate: int,
) -> None:
    lengths = [10 * sample_rate + extra for extra in (-1, 0, 1)] + [sample_rate, 25 * 7919]
    for index, samples in enumerate(lengths):
        signal = made_signal(samples / sample_rate, sample_rate, 1, index)
        write_audio(f"in/{index}.wav", samples=signal, sample_rate=sample_rate, subtype="PCM_24")
    monkeypatch.setattr(separation, "SeparateNearestNeighbors", SeparateNothing)
    run_graph(
        job_for(
            tmp_path / "in",
            tmp_path / "out",
            separation={"part_seconds": 10},
            plots={"enabled": False},
        )
    )
    for index, _ in enumerate(lengths):
        np.testing.assert_array_equal(
            read_stem(tmp_path / "out" / str(index) / "background.flac"),
            read_stem(tmp_path / "in" / f"{index}.wav"),
        )


def test_worker_count_and_file_order_do_not_change_a_byte(
    folder: Path, tmp_path: Path, command: Command
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    arguments = ["--part-seconds", "10"]
    assert command("separate", folder, "-o", one, "--workers", 1, *arguments).returncode == 0
    files = [folder / "three.ogg", folder / "deeper" / "two.flac", folder / "one.wav"]
    done = command("separate", *files, "-o", two, "--workers", 2, "--root", folder, *arguments)
    assert done.returncode == 0, done.stderr
    assert result_files(one) == result_files(two)


def test_a_part_of_a_recording_is_the_cut_recording(folder: Path, tmp_path: Path) -> None:
    signal = read_stem(folder / "deeper" / "two.flac")
    (tmp_path / "cut").mkdir()
    soundfile.write(tmp_path / "cut" / "two.flac", signal[:, 16000 : 16000 * 5].T, 16000)
    cut, ranged = tmp_path / "out-cut", tmp_path / "out-ranged"
    run_graph(job_for(tmp_path / "cut", cut))
    run_graph(job_for(folder / "deeper", ranged, separation={"start_s": 1, "duration_s": 4}))
    for name in ("background.flac", "foreground.flac"):
        assert (cut / "two" / name).read_bytes() == (ranged / "two" / name).read_bytes()
    # Their plots differ in nothing but the times.
    own, times = (np.asarray(Image.open(out / "two" / "spectrogram.png")) for out in (cut, ranged))
    spectrogram = PlotLayout(*plot_area(1100, 450))
    np.testing.assert_array_equal(own[: spectrogram.stop], times[: spectrogram.stop])
    assert (own[spectrogram.stop :] != times[spectrogram.stop :]).any()


@pytest.mark.parametrize("layout", ["combined", "both"])
def test_a_combined_plot_is_the_same_of_parts_and_as_a_whole(
    layout: str, write_audio: WriteAudio, tmp_path: Path
) -> None:
    write_audio("music/long.wav", seconds=25, channels=2)
    plots = {"layout": layout, "width": 640, "height": 300, "dpi": 96}
    found = []
    for part_seconds in (10, 300):
        out = tmp_path / str(part_seconds)
        # What a part gives depends on no other: so do the stems, and so must the plots.
        separation = {
            "part_seconds": part_seconds,
            "separator": IDENTITY,
            "start_s": 1,
            "residual": False,
        }
        run_graph(job_for(tmp_path / "music", out, separation=separation, plots=plots))
        pictures = {path.name: path.read_bytes() for path in (out / "long").glob("*.png")}
        found.append(pictures)
    each = {"spectrogram.png", "same.png", "nothing.png"}
    assert found[0].keys() == {"spectrograms.png"} | (each if layout == "both" else set())
    together = Image.open(tmp_path / "10" / "long" / "spectrograms.png")
    assert together.size == (640, PlotLayout(*plot_area(640, 300, dpi=96), len(each), 96).height)
    assert found[0] == found[1]


def test_another_layout_takes_the_place_of_the_plots_and_leaves_the_stems(
    folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    run_graph(job_for(folder, out))
    stem = out / "one" / "background.flac"
    written_ns = stem.stat().st_mtime_ns
    run_graph(job_for(folder, out, plots={"layout": "combined"}))
    assert {path.name for path in stem.parent.glob("*.png")} == {"spectrograms.png"}
    assert stem.stat().st_mtime_ns == written_ns


def test_selected_and_renamed_stems(folder: Path, tmp_path: Path) -> None:
    stems = {"select": ["foreground"], "rename": {"foreground": "vocals"}, "format": "ogg"}
    run_graph(job_for(folder, tmp_path / "out", stems=stems))
    made = {path.name for path in (tmp_path / "out" / "one").iterdir()}
    assert made == {"vocals.ogg", "vocals.png", "spectrogram.png", "manifest.json"}


def test_pings_pass_through(folder: Path, tmp_path: Path, command: Command) -> None:
    (tmp_path / "lines.txt").write_text("one.wav\ntext.mp3\n")
    job = {
        "job_name": "pings",
        "pipeline_options": {"runner": "DirectRunner", "streaming": False},
        "job_config": {
            "events": {"inputs": [{"type": "file", "location": str(tmp_path / "lines.txt")}]},
            "data": {
                "inputs": [{"type": "file", "location": str(folder), "ping": True}],
                "outputs": [{"type": "file", "location": str(tmp_path / "out")}],
            },
        },
    }
    (tmp_path / "job.yaml").write_text(json.dumps(job))
    done = command("run", tmp_path / "job.yaml")
    assert (done.returncode, "2 passed through untouched" in done.stderr) == (0, True)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"run.json", "failures.jsonl"}


def test_run_json_counts(folder: Path, tmp_path: Path, command: Command) -> None:
    (folder / "text.mp3").write_text("no audio")
    done = command("separate", folder, "-o", tmp_path / "out", "--workers", 1)
    assert done.returncode == 1
    summary = json.loads((tmp_path / "out" / "run.json").read_text())
    assert summary["recordings"] == {
        "finished": 3,
        "skipped": 0,
        "passed_through": 0,
        "failed": 1,
        "clipped": 0,
        "total": 4,
    }
    assert summary["audio_s"] == pytest.approx(2.5 + 31 + 3, abs=0.01)
    assert summary["steps"]["PublishTrack"]["out"] == 3
    assert counts_of_run(finished=3, skipped=0, failed=1) in done.stderr


def test_json_log_lines(folder: Path, tmp_path: Path, command: Command) -> None:
    done = command("separate", folder, "-o", tmp_path / "out", "--log-format", "json")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    finished = {line["element"] for line in lines if line["event"] == "finished"}
    assert finished == {"one.wav", "three.ogg", os.path.join("deeper", "two.flac")}


def test_dry_run_does_nothing_and_tells_all(folder: Path, tmp_path: Path, command: Command) -> None:
    (folder / "text.mp3").write_text("no audio")
    out = tmp_path / "out"
    run_graph(job_for(folder / "deeper", out))
    (out / "failures.jsonl").unlink()
    before = result_files(out)
    done = command("separate", folder / "deeper" / "two.flac", "-o", out, "--dry-run")
    assert done.returncode == 0 and "skip   two.flac: already done" in done.stdout
    done = command("separate", folder, "-o", tmp_path / "new", "--dry-run")
    assert done.returncode == 1
    assert "do     one.wav: stems and plots, 2.5 s" in done.stdout
    assert "refuse text.mp3:" in done.stdout
    assert counts_of_plan(do=3, skip=0, refuse=1) in done.stdout
    assert result_files(out) == before and not (tmp_path / "new").exists()
