"""Labels of a model that annotates recordings: WriteLabels, joining those of parts, the table."""

import csv
import dataclasses
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import apache_beam as beam

from ..models.separators.base import Label
from ..storage import OutputTree
from .label_settings import LABELS_JSON, LABELS_TEXT
from .plain import from_plain, to_plain
from .published_files import (
    PublishingStep,
    part_file_name,
    published,
    require_unchanged,
)
from .records import FileReceipt, FolderLabels, LabelShare, Recording, Track

UNCERTAIN = "uncertain"
TABLE = "labels.csv"
COLUMNS = ("recording", "label", "share", "longest_s", "confidence")
# Stretches that are no further apart are one: times are rounded to this.
TOGETHER_S = 1e-6


class WriteLabels(PublishingStep):
    """Labels to files; of a part of a long recording, to a file for JoinParts."""

    branch = "labels"

    def apply(self, record: Track) -> Iterable[Track]:
        """Adds to `files`, or to `part_files`."""
        uncertain = self.settings.labels.uncertain
        if record.part.is_whole:
            require_unchanged(record.recording, self.tree.storage)
            record.add_files(*write_labels(record.labels, record.recording, self.tree, uncertain))
        else:
            name = part_file_name(record.recording, record.part, "labels", "labels")
            self.tree.write(json.dumps([*map(to_plain, record.labels)]).encode(), name)
            record.add_part_file("labels", "labels", name)
        record.labels = ()
        return [record]


def read_part_labels(name: str, tree: OutputTree) -> list[Label]:
    """The labels that a part has left."""
    return [from_plain(Label, each) for each in json.loads(tree.read(name))]


def write_labels(
    labels: Sequence[Label], recording: Recording, tree: OutputTree, uncertain: float | None
) -> tuple[FileReceipt, ...]:
    """Write a recording's labels: as JSON, and as a label track that Audacity imports.

    Parameters
    ----------
    uncertain
        labels of less confidence are called `uncertain`; None: none are
    """
    doubtful = [
        uncertain is not None and each.confidence is not None and each.confidence < uncertain
        for each in labels
    ]
    told = [
        dataclasses.replace(each, text=UNCERTAIN) if is_doubtful else each
        for each, is_doubtful in zip(labels, doubtful, strict=True)
    ]
    plain = [
        {
            "start_s": round(each.start_s, 6),
            "end_s": round(each.end_s, 6),
            "label": each.text,
            **({} if each.confidence is None else {"confidence": round(each.confidence, 6)}),
            **({"candidate": model_label.text} if is_doubtful else {}),
        }
        for each, model_label, is_doubtful in zip(told, labels, doubtful, strict=True)
    ]
    # A label track has a label a line.
    lines = [
        f"{each.start_s:.6f}\t{each.end_s:.6f}\t{' '.join(each.text.split())}\n" for each in told
    ]
    contents = {
        LABELS_JSON: (json.dumps(plain, indent=1, ensure_ascii=False) + "\n").encode(),
        LABELS_TEXT: "".join(lines).encode(),
    }
    for name, data in contents.items():
        tree.write(data, recording.folder, name)
    receipts = [
        published(data, name, branch="labels", stem=None, duration_s=recording.duration_s)
        for name, data in contents.items()
    ]
    shares = shares_of(told, recording.duration_s)
    return (dataclasses.replace(receipts[0], labels=shares), *receipts[1:])


def shares_of(labels: Sequence[Label], duration_s: float) -> tuple[LabelShare, ...]:
    """How much of a recording each label has, the largest share first.

    Parameters
    ----------
    labels
        in any order; those of one text may overlap
    duration_s
        of the recording, seconds
    """
    by_text: dict[str, list[Label]] = {}
    for label in sorted(labels, key=lambda each: (each.start_s, each.end_s)):
        by_text.setdefault(label.text, []).append(label)
    shares = []
    for text, stretches in by_text.items():
        lengths_s = [end_s - start_s for start_s, end_s in _united(stretches)]
        share, longest_s = sum(lengths_s) / duration_s, max(lengths_s)
        shares.append(
            LabelShare(text, round(share, 6), round(longest_s, 6), _mean_confidence(stretches))
        )
    return tuple(sorted(shares, key=lambda each: (-each.share, each.label)))


def _united(labels: Iterable[Label]) -> list[tuple[float, float]]:
    """The stretches of time that labels cover together; the labels are in order."""
    united: list[tuple[float, float]] = []
    for label in labels:
        if united and label.start_s <= united[-1][1] + TOGETHER_S:
            united[-1] = united[-1][0], max(united[-1][1], label.end_s)
        else:
            united.append((label.start_s, label.end_s))
    return united


def _mean_confidence(labels: Sequence[Label]) -> float | None:
    told = [
        (each.confidence, each.end_s - each.start_s)
        for each in labels
        if each.confidence is not None
    ]
    total_s = sum(seconds for _, seconds in told)
    if not total_s:
        return None
    return round(sum(confidence * seconds for confidence, seconds in told) / total_s, 6)


@dataclass
class WriteLabelTable(beam.PTransform):
    """Receipts of all recordings to one table of their labels, beside `run.json`."""

    tree: OutputTree

    def expand(self, receipts: beam.PCollection) -> beam.PCollection:
        """Receipts to nothing that is of use."""
        tree = self.tree
        return (
            receipts
            | "LabelsIn"
            >> beam.Map(
                lambda receipt: (0, labels_in(receipt.folder, receipt.files))
            ).with_output_types(tuple[int, FolderLabels])
            | "AllLabels" >> beam.GroupByKey()
            | "WriteTable" >> beam.MapTuple(lambda _, found: write_label_table(found, tree))
        )


def labels_in(folder: str, files: Iterable[FileReceipt]) -> FolderLabels:
    """Those of a finished recording."""
    return FolderLabels(folder, tuple(each for file in files for each in file.labels))


def write_label_table(found: Iterable[FolderLabels], tree: OutputTree) -> None:
    """Write the table of the labels of all recordings; an event that came twice counts once."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for folder, shares in sorted({each.folder: each.shares for each in found}.items()):
        for each in shares:
            row = (each.share, each.longest_s, each.confidence)
            writer.writerow([folder, each.label, *row])
    tree.write(text.getvalue().encode("utf-8", "surrogateescape"), TABLE)
