"""The manifest of a finished recording: what was made, of what, by which job."""

import dataclasses
import json
import os
from dataclasses import dataclass
from typing import Any

from .. import __version__
from ..storage import OutputTree, StorageError, read_bytes
from .plain import from_plain, to_plain
from .records import FileReceipt, Recording

NAME = "manifest.json"
FORMAT = 1


@dataclass(frozen=True)
class Manifest:
    """What `manifest.json` says: the input's generation, digests by branch, and the files.

    `written_ns` is when it was written, where storage has no checksums to compare.
    """

    generation: str
    duration_s: float
    digests: dict[str, str]
    files: tuple[FileReceipt, ...]
    written_ns: int | None


def manifest_json(
    recording: Recording,
    files: tuple[FileReceipt, ...],
    *,
    source_sha256: str,
    digests: dict[str, str],
) -> dict[str, Any]:
    """The content of a finished recording's manifest."""
    info = recording.info
    return {
        "format": FORMAT,
        "beamsplitter": __version__,
        "input": {
            "element": recording.element,
            "uri": recording.uri,
            "generation": recording.generation,
            "sha256": source_sha256,
            "size_bytes": recording.size_bytes,
            "container": info.container,
            "codec": info.codec,
            "sample_rate": info.sample_rate,
            "channels": info.channels,
            "start_sample": recording.start_sample,
            "frames": recording.total_samples,
            "duration_s": recording.duration_s,
        },
        "digests": digests,
        "files": [to_plain(file) for file in files],
    }


def read_manifest(tree: OutputTree, folder: str) -> Manifest | None:
    """The manifest in a recording's folder; None where there is none that can be read."""
    # Before it is read: one that takes its place in between is the newer one.
    written_ns = tree.written_ns(folder, NAME)
    try:
        plain = json.loads(read_bytes(tree.path(folder, NAME)))
        if plain["format"] != FORMAT:
            return None
        return Manifest(
            generation=plain["input"]["generation"],
            duration_s=plain["input"]["duration_s"],
            digests=dict(plain["digests"]),
            files=tuple(from_plain(FileReceipt, file) for file in plain["files"]),
            written_ns=written_ns,
        )
    except (StorageError, ValueError, KeyError, TypeError):
        return None


def finished_branches(
    manifest: Manifest, tree: OutputTree, folder: str, digests: dict[str, str], generation: str
) -> set[str]:
    """The branches whose settings are those of the manifest and whose files are all there."""
    if manifest.generation != generation:
        return set()
    complete = {
        branch for branch, digest in digests.items() if manifest.digests.get(branch) == digest
    }
    return {
        branch
        for branch in complete
        if all(
            tree.has(
                folder,
                file.name,
                size_bytes=file.size_bytes,
                crc32c=file.crc32c,
                written_ns=manifest.written_ns,
            )
            for file in manifest.files
            if file.branch == branch
        )
    }


def result_names(path: str) -> set[str]:
    """Names without extension of a recording's results in a folder; none without a manifest."""
    try:
        plain = json.loads(read_bytes(f"{path}/{NAME}"))
        if plain["format"] != FORMAT or "digests" not in plain:
            return set()
        return {os.path.splitext(file["name"])[0] for file in plain["files"]}
    except (StorageError, ValueError, KeyError, TypeError):
        return set()


def merged_files(
    recording: Recording, new_files: tuple[FileReceipt, ...]
) -> tuple[FileReceipt, ...]:
    """Kept and new files, in the order of their branches and names."""
    files = [dataclasses.replace(file) for file in (*recording.kept, *new_files)]
    return tuple(sorted(files, key=lambda file: (file.branch != "stems", file.branch, file.name)))
