"""Listing the recordings of a folder, a glob pattern or a bucket, in order of name."""

import glob
import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor

from ...audio.extensions import has_audio_extension
from ...errors import BeamsplitterError
from ...storage import Storage, StorageError, absolute, scheme_of
from ...transforms.manifest import NAME as MANIFEST
from ...transforms.manifest import result_names
from ...transforms.roots import Root, fits_pattern, without_extension
from ..job.event_config import FolderEvents, GlobEvents, RecordingEvents

HELD_RECORDINGS = 1000
MANIFEST_READERS = 8
MAGIC = "[*?[]"

NamesOfStems = Callable[[str], Mapping[str, str]]
RecordingInput = FolderEvents | GlobEvents | RecordingEvents


class InputError(BeamsplitterError, ValueError):
    """An input of the job that is not there or holds no recordings."""


def recordings_of(
    each: RecordingInput, storage: Storage, *, output: str | None, stems: NamesOfStems
) -> Iterator[str]:
    """Whole paths of an input's recordings, lazily, as `sorted` would order all of them.

    Folders are walked recursively, here and elsewhere. Hidden files, files without an audio
    extension, and folders of results (of this job or another) are passed over.

    What is held in memory does not grow with the number of objects in a bucket: a page of names,
    and at most `HELD_RECORDINGS` recordings. Here it is the names in the folder that is being
    walked, and in those around it.

    Parameters
    ----------
    storage
        where they lie
    output
        the folder of the job's results, which a stopped run has left unfinished stems in
    stems
        names, without extension, of the files of the job's stems in a recording's folder

    Raises
    ------
    InputError
        the input is not there
    StorageError
        it can't be listed
    UnusableStorageError
        it can't be reached
    """
    path = absolute(each.location)
    output = absolute(output) if output else None
    if scheme_of(path):
        yield from _recordings_elsewhere(each, storage, output, stems)
    elif isinstance(each, GlobEvents):
        matches = glob.glob(path, recursive=True, include_hidden=False)
        yield from sorted(
            match for match in matches if has_audio_extension(match) and os.path.isfile(match)
        )
    elif not os.path.lexists(path):
        raise InputError(f"{each.location}: no such file or folder")
    elif isinstance(each, RecordingEvents):
        yield path
    elif not os.path.isdir(path):
        raise InputError(f"{each.location}: is not a folder")
    else:
        output = os.path.realpath(output) if output else None
        names = _walk(path, output)
        yield from _without_results(path.rstrip("/"), names, storage, output, stems)


def _recordings_elsewhere(
    each: RecordingInput, storage: Storage, output: str | None, stems: NamesOfStems
) -> Iterator[str]:
    if isinstance(each, RecordingEvents):
        yield absolute(each.location)
        return
    root = root_of(each).path
    if isinstance(each, GlobEvents):
        pattern = root_of(each).pattern
        beginning = re.split(MAGIC, pattern[0], maxsplit=1)[0]
        for name in storage.list_names(root, beginning=beginning):
            if has_audio_extension(name) and fits_pattern(name.split("/"), pattern):
                yield f"{root}/{name}"
    else:
        below = output.removeprefix(f"{root}/") if output else None
        names = storage.list_names(root, without=None if below == output else below)
        visible = (name for name in names if "/." not in f"/{name}")
        yield from _without_results(root, visible, storage, output, stems)


def _walk(root: str, output: str | None) -> Iterator[str]:
    """Names of the files below a folder, but for those in the output folder, in order of name."""
    seen = {_identity(output)} if output and os.path.realpath(root) != output else set()
    ahead = [""]  # the next one last
    while ahead:
        name = ahead.pop()
        if name and not name.endswith("/"):
            yield name
            continue
        folder = f"{root}/{name}".rstrip("/") or "/"
        identity = _identity(folder)
        if identity is None or identity not in seen:
            seen.add(identity)
            ahead += sorted((name + entry for entry in _entries(folder)), reverse=True)


