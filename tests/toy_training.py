"""Trainings that take a second: tones against noise, and networks of a few weights."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from beamsplitter.models.training.fitting import plan_training, run_training
from beamsplitter.models.training.lightning_runs import Devices
from beamsplitter.models.training.telling import TrainingState

RATE = 8000
TOY_NETWORK: dict[str, Any] = {
    "model_type": "SpectrogramNetSimple",
    "targets": ["vocals"],
    "num_hidden_channels": 1,
    "sample_length": 0.5,
    "sample_rate": RATE,
    "num_fft": 128,
    "window_size": 128,
    "hop_length": 64,
}
# Quick: nothing is shown, and the process that trains reads.
TOY_SETTINGS: dict[str, Any] = {
    "batch_size": 4,
    "max_epochs": 2,
    "lr": 1e-3,
    "num_workers": 0,
    "tensorboard": False,
}


def tone(seconds: float, hertz: float, *, channels: int = 1) -> np.ndarray:
    """float32 `(channels, samples)`: a tone that wavers."""
    time_s = np.arange(round(seconds * RATE)) / RATE
    phase = 2 * np.pi * hertz * time_s + 20 * np.sin(3 * time_s)
    return np.stack([0.3 * np.sin(phase + channel) for channel in range(channels)]).astype("f4")


def noise(seconds: float, seed: int, *, channels: int = 1) -> np.ndarray:
    """float32 `(channels, samples)`."""
    generator = np.random.default_rng(seed)
    return (0.1 * generator.standard_normal((channels, round(seconds * RATE)))).astype("f4")


def write_track(folder: Path, stems: Mapping[str, np.ndarray]) -> None:
    """A track with its stems."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, samples in stems.items():
        soundfile.write(folder / f"{name}.wav", samples.T, RATE, subtype="FLOAT")


def write_dataset(
    folder: Path, *, training: int = 3, validation: int = 1, seconds: float = 3, channels: int = 1
) -> Path:
    """`train` and `val`, each with so many tracks; only `train`'s, beside each other, if none."""
    for split, count in (("train", training), ("val", validation)):
        for index in range(count):
            seed = index + 100 * (split == "val")
            stems = {
                "vocals": tone(seconds, 300 + 70 * seed % 1000, channels=channels),
                "drums": noise(seconds, seed, channels=channels),
            }
            write_track(folder / (split if validation else "") / f"song {index}", stems)
    return folder


def write_network(folder: Path, **changes: Any) -> Path:
    """A folder with a toy network; a change to None takes a setting away."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = {name: each for name, each in (TOY_NETWORK | changes).items() if each is not None}
    (folder / "model.json").write_text(json.dumps(settings))
    return folder


def train(
    folder: Path,
    data: Path,
    *,
    resume: bool = False,
    devices: Devices | None = None,
    tell: Callable[[TrainingState], None] = lambda state: None,
    **changes: Any,
) -> dict[str, Any]:
    """Train, and give the record."""
    values = changes if resume else {**TOY_SETTINGS, **changes}
    plan = plan_training(folder, data, values, resume=resume, devices=devices)
    return run_training(plan, tell)


def losses(record: Mapping[str, Any]) -> list[tuple[float, float]]:
    """Training and validation loss of each epoch."""
    return [(each["training_loss"], each["validation_loss"]) for each in record["epochs"]]
