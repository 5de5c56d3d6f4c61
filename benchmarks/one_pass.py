"""CPU seconds of stems, labels, features and plots in one run, against one run for each.

    python benchmarks/one_pass.py [--tracks 6] [--seconds 60] [--runs 3]

One worker and one thread. Recordings are synthesised songs, stereo at 44.1 kHz, flac. Apart, each
branch is added to the results of the one before, so that it alone is made; each of these runs
decodes the recordings, and that of plots the stems, too, which one run for all does once. The
recordings' own share of it is told as `decoding`, and what starting the command takes as `start`.
"""

# ruff: noqa: E402
import os

# Libraries read these once, when they are imported.
for _variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"

import argparse
import json
import tempfile
import time
from pathlib import Path

import soundfile
import torch
from measuring import beamsplitter, cost_of

from beamsplitter.audio.decoding.audio_reader import read_audio
from beamsplitter.audio.synthesis import synthesize_song

SAMPLE_RATE = 44100
METADATA = {
    "effect_type": "waveform-to-labels",
    "sample_rate": 16000,
    "multichannel": False,
    "labels": ["quiet", "loud"],
    "short_description": "Tells loud seconds from quiet ones.",
    "long_description": "By their mean square.",
    "domain_tags": ["music"],
    "tags": ["loudness"],
}


class Loudness(torch.nn.Module):
    """Labels of seconds, by their mean square."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Indices of labels, and times."""
        power = x[0].reshape(-1, 16000).pow(2).mean(dim=1)
        starts_s = torch.arange(power.shape[0], dtype=torch.float32)
        return (power > 0.01).long(), torch.stack([starts_s, starts_s + 1], dim=1)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--tracks", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--runs", type=int, default=3, help="of each, in turn; all are printed")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        write_songs(folder / "data", options.tracks, options.seconds)
        write_package(folder / "net")
        print(f"{options.tracks} songs of {options.seconds:g} s; CPU seconds")
        for separator in ("nn-filter", "hpss"):
            for run in range(options.runs):
                measure(folder, f"{separator}-{run}", separator)


def measure(folder: Path, name: str, separator: str) -> None:
    """Both ways, one after the other, and what they take."""
    branches = {
        "labels": (f"labels.model={folder / 'net'}",),
        "features": (
            "features.sets.log_mel.sample_rate=22050",
            "features.sets.chroma.sample_rate=22050",
        ),
        "plots": ("plots.enabled=true",),
    }

    def run(out: Path, wanted: list[str]) -> float:
        changes = [text for branch in wanted for each in branches[branch] for text in ("-O", each)]
        options = ("--separator", separator, "--no-plots", "--workers", 1, *changes)
        return cost_of(*beamsplitter("separate", folder / "data", "-o", out, *options)).cpu_s

    at_once = run(folder / f"{name}-at-once", [*branches])
    costs = {
        ("stems", *branches)[count]: run(folder / f"{name}-apart", [*branches][:count])
        for count in range(len(branches) + 1)
    }
    start_s = run(folder / f"{name}-apart", [*branches])  # nothing is left to do
    decoding_s = decoding(folder / "data")
    parts_s = sum(costs.values())
    saved_s = len(branches) * decoding_s
    told = " + ".join(f"{branch} {cost:.1f}" for branch, cost in costs.items())
    print(
        f"{separator}: {at_once:.1f} in one run; {told} = {parts_s:.1f}; "
        f"decoding {decoding_s:.1f}, start {start_s:.1f}; "
        f"{at_once / (parts_s - saved_s):.2f} of the parts less decoding; "
        f"{decoded(folder / f'{name}-at-once')} recordings decoded",
        flush=True,
    )


def write_songs(folder: Path, tracks: int, seconds: float) -> None:
    """Mixtures."""
    folder.mkdir()
    for index in range(tracks):
        stems = synthesize_song(duration_s=seconds, sample_rate=SAMPLE_RATE, seed=index)
        mixture = stems["accompaniment"] + stems["vocals"]
        path = folder / f"{index:02d}.flac"
        soundfile.write(path, mixture.T, SAMPLE_RATE, subtype="PCM_16")


def write_package(folder: Path) -> None:
    """A model package that gives labels."""
    folder.mkdir()
    (folder / "metadata.json").write_text(json.dumps(METADATA))
    torch.jit.script(Loudness()).save(str(folder / "model.pt"))


def decoding(data: Path) -> float:
    """CPU seconds of decoding the recordings."""
    started = time.process_time()
    for path in data.glob("*.flac"):
        read_audio(path.read_bytes(), name=str(path))
    return time.process_time() - started


def decoded(out: Path) -> int:
    """How many recordings a run has decoded."""
    return int(json.loads((out / "run.json").read_text())["steps"]["LoadAudio"]["in"])


if __name__ == "__main__":
    main()
