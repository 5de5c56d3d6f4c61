"""Neural separators against demucs' own command: equality, many short files, one long file.

    python benchmarks/separators.py equality
    python benchmarks/separators.py short [--files 60] [--seconds 5]
    python benchmarks/separators.py long [--seconds 240]
    python benchmarks/separators.py memory [--minutes 10 60]
    python benchmarks/separators.py precision

Published weights need a network: these are random, of the released size, which changes neither
speed nor equality. Both commands read the same FLAC files and write four float stems each, ours
without plots; all start-up is part of the figures but for the download of weights. `--device cuda`
runs both on a GPU.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
import torch
import yaml
from demucs.apply import apply_model
from demucs_speed import released_size
from measuring import AUDIO_DIR, beamsplitter, cost_of, long_signal, write_files

from beamsplitter.models.evaluation.distortion import si_sdr
from beamsplitter.models.separators.demucs import load_network

SIGNATURE = "955717e8"
STEMS = ("drums", "bass", "other", "vocals")
SAMPLE_RATE = 44100


def write_weights(folder: Path, **changes: object) -> dict[str, str]:
    """A folder that demucs' `--repo` takes, and the environment in which ours takes its file."""
    module = released_size(**changes)
    args, kwargs = module._init_args_kwargs
    content = {
        "klass": type(module),
        "args": args,
        "kwargs": kwargs,
        "state": module.half().state_dict(),
        "training_args": {},
    }
    path = folder / f"{SIGNATURE}.th"
    torch.save(content, path)
    (folder / "htdemucs.yaml").write_text(f"models: ['{SIGNATURE}']\n")
    entry = {
        "name": "demucs:htdemucs",
        "summary": "random weights",
        "stems": list(STEMS),
        "sample_rate": SAMPLE_RATE,
        "licence": "none",
        "homepage": "none",
        "files": [
            {
                "name": path.name,
                "address": str(path),
                "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            }
        ],
    }
    (folder / "registry.yaml").write_text(yaml.safe_dump({"models": [entry]}))
    return {
        "BEAMSPLITTER_MODEL_REGISTRY": str(folder / "registry.yaml"),
        "BEAMSPLITTER_MODEL_CACHE": str(folder / "cache"),
    }


def seconds(*command: object, **environment: str) -> float:
    """Wall seconds of a command; raises if it fails."""
    started = time.monotonic()
    done = subprocess.run(
        [str(part) for part in command],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(done.stdout[-2000:] + done.stderr[-4000:])
    return time.monotonic() - started


def ours(recordings: Path, out: Path, device: str, *more: object) -> list[object]:
    """Our command line."""
    return [
        *beamsplitter("separate", recordings, "-o", out, "--separator", "demucs:htdemucs"),
        *("--stems", ",".join(STEMS), "--no-plots", "--format", "wav", "--bit-depth", "32f"),
        *("--device", device, *more),
    ]


def theirs(recordings: Path, out: Path, repo: Path, device: str) -> list[object]:
    """demucs' command line: one process for all files."""
    files = sorted(recordings.glob("*.flac"))
    options = ("-n", "htdemucs", "--repo", repo, "-o", out, "-d", device, "--float32")
    return [sys.executable, "-m", "demucs", *options, *files]


def compare(work: Path, durations_s: list[float], device: str, rounds: int) -> None:
    """Both commands on the same files, in turns; best of the rounds."""
    environment = write_weights(work)
    seconds(*beamsplitter("models", "fetch", "demucs:htdemucs"), **environment)
    write_files(work / "in", long_signal(AUDIO_DIR, SAMPLE_RATE, 2), SAMPLE_RATE, durations_s)
    took: dict[str, list[float]] = {"demucs": [], "ours": []}
    for index in range(rounds):
        their_out, our_out = work / f"theirs-{index}", work / f"ours-{index}"
        took["demucs"].append(seconds(*theirs(work / "in", their_out, work, device)))
        with Watch(device) as watch:
            took["ours"].append(seconds(*ours(work / "in", our_out, device), **environment))
        print(
            f"demucs {took['demucs'][-1]:.1f} s, ours {took['ours'][-1]:.1f} s{watch}", flush=True
        )
    best = {name: min(each) for name, each in took.items()}
    print(
        f"{len(durations_s)} files of {durations_s[0]:g} s on {device}: demucs {best['demucs']:.1f}"
        f" s, ours {best['ours']:.1f} s: {best['demucs'] / best['ours']:.2f} times as fast"
    )


def equality(work: Path, device: str) -> None:
    """Our stems of a recording against `apply_model` on the same samples."""
    environment = write_weights(work)
    name = AUDIO_DIR / "fishin.ogg"
    samples, rate = soundfile.read(name, dtype="float32", always_2d=True)
    seconds(*ours(name, work / "ours", device), **environment)
    mixture = torch.from_numpy(at_rate(samples.T, rate))
    mono = mixture.mean(0)
    mean, deviation = mono.mean(), mono.std() + 1e-8
    network = load_network(work / f"{SIGNATURE}.th")
    with torch.inference_mode():
        expected = apply_model(
            network, ((mixture - mean) / deviation)[None], shifts=0, device=device
        )[0]
    expected = expected * deviation + mean
    for stem, estimate in zip(STEMS, expected.numpy(), strict=True):
        made, _ = soundfile.read(work / "ours" / "fishin" / f"{stem}.wav", dtype="float32")
        estimate = at_rate(estimate, SAMPLE_RATE, rate)[:, : len(made)]
        error = np.abs(made.T - estimate).max()
        print(f"{stem}: at most {error:.1e} apart, peak {np.abs(estimate).max():.2f}")


def at_rate(samples: np.ndarray, rate: int, wanted: int = SAMPLE_RATE) -> np.ndarray:
    """Resampled by soxr, as ours is."""
    from beamsplitter.models.separators.mixing import resample

    return resample(np.ascontiguousarray(samples), rate, wanted)


class Watch:
    """Samples how busy the GPU is, by NVML."""

    def __init__(self, device: str) -> None:
        self.busy: list[float] = []
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._sample) if "cuda" in device else None

    def __enter__(self) -> "Watch":
        if self.thread:
            self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        if self.thread:
            self.thread.join()

    def __str__(self) -> str:
        working = self.busy[next((i for i, each in enumerate(self.busy) if each), 0) :]
        return f", GPU busy {np.mean(working):.0f} %" if working else ""

    def _sample(self) -> None:
        while not self.ended.wait(0.2):
            self.busy.append(float(torch.cuda.utilization()))


def memory(work: Path, minutes: list[float], device: str) -> None:
    """Peak memory of one process, for a short and for a long recording.

    With a smaller network, whose blocks and stems are as large: the released one takes too long.
    """
    os.environ.update(write_weights(work, channels=8, bottom_channels=64, t_layers=1))
    signal = long_signal(AUDIO_DIR, SAMPLE_RATE, 2)
    for each in minutes:
        folder = work / f"{each:g}"
        write_files(folder, signal, SAMPLE_RATE, [60 * each])
        cost = cost_of(*ours(folder, work / f"out-{each:g}", device), sample_memory=True)
        print(f"{each:g} min: peak {cost.peak_mib:.0f} MiB, {cost.wall_s:.0f} s", flush=True)


def precision(work: Path, device: str) -> None:
    """SI-SDR of the stems that halves give against those of float32, and the time they take."""
    environment = write_weights(work)
    made: dict[str, dict[str, np.ndarray]] = {}
    for name in ("float32", "bfloat16", "float16"):
        job = {
            "job_name": name,
            "pipeline_options": {"runner": "DirectRunner", "streaming": False},
            "job_config": {
                "events": {
                    "inputs": [{"type": "recording", "location": str(AUDIO_DIR / "fishin.ogg")}]
                },
                "data": {"outputs": [{"type": "file", "location": str(work / name)}]},
            },
            "separation": {
                "separator": "demucs:htdemucs",
                "precision": name,
                "device": device,
                "duration_s": 30,
            },
            "stems": {"format": "wav", "bit_depth": "32f"},
            "plots": {"enabled": False},
        }
        (work / f"{name}.yaml").write_text(yaml.safe_dump(job))
        took = seconds(*beamsplitter("run", work / f"{name}.yaml"), **environment)
        made[name] = {
            stem: soundfile.read(work / name / "fishin" / f"{stem}.wav", dtype="float32")[0].T
            for stem in STEMS
        }
        ratios = [si_sdr(made[name][stem], made["float32"][stem]) for stem in STEMS]
        print(f"{name}: {took:.1f} s, SI-SDR {min(ratios):.1f} to {max(ratios):.1f} dB", flush=True)


def durations(options: argparse.Namespace) -> Iterator[float]:
    """The lengths of the files of a comparison."""
    default_files, default_s = (60, 5.0) if options.what == "short" else (1, 240.0)
    for _ in range(options.files or default_files):
        yield options.seconds or default_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["equality", "short", "long", "memory", "precision"])
    parser.add_argument("--files", type=int)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--minutes", type=float, nargs="+", default=[10, 60])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    print(json.dumps({"threads": torch.get_num_threads(), "torch": torch.__version__}))
    with tempfile.TemporaryDirectory() as work:
        if options.what == "equality":
            equality(Path(work), options.device)
        elif options.what == "precision":
            precision(Path(work), options.device)
        elif options.what == "memory":
            memory(Path(work), options.minutes, options.device)
        else:
            compare(Path(work), list(durations(options)), options.device, options.rounds)


if __name__ == "__main__":
    main()
