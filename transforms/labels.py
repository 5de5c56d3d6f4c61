"""Labels of a model that annotates recordings: WriteLabels, and joining those of parts."""

import json
from collections.abc import Iterable, Sequence

from ..storage import OutputTree
from .published_files import (
    LABELS_JSON,
    LABELS_TEXT,
    PublishingStep,
    part_file_name,
    published,
    require_unchanged,
)
from .records import FileReceipt, Recording, Track

PartLabels = Sequence[tuple[float, float, str]]


class WriteLabels(PublishingStep):
    """Labels to files; of a part of a long recording, to a file for JoinParts."""

    branch = "labels"

    def apply(self, record: Track) -> Iterable[Track]:
        """Adds to `files`, or to `part_files`."""
        if record.part.is_whole:
            require_unchanged(record.recording, self.tree.storage)
            record.add_files(*write_labels(record.labels, record.recording, self.tree))
        else:
            name = part_file_name(record.recording, record.part, "labels", "labels")
            self.tree.write(json.dumps(record.labels).encode(), name)
            record.add_part_file("labels", "labels", name)
        return [record]


def read_part_labels(name: str, tree: OutputTree) -> PartLabels:
    """The labels that a part has left."""
    return [(start_s, end_s, text) for start_s, end_s, text in json.loads(tree.read(name))]


def write_labels(
    labels: PartLabels, recording: Recording, tree: OutputTree
) -> tuple[FileReceipt, ...]:
    """Write a recording's labels: as JSON, and as a label track that Audacity imports."""
    plain = [
        {"start_s": round(start_s, 6), "end_s": round(end_s, 6), "label": text}
        for start_s, end_s, text in labels
    ]
    # A label track has a label a line.
    lines = [
        f"{each['start_s']:.6f}\t{each['end_s']:.6f}\t{' '.join(str(each['label']).split())}\n"
        for each in plain
    ]
    contents = {
        LABELS_JSON: (json.dumps(plain, indent=1, ensure_ascii=False) + "\n").encode(),
        LABELS_TEXT: "".join(lines).encode(),
    }
    for name, data in contents.items():
        tree.write(data, recording.folder, name)
    return tuple(
        published(data, name, branch="labels", stem=None, duration_s=recording.duration_s)
        for name, data in contents.items()
    )
