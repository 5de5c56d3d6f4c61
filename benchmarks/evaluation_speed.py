"""How much faster than museval is our BSSEval, and is it the same? CPU seconds on one thread.

    python benchmarks/evaluation_speed.py [--tracks 20] [--seconds 30]

Tracks have 4 stems, those of two synthesised songs, stereo at 44.1 kHz with 16 bits, and estimates
that are made of them: filtered, with some of the other stems, and noise. SI-SDR and SNR are held
against torchmetrics. Trust the ratios, not the seconds.
"""

# ruff: noqa: E402
import os

# Libraries read these once, when they are imported.
for _variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Where `make .venv/.installed-dev` puts museval: see tests/oracles.txt.
sys.path.append(str(Path(sys.prefix, "oracles")))

import museval
import numpy as np
import scipy.signal
import torch
from torchmetrics.functional.audio import (
    scale_invariant_signal_distortion_ratio,
    signal_noise_ratio,
)

from beamsplitter.audio.synthesis import synthesize_song
from beamsplitter.models.evaluation.bsseval import NAMES, bss_eval
from beamsplitter.models.evaluation.distortion import si_sdr, snr

SAMPLE_RATE = 44100
RATIOS = {
    "SI-SDR": (si_sdr, scale_invariant_signal_distortion_ratio),
    "SNR": (snr, signal_noise_ratio),
}


@dataclass
class Seconds:
    """CPU time of both, and how far apart their results are at most."""

    ours: float = 0.0
    theirs: float = 0.0
    difference_db: float = 0.0

    def add(self, ours: Callable[[], Any], theirs: Callable[[], Any]) -> np.ndarray:
        """Run both; gives our results."""
        results = []
        for name, function in (("ours", ours), ("theirs", theirs)):
            start = time.process_time()
            results.append(np.asarray(function()))
            setattr(self, name, getattr(self, name) + time.process_time() - start)
        if not np.array_equal(*map(np.isnan, results)):
            self.difference_db = np.inf
        else:
            apart = np.nanmax(np.abs(results[0] - results[1]))
            self.difference_db = max(self.difference_db, float(apart))
        return results[0]

    def __str__(self) -> str:
        return (
            f"{self.ours:7.2f} against {self.theirs:7.2f} s of CPU: {self.theirs / self.ours:.1f}x "
            f"less; at most {self.difference_db:.1e} dB apart"
        )


def track(index: int, seconds: float) -> tuple[np.ndarray, np.ndarray]:
    """References and estimates, float64 `(stems, channels, samples)`."""
    songs = [
        synthesize_song(duration_s=seconds, sample_rate=SAMPLE_RATE, seed=2 * index + i)
        for i in range(2)
    ]
    stems = np.stack([stem for song in songs for stem in song.values()]).astype(np.float64)
    references = np.round(stems / 2 * 32767) / 32768
    chance = np.random.default_rng(index)
    filtered = scipy.signal.lfilter([0.7, 0.2, 0.1], 1, references, axis=-1)
    leaked = chance.uniform(0.05, 0.3) * references.sum(axis=0)
    return references, filtered + leaked + 1e-3 * chance.standard_normal(references.shape)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tracks", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=30)
    options = parser.parse_args()
    of_bsseval = Seconds()
    of_ratios = {name: Seconds() for name in RATIOS}
    for index in range(options.tracks):
        references, estimates = track(index, options.seconds)
        ratios = of_bsseval.add(
            lambda r=references, e=estimates: bss_eval(
                r, e, window_samples=SAMPLE_RATE, hop_samples=SAMPLE_RATE
            ),
            lambda r=references, e=estimates: museval.evaluate(
                r.transpose(0, 2, 1), e.transpose(0, 2, 1)
            ),
        )
        for name, (ours, theirs) in RATIOS.items():
            tensors = torch.from_numpy(estimates), torch.from_numpy(references)
            of_ratios[name].add(
                lambda r=references, e=estimates, f=ours: list(map(f, e, r)),
                lambda t=tensors, f=theirs: f(*t).mean(dim=-1).numpy(),
            )
        medians = ", ".join(
            f"{name.upper()} {np.nanmedian(each):.1f}"
            for name, each in zip(NAMES, ratios, strict=True)
        )
        print(f"{index + 1:3}: {medians} dB; so far {of_bsseval}", flush=True)
    print(f"BSSEval of {options.tracks} tracks of {options.seconds:g} s: {of_bsseval}")
    for name, seconds in of_ratios.items():
        print(f"{name}, against torchmetrics: {seconds}")


if __name__ == "__main__":
    main()
