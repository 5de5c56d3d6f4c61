"""The folder of a job's results: files that appear whole, and scratch files that go."""

import contextlib
import errno
import functools
import json
import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

from .file_facts import StorageError, scheme_of
from .files import Storage

DEAD_LETTERS = "failures.jsonl"
DEAD_LETTER_FOLDER = "failures"
WORK_FOLDER = ".beamsplitter"
WRITE_TEST = ".write-test"
RUN_IDENTITY_VARIABLE = "BEAMSPLITTER_RUN"


class OutputTree:
    """The folder of a job's results.

    Parameters
    ----------
    location
        the folder, here or on `gs://`
    storage
        what its files are read and written through
    """

    def __init__(self, location: str, storage: Storage = Storage()) -> None:  # noqa: B008
        self.location = location
        self.storage = storage

    def path(self, *names: str) -> str:
        """The path of a file of the tree; refuses names that lead out of it.

        Raises
        ------
        StorageError
            a name holds `..` or is absolute
        """
        relative = os.path.join(*names)
        if os.path.isabs(relative) or ".." in relative.split(os.sep) or "\0" in relative:
            raise StorageError(
                errno.EINVAL,
                "leads out of the output folder: name a path below the folder of the recordings, "
                "without '..' or NUL",
                relative,
            )
        return os.path.join(self.location, relative)

    def reading(self, *names: str) -> AbstractContextManager[Any]:
        """Open a file for random access."""
        return self.storage.reading(self.path(*names))

    def read(self, *names: str) -> bytes:
        """The whole content of a file."""
        return self.storage.read(self.path(*names))

    def writing(self, *names: str) -> AbstractContextManager[Any]:
        """A file object for reading and writing; its content is at the path when it closes well.

        An exception inside leaves what was at the path before.
        """
        path = self.path(*names)
        return self.storage.files_of(path).writing(path, self.path(*scratch_names()))

    def write(self, data: bytes, *names: str) -> None:
        """Write a whole file atomically."""
        with self.writing(*names) as file:
            file.write(data)

    def write_json(self, value: object, *names: str) -> None:
        """Write a JSON file atomically; same value, same bytes."""
        text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False)
        # Names that are not UTF-8 hold lone surrogates: this writes those as JSON escapes.
        self.write(text.encode("utf-8", "backslashreplace") + b"\n", *names)

    def has(self, *names: str, size_bytes: int, crc32c: str, written_ns: int | None = None) -> bool:
        """Whether a file is there, and has this content.

        Parameters
        ----------
        written_ns
            when what says so was written, as `written_ns` gives it: a file that is no
            newer is not read where its storage knows no checksums
        """
        path = self.path(*names)
        return self.storage.files_of(path).has(
            path, size_bytes=size_bytes, crc32c=crc32c, written_ns=written_ns
        )

    def is_there(self, *names: str) -> bool:
        """Whether a file is there."""
        try:
            self.storage.stat(self.path(*names))
        except StorageError:
            return False
        return True

    def written_ns(self, *names: str) -> int | None:
        """When a file was written last; None if it is not there, or its storage has checksums."""
        path = self.path(*names)
        return self.storage.files_of(path).written_ns(path)

    def names_below(self, folder: str = "") -> Iterator[str]:
        """Names of the files below a folder of the tree, relative to it; those of work left out.

        There are none where the folder is not there.

        Raises
        ------
        StorageError
            it can't be listed
        """
        top = self.path(folder) if folder else self.location
        if scheme_of(top):
            yield from self.storage.list_names(top, without=None if folder else WORK_FOLDER)
            return
        for place, folders, files in os.walk(top):
            if place == self.location and WORK_FOLDER in folders:
                folders.remove(WORK_FOLDER)
            yield from (os.path.relpath(os.path.join(place, name), top) for name in files)

    def remove(self, *names: str) -> None:
        """Remove a file, and the folders that this leaves empty. No error if it is not there."""
        path = self.path(*names)
        self.storage.files_of(path).remove(path, self.location)

    def require_writable(self) -> None:
        """Find out before any work whether results can be written.

        Raises
        ------
        StorageError
            they can't
        """
        try:
            self.write(b"", WRITE_TEST)
        except StorageError as error:
            if error.errno != errno.ENOENT or not scheme_of(self.location):
                raise
            advice = "can't be written: there is no such bucket; make it, or name another"
            raise StorageError(errno.ENOENT, advice, self.location) from error
        self.remove(WRITE_TEST)
        self.clear_scratch()

    def clear_scratch(self, run: str | None = None) -> None:
        """Remove the scratch files of a run, by default this one."""
        self.storage.files_of(self.location).clear_scratch(
            self.path(WORK_FOLDER), run or run_identity()
        )

    def clear_left_scratch(self) -> None:
        """Remove the scratch files of runs that are over, as far as that is known.

        On this machine a run that is over holds no lock any more; elsewhere, and where other
        machines write too, its files are `SCRATCH_DAYS` old.
        """
        self.storage.files_of(self.location).clear_left_scratch(self.path(WORK_FOLDER))

    @contextlib.contextmanager
    def owned_scratch(self) -> Iterator[None]:
        """Own the scratch files of this process's run, and of the processes that it starts.

        Those of runs that are over are removed before, its own after.
        """
        os.environ[RUN_IDENTITY_VARIABLE] = run = run_identity()
        self.clear_left_scratch()
        with self.storage.files_of(self.location).run_lock(self.path(WORK_FOLDER), run):
            try:
                yield
            finally:
                self.clear_scratch(run)


def scratch_names() -> tuple[str, str]:
    """The scratch folder of this run below an output tree."""
    return WORK_FOLDER, f"scratch-{run_identity()}"


def run_identity() -> str:
    """Name of this run: its host, and what no other run has; the owner of its scratch folder.

    Workers inherit it from the launcher's environment. A part of the run, such as a micro-batch,
    adds a dot and its number.
    """
    return os.environ.get(RUN_IDENTITY_VARIABLE) or _identity_of(os.getpid())


@functools.cache
def _identity_of(_process: int) -> str:
    return f"{socket.gethostname()}-{secrets.token_hex(8)}"
