"""Data for training a separator of speech and music, and its scores on real recordings.

    python benchmarks/training_demo.py data --audio ../shared/audio --to FOLDER
    python benchmarks/training_demo.py scores --data FOLDER [--separator DIR …] [--json FILE]

Training hears recordings of Debian's packages, varied, and made sounds: voices of espeak-ng and
music of `training_demo_sounds.py`. One other reader and other pieces choose the best epoch. Tests
are of recordings only, of two more readers and two more pieces, so that nothing of a test mixture
is heard before: no reader, no piece.
"""

# ruff: noqa: E402
import os

# Libraries read these once, when they are imported.
for _variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

import argparse
import functools
import itertools
import json
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import librosa
import numpy as np
import soundfile
import soxr
from measuring import AUDIO_DIR
from training_demo_recordings import READERS, pieces, reader, require_recordings, stretch_of
from training_demo_sounds import (
    SAMPLE_RATE,
    played,
    played_anew,
    require_espeak,
    rms,
    spoken,
    spoken_anew,
)

import beamsplitter
from beamsplitter.errors import BeamsplitterError
from beamsplitter.models.datasets.stem_folders import find_tracks
from beamsplitter.models.evaluation.distortion import si_sdr

TRACK_S = 30.0
PAUSE_S = 1.5
LEVELS_DB = (-6, 0, 6)
PEAK = 0.9
# Of the ideal ratio mask, as of BandNet.
NUM_FFT, HOP_LENGTH = 2048, 512


@dataclass(frozen=True)
class Recorded:
    """A stretch of recorded music under a reader, who begins again after a pause."""

    reader: str
    music: str
    start_s: float
    stop_s: float


# Pieces of Debian's packages that choose, and are not heard in training.
VALIDATION_PIECES = ("elvish-theme", "northerners", "love_theme", "Coherence", "hr3-desert")
VALIDATION = tuple(
    Recorded("ashiel", music, start_s, start_s + TRACK_S)
    for music, start_s in (
        *(("nutcracker", 0), ("nutcracker", 60)),
        *((piece, 20) for piece in VALIDATION_PIECES),
    )
)
TEST = tuple(
    Recorded(reader, music, start_s, stop_s)
    for reader in ("austen", "chivalry")
    for music, start_s, stop_s in (
        ("vibeace", 0, 30),
        ("vibeace", 31, 61),
        ("brahms", 0, 22.5),
        ("brahms", 23, 45.5),
    )
)


def make_data(
    audio: Path, folder: Path, *, minutes: float, recorded: float, seed: int, workers: int
) -> None:
    """Write `train`, `val` and `test`: stems `speech.wav` and `music.wav` of each track.

    Training tracks pair any voice with any music; training may mix stems of different tracks. Those
    of `val` and `test` have their `mixture.wav`, too. The same seed writes the same samples.

    Parameters
    ----------
    audio
        folder of the recordings to validate and to test by
    folder
        a new one
    minutes
        of training
    recorded
        share of voices and of music that are recordings of Debian's packages, in [0, 1]. Of 0: none
        of them is needed, and validation is by one piece of music
    seed
        of all that is drawn
    workers
        processes

    Raises
    ------
    BeamsplitterError
        a recording, a package or espeak-ng is missing, or the folder holds something already
    """
    if folder.exists() and any(folder.iterdir()):
        raise BeamsplitterError(f"{folder} is not empty: name a new folder, or remove this one")
    require_espeak()
    if recorded:
        require_recordings()
    validation = [
        source for source in VALIDATION if recorded or source.music not in VALIDATION_PIECES
    ]
    for split, sources in (("val", validation), ("test", TEST)):
        for source, level_db in itertools.product(sources, LEVELS_DB):
            speech, music = recorded_stems(audio, source, level_db)
            name = f"{source.reader}-{source.music}-{source.start_s:g}s{level_db:+d}dB"
            stems = {"speech": speech, "music": music, "mixture": speech + music}
            write_track(folder / split / name, stems)
    tracks = range(max(round(60 * minutes / TRACK_S), 1))
    make = functools.partial(make_track, folder / "train", recorded, seed)
    if workers == 1:
        list(map(make, tracks))
        return
    with ProcessPoolExecutor(workers) as pool:
        list(pool.map(make, tracks))


def make_track(folder: Path, recorded: float, seed: int, index: int) -> None:
    """A voice and music, as loud as each other: made, or recorded ones made into others."""
    chance = np.random.default_rng([seed, index])
    is_recorded = chance.random(2) < recorded
    if is_recorded[0]:
        said = reader(READERS[chance.integers(len(READERS))])
        speech = spoken_anew(said, chance, TRACK_S)
    else:
        speech = spoken(chance, TRACK_S)
    if is_recorded[1]:
        heard = [piece for piece in pieces() if piece.stem not in VALIDATION_PIECES]
        stretch = stretch_of(heard[chance.integers(len(heard))], chance, 2 * TRACK_S)
        music = played_anew(stretch, chance, TRACK_S)
    else:
        music = played(chance, TRACK_S)
    write_track(folder / f"{index:03d}", {"speech": speech, "music": music})


def write_track(folder: Path, stems: dict[str, np.ndarray]) -> None:
    folder.mkdir(parents=True)
    for stem, samples in stems.items():
        soundfile.write(folder / f"{stem}.wav", samples, SAMPLE_RATE, subtype="PCM_16")


