"""Plots of a track: GetSpec, SpecToPlot, UploadPlots."""

import io
from collections.abc import Iterable
from typing import Any

import apache_beam as beam
import numpy as np

from ..audio.pooling import (
    PlotGrid,
    peak_level_db,
    pool_power,
    pool_spectrogram,
    spectrogram_grid,
)
from ..storage import OutputTree
from .feature_settings import MIXTURE
from .published_files import PublishingStep, part_file_name, published
from .records import FileReceipt, Recording, Track, there
from .settings import COMBINED_PLOT, MIXTURE_PLOT, SplitSettings
from .stem_files import grid_of, plotted_range, stem_grid

COMBINED = ""  # no stem is called like it


class PlotStep(PublishingStep):
    """A step between the stems of a track and its plots.

    Parameters
    ----------
    settings
        `plots` has the size and range of the pictures
    tree
        where a job has published files that are removed when this step fails; None: nowhere
    """

    branch = "plots"

    def __init__(
        self, settings: SplitSettings | None = None, tree: OutputTree | None = None
    ) -> None:
        super().__init__(settings or SplitSettings(), tree or OutputTree(""))
        self.has_tree = tree is not None

    def clean_up(self, record: Any) -> None:
        """Remove the files that a failed recording was to have, and that are not published."""
        if self.has_tree:
            super().clean_up(record)


@beam.typehints.with_output_types(Track)
class GetSpec(PlotStep):
    """What a track holds to `powers`, those of the pixels of its plots.

    Of a track with spectra: those of its `magnitude`, or, if it has `masks`, of what each lets
    through of it. Of others: those of its `samples` and `stems`, by windows that suit a picture.
    """

    def apply(self, record: Track) -> Iterable[Track]:
        """Sets `powers`, releases signals and spectra."""
        if record.stft is not None or record.magnitude is not None:
            record.powers |= self._of_spectra(record)
        else:
            record.powers |= self._of_samples(record)
        record.samples = record.stft = record.phase = None
        record.magnitude = record.nearest = record.net = None
        record.masks, record.stems = {}, {}
        return [record]

    def _of_spectra(self, track: Track) -> dict[str, np.ndarray]:
        grid = grid_of_track(track, self.settings)
        magnitude = track.magnitude
        if magnitude is None:
            magnitude = np.abs(there(track.stft, "stft"))
        if not track.masks:
            return {MIXTURE: pool_spectrogram(magnitude, grid)}
        return {
            stem: pool_spectrogram(mask * magnitude, grid) for stem, mask in track.masks.items()
        }

    def _of_samples(self, track: Track) -> dict[str, np.ndarray]:
        grid = grid_of(track.recording, self.settings.plots)
        part = track.part
        core = (part.start_sample, part.stop_sample)
        samples = there(track.samples, "samples")
        start_sample = part.context_start_sample
        powers = {MIXTURE: pool_power(samples, grid, start_sample=start_sample, core=core)}
        # What is made in parts is plotted when it is joined, so that the plots show the files.
        joined_later = not part.is_whole and "stems" in track.recording.todo
        grid = stem_grid(track.recording, self.settings)
        wanted = plotted_range(part, track.recording, grid)
        for stem, samples in () if joined_later else track.stems.items():
            powers[stem] = pool_power(
                samples, grid, start_sample=wanted.start_sample, core=wanted.core
            )
        return powers


def grid_of_track(track: Track, settings: SplitSettings) -> PlotGrid:
    """The pixels of the plots of a track's spectra."""
    return spectrogram_grid(
        grid_of(track.recording, settings.plots),
        n_fft=track.n_fft or 0,
        hop_length=track.hop_length or 0,
    )


@beam.typehints.with_output_types(Track)
class SpecToPlot(PlotStep):
    """`powers` of a whole recording to `plots`, PNG files; those of a part go on as they are.

    Parameters
    ----------
    title
        of the pictures; `{element}` stands for the recording's element, `{stem}` for the stem or
        "mixture". None: its name, and that of the stem
    """

    def __init__(
        self,
        settings: SplitSettings | None = None,
        tree: OutputTree | None = None,
        *,
        title: str | None = None,
    ) -> None:
        super().__init__(settings, tree)
        self.title = title
        if title is not None:
            try:
                title.format(element="", stem="")
            except (KeyError, IndexError, ValueError) as error:
                raise ValueError(
                    f"title {title!r} is no template: {{element}} and {{stem}} are filled in, "
                    "{{ and }} stand for braces"
                ) from error

    def apply(self, record: Track) -> Iterable[Track]:
        """Sets `plots`, releases `powers`."""
        if not record.part.is_whole:
            return [record]
        if record.n_fft is None:
            grids = grids_of_files(record.powers, record.recording, self.settings)
        else:
            grids = dict.fromkeys(record.powers, grid_of_track(record, self.settings))
        titles = {}
        if self.title is not None:
            titles = {
                name: self.title.format(element=record.element, stem=name) for name in record.powers
            }
        record.plots |= draw_plots(
            record.powers, grids, record.recording, self.settings, titles=titles
        )
        record.powers = {}
        return [record]


