"""What a run tells: progress while it goes on, and the dead letters."""

import hashlib
import json
import os
from collections.abc import Iterator
from typing import Any

import apache_beam as beam
import numpy as np
from apache_beam.metrics import Metrics

from ..storage import DEAD_LETTER_FOLDER, DEAD_LETTERS, OutputTree
from .klio.message import Version, parse_message, with_payload
from .plain import to_plain
from .progress_lines import progress_of
from .records import Failure, Receipt, Track


class ReportProgress(beam.PTransform):
    """Appends a line for each element to a local file that the launcher follows; hands it on.

    Parameters
    ----------
    path
        the file
    event
        what happened to the element
    """

    def __init__(self, path: str | os.PathLike[str], event: str) -> None:
        super().__init__()
        self.path = path
        self.event = event

    def expand(self, elements: beam.PCollection) -> beam.PCollection:
        """The same elements."""
        report = beam.ParDo(_AppendLine(self.path, self.event))
        return elements | report.with_output_types(elements.element_type)


class _AppendLine(beam.DoFn):
    def __init__(self, path: str | os.PathLike[str], event: str) -> None:
        self.path = path
        self.event = event

    def process(self, element: Any) -> Iterator[Any]:
        # One line, in one write, which is atomic.
        line = json.dumps({"event": self.event, "process": os.getpid(), **progress_of(element)})
        handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            os.write(handle, line.encode() + b"\n")
        finally:
            os.close(handle)
        yield element


class WriteDeadLetters(beam.PTransform):
    """All failures of a batch to `failures.jsonl`, one a line, in order of element.

    Parameters
    ----------
    tree
        where the files go
    is_stream
        write each failure to a file of its own below `failures/`, since a stream has no end
    """

    def __init__(self, tree: OutputTree, *, is_stream: bool = False) -> None:
        super().__init__()
        self.tree = tree
        self.is_stream = is_stream

    def expand(self, failures: beam.PCollection) -> beam.PCollection:
        """Nothing comes out."""
        if self.is_stream:
            return failures | "WriteOne" >> beam.ParDo(_WriteDeadLetter(self.tree))
        return (
            failures
            | "Line" >> beam.Map(line_of).with_output_types(str)
            | "Together" >> beam.combiners.ToList()
            | "Write" >> beam.ParDo(_WriteDeadLetters(self.tree))
        )


class _WriteDeadLetters(beam.DoFn):
    def __init__(self, tree: OutputTree) -> None:
        self.tree = tree

    def process(self, lines: list[str]) -> None:
        _count_failed(len({json.loads(line)["element"] for line in lines}))
        text = "".join(line + "\n" for line in sorted({*lines}))
        self.tree.write(text.encode(), DEAD_LETTERS)


class _WriteDeadLetter(beam.DoFn):
    def __init__(self, tree: OutputTree) -> None:
        self.tree = tree

    def process(self, failure: Failure) -> None:
        _count_failed(1)
        # The same name when the same fails again.
        identity = (failure.element, failure.step, failure.part_index)
        digest = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]
        self.tree.write(f"{line_of(failure)}\n".encode(), DEAD_LETTER_FOLDER, f"{digest}.json")


def _count_failed(recordings: int) -> None:
    Metrics.counter(WriteDeadLetters.__name__, "recordings").inc(recordings)


def finished_message(receipt: Receipt, output_location: str) -> bytes:
    """The message of a finished recording, for the jobs that come after: its payload says what lies
    where, as JSON. One of version 1 keeps its payload, as Klio has it.
    """
    message = parse_message(receipt.message)
    if message.version == Version.V2:
        made = {
            "element": receipt.element,
            "folder": f"{output_location.rstrip('/')}/{receipt.folder}",
            "duration_s": receipt.duration_s,
            "skipped": receipt.skipped,
            "files": [to_plain(file) for file in receipt.files],
        }
        message.data.payload = json.dumps(made).encode()
    return message.SerializeToString()


def message_of(track: Track, name: str) -> bytes:
    """A Klio message about a track whose payload is one of its arrays, in npy format.

    With it `@handle_klio` and `@handle_binary` go on from here.

    Parameters
    ----------
    name
        of the array, such as `magnitude`; or `masks.background`, of one of several

    Raises
    ------
    ValueError
        the track has no such array
    """
    field, _, key = name.partition(".")
    found = getattr(track, field, None)
    array = found.get(key) if isinstance(found, dict) else found
    if not isinstance(array, np.ndarray):
        raise ValueError(f"the track has no array {name}: put the step that makes it before this")
    return with_payload(parse_message(track.recording.message), array).SerializeToString()


def path_messages(track: Track, location: str) -> Iterator[bytes]:
    """A Klio message for each published file of a track, with the file's path as its payload.

    They are about the track's element, with the metadata of the message that it came by.

    Parameters
    ----------
    location
        of the output tree that the files were written to
    """
    message = parse_message(track.recording.message)
    for file in track.files:
        path = f"{location.rstrip('/')}/{track.recording.folder}/{file.name}"
        yield with_payload(message, path).SerializeToString()


def line_of(failure: Failure) -> str:
    """A dead letter as a line of JSON."""
    plain = {name: value for name, value in to_plain(failure).items() if value is not None}
    return json.dumps(plain)
