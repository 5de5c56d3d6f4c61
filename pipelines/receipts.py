"""Where the parts of a long recording meet: a CoGroupByKey of their receipts."""

import os

import apache_beam as beam
from apache_beam.transforms import trigger, window

from ..transforms.records import Failure, PartReceipt

WINDOW_S = 60
LONGEST_RETENTION_S = 32 * 24 * 3600


def receipts_by_recording(
    parts: beam.PCollection, failures: list[beam.PCollection], branches: tuple[str, ...]
) -> beam.PCollection:
    """CoGroupByKey of the receipts of long recordings: `{branch: […], …, "failures": […]}`."""

    def keyed(receipt: PartReceipt) -> tuple[bytes, PartReceipt]:
        return os.fsencode(receipt.recording.element), receipt

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
        >> beam.Map(lambda failure: (os.fsencode(failure.element), failure)).with_output_types(
            tuple[bytes, Failure]
        )
    )
    if not parts.is_bounded:
        tagged = {name: each | f"Window-{name}" >> OfOneEvent() for name, each in tagged.items()}
    grouped = tagged | "ReceiptsByRecording" >> beam.CoGroupByKey()
    if parts.is_bounded:
        return grouped
    return grouped | "Unwindow" >> beam.WindowInto(window.GlobalWindows())


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
