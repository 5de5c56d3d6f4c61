"""Klio's literal graph: the separation as a fan-out whose branches meet in CoGroupByKeys.

It moves whole spectrograms through shuffles, where `SeparateNearestNeighbors` hands one record
on; so it is for excerpts, for comparison, and for those who come from Klio.
"""

import os
from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam

from ..models.separators.nearest_neighbors import masked_stems
from ..models.separators.recipes import NearestNeighborRecipe
from .grouping import CoGroupRecords
from .records import Track
from .separation import (
    PHASE,
    SPECTROGRAM,
    FilterNearestNeighbors,
    GetMagnitude,
    GetSoftMask,
    GetSTFT,
    InverseSTFT,
)
from .steps import run_step

KeyedTrack = tuple[bytes, Track]


class SeparateByFanOut(beam.PTransform):
    """Tracks of one part with samples to tracks with stems."""

    def __init__(self, recipe: NearestNeighborRecipe, *, stems: Iterable[str]) -> None:
        super().__init__()
        self.recipe = recipe
        self.stems = tuple(stems)

    def expand(self, tracks: beam.PCollection) -> Any:
        """A dict: `tracks`, and `failures`, a list."""
        recipe = self.recipe
        failures: list[beam.PCollection] = []
        todo = tracks | "ToSeparate" >> beam.Filter(lambda track: "stems" in track.recording.todo)
        done = tracks | "Separated" >> beam.Filter(
            lambda track: "stems" not in track.recording.todo
        )
        samples = keyed(todo, "KeySamples", "samples", "binary", "source_sha256")

        spectra = run_step(todo | "Copy" >> only("samples"), GetSTFT(recipe), Track, failures)
        magnitude = run_step(
            spectra, GetMagnitude(recipe), Track, failures, tags=(SPECTROGRAM, PHASE)
        )
        full = keyed(magnitude[SPECTROGRAM], "KeySpectrogram", "magnitude")
        phase = keyed(magnitude[PHASE], "KeyPhase", "phase")
        nearest = run_step(
            magnitude[SPECTROGRAM] | "CopySpectrogram" >> only("magnitude"),
            FilterNearestNeighbors(recipe),
            Track,
            failures,
        )
        nearest = keyed(nearest, "KeyNearest", "nearest")

        masks = []
        for stem in masked_stems(recipe):
            merged = {"full": full, "nearest": nearest} | f"Merge-{stem}" >> Merged()
            mask = run_step(
                merged,
                GetSoftMask(recipe, stem=stem),
                Track,
                failures,
                label=f"GetSoftMask-{stem}",
            )
            masks.append(keyed(mask, f"KeyMask-{stem}", "masks"))
        forks = {f"mask-{index}": mask for index, mask in enumerate(masks)}
        stems = run_step(
            {**forks, "full": full, "phase": phase, "samples": samples} | "MergeMasks" >> Merged(),
            InverseSTFT(recipe, stems=self.stems),
            Track,
            failures,
        )
        return {"tracks": (stems, done) | beam.Flatten(), "failures": failures}


class Merged(beam.PTransform):
    """Tracks of one recording from several branches, joined by CoGroupByKey into one.

    A recording that failed in one of the branches is left out: its dead letter is on its way.
    """

    def expand(self, branches: Any) -> beam.PCollection:
        """One track with the arrays of all."""
        return (
            branches
            | CoGroupRecords()
            | "Merge" >> beam.FlatMapTuple(lambda _, group: merge(group)).with_output_types(Track)
        )


def merge(group: dict[str, list[Track]]) -> Iterator[Track]:
    """One track out of one track of each branch; nothing if a branch has none.

    An event that comes twice gives as many tracks in each branch, which hold the same.
    """
    for tracks in zip(*group.values(), strict=False):
        merged = Track(tracks[0].reference)
        for track in tracks:
            for name in ("samples", "binary", "source_sha256", "magnitude", "phase", "nearest"):
                if getattr(track, name) is not None:
                    setattr(merged, name, getattr(track, name))
            merged.masks.update(track.masks)
        yield merged


def only(*names: str) -> beam.PTransform:
    """Copies of tracks that hold just these fields, so that a branch can release them."""

    def copy(track: Track) -> Track:
        return Track(track.reference, **{name: getattr(track, name) for name in names})

    return beam.Map(copy).with_output_types(Track)


def keyed(tracks: beam.PCollection, label: str, *names: str) -> beam.PCollection:
    """Copies of tracks that hold just these fields, keyed by element."""

    def with_key(track: Track) -> KeyedTrack:
        fields = {name: getattr(track, name) for name in names}
        return os.fsencode(track.recording.element), Track(track.reference, **fields)

    return tracks | label >> beam.Map(with_key).with_output_types(KeyedTrack)
