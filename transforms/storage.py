"""Files of a job: reading, writing atomically, removing.

A file appears under its final name only when it is complete: it is written into the scratch
folder of the run, on the same file system, and renamed.
"""

import contextlib
import errno
import hashlib
import json
import os
import secrets
import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

WORK_FOLDER = ".beamsplitter"


class StorageError(OSError):
    """A file that can't be read or written; the message names it and says what to do."""

    def __str__(self) -> str:
        return f"{self.filename}: {self.strerror}"


@dataclass(frozen=True)
class FileStat:
    """Size of a file in bytes, and a text that changes whenever its content does."""

    size_bytes: int
    generation: str


def stat_file(path: str) -> FileStat:
    """Size and generation of a file.

    Raises
    ------
    StorageError : the file is not there, is a folder, or can't be reached
    """
    with explained(path):
        found = os.stat(path)
        if not os.path.isfile(path):
            raise StorageError(errno.EISDIR, "is not a file", path)
        return FileStat(found.st_size, f"{found.st_size}-{found.st_mtime_ns}")


def exists_with_size(path: str, size_bytes: int) -> bool:
    """Whether a file is there and has just this many bytes."""
    try:
        return os.stat(path).st_size == size_bytes
    except OSError:
        return False


@contextlib.contextmanager
def open_for_reading(path: str) -> Iterator[Any]:
    """Open a file for random access."""
    with explained(path):
        file = open(path, "rb")  # noqa: SIM115
    with file:
        yield file


def read_bytes(path: str) -> bytes:
    """The whole content of a file."""
    with explained(path):
        return Path(path).read_bytes()


def sha256_of(path: str) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with open_for_reading(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def explained(path: str) -> Iterator[None]:
    """Turn the operating system's errors into ones that name the file and say what to do."""
    try:
        yield
    except StorageError:
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
        raise StorageError(error.errno, advice, path) from error


class OutputTree:
    """The folder of a job's results.

    Parameters
    ----------
    location : the folder
    """

    def __init__(self, location: str) -> None:
        self.location = location

    def path(self, *names: str) -> str:
        """The path of a file of the tree; refuses names that lead out of it.

        Raises
        ------
        StorageError : a name holds `..` or is absolute
        """
        relative = os.path.join(*names)
        if os.path.isabs(relative) or ".." in relative.split(os.sep) or "\0" in relative:
            raise StorageError(errno.EINVAL, "leads out of the output folder", relative)
        return os.path.join(self.location, relative)

    @contextlib.contextmanager
    def writing(self, *names: str) -> Iterator[Any]:
        """A file object for reading and writing; its content is at the path when it closes well.

        An exception inside leaves what was at the path before.
        """
        path = self.path(*names)
        scratch = self.path(*scratch_names())
        temporary = os.path.join(scratch, secrets.token_hex(16))
        try:
            with explained(path):
                os.makedirs(scratch, exist_ok=True)
                with open(temporary, "x+b") as file:
                    yield file
                self._move(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise

    def write(self, data: bytes, *names: str) -> None:
        """Write a whole file atomically."""
        with self.writing(*names) as file:
            file.write(data)

    def write_json(self, value: object, *names: str) -> None:
        """Write a JSON file atomically; same value, same bytes."""
        text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False)
        # Names that are not UTF-8 hold lone surrogates: this writes those as JSON escapes.
        self.write(text.encode("utf-8", "backslashreplace") + b"\n", *names)

    def remove(self, *names: str) -> None:
        """Remove a file, and the folders that this leaves empty. No error if it is not there."""
        path = self.path(*names)
        with explained(path):
            Path(path).unlink(missing_ok=True)
        folder = os.path.dirname(path)
        while folder.startswith(self.location + os.sep):
            try:
                os.rmdir(folder)
            except OSError:
                return
            folder = os.path.dirname(folder)

    def clear_scratch(self) -> None:
        """Remove the scratch folders of this run, and of runs that no longer live."""
        work = Path(self.location, WORK_FOLDER)
        host = socket.gethostname()
        for scratch in work.glob("scratch-*"):
            owner, _, process = scratch.name.removeprefix("scratch-").rpartition("-")
            mine = scratch.name == f"scratch-{run_identity()}"
            here = owner == host and process.isdigit()
            if mine or (here and not psutil.pid_exists(int(process))):
                shutil.rmtree(scratch, ignore_errors=True)
        with contextlib.suppress(OSError):
            work.rmdir()

    def _move(self, temporary: str, path: str) -> None:
        for attempt in range(3):
            os.makedirs(os.path.dirname(path), exist_ok=True)
            try:
                os.replace(temporary, path)
                return
            except FileNotFoundError:
                # Another run may have removed the folder, empty as it was, just now.
                if attempt == 2:
                    raise


def scratch_names() -> tuple[str, str]:
    """The scratch folder of this run below an output tree."""
    return WORK_FOLDER, f"scratch-{run_identity()}"


RUN_IDENTITY_VARIABLE = "BEAMSPLITTER_RUN"


def run_identity() -> str:
    """Name of this run, host and process of its launcher: the owner of its scratch folder.

    Workers inherit it from the launcher's environment.
    """
    return os.environ.get(RUN_IDENTITY_VARIABLE) or f"{socket.gethostname()}-{os.getpid()}"
