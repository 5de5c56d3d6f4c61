"""Events of a job: which recordings it is about."""

import fnmatch
import glob
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ..audio.extensions import AUDIO_EXTENSIONS
from ..transforms.manifest import NAME as MANIFEST
from ..transforms.manifest import result_names
from ..transforms.storage import GCS_SCHEME, absolute, list_names, read_bytes
from .job_config import FileEvents, FolderEvents, GlobEvents, JobConfig, RecordingEvents


class InputError(ValueError):
    """An input of the job that is not there or holds no recordings."""


@dataclass(frozen=True)
class EventList:
    """The elements of a job: paths below `location`, to which `suffix` is added."""

    location: str
    suffix: str
    elements: tuple[str, ...]


def list_events(job: JobConfig) -> EventList:
    """List the recordings of a job's event inputs, in order of name, each once.

    Folders are walked recursively, here and on `gs://`. Hidden files, files without an audio
    extension, and folders of results (of this job or another) are passed over.

    Raises
    ------
    InputError : an input is not there, or all of them together hold no recording
    StorageError : an input can't be reached
    """
    inputs = job.job_config.events.inputs
    if not inputs:
        raise InputError("the job has no event input: name one below job_config.events.inputs")
    if any(isinstance(each, FileEvents) for each in inputs):
        return _lines_of_files(job)
    found: list[str] = []
    for each in inputs:
        found += _recordings_of(each, job)
    if not found:
        places = ", ".join(each.location for each in inputs)
        raise InputError(
            f"no audio files in {places}: known extensions are {' '.join(sorted(AUDIO_EXTENSIONS))}"
        )
    location = _common_folder([_root_of(each) for each in inputs])
    elements = sorted({path.removeprefix(location).lstrip("/") for path in found})
    return EventList(location, "", tuple(elements))


def _lines_of_files(job: JobConfig) -> EventList:
    data_inputs = job.job_config.data.inputs
    if not data_inputs:
        raise InputError(
            "events of type file need job_config.data.inputs: the folder that their lines are "
            "paths below"
        )
    elements: list[str] = []
    for each in job.job_config.events.inputs:
        if not isinstance(each, FileEvents):
            raise InputError("events of type file can't be mixed with other types in one job")
        try:
            lines = read_bytes(each.location).decode("utf-8", "surrogateescape").split("\n")
        except OSError as error:
            raise InputError(f"{each.location}: can't be read: {error.strerror}") from error
        elements += [line.removesuffix("\r") for line in lines if line.strip()]
    unique = tuple(dict.fromkeys(elements))
    if not unique:
        raise InputError("the event files hold no lines")
    return EventList(absolute(data_inputs[0].location), data_inputs[0].file_suffix, unique)


def _recordings_of(
    each: FolderEvents | GlobEvents | RecordingEvents | FileEvents, job: JobConfig
) -> list[str]:
    path = absolute(each.location)
    stems = {job.stems.name_of(stem) for stem in job.settings.wanted_stems}
    if path.startswith(GCS_SCHEME):
        return _recordings_in_bucket(each, job.output_location, stems)
    if isinstance(each, GlobEvents):
        matches = glob.glob(path, recursive=True, include_hidden=False)
        return [match for match in matches if _is_audio(match) and os.path.isfile(match)]
    if not os.path.lexists(path):
        raise InputError(f"{each.location}: no such file or folder")
    if isinstance(each, RecordingEvents):
        return [path]
    if not os.path.isdir(path):
        raise InputError(f"{each.location}: is not a folder")
    output = os.path.realpath(job.output_location)
    return list(_without_results(_walk(path, output), output, stems))


