"""Trainings of classifiers that take a second: frames of which some bins are higher than others."""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from beamsplitter.audio.features.settings import FeatureSettings, LogMelSettings
from beamsplitter.models.classifiers.excerpts import Excerpt
from beamsplitter.models.classifiers.fitting import (
    ClassifierPlan,
    Tell,
    plan_classifier,
    run_training,
)
from beamsplitter.models.classifiers.report import Report

RATE = 8000
TOY_FEATURES = LogMelSettings(sample_rate=RATE, n_fft=128, hop_length=64, n_mels=6)
# Quick: nothing is shown.
TOY_SETTINGS: dict[str, Any] = {
    "hidden_size": 8,
    "max_epochs": 6,
    "lr": 0.02,
    "batch_size": 8,
    "tensorboard": False,
}


@dataclass
class ToySource:
    """Excerpts in memory."""

    excerpts: Sequence[Excerpt]
    arrays: Sequence[np.ndarray]
    settings: FeatureSettings = TOY_FEATURES
    digest: str = "0" * 64
    name: str = "toy-set"
    read: list[int] = field(default_factory=list)

    def frames(self, index: int) -> np.ndarray:
        """Those of an excerpt."""
        self.read.append(index)
        return self.arrays[index]


def toy_source(
    counts: dict[str, int], *, excerpts: int = 4, difference_db: float = 12.0, seed: int = 0
) -> ToySource:
    """Recordings of labels, so many of each: `label/number`.

    Those of label n are louder in bin n by a difference; each recording has a colour of its own,
    by which it could be told from the others.
    """
    chance = np.random.default_rng(seed)
    facts, arrays = [], []
    for place, (label, count) in enumerate(counts.items()):
        for number in range(count):
            colour = 4 * chance.standard_normal(6)
            colour[place] += difference_db
            for index in range(excerpts):
                frames = -50 + colour + 6 * chance.standard_normal((chance.integers(5, 20), 6))
                facts.append(
                    Excerpt(f"{label}/{number}", f"/music/{label}/{number}.wav", 2.0 * index, 2.0)
                )
                arrays.append(frames.astype(np.float32))
    return ToySource(facts, arrays)


def write_labels(path: Path, rows: Iterable[Sequence[object]], *more: str) -> Path:
    """A table of labels."""
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("element", "label", *more), *rows])
    return path


def toy_labels(folder: Path, source: ToySource) -> Path:
    """A table with the label that the folder of each recording tells."""
    folders = dict.fromkeys(each.recording for each in source.excerpts)
    return write_labels(folder / "labels.csv", [(each, each.split("/")[0]) for each in folders])


def plan(folder: Path, source: ToySource, labels: Path, **values: Any) -> ClassifierPlan:
    """Of toy settings; `resume` and the like as `plan_classifier` has them."""
    own = {name: values.pop(name) for name in ("resume", "allow_missing") if name in values}
    given = values if own.get("resume") else {**TOY_SETTINGS, **values}
    return plan_classifier(folder, source, labels, given, accelerator="cpu", **own)


def train(
    folder: Path, source: ToySource, labels: Path, tell: Tell = lambda state: None, **values: Any
) -> tuple[dict[str, Any], Report]:
    """Train, and give record and report."""
    return run_training(plan(folder, source, labels, **values), tell)
