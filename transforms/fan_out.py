"""The literal graph of Klio's example, with the stems as one more branch, for `join: cogbk`.

It moves whole spectrograms through shuffles, where the fused stage hands one record on; so it is
for excerpts, for comparison, and for those who come from Klio. Its steps are those of the fused
stage: three joins by CoGroupByKey, the subtraction, three chains of plots, and a Flatten of what
they wrote with Distinct.
"""

import dataclasses
import os
from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam
import numpy as np

from ..audio.errors import UnsupportedFormatError
from ..models.separators.nearest_neighbors import mask_options
from ..models.separators.recipes import NearestNeighborRecipe
from ..storage import OutputTree
from .grouping import CoGroupRecords
from .plots import GetSpec, SpecToPlot, UploadPlots
from .publishing import EncodeStems, PublishTrack
from .records import PartReference, Receipt, Track, UploadedPlot
from .separation import (
    PHASE,
    SPECTROGRAM,
    FilterNearestNeighbors,
    GetMagnitude,
    GetSoftMask,
    GetSTFT,
    InverseSTFT,
    SubtractNearest,
)
from .settings import SplitSettings
from .steps import Step, run_step

KeyedTrack = tuple[bytes, Track]
KeyedPlot = tuple[bytes, UploadedPlot]


class SplitByFanOut(beam.PTransform):
    """Tracks of one part with samples to receipts: stems and plots, and the manifest behind them.

    All branches of a recording are made, also where one was done before.
    """

    def __init__(
        self, recipe: NearestNeighborRecipe, settings: SplitSettings, tree: OutputTree
    ) -> None:
        super().__init__()
        self.recipe = recipe
        self.settings = settings
        self.tree = tree

    def expand(self, tracks: beam.PCollection) -> Any:
        """A dict: `receipts`, and `failures`, a list."""
        recipe, settings, tree = self.recipe, self.settings, self.tree
        failures: list[beam.PCollection] = []

        def apply(collection: beam.PCollection, label: str, step: Any, **more: Any) -> Any:
            output_type = more.pop("output_type", Track)
            return run_step(
                collection, step, output_type, failures, label=label, owns_tracks=False, **more
            )

        tracks = apply(tracks, "TakeExcerpt", TakeExcerpt(settings.branches))
        stft = apply(tracks, "GetSTFT", GetSTFT(window_s=recipe.window_s))
        magnitude = apply(stft, "GetMagnitude", GetMagnitude(), tags=(SPECTROGRAM, PHASE))
        full = magnitude[SPECTROGRAM] | "OnlyMagnitude" >> only("magnitude")
        nearest = apply(full, "FilterNearestNeighbors", FilterNearestNeighbors(recipe))
        nearest = nearest | "OnlyNearest" >> only("nearest")
        merged = {"full": full, "nearest": nearest} | "Merge" >> CoGroupTracks()
        net = apply(merged, "SubtractNearest", SubtractNearest()) | "OnlyNet" >> only("net")

        masked = {
            stem: apply(
                {"full": full, "nearest": nearest, "net": net} | f"Merge-{stem}" >> CoGroupTracks(),
                f"GetSoftMask-{stem}",
                GetSoftMask(stem, **mask_options(recipe, stem)),
            )
            | f"OnlyMask-{stem}" >> only("magnitude", "masks")
            for stem in ("background", "foreground")
        }

        shown = {stem: masked[stem] for stem in masked if stem in settings.wanted_stems}
        chains = {"full": full, **shown} if settings.plots.enabled else {}
        uploaded = []
        for name, spectra in chains.items():
            powers = apply(spectra, f"GetSpec-{name}", GetSpec(settings, tree))
            plots = apply(powers, f"SpecToPlot-{name}", SpecToPlot(settings, tree))
            uploaded.append(apply(plots, f"UploadPlots-{name}", UploadPlots(settings, tree)))
        sources = tracks | "OnlySamples" >> only("samples", "binary", "source_sha256")
        phase = magnitude[PHASE] | "OnlyPhase" >> only("phase")
        joined = {**masked, "phase": phase, "samples": sources} | "MergeStems" >> CoGroupTracks()
        stems = apply(joined, "InverseSTFT", InverseSTFT(settings.separated_stems))
        encoded = apply(stems, "EncodeStems", EncodeStems(settings, tree))
        finished = encoded | "OnlyFiles" >> only("source_sha256", "files")
        if uploaded:
            plots = (
                [
                    each
                    | f"Paths-{index}" >> beam.FlatMap(plots_of).with_output_types(UploadedPlot)
                    for index, each in enumerate(uploaded)
                ]
                | "FlattenPaths" >> beam.Flatten()
                | "RemoveDuplicates" >> beam.Distinct()
            )
            finished = {"stems": finished, "plots": plots} | "MergeFiles" >> WithPlots(len(chains))
        receipts = apply(
            finished, "PublishTrack", PublishTrack(settings, tree), output_type=Receipt
        )
        return {"receipts": receipts, "failures": failures}


