"""Readers and music that Debian's packages hold, for the training of `training_demo.py`.

`training_demo_packages.txt` lists the packages. Signals are mono, float32 `(samples,)`, at 16 kHz.
"""

import functools
from pathlib import Path

import av
import numpy as np
import soundfile
import soxr
from numpy.random import Generator
from training_demo_sounds import SAMPLE_RATE, rms

from beamsplitter.errors import BeamsplitterError

PACKAGES = Path(__file__).with_name("training_demo_packages.txt")
# Prompts of telephone exchanges: four people in five languages, each for half an hour.
READERS = tuple(
    Path("/usr/share/asterisk/sounds", name)
    for name in (
        *("en_US_f_Allison", "es_MX_f_Allison", "fr_CA_f_June", "it_IT_m_Carlo"),
        "ru_RU_f_IvrvoiceRU",
    )
)
NO_SPEECH = ("tone", "beep", "monkeys", "silence")
SHORTEST_PROMPT_S = 0.6
MUSIC = (
    "/usr/share/games/wesnoth/*/data/core/music/*.ogg",
    "/usr/share/games/singularity/music/*.ogg",
    "/usr/share/hyperrogue/music/*.ogg",
)
SHORTEST_PIECE_S = 60
# With a choir.
SUNG = ("nunc_dimittis",)


def require_recordings() -> None:
    """Raises BeamsplitterError if a package is not installed."""
    if not all(folder.is_dir() for folder in READERS) or not all(map(_matching, MUSIC)):
        raise BeamsplitterError(
            "recordings to train by are missing: apt-get install "
            f"{' '.join(PACKAGES.read_text().split())}, or --recorded 0 for made sounds only"
        )


def _matching(pattern: str) -> list[Path]:
    return sorted(Path("/").glob(pattern.lstrip("/")))


@functools.cache
def reader(folder: Path) -> np.ndarray:
    """All that a reader says, one prompt after the other, each as loud as the next."""
    prompts = [
        _decoded(path)
        for path in sorted(folder.rglob("*.g722"))
        if not any(word in str(path.relative_to(folder)) for word in NO_SPEECH)
    ]
    long = [prompt for prompt in prompts if prompt.size >= SHORTEST_PROMPT_S * SAMPLE_RATE]
    return np.concatenate([prompt * (0.1 / rms(prompt)) for prompt in long])


def _decoded(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray()[0] for frame in container.decode(audio=0)]
    return np.concatenate([np.zeros(0, np.int16), *frames]).astype(np.float32) / 2**15


@functools.cache
def pieces() -> tuple[Path, ...]:
    """Instrumental music of a minute at least."""
    return tuple(
        path
        for pattern in MUSIC
        for path in _matching(pattern)
        if path.stem not in SUNG and soundfile.info(path).duration >= SHORTEST_PIECE_S
    )


def stretch_of(path: Path, chance: Generator, seconds: float) -> np.ndarray:
    """A stretch of a piece of music that begins anywhere."""
    with soundfile.SoundFile(path) as file:
        count = min(round(seconds * file.samplerate), file.frames)
        file.seek(int(chance.integers(file.frames - count + 1)))
        samples = file.read(count, dtype="float32", always_2d=True)
        return np.asarray(soxr.resample(samples.mean(axis=1), file.samplerate, SAMPLE_RATE))
