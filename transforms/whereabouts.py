"""The step that this process is in, told to a launcher that watches for what hangs.

Each process has a small file of its own that it writes over, without opening it anew: that costs
some thirty microseconds a step. Where nobody watches, nothing is written.
"""

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .records import PendingRecording, Recording

FILE_PREFIX = "at-"
# Of a recording whose header was not read: 16 bits, two channels, 44.1 kHz.
BYTES_PER_S = 176_400


@dataclass
class _Teller:
    folder: str | None = None
    process: int = 0
    handle: int = -1
    count: int = 0


_teller = _Teller()


def tell_whereabouts(folder: str | os.PathLike[str]) -> None:
    """Have this process, and those that are forked from it, write into a folder where they are."""
    _teller.folder = os.fspath(folder)


@contextlib.contextmanager
def at_step(step: str, element: str, record: Any) -> Iterator[None]:
    """Tell that a step works on a record, and then that it does no more."""
    if _teller.folder is None:
        yield
        return
    _teller.count += 1
    told = {"step": step, "element": element, "length_s": length_of(record)}
    _write({"count": _teller.count, **told})
    try:
        yield
    finally:
        _write(None)


def _write(line: dict[str, Any] | None) -> None:
    # A process that was forked has a file of its own.
    if _teller.process != os.getpid():
        path = f"{_teller.folder}/{FILE_PREFIX}{os.getpid()}"
        _teller.handle = os.open(path, os.O_WRONLY | os.O_CREAT, 0o666)
        _teller.process = os.getpid()
    os.pwrite(_teller.handle, json.dumps(line).encode() + b"\n", 0)


def read_whereabouts(folder: Path) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """Each process that told where it is, and what it told: `count`, which differs from one entry
    to the next, `step`, `element` and `length_s`; None between steps.
    """
    for path in folder.glob(f"{FILE_PREFIX}*"):
        # What a longer line has left follows the first; one that is being written is none yet.
        with contextlib.suppress(OSError, ValueError):
            told = path.read_bytes().partition(b"\n")[0]
            yield int(path.name.removeprefix(FILE_PREFIX)), json.loads(told)


def length_of(record: Any) -> float:
    """Seconds of the recording that a record is of; as its size has it before its header is read.

    Of the receipts that a CoGroupByKey gives, that of the recording of the first.
    """
    if isinstance(record, tuple):
        receipts = (receipt for group in record[1].values() for receipt in group)
        record = next((each for each in receipts if hasattr(each, "recording")), None)
    recording = getattr(record, "recording", record)
    if isinstance(recording, Recording):
        return recording.duration_s
    if isinstance(recording, PendingRecording):
        return recording.size_bytes / BYTES_PER_S
    return 0.0
