"""What a classifier is worth: figures of validation and test, each beside a baseline."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..evaluation.plots import new_figure, plain_text, png_of
from .figures import Figures, baseline_probabilities, figures_of, of_recordings
from .label_table import Split

REPORT_JSON = "report.json"
REPORT_MARKDOWN = "report.md"
FORMAT = 1
# What the four counts of a label are, where there may be several labels at once.
OUTCOMES = ("rightly not", "found wrongly", "missed", "found")
# Of more labels what was taken for what is in the JSON file only.
MOST_SHOWN = 40


@dataclass(frozen=True)
class SideResult:
    """What a classifier gave on a side of the split.

    Attributes
    ----------
    recordings
        which one each excerpt is of
    targets
        `(excerpts, labels)`, 1 where it has a label
    probabilities
        float `(excerpts, labels)`
    """

    recordings: Sequence[str]
    targets: np.ndarray
    probabilities: np.ndarray


@dataclass(frozen=True)
class Compared:
    """Figures of a classifier, and of one that gives the most frequent label always."""

    classifier: Figures
    baseline: Figures


@dataclass(frozen=True)
class Report:
    """Figures of each side: of excerpts, and of recordings by the mean of their excerpts."""

    labels: tuple[str, ...]
    multi_label: bool
    sides: dict[Split, dict[str, Compared]]

    @property
    def content(self) -> dict[str, Any]:
        """As `report.json` has it."""
        sides = {
            side: {unit: asdict(each) for unit, each in units.items()}
            for side, units in self.sides.items()
        }
        return {
            "format": FORMAT,
            "labels": list(self.labels),
            "multi_label": self.multi_label,
            "sides": sides,
        }


def make_report(
    labels: Sequence[str],
    training: SideResult,
    results: Mapping[Split, SideResult],
    *,
    multi_label: bool,
) -> Report:
    """Compare a classifier with the baseline.

    Parameters
    ----------
    training
        whose targets the baseline knows; its probabilities are not used
    results
        of validation and test; sides without excerpts are left out
    """
    sides = {
        side: {
            unit: Compared(
                figures_of(targets, probabilities, multi_label=multi_label),
                figures_of(
                    targets,
                    baseline_probabilities(of_training, len(targets)),
                    multi_label=multi_label,
                ),
            )
            for unit, (targets, probabilities), (of_training, _) in zip(
                ("excerpts", "recordings"), _units(result), _units(training), strict=True
            )
        }
        for side, result in results.items()
        if len(result.targets)
    }
    return Report(tuple(labels), multi_label, sides)


def _units(result: SideResult) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    own = result.targets, result.probabilities
    return own, of_recordings(result.recordings, *own)


def report_files(report: Report) -> Iterator[tuple[str, bytes]]:
    """Names and contents: JSON, Markdown, and pictures of the confusion on each side."""
    yield (
        REPORT_JSON,
        (json.dumps(report.content, indent=2, ensure_ascii=False) + "\n").encode(),
    )
    yield REPORT_MARKDOWN, markdown_text(report).encode()
    if len(report.labels) > MOST_SHOWN:
        return
    for side, units in report.sides.items():
        for unit, compared in units.items():
            yield (
                f"plots/confusion-{side}-{unit}.png",
                confusion_png(report, compared.classifier, f"{side}, {unit}"),
            )


ROW_HEAD = ("side", "of", "count", "figure", "classifier", "baseline")


def figure_rows(report: Report) -> Iterator[tuple[str, ...]]:
    """A row a figure, with the baseline beside it: the columns of `ROW_HEAD`."""
    for side, units in report.sides.items():
        for unit, compared in units.items():
            for name, title in (
                ("balanced_accuracy", "balanced accuracy"),
                ("auroc", "AUROC"),
                ("accuracy", "accuracy"),
            ):
                figures = compared.classifier, compared.baseline
                values = (_shown(getattr(each, name)) for each in figures)
                yield (side, unit, str(compared.classifier.count), title, *values)


def markdown_text(report: Report) -> str:
    """The report for people."""
    lines = [
        "# Report",
        "",
        "No recording, and no group of recordings, is on two sides. Figures of recordings are of "
        "the mean probabilities of their excerpts. The baseline gives the most frequent label of "
        "the training, always. Validation chose the epoch: figures of the test are those to quote.",
        "",
        *_table(ROW_HEAD, figure_rows(report)),
    ]
    for side, units in report.sides.items():
        for unit, compared in units.items():
            figures = compared.classifier
            lines += ["", f"## {side}, {unit}", ""]
            lines += _table(
                ("label", "count", "recall", "AUROC"),
                (
                    (label, str(each.count), _shown(each.recall), _shown(each.auroc))
                    for label, each in zip(report.labels, figures.labels, strict=True)
                ),
            )
            if len(report.labels) > MOST_SHOWN:
                continue
            columns = OUTCOMES if report.multi_label else report.labels
            head = "label" if report.multi_label else "true, found as"
            lines += ["", *_table((head, *columns), _confusion_rows(report, figures))]
    return "\n".join(lines) + "\n"


def _confusion_rows(report: Report, figures: Figures) -> Iterator[tuple[str, ...]]:
    for label, counts in zip(report.labels, figures.confusion, strict=True):
        yield (label, *map(str, counts))


def _table(head: Sequence[str], rows: Iterator[tuple[str, ...]]) -> list[str]:
    lines = ["| " + " | ".join(map(_escaped, row)) + " |" for row in (head, *rows)]
    return [lines[0], "|---" * len(head) + "|", *lines[1:]]


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def confusion_png(report: Report, figures: Figures, title: str) -> bytes:
    """Counts of what was taken for what, coloured by their share of the row."""
    counts = np.array(figures.confusion)
    columns = OUTCOMES if report.multi_label else report.labels
    size = 1.6 + 0.6 * max(len(columns), len(report.labels))
    figure, axes = new_figure(max(4.0, size + 1), max(3.4, size))
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        color = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, f"{count}", ha="center", va="center", color=color)
    axes.set_xticks(range(len(columns)), [plain_text(each) for each in columns], rotation=45)
    axes.set_yticks(range(len(report.labels)), [plain_text(each) for each in report.labels])
    axes.set_xlabel("" if report.multi_label else "found")
    axes.set_ylabel("label" if report.multi_label else "true")
    axes.set_title(title, fontsize="medium")
    return png_of(figure)
