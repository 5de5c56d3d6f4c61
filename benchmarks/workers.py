"""Throughput of two workers against one, on files of unequal length."""

import argparse
import itertools
import tempfile
from pathlib import Path

import numpy as np
from measuring import AUDIO_DIR, beamsplitter, cost_of, long_signal, write_files


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--audio-dir", type=Path, default=AUDIO_DIR)
    parser.add_argument("--files", type=int, default=24)
    parser.add_argument("--runs", type=int, default=2, help="of each, in turn; the best counts")
    options = parser.parse_args()
    durations_s = np.random.default_rng(0).uniform(20, 240, options.files).round().tolist()
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        write_files(folder / "in", long_signal(options.audio_dir, 44100, 2), 44100, durations_s)
        wall_s = {1: float("inf"), 2: float("inf")}
        for run, workers in itertools.product(range(options.runs), wall_s):
            out = folder / f"out-{run}-{workers}"
            command = beamsplitter("separate", folder / "in", "-o", out, "--workers", workers)
            wall_s[workers] = min(wall_s[workers], cost_of(*command).wall_s)
    audio_s = sum(durations_s)
    print(
        f"{options.files} files, {audio_s:.0f} s of audio: {wall_s[1]:.1f} s with 1 worker "
        f"({audio_s / wall_s[1]:.1f}x real time), {wall_s[2]:.1f} s with 2 "
        f"({audio_s / wall_s[2]:.1f}x); ratio {wall_s[1] / wall_s[2]:.2f}"
    )


if __name__ == "__main__":
    main()
