"""Pictures of scores: their distributions over tracks, and two systems side by side."""

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from .measures import LOWER_IS_BETTER, title_of
from .tables import Key, Values

DPI = 120
MOST_POINTS = 20_000


def distributions_png(values: Values, measure: str, span: str) -> bytes | None:
    """Boxes over tracks, for each stem and system; None if there is nothing to draw."""
    systems = [name for name, keys in values.items() if _keys_of(keys, measure, span)]
    stems = sorted({key[0] for name in systems for key in _keys_of(values[name], measure, span)})
    if not stems:
        return None
    figure, axes = new_figure(max(4.0, 1.5 + 0.7 * len(stems) * (len(systems) + 0.5)), 4.2)
    for number, system in enumerate(systems):
        drawn, places = [], []
        for place, stem in enumerate(stems):
            scores = _scores(values[system].get((stem, measure, span), {}))
            if scores.size:
                drawn.append(scores)
                places.append(place + (number + 0.5) / len(systems) * 0.8 - 0.4)
        color = f"C{number}"
        boxes = axes.boxplot(
            drawn,
            positions=places,
            widths=0.7 / len(systems),
            patch_artist=True,
            flierprops={"marker": ".", "markeredgecolor": color},
            medianprops={"color": "black"},
        )
        for box in boxes["boxes"]:
            box.set(facecolor=color, alpha=0.6)
        axes.plot([], [], color=color, linewidth=6, alpha=0.6, label=plain_text(system))
    axes.set_xticks(range(len(stems)), [plain_text(stem) for stem in stems])
    axes.set_ylabel(title_of(measure))
    axes.grid(axis="y", alpha=0.3)
    axes.legend(frameon=False, fontsize="small")
    return png_of(figure)


def side_by_side_png(
    values: Values, first: str, second: str, measure: str, span: str
) -> bytes | None:
    """A point for each track that both systems have, for each stem; None if there is none."""
    figure, axes = new_figure(4.6, 4.4)
    low, high = math.inf, -math.inf
    for number, key in enumerate(sorted(_keys_of(values.get(first, {}), measure, span))):
        ours, theirs = values[first][key], values.get(second, {}).get(key, {})
        pairs = np.array([[theirs[t][0], ours[t][0]] for t in ours if t in theirs])
        pairs = pairs[np.isfinite(pairs).all(axis=1)] if pairs.size else pairs
        if pairs.size:
            axes.plot(*pairs[:MOST_POINTS].T, ".", color=f"C{number}", alpha=0.7, label=key[0])
            low, high = min(low, pairs.min()), max(high, pairs.max())
    if low > high:
        return None
    room = 0.05 * (high - low) + 0.1
    limits = low - room, high + room
    axes.plot(limits, limits, color="gray", linewidth=0.8)
    axes.set(xlim=limits, ylim=limits, aspect="equal")
    axes.set_xlabel(f"{plain_text(second)}: {title_of(measure)}")
    axes.set_ylabel(f"{plain_text(first)}: {title_of(measure)}")
    better = "below" if measure in LOWER_IS_BETTER else "above"
    axes.set_title(f"{better} the line, {plain_text(first)} is better", fontsize="small")
    axes.legend(frameon=False, fontsize="small")
    return png_of(figure)


def over_time_png(frames: Mapping[str, Sequence[float]], measure: str, hop_s: float) -> bytes:
    """The scores of a track's stems, frame by frame."""
    figure, axes = new_figure(7.5, 3.2, layout=None)
    # To find room for the labels takes half of the time, of a picture that each track has.
    figure.subplots_adjust(left=0.1, right=0.985, bottom=0.15, top=0.97)
    for stem, scores in frames.items():
        axes.plot(np.arange(len(scores)) * hop_s, scores, label=plain_text(stem), linewidth=1)
    axes.set_xlabel("time (s)")
    axes.set_ylabel(title_of(measure))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize="small", ncols=4)
    return png_of(figure)


def _keys_of(keys: dict[Key, dict[str, tuple[float, float]]], measure: str, span: str) -> list[Key]:
    return [key for key in keys if key[1:] == (measure, span)]


def _scores(by_track: dict[str, tuple[float, float]]) -> np.ndarray:
    values = np.array([score for score, _ in by_track.values()])
    return values[np.isfinite(values)]


def plain_text(text: str) -> str:
    """A text without what matplotlib takes for mathematics."""
    return text.replace("$", r"\$")


def new_figure(
    width: float, height: float, *, layout: Literal["constrained"] | None = "constrained"
) -> tuple[Any, Any]:
    """A figure of so many inches with its axes, which belongs to no window."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure((width, height), dpi=DPI, layout=layout)
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def png_of(figure: Any) -> bytes:
    """A figure as PNG, the same bytes each time."""
    output = io.BytesIO()
    # What names the program's version would differ from machine to machine.
    figure.savefig(output, format="png", metadata={"Software": None})
    return output.getvalue()
