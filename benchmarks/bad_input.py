"""A job over thousands of damaged files: none is lost, none takes a worker down, memory is bounded.

Files of every container are damaged by a seed (bits flipped, cut, spliced, sizes and counts of
their headers changed), and split by one run of the command. Prints how they ended, the memory of
all processes together, and each fault; exits with 1 if there is any.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measuring import ONE_THREAD, PeakMemory, beamsplitter

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from bad_files import damaged_files, faults_of_run


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--most-mib", type=int, default=600, help="memory of one process")
    parser.add_argument("--keep", type=Path, help="a folder for the files and results")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        base = options.keep or Path(temporary)
        folder, out = base / "in", base / "out"
        folder.mkdir(parents=True)
        names = []
        for name, data in damaged_files(options.files, options.seed):
            (folder / name).write_bytes(data)
            names.append(name)
        started = time.monotonic()
        command = beamsplitter(
            *("separate", folder, "-o", out, "--workers", options.workers),
            *("--no-plots", "--log-format", "json"),
        )
        log = base / "log"
        with log.open("w") as file:
            process = subprocess.Popen(
                [str(part) for part in command],
                env={**os.environ, **ONE_THREAD},
                stdout=file,
                stderr=subprocess.STDOUT,
            )
            memory = PeakMemory(process.pid, every_s=0.25)
            memory.start()
            process.wait()
            memory.ended.set()
            memory.join()
        seconds = time.monotonic() - started
        faults, ends = faults_of_run(names, out, log.read_text())
    if memory.mib > options.most_mib:
        faults.append(f"a process took {memory.mib:.0f} MiB")
    print(f"{len(names)} files of seed {options.seed}: {seconds:.0f} s, exit {process.returncode}")
    print(f"peak memory of all processes {memory.total_mib:.0f}, of one {memory.mib:.0f} MiB")
    for end, count in ends.most_common():
        print(f"{count:6d} {end}")
    for fault in faults:
        print(f"fault: {fault}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
