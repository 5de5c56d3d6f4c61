"""Files of all kinds by their paths: what everything is handed that touches files."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from .file_facts import GCS_SCHEME, Access, FileStat, scheme_of
from .local_files import LocalFiles
from .protocol import Files, SourceFiles
from .remote_files import RemoteFiles

HTTP_SCHEMES = ("http://", "https://")


@dataclass(frozen=True)
class Storage:
    """Files by their paths, here or elsewhere. It can be pickled.

    Attributes
    ----------
    access
        how buckets are used
    """

    access: Access = field(default_factory=Access)

    def files_of(self, path: str) -> Files:
        """The kind of files that a path names."""
        return self._remote_files_of(path) if scheme_of(path) else LocalFiles()

    def _remote_files_of(self, path: str) -> RemoteFiles:
        # Not needed for most runs, and slow to import.
        if path.startswith(GCS_SCHEME):
            from .gcs import GcsFiles

            return GcsFiles(self.access)
        from .beam_files import BeamFiles

        return BeamFiles()

    def stat(self, path: str) -> FileStat:
        """Size and generation of a file.

        Raises
        ------
        StorageError
            the file is not there, is a folder, or can't be reached
        """
        return self.files_of(path).stat(path)

    def reading(self, path: str) -> AbstractContextManager[Any]:
        """Open a file for random access.

        Raises
        ------
        StorageError
            the file is not there, or can't be reached
        """
        return self.files_of(path).reading(path)

    def read(self, path: str) -> bytes:
        """The whole content of a file.

        Raises
        ------
        StorageError
            the file is not there, or can't be reached
        """
        return self.files_of(path).read(path)

    def sha256_of(self, path: str) -> str:
        """SHA-256 of a file's content, in hexadecimal.

        Raises
        ------
        StorageError
            the file is not there, or can't be reached
        """
        with self.reading(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def list_names(
        self, folder: str, *, beginning: str = "", without: str | None = None
    ) -> Iterator[str]:
        """Names of the files below a folder with a scheme, relative to it, in order of name.

        On `gs://` they come page by page.

        Parameters
        ----------
        beginning
            what the names begin with
        without
            a folder below this one, whose files are not asked for

        Raises
        ------
        StorageError
            the folder can't be listed
        """
        files = self._remote_files_of(folder)
        return files.list_names(folder, beginning=beginning, without=without)


def source_files_of(address: str) -> SourceFiles:
    """The kind of files that an address names, for reading without a job: behind HTTP, too."""
    if scheme_of(address).lower() in HTTP_SCHEMES:
        from .http_files import HttpFiles

        return HttpFiles()
    return Storage().files_of(address)


def absolute(location: str) -> str:
    """A location that does not depend on the working directory, without a slash at its end."""
    return location.rstrip("/") if scheme_of(location) else os.path.abspath(location)