def recorded_stems(audio: Path, source: Recorded, level_db: float) -> tuple[np.ndarray, np.ndarray]:
    """Speech and music, the RMS of the speech `level_db` above that of the music."""
    speech = recording(audio / f"speech_{source.reader}.ogg")
    packaged = (
        {piece.stem: piece for piece in pieces()} if source.music in VALIDATION_PIECES else {}
    )
    music = recording(packaged.get(source.music, audio / f"{source.music}.ogg"))
    music = music[round(source.start_s * SAMPLE_RATE) : round(source.stop_s * SAMPLE_RATE)]
    speech = np.append(speech, np.zeros(round(PAUSE_S * SAMPLE_RATE), np.float32))
    speech = np.resize(speech, music.size)
    speech = speech * (10 ** (level_db / 20) * rms(music) / rms(speech))
    gain = PEAK / np.abs(np.stack([speech, music, speech + music])).max()
    return (gain * speech).astype(np.float32), (gain * music).astype(np.float32)


@functools.cache
def recording(path: Path) -> np.ndarray:
    """Of one channel, at the rate of the demonstration."""
    if not path.is_file():
        raise BeamsplitterError(f"{path} is missing: name the folder of the recordings by --audio")
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return np.asarray(soxr.resample(samples.mean(axis=1), rate, SAMPLE_RATE))


# Scores.


def score_all(folder: Path, separators: Sequence[str]) -> dict[str, dict[str, float]]:
    """SI-SDR in dB of the speech of each track, by the name of what estimates it.

    Raises
    ------
    BeamsplitterError
        the folder has none, or a separator can't be had or gives no `speech`
    """
    scores = {}
    for track in find_tracks(folder):
        if track.mixture is None or set(track.stems) != {"speech", "music"}:
            raise BeamsplitterError(f"{track.name} is no track of `training_demo.py data`")
        speech, music = (samples_of(track.stems[stem].path) for stem in ("speech", "music"))
        mixture = samples_of(track.mixture.path)
        estimates = {
            "mixture": mixture,
            "nn-filter": estimate_of(mixture, "nn-filter", "foreground"),
            **{name: estimate_of(mixture, name, "speech") for name in separators},
            "ideal ratio mask": by_ideal_mask(speech, music),
        }
        scores[track.name] = {
            name: si_sdr(estimate[None], speech[None]) for name, estimate in estimates.items()
        }
    return scores


def estimate_of(mixture: np.ndarray, separator: str, stem: str) -> np.ndarray:
    stems = beamsplitter.separate(mixture, sample_rate=SAMPLE_RATE, separator=separator)
    if stem not in stems:
        raise BeamsplitterError(f"{separator} gives no {stem}: it gives {', '.join(stems)}")
    return stems[stem]


def samples_of(path: str) -> np.ndarray:
    samples, _ = soundfile.read(path, dtype="float32")
    return np.asarray(samples)


def by_ideal_mask(speech: np.ndarray, music: np.ndarray) -> np.ndarray:
    """What no mask of magnitudes that sum to 1 can be expected to exceed: it knows the stems."""
    spectra = [librosa.stft(stem, n_fft=NUM_FFT, hop_length=HOP_LENGTH) for stem in (speech, music)]
    magnitudes = np.abs(spectra)
    mask = magnitudes[0] / (magnitudes.sum(axis=0) + 1e-9)
    estimate = mask * (spectra[0] + spectra[1])
    return librosa.istft(estimate, n_fft=NUM_FFT, hop_length=HOP_LENGTH, length=speech.size)


def mean_scores(scores: dict[str, dict[str, float]]) -> dict[str, float]:
    names = next(iter(scores.values()))
    return {name: float(np.mean([row[name] for row in scores.values()])) for name in names}


def print_scores(scores: dict[str, dict[str, float]]) -> None:
    means = mean_scores(scores)
    print(f"| SI-SDR of the speech, dB | {' | '.join(means)} |")
    print("|---|" + "---|" * len(means))
    for name, row in [*scores.items(), ("mean", means)]:
        print(f"| {name} | {' | '.join(f'{value:.1f}' for value in row.values())} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    actions = parser.add_subparsers(dest="action", required=True)
    data = actions.add_parser("data", help="write train, val and test")
    data.add_argument("--audio", type=Path, default=AUDIO_DIR, help="folder of the recordings")
    data.add_argument("--to", type=Path, required=True, help="a new folder")
    data.add_argument("--minutes", type=float, default=120, help="of training")
    data.add_argument("--recorded", type=float, default=0.6, help="share, of Debian's packages")
    data.add_argument("--seed", type=int, default=0)
    data.add_argument("--workers", type=int, default=2, help="processes")
    scores = actions.add_parser("scores", help="of separators on the mixtures of test or val")
    scores.add_argument("--data", type=Path, required=True)
    scores.add_argument("--split", choices=("val", "test"), default="test")
    scores.add_argument("--separator", action="append", default=[], help="with a stem `speech`")
    scores.add_argument("--json", type=Path, help="write the table there, too")
    arguments = parser.parse_args()
    try:
        if arguments.action == "data":
            make_data(
                arguments.audio,
                arguments.to,
                minutes=arguments.minutes,
                recorded=arguments.recorded,
                seed=arguments.seed,
                workers=arguments.workers,
            )
            return
        table = score_all(arguments.data / arguments.split, arguments.separator)
    except BeamsplitterError as error:
        sys.exit(f"{Path(__file__).name}: {error}")
    print_scores(table)
    if arguments.json:
        content = {"unit": "dB", "mixtures": table, "mean": mean_scores(table)}
        arguments.json.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
