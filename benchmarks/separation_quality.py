"""How well does the nearest-neighbour method separate? SI-SDR on mixtures with known stems.

    python benchmarks/separation_quality.py [--quick] [--audio-dir DIR]

Prints the tables of `docs/separation.md`: each number of the recipe changed by itself, on the
mixtures that the defaults were chosen by, some of them on longer recordings, and the recipes on
mixtures that had no part in it. Takes about ten minutes.
Everything is made in memory, of recorded music under recorded speech and of synthesised songs.
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
import functools
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import numpy as np
import soundfile
import soxr

from beamsplitter.audio.synthesis import synthesize_song
from beamsplitter.models.evaluation.distortion import si_sdr
from beamsplitter.models.separators import nearest_neighbors, recipes
from beamsplitter.models.separators.nearest_neighbors import separate
from beamsplitter.models.separators.recipes import RECIPES

AUDIO_DIR = Path(__file__).parents[2] / "shared" / "audio"
SAMPLE_RATE = 44100
PAUSE_S = 1.5
LEVELS_DB = (-6, 0, 6)


@dataclass(frozen=True)
class Recorded:
    """A stretch of recorded music under a reader, who begins again after a pause."""

    music: str
    start_s: float
    stop_s: float
    reader: str

    def __str__(self) -> str:
        return f"{self.music} {self.start_s:g}–{self.stop_s:g} s under {self.reader}"


@dataclass(frozen=True)
class Synthesized:
    """A song of `audio/synthesis.py`."""

    seed: int
    seconds: float

    def __str__(self) -> str:
        return f"song {self.seed}"


Source = Recorded | Synthesized

DEVELOPMENT: tuple[Source, ...] = (
    Recorded("vibeace", 0, 30, "austen"),
    Recorded("nutcracker", 0, 40, "chivalry"),
    Recorded("brahms", 0, 23, "ashiel"),
    *(Synthesized(seed, 24) for seed in (1, 2, 3, 4)),
)
UNSEEN: tuple[Source, ...] = (
    Recorded("vibeace", 31, 61, "ashiel"),
    Recorded("nutcracker", 70, 110, "austen"),
    Recorded("brahms", 23, 45.5, "chivalry"),
    *(Synthesized(seed, 30) for seed in (11, 12, 13, 14)),
)
LONG: tuple[Source, ...] = (
    Recorded("nutcracker", 0, 115, "chivalry"),
    Recorded("vibeace", 0, 61, "austen"),
    Synthesized(5, 120),
    Synthesized(6, 300),
)
QUICK: tuple[Source, ...] = (Recorded("vibeace", 0, 15, "austen"), Synthesized(1, 15))


@dataclass(frozen=True)
class Variant:
    """A recipe by name, with other numbers, and other constants of the module."""

    title: str
    recipe: str = "default"
    options: dict[str, object] = field(default_factory=dict)
    constants: dict[str, int] = field(default_factory=dict)


def changed(title: str, **options: object) -> Variant:
    return Variant(title, options=options)


VARIANTS = (
    Variant("default"),
    Variant("recipe `librosa`", recipe="librosa"),
    changed("`features: magnitude`", features="magnitude"),
    Variant("bands without context", constants={"CONTEXT_WINDOWS": 0}),
    Variant("context of 2 windows", constants={"CONTEXT_WINDOWS": 2}),
    Variant("context of 4 windows", constants={"CONTEXT_WINDOWS": 4}),
    Variant("32 bands", constants={"BANDS": 32}),
    Variant("128 bands", constants={"BANDS": 128}),
    changed("`neighbors: librosa`", neighbors="librosa"),
    changed("`neighbor_count: 20`", neighbor_count=20),
    changed("`neighbor_count: 50`", neighbor_count=50),
    changed("`width_s: 0.5`", width_s=0.5),
    changed("`width_s: 4`", width_s=4),
    changed("`window_s: 0.0464`", window_s=0.0464),
    changed("`window_s: 0.186`", window_s=0.186),
    Variant("8 hops a window", constants={"HOPS_PER_WINDOW": 8}),
    changed("`margin_background: 0.35`", margin_background=0.35),
    changed("`margin_background: 1`", margin_background=1),
    changed("`margin_background: 2`", margin_background=2),
    changed("`power: 2`", power=2),
    changed("`highpass_hz: 0`", highpass_hz=0),
    changed("`highpass_hz: 80`", highpass_hz=80),
    changed("`highpass_hz: 120`", highpass_hz=120),
    changed("`foreground: mask`, margin 2", foreground="mask"),
)
LONG_VARIANTS = (
    Variant("default"),
    changed("`neighbor_count: 50`", neighbor_count=50),
    changed("`neighbor_count: null`", neighbor_count=None),
    Variant("context of 2 windows", constants={"CONTEXT_WINDOWS": 2}),
    Variant("context of 4 windows", constants={"CONTEXT_WINDOWS": 4}),
    changed("`features: magnitude`", features="magnitude"),
)


@dataclass(frozen=True)
class Clip:
    """A mixture with its stems; scores are dB of background and foreground."""

    name: str
    recorded: bool
    stems: dict[str, np.ndarray]
    mixture: np.ndarray
    untouched: np.ndarray


class Clips:
    """The mixtures of some sources at some levels of the voice, made as they are needed."""

    def __init__(
        self, sources: Iterable[Source], audio_dir: Path, levels_db: Iterable[float]
    ) -> None:
        self.sources, self.levels_db = tuple(sources), tuple(levels_db)
        self.stems = functools.cache(functools.partial(stems_of, audio_dir))
        self.untouched: dict[str, np.ndarray] = {}

    def __iter__(self) -> Iterator[Clip]:
        for source in self.sources:
            music, voice = self.stems(source)
            for level_db in self.levels_db:
                name = f"{source}, {level_db:+} dB"
                stems = {"background": music, "foreground": at_level(voice, music, level_db)}
                mixture = music + stems["foreground"]
                if name not in self.untouched:
                    self.untouched[name] = scores(dict.fromkeys(stems, mixture), stems)
                recorded = isinstance(source, Recorded)
                yield Clip(name, recorded, stems, mixture, self.untouched[name])


def stems_of(audio_dir: Path, source: Source) -> tuple[np.ndarray, np.ndarray]:
    """Music and voice, float32 `(2, samples)` each."""
    if isinstance(source, Synthesized):
        song = synthesize_song(duration_s=source.seconds, sample_rate=SAMPLE_RATE, seed=source.seed)
        return song["accompaniment"], song["vocals"]
    music, _ = soundfile.read(
        audio_dir / f"{source.music}.ogg",
        start=round(source.start_s * SAMPLE_RATE),
        stop=round(source.stop_s * SAMPLE_RATE),
        dtype="float32",
    )
    speech, rate = soundfile.read(audio_dir / f"speech_{source.reader}.ogg", dtype="float32")
    speech = soxr.resample(speech, rate, SAMPLE_RATE)
    speech = np.append(speech, np.zeros(round(PAUSE_S * SAMPLE_RATE), np.float32))
    return np.ascontiguousarray(music.T), np.tile(np.resize(speech, len(music)), (2, 1))


def at_level(voice: np.ndarray, music: np.ndarray, level_db: float) -> np.ndarray:
    """The voice, so that its RMS is `level_db` above that of the music."""
    gain = 10 ** (level_db / 20) * np.sqrt(np.mean(np.square(music)) / np.mean(np.square(voice)))
    return (gain * voice).astype(np.float32)


def scores(estimates: dict[str, np.ndarray], stems: dict[str, np.ndarray]) -> np.ndarray:
    return np.array([si_sdr(estimates[stem], stems[stem]) for stem in recipes.STEMS])


def row(variant: Variant, clips: Clips) -> str:
    """One line of a table: mean improvements in dB over the mixture, and CPU seconds."""
    recipe = recipes.NearestNeighborRecipe(
        **{**RECIPES[variant.recipe].model_dump(), **variant.options}
    )
    improvements, names, recorded = [], [], []
    cpu_s = audio_s = 0.0
    with ExitStack() as stack:
        for name, value in variant.constants.items():
            stack.enter_context(mock.patch.object(nearest_neighbors, name, value))
        for clip in clips:
            start = time.process_time()
            estimates = separate(clip.mixture, SAMPLE_RATE, recipe)
            cpu_s += time.process_time() - start
            audio_s += clip.mixture.shape[-1] / SAMPLE_RATE
            improvements.append(scores(estimates, clip.stems) - clip.untouched)
            names.append(clip.name)
            recorded.append(clip.recorded)
    gains, real = np.array(improvements), np.array(recorded)
    by_clip = gains.mean(axis=1)
    cells = [by_clip.mean(), *gains.mean(axis=0), by_clip[real].mean(), by_clip[~real].mean()]
    worst = int(by_clip.argmin())
    return " | ".join(
        [
            f"| {variant.title}",
            *(f"{cell:.2f}" for cell in cells),
            f"{by_clip[worst]:.1f} ({names[worst]})",
            f"{60 * cpu_s / audio_s:.2f} |",
        ]
    )


def print_table(title: str, variants: Iterable[Variant], clips: Clips) -> None:
    print(f"\n{title}\n")
    print("| | both | background | foreground | recorded | synthesised | worst clip | CPU s |")
    print("|---|---|---|---|---|---|---|---|")
    for variant in variants:
        print(row(variant, clips), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two short clips, both recipes")
    parser.add_argument("--audio-dir", type=Path, default=AUDIO_DIR)
    arguments = parser.parse_args()
    separate(np.zeros((2, SAMPLE_RATE), np.float32), SAMPLE_RATE, RECIPES["default"])  # compiles
    print("SI-SDR improvement over the mixture in dB; CPU seconds a minute of stereo at 44.1 kHz")
    if arguments.quick:
        print_table("Quick look", VARIANTS[:3], Clips(QUICK, arguments.audio_dir, (0,)))
        return
    print_table("Development", VARIANTS, Clips(DEVELOPMENT, arguments.audio_dir, LEVELS_DB))
    print_table("Long", LONG_VARIANTS, Clips(LONG, arguments.audio_dir, (0,)))
    print_table("Unseen", VARIANTS[:3], Clips(UNSEEN, arguments.audio_dir, LEVELS_DB))


if __name__ == "__main__":
    main()
