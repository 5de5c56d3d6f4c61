"""CPU seconds of separating with `--references`, against separating and then evaluating.

    python benchmarks/evaluation_while_separating.py [--tracks 6] [--seconds 60] [--runs 3]

One worker and one thread. Tracks are synthesised songs, stereo at 44.1 kHz, flac, with two true
stems. `decoding` is what it takes to decode the mixtures and the separated stems once, which an
evaluation afterwards has to do and a score in the same pass has not: that much less is to be spent
at least. The scores of both ways are compared.
"""

# ruff: noqa: E402
import os

# Libraries read these once, when they are imported.
for _variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"

import argparse
import csv
import tempfile
import time
from pathlib import Path

import soundfile
from measuring import beamsplitter, cost_of

from beamsplitter.audio.decoding.audio_reader import read_audio
from beamsplitter.audio.synthesis import synthesize_song

SAMPLE_RATE = 44100
NAMES = {"foreground": "vocals", "background": "no_vocals"}
SEPARATORS = {
    "nn-filter": NAMES,
    "hpss": {"percussive": "vocals", "harmonic": "no_vocals"},
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--tracks", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--runs", type=int, default=3, help="of each, in turn; all are printed")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        write_tracks(folder / "data", options.tracks, options.seconds)
        print(f"{options.tracks} tracks of {options.seconds:g} s; CPU seconds")
        for separator, names in SEPARATORS.items():
            for run in range(options.runs):
                measure(folder, f"{separator}-{run}", separator, names)


def measure(folder: Path, name: str, separator: str, names: dict[str, str]) -> None:
    """Both ways, one after the other, and what they take."""
    data, together, apart = folder / "data", folder / f"{name}-together", folder / f"{name}-apart"
    recordings = (f"{data}/*/mixture.flac", "--root", data)
    options = ("--separator", separator, "--no-plots", "--workers", 1)
    separate = beamsplitter("separate", *recordings, *options, "-o")
    called = "{" + ", ".join(f"{ours}: {theirs}" for ours, theirs in names.items()) + "}"
    references = ("--references", "{folder}", "-O", f"scores.names={called}")
    once = cost_of(*separate, together, *references)
    first = cost_of(*separate, apart)
    given = [text for pair in names.items() for text in ("--name", "=".join(pair))]
    scores = folder / f"{name}-scores"
    evaluate = beamsplitter("evaluate", data, apart, "-o", scores, "--workers", 1, *given)
    second = cost_of(*evaluate)
    saved_s = first.cpu_s + second.cpu_s - once.cpu_s
    decoding_s = decoding(data, apart)
    print(
        f"{separator}: {once.cpu_s:.1f} in one run; {first.cpu_s:.1f} + {second.cpu_s:.1f} in two; "
        f"saved {saved_s:.1f}, decoding {decoding_s:.1f}; "
        f"scores {'the same' if values(together) == values(scores) else 'DIFFER'}",
        flush=True,
    )


def write_tracks(folder: Path, tracks: int, seconds: float) -> None:
    """Mixtures with their true stems."""
    for index in range(tracks):
        stems = synthesize_song(duration_s=seconds, sample_rate=SAMPLE_RATE, seed=index)
        (folder / f"{index:02d}").mkdir(parents=True)
        mixture = stems["accompaniment"] + stems["vocals"]
        for stem, samples in {**stems, "mixture": mixture}.items():
            path = folder / f"{index:02d}" / f"{stem}.flac"
            soundfile.write(path, samples.T, SAMPLE_RATE, subtype="PCM_16")


def decoding(data: Path, separated: Path) -> float:
    """CPU seconds of decoding the mixtures and the separated stems."""
    started = time.process_time()
    for path in (*data.glob("*/mixture.flac"), *separated.rglob("*.flac")):
        read_audio(path.read_bytes(), name=str(path))
    return time.process_time() - started


def values(scores: Path) -> dict[tuple[str, str, str], list[str]]:
    """The numbers of a table, by track, stem and measure."""
    return {
        (row["track"].removesuffix("/mixture"), row["stem"], row["measure"]): list(row.values())[4:]
        for row in csv.DictReader((scores / "scores.csv").read_text().splitlines())
    }


if __name__ == "__main__":
    main()
