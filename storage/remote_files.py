"""What all file systems with a scheme share: files are made here, and put there as a whole."""

import contextlib
import tempfile
import time
from collections.abc import Iterator
from typing import Any

from .file_facts import SCRATCH_DAYS
from .protocol import Files

SPOOLED_BYTES = 64 << 20


class RemoteFiles(Files):
    """Files elsewhere; each kind says how one is put, removed and listed."""

    def put(self, path: str, file: Any) -> None:
        """Put the content of a local file at a path."""
        raise NotImplementedError

    def list_names(
        self, folder: str, *, beginning: str = "", without: str | None = None
    ) -> Iterator[str]:
        """Names of the files below a folder, relative to it, in order of name.

        Parameters
        ----------
        beginning
            what the names begin with
        without
            a folder below this one, whose files are left out
        """
        raise NotImplementedError

    @contextlib.contextmanager
    def writing(self, path: str, _scratch: str) -> Iterator[Any]:
        """A local file whose content is put there when it closes well."""
        with tempfile.SpooledTemporaryFile(SPOOLED_BYTES) as file:
            yield file
            self.put(path, file)

    def list_older(self, folder: str, before_s: float) -> Iterator[str]:
        """Names of the files below a folder that were not written after a time, seconds of 1970."""
        raise NotImplementedError

    def clear_scratch(self, work: str, run: str) -> None:
        """Remove the scratch files of a run, and those of its parts."""
        for name in list(self.list_names(work, beginning=f"scratch-{run}")):
            if name.removeprefix(f"scratch-{run}")[0] in "./":
                self.remove(f"{work}/{name}", work)

    def clear_left_scratch(self, work: str) -> None:
        """Remove old scratch files: whether the runs that wrote them live can't be known."""
        for name in self.old_scratch(work):
            self.remove(f"{work}/{name}", work)

    def old_scratch(self, work: str) -> list[str]:
        """Names of the scratch files that are nobody's any more, by their age."""
        return list(self.list_older(work, time.time() - SCRATCH_DAYS * 24 * 3600))

    def run_lock(self, _work: str, _run: str) -> contextlib.AbstractContextManager[None]:
        """Nothing: there are no locks."""
        return contextlib.nullcontext()
