"""What each kind of files can do."""

from contextlib import AbstractContextManager
from typing import Any, Protocol

from .file_facts import FileStat


class SourceStat(Protocol):
    """What is known of a file before it is read.

    Attributes
    ----------
    size_bytes
        None if the server doesn't say
    generation
        a text that changes whenever the content does
    """

    @property
    def size_bytes(self) -> int | None: ...

    @property
    def generation(self) -> str: ...


class Reader(Protocol):
    """A file that is read from any position on."""

    def seek(self, offset: int, /) -> int:
        """Read from this byte on."""

    def read(self, size: int, /) -> bytes:
        """The next bytes, at most so many; none at the end."""


class SourceFiles(Protocol):
    """Files that can be read.

    Their errors are OSErrors: FileNotFoundError (or ENOENT) if there is no such file,
    PermissionError (or EACCES) if it is closed, ConnectionError or TimeoutError if it is worth
    another try; any other is taken for permanent.
    """

    def stat(self, address: str, /) -> SourceStat:
        """Size and generation of a file."""

    def reading(self, address: str, /) -> AbstractContextManager[Reader]:
        """Open a file."""


class Files(Protocol):
    """Files of a kind of storage, by their paths."""

    def stat(self, path: str, /) -> FileStat:
        """Size and generation of a file."""

    def has(self, path: str, /, *, size_bytes: int, crc32c: str, written_ns: int | None) -> bool:
        """Whether a file is there and has this content."""

    def written_ns(self, path: str, /) -> int | None:
        """When a file was written last; None if it is not there, or checksums are known."""

    def reading(self, path: str, /) -> AbstractContextManager[Any]:
        """Open a file for random access."""

    def read(self, path: str, /) -> bytes:
        """The whole content of a file."""

    def writing(self, path: str, scratch: str, /) -> AbstractContextManager[Any]:
        """A file that is at the path when it closes well."""

    def remove(self, path: str, root: str, /) -> None:
        """Remove a file, and the folders below the root that this leaves empty."""

    def names_alike(self, path: str, /) -> frozenset[str]:
        """Names of the files beside a path that differ from it in their extension only."""

    def clear_scratch(self, work: str, run: str, /) -> None:
        """Remove the scratch files of a run, and those of its parts."""

    def clear_left_scratch(self, work: str, /) -> None:
        """Remove the scratch files of runs that are over, as far as that is known."""

    def run_lock(self, work: str, run: str, /) -> AbstractContextManager[None]:
        """What tells others that a run is not over, where that can be told."""