@beam.typehints.with_output_types(Track)
class UploadPlots(PublishingStep):
    """Writes `plots` into the recording's folder of an output tree, and tells it in `files`.

    They are called `spectrogram.png`, or as their stem. Of a part of a long recording the `powers`
    are left for JoinParts.

    Parameters
    ----------
    settings
        what stems are called
    tree
        `OutputTree(location)`: a folder here, or on `gs://`
    """

    branch = "plots"

    def apply(self, record: Track) -> Iterable[Track]:
        """Adds to `files`, or to `part_files`; releases `plots` and `powers`."""
        record.add_files(*write_plots(record.plots, record.recording, self.settings, self.tree))
        record.plots = {}
        for name, power in record.powers.items():
            file_name = part_file_name(record.recording, record.part, "plots", name)
            data = io.BytesIO()
            np.save(data, power, allow_pickle=False)
            self.tree.write(data.getvalue(), file_name)
            record.add_part_file("plots", name, file_name)
        record.powers = {}
        return [record]


def grids_of_files(
    names: Iterable[str], recording: Recording, settings: SplitSettings
) -> dict[str, PlotGrid]:
    """The pixels of the plots of a recording and of the files of its stems, by name."""
    grid, grid_of_stems = grid_of(recording, settings.plots), stem_grid(recording, settings)
    return {name: grid if name == MIXTURE else grid_of_stems for name in names}


def draw_plots(
    powers: dict[str, np.ndarray],
    grids: dict[str, PlotGrid],
    recording: Recording,
    settings: SplitSettings,
    *,
    titles: dict[str, str] | None = None,
) -> dict[str, bytes]:
    """Draw a recording's plots, all on one colour scale.

    Parameters
    ----------
    powers
        float32 `(rows, columns)` by stem, or "mixture"
    grids
        their pixels
    titles
        those of the pictures that are not to be called by the recording and the stem

    Returns
    -------
    PNG files by stem, or "mixture"; the combined one has no name
    """
    # With it comes matplotlib, which takes a quarter of a second to import.
    from ..audio.drawing import Panel, PlotStyle, draw_spectrogram, draw_spectrograms

    style = PlotStyle(
        start_s=recording.start_sample / recording.info.sample_rate,
        dpi=settings.plots.dpi,
        peak_db=peak_level_db(*powers.values()),
        range_db=settings.plots.range_db,
    )
    names = {stem: settings.stems.name_of(stem) for stem in powers if stem != MIXTURE}
    own_titles = {name: f"{recording.title} – {names[name]}" for name in names}
    titles = {MIXTURE: recording.title, **own_titles, **(titles or {})}
    separator = settings.separation.title
    plots = {}
    if settings.plots.layout != "combined":
        for name, power in powers.items():
            style["subtitle"] = "" if name == MIXTURE else separator
            plots[name] = draw_spectrogram(power, grids[name], title=titles[name], **style)
    if settings.plots.layout != "each":
        panels = [
            Panel(names.get(name, recording.title), power, grids[name])
            for name, power in powers.items()
        ]
        style["subtitle"] = separator if names else ""
        plots[COMBINED] = draw_spectrograms(panels, **style)
    return plots


def write_plots(
    plots: dict[str, bytes], recording: Recording, settings: SplitSettings, tree: OutputTree
) -> tuple[FileReceipt, ...]:
    """Write a recording's plots to its folder."""
    files = {MIXTURE: MIXTURE_PLOT, COMBINED: COMBINED_PLOT}
    files |= settings.file_names(recording.folder)
    receipts = []
    for name, png in plots.items():
        file_name = f"{files[name]}.png"
        tree.write(png, recording.folder, file_name)
        stem = None if name in (MIXTURE, COMBINED) else name
        receipts.append(published(png, file_name, branch="plots", stem=stem))
    return tuple(receipts)
