"""What all file systems with a scheme share: files are made here, and put there as a whole."""

import contextlib
import tempfile
from collections.abc import Iterator
from typing import Any

SPOOLED_BYTES = 64 << 20


class RemoteFiles:
    """Files elsewhere; each kind says how one is put, removed and listed."""

    def put(self, path: str, file: Any) -> None:
        """Put the content of a local file at a path."""
        raise NotImplementedError

    def remove(self, path: str, _root: str) -> None:
        """Remove a file. No error if it is not there."""
        raise NotImplementedError

    def list_names(
        self, folder: str, *, beginning: str = "", without: str | None = None
    ) -> Iterator[str]:
        """Names of the files below a folder, relative to it, in order of name.

        Parameters
        ----------
        beginning : what the names begin with
        without : a folder below this one, whose files are left out
        """
        raise NotImplementedError

    @contextlib.contextmanager
    def writing(self, path: str, _scratch: str) -> Iterator[Any]:
        """A local file whose content is put there when it closes well."""
        with tempfile.SpooledTemporaryFile(SPOOLED_BYTES) as file:
            yield file
            self.put(path, file)

    def clear_scratch(self, work: str, run: str) -> None:
        """Remove the scratch files of a run; whether others still live can't be known."""
        scratch = f"{work}/scratch-{run}"
        for name in list(self.list_names(scratch)):
            self.remove(f"{scratch}/{name}", work)
