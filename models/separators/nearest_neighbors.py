"""REPET-SIM by nearest-neighbour filtering: what repeats is accompaniment, the rest is voice.

Rafii and Pardo, "Music/voice separation using the similarity matrix", ISMIR 2012; FitzGerald,
"Vocal separation using nearest neighbours and median filtering", ISSC 2012. The recipe "librosa"
is that of librosa's vocal separation tutorial.
"""

import math
from collections.abc import Mapping
from typing import TypedDict

import numpy as np

from ...audio.errors import TooShortAudioError
from ...audio.nn_filter import default_k, nn_filter
from ...audio.progress import Progress, piece_of, unheard
from ...audio.spectrum import inverse_stft, magnitude_and_phase, soft_mask, stft
from .base import Member, Separator, alone
from .recipes import MINIMUM_S, STEMS, NearestNeighborRecipe, recipe_of

HOPS_PER_WINDOW = 4
BANDS = 64
CONTEXT_WINDOWS = 3
# How far a part is before its frames are filtered, and after.
FILTER_SHARES = 0.08, 0.8


def n_fft_near(window_s: float, sample_rate: int) -> int:
    """STFT window in samples: the power of two nearest to so many seconds."""
    return max(64, 2 ** round(math.log2(window_s * sample_rate)))


def n_fft_of(recipe: NearestNeighborRecipe, sample_rate: int) -> int:
    """STFT window in samples."""
    return n_fft_near(recipe.window_s, sample_rate)


def hop_length_of(recipe: NearestNeighborRecipe, sample_rate: int) -> int:
    """STFT hop in samples."""
    return n_fft_of(recipe, sample_rate) // HOPS_PER_WINDOW


def require_duration(duration_s: float) -> None:
    """Refuse what is too short for the method.

    Raises
    ------
    TooShortAudioError
        below `MINIMUM_S` seconds
    """
    if duration_s < MINIMUM_S:
        raise TooShortAudioError(
            f"{duration_s:.3f} s is too short for nearest-neighbour separation, which needs "
            f"{MINIMUM_S} s: leave the file out"
        )


