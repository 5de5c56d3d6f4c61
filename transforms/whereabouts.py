"""The step that this process is in, and how far it is, told to a launcher.

The launcher watches for what hangs, and shows what is done of long parts.

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

from .records import PartReference, PendingRecording, Recording, Track

FILE_PREFIX = "at-"
# Of a recording whose header was not read: 16 bits, two channels, 44.1 kHz.
BYTES_PER_S = 176_400
# How much of a part is done when a step begins and when it ends, by the time that each took for 4
# and 5 minutes of stereo at 44.1 kHz. Most models take longer for a part than all other steps.
SHARES_OF_STEPS = {
    "LoadAudio": (0.0, 0.03),
    "GetSTFT": (0.03, 0.06),
    "GetMagnitude": (0.06, 0.07),
    "FilterNearestNeighbors": (0.07, 0.67),
    "GetSoftMask": (0.67, 0.75),
    "InverseSTFT": (0.75, 0.82),
    "EncodeStems": (0.82, 0.91),
    "GetSpec": (0.91, 0.97),
    "SpecToPlot": (0.97, 1.0),
    "RunInference": (0.03, 0.95),
    # Of all that joining is.
    "JoinParts": (0.0, 1.0),
}
LEAST_ADVANCE = 0.002


@dataclass
class _Teller:
    folder: str | None = None
    process: int = 0
    handle: int = -1
    count: int = 0
    told: dict[str, Any] | None = None


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
    start, _ = SHARES_OF_STEPS.get(step, (0.0, 0.0))
    told = {"step": step, "element": element, "part_index": part_index_of(record), "share": start}
    _tell({"count": _teller.count, **told, "length_s": length_of(record)})
    try:
        yield
    finally:
        _tell(None)


def tell_share(share: float) -> None:
    """Tell how much is done of the step that this process is in, from 0 to 1."""
    told = _teller.told
    if told is None or told["step"] not in SHARES_OF_STEPS:
        return
    start, stop = SHARES_OF_STEPS[told["step"]]
    of_part = start + share * (stop - start)
    # What goes on by less is not worth its time.
    if of_part >= told["share"] + LEAST_ADVANCE:
        _tell({**told, "share": round(min(of_part, stop), 4)})


def _tell(line: dict[str, Any] | None) -> None:
    _teller.told = line
    # A process that was forked has a file of its own.
    if _teller.process != os.getpid():
        path = f"{_teller.folder}/{FILE_PREFIX}{os.getpid()}"
        _teller.handle = os.open(path, os.O_WRONLY | os.O_CREAT, 0o666)
        _teller.process = os.getpid()
    os.pwrite(_teller.handle, json.dumps(line).encode() + b"\n", 0)


def read_whereabouts(folder: Path) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """Each process that told where it is, and what it told; None between steps.

    `count` differs from one entry to the next, `step` is its name, `element` and `part_index` say
    what it is at, `share` how much is done of that part, from 0 to 1, or, in JoinParts, of joining;
    `length_s` is that of the recording.
    """
    for path in folder.glob(f"{FILE_PREFIX}*"):
        # What a longer line has left follows the first; one that is being written is none yet.
        with contextlib.suppress(OSError, ValueError):
            told = path.read_bytes().partition(b"\n")[0]
            yield int(path.name.removeprefix(FILE_PREFIX)), json.loads(told)


def part_index_of(record: Any) -> int | None:
    """The part that a record is of; None if it is of no single one."""
    return record.part.index if isinstance(record, Track | PartReference) else None


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
