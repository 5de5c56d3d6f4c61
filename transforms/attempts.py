"""Recordings that end their process, again and again, where the runner repeats what has failed.

Such a runner can't tell why a process is gone: it has the work done again, and with it the work
that ended the process; a batch fails after some tries, a stream stands still. So each try is noted
beside the results, where all workers see it, before its work begins, and the note goes when it has
ended, well or with an exception. What was begun twice and never ended is given up.
"""

import contextlib
import hashlib
import itertools
import json
import secrets
import threading
from collections import Counter
from collections.abc import Iterable
from typing import Any

from ..storage import WORK_FOLDER, OutputTree, StorageError, UnusableStorageError, run_identity
from .records import PartReference, PendingRecording
from .steps import GivenUpError, Step

BEGUN_BEFORE_GIVING_UP = 2
ALONE_TIMEOUT_S = 600.0


def new_attempts() -> str:
    """The folder of an output tree that the tries of a new run are noted in.

    It is one of scratch files: what stays there goes by age.
    """
    return f"{WORK_FOLDER}/scratch-{run_identity()}.{secrets.token_hex(4)}/attempts"


class CountAttempts(Step):
    """Hands a recording or a part on, while its try is noted; gives up what ended its process.

    The steps behind this one must be fused with it, and work on what they are given at once: this
    one waits until its output is taken. A second try has its process to itself, so that it takes
    no other work down with it.

    Parameters
    ----------
    tree
        the output tree, beside whose results they are noted
    folder
        of the notes in it: the same for all tries of a run, another for another run
    reason
        why a recording is given up
    """

    def __init__(self, tree: OutputTree, folder: str, *, reason: str) -> None:
        self.tree = tree
        self.folder = folder
        self.reason = reason
        self.begun: list[str] = []  # notes about what is at work, that of this try last
        self.worker_thread = 0  # that works on it

    def process(self, record: PendingRecording | PartReference) -> Iterable[Any]:
        """Beam's entry."""
        yield from super().process(record)
        # All steps behind are done with the record: it ends no process.
        self.end(self.begun)

    def apply(self, record: Any) -> Iterable[Any]:
        """The same record, once its try is noted."""
        work = f"{self.folder}/{work_identity(record)}"
        names = [f"{work}-{number}" for number in range(BEGUN_BEFORE_GIVING_UP)]
        begun = list(itertools.takewhile(self._is_begun, names))
        if begun == names:
            raise GivenUpError(self.reason, None)
        name = names[len(begun)]
        self.worker_thread = threading.get_ident()
        _turns.enter(alone=bool(begun))
        self.begun = [*begun, name]
        _ended.discard(name)
        # Without a note the work is done all the same.
        with contextlib.suppress(StorageError):
            self.tree.write(b"", name)
        return [record]

    def _is_begun(self, name: str) -> bool:
        return name not in _ended and self.tree.is_there(name)

    def start_bundle(self) -> None:
        """Beam's entry: an exception may have ended the bundle before."""
        self.end(self.begun[-1:])

    def teardown(self) -> None:
        """Beam's entry: an exception may have ended the bundle before."""
        self.end(self.begun[-1:])

    def end(self, names: Iterable[str]) -> None:
        """What is at work, if anything, has ended, and the tries with these notes have."""
        if not self.begun:
            return
        # What an exception has ended may be told by the next bundle, in another thread.
        _turns.leave(self.worker_thread)
        _ended.update(names)
        self.begun = []
        # Storage that is away does not undo what is done: the notes go when other work ends.
        with contextlib.suppress(StorageError, UnusableStorageError):
            for name in [each for each in list(_ended) if each.startswith(self.folder)]:
                self.tree.remove(name)
                _ended.discard(name)


def work_identity(record: PendingRecording | PartReference) -> str:
    """A name of what is to be done with one generation of a recording, or of its part."""
    part = record.part.index if isinstance(record, PartReference) else None
    recording = record.recording if isinstance(record, PartReference) else record
    identity = json.dumps([recording.folder, recording.generation, part]).encode()
    return hashlib.sha256(identity).hexdigest()[:32]


class _Turns:
    """Who is at work in this process: a thread alone, or any number of others."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.at_work: Counter[int] = Counter()  # by thread
        self.alone: int | None = None

    def enter(self, *, alone: bool) -> None:
        """Wait for one's turn; not for ever, lest what hangs holds up all."""
        me = threading.get_ident()
        with self.changed:
            self.changed.wait_for(lambda: self.alone in (None, me), ALONE_TIMEOUT_S)
            if alone:
                # Nobody else begins from here on.
                self.alone = me
                self.changed.wait_for(lambda: {*self.at_work} <= {me}, ALONE_TIMEOUT_S)
            self.at_work[me] += 1

    def leave(self, thread: int) -> None:
        """Work of a thread is over."""
        with self.changed:
            self.at_work -= Counter([thread])
            if self.alone == thread and thread not in self.at_work:
                self.alone = None
            self.changed.notify_all()


_turns = _Turns()
# Notes of tries that have ended, and that could not be removed yet; all threads share them.
_ended: set[str] = set()
