"""Files on this machine's disks, or what is mounted there."""

import contextlib
import errno
import functools
import os
import secrets
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import psutil

from .file_facts import FileStat, StorageError, UnusableStorageError

FOLDER_TRIES = 5
UNUSABLE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
Result = TypeVar("Result")


@contextlib.contextmanager
def explained(path: str) -> Iterator[None]:
    """Turn the operating system's errors into ones that name the file and say what to do."""
    try:
        yield
    except (StorageError, UnusableStorageError):
        raise
    except OSError as error:
        advice = {
            errno.ENOENT: "is not there (any more)",
            errno.EACCES: "may not be accessed: check its permissions",
            errno.EPERM: "may not be accessed: check its permissions",
            errno.EISDIR: "is a folder",
            errno.ENOTDIR: "lies below something that is not a folder",
            errno.ENOSPC: "can't be written: the disk is full; free some space and run again",
            errno.EDQUOT: "can't be written: the quota is used up; free some space and run again",
            errno.EROFS: "can't be written: the file system is read-only",
            errno.ENAMETOOLONG: "has too long a name for this file system",
        }.get(error.errno or 0, error.strerror or str(error))
        kind = UnusableStorageError if error.errno in UNUSABLE else StorageError
        raise kind(error.errno, advice, path) from error


class LocalFiles:
    """Files by their paths.

    A file appears under its final name only when it is complete: it is written into a scratch
    folder, on the same file system, and renamed.
    """

    def stat(self, path: str) -> FileStat:
        """Size and generation of a file."""
        with explained(path):
            found = os.stat(path)
            if not os.path.isfile(path):
                raise StorageError(errno.EISDIR, "is not a file", path)
            return FileStat(found.st_size, f"{found.st_size}-{found.st_mtime_ns}")

    def has(self, path: str, *, size_bytes: int, crc32c: str) -> bool:
        """Whether a file is there and has just this many bytes; its content is not read."""
        try:
            return os.stat(path).st_size == size_bytes
        except OSError:
            return False

    @contextlib.contextmanager
    def reading(self, path: str) -> Iterator[Any]:
        """Open a file for random access."""
        with explained(path):
            file = open(path, "rb")  # noqa: SIM115
        with file:
            yield file

    def read(self, path: str) -> bytes:
        """The whole content of a file."""
        with explained(path):
            return Path(path).read_bytes()

    @contextlib.contextmanager
    def writing(self, path: str, scratch: str) -> Iterator[Any]:
        """A file in the scratch folder, renamed when it closes well."""
        temporary = os.path.join(scratch, secrets.token_hex(16))
        try:
            with explained(path):
                with _in_folder(scratch, lambda: open(temporary, "x+b")) as file:
                    yield file
                _in_folder(os.path.dirname(path), lambda: os.replace(temporary, path))
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise

    def remove(self, path: str, root: str) -> None:
        """Remove a file, and the folders below `root` that this leaves empty."""
        with explained(path):
            Path(path).unlink(missing_ok=True)
        folder = os.path.dirname(path)
        while folder.startswith(root + os.sep):
            try:
                os.rmdir(folder)
            except OSError:
                return
            folder = os.path.dirname(folder)

    def names_alike(self, path: str) -> frozenset[str]:
        """Names of the files beside this one that have its name but for the extension."""
        folder, name = os.path.split(path)
        names = _names_by_stem(folder, os.stat(folder).st_mtime_ns)
        return names.get(os.path.splitext(name)[0], frozenset())

    def clear_scratch(self, work: str, run: str) -> None:
        """Remove the scratch folders of a run, and of runs that no longer live."""
        host = socket.gethostname()
        for scratch in Path(work).glob("scratch-*"):
            owner, _, process = scratch.name.removeprefix("scratch-").rpartition("-")
            mine = scratch.name == f"scratch-{run}"
            here = owner == host and process.isdigit()
            if mine or (here and not psutil.pid_exists(int(process))):
                shutil.rmtree(scratch, ignore_errors=True)
        with contextlib.suppress(OSError):
            os.rmdir(work)


@functools.lru_cache(maxsize=64)
def _names_by_stem(folder: str, _changed_ns: int) -> dict[str, frozenset[str]]:
    names: dict[str, frozenset[str]] = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            # A folder `x` beside `x.wav` shares no file with it, a folder `x.flac` is no file.
            if entry.is_file():
                stem = os.path.splitext(entry.name)[0]
                names[stem] = names.get(stem, frozenset()) | {entry.name}
    return names


def _in_folder(folder: str, action: Callable[[], Result]) -> Result:
    """Make a folder and do something in it; again, if another run removed it, empty as it was."""
    for _ in range(FOLDER_TRIES - 1):
        with contextlib.suppress(FileNotFoundError):
            os.makedirs(folder, exist_ok=True)
            return action()
    os.makedirs(folder, exist_ok=True)
    return action()
