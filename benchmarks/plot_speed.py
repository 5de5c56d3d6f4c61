"""CPU time of one spectrogram plot, ours against librosa's ``specshow``, both from the samples.

    python benchmarks/plot_speed.py [RECORDING] [--seconds 120] [--repeats 5]

Both draw a log-frequency dB spectrogram of 1100 × 450 pixels as PNG. The figure is the median
process time; take OPENBLAS_NUM_THREADS=1, so that no other thread adds to it.
"""

import argparse
import io
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import librosa
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from beamsplitter.audio.drawing import draw_spectrogram
from beamsplitter.audio.pooling import plot_grid, pool_power

FISHIN = Path(__file__).resolve().parents[2] / "shared" / "audio" / "fishin.ogg"


def median_seconds(call: Callable[[], Any], repeats: int) -> float:
    call()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return statistics.median(times)


def librosa_plot(samples: np.ndarray, rate: int, title: str) -> bytes:
    magnitude = np.abs(librosa.stft(librosa.to_mono(samples)))
    level_db = librosa.amplitude_to_db(magnitude, ref=np.max)
    figure = Figure(figsize=(11, 4.5), dpi=100)
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    image = librosa.display.specshow(level_db, sr=rate, x_axis="time", y_axis="log", ax=axes)
    figure.colorbar(image, ax=axes, format="%+2.0f dB")
    axes.set_title(title)
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def compare(samples: np.ndarray, rate: int, title: str, repeats: int) -> None:
    grid = plot_grid(samples.shape[1], rate)
    power = pool_power(samples, grid)
    pool = median_seconds(lambda: pool_power(samples, grid), repeats)
    draw = median_seconds(lambda: draw_spectrogram(power, grid, title=title), repeats)
    ours = median_seconds(
        lambda: draw_spectrogram(pool_power(samples, grid), grid, title=title), repeats
    )
    theirs = median_seconds(lambda: librosa_plot(samples, rate, title), repeats)
    channels = {1: "mono", 2: "stereo"}.get(len(samples), f"{len(samples)} channels")
    print(f"{title}, {samples.shape[1] / rate:.0f} s, {channels}, {rate} Hz, CPU seconds:")
    print(
        f"  beamsplitter         {ours:.3f}  (STFT + pooling {pool:.3f}, drawing + PNG {draw:.3f})"
    )
    print(f"  librosa specshow     {theirs:.3f}")
    print(f"  ratio                {theirs / ours:.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("recording", nargs="?", type=Path, default=FISHIN)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    for rate, mono in ((22050, True), (44100, False)):
        samples, _ = librosa.load(options.recording, sr=rate, mono=mono, duration=options.seconds)
        compare(np.atleast_2d(samples), rate, options.recording.name, options.repeats)


if __name__ == "__main__":
    main()
