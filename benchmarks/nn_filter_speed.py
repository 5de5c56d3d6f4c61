"""How much faster than librosa is our nearest-neighbour filter? CPU seconds on one thread.

    python benchmarks/nn_filter_speed.py [--audio-dir DIR] [--seconds 30 120 240]

Both filter the same magnitudes (mono, 22050 Hz, n_fft 2048, hop 512, width 86) in this process, and
their results are compared bit for bit. Trust the ratios, not the seconds.
"""

# ruff: noqa: E402
import os

# Libraries read these once, when they are imported.
for _variable in (
    "OPENBLAS_NUM_THREADS",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
):
    os.environ[_variable] = "1"

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import librosa
import numba
import numpy as np
from numpy.typing import NDArray

from beamsplitter.audio import nn_filter as module
from beamsplitter.audio.compiling import compiled
from beamsplitter.audio.nn_filter import nn_filter

AUDIO = Path(__file__).parents[1].parent / "shared" / "audio"
SAMPLE_RATE = 22050
WIDTH = 86
PHASES = {
    "_unit_frames": "unit frames",
    "_select_like_librosa": "select",
    "_select_nearest": "select",
    "_neighbors_like_sklearn": "break ties",
    "_rank": "rank",
    "_search_medians_16": "medians",
}


def magnitudes(audio_dir: Path, seconds: int) -> NDArray[np.float32]:
    songs = [
        librosa.load(audio_dir / f, sr=SAMPLE_RATE)[0] for f in ("fishin.ogg", "nutcracker.ogg")
    ]
    samples = np.resize(np.concatenate(songs), seconds * SAMPLE_RATE)
    return np.abs(librosa.stft(samples))


def cpu_seconds(function: Callable[[], Any]) -> tuple[float, Any]:
    start = time.process_time()
    result = function()
    return time.process_time() - start, result


def best_cpu_seconds(function: Callable[[], Any], runs: int = 3) -> float:
    return min(cpu_seconds(function)[0] for _ in range(runs))


class Stopwatch:
    """Adds up the CPU seconds that the filter's phases take, while entered."""

    def __enter__(self) -> dict[str, float]:
        self.functions = {name: getattr(module, name) for name in PHASES}
        seconds: dict[str, float] = dict.fromkeys(PHASES.values(), 0.0)
        for name, function in self.functions.items():
            setattr(module, name, self._timed(function, PHASES[name], seconds))
        return seconds

    @staticmethod
    def _timed(
        function: Callable[..., Any], phase: str, seconds: dict[str, float]
    ) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            spent, result = cpu_seconds(lambda: function(*args, **kwargs))
            seconds[phase] += spent
            return result

        return timed

    def __exit__(self, *_: object) -> None:
        for name, function in self.functions.items():
            setattr(module, name, function)


def multiply_rate() -> float:
    """Measure float32 operations a second in a matrix product."""
    a = np.ones((512, 1024), np.float32)
    b = np.ones((1024, 4096), np.float32)
    return 2 * 512 * 1024 * 4096 / best_cpu_seconds(lambda: a @ b)


def vector_rate() -> float:
    """Measure 16-bit comparisons a second that are counted in cache: medians consist of them."""
    ranks = np.arange(144 * module._BINS, dtype=np.uint16).reshape(144, -1)
    repeats = 2000
    return repeats * ranks.size / best_cpu_seconds(lambda: _count_below(ranks, repeats))


@compiled(numba.njit, nogil=True)
def _count_below(ranks: NDArray[np.uint16], repeats: int) -> int:
    total = 0
    below = np.zeros(ranks.size, np.uint16)
    flat = ranks.reshape(-1)
    for r in range(repeats):
        limit = np.uint16(r)
        for i in range(len(flat)):
            below[i] = np.uint16(below[i] + np.uint16(flat[i] < limit))
        total += below[r % len(below)]
    return total


def floor(
    shape: tuple[int, ...], multiplications: float, comparisons: float
) -> tuple[float, float]:
    """Return the least CPU seconds of the matrix product and of the medians' comparisons."""
    bins, frames = shape
    k = module.default_k(frames, WIDTH)
    product = frames**2 * bins / multiplications  # it is symmetric: half is enough
    return product, (frames - 1).bit_length() * k * bins * frames / comparisons


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--audio-dir", type=Path, default=AUDIO)
    parser.add_argument("--seconds", type=int, nargs="+", default=[30, 120, 240])
    options = parser.parse_args()

    warm_up = magnitudes(options.audio_dir, 10)
    for neighbors in ("librosa", "nearest"):
        nn_filter(warm_up, width=WIDTH, neighbors=neighbors)
    rates = multiply_rate(), vector_rate()
    print(f"one thread: {rates[0] / 1e9:.0f} GFLOP/s, {rates[1] / 1e9:.0f} G comparisons/s")
    print("seconds  frames  librosa    ours  ratio  same bits  nearest  ratio   [CPU seconds]")
    details = []
    for seconds in options.seconds:
        S = magnitudes(options.audio_dir, seconds)
        theirs, expected = cpu_seconds(
            lambda S=S: librosa.decompose.nn_filter(
                S, aggregate=np.median, metric="cosine", width=WIDTH
            )
        )
        ours, result = cpu_seconds(lambda S=S: nn_filter(S, width=WIDTH))
        nearest, _ = cpu_seconds(lambda S=S: nn_filter(S, width=WIDTH, neighbors="nearest"))
        same = "yes" if np.array_equal(result, expected) else "NO"
        print(
            f"{seconds:7} {S.shape[1]:7} {theirs:8.2f} {ours:7.2f} {theirs / ours:6.1f} {same:>10} "
            f"{nearest:8.2f} {theirs / nearest:6.1f}",
            flush=True,
        )
        details.append((seconds, S, expected))
    for seconds, S, _ in details:
        for neighbors in ("librosa", "nearest"):
            with Stopwatch() as phases:
                total, _ = cpu_seconds(
                    lambda S=S, n=neighbors: nn_filter(S, width=WIDTH, neighbors=n)
                )
            phases["product, rest"] = total - sum(phases.values())
            product, comparisons = floor(S.shape, *rates)
            print(
                f"{seconds} s, {neighbors}: " + ", ".join(f"{p} {s:.3f}" for p, s in phases.items())
            )
        print(f"{seconds} s, floor: product {product:.3f}, medians {comparisons:.3f}")


if __name__ == "__main__":
    main()
