"""What classifiers are worth on sounds whose labels are known, beside the most frequent label.

    python benchmarks/classifier_demo.py [recorded few sung parts chance] [--seeds 12]
        [--encoder lstm] [--pooling mean]

`recorded`: speech or music; trained on readers and games' music of Debian's packages (those of
`training_demo_packages.txt`), tested on the recordings in ../shared/audio. The seed draws the
music, and who is kept to validate by. `few`: speech, music or animal, of ../shared/audio alone,
where there are three, four and two recordings: each seed takes one of each label to test by, one
more of speech and of music to validate by, and trains on the rest; what is learned of a whale is
tried on a robin, or the other way round.
`sung`: synthesised songs, with a voice or without. `parts`: voice, accompaniment or both, several
labels at once. `chance`: songs with labels that mean nothing, where figures above the baseline
would show a leak. Songs are drawn by the seed, and so are the sides. All excerpts have the same
level, and no recording is on two sides.

Of each seed the figures of the test are printed, all of them; in brackets those of the baseline.
"""

# ruff: noqa: E402
import os

# Libraries read these once, when they are imported.
for _variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_variable] = "1"

import argparse
import csv
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from measuring import AUDIO_DIR
from training_demo_recordings import READERS, pieces, reader, require_recordings, stretch_of
from training_demo_sounds import SAMPLE_RATE

from beamsplitter.audio.features.extraction import features_of
from beamsplitter.audio.features.settings import FeatureSettings, LogMelSettings
from beamsplitter.audio.synthesis import synthesize_song
from beamsplitter.models.classifiers.excerpts import Excerpt
from beamsplitter.models.classifiers.fitting import plan_classifier, run_training
from beamsplitter.models.classifiers.report import Compared

# Below what codecs and low sample rates leave out, by which speech would be known.
FEATURES = LogMelSettings(
    sample_rate=SAMPLE_RATE, n_fft=512, hop_length=256, n_mels=40, fmin_hz=50, fmax_hz=6500
)
EXCERPT_S = 2.0
MOST_EXCERPTS = 20
LEVEL = 0.05  # RMS
REAL = {
    "speech": ("speech_ashiel", "speech_austen", "speech_chivalry"),
    "music": ("brahms", "fishin", "nutcracker", "vibeace"),
    "animal": ("humpback", "robin"),
}
EXCERPTS_OF_READER, PIECES = 60, 20
SONGS, SONG_S = 60, 12.0
Row = tuple[str, ...]


@dataclass
class Sounds:
    """Excerpts of recordings in memory, and the rows of a table of their labels."""

    excerpts: list[Excerpt] = field(default_factory=list)
    arrays: list[np.ndarray] = field(default_factory=list)
    header: Row = ("element", "label")
    rows: list[Row] = field(default_factory=list)
    settings: FeatureSettings = FEATURES
    digest: str = ""
    name: str = "sounds"

    def add(
        self, name: str, samples: np.ndarray, sample_rate: int, count: int = MOST_EXCERPTS
    ) -> None:
        """Cut a recording, float32 `(channels, samples)`, into excerpts from all over it."""
        length = round(EXCERPT_S * sample_rate)
        starts = np.linspace(0, samples.shape[1] - length, count).astype(int)
        for start in starts:
            excerpt = samples[:, start : start + length]
            excerpt = excerpt * (LEVEL / max(float(np.sqrt(np.mean(excerpt**2))), 1e-9))
            (features,) = features_of(excerpt.astype(np.float32), sample_rate, FEATURES)
            self.arrays.append(np.ascontiguousarray(features.T))
            self.excerpts.append(Excerpt(name, name, start / sample_rate, EXCERPT_S))

    def frames(self, index: int) -> np.ndarray:
        """Those of an excerpt."""
        return self.arrays[index]


def read(name: str) -> tuple[np.ndarray, int]:
    """A recording in ../shared/audio: float32 `(channels, samples)`, and its rate in Hz."""
    samples, rate = soundfile.read(AUDIO_DIR / f"{name}.ogg", dtype="float32", always_2d=True)
    return samples.T, rate


def recorded_sounds(seed: int) -> Sounds:
    """Readers and music of Debian's packages to train on, those of ../shared/audio to test by."""
    require_recordings()
    chance = np.random.default_rng(seed)
    made = Sounds(header=("element", "label", "split"))
    people = sorted({folder.name.split("_")[-1] for folder in READERS})
    for folder in READERS:
        person = folder.name.split("_")[-1]
        is_apart = person == people[seed % len(people)]
        made.add(folder.name, reader(folder)[np.newaxis], SAMPLE_RATE, EXCERPTS_OF_READER)
        made.rows.append((folder.name, "speech", "validation" if is_apart else "train"))
    for number, path in enumerate(chance.permutation(pieces())[:PIECES]):
        samples = stretch_of(path, chance, seconds=60)[np.newaxis]
        made.add(str(path), samples, SAMPLE_RATE)
        made.rows.append((str(path), "music", "validation" if number % 4 == 0 else "train"))
    for label in ("speech", "music"):
        for name in REAL[label]:
            made.add(name, *read(name))
            made.rows.append((name, label, "test"))
    return made


