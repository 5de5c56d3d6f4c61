"""Where the parts of a long recording meet: a CoGroupByKey of their receipts."""

import os

import apache_beam as beam
from apache_beam.transforms import trigger, window

from .grouping import CoGroupRecords
from .records import Failure, PartReceipt

WINDOW_S = 60
LONGEST_RETENTION_S = 32 * 24 * 3600


def receipts_by_recording(
    parts: beam.PCollection, failures: list[beam.PCollection], branches: tuple[str, ...]
) -> beam.PCollection:
    """CoGroupByKey of the receipts of long recordings: `{branch: […], …, "failures": […]}`.

    They meet by element and generation: parts of a file and of one that took its place do not.
    """

    def keyed(receipt: PartReceipt) -> tuple[bytes, PartReceipt]:
        return _key(receipt.recording.element, receipt.recording.generation), receipt

    tagged: dict[str, beam.PCollection] = {
        branch: parts
        | f"Only-{branch}" >> beam.Filter(lambda receipt, branch: receipt.branch == branch, branch)
        | f"Key-{branch}" >> beam.Map(keyed).with_output_types(tuple[bytes, PartReceipt])
        for branch in branches
    }
    tagged["failures"] = (
        failures
        | "FailuresOfSteps" >> beam.Flatten()
        | "OfParts" >> beam.Filter(lambda failure: failure.part_index is not None)
        | "Key-failures"
        >> beam.Map(
            lambda failure: (_key(failure.element, failure.generation), failure)
        ).with_output_types(tuple[bytes, Failure])
    )
    windowing = None if parts.is_bounded else OfOneEvent()
    grouped = tagged | "ReceiptsByRecording" >> CoGroupRecords(windowing)
    if parts.is_bounded:
        return grouped
    return grouped | "Unwindow" >> beam.WindowInto(window.GlobalWindows())


def _key(element: str, generation: str | None) -> bytes:
    return os.fsencode(element) + b"\0" + (generation or "").encode()


class OfOneEvent(beam.PTransform):
    """Windows of a stream in which all receipts of an event meet, and are seen as they come.

    What is made of an event keeps the time that the event was published at, so all of it is in one
    window. The window's content is told again at each receipt; who reads it waits for the last.
    Nothing comes too late: Pub/Sub keeps no message longer than a window stays open.
    """

    def expand(self, receipts: beam.PCollection) -> beam.PCollection:
        """Same receipts."""
        return receipts | beam.WindowInto(
            window.FixedWindows(WINDOW_S),
            trigger=trigger.Repeatedly(trigger.AfterCount(1)),
            accumulation_mode=trigger.AccumulationMode.ACCUMULATING,
            allowed_lateness=LONGEST_RETENTION_S,
        )
