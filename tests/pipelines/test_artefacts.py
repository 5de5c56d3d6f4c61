"""What goes wrong in other separators' output, and must not here."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import librosa
import numpy as np
import soundfile
from audio_files import encode_m4a, encode_mp3, recording
from conftest import Command, made_signal

from beamsplitter.audio.parts import Part, cut_to_stem_range, join_parts, plan_parts
from beamsplitter.models.separators.nearest_neighbors import separate
from beamsplitter.models.separators.recipes import RECIPES

RATE = 22050
RATES = [8000, 22050, 44100, 48000, 96000]


def separate_in_parts(samples: np.ndarray, part_seconds: float) -> tuple[np.ndarray, list[Part]]:
    parts = plan_parts(samples.shape[1], RATE, len(samples), part_seconds=part_seconds)
    stems = []
    for part in parts:
        block = samples[:, part.context_start_sample : part.context_stop_sample]
        stems.append(
            cut_to_stem_range(separate(block, RATE, RECIPES["default"])["background"], part)
        )

    def read(part: Part, start: int, stop: int) -> np.ndarray:
        return stems[part.index][:, start - part.stem_start_sample : stop - part.stem_start_sample]

    return np.concatenate(list(join_parts(parts, read)), axis=1), parts


def snr_db(reference: np.ndarray, estimate: np.ndarray) -> float:
    noise = float(np.sum((reference - estimate) ** 2))
    return 10 * float(np.log10((np.sum(reference**2) + 1e-12) / (noise + 1e-12)))


def test_seams_are_no_worse_than_elsewhere() -> None:
    samples = librosa.load(recording("fishin.ogg"), sr=RATE, duration=90)[0][np.newaxis]
    whole, _ = separate_in_parts(samples, 300)
    in_parts, parts = separate_in_parts(samples, 25)
    assert len(parts) > 3
    reach = round(0.05 * RATE)
    seams = [part.start_sample for part in parts[1:]]

    def snr_around(centre: int) -> float:
        near = slice(centre - reach, centre + reach)
        return snr_db(whole[:, near], in_parts[:, near])

    elsewhere = [
        snr_around(centre)
        for centre in range(reach, samples.shape[1] - reach, 2 * reach)
        if min(abs(centre - seam) for seam in seams) > 2 * reach
    ]
    assert np.median([snr_around(seam) for seam in seams]) >= np.median(elsewhere) - 3


def test_gain_does_not_follow_the_level() -> None:
    samples = made_signal(20, RATE, 2)
    loud = separate(samples, RATE, RECIPES["default"])
    quiet = separate(samples / 128, RATE, RECIPES["default"])
    for stem, signal in loud.items():
        # Of two frames that are almost as near, the other may be taken: it sounds almost the same.
        assert snr_db(signal, quiet[stem] * 128) > 80


def test_a_quiet_start_stays_quiet_in_parts() -> None:
    samples = made_signal(40, RATE, 1)
    samples[:, : 20 * RATE] /= 128
    background, parts = separate_in_parts(samples, 10)
    assert len(parts) > 3
    quiet = np.sqrt(np.mean(background[:, : 19 * RATE] ** 2))
    loud = np.sqrt(np.mean(background[:, 21 * RATE :] ** 2))
    assert 64 < loud / quiet < 256


def test_stems_have_exactly_the_frames_that_were_encoded(tmp_path: Path, command: Command) -> None:
    (tmp_path / "in").mkdir()
    frames: dict[str, int] = {}
    for rate in RATES:
        samples = made_signal(1.5, rate, 2)[:, : round(1.5 * rate) - 7]
        files = {"wav": None, "m4a": encode_m4a(samples, rate)}
        if rate <= 48000:  # the highest of MP3
            files["mp3"] = encode_mp3(samples, rate)
        for extension, data in files.items():
            path = tmp_path / "in" / f"{extension}-{rate}.{extension}"
            if data is None:
                soundfile.write(path, samples.T, rate)
            else:
                path.write_bytes(data)
            frames[path.stem] = samples.shape[1]
    done = command("separate", tmp_path / "in", "-o", tmp_path / "out", "--no-plots")
    assert done.returncode == 0, done.stderr
    assert len(frames) == 14
    for name, expected in frames.items():
        for stem in ("background", "foreground"):
            info = soundfile.info(tmp_path / "out" / name / f"{stem}.flac")
            assert (info.frames, info.channels) == (expected, 2)
            assert info.samplerate == int(name.split("-")[1])


PEAK_OF_COMMAND = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:], stderr=subprocess.DEVNULL).returncode
print(code, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def peak_kib(arguments: list[str]) -> int:
    done = subprocess.run(
        [sys.executable, "-c", PEAK_OF_COMMAND, *arguments], capture_output=True, text=True
    )
    code, peak = map(int, done.stdout.split())
    assert code == 0
    return peak


def test_memory_does_not_grow_with_length(
    write_audio: Callable[..., Path], tmp_path: Path, command: Command
) -> None:
    peaks = []
    for minutes in (5, 30):
        samples = np.tile(made_signal(60, 8000, 1), minutes)
        path = write_audio(f"{minutes}.wav", samples=samples, sample_rate=8000)
        out = tmp_path / f"out-{minutes}"
        line = command.line("separate", path, "-o", out, "--workers", 1, "--part-seconds", 60)
        peaks.append(peak_kib(line))
        manifest = json.loads((out / str(minutes) / "manifest.json").read_text())
        assert manifest["input"]["frames"] == samples.shape[1]
    assert peaks[1] < 1.2 * peaks[0]
