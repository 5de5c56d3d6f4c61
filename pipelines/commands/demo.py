"""The song of `beamsplitter demo`: synthesised, so that its true stems are known."""

import os

import numpy as np
import soundfile
from rich.console import Console

from ...audio.synthesis import synthesize_song
from ...models.evaluation.distortion import si_sdr

SAMPLE_RATE = 44100
DURATION_S = 30.0
SONG = "song.flac"
TRUE_STEMS = {"background": "accompaniment", "foreground": "vocals"}


def write_song(output: str) -> str:
    """Write the song below the output folder; gives its path."""
    os.makedirs(output, exist_ok=True)
    path = os.path.join(output, SONG)
    mixture = np.sum(list(_song().values()), axis=0)
    soundfile.write(path, mixture.T, SAMPLE_RATE, subtype="PCM_16")
    return path


def print_scores(output: str) -> None:
    """Print the stems' SI-SDR, beside that of the mixture."""
    song = _song()
    mixture = np.sum(list(song.values()), axis=0)
    console = Console(stderr=True)
    for stem, true_stem in TRUE_STEMS.items():
        path = os.path.join(output, os.path.splitext(SONG)[0], f"{stem}.flac")
        estimate = soundfile.read(path, dtype="float32", always_2d=True)[0].T
        before, after = si_sdr(mixture, song[true_stem]), si_sdr(estimate, song[true_stem])
        console.print(
            f"{stem}: SI-SDR {after:.1f} dB, {after - before:+.1f} dB against the mixture",
            highlight=False,
        )


def _song() -> dict[str, np.ndarray]:
    return synthesize_song(duration_s=DURATION_S, sample_rate=SAMPLE_RATE)
