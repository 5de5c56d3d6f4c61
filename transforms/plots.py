"""Plots of a track: GetSpec, SpecToPlot."""

import io
from collections.abc import Iterable

import numpy as np

from ..audio.drawing import (
    Panel,
    PlotStyle,
    draw_spectrogram,
    draw_spectrograms,
    peak_level_db,
    pool_power,
)
from ..models.separators.by_name import is_package
from ..storage import OutputTree
from .loading import samples_of
from .published_files import PublishingStep, part_file_name, published
from .records import FileReceipt, Recording, Track
from .settings import COMBINED_PLOT, MIXTURE_PLOT, SplitSettings
from .stem_files import grid_of, plotted_range, stem_grid

MIXTURE = "mixture"


class GetSpec(PublishingStep):
    """The powers of the pixels of the mixture's and the stems' plots."""

    branch = "plots"

    def apply(self, record: Track) -> Iterable[Track]:
        """Sets `powers`, releases `samples` and `stems`."""
        grid = grid_of(record.recording, self.settings.plots)
        part = record.part
        core = (part.start_sample, part.stop_sample)
        record.powers[MIXTURE] = pool_power(
            samples_of(record), grid, start_sample=part.context_start_sample, core=core
        )
        # What is made in parts is plotted when it is joined, so that the plots show the files.
        joined_later = not part.is_whole and "stems" in record.recording.todo
        grid = stem_grid(record.recording, self.settings)
        wanted = plotted_range(part, record.recording, grid)
        for stem, samples in () if joined_later else record.stems.items():
            record.powers[stem] = pool_power(
                samples, grid, start_sample=wanted.start_sample, core=wanted.core
            )
        record.samples = None
        record.stems = {}
        return [record]


class SpecToPlot(PublishingStep):
    """Powers to PNG files; of a part of a long recording, to files for JoinParts."""

    branch = "plots"

    def apply(self, record: Track) -> Iterable[Track]:
        """Adds to `files`, or to `part_files`; releases `powers`."""
        if record.part.is_whole:
            record.add_files(*draw_plots(record.powers, record.recording, self.settings, self.tree))
        else:
            for name, power in record.powers.items():
                file_name = part_file_name(record.recording, record.part, "plots", name)
                data = io.BytesIO()
                np.save(data, power, allow_pickle=False)
                self.tree.write(data.getvalue(), file_name)
                record.add_part_file("plots", name, file_name)
        record.powers = {}
        return [record]


def draw_plots(
    powers: dict[str, np.ndarray], recording: Recording, settings: SplitSettings, tree: OutputTree
) -> tuple[FileReceipt, ...]:
    """Draw and write a recording's plots, all on one colour scale."""
    grid, grid_of_stems = grid_of(recording, settings.plots), stem_grid(recording, settings)
    style = PlotStyle(
        start_s=recording.start_sample / recording.info.sample_rate,
        dpi=settings.plots.dpi,
        peak_db=peak_level_db(*powers.values()),
        range_db=settings.plots.range_db,
    )
    separator = _separator_in_title(settings)
    names = {stem: settings.stems.name_of(stem) for stem in powers if stem != MIXTURE}
    files = settings.file_names(recording.folder)
    receipts = []

    def write(png: bytes, name: str, stem: str | None) -> None:
        tree.write(png, recording.folder, f"{name}.png")
        receipts.append(published(png, f"{name}.png", branch="plots", stem=stem))

    if settings.plots.layout != "combined":
        png = draw_spectrogram(powers[MIXTURE], grid, title=recording.title, **style)
        write(png, MIXTURE_PLOT, None)
        style["subtitle"] = separator
        for stem, name in names.items():
            title = f"{recording.title} – {name}"
            png = draw_spectrogram(powers[stem], grid_of_stems, title=title, **style)
            write(png, files[stem], stem)
    if settings.plots.layout != "each":
        panels = [Panel(recording.title, powers[MIXTURE], grid)]
        panels += [Panel(name, powers[stem], grid_of_stems) for stem, name in names.items()]
        style["subtitle"] = separator if names else ""
        write(draw_spectrograms(panels, **style), COMBINED_PLOT, None)
    return tuple(receipts)


def _separator_in_title(settings: SplitSettings) -> str:
    """The separator's name; of a model package only its folder's, wherever that lies."""
    names = (each.name for each in settings.separation.separators)
    return " + ".join(
        name.rstrip("/").rpartition("/")[2] if is_package(name) else name for name in names
    )
