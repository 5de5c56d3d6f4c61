"""The separation by nearest neighbours, one DoFn a step, with the names of Klio's example."""

from collections.abc import Iterable
from typing import Any

import apache_beam as beam
import numpy as np
from apache_beam.pvalue import TaggedOutput

from ..audio.parts import cut_to_stem_range
from ..audio.spectrum import inverse_stft, magnitude_and_phase, stft
from ..models.separators.base import RESIDUAL
from ..models.separators.nearest_neighbors import (
    filter_nearest,
    hop_length_of,
    masked_stems,
    n_fft_of,
    stem_mask,
    with_residual,
)
from ..models.separators.recipes import NearestNeighborRecipe
from .records import Track
from .steps import Step, run_step
from .whereabouts import tell_share

SPECTROGRAM = "spectrogram"
PHASE = "phase"


class SeparationStep(Step):
    """A step of the separation; tracks whose stems are finished pass."""

    branch = "stems"

    def __init__(self, recipe: NearestNeighborRecipe) -> None:
        self.recipe = recipe


class GetSTFT(SeparationStep):
    """`samples` to `stft`."""

    def apply(self, record: Track) -> Iterable[Track]:
        """Sets `stft`."""
        rate = record.recording.info.sample_rate
        record.stft = stft(
            _there(record.samples),
            n_fft=n_fft_of(self.recipe, rate),
            hop_length=hop_length_of(self.recipe, rate),
        )
        return [record]


class GetMagnitude(SeparationStep):
    """`stft` to `magnitude` and `phase`: the outputs `spectrogram` and `phase`.

    The track of `spectrogram` carries the phase along, so that no later step has to join them.
    """

    main_tag = SPECTROGRAM

    def apply(self, record: Track) -> Iterable[Any]:
        """Sets `magnitude` and `phase`, releases `stft`."""
        record.magnitude, record.phase = magnitude_and_phase(_there(record.stft))
        record.stft = None
        phase = Track(record.reference, phase=record.phase)
        return [TaggedOutput(PHASE, phase), TaggedOutput(SPECTROGRAM, record)]


class FilterNearestNeighbors(SeparationStep):
    """`magnitude` to `nearest`: what repeats."""

    def apply(self, record: Track) -> Iterable[Track]:
        """Sets `nearest`."""
        rate = record.recording.info.sample_rate
        record.nearest = filter_nearest(
            _there(record.magnitude), self.recipe, rate, progress=tell_share
        )
        return [record]


class GetSoftMask(SeparationStep):
    """`magnitude` and `nearest` to the mask of one stem.

    Parameters
    ----------
    stem
        "background" or "foreground"
    """

    def __init__(self, recipe: NearestNeighborRecipe, *, stem: str) -> None:
        super().__init__(recipe)
        self.stem = stem

    def apply(self, record: Track) -> Iterable[Track]:
        """Adds to `masks`."""
        record.masks[self.stem] = stem_mask(
            self.stem,
            _there(record.magnitude),
            _there(record.nearest),
            self.recipe,
            record.recording.info.sample_rate,
        )
        return [record]


class InverseSTFT(SeparationStep):
    """`masks` to `stems`, cut to the part's stem range.

    A foreground without a mask is what the background leaves; the stem `residual` is what the other
    wanted stems leave, or all that there are.
    """

    def __init__(self, recipe: NearestNeighborRecipe, *, stems: Iterable[str]) -> None:
        super().__init__(recipe)
        self.stems = tuple(stems)

    def apply(self, record: Track) -> Iterable[Track]:
        """Sets `stems`, releases the spectra."""
        samples = _there(record.samples)
        rate = record.recording.info.sample_rate
        stems = {
            stem: inverse_stft(
                mask,
                _there(record.magnitude),
                _there(record.phase),
                n_fft=n_fft_of(self.recipe, rate),
                hop_length=hop_length_of(self.recipe, rate),
                samples=samples.shape[-1],
            )
            for stem, mask in record.masks.items()
        }
        stems = with_residual(stems, samples)
        if RESIDUAL in self.stems:
            others = [stem for stem in self.stems if stem != RESIDUAL] or list(stems)
            # One after the other, as `separate_part` does: the same samples to the last digit.
            stems[RESIDUAL] = samples.copy()
            for stem in others:
                stems[RESIDUAL] -= stems[stem]
        record.stems = {stem: cut_to_stem_range(stems[stem], record.part) for stem in self.stems}
        record.magnitude = record.phase = record.nearest = None
        record.masks = {}
        return [record]


class SeparateNearestNeighbors(beam.PTransform):
    """Tracks with samples to tracks with stems, in one chain: nothing crosses a shuffle."""

    def __init__(self, recipe: NearestNeighborRecipe, *, stems: Iterable[str]) -> None:
        super().__init__()
        self.recipe = recipe
        self.stems = tuple(stems)

    def expand(self, tracks: beam.PCollection) -> Any:
        """A dict: `tracks`, and `failures`, a list."""
        recipe, failures = self.recipe, []  # type: ignore[var-annotated]
        spectra = run_step(tracks, GetSTFT(recipe), Track, failures)
        magnitude = run_step(
            spectra, GetMagnitude(recipe), Track, failures, tags=(SPECTROGRAM, PHASE)
        )
        nearest = run_step(magnitude[SPECTROGRAM], FilterNearestNeighbors(recipe), Track, failures)
        masks = nearest
        for stem in masked_stems(recipe):
            masks = run_step(
                masks, GetSoftMask(recipe, stem=stem), Track, failures, label=f"GetSoftMask-{stem}"
            )
        stems = run_step(masks, InverseSTFT(recipe, stems=self.stems), Track, failures)
        return {"tracks": stems, "failures": failures}


def _there(array: np.ndarray | None) -> np.ndarray:
    if array is None:
        raise RuntimeError("a step before this one did not run")
    return array
