"""Plots of a track: GetSpec, SpecToPlot."""

import io
from collections.abc import Iterable

import numpy as np

from ..audio.drawing import PlotGrid, draw_spectrogram, plot_grid, pool_power
from ..storage import OutputTree
from .loading import samples_of
from .published_files import PublishingStep, part_file_name, published
from .records import FileReceipt, Recording, Track
from .settings import MIXTURE_PLOT, SplitSettings
from .stem_files import plotted_range, stem_grid

MIXTURE = "mixture"


class GetSpec(PublishingStep):
    """The powers of the pixels of the mixture's and the stems' plots."""

    branch = "plots"

    def apply(self, record: Track) -> Iterable[Track]:
        """Sets `powers`, releases `samples` and `stems`."""
        grid = grid_of(record.recording)
        part = record.part
        core = (part.start_sample, part.stop_sample)
        record.powers[MIXTURE] = pool_power(
            samples_of(record), grid, start_sample=part.context_start_sample, core=core
        )
        # What is made in parts is plotted when it is joined, so that the plots show the files.
        joined_later = not part.is_whole and "stems" in record.recording.todo
        grid = stem_grid(record.recording, self.settings.stems)
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
    mixture_grid, grid_of_stems = grid_of(recording), stem_grid(recording, settings.stems)
    peak_db = _peak_db(powers)
    receipts = []
    for name, power in powers.items():
        title = recording.element
        if name != MIXTURE:
            title += f" – {settings.stems.name_of(name)}"
        grid = mixture_grid if name == MIXTURE else grid_of_stems
        png = draw_spectrogram(
            power, grid, title=title, peak_db=peak_db, range_db=settings.plots.range_db
        )
        file_name = (MIXTURE_PLOT if name == MIXTURE else settings.stems.name_of(name)) + ".png"
        tree.write(png, recording.folder, file_name)
        stem = None if name == MIXTURE else name
        receipts.append(published(png, file_name, branch="plots", stem=stem))
    return tuple(receipts)


def grid_of(recording: Recording) -> PlotGrid:
    """The pixels of the plot of a recording itself."""
    return plot_grid(recording.total_samples, recording.info.sample_rate)


def _peak_db(powers: dict[str, np.ndarray]) -> float | None:
    peak = max(float(power.max(initial=0)) for power in powers.values())
    return 10 * float(np.log10(peak)) if peak > 0 else None