def filter_nearest(
    magnitude: np.ndarray,
    recipe: NearestNeighborRecipe,
    *,
    sample_rate: int,
    hop_length: int,
    progress: Progress = unheard,
) -> np.ndarray:
    """What repeats in a spectrogram: each frame's median over its nearest frames, at most itself.

    Parameters
    ----------
    magnitude
        float32 `(channels, bins, frames)`
    sample_rate
        Hz
    hop_length
        samples between two frames
    progress
        is told how much is done, as a share that rises to 1

    Returns
    -------
    float32, same shape

    Raises
    ------
    TooShortAudioError
        librosa refuses so few frames, and the recipe is to do as librosa does
    """
    frames = magnitude.shape[-1]
    # Rounded down as in librosa's tutorial.
    width = max(1, int(recipe.width_s * sample_rate / hop_length))
    if recipe.neighbors == "nearest":
        # A short recording has no frames that far apart: half of it stays for neighbours.
        width = max(1, min(width, frames // 4))
    elif width >= (frames - 1) // 2:
        raise TooShortAudioError(
            f"is too short for neighbours as librosa has them, at least {recipe.width_s:g} s away: "
            f"needs more than {2 * recipe.width_s:g} s; leave the file out, or take recipe: default"
        )
    nearest = nn_filter(
        magnitude,
        width=width,
        k=min(default_k(frames, width), recipe.neighbor_count or frames),
        neighbors=recipe.neighbors,
        features=_bands_in_context(magnitude) if recipe.features == "bands" else None,
        progress=progress,
    )
    return np.minimum(magnitude, nearest, out=nearest)


def _bands_in_context(magnitude: np.ndarray) -> np.ndarray:
    """What frames are compared by: compressed bands of all channels, with those around them.

    Compression lets the quiet parts of a frame count beside its loudest note. The frames one to
    three windows before and after tell apart moments that only sound alike; they leave out those
    between because windows overlap.

    Parameters
    ----------
    magnitude
        float32 `(channels, bins, frames)`

    Returns
    -------
    float32 `(dims, frames)`, dims at most 7 * 64
    """
    bins, frames = magnitude.shape[-2:]
    edges = _band_edges(bins)
    bands = sum(np.add.reduceat(channel, edges, axis=0) for channel in magnitude)
    compressed = np.sqrt(np.sqrt(bands))
    reach = CONTEXT_WINDOWS * HOPS_PER_WINDOW
    padded = np.pad(compressed, ((0, 0), (reach, reach)), mode="edge")
    starts = range(0, 2 * reach + 1, HOPS_PER_WINDOW)
    return np.concatenate([padded[:, start : start + frames] for start in starts])


def _band_edges(bins: int) -> np.ndarray:
    """First bins of at most 64 bands: single bins at the bottom, then evenly spaced in pitch."""
    single = BANDS // 2
    wide = np.geomspace(single, bins, BANDS - single, endpoint=False)
    return np.unique(np.concatenate([np.arange(single), wide]).astype(int))


def stem_mask(
    stem: str,
    magnitude: np.ndarray,
    nearest: np.ndarray,
    *,
    net: np.ndarray | None = None,
    sample_rate: int,
    margin: float,
    power: float,
    highpass_hz: float = 0.0,
) -> np.ndarray:
    """Soft mask of a stem: of what repeats against the net rest, or the other way round.

    Parameters
    ----------
    stem
        "background" or "foreground"
    magnitude, nearest
        float32 `(channels, bins, frames)`
    net
        their difference, where it is at hand
    sample_rate
        Hz
    margin
        how many times it has to exceed the other
    power
        exponent of both before they are compared
    highpass_hz
        below it all is background

    Returns
    -------
    float32 in [0, 1], same shape
    """
    mask = np.empty_like(magnitude)
    # One channel at a time: the net spectrogram is as large as the whole.
    room = np.empty_like(magnitude[0])
    for channel, repeated in enumerate(nearest):
        left = np.subtract(magnitude[channel], repeated, out=room) if net is None else net[channel]
        wanted, rest = (repeated, left) if stem == "background" else (left, repeated)
        soft_mask(wanted, rest, margin=margin, power=power, out=mask[channel])
    n_fft = 2 * (magnitude.shape[1] - 1)
    mask[:, : math.ceil(highpass_hz * n_fft / sample_rate)] = stem == "background"
    return mask


class MaskOptions(TypedDict):
    """The numbers of a mask."""

    margin: float
    power: float
    highpass_hz: float


def mask_options(recipe: NearestNeighborRecipe, stem: str) -> MaskOptions:
    """The numbers of a stem's mask."""
    is_background = stem == "background"
    margin = recipe.margin_background if is_background else recipe.margin_foreground
    return {"margin": margin, "power": recipe.power, "highpass_hz": recipe.highpass_hz}


def separate(
    samples: np.ndarray,
    sample_rate: int,
    recipe: NearestNeighborRecipe,
    *,
    progress: Progress = unheard,
) -> dict[str, np.ndarray]:
    """Separate a signal: the same functions that the steps of the graph call, in one place.

    Parameters
    ----------
    samples
        float32 `(channels, samples)`
    sample_rate
        Hz
    progress
        is told how much is done, as a share that rises to 1

    Returns
    -------
    "background" and "foreground", each float32 of the shape of `samples`

    Raises
    ------
    TooShortAudioError
        shorter than `MINIMUM_S`, or than what the recipe needs
    """
    require_duration(samples.shape[-1] / sample_rate)
    n_fft, hop_length = n_fft_of(recipe, sample_rate), hop_length_of(recipe, sample_rate)
    magnitude, phase = magnitude_and_phase(stft(samples, n_fft=n_fft, hop_length=hop_length))
    progress(FILTER_SHARES[0])
    nearest = filter_nearest(
        magnitude,
        recipe,
        sample_rate=sample_rate,
        hop_length=hop_length,
        progress=piece_of(progress, *FILTER_SHARES),
    )

    def separated(stem: str) -> np.ndarray:
        options = mask_options(recipe, stem)
        mask = stem_mask(stem, magnitude, nearest, sample_rate=sample_rate, **options)
        return inverse_stft(
            mask,
            magnitude,
            phase,
            n_fft=n_fft,
            hop_length=hop_length,
            samples=samples.shape[-1],
        )

    stems = {stem: separated(stem) for stem in masked_stems(recipe)}
    progress(1.0)
    return with_residual(stems, samples)


def masked_stems(recipe: NearestNeighborRecipe) -> tuple[str, ...]:
    """The stems that have a mask; another is the residual."""
    return STEMS if recipe.foreground == "mask" else ("background",)


def with_residual(stems: dict[str, np.ndarray], samples: np.ndarray) -> dict[str, np.ndarray]:
    """The stems, with a foreground that has no mask taken as the mixture less the background."""
    if "foreground" in stems:
        return stems
    return {**stems, "foreground": samples - stems["background"]}


class NearestNeighborSeparator(Separator):
    """The method behind the interface of all separators: a whole part at once, at any rate."""

    name = "nn-filter"
    stems = STEMS

    def __init__(self, recipe: NearestNeighborRecipe) -> None:
        self.recipe = recipe

    def separate(self, block: np.ndarray, sample_rate: int) -> np.ndarray:
        """Both stems, as the steps of the graph make them."""
        return self.separate_telling(block, sample_rate, unheard)

    def separate_telling(
        self, block: np.ndarray, sample_rate: int, progress: Progress
    ) -> np.ndarray:
        """Both stems."""
        stems = separate(block, sample_rate, self.recipe, progress=progress)
        return np.stack([stems[stem] for stem in self.stems])


def load(_name: str, options: Mapping[str, object]) -> tuple[Member, ...]:
    """The separator."""
    return alone(NearestNeighborSeparator(recipe_of(options)))
