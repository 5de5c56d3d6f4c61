"""The page of a job while it runs: what is finished by now, in the order in which it came."""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

from ...storage import OutputTree, StorageError, scheme_of
from ..job.job_config import JobConfig
from .building import (
    RUNNING,
    STOPPED,
    PageTotals,
    build_page,
    write_failures,
    write_group,
    write_run,
)
from .facts import RecordingFacts, facts_of
from .page_files import ROWS_PER_FILE, write_static

REFRESH_S = 5.0


class WatchedPage:
    """The page of a job on this machine, written again and again while recordings are finished.

    Parameters
    ----------
    job
        whose results it shows
    total
        how many recordings there will be
    """

    def __init__(self, job: JobConfig, total: int) -> None:
        self.tree: OutputTree = job.output_tree
        self.about = {"job_name": job.job_name}
        self.total = total
        self.totals = PageTotals()
        self.group: list[RecordingFacts] = []
        self.groups = 0
        self.failures: list[dict[str, Any]] = []
        self.folders: set[str] = set()
        self.news = True
        self.written_s = float("-inf")

    def take(self, line: dict[str, Any] | None) -> None:
        """Take a line of progress, or None now and then; writes the page when it is time."""
        event = line and line["event"]
        if line and event == "finished" and line["folder"] not in self.folders:
            self.folders.add(line["folder"])
            found = facts_of(line["folder"], self.tree)
            if found:
                self._add(found)
        elif line and event == "failed":
            self.failures.append(line)
            self.news = True
        if self.news and time.monotonic() >= self.written_s + REFRESH_S:
            self.write(RUNNING)

    def _add(self, found: RecordingFacts) -> None:
        self.group.append(found)
        self.totals.add(found.row)
        self.news = True
        if len(self.group) == ROWS_PER_FILE:
            write_group(self.groups, self.group, self.tree)
            self.group = []
            self.groups += 1

    def write(self, state: str) -> None:
        """Write it."""
        if self.group:
            write_group(self.groups, self.group, self.tree)
        write_failures(self.failures, self.tree)
        counts = {
            "finished": self.totals.recordings,
            "failed": len({failure["element"] for failure in self.failures}),
            "total": self.total,
        }
        about = {**self.about, "recordings": counts}
        write_run(self.tree, self.totals, len(self.failures), state=state, about=about)
        self.news = False
        self.written_s = time.monotonic()


@contextlib.contextmanager
def watched_page(job: JobConfig, total: int) -> Iterator[Callable[[dict[str, Any] | None], None]]:
    """The page of a job on this machine, if it has one; gives what takes the lines of progress.

    Where results lie elsewhere it is written once, at the end.

    Parameters
    ----------
    total
        how many recordings there will be

    Raises
    ------
    StorageError
        it can't be written
    """
    if not job.report.enabled:
        yield lambda line: None
        return
    if scheme_of(job.output_location):
        yield lambda line: None
    else:
        write_static(job.output_tree)
        page = WatchedPage(job, total)
        page.write(RUNNING)
        try:
            yield page.take
        except BaseException:
            with contextlib.suppress(StorageError):
                page.write(STOPPED)
            raise
    build_page(job.output_tree)
