"""Receipts and names of the files that the branches leave, and their removal."""

import contextlib
import dataclasses
import errno
import hashlib
import io
import math
import os
from typing import Any, BinaryIO

from ..audio.parts import Part
from ..storage import OutputTree, Storage, StorageError, crc32c_of
from .feature_settings import MIXTURE
from .label_settings import LABELS_JSON, LABELS_TEXT
from .manifest import read_manifest
from .page_script import REPORT
from .records import FileReceipt, Recording
from .settings import COMBINED_PLOT, MIXTURE_PLOT, SplitSettings
from .steps import Step

SCORES_JSON = "scores.json"
CHUNK_S = 20  # of what the page plays, a file each


def feature_plot_name(signal: str) -> str:
    """What the picture of a signal's features is called."""
    return "features.png" if signal == MIXTURE else f"features-{signal}.png"


def report_chunks(duration_s: float) -> int:
    """How many chunks the page has of a recording."""
    return max(1, math.ceil(round(duration_s / CHUNK_S, 9)))


def report_chunk_name(chunk: int) -> str:
    """What the file of a chunk is called."""
    return f"report-{chunk:05d}.js"


class PublishingStep(Step):
    """A step of tracks of which files are published.

    Parameters
    ----------
    settings
        what is to be made of each recording
    tree
        where the files go; its storage reads the recordings, too
    """

    def __init__(self, settings: SplitSettings, tree: OutputTree) -> None:
        self.settings = settings
        self.tree = tree

    def clean_up(self, record: Any) -> None:
        """Remove the files that a failed recording was to have, and that are not published."""
        if not record.part.is_whole:
            return
        with contextlib.suppress(StorageError):
            remove_unfinished(record.recording, self.settings, self.tree)


def remove_unfinished(recording: Recording, settings: SplitSettings, tree: OutputTree) -> None:
    """Remove the files of the branches that are still to do, but for what a manifest names.

    That is published: an earlier run made it, or another try of this one.
    """
    found = read_manifest(tree, recording.folder)
    published_names = {file.name for file in found.content.files} if found else set()
    stems = settings.file_names(recording.folder).values()
    names = {
        "labels": [LABELS_JSON, LABELS_TEXT],
        "stems": [f"{stem}.{settings.stems.format}" for stem in stems],
        "scores": [SCORES_JSON],
        "features": [settings.features.file_name, *map(feature_plot_name, settings.features.of)],
        "report": [REPORT, *map(report_chunk_name, range(report_chunks(recording.duration_s)))],
        "plots": [f"{name}.png" for name in (MIXTURE_PLOT, COMBINED_PLOT, *stems)],
    }
    for branch in recording.todo:
        for name in sorted({*names[branch]} - published_names):
            tree.remove(recording.folder, name)


def require_unchanged(recording: Recording, storage: Storage) -> None:
    """Refuse to publish results of a file in whose place another one lies by now.

    Its results are those of an event of its own, or of the next run, and must not be overwritten.
    What is gone altogether was read in time.

    Raises
    ------
    StorageError
        it has changed
    """
    try:
        found = storage.stat(recording.uri)
    except StorageError as error:
        if error.errno == errno.ENOENT:
            return
        raise
    if found.generation != recording.generation:
        raise StorageError(None, "changed while the job was running: run it again", recording.uri)


def published(
    data: bytes,
    name: str,
    *,
    branch: str,
    stem: str | None,
    duration_s: float | None = None,
) -> FileReceipt:
    """The receipt of a file whose whole content is at hand."""
    receipt = published_file(io.BytesIO(data), name, branch=branch, stem=stem)
    return dataclasses.replace(receipt, duration_s=duration_s)


def published_file(file: BinaryIO, name: str, *, branch: str, stem: str | None) -> FileReceipt:
    """The receipt of a file that is written, and can be read."""
    file.seek(0)
    sha256 = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
    crc32c = crc32c_of(file)
    size_bytes = file.seek(0, os.SEEK_END)
    return FileReceipt(name, branch, stem, sha256, crc32c, size_bytes)


def part_file_name(recording: Recording, part: Part, branch: str, name: str) -> str:
    """Where a part of a long recording leaves a stem, a plot, labels or features."""
    extension = {"stems": "f32", "plots": "npy", "labels": "json", "features": "npz"}[branch]
    return f"{recording.scratch}/{part.index:05d}-{name}.{extension}"
