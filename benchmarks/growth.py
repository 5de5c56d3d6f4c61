"""How time and memory grow: with the length of a recording, and with the number of files."""

import argparse
import tempfile
from pathlib import Path

from measuring import AUDIO_DIR, Cost, beamsplitter, cost_of, long_signal, write_files


def run(command: str, folder: Path, out: Path) -> Cost:
    return cost_of(*beamsplitter(command, folder, "-o", out, "--workers", 1), sample_memory=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--audio-dir", type=Path, default=AUDIO_DIR)
    parser.add_argument("--minutes", type=int, nargs="*", default=[10, 60])
    parser.add_argument("--files", type=int, nargs="*", default=[10, 20, 40, 80])
    parser.add_argument("--file-seconds", type=float, default=30)
    parser.add_argument("--command", choices=("separate", "spectrograms"), default="separate")
    options = parser.parse_args()
    signal = long_signal(options.audio_dir, 44100, 2)
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        first = None
        for minutes in options.minutes:
            write_files(folder / f"m{minutes}", signal, 44100, [60.0 * minutes])
            cost = run(options.command, folder / f"m{minutes}", folder / f"m{minutes}-out")
            first = first or cost
            print(
                f"{minutes} min: {cost.wall_s:.0f} s ({60 * minutes / cost.wall_s:.1f}x real "
                f"time), peak {cost.peak_mib:.0f} MiB, {cost.peak_mib / first.peak_mib:.2f} "
                "times the first",
                flush=True,
            )
        for count in options.files:
            write_files(folder / f"n{count}", signal, 44100, [options.file_seconds] * count)
            cost = run(options.command, folder / f"n{count}", folder / f"n{count}-out")
            print(
                f"{count} files of {options.file_seconds:g} s: {cost.cpu_s:.1f} s of CPU, "
                f"{cost.cpu_s / count:.2f} a file, peak {cost.peak_mib:.0f} MiB",
                flush=True,
            )


if __name__ == "__main__":
    main()
