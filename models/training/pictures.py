"""Pictures of estimates beside what they should be."""

import io

import numpy as np

from ...audio.drawing import Panel, draw_spectrograms
from ...audio.pooling import plot_grid, pool_power

COLUMNS, ROWS = 600, 160


def spectrogram_picture(signals: dict[str, np.ndarray], sample_rate: int, title: str) -> bytes:
    """Spectrograms one below the other, as a PNG.

    Parameters
    ----------
    signals
        float32 `(channels, samples)`, by name, all as long
    """
    grid = plot_grid(next(iter(signals.values())).shape[1], sample_rate, columns=COLUMNS, rows=ROWS)
    panels = [Panel(name, pool_power(each, grid), grid) for name, each in signals.items()]
    return draw_spectrograms(panels, subtitle=title)


def waveform_picture(estimate: np.ndarray, true: np.ndarray, sample_rate: int, title: str) -> bytes:
    """An estimate, the true signal, and one over the other, as a PNG.

    Parameters
    ----------
    estimate, true
        float32 `(channels, samples)`; the mean of the channels is drawn
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure((8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(3, sharex=True, sharey=True)
    time_s = np.arange(true.shape[1]) / sample_rate
    lines = {"estimate": (estimate.mean(axis=0), "C0"), "true": (true.mean(axis=0), "C1")}
    for axis, names in zip(axes, (["estimate"], ["true"], ["true", "estimate"]), strict=True):
        for name in names:
            samples, colour = lines[name]
            axis.plot(time_s, samples, colour, label=name, linewidth=0.6, alpha=0.8)
        axis.legend(loc="upper right")
    # Names of stems are text, whatever signs they hold.
    axes[0].set_title(title, parse_math=False)
    axes[-1].set_xlabel("seconds")
    content = io.BytesIO()
    figure.savefig(content, format="png", metadata={"Software": None})
    return content.getvalue()
