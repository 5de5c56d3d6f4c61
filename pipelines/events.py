"""Events of a job: which recordings it is about."""

import glob
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..audio.extensions import AUDIO_EXTENSIONS
from ..transforms.manifest import result_names
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

    Folders are walked recursively. Hidden files, files without an audio extension, and folders of
    results (of this job or another) are passed over.

    Raises
    ------
    InputError : an input is not there, or all of them together hold no recording
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
    elements = sorted({os.path.relpath(path, location) for path in found})
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
            lines = Path(each.location).read_text("utf-8", "surrogateescape").split("\n")
        except OSError as error:
            raise InputError(f"{each.location}: can't be read: {error.strerror}") from error
        elements += [line.removesuffix("\r") for line in lines if line.strip()]
    unique = tuple(dict.fromkeys(elements))
    if not unique:
        raise InputError("the event files hold no lines")
    return EventList(os.path.abspath(data_inputs[0].location), data_inputs[0].file_suffix, unique)


def _recordings_of(
    each: FolderEvents | GlobEvents | RecordingEvents | FileEvents, job: JobConfig
) -> list[str]:
    path = os.path.abspath(each.location)
    if isinstance(each, GlobEvents):
        matches = glob.glob(path, recursive=True, include_hidden=False)
        return [match for match in matches if _is_audio(match) and os.path.isfile(match)]
    if not os.path.lexists(path):
        raise InputError(f"{each.location}: no such file or folder")
    if isinstance(each, RecordingEvents):
        return [path]
    if not os.path.isdir(path):
        raise InputError(f"{each.location}: is not a folder")
    stems = {job.stems.name_of(stem) for stem in job.settings.wanted_stems}
    return list(_walk(path, job.output_location, stems))


def _walk(root: str, output_location: str, stems: set[str]) -> Iterator[str]:
    """The recordings below a folder, but for results.

    Results are the output folder, unless it is the folder itself, and the stems in any folder with
    a manifest. Where a folder is input and output at once, a stopped run has left stems without
    a manifest beside it: files named as stems, in a folder named as a recording beside that.
    """
    seen = set() if _same_folder(root, output_location) else {_identity(output_location)}
    recordings: dict[str, set[str]] = {}
    for folder, folders, files in os.walk(root, followlinks=True, onerror=_refuse):
        if _identity(folder) in seen:
            folders.clear()
            continue
        seen.add(_identity(folder))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        audio = [name for name in sorted(files) if not name.startswith(".") and _is_audio(name)]
        recordings[folder] = {_stem_of(name) for name in audio}
        results = result_names(folder)
        if os.path.basename(folder) in recordings.get(os.path.dirname(folder), ()):
            results |= stems if _lies_in(folder, output_location) else set()
        yield from (os.path.join(folder, name) for name in audio if _stem_of(name) not in results)


def _identity(folder: str) -> tuple[int, int] | None:
    try:
        status = os.stat(folder)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _same_folder(one: str, other: str) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)


def _lies_in(path: str, folder: str) -> bool:
    real = os.path.realpath(folder)
    return os.path.commonpath([os.path.realpath(path), real]) == real


def _stem_of(name: str) -> str:
    return os.path.splitext(name)[0]


def _refuse(error: OSError) -> None:
    raise InputError(f"{error.filename}: can't be listed: {error.strerror}")


def _is_audio(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in AUDIO_EXTENSIONS


def _root_of(each: FolderEvents | GlobEvents | RecordingEvents | FileEvents) -> str:
    path = os.path.abspath(each.location)
    if isinstance(each, GlobEvents):
        parts = Path(path).parts
        fixed = next((i for i, part in enumerate(parts) if glob.has_magic(part)), len(parts) - 1)
        return os.path.join(*parts[:fixed])
    return path if isinstance(each, FolderEvents) else os.path.dirname(path)


def _common_folder(folders: list[str]) -> str:
    return os.path.commonpath(folders)
