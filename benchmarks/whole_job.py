"""CPU time of the whole job against plain loops over the same files with the same outputs.

Against librosa's tutorial (mono, 22.05 kHz, its settings), and against the functions that the
steps of the graph call (stereo, 44.1 kHz, the default recipe): what Beam costs. All start-up
(imports, the runner) is part of the figures.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from measuring import AUDIO_DIR, Cost, beamsplitter, cost_of, long_signal, write_files

LOOPS = Path(__file__).with_name("plain_loops.py")


def report(name: str, ours: Cost, theirs: Cost, files: int) -> None:
    print(
        f"{name}: {ours.cpu_s / files:.2f} s of CPU a file against {theirs.cpu_s / files:.2f} s; "
        f"theirs / ours = {theirs.cpu_s / ours.cpu_s:.2f}, ours / theirs = "
        f"{ours.cpu_s / theirs.cpu_s:.3f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--audio-dir", type=Path, default=AUDIO_DIR)
    parser.add_argument("--tutorial-files", type=int, default=6)
    parser.add_argument("--loop-files", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=120)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        count = options.tutorial_files
        if count:
            signal = long_signal(options.audio_dir, 22050, 1)
            write_files(folder / "mono", signal, 22050, [options.seconds] * count)
            theirs = cost_of(sys.executable, LOOPS, "tutorial", folder / "mono", folder / "a")
            ours = cost_of(
                *beamsplitter("separate", folder / "mono", "-o", folder / "b", "--workers", 1),
                "--recipe",
                "librosa",
            )
            report(
                f"librosa's tutorial, {count} files of {options.seconds:g} s", ours, theirs, count
            )
        count = options.loop_files
        if count:
            signal = long_signal(options.audio_dir, 44100, 2)
            write_files(folder / "stereo", signal, 44100, [options.seconds] * count)
            theirs = cost_of(sys.executable, LOOPS, "functions", folder / "stereo", folder / "c")
            ours = cost_of(
                *beamsplitter("separate", folder / "stereo", "-o", folder / "d", "--workers", 1)
            )
            report(
                f"the same functions, {count} files of {options.seconds:g} s", ours, theirs, count
            )


if __name__ == "__main__":
    main()
