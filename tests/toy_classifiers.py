"""Trainings of classifiers that take a second: frames of which some bins are higher than others."""

import csv
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from beamsplitter.audio.features.extraction import features_of
from beamsplitter.audio.features.settings import FeatureSettings, LogMelSettings
from beamsplitter.models.classifiers.excerpts import Excerpt
from beamsplitter.models.classifiers.fitting import (
    ClassifierPlan,
    plan_classifier,
    run_training,
)
from beamsplitter.models.classifiers.keeping import Tell
from beamsplitter.models.classifiers.report import Report
from beamsplitter.models.feature_sets.arrays import ShardFormat
from beamsplitter.models.feature_sets.index import (
    INDEX,
    FeatureSetIndex,
    ShardFile,
    index_lines,
    shard_index_name,
    shard_name,
)
from beamsplitter.models.feature_sets.samples import Sample
from beamsplitter.models.feature_sets.shard_writing import write_shard

RATE = 8000
SOUND_FEATURES = LogMelSettings(sample_rate=RATE, n_fft=256, hop_length=128, n_mels=12)
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


def made_sound(label: str, seed: int, seconds: float) -> np.ndarray:
    """A tone, or else a noise: float32 `(1, samples)`."""
    chance = np.random.default_rng(seed)
    time_s = np.arange(round(seconds * RATE)) / RATE
    made = 0.1 * chance.standard_normal((1, len(time_s)))
    if label in ("tone", "bird"):
        made = 0.01 * made + 0.3 * np.sin(2 * np.pi * chance.uniform(300, 900) * time_s)
    return made.astype(np.float32)


def sounding_source(counts: dict[str, int], excerpts: int = 3) -> ToySource:
    """Features of sounds, excerpts of 1 s."""
    facts, arrays = [], []
    for label, count in counts.items():
        for number in range(count):
            samples = made_sound(label, 100 * len(label) + number, excerpts)
            for index in range(excerpts):
                excerpt = samples[:, index * RATE : (index + 1) * RATE]
                name = f"{label}/{number}"
                facts.append(Excerpt(name, f"/sounds/{name}.wav", float(index), 1.0))
                arrays.append(features_of(excerpt, RATE, SOUND_FEATURES)[0].T)
    return ToySource(facts, arrays, SOUND_FEATURES)


def toy_labels(folder: Path, source: ToySource) -> Path:
    """A table with the label that the folder of each recording tells."""
    folders = dict.fromkeys(each.recording for each in source.excerpts)
    return write_labels(folder / "labels.csv", [(each, each.split("/")[0]) for each in folders])


def write_feature_set(
    folder: Path,
    source: ToySource,
    *,
    format: ShardFormat = "webdataset",
    sets: Sequence[str] = ("log_mel",),
    signals: Sequence[str] = ("mixture",),
) -> Path:
    """A source as a feature set of two shards; all sets and signals have the same arrays."""
    folder.mkdir(parents=True, exist_ok=True)
    samples = [
        Sample(
            f"{excerpt.recording}/{number:05d}",
            {
                "element": excerpt.element,
                "folder": excerpt.recording,
                "index": number,
                "start_s": excerpt.start_s,
                "duration_s": excerpt.duration_s,
            },
            {f"{name}/{signal}": array for name in sets for signal in signals},
        )
        for number, (excerpt, array) in enumerate(zip(source.excerpts, source.arrays, strict=True))
    ]
    half = len(samples) // 2
    shards = []
    for number, of_shard in enumerate((samples[:half], samples[half:])):
        path = folder / shard_name(number, 2, format)
        with path.open("wb") as file:
            lines = index_lines(write_shard(of_shard, file, format))
        (folder / shard_index_name(number, 2)).write_bytes(lines)
        content = path.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        shards.append(ShardFile(path.name, len(of_shard), len(content), digest))
    settings = source.settings.model_dump(mode="json")
    index = FeatureSetIndex(
        format, dict.fromkeys(sets, settings), tuple(signals), {"seconds": 2.0}, tuple(shards)
    )
    (folder / INDEX).write_bytes(index.to_json())
    return folder


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
