"""The kinds of files, by their paths, and what all of them can do."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

from .file_facts import GCS_SCHEME, FileStat, scheme_of
from .local_files import LocalFiles
from .protocol import Files, SourceFiles
from .remote_files import RemoteFiles

HTTP_SCHEMES = ("http://", "https://")


def files_of(path: str) -> Files:
    """The kind of files that a path names."""
    return remote_files_of(path) if scheme_of(path) else LocalFiles()


def source_files_of(address: str) -> SourceFiles:
    """The kind of files that an address names, for reading: behind HTTP, too."""
    if scheme_of(address).lower() in HTTP_SCHEMES:
        from .http_files import HttpFiles

        return HttpFiles()
    return files_of(address)


def remote_files_of(path: str) -> RemoteFiles:
    """The kind of files that a path with a scheme names."""
    # Not needed for most runs, and slow to import.
    if path.startswith(GCS_SCHEME):
        from .gcs import GcsFiles

        return GcsFiles()
    from .beam_files import BeamFiles

    return BeamFiles()


def absolute(location: str) -> str:
    """A location that does not depend on the working directory, without a slash at its end."""
    return location.rstrip("/") if scheme_of(location) else os.path.abspath(location)


def stat_file(path: str) -> FileStat:
    """Size and generation of a file.

    Raises
    ------
    StorageError : the file is not there, is a folder, or can't be reached
    """
    return files_of(path).stat(path)


def open_for_reading(path: str) -> AbstractContextManager[Any]:
    """Open a file for random access."""
    return files_of(path).reading(path)


def read_bytes(path: str) -> bytes:
    """The whole content of a file."""
    return files_of(path).read(path)


def sha256_of(path: str) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with open_for_reading(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def list_names(folder: str, *, beginning: str = "", without: str | None = None) -> Iterator[str]:
    """Names of the files below a folder with a scheme, relative to it, in order of name.

    On `gs://` they come page by page.

    Parameters
    ----------
    beginning : what the names begin with
    without : a folder below this one, whose files are not asked for
    """
    return remote_files_of(folder).list_names(folder, beginning=beginning, without=without)