def _recordings_in_bucket(
    each: FolderEvents | GlobEvents | RecordingEvents | FileEvents, output: str, stems: set[str]
) -> list[str]:
    path = absolute(each.location)
    if isinstance(each, RecordingEvents):
        return [path]
    root = _root_of(each)
    if isinstance(each, GlobEvents):
        pattern = path.removeprefix(f"{root}/").split("/")
        return [
            f"{root}/{name}"
            for name in list_names(root)
            if _is_audio(name) and _matches(name.split("/"), pattern)
        ]
    folders: dict[str, list[str]] = defaultdict(list)
    for name in list_names(root):
        folder, _, base = f"{root}/{name}".rpartition("/")
        if base and not any(part.startswith(".") for part in name.split("/")):
            folders[folder].append(base)
    listing = (
        (folder, names)
        for folder, names in sorted(folders.items())
        if output == root or not _lies_in(folder, output)
    )
    return list(_without_results(listing, output, stems))


def _matches(parts: list[str], pattern: list[str]) -> bool:
    """Whether a name fits a pattern, both cut at slashes; `**` is any number of folders."""
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_matches(parts[start:], pattern[1:]) for start in range(len(parts) + 1))
    if not parts or (parts[0].startswith(".") and not pattern[0].startswith(".")):
        return False
    return fnmatch.fnmatchcase(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])


def _walk(root: str, output: str) -> Iterator[tuple[str, list[str]]]:
    """The folders below a folder, but for the output folder, with the names of their files."""
    seen = set() if os.path.realpath(root) == output else {_identity(output)}
    for folder, folders, files in os.walk(root, followlinks=True, onerror=_refuse):
        if _identity(folder) in seen:
            folders.clear()
            continue
        seen.add(_identity(folder))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield folder, sorted(name for name in files if not name.startswith("."))


def _without_results(
    listing: Iterable[tuple[str, list[str]]], output: str, stems: set[str]
) -> Iterator[str]:
    """The recordings of folders with their names, parents first, but for results.

    Results are the stems in any folder with a manifest. Where a folder is input and output at
    once, a stopped run has left stems without a manifest beside it: files named as stems, in a
    folder named as a recording beside that.
    """
    recordings: dict[str, set[str]] = {}
    for folder, names in listing:
        audio = [name for name in names if _is_audio(name)]
        recordings[folder] = {_stem_of(name) for name in audio}
        results = result_names(folder) if MANIFEST in names else set()
        if os.path.basename(folder) in recordings.get(os.path.dirname(folder), ()):
            results |= stems if _lies_in(folder, output) else set()
        yield from (f"{folder}/{name}" for name in audio if _stem_of(name) not in results)


def _identity(folder: str) -> tuple[int, int] | None:
    try:
        status = os.stat(folder)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _lies_in(path: str, folder: str) -> bool:
    real = path if path.startswith(GCS_SCHEME) else os.path.realpath(path)
    return f"{real}/".startswith(f"{folder.rstrip('/')}/")


def _stem_of(name: str) -> str:
    return os.path.splitext(name)[0]


def _refuse(error: OSError) -> None:
    raise InputError(f"{error.filename}: can't be listed: {error.strerror}")


def _is_audio(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in AUDIO_EXTENSIONS


def _root_of(each: FolderEvents | GlobEvents | RecordingEvents | FileEvents) -> str:
    path = absolute(each.location)
    if isinstance(each, GlobEvents):
        parts = path.split("/")
        fixed = next((i for i, part in enumerate(parts) if glob.has_magic(part)), len(parts) - 1)
        return "/".join(parts[:fixed])
    return path if isinstance(each, FolderEvents) else os.path.dirname(path)


def _common_folder(folders: list[str]) -> str:
    schemes = {GCS_SCHEME if folder.startswith(GCS_SCHEME) else "" for folder in folders}
    if len(schemes) > 1:
        raise InputError("inputs here and inputs on gs:// can't be mixed in one job")
    (scheme,) = schemes
    common = os.path.commonpath([f"/{folder.removeprefix(scheme)}" for folder in folders])
    if not scheme:
        return common
    if common == "/":
        raise InputError("inputs of several buckets can't be mixed in one job")
    return scheme + common.lstrip("/")
