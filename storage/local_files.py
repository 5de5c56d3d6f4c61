"""Files on this machine's disks, or what is mounted there."""

import contextlib
import errno
import functools
import os
import secrets
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import filelock

from .file_facts import (
    SCRATCH_DAYS,
    FileStat,
    StorageError,
    UnusableStorageError,
    crc32c_of,
)

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
            errno.EROFS: "can't be written: the file system is read-only: name another folder",
            errno.ENAMETOOLONG: "has too long a name for this file system: shorten it",
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

    def has(self, path: str, *, size_bytes: int, crc32c: str, written_ns: int | None) -> bool:
        """Whether a file is there and has this content; one that is newer than that is read."""
        try:
            found = os.stat(path)
            if found.st_size != size_bytes:
                return False
            if written_ns is not None and found.st_mtime_ns <= written_ns:
                return True
            with open(path, "rb") as file:
                return crc32c_of(file) == crc32c
        except OSError:
            return False

    def written_ns(self, path: str) -> int | None:
        """When a file was written last, in nanoseconds; None if it is not there."""
        try:
            return os.stat(path).st_mtime_ns
        except OSError:
            return None

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
        """Remove the scratch folder of a run, and those of its parts."""
        for scratch in _scratch_folders(work):
            if scratch.name == f"scratch-{run}" or scratch.name.startswith(f"scratch-{run}."):
                shutil.rmtree(scratch, ignore_errors=True)
        _remove_empty(work)

    def clear_left_scratch(self, work: str) -> None:
        """Remove the scratch folders of runs that hold no lock any more, and very old ones.

        A lock tells of runs of this host alone, in whatever container they are: some network file
        systems keep the locks of other hosts to themselves.
        """
        oldest_s = time.time() - SCRATCH_DAYS * 24 * 3600
        # Asked once: a lock that is let go between two questions would go, and its files stay.
        left = {lock for lock in Path(work).glob("scratch-*.lock") if _is_over(lock)}
        for scratch in _scratch_folders(work):
            run = scratch.name.removeprefix("scratch-").rpartition(".")
            lock = Path(work, f"scratch-{run[0] or run[2]}.lock")
            if _newest_s(scratch) < oldest_s or lock in left:
                shutil.rmtree(scratch, ignore_errors=True)
        for lock in left:
            lock.unlink(missing_ok=True)
        _remove_empty(work)

    @contextlib.contextmanager
    def run_lock(self, work: str, run: str) -> Iterator[None]:
        """Hold the lock that tells other runs of this host that this one lives."""
        path = os.path.join(work, f"scratch-{run}.lock")
        lock = filelock.FileLock(path, thread_local=False)
        # Without locks in this file system the scratch files of a killed run go by age.
        with explained(path), contextlib.suppress(NotImplementedError):
            _in_folder(work, lock.acquire)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                os.unlink(path)
            lock.release()
            _remove_empty(work)


def _scratch_folders(work: str) -> list[Path]:
    return [path for path in Path(work).glob("scratch-*") if path.is_dir()]


def _is_over(lock: Path) -> bool:
    """Whether a run of this host has left its lock behind."""
    host = lock.name.removeprefix("scratch-").rpartition("-")[0]
    if host != socket.gethostname() or not lock.exists():
        return False
    try:
        with filelock.FileLock(lock, timeout=0):
            return True
    except (filelock.Timeout, OSError, NotImplementedError):
        return False


def _newest_s(folder: Path) -> float:
    """When something in a folder was changed last, in seconds since 1970."""
    paths = [folder, *(Path(root, name) for root, _, names in os.walk(folder) for name in names)]
    times = [0.0]
    for path in paths:
        with contextlib.suppress(OSError):
            times.append(path.stat().st_mtime)
    return max(times)


def _remove_empty(folder: str) -> None:
    with contextlib.suppress(OSError):
        os.rmdir(folder)


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
