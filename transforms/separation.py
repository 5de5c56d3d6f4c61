"""The separation by nearest neighbours, one DoFn a step, with the names of Klio's example.

They take and give a `Track`, whose fields they name; each needs those of the step before it.
"""

from collections.abc import Iterable
from typing import Any

import apache_beam as beam
import numpy as np
from apache_beam.pvalue import TaggedOutput

from ..audio.parts import cut_to_stem_range
from ..audio.spectrum import inverse_stft, magnitude_and_phase, stft
from ..models.separators.base import RESIDUAL
from ..models.separators.nearest_neighbors import (
    HOPS_PER_WINDOW,
    filter_nearest,
    mask_options,
    masked_stems,
    n_fft_near,
    stem_mask,
    with_residual,
)
from ..models.separators.recipes import RECIPES, STEMS, NearestNeighborRecipe
from .records import Track, there
from .steps import Step, run_step
from .whereabouts import tell_share

SPECTROGRAM = "spectrogram"
PHASE = "phase"


class SeparationStep(Step):
    """A step of the separation; tracks whose stems are finished pass."""

    branch = "stems"


@beam.typehints.with_output_types(Track)
class GetSTFT(SeparationStep):
    """`samples` to `stft`, `n_fft` and `hop_length`; as `librosa.stft`, of all channels.

    Parameters
    ----------
    window_s
        seconds, for windows of a power of two of samples, the nearest, at any sample rate; 2048
        samples at 22.05 kHz
    n_fft
        samples, in place of that
    hop_length
        samples between two frames; None: a quarter of the window
    """

    def __init__(
        self,
        *,
        window_s: float = RECIPES["default"].window_s,
        n_fft: int | None = None,
        hop_length: int | None = None,
    ) -> None:
        if not window_s > 0:
            raise ValueError(f"window_s is above 0 seconds, not {window_s}")
        if n_fft is not None and (n_fft < 2 or n_fft % 2):
            raise ValueError(f"n_fft is an even number of samples, not {n_fft}")
        if hop_length is not None and hop_length < 1:
            raise ValueError(f"hop_length is at least 1 sample, not {hop_length}")
        self.window_s = window_s
        self.n_fft = n_fft
        self.hop_length = hop_length

    def apply(self, record: Track) -> Iterable[Track]:
        """Sets `stft`."""
        record.n_fft = self.n_fft or n_fft_near(self.window_s, record.sample_rate)
        record.hop_length = self.hop_length or max(1, record.n_fft // HOPS_PER_WINDOW)
        record.stft = stft(
            there(record.samples, "samples"), n_fft=record.n_fft, hop_length=record.hop_length
        )
        return [record]


@beam.typehints.with_output_types(Track)
class GetMagnitude(SeparationStep):
    """`stft` to `magnitude` and `phase`: the outputs `spectrogram` and `phase`.

    `beam.ParDo(GetMagnitude()).with_outputs()` has both as attributes. The track of `spectrogram`
    carries the phase along, so that no later step has to join them.
    """

    main_tag = SPECTROGRAM

    def apply(self, record: Track) -> Iterable[Any]:
        """Sets `magnitude` and `phase`, releases `stft`."""
        spectrum = there(record.stft, "stft")
        # The phase takes the place of the spectrum.
        spectrum = spectrum if self.owns_tracks else spectrum.copy(order="K")
        record.magnitude, record.phase = magnitude_and_phase(spectrum)
        record.stft = None
        phase = Track(
            record.reference,
            phase=record.phase,
            n_fft=record.n_fft,
            hop_length=record.hop_length,
        )
        return [TaggedOutput(PHASE, phase), TaggedOutput(SPECTROGRAM, record)]


@beam.typehints.with_output_types(Track)
class FilterNearestNeighbors(SeparationStep):
    """`magnitude` to `nearest`: what repeats, at most what is there.

    With the recipe "librosa" it equals `librosa.decompose.nn_filter` with `np.median` and cosine
    similarity, bit for bit.

    Parameters
    ----------
    recipe
        the numbers of the method: of `beamsplitter.models.separators.recipes`, `RECIPES["default"]`
        or `RECIPES["librosa"]`, or `recipe_of` with numbers that are changed

    Raises
    ------
    TooShortAudioError
        the recording is too short for neighbours as librosa has them
    """

    def __init__(self, recipe: NearestNeighborRecipe = RECIPES["default"]) -> None:
        self.recipe = recipe

    def apply(self, record: Track) -> Iterable[Track]:
        """Sets `nearest`."""
        record.nearest = filter_nearest(
            there(record.magnitude, "magnitude"),
            self.recipe,
            sample_rate=record.sample_rate,
            hop_length=record.hop_length or 0,
            progress=tell_share,
        )
        return [record]


@beam.typehints.with_output_types(Track)
class SubtractNearest(SeparationStep):
    """`magnitude` and `nearest` to `net`: what does not repeat.

    A step of its own where graphs fan out as Klio's example does; GetSoftMask needs it not.
    """

    def apply(self, record: Track) -> Iterable[Track]:
        """Sets `net`."""
        whole, repeated = there(record.magnitude, "magnitude"), there(record.nearest, "nearest")
        record.net = whole - repeated
        return [record]


@beam.typehints.with_output_types(Track)
class GetSoftMask(SeparationStep):
    """`magnitude` and `nearest` to the mask of one stem, as `librosa.util.softmask`.

    Parameters
    ----------
    stem
        "background": what repeats, against the rest; "foreground": the other way round
    margin
        how many times it has to exceed the other
    power
        exponent of both before they are compared
    highpass_hz
        below it all is background
    """

    def __init__(
        self, stem: str, *, margin: float = 1.0, power: float = 2.0, highpass_hz: float = 0.0
    ) -> None:
        if stem not in STEMS:
            raise ValueError(f"stem is one of {', '.join(STEMS)}, not {stem!r}")
        self.stem = stem
        self.margin = margin
        self.power = power
        self.highpass_hz = highpass_hz

    def apply(self, record: Track) -> Iterable[Track]:
        """Adds to `masks`."""
        record.masks[self.stem] = stem_mask(
            self.stem,
            there(record.magnitude, "magnitude"),
            there(record.nearest, "nearest"),
            net=record.net,
            sample_rate=record.sample_rate,
            margin=self.margin,
            power=self.power,
            highpass_hz=self.highpass_hz,
        )
        return [record]


@beam.typehints.with_output_types(Track)
class InverseSTFT(SeparationStep):
    """`masks`, `magnitude` and `phase` to `stems`, each as long as the recording.

    Parameters
    ----------
    stems
        those to make; None: all that have a mask. A foreground without a mask is what the
        background leaves of `samples`; "residual" is what the other stems leave, or all that there
        are
    """

    def __init__(self, stems: Iterable[str] | None = None) -> None:
        self.stems = None if stems is None else tuple(stems)

    def apply(self, record: Track) -> Iterable[Track]:
        """Sets `stems`, releases the spectra."""
        n_fft, hop_length = record.n_fft or 0, record.hop_length or 0
        if not hop_length or n_fft % hop_length:
            raise ValueError(
                f"the way back needs a hop_length that divides the window of {n_fft} samples, "
                f"not {hop_length}: correct GetSTFT's"
            )
        part = record.part
        made = {
            stem: inverse_stft(
                mask,
                there(record.magnitude, "magnitude"),
                there(record.phase, "phase"),
                n_fft=n_fft,
                hop_length=hop_length,
                samples=part.context_stop_sample - part.context_start_sample,
            )
            for stem, mask in record.masks.items()
        }
        wanted = tuple(made) if self.stems is None else self.stems
        if not made.keys() >= {*wanted}:
            made = self._with_rest(made, wanted, there(record.samples, "samples"))
        record.stems = {stem: cut_to_stem_range(made[stem], part) for stem in wanted}
        record.stft = record.magnitude = record.phase = record.nearest = record.net = None
        record.n_fft = record.hop_length = None
        record.masks = {}
        return [record]

    def _with_rest(
        self, made: dict[str, np.ndarray], wanted: tuple[str, ...], samples: np.ndarray
    ) -> dict[str, np.ndarray]:
        """The stems, with those that others leave."""
        stems = with_residual(made, samples)
        if RESIDUAL in wanted:
            others = [stem for stem in wanted if stem != RESIDUAL] or list(stems)
            # One after the other, as `separate_part` does: the same samples to the last digit.
            rest = samples.copy()
            for stem in others:
                rest -= stems[stem]
            stems = {**stems, RESIDUAL: rest}
        return stems


class SeparateNearestNeighbors(beam.PTransform):
    """Tracks with samples to tracks with stems, in one chain: nothing crosses a shuffle."""

    def __init__(self, recipe: NearestNeighborRecipe, *, stems: Iterable[str]) -> None:
        super().__init__()
        self.recipe = recipe
        self.stems = tuple(stems)

    def expand(self, tracks: beam.PCollection) -> Any:
        """A dict: `tracks`, and `failures`, a list."""
        recipe, failures = self.recipe, []  # type: ignore[var-annotated]
        spectra = run_step(tracks, GetSTFT(window_s=recipe.window_s), Track, failures)
        magnitude = run_step(spectra, GetMagnitude(), Track, failures, tags=(SPECTROGRAM, PHASE))
        nearest = run_step(magnitude[SPECTROGRAM], FilterNearestNeighbors(recipe), Track, failures)
        masks = nearest
        for stem in masked_stems(recipe):
            get_mask = GetSoftMask(stem, **mask_options(recipe, stem))
            masks = run_step(masks, get_mask, Track, failures, label=f"GetSoftMask-{stem}")
        stems = run_step(masks, InverseSTFT(self.stems), Track, failures)
        return {"tracks": stems, "failures": failures}