def few_sounds(seed: int) -> Sounds:
    """Recordings of speech, music and animals; the seed turns round which ones are tested."""
    made = Sounds(header=("element", "label", "split"))
    for label, names in REAL.items():
        for place, name in enumerate(names):
            made.add(name, *read(name))
            turn = (place - seed) % len(names)
            held = {0: "test", 1: "validation"} if label != "animal" else {0: "test"}
            made.rows.append((name, label, held.get(turn, "train")))
    return made


def stems_of_song(seed: int, number: int) -> dict[str, np.ndarray]:
    """Vocals and accompaniment of a song of its own."""
    return synthesize_song(duration_s=SONG_S, sample_rate=SAMPLE_RATE, seed=SONGS * seed + number)


def sung_songs(seed: int) -> Sounds:
    """Songs with a voice, and without."""
    made = Sounds()
    for number in range(SONGS):
        song = stems_of_song(seed, number)
        is_sung = number % 3 == 0  # so that the baseline is better than a coin
        made.add(f"song-{number}", song["accompaniment"] + is_sung * song["vocals"], SAMPLE_RATE)
        made.rows.append((f"song-{number}", "sung" if is_sung else "instrumental"))
    return made


def parts_of_songs(seed: int) -> Sounds:
    """Songs of which a voice, an accompaniment or both are there."""
    made = Sounds()
    parts = (("vocals",), ("accompaniment",), ("vocals", "accompaniment"))
    for number in range(SONGS):
        song = stems_of_song(seed, number)
        names = parts[number % len(parts)]
        made.add(f"song-{number}", np.sum([song[name] for name in names], axis=0), SAMPLE_RATE)
        made.rows += [(f"song-{number}", name) for name in names]
    return made


def songs_by_chance(seed: int) -> Sounds:
    """Songs with labels that mean nothing."""
    chance = np.random.default_rng(seed)
    made = Sounds()
    for number in range(SONGS):
        song = stems_of_song(seed, number)
        made.add(f"song-{number}", song["accompaniment"] + song["vocals"], SAMPLE_RATE)
        made.rows.append((f"song-{number}", "heads" if chance.random() < 0.5 else "tails"))
    return made


TASKS: dict[str, Callable[[int], Sounds]] = {
    "recorded": recorded_sounds,
    "few": few_sounds,
    "sung": sung_songs,
    "parts": parts_of_songs,
    "chance": songs_by_chance,
}


def figures(sounds: Sounds, seed: int, values: dict[str, Any]) -> dict[str, Compared]:
    """Those of the test, of excerpts and of recordings."""
    with tempfile.TemporaryDirectory() as scratch:
        labels = Path(scratch) / "labels.csv"
        with labels.open("w", newline="") as file:
            csv.writer(file).writerows([sounds.header, *sounds.rows])
        given = {"seed": seed, "tensorboard": False, "max_epochs": 30, "patience": 5, **values}
        plan = plan_classifier(Path(scratch) / "net", sounds, labels, given, accelerator="cpu")
        _, report = run_training(plan, lambda state: None)
    return report.sides["test"]


def shown(compared: Compared) -> str:
    ours, base = compared.classifier, compared.baseline
    return (
        f"{ours.count:4} {ours.balanced_accuracy:.3f} ({base.balanced_accuracy:.3f}) "
        f"{ours.auroc or 0:.3f} ({base.auroc or 0:.3f})"
    )


def print_task(name: str, seeds: Sequence[int], values: dict[str, Any]) -> None:
    """A line a seed, and the means."""
    print(f"\n{name}: count, balanced accuracy (baseline), AUROC (baseline)")
    print(f"{'seed':>4}  {'excerpts':32}  recordings")
    found = []
    for seed in seeds:
        began_s = time.monotonic()
        sides = figures(TASKS[name](seed), seed, values)
        found.append(sides)
        taken_s = time.monotonic() - began_s
        print(
            f"{seed:4}  {shown(sides['excerpts'])}  {shown(sides['recordings'])}  {taken_s:.0f} s",
            flush=True,
        )
    for unit in ("excerpts", "recordings"):
        for figure in ("balanced_accuracy", "auroc"):
            ours = [getattr(each[unit].classifier, figure) for each in found]
            base = [getattr(each[unit].baseline, figure) for each in found]
            print(
                f"mean over seeds, {unit}, {figure}: {np.mean(ours):.3f} "
                f"(from {np.min(ours):.3f} to {np.max(ours):.3f}), baseline {np.mean(base):.3f}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tasks", nargs="*", choices=[*TASKS, []], default=[])
    parser.add_argument("--seeds", type=int, default=12)
    parser.add_argument("--encoder", default="lstm")
    parser.add_argument("--pooling", default="mean")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    values = {"encoder": arguments.encoder, "pooling": arguments.pooling}
    for name in arguments.tasks or TASKS:
        print_task(name, range(arguments.seeds), values)


if __name__ == "__main__":
    main()
