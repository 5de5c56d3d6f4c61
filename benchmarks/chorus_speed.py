"""How much faster than pychorus are choruses found, in how much memory, how often? One thread.

    python benchmarks/chorus_speed.py speed [--seconds 240] [--runs 3]
    python benchmarks/chorus_speed.py memory [--minutes 10 30 60]
    python benchmarks/chorus_speed.py forms [--songs 60]

`speed`: CPU seconds in this process, from samples as pychorus loads them (mono, 22050 Hz), and from
a file (FLAC, stereo, 44.1 kHz), which either decodes. The song has sections whose order is known.
pychorus is that of `tests/oracles.txt`. `memory`: the peak of the largest process of
`beamsplitter chorus`. `forms`: of how many synthesised songs the chorus is found, within 2 s.
Verses have the same accompaniment each time and another melody; choruses are the same, but for
noise 20 dB below. Ours has to be the first occurrence, that of pychorus any. Trust the ratios, not
the seconds.
"""

# ruff: noqa: E402
import os

# Libraries read these once, when they are imported.
for _variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_variable] = "1"

import argparse
import contextlib
import io
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import soundfile
from measuring import beamsplitter, cost_of

from beamsplitter.audio.chorus import find_choruses
from beamsplitter.audio.synthesis import synthesize_song
from beamsplitter.pipelines.local.chorus_launch import ChorusTask, find_in_file
from beamsplitter.storage import Storage

sys.path.append(str(Path(sys.prefix, "oracles")))
RATE, THEIR_RATE = 44100, 22050
ORDER = "ABABCBD"
# B is the chorus.
FORMS = ("ABABCB", "ABABCBD", "ABABB", "ABCB", "ABCBD", "ABABAB", "BABCB", "CABABDBC")
NEAR_S = 2.0
CLIP_S = 15


def write_song(path: Path, seconds: float) -> None:
    """Write sections of 20 s again and again; each is a synthesised song of its own."""
    sections = {
        each: sum(synthesize_song(duration_s=20, sample_rate=RATE, seed=ord(each)).values()) / 2
        for each in sorted(set(ORDER))
    }
    left = round(seconds * RATE)
    with soundfile.SoundFile(path, "w", RATE, 2, "PCM_16") as file:
        while left > 0:
            for each in ORDER:
                block = sections[each][:, : max(0, left)]
                file.write(np.ascontiguousarray(block.T))
                left -= block.shape[1]


def ours_of_samples(samples: np.ndarray) -> float:
    return find_choruses(samples, THEIR_RATE, clip_s=CLIP_S).sections[0].start_s


def theirs_of_samples(samples: np.ndarray) -> float | None:
    """What `pychorus.create_chroma` and `find_chorus` do, but for loading the file."""
    import pychorus

    power = np.abs(librosa.stft(samples, n_fft=2**14)) ** 2
    chroma = librosa.feature.chroma_stft(S=power, sr=THEIR_RATE)
    return pychorus.find_chorus(chroma, THEIR_RATE, len(samples) / THEIR_RATE, CLIP_S)


def ours_of_file(path: Path) -> float:
    content = find_in_file(ChorusTask("song", str(path), Storage(), clip_s=CLIP_S)).content
    return content["sections"][0]["start_s"] if content else float("nan")


def theirs_of_file(path: Path) -> float | None:
    import pychorus

    return pychorus.find_and_output_chorus(str(path), None, CLIP_S)


def cpu_seconds(function: Callable[[Any], float | None], source: Any) -> tuple[float, float | None]:
    start = time.process_time()
    # pychorus prints, and calls what scipy will take away.
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = function(source)
    return time.process_time() - start, found


def speed(seconds: float, runs: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "song.flac")
        write_song(path, seconds)
        samples, _ = librosa.load(path, sr=THEIR_RATE)
        for name, source, functions in (
            ("samples", samples, (ours_of_samples, theirs_of_samples)),
            ("file", path, (ours_of_file, theirs_of_file)),
        ):
            for function in functions:  # what is compiled is compiled before
                cpu_seconds(function, source)
            for _ in range(runs):
                (ours_s, ours), (theirs_s, theirs) = (
                    cpu_seconds(function, source) for function in functions
                )
                print(
                    f"{seconds:g} s from {name}: ours {ours_s:.3f} s (chorus at {ours:.1f} s), "
                    f"pychorus {theirs_s:.2f} s (at {theirs} s): {theirs_s / ours_s:.1f}x",
                    flush=True,
                )


def memory(minutes: list[float]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "song.flac")
        for each in minutes:
            write_song(path, 60 * each)
            cost = cost_of(*beamsplitter("chorus", path), sample_memory=True)
            print(
                f"{each:g} min: peak {cost.peak_mib:.0f} MiB, {cost.wall_s:.1f} s, start included",
                flush=True,
            )


def song_of_form(form: str, seed: int) -> tuple[np.ndarray, list[float]]:
    """A song, float32 `(samples,)` at their rate, and where its choruses begin, in seconds."""
    generator = np.random.default_rng(seed)
    seconds = {each: generator.uniform(16, 28) for each in sorted(set(form))}
    pieces, choruses_s, at_s = [], [], 0.0
    for index, each in enumerate(form):
        part = {"duration_s": seconds[each], "sample_rate": THEIR_RATE}
        song = synthesize_song(**part, seed=100 * seed + ord(each))
        voice = song["vocals"]
        if each == "B":
            choruses_s.append(at_s)
        else:
            voice = synthesize_song(**part, seed=100 * seed + index)["vocals"]
        pieces.append((song["accompaniment"] + voice).mean(axis=0))
        at_s += pieces[-1].size / THEIR_RATE
    samples = np.concatenate(pieces)
    noise = generator.standard_normal(samples.size).astype(np.float32)
    return samples + 0.1 * samples.std() * noise, choruses_s


def forms(songs: int) -> None:
    hits = {"ours": 0, "pychorus": 0, "pychorus, nothing found": 0}
    for seed in range(songs):
        form = FORMS[seed % len(FORMS)]
        samples, choruses_s = song_of_form(form, seed)
        found = find_choruses(samples, THEIR_RATE, clip_s=CLIP_S)
        _, theirs_s = cpu_seconds(theirs_of_samples, samples)
        hits["ours"] += bool(found.sections) and (
            abs(found.excerpt_start_s - choruses_s[0]) < NEAR_S
        )
        hits["pychorus"] += theirs_s is not None and any(
            abs(theirs_s - each) < NEAR_S for each in choruses_s
        )
        hits["pychorus, nothing found"] += theirs_s is None
    print(f"of {songs} songs: " + ", ".join(f"{name} {count}" for name, count in hits.items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    of_speed = commands.add_parser("speed")
    of_speed.add_argument("--seconds", type=float, default=240)
    of_speed.add_argument("--runs", type=int, default=3)
    of_memory = commands.add_parser("memory")
    of_memory.add_argument("--minutes", type=float, nargs="+", default=[10, 30, 60])
    of_forms = commands.add_parser("forms")
    of_forms.add_argument("--songs", type=int, default=60)
    options = parser.parse_args()
    if options.command == "speed":
        speed(options.seconds, options.runs)
    elif options.command == "memory":
        memory(options.minutes)
    else:
        forms(options.songs)


if __name__ == "__main__":
    main()
