"""CPU time of log-mel sets, ours against a loop of librosa and one of torch, on arrays.

    python benchmarks/feature_speed.py [--files 200] [--seconds 30] [--rounds 3]

No decoding, one thread, mono at 22050 Hz: each file is another stretch of real music. Of each round
the process times and their ratios are printed, and how far the levels are apart at most. Two sets
of parameters: librosa's defaults, and those of the mel spectrograms of torchaudio's users.
"""

# ruff: noqa: E402
import os

# Libraries read these once, when they are imported.
for _variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_variable] = "1"

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import librosa
import numpy as np
import torch
from measuring import AUDIO_DIR, long_signal

from beamsplitter.audio.features.extraction import features_of
from beamsplitter.audio.features.settings import LogMelSettings

SAMPLE_RATE = 22050
SETS = {
    "n_fft 2048, hop 512, 128 mels": LogMelSettings(),
    "n_fft 400, hop 200, 64 mels": LogMelSettings(
        n_fft=400, hop_length=200, pad_mode="reflect", n_mels=64, htk=True, mel_norm=None
    ),
}
Levels = Callable[[np.ndarray], np.ndarray]


def by_librosa(settings: LogMelSettings) -> Levels:
    def levels(samples: np.ndarray) -> np.ndarray:
        mel = librosa.feature.melspectrogram(
            y=samples,
            sr=SAMPLE_RATE,
            n_fft=settings.n_fft,
            hop_length=settings.hop_length,
            pad_mode=settings.pad_mode,
            n_mels=settings.n_mels,
            htk=settings.htk,
            norm=settings.mel_norm,
        )
        return librosa.power_to_db(mel)

    return levels


def by_torch(settings: LogMelSettings) -> Levels:
    window = torch.hann_window(settings.n_fft)
    bank = torch.from_numpy(
        librosa.filters.mel(
            sr=SAMPLE_RATE,
            n_fft=settings.n_fft,
            n_mels=settings.n_mels,
            htk=settings.htk,
            norm=settings.mel_norm,
        )
    )

    def levels(samples: np.ndarray) -> np.ndarray:
        spectrum = torch.stft(
            torch.from_numpy(samples),
            settings.n_fft,
            settings.hop_length,
            window=window,
            pad_mode=settings.pad_mode,
            return_complex=True,
        )
        mel = bank @ spectrum.abs().pow(2)
        decibels = 10 * torch.log10(mel.clamp(min=1e-10))
        return torch.maximum(decibels, decibels.max() - 80).numpy()

    return levels


def cpu_seconds(levels: Levels, files: list[np.ndarray]) -> float:
    start = time.process_time()
    for samples in files:
        levels(samples)
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--audio-dir", type=Path, default=AUDIO_DIR)
    parser.add_argument("--files", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    signal = long_signal(options.audio_dir, SAMPLE_RATE, 1)
    length = round(options.seconds * SAMPLE_RATE)
    files = [
        np.take(signal, np.arange(start, start + length), axis=1, mode="wrap")
        for start in range(0, 7 * SAMPLE_RATE * options.files, 7 * SAMPLE_RATE)
    ]
    for name, settings in SETS.items():
        loops: dict[str, Levels] = {
            "beamsplitter": lambda samples, settings=settings: features_of(
                samples, SAMPLE_RATE, settings
            ),
            "librosa": by_librosa(settings),
            "torch": by_torch(settings),
        }
        made = {loop: levels(files[0]) for loop, levels in loops.items()}
        print(f"{name}; {options.files} files of {options.seconds:g} s, CPU seconds of each round:")
        for _ in range(options.rounds):
            taken = {loop: cpu_seconds(levels, files) for loop, levels in loops.items()}
            ours = taken.pop("beamsplitter")
            others = ", ".join(
                f"{loop} {spent:.2f} ({spent / ours:.2f}x)" for loop, spent in taken.items()
            )
            print(f"  beamsplitter {ours:.2f}, {others}", flush=True)
        for loop in ("librosa", "torch"):
            apart = np.abs(made["beamsplitter"] - made[loop])
            print(
                f"  from {loop}: {apart.max():.2g} dB apart at most, {apart.mean():.2g} on average"
            )


if __name__ == "__main__":
    main()
