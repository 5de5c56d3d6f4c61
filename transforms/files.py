"""Receipts and names of the files that the branches leave, and their removal."""

import contextlib
import hashlib
import io
from typing import Any

from ..audio.parts import Part
from .manifest import NAME
from .records import FileReceipt, Recording
from .settings import MIXTURE_PLOT, SplitSettings
from .steps import Step
from .storage import OutputTree, StorageError, crc32c_of, scratch_names

LABELS_JSON, LABELS_TEXT = "labels.json", "labels.txt"


class PublishingStep(Step):
    """A step of tracks of which files are published; those of a failed one are removed."""

    def __init__(self, settings: SplitSettings, output_location: str) -> None:
        self.settings = settings
        self.tree = OutputTree(output_location)

    def clean_up(self, record: Any) -> None:
        """Remove the files that the failed recording was to have, but for finished branches."""
        if not record.part.is_whole:
            return
        with contextlib.suppress(StorageError):
            remove_unfinished(record.recording, self.settings, self.tree)


def remove_unfinished(recording: Recording, settings: SplitSettings, tree: OutputTree) -> None:
    """Remove the files of the branches that are still to do."""
    stems = [settings.stems.name_of(stem) for stem in settings.wanted_stems]
    names = {
        "labels": [LABELS_JSON, LABELS_TEXT],
        "stems": [f"{stem}.{settings.stems.format}" for stem in stems],
        "plots": [f"{name}.png" for name in (MIXTURE_PLOT, *stems)],
    }
    for branch in recording.todo:
        for name in names[branch]:
            tree.remove(recording.folder, name)


def withdraw(recording: Recording, tree: OutputTree) -> None:
    """Remove the stale files of a recording whose stems or labels are made anew, then its manifest.

    Otherwise the old manifest could match new files of the same size, if the job is killed before
    it writes the new one.
    """
    if recording.stale:
        for name in (*recording.stale, NAME):
            tree.remove(recording.folder, name)


def published(
    data: bytes,
    name: str,
    *,
    branch: str,
    stem: str | None,
    frames: int | None = None,
    duration_s: float | None = None,
    clipped_samples: int | None = None,
) -> FileReceipt:
    """The receipt of a file whose whole content is at hand."""
    return FileReceipt(
        name=name,
        branch=branch,
        stem=stem,
        sha256=hashlib.sha256(data).hexdigest(),
        crc32c=crc32c_of(io.BytesIO(data)),
        size_bytes=len(data),
        frames=frames,
        duration_s=duration_s,
        clipped_samples=clipped_samples,
    )


def part_file_names(recording: Recording, part: Part, branch: str, name: str) -> tuple[str, ...]:
    """Where a part of a long recording leaves a stem, a plot or labels until all are joined."""
    extension = {"stems": "f32", "plots": "npy", "labels": "json"}[branch]
    return (
        *scratch_names(),
        "parts",
        *recording.folder.split("/"),
        f"{part.index:05d}-{name}.{extension}",
    )
