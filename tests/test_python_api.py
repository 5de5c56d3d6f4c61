"""`import beamsplitter`: arrays, files, and what is told of mistakes."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import pytest
import soundfile
from conftest import Command
from test_docs import DOCS, blocks_of

import beamsplitter
from beamsplitter.audio.errors import AudioError, TooShortAudioError
from beamsplitter.models.separators.base import ModelError
from beamsplitter.pipelines.local.launch import LaunchError

WriteAudio = Callable[..., Path]
RATE = 8000


def noise(channels: int, samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.4, 0.4, (channels, samples)).astype(np.float32)


@pytest.mark.parametrize(
    ("separator", "options"),
    [
        ("nn-filter", {}),
        ("nn-filter", {"recipe": "librosa"}),
        ("hpss", {"margin": 2}),
        ("separators:Smoothing", {"block_samples": 5000, "normalizes": True}),
    ],
)
def test_arrays_give_the_samples_of_the_command(
    separator: str,
    options: dict[str, Any],
    write_audio: WriteAudio,
    tmp_path: Path,
    command: Command,
) -> None:
    """Of three parts, and of a rate and channels of its own."""
    path = write_audio("in/song.wav", seconds=25, sample_rate=RATE, channels=2, subtype="FLOAT")
    flags = [each for name, value in options.items() for each in ("--option", f"{name}={value}")]
    done = command(
        *("separate", path, "-o", tmp_path / "out", "--separator", separator, *flags),
        *("--part-seconds", 10, "--no-plots", "--format", "wav", "--bit-depth", "32f"),
        PYTHONPATH=str(Path(__file__).parent),
    )
    assert done.returncode == 0, done.stderr
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    told: list[tuple[float, float]] = []
    stems = beamsplitter.separate(
        samples.T,
        sample_rate=rate,
        separator=separator,
        options=options,
        part_seconds=10,
        progress=lambda *seconds: told.append(seconds),
    )
    written = {each.stem for each in (tmp_path / "out" / "song").glob("*.wav")}
    assert stems.keys() == written
    assert stems.sample_rate == rate
    for stem, made in stems.items():
        expected, _ = soundfile.read(
            tmp_path / "out" / "song" / f"{stem}.wav", dtype="float32", always_2d=True
        )
        # Sums for normalising depend on the number of threads, in their last digit.
        tolerance = 1e-6 if "normalizes" in options else 0
        np.testing.assert_allclose(made, expected.T, rtol=0, atol=tolerance)
    done = [done_s for done_s, _ in told]
    assert done == sorted(done) and {total_s for _, total_s in told} == {25.0}
    borders = {66_666 / RATE, 133_333 / RATE, 25.0}
    assert borders <= set(done) and done[-1] == 25.0
    # Those that work on a whole part at once can't tell.
    assert len({*done} - borders) >= (0 if separator == "hpss" else 6)
    of_path = beamsplitter.separate(
        path, separator=separator, options=options, part_seconds=10, stems=list(stems)
    )
    for stem, made in stems.items():
        np.testing.assert_array_equal(of_path[stem], made)


@pytest.mark.parametrize("samples", [4000, 4001, 12345, 80000, 80001])
@pytest.mark.parametrize("separator", ["nn-filter", "hpss"])
def test_stems_have_the_shape_of_the_mixture_and_sum_to_it(separator: str, samples: int) -> None:
    mixture = noise(1, samples)[0].astype(np.float64)
    stems = beamsplitter.separate(mixture, sample_rate=RATE, separator=separator, part_seconds=10)
    assert {made.shape for made in stems.values()} == {(samples,)}
    np.testing.assert_allclose(np.sum([*stems.values()], axis=0), mixture, atol=1e-5)


def test_silence_stays_silence() -> None:
    for made in beamsplitter.separate(np.zeros((2, RATE)), sample_rate=RATE).values():
        np.testing.assert_array_equal(made, 0)


@pytest.mark.parametrize(
    ("samples", "arguments", "said"),
    [
        (noise(2, 9000).T, {"sample_rate": RATE}, r"9000 channels: .* hand over samples\.T"),
        (noise(2, 9000), {}, "sample_rate: say the rate"),
        (noise(2, 9000), {"sample_rate": 44100.5}, "is no whole number of Hz"),
        ((noise(2, 9000) * 1000).astype(np.int16), {"sample_rate": RATE}, "int16: .*/ 32768"),
        (np.full((1, 9000), np.nan), {"sample_rate": RATE}, "NaN"),
        (np.zeros((2, 3, 4)), {"sample_rate": RATE}, r"shape \(2, 3, 4\)"),
        (np.zeros((1, 0)), {"sample_rate": RATE}, r"shape \(1, 0\)"),
        (noise(1, 9000), {"sample_rate": RATE, "stems": ["vocals"]}, "'vocals' is no stem of nn-"),
        (
            noise(1, 9000),
            {"sample_rate": RATE, "options": {"margn": 2}},
            "margn: .*the options are",
        ),
        (noise(1, 9000), {"sample_rate": RATE, "separator": "htdemucs"}, "did you mean"),
    ],
)
def test_mistakes_are_told(samples: np.ndarray, arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        beamsplitter.separate(samples, **arguments)


def test_recordings_that_can_t_be_separated_are_told(tmp_path: Path) -> None:
    (tmp_path / "broken.wav").write_bytes(b"RIFF, but nothing more")
    with pytest.raises(AudioError, match=r"broken\.wav: "):
        beamsplitter.separate(tmp_path / "broken.wav")
    with pytest.raises(AudioError, match=r"gone\.wav: is not there"):
        beamsplitter.separate(tmp_path / "gone.wav")
    with pytest.raises(TooShortAudioError, match=r"0\.100 s is too short for nn-filter"):
        beamsplitter.separate(noise(1, 800), sample_rate=RATE)


def test_no_beam_and_no_torch_for_an_array() -> None:
    program = (
        "import sys, numpy, beamsplitter\n"
        "beamsplitter.separate(numpy.zeros((1, 8000)), sample_rate=8000)\n"
        "assert not {'apache_beam', 'torch'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_command_starts_without_what_is_slow_to_import() -> None:
    slow = {
        *("apache_beam", "torch", "lightning", "librosa", "numba", "pandas", "pyarrow"),
        *("matplotlib", "scipy.signal", "scipy.stats", "sklearn", "google.cloud.storage"),
    }
    program = (
        "import sys, beamsplitter.pipelines.command_line\n"
        f"found = {slow} & set(sys.modules)\n"
        "assert not found, found\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_files_give_results(write_audio: WriteAudio, tmp_path: Path) -> None:
    write_audio("in/below/a.wav", seconds=2)
    write_audio("in/b.flac", seconds=1)
    (tmp_path / "in" / "c.wav").write_bytes(b"RIFF, but nothing more")
    told: list[tuple[float, float]] = []

    def split() -> list[beamsplitter.FileResult]:
        return beamsplitter.separate_files(
            tmp_path / "in",
            tmp_path / "out",
            stems=["background"],
            settings={"stems.bit_depth": 24, "stems.rename": "{background: band}"},
            progress=lambda *seconds: told.append(seconds),
        )

    b, a, c = sorted(split(), key=lambda result: result.element.replace("below/", "b/"))
    assert (a.element, b.element, c.element) == ("below/a.wav", "b.flac", "c.wav")
    assert a.folder == str(tmp_path / "out" / "below" / "a")
    assert a.stems == {"background": f"{a.folder}/band.flac"}
    assert soundfile.info(a.stems["background"]).subtype == "PCM_24"
    assert set(a.plots) == {"spectrogram", "background"}
    assert all(map(os.path.isfile, a.plots.values()))
    assert not a.skipped and not a.failures
    (failure,) = c.failures
    assert failure["step"] == "PlanParts" and "c.wav: " in failure["message"]
    assert c.folder is None and not c.stems
    assert told[-1] == (3.0, 3.0)
    again = {result.element: result for result in split()}
    assert again["below/a.wav"].skipped and again["below/a.wav"].stems == a.stems


def test_mistakes_with_files_name_the_argument(write_audio: WriteAudio, tmp_path: Path) -> None:
    path = write_audio("a.wav", seconds=1)
    out = tmp_path / "out"
    with pytest.raises(ValueError, match=r"^format: must be 'flac'"):
        beamsplitter.separate_files(path, out, format="aiff")
    with pytest.raises(ValueError, match=r"^plots.range_dbs: unknown key"):
        beamsplitter.separate_files(path, out, settings={"plots.range_dbs": 3})
    with pytest.raises(ValueError, match="no such file or folder"):
        beamsplitter.separate_files(tmp_path / "gone", out)
    with pytest.raises(ValueError, match="can't lie on the web"):
        beamsplitter.separate_files("https://example.org/a.wav", out)
    with pytest.raises(ModelError, match="cuda:99"):
        beamsplitter.separate_files(path, out, separator="umx:umxhq", device="cuda:99")
    assert issubclass(LaunchError, RuntimeError)
    assert not out.exists()


def test_the_page_of_docs_runs(
    write_audio: WriteAudio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_audio("song.flac", seconds=11, sample_rate=22050, channels=2)
    write_audio("music/a.wav", seconds=1)
    names: dict[str, Any] = {}
    for block in blocks_of((DOCS / "python.md").read_text(), "python"):
        exec(block, names)
    magnitude, width = names["magnitude"], names["width"]
    expected = librosa.decompose.nn_filter(
        magnitude, aggregate=np.median, metric="cosine", width=width
    )
    np.testing.assert_array_equal(names["repeating"], expected)


def test_it_says_what_there_is() -> None:
    assert {"separate", "separate_files", "nn_filter", "Stems", "FileResult"} <= {
        *dir(beamsplitter)
    }
    with pytest.raises(AttributeError, match="seperate"):
        _ = beamsplitter.seperate