def _entries(folder: str) -> Iterator[str]:
    """Names in a folder, hidden ones apart; those of folders end in a slash."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not entry.name.startswith("."):
                    yield f"{entry.name}/" if entry.is_dir() else entry.name
    except OSError as error:
        raise InputError(f"{folder}: can't be listed: {error.strerror}") from error


class _Folder:
    """A folder whose files are being listed.

    Parameters
    ----------
    path
        below the root, empty or with a slash at its end
    unfinished
        stems that a stopped run may have left in it
    """

    def __init__(self, path: str, unfinished: set[str]) -> None:
        self.path = path
        self.unfinished = unfinished
        self.has_audio = False
        self.has_manifest = False
        self.results: Future[set[str]] | None = None

    def read_manifest(self, root: str, storage: Storage, reader: Executor) -> None:
        """Begin to read what the manifest names, once."""
        if self.results is None:
            path = f"{root}/{self.path}".removesuffix("/")
            self.results = reader.submit(result_names, path, storage)

    def is_decided(self, last_name: str) -> bool:
        """Whether it is known what its results are, when names up to this one have been listed."""
        if self.results is not None:
            return self.results.done()
        return last_name > self.path + MANIFEST

    def holds_result(self, name: str) -> bool:
        """Whether a file in it is a result; waits for the manifest."""
        stem = without_extension(name.removeprefix(self.path))
        return stem in self.unfinished or (
            self.results is not None and stem in self.results.result()
        )


def _without_results(
    root: str, names: Iterable[str], storage: Storage, output: str | None, stems: NamesOfStems
) -> Iterator[str]:
    """Paths of the recordings among names below a folder, but for results; both in order of name.

    Results are the stems in any folder with a manifest. Where a folder is input and output at
    once, a stopped run has left stems without a manifest beside it: files named as stems, in a
    folder named as a recording beside that.

    A recording is held until its folder's manifest has come, or a name after the manifest's. Where
    too many are held, the manifest of the first one's folder is looked for.
    """
    held: deque[tuple[_Folder, str]] = deque()
    reader = ThreadPoolExecutor(MANIFEST_READERS, "manifests")
    try:
        for folder, name in _with_folders(root, names, output, stems):
            if name == folder.path + MANIFEST:
                folder.has_manifest = True
            elif has_audio_extension(name):
                folder.has_audio = True
                held.append((folder, name))
            if folder.has_manifest and folder.has_audio:
                folder.read_manifest(root, storage, reader)
            while held:
                first, recording = held[0]
                if not first.is_decided(name):
                    if len(held) <= HELD_RECORDINGS:
                        break
                    first.read_manifest(root, storage, reader)
                held.popleft()
                if not first.holds_result(recording):
                    yield f"{root}/{recording}"
        for first, recording in held:
            if not first.holds_result(recording):
                yield f"{root}/{recording}"
    finally:
        reader.shutdown(wait=False, cancel_futures=True)


def _with_folders(
    root: str, names: Iterable[str], output: str | None, stems: NamesOfStems
) -> Iterator[tuple[_Folder, str]]:
    """Names in order, each with its folder, which is the same object for all names in it."""
    open_folders: list[_Folder] = []
    # Paths without extension. In order of name, only what begins with `x/a.` comes between
    # `x/a.wav` and `x/a/`.
    recordings: list[str] = []
    for name in names:
        path = name[: name.rfind("/") + 1]
        while recordings and not name.startswith((f"{recordings[-1]}.", f"{recordings[-1]}/")):
            recordings.pop()
        while open_folders and not path.startswith(open_folders[-1].path):
            open_folders.pop()
        if not open_folders or open_folders[-1].path != path:
            unfinished: set[str] = set()
            if output and path[:-1] in recordings and _lies_in(f"{root}/{path}", output):
                unfinished = set(stems(path[:-1]).values())
            open_folders.append(_Folder(path, unfinished))
        yield open_folders[-1], name
        if has_audio_extension(name) and recordings[-1:] != [without_extension(name)]:
            recordings.append(without_extension(name))


def _identity(folder: str) -> tuple[int, int] | None:
    try:
        status = os.stat(folder)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _lies_in(path: str, folder: str) -> bool:
    real = path if scheme_of(path) else os.path.realpath(path)
    return f"{real}/".startswith(f"{folder.rstrip('/')}/")


def is_pattern(path: str, storage: Storage) -> bool:
    """Whether a path is a glob pattern: one that holds magic, and is the name of nothing.

    Raises
    ------
    UnusableStorageError
        it can't be found out
    """
    if not glob.has_magic(path):
        return False
    if not scheme_of(path):
        return not os.path.lexists(path)
    if glob.has_magic(path.split("/")[2]):
        return True
    return not _is_file(path, storage) and next(storage.list_names(path), None) is None


def _is_file(path: str, storage: Storage) -> bool:
    try:
        storage.stat(path)
    except StorageError:
        return False
    return True


def root_of(each: FolderEvents | GlobEvents) -> Root:
    """Where the recordings of an input lie, and what they are called below.

    Raises
    ------
    InputError
        a pattern stands for buckets
    """
    path = absolute(each.location)
    if isinstance(each, FolderEvents):
        return Root(path)
    parts = path.split("/")
    fixed = next((i for i, part in enumerate(parts) if glob.has_magic(part)), len(parts) - 1)
    if scheme_of(path) and fixed < 3:
        raise InputError(f"{each.location}: a pattern names one bucket: gs://BUCKET/PATTERN")
    return Root("/".join(parts[:fixed]), tuple(parts[fixed:]))


def folder_of(each: RecordingInput) -> str:
    """The folder that the recordings of an input lie in, or below."""
    if isinstance(each, RecordingEvents):
        return os.path.dirname(absolute(each.location))
    return root_of(each).path


def common_folder(folders: list[str]) -> str:
    """The deepest folder that holds all these.

    Raises
    ------
    InputError
        there is none: some lie in other buckets, or here
    """
    schemes = {scheme_of(folder) for folder in folders}
    if len(schemes) > 1:
        raise InputError(
            f"inputs of several file systems can't be mixed in one job: {', '.join(folders)}: "
            "make a job of each"
        )
    (scheme,) = schemes
    common = os.path.commonpath([f"/{folder.removeprefix(scheme)}" for folder in folders])
    if not scheme:
        return common
    if common == "/":
        raise InputError(
            f"inputs of several buckets can't be mixed in one job: {', '.join(folders)}: make a "
            "job of each"
        )
    return scheme + common.lstrip("/")
