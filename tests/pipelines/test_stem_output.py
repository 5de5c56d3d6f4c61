"""What is written of stems: formats, rates, channels, peaks, two stems, and the plots of them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from conftest import Command, dead_letters, made_signal, result_files
from result_checks import assert_whole

from beamsplitter.audio.channels import fold_down
from beamsplitter.audio.decoding.audio_reader import probe, read_audio
from beamsplitter.audio.drawing import draw_spectrogram
from beamsplitter.audio.pooling import plot_grid, pool_power
from beamsplitter.audio.resampling import resampled, rounded_length
from beamsplitter.audio.stem_format import CONTAINERS
from beamsplitter.audio.tags import Tags, read_tags, write_tags
from beamsplitter.pipelines.events.elements import list_events
from beamsplitter.pipelines.events.sources import CreateEvents
from beamsplitter.pipelines.job.job_config import JobConfig, JobFileError, parse_job
from beamsplitter.pipelines.run import build
from beamsplitter.storage import OutputTree

WriteAudio = Callable[..., Path]
FLOATS = {"format": "wav", "bit_depth": "32f"}
RATE = 8000
# The smallest pictures that there are.
PLOTS = {"enabled": True, "width": 320, "height": 190}
COLUMNS, ROWS = 160, 100


def job_for(folder: Path, out: Path, **sections: Any) -> JobConfig:
    sections["separation"] = {"part_seconds": 10, **sections.get("separation", {})}
    return parse_job(
        {
            "job_name": "test",
            "pipeline_options": {"runner": "DirectRunner", "streaming": False},
            "job_config": {
                "events": {"inputs": [{"type": "folder", "location": str(folder)}]},
                "data": {"outputs": [{"type": "file", "location": str(out)}]},
            },
            "plots": {"enabled": False},
            **sections,
        },
        source="test",
    )


def run(folder: Path, out: Path, **sections: Any) -> None:
    job = job_for(folder, out, **sections)
    with beam.Pipeline(options=PipelineOptions([], runner="FnApiRunner")) as pipeline:
        build(job, pipeline | CreateEvents(list_events(job)), local_workers=1)
    OutputTree(job.output_location).clear_scratch()
    assert dead_letters(out) == {}
    assert_whole(out)


def stems_of(folder: Path) -> dict[str, np.ndarray]:
    return {
        path.stem: read_audio(path.read_bytes(), name=path.name)
        for path in sorted(folder.iterdir())
        if path.suffix not in (".png", ".json", ".js")
    }


def receipts_of(folder: Path) -> dict[str, dict[str, Any]]:
    files = json.loads((folder / "manifest.json").read_text())["files"]
    return {file["stem"]: file for file in files if file["branch"] == "stems"}


def at_rate(samples: np.ndarray, rate: int, new: int) -> np.ndarray:
    return np.concatenate(list(resampled([samples], rate, new)), axis=1)


@pytest.fixture
def folder(write_audio: WriteAudio, tmp_path: Path) -> Path:
    """One recording that is a part, and one that has two."""
    write_audio("music/short.wav", seconds=2.503, channels=2, sample_rate=RATE, subtype="FLOAT")
    write_audio("music/long.wav", seconds=13.0071, seed=1, sample_rate=RATE, subtype="FLOAT")
    return tmp_path / "music"


def mixture_of(folder: Path, name: str) -> np.ndarray:
    return read_audio((folder / f"{name}.wav").read_bytes(), name=name)


@pytest.mark.parametrize("container", CONTAINERS)
def test_every_format_is_as_long_as_the_recording_and_carries_its_tags(
    container: str, write_audio: WriteAudio, tmp_path: Path
) -> None:
    own = 22050
    for name, seconds in (("short", 1.2345), ("long", 10.3)):
        path = write_audio(f"music/{name}.flac", seconds=seconds, channels=2, sample_rate=own)
        with path.open("r+b") as file:
            write_tags(file, Tags(title="Song", artist="Me", track_number="3"), container="flac")
    run(tmp_path / "music", tmp_path / "out", stems={"format": container})
    for name in ("short", "long"):
        mixture = read_audio((tmp_path / "music" / f"{name}.flac").read_bytes(), name=name)
        rate = 48000 if container == "opus" else own
        frames = rounded_length(mixture.shape[1], own, rate)
        receipts = receipts_of(tmp_path / "out" / name)
        for stem in ("background", "foreground"):
            data = (tmp_path / "out" / name / f"{stem}.{container}").read_bytes()
            info = probe(data, name=stem)
            assert (info.frames, info.sample_rate, info.channels) == (frames, rate, 2)
            assert receipts[stem]["frames"] == frames
            assert receipts[stem]["sample_rate"] == (rate if rate != own else None)
            tags = read_tags(data)
            assert tags.title == f"Song ({stem})" and (tags.artist, tags.track_number) == (
                "Me",
                "3",
            )
        total = sum(stems_of(tmp_path / "out" / name).values())
        expected = at_rate(mixture, own, rate)
        error = np.sqrt(np.mean((total - expected) ** 2) / np.mean(expected**2))
        assert error < (1e-3 if container in ("flac", "wav") else 0.1)


@pytest.mark.parametrize("rate", [11025, 16000])
def test_stems_of_another_rate_sum_to_the_resampled_mixture_and_have_no_seams(
    folder: Path, tmp_path: Path, rate: int
) -> None:
    run(folder, tmp_path / "out", stems={**FLOATS, "sample_rate": rate})
    run(folder, tmp_path / "own", stems=FLOATS)
    for name in ("short", "long"):
        stems, own = stems_of(tmp_path / "out" / name), stems_of(tmp_path / "own" / name)
        for stem in stems:
            np.testing.assert_array_equal(stems[stem], at_rate(own[stem], RATE, rate))
        mixture = mixture_of(folder, name)
        assert stems["background"].shape[1] == round(mixture.shape[1] * rate / RATE)
        np.testing.assert_allclose(
            sum(stems.values()), at_rate(mixture, RATE, rate), rtol=0, atol=1e-5
        )
        for file in receipts_of(tmp_path / "out" / name).values():
            assert (file["sample_rate"], file["frames"]) == (rate, stems["background"].shape[1])


@pytest.fixture
def loud(write_audio: WriteAudio, tmp_path: Path) -> Path:
    """Recordings, in floats, that go far beyond full scale."""
    for name, seconds, channels in (("short", 2.5, 2), ("long", 13, 1)):
        samples = 4 * made_signal(seconds, RATE, channels)
        write_audio(f"loud/{name}.wav", samples=samples, sample_rate=RATE, subtype="FLOAT")
    return tmp_path / "loud"


@pytest.mark.parametrize(
    "stems",
    [
        {"format": "flac", "bit_depth": "24"},
        {"format": "wav", "bit_depth": "16", "sample_rate": 11025},
        {"format": "wav", "bit_depth": "32"},
    ],
    ids=str,
)
def test_rescaled_stems_sum_to_a_scaled_mixture(
    stems: dict[str, Any], loud: Path, tmp_path: Path
) -> None:
    run(loud, tmp_path / "clipped", stems=stems)
    run(loud, tmp_path / "out", stems={**stems, "peaks": "rescale"})
    for name in ("short", "long"):
        clipped = receipts_of(tmp_path / "clipped" / name).values()
        assert any(file["clipped_samples"] for file in clipped)
        assert all(file["gain_db"] is None for file in clipped)
        files = receipts_of(tmp_path / "out" / name).values()
        (gain_db,) = {file["gain_db"] for file in files}
        assert gain_db < -1 and not any(file["clipped_samples"] for file in files)
        made = stems_of(tmp_path / "out" / name)
        assert max(np.abs(stem).max() for stem in made.values()) == pytest.approx(1, abs=1e-3)
        mixture = at_rate(mixture_of(loud, name), RATE, stems.get("sample_rate", RATE))
        expected = 10 ** (gain_db / 20) * mixture
        np.testing.assert_allclose(sum(made.values()), expected, rtol=0, atol=1e-4)


def test_what_is_not_beyond_full_scale_is_not_rescaled(folder: Path, tmp_path: Path) -> None:
    stems = {"format": "flac", "bit_depth": "24"}
    run(folder, tmp_path / "clip", stems=stems)
    for peaks in ("rescale", "limit"):
        run(folder, tmp_path / peaks, stems={**stems, "peaks": peaks})
        for name in ("short", "long"):
            for stem in ("background", "foreground"):
                path = f"{name}/{stem}.flac"
                assert (tmp_path / peaks / path).read_bytes() == (
                    tmp_path / "clip" / path
                ).read_bytes()
            files = receipts_of(tmp_path / peaks / name).values()
            assert all(file["gain_db"] is None for file in files)


def test_floats_are_never_turned_down(loud: Path, tmp_path: Path) -> None:
    for peaks in ("clip", "rescale", "limit"):
        run(loud, tmp_path / peaks, stems={**FLOATS, "peaks": peaks})
    stems = {name: stems_of(tmp_path / name / "short") for name in ("clip", "rescale", "limit")}
    for stem in ("background", "foreground"):
        np.testing.assert_array_equal(stems["rescale"][stem], stems["clip"][stem])
        np.testing.assert_array_equal(stems["limit"][stem], stems["clip"][stem])


def test_limited_stems_are_quiet_where_they_were_and_never_clipped(
    loud: Path, tmp_path: Path
) -> None:
    run(loud, tmp_path / "out", stems={"format": "wav", "bit_depth": "24", "peaks": "limit"})
    run(loud, tmp_path / "own", stems=FLOATS)
    for name in ("short", "long"):
        files = receipts_of(tmp_path / "out" / name).values()
        assert not any(file["clipped_samples"] for file in files)
        made, own = stems_of(tmp_path / "out" / name), stems_of(tmp_path / "own" / name)
        for stem in made:
            assert np.abs(made[stem]).max() < 1
            assert (np.abs(made[stem]) <= np.abs(own[stem]) + 1e-6).all()


def test_mp3_of_many_channels_and_a_high_rate_is_folded_and_resampled(
    write_audio: WriteAudio, tmp_path: Path
) -> None:
    samples = made_signal(1, 96000, 6)
    samples[4:] *= 0.3
    write_audio("music/film.wav", samples=samples, sample_rate=96000, subtype="FLOAT")
    run(tmp_path / "music", tmp_path / "out", stems={"format": "mp3"}, plots=PLOTS)
    files = receipts_of(tmp_path / "out" / "film").values()
    assert {(file["sample_rate"], file["channels"]) for file in files} == {(48000, 2)}
    made = stems_of(tmp_path / "out" / "film")
    expected = at_rate(fold_down(samples), 96000, 48000)
    total = sum(made.values())
    assert total.shape == expected.shape
    error = np.sqrt(np.mean((total - expected) ** 2) / np.mean(expected**2))
    assert error < 0.1


TWO_STEMS: list[tuple[dict[str, Any], str]] = [
    ({}, "foreground"),
    ({"separator": "hpss", "options": {"margin": 2}}, "residual"),
    (
        {
            "ensemble": [
                {"separator": "hpss", "options": {"margin": 2}},
                {"separator": "hpss", "weight": 2},
            ]
        },
        "percussive",
    ),
]


@pytest.mark.parametrize(("separation", "stem"), TWO_STEMS, ids=str)
def test_two_stems_are_one_and_the_sum_of_all_others(
    separation: dict[str, Any], stem: str, folder: Path, tmp_path: Path
) -> None:
    run(folder, tmp_path / "all", stems=FLOATS, separation=separation)
    stems = {**FLOATS, "two_stems": stem}
    run(folder, tmp_path / "two", stems=stems, separation=separation, plots=PLOTS)
    only = {**stems, "select": [f"no_{stem}"], "rename": {f"no_{stem}": "karaoke"}}
    run(folder, tmp_path / "rest", stems=only, separation=separation)
    for name in ("short", "long"):
        every, two = stems_of(tmp_path / "all" / name), stems_of(tmp_path / "two" / name)
        assert two.keys() == {stem, f"no_{stem}"}
        np.testing.assert_array_equal(two[stem], every.pop(stem))
        others = sum(every.values())
        np.testing.assert_allclose(two[f"no_{stem}"], others, rtol=0, atol=1e-6)
        mixture = mixture_of(folder, name)
        np.testing.assert_allclose(sum(two.values()), mixture, rtol=0, atol=1e-5)
        plots = {path.stem for path in (tmp_path / "two" / name).glob("*.png")}
        assert plots == {stem, f"no_{stem}", "spectrogram"}
        rest = stems_of(tmp_path / "rest" / name)
        assert rest.keys() == {"karaoke"}
        np.testing.assert_array_equal(rest["karaoke"], two[f"no_{stem}"])


@pytest.mark.parametrize(
    ("stems", "separation", "complaint"),
    [
        ({"two_stems": "vocals"}, {}, "'vocals' is no stem of nn-filter, which gives background"),
        (
            {"two_stems": "foreground", "select": ["background"]},
            {},
            "'background' is no stem of .*foreground, no_foreground",
        ),
        (
            {"two_stems": "foreground", "rename": {"foreground": "no_foreground"}},
            {},
            "share a name",
        ),
        (
            {"two_stems": "harmonic"},
            {"separator": "separators:OwnRest"},
            "a stem no_harmonic of its own",
        ),
        ({"two_stems": "vocals"}, {"separator": "separators:Lone", "residual": False}, "no others"),
        ({"format": "flac", "bit_rate_kbps": 128}, {}, "flac has no bit rate"),
        ({"format": "mp3", "bit_rate_kbps": 100}, {}, "use 32, 40, .*, 112, 128"),
        ({"format": "mp3", "quality": 5}, {}, "mp3 has no quality"),
        ({"format": "opus", "sample_rate": 44100}, {}, "use one of 8000, 12000"),
        ({"sample_rate": 100}, {}, "8000"),
        ({"peaks": "normalize"}, {}, "'clip', 'limit' or 'rescale'"),
    ],
)
def test_stem_settings_that_do_not_fit_are_refused(
    stems: dict[str, Any], separation: dict[str, Any], complaint: str, tmp_path: Path
) -> None:
    with pytest.raises(JobFileError, match=complaint):
        job_for(tmp_path, tmp_path / "out", stems=stems, separation=separation)


PLOTTED = [
    {"format": "flac", "sample_rate": 11025},
    {"format": "wav", "bit_depth": "16", "peaks": "limit"},
    {"format": "ogg"},
    {"format": "mp3", "bit_rate_kbps": 32},
    {"format": "m4a", "sample_rate": 16000, "bit_rate_kbps": 32},
    {"format": "opus"},
]


@pytest.mark.parametrize("stems", PLOTTED, ids=str)
def test_plots_show_what_the_files_hold_whenever_they_are_drawn(
    stems: dict[str, Any], folder: Path, tmp_path: Path
) -> None:
    at_once, later = tmp_path / "at-once", tmp_path / "later"
    run(folder, at_once, stems=stems, plots=PLOTS)
    run(folder, later, stems=stems)
    written = {path: path.stat().st_mtime_ns for path in later.rglob(f"*.{stems['format']}")}
    run(folder, later, stems=stems, plots=PLOTS)
    assert {path: path.stat().st_mtime_ns for path in written} == written
    assert result_files(at_once) == result_files(later)
    for name in ("short", "long"):
        signals = stems_of(at_once / name)
        rate = stems.get("sample_rate", RATE)
        powers = {
            stem: pool_power(samples, plot_grid(samples.shape[1], rate, columns=COLUMNS, rows=ROWS))
            for stem, samples in signals.items()
        }
        mixture = mixture_of(folder, name)
        of_mixture = pool_power(
            mixture, plot_grid(mixture.shape[1], RATE, columns=COLUMNS, rows=ROWS)
        )
        peak = max(float(power.max()) for power in (of_mixture, *powers.values()))
        peak_db = 10 * float(np.log10(peak))
        for stem, power in powers.items():
            png = draw_spectrogram(
                power,
                plot_grid(signals[stem].shape[1], rate, columns=COLUMNS, rows=ROWS),
                title=f"{name}.wav – {stem}",
                subtitle="nn-filter",
                peak_db=peak_db,
                range_db=80,
            )
            assert (at_once / name / f"{stem}.png").read_bytes() == png


def test_the_options_of_the_command(folder: Path, tmp_path: Path, command: Command) -> None:
    out = tmp_path / "out"
    options = "--format mp3 --bit-rate 128 --sample-rate 16000 --peaks rescale".split()
    two = ["--two-stems", "foreground", "--no-plots", "--workers", "1"]
    done = command("separate", folder / "short.wav", "-o", out, *options, *two)
    assert done.returncode == 0, done.stderr
    data = (out / "short" / "no_foreground.mp3").read_bytes()
    assert probe(data, name="x").sample_rate == 16000
    done = command("separate", folder, "-o", out, "--bit-rate", 128)
    assert done.returncode == 2 and "flac has no bit rate" in done.stderr
    done = command("separate", folder, "-o", out, "--format", "ogg", "--quality", 12)
    assert done.returncode == 2 and "0 to 10" in done.stderr
    done = command("separate", folder, "-o", out, "--sample-rate", 100)
    assert done.returncode == 2 and "--sample-rate" in done.stderr
