"""Pictures of features: the waveform above spectra, bands, coefficients and classes, over time."""

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .settings import (
    ChromaSettings,
    CqtSettings,
    FeatureSettings,
    LevelBands,
    MagnitudeSettings,
    MelSettings,
    OnsetSettings,
    PowerSettings,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = 1000
RANGE_DB = 80.0
_SMALLEST = 1e-30
_PITCHES = "C C♯ D D♯ E F F♯ G G♯ A A♯ B".split()


@dataclass(frozen=True)
class FeaturePanel:
    """The features of one set, pooled to the columns of a picture.

    Attributes
    ----------
    name
        of the set
    settings
        its kind and parameters
    values
        `(bins, columns)`: see `pooled_frames`
    """

    name: str
    settings: FeatureSettings
    values: np.ndarray


def is_drawn(settings: FeatureSettings) -> bool:
    """Whether a kind has a picture: phases and complex numbers have none that says something."""
    return settings.kind not in ("phase", "complex")


def pooled_frames(blocks: Iterable[np.ndarray], frames: int) -> np.ndarray:
    """The mean of all frames, and of all channels, that fall on each column of a picture.

    Parameters
    ----------
    blocks
        real, frames first: `(frames, bins)` or `(frames, channels, bins)`, in order
    frames
        of all blocks together

    Returns
    -------
    np.ndarray, shape (bins, columns), float32
        As many columns as frames, at most `COLUMNS`.
    """
    columns = min(frames, COLUMNS)
    total: np.ndarray | None = None
    counts = np.zeros(columns)
    done = 0
    for block in blocks:
        rows = block.mean(axis=1) if block.ndim == 3 else block
        places = np.arange(done, done + len(rows)) * columns // frames
        if total is None:
            total = np.zeros((columns, rows.shape[1]))
        np.add.at(total, places, rows)
        counts += np.bincount(places, minlength=columns)
        done += len(rows)
    if total is None:
        raise ValueError("there are no frames to draw")
    return np.asarray((total / counts[:, np.newaxis]).T, np.float32)


def pooled_waveform(samples: np.ndarray, start_sample: int, total_samples: int) -> np.ndarray:
    """The lowest and highest sample on each column of a picture.

    Parameters
    ----------
    samples
        float32 `(channels, samples)`: a range of a signal
    start_sample, total_samples
        where it begins, and how long the signal is

    Returns
    -------
    np.ndarray, shape (2, COLUMNS), float32
        NaN where the range has no samples; the pictures of ranges are joined by `joined_waveform`.
    """
    pooled = np.full((2, COLUMNS), np.nan, np.float32)
    count = samples.shape[1]
    if not count:
        return pooled
    places = np.arange(start_sample, start_sample + count) * COLUMNS // total_samples
    firsts = np.flatnonzero(np.diff(places, prepend=-1))
    pooled[0, places[firsts]] = np.minimum.reduceat(samples.min(axis=0), firsts)
    pooled[1, places[firsts]] = np.maximum.reduceat(samples.max(axis=0), firsts)
    return pooled


def joined_waveform(pooled: Sequence[np.ndarray]) -> np.ndarray:
    """That of a whole signal, of those of its ranges."""
    lowest = np.fmin.reduce([each[0] for each in pooled])
    return np.stack([lowest, np.fmax.reduce([each[1] for each in pooled])])


def draw_features(
    waveform: np.ndarray, panels: Sequence[FeaturePanel], *, start_s: float, duration_s: float
) -> bytes:
    """Draw the waveform of a signal above its features, on one time axis.

    Parameters
    ----------
    waveform
        `(2, COLUMNS)`: see `joined_waveform`
    panels
        from the top
    start_s, duration_s
        of what is drawn, in seconds

    Returns
    -------
    The bytes of a PNG: the same ones for the same arguments.
    """
    # It takes a third of a second to import.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure((11, 1.7 + 2.1 * len(panels)), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    heights = [1.0, *(0.7 if isinstance(each.settings, OnsetSettings) else 1.6 for each in panels)]
    rows = figure.subplots(
        1 + len(panels), 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": heights}
    )[:, 0]
    times_s = start_s + (np.arange(COLUMNS) + 0.5) * duration_s / COLUMNS
    rows[0].fill_between(times_s, *waveform, linewidth=0.5)
    rows[0].set_title("waveform", loc="left", fontsize="small")
    rows[0].set_ylabel("full scale", fontsize="small")
    for axes, panel in zip(rows[1:], panels, strict=True):
        _draw_panel(figure, axes, panel, start_s, duration_s)
    rows[0].set_xlim(start_s, start_s + duration_s)
    rows[-1].set_xlabel("time (s)", fontsize="small")
    for axes in rows:
        axes.tick_params(labelsize="small")
    data = io.BytesIO()
    figure.savefig(data, format="png", metadata={"Software": None})
    return data.getvalue()


def _draw_panel(
    figure: "Figure", axes: Any, panel: FeaturePanel, start_s: float, duration_s: float
) -> None:
    from matplotlib.ticker import MaxNLocator

    settings, values = panel.settings, panel.values
    kind = "" if panel.name == settings.kind else f" ({settings.kind})"
    axes.set_title(panel.name + kind, loc="left", fontsize="small")
    if isinstance(settings, OnsetSettings):
        columns = values.shape[1]
        times_s = start_s + (np.arange(columns) + 0.5) * duration_s / columns
        axes.plot(times_s, values[0], linewidth=0.8)
        axes.set_ylabel("strength", fontsize="small")
        return
    shown, unit = _shown(settings, values)
    image = axes.imshow(
        shown,
        origin="lower",
        aspect="auto",
        interpolation="nearest",
        extent=(start_s, start_s + duration_s, -0.5, len(shown) - 0.5),
        cmap="magma" if unit else "viridis",
    )
    axes.set_ylabel(_axis_of(settings), fontsize="small")
    axes.yaxis.set_major_locator(MaxNLocator("auto", integer=True))
    if isinstance(settings, ChromaSettings) and len(shown) == len(_PITCHES) and settings.base_c:
        axes.set_yticks(range(len(shown)), _PITCHES)
    bar = figure.colorbar(image, ax=axes, pad=0.01, aspect=12)
    bar.ax.tick_params(labelsize="small")
    if unit:
        bar.set_label(unit, fontsize="small")


def _shown(settings: FeatureSettings, values: np.ndarray) -> tuple[np.ndarray, str]:
    """What is drawn of features, and its unit: levels of what is none, below the highest."""
    if isinstance(settings, MagnitudeSettings | CqtSettings):
        return _levels(values, 20), "dB"
    if isinstance(settings, PowerSettings | MelSettings):
        return _levels(values, 20 / settings.power), "dB"
    return values, "dB" if isinstance(settings, LevelBands) and settings.kind == "log_mel" else ""


def _levels(values: np.ndarray, decibels: float) -> np.ndarray:
    levels = decibels * np.log10(np.maximum(values, _SMALLEST))
    return np.maximum(levels, levels.max() - RANGE_DB)


def _axis_of(settings: FeatureSettings) -> str:
    if isinstance(settings, ChromaSettings):
        return "pitch class"
    if settings.kind == "mfcc":
        return "coefficient"
    return "band" if settings.kind in ("mel", "log_mel") else "bin"
