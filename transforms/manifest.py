"""The manifest of a finished recording: what was made, of what, by which settings and versions.

Format 2; of format 1, which told digests where this one tells settings, what is needed is read.
"""

import dataclasses
import datetime
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..storage import OutputTree, Storage, StorageError
from .plain import from_plain, to_plain, utc_text
from .records import BranchFacts, FileReceipt, Recording
from .roots import without_extension
from .settings import OF_SPECTRA, SplitSettings, digest_of
from .versions import versions

NAME = "manifest.json"
FORMAT = 2
READABLE = (1, 2)
OF_SEPARATOR = ("options", "weights_sha256")
OF_RANGE = ("start_s", "duration_s")
# What digests are made of beside the settings of a job.
INNER = ("results_version", "stems")


@dataclass(frozen=True)
class InputFacts:
    """The recording that was worked on.

    Attributes
    ----------
    element
        what the job's event called it
    uri
        where it lay
    generation
        a text that changes with the file's content, or when it is written
    sha256, size_bytes
        of the whole file
    start_sample, frames
        the range that was worked on
    streams
        names of the audio streams of a file that holds several; the first was worked on
    """

    element: str
    uri: str
    generation: str
    sha256: str
    size_bytes: int
    container: str
    codec: str
    sample_rate: int
    channels: int
    start_sample: int
    frames: int
    duration_s: float
    streams: tuple[str, ...] = ()


@dataclass(frozen=True)
class Manifest:
    """The content of `manifest.json`."""

    format: int
    input: InputFacts
    branches: dict[str, BranchFacts]
    files: tuple[FileReceipt, ...]

    @property
    def digests(self) -> dict[str, str]:
        """The digests of the settings by branch."""
        return {branch: facts.digest for branch, facts in self.branches.items()}


@dataclass(frozen=True)
class FoundManifest:
    """A manifest that was read.

    Attributes
    ----------
    written_ns
        when it was written, where storage has no checksums to compare
    """

    content: Manifest
    written_ns: int | None


def folders_with_manifest(tree: OutputTree) -> Iterator[str]:
    """The folders of recordings, below the output folder.

    Raises
    ------
    StorageError
        it can't be listed
    """
    for name in tree.names_below():
        folder, file = os.path.split(name)
        if file == NAME and folder:
            yield folder


def manifest_of(
    recording: Recording,
    files: tuple[FileReceipt, ...],
    settings: SplitSettings,
    *,
    source_sha256: str,
    work_s: float,
) -> Manifest:
    """The manifest of a recording that is finished now.

    Parameters
    ----------
    files
        those that were kept, and those that were made
    work_s
        seconds of work on it
    """
    info = recording.info
    described = settings.described()
    now = utc_text(datetime.datetime.now(datetime.UTC))
    made = {
        branch: BranchFacts(
            digest=digest_of(described[branch]),
            settings=described[branch],
            made=now,
            work_s=round(work_s, 3),
            versions=versions(of_models=settings.runs_models),
        )
        for branch in recording.todo
    }
    branches = {**recording.kept_branches, **made}
    return Manifest(
        FORMAT,
        InputFacts(
            element=recording.element,
            uri=recording.uri,
            generation=recording.generation,
            sha256=source_sha256,
            size_bytes=recording.size_bytes,
            container=info.container,
            codec=info.codec,
            sample_rate=info.sample_rate,
            channels=info.channels,
            start_sample=recording.start_sample,
            frames=recording.total_samples,
            duration_s=recording.duration_s,
            streams=info.streams,
        ),
        {branch: branches[branch] for branch in sorted({file.branch for file in files})},
        files,
    )


def write_manifest(manifest: Manifest, tree: OutputTree, folder: str) -> None:
    """Write a manifest into a recording's folder."""
    tree.write_json(to_plain(manifest), folder, NAME)


def read_manifest(tree: OutputTree, folder: str) -> FoundManifest | None:
    """The manifest in a recording's folder; None where there is none that can be read."""
    # Before it is read: one that takes its place in between is the newer one.
    written_ns = tree.written_ns(folder, NAME)
    try:
        content = parse_manifest(tree.read(folder, NAME))
    except (StorageError, ValueError):
        return None
    return FoundManifest(content, written_ns)


def parse_manifest(data: bytes) -> Manifest:
    """A manifest from the bytes of its file.

    Raises
    ------
    ValueError
        they are no manifest
    """
    try:
        plain = json.loads(data)
        if plain["format"] not in READABLE:
            raise ValueError(f"a manifest of format {plain['format']}")
        if plain["format"] == 1:
            branches = {name: {"digest": each} for name, each in plain["digests"].items()}
            plain = {"format": 1, **{key: plain[key] for key in ("input", "files")}}
            plain["branches"] = branches
        return from_plain(Manifest, plain)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"no manifest: {error!r}") from error


def finished_branches(
    found: FoundManifest,
    tree: OutputTree,
    folder: str,
    digests: Mapping[str, str],
) -> set[str]:
    """The branches whose settings are those of the manifest and whose files are all there."""
    manifest = found.content
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
                written_ns=found.written_ns,
            )
            for file in manifest.files
            if file.branch == branch
        )
    }


def result_names(path: str, storage: Storage) -> set[str]:
    """Names without extension of a recording's results in a folder; none without a manifest."""
    try:
        plain = json.loads(storage.read(f"{path}/{NAME}"))
        # Of other formats, too: a later version's results are no recordings.
        if not {"digests", "branches"} & plain.keys():
            return set()
        return {without_extension(file["name"]) for file in plain["files"]}
    except (StorageError, ValueError, KeyError, TypeError, AttributeError):
        return set()


def merged_files(
    recording: Recording, new_files: tuple[FileReceipt, ...]
) -> tuple[FileReceipt, ...]:
    """Kept and new files, in the order of their branches and names."""
    files = [dataclasses.replace(file) for file in (*recording.kept, *new_files)]
    return tuple(sorted(files, key=lambda file: (file.branch != "stems", file.branch, file.name)))


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What of some settings is another now, in words."""
    if not before:
        return "settings of an earlier version of beamsplitter"
    # Another separator has other options; of stems, their digest tells the rest.
    untold = {*INNER, *(OF_SEPARATOR if before.get("separator") != now.get("separator") else ())}
    if before.get("stems") != now.get("stems"):
        untold |= {*OF_RANGE}
    old, new = (
        {key: value for key, value in each.items() if key not in untold and value != OF_SPECTRA}
        for each in (before, now)
    )
    return "; ".join([*_inner_differences(before, now), *_differences(old, new)])


def _inner_differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Of what is no setting of a job."""
    old, new = before.get("stems"), now.get("stems")
    if old and new and old != new:
        yield "of stems that were made with other settings"
    elif old != new:
        yield "with stems, now without" if old else "without stems, now with them"
    elif before.get("results_version") != now.get("results_version"):
        yield "by another version of beamsplitter, which gives other results"
    if (before.get("of") == OF_SPECTRA) != (now.get("of") == OF_SPECTRA):
        yield "by another join"


def _differences(
    before: Mapping[str, Any], now: Mapping[str, Any], within: str = ""
) -> Iterator[str]:
    for key in sorted({*before, *now}):
        old, new = before.get(key), now.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from _differences(old, new, f"{within}{key}.")
        elif old != new:
            yield f"{within}{key}: {_word(old)}, now {_word(new)}"


def _word(value: Any) -> str:
    if value is None:
        return "not set"
    if isinstance(value, Mapping) and "kind" in value:
        return str(value["kind"])
    if isinstance(value, list | tuple):
        return " ".join(map(str, value)) or "not set"
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)
