"""What the files of a recording's stems hold: their format, and where a part lies in them.

Stems may have another sample rate than the recording. Their plots are those of what the files
hold, at the files' own rate.
"""

from dataclasses import dataclass

import numpy as np

from ..audio.decoding.audio_reader import AudioInfo, read_audio
from ..audio.parts import Part
from ..audio.plot_layout import plot_area
from ..audio.pooling import PlotGrid, plot_grid
from ..audio.resampling import rounded_length
from ..audio.stem_format import StemFormat, choose_format
from ..storage import OutputTree
from .records import Recording
from .settings import PlotSettings, SplitSettings, StemSettings


def format_of(info: AudioInfo, stems: StemSettings) -> StemFormat:
    """The format of a recording's stems.

    Raises
    ------
    UnsupportedFormatError
        it can't hold the recording's channels or sample rate
    """
    return choose_format(
        stems.format,
        info=info,
        bit_depth=stems.bit_depth,
        sample_rate=stems.sample_rate,
        bit_rate_kbps=stems.bit_rate_kbps,
        quality=stems.quality,
    )


def grid_of(recording: Recording, plots: PlotSettings) -> PlotGrid:
    """The pixels of the plot of a recording itself."""
    return _grid(recording.total_samples, recording.info.sample_rate, plots)


def stem_grid(recording: Recording, settings: SplitSettings) -> PlotGrid:
    """The pixels of the plots of a recording's stems."""
    rate = format_of(recording.info, settings.stems).sample_rate
    samples = rounded_length(recording.total_samples, recording.info.sample_rate, rate)
    return _grid(samples, rate, settings.plots)


def _grid(samples: int, sample_rate: int, plots: PlotSettings) -> PlotGrid:
    columns, rows = plot_area(plots.width, plots.height, dpi=plots.dpi)
    return plot_grid(samples, sample_rate, columns=columns, rows=rows)


@dataclass(frozen=True)
class PlottedRange:
    """What of a stem's file the plot of one part is made of, in the file's samples.

    `core` are those that are the part's own, `start_sample` to `stop_sample` those that the windows
    reach.
    """

    core: tuple[int, int]
    start_sample: int
    stop_sample: int


def plotted_range(part: Part, recording: Recording, grid: PlotGrid) -> PlottedRange:
    """Where a part lies in the files of the stems."""
    start, stop = (
        position * grid.total_samples // recording.total_samples
        for position in (part.start_sample, part.stop_sample)
    )
    reach = grid.n_fft // 2
    return PlottedRange((start, stop), max(0, start - reach), min(grid.total_samples, stop + reach))


def read_plotted(
    name: str, part: Part, recording: Recording, grid: PlotGrid, tree: OutputTree
) -> np.ndarray:
    """What the plot of a part is made of, read from a stem's file.

    Returns
    -------
    np.ndarray, shape (channels, samples), float32
    """
    wanted = plotted_range(part, recording, grid)
    with tree.reading(recording.folder, name) as file:
        return read_audio(
            file,
            name=name,
            start_sample=wanted.start_sample,
            frames=wanted.stop_sample - wanted.start_sample,
        )
