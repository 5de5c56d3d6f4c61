"""What the benchmarks share: made files, and the cost of a command."""

import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import soundfile

AUDIO_DIR = Path(__file__).parents[2] / "shared" / "audio"
ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS", "MKL_NUM_THREADS"), "1"
)


@dataclass(frozen=True)
class Cost:
    """What a command took: seconds, and the largest memory of one of its processes in MiB."""

    wall_s: float
    cpu_s: float
    peak_mib: float


def cost_of(*command: object, sample_memory: bool = False) -> Cost:
    """Run a command to its end, one thread a process; raises if it fails.

    CPU seconds are those of the command and of the descendants that it waited for. Memory is the
    unique set size, so that pages that processes share count for none of them; to sample it takes
    the processors from what is measured.
    """
    started = time.monotonic()
    process = subprocess.Popen(
        [str(part) for part in command],
        env={**os.environ, **ONE_THREAD},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    peak = PeakMemory(process.pid)
    if sample_memory:
        peak.start()
    _, status, usage = os.wait4(process.pid, 0)
    wall_s = time.monotonic() - started
    peak.ended.set()
    if sample_memory:
        peak.join()
    if os.waitstatus_to_exitcode(status):
        raise RuntimeError(f"failed: {' '.join(map(str, command))}")
    return Cost(wall_s, usage.ru_utime + usage.ru_stime, peak.mib)


def beamsplitter(*arguments: object) -> list[object]:
    """The command line of `beamsplitter`."""
    return [sys.executable, "-m", "beamsplitter.pipelines.command_line", *arguments]


def long_signal(audio_dir: Path, sample_rate: int, channels: int) -> np.ndarray:
    """float32 `(channels, samples)`: three recordings one after the other, 5 minutes."""
    import librosa

    pieces = [
        librosa.load(audio_dir / name, sr=sample_rate, mono=channels == 1)[0]
        for name in ("fishin.ogg", "nutcracker.ogg", "vibeace.ogg")
    ]
    return np.concatenate([np.atleast_2d(piece) for piece in pieces], axis=1)


def write_files(
    folder: Path, signal: np.ndarray, sample_rate: int, durations_s: list[float]
) -> None:
    """Write FLAC files of these durations, each another stretch of the signal, repeated."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, duration_s in enumerate(durations_s):
        start = index * 7 * sample_rate
        wanted = np.arange(start, start + round(duration_s * sample_rate)) % signal.shape[1]
        path = folder / f"{index:03d}.flac"
        soundfile.write(path, signal[:, wanted].T, sample_rate, subtype="PCM_16")


class PeakMemory(threading.Thread):
    """Samples the memory of a process and its descendants: the most of one, and of all together.

    Memory is the unique set size, in MiB.
    """

    def __init__(self, process_id: int, *, every_s: float = 0.05) -> None:
        super().__init__(daemon=True)
        self.process_id = process_id
        self.every_s = every_s
        self.ended = threading.Event()
        self.mib = 0.0
        self.total_mib = 0.0

    def run(self) -> None:
        while not self.ended.wait(self.every_s):
            used = [_unique_mib(process) for process in self._processes()]
            self.mib = max(self.mib, *used, 0.0)
            self.total_mib = max(self.total_mib, sum(used))

    def _processes(self) -> list[psutil.Process]:
        try:
            process = psutil.Process(self.process_id)
            return [process, *process.children(recursive=True)]
        except psutil.Error:
            return []


def _unique_mib(process: psutil.Process) -> float:
    try:
        return float(process.memory_full_info().uss) / 2**20
    except psutil.Error:
        return 0.0