class TakeExcerpt(Step):
    """Tracks of one part, whose recordings are to be done in all branches."""

    def __init__(self, branches: tuple[str, ...]) -> None:
        self.branches = branches

    def apply(self, record: Track) -> Iterable[Track]:
        """Sets the branches that are to be done."""
        if not record.part.is_whole:
            raise UnsupportedFormatError(
                f"is cut into {record.part.count} parts: join: cogbk is for excerpts of one: set a "
                "shorter separation.duration_s, or leave join out"
            )
        recording = dataclasses.replace(
            record.recording, todo=self.branches, kept=(), kept_branches={}
        )
        record.reference = PartReference(recording, record.part)
        return [record]


class CoGroupTracks(beam.PTransform):
    """Tracks of one recording from several branches, joined by CoGroupByKey into one.

    Takes a dict of PCollections of `Track`, and gives one track with the arrays of all, by their
    element. A recording that failed in one of the branches is left out: its failure is told there.
    An event that comes twice gives as many tracks in each branch, which hold the same.
    """

    def expand(self, branches: Any) -> beam.PCollection:
        """One track with the arrays of all."""
        keyed = {
            name: branch
            | f"Key-{name}"
            >> beam.Map(lambda track: (key_of(track), track)).with_output_types(KeyedTrack)
            for name, branch in branches.items()
        }
        return (
            keyed
            | CoGroupRecords()
            | "Merge" >> beam.FlatMapTuple(lambda _, group: merged(group)).with_output_types(Track)
        )


def key_of(track: Track | UploadedPlot) -> bytes:
    """What the records of one recording meet by: the bytes of its element."""
    return os.fsencode(track.recording.element)


def merged(group: dict[str, list[Track]]) -> Iterator[Track]:
    """One track out of one track of each branch; nothing if a branch has none."""
    for tracks in zip(*group.values(), strict=False):
        whole = Track(tracks[0].reference, work_before_s=max(track.work_s for track in tracks))
        for track in tracks:
            for name, value in vars(track).items():
                if isinstance(value, dict):
                    getattr(whole, name).update(value)
                elif name not in _OWN_FIELDS and (isinstance(value, np.ndarray) or value):
                    setattr(whole, name, value)
        yield whole


_OWN_FIELDS = ("reference", "begun_s", "work_before_s")


class WithPlots(beam.PTransform):
    """Tracks with the files of their stems and, from the other branch, those of their plots.

    Parameters
    ----------
    count
        how many plots a recording has; one that failed in one of them is left out
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def expand(self, branches: Any) -> beam.PCollection:
        """Tracks with all files."""
        keyed = {
            name: branches[name]
            | f"Key-{name}"
            >> beam.Map(lambda record: (key_of(record), record)).with_output_types(keyed_type)
            for name, keyed_type in (("stems", KeyedTrack), ("plots", KeyedPlot))
        }
        return (
            keyed
            | CoGroupRecords()
            | "Merge"
            >> beam.FlatMapTuple(
                lambda _, group, count=self.count: with_plots(group, count)
            ).with_output_types(Track)
        )


def with_plots(group: dict[str, list[Any]], count: int) -> Iterator[Track]:
    """Each track of a recording with the files of all its plots; nothing if some are missing."""
    files = {plot.file: None for plot in group["plots"]}
    for track in group["stems"] if len(files) == count else ():
        track.add_files(*files)
        yield track


def plots_of(track: Track) -> Iterator[UploadedPlot]:
    """The published plots of a track."""
    for file in track.files:
        if file.branch == "plots":
            yield UploadedPlot(track.recording, file)


def only(*names: str) -> beam.PTransform:
    """Copies of tracks with just these fields: what else they hold would cross the shuffles."""

    def copy(track: Track) -> Track:
        kept = {name: getattr(track, name) for name in names}
        return Track(
            track.reference,
            n_fft=track.n_fft,
            hop_length=track.hop_length,
            work_before_s=track.work_s,
            **kept,
        )

    return beam.Map(copy).with_output_types(Track)
