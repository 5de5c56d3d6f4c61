"""Receipts and names of the files that the branches leave."""

import hashlib

from ..audio.parts import Part
from .records import FileReceipt, Recording
from .storage import WORK_FOLDER


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
        size_bytes=len(data),
        frames=frames,
        duration_s=duration_s,
        clipped_samples=clipped_samples,
    )


def part_file_names(recording: Recording, part: Part, branch: str, name: str) -> tuple[str, ...]:
    """Where a part of a long recording leaves a stem or a plot until the parts are joined."""
    extension = "f32" if branch == "stems" else "npy"
    return (
        WORK_FOLDER,
        "parts",
        *recording.folder.split("/"),
        f"{part.index:05d}-{name}.{extension}",
    )
