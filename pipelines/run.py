"""The graph: from events to stems, plots and manifests.

ReadEvents - AcceptMessages - SkipFinished - PlanParts - Spread
  - LoadBinary - LoadAudio - GetSTFT - GetMagnitude <spectrogram, phase>
      - FilterNearestNeighbors - GetSoftMask (twice) - InverseSTFT
  - LoadStems - EncodeStems - GetSpec - SpecToPlot - PublishTrack
  - CoGroupByKey of the receipts of long recordings - JoinParts - PublishTrack
  - Flatten; failures of every step - dead letters
"""

import os
from collections.abc import Iterable

import apache_beam as beam

from ..transforms import coders  # noqa: F401  (registers the coders)
from ..transforms.accepting import NOT_FOR_US, PASS_THROUGH, AcceptMessages
from ..transforms.fan_out import SeparateByFanOut
from ..transforms.klio_message import KlioJob, new_message
from ..transforms.loading import LoadAudio, LoadBinary, LoadStems
from ..transforms.planning import SKIPPED, PlanParts, SkipFinished, Spread
from ..transforms.plots import GetSpec, SpecToPlot
from ..transforms.publishing import PARTS, EncodeStems, JoinParts, PublishTrack
from ..transforms.records import (
    Failure,
    PartReceipt,
    PartReference,
    PendingRecording,
    Receipt,
    Track,
)
from ..transforms.reporting import ReportProgress, WriteDeadLetters
from ..transforms.separation import SeparateNearestNeighbors
from ..transforms.steps import run_step
from .events import EventList
from .job_config import JobConfig


def build(
    pipeline: beam.Pipeline,
    job: JobConfig,
    events: EventList,
    *,
    local_workers: int | None = None,
    progress_path: str | None = None,
    given_up: dict[str, str] | None = None,
) -> dict[str, beam.PCollection]:
    """Compose the graph of a job.

    Parameters
    ----------
    local_workers : worker processes of FnApiRunner; None on other runners
    progress_path : file that the steps append what they did to, for the progress bar
    given_up : reasons by element of recordings that go straight to the dead letters

    Returns
    -------
    `receipts` of all recordings that are finished, and `failures`.
    """
    out, settings = job.output_location, job.settings
    failures: list[beam.PCollection] = []

    messages = pipeline | ReadEvents(events)
    report = Reporter(progress_path)
    accepted = run_step(
        messages,
        AcceptMessages(
            KlioJob(
                job_name=job.job_name, gcp_project=job.pipeline_options.project
            ).SerializeToString(),
            allow_non_klio_messages=job.job_config.allow_non_klio_messages,
            ping=job.ping,
            force=job.force,
        ),
        bytes,
        failures,
        tags=(PASS_THROUGH, NOT_FOR_US),
    )
    report_each((accepted[PASS_THROUGH], accepted[NOT_FOR_US]), "passed", report)
    pending = run_step(
        accepted.main,
        SkipFinished(events.location, out, settings, suffix=events.suffix, given_up=given_up),
        PendingRecording,
        failures,
        tags=(SKIPPED,),
    )
    pending[SKIPPED].element_type = Receipt
    to_plan = report(pending.main, "opened")
    parts = report(run_step(to_plan, PlanParts(settings), PartReference, failures), "planned")
    spread = report(parts | Spread(local_workers=local_workers), "started")

    binaries = run_step(spread, LoadBinary(), Track, failures)
    tracks = run_step(binaries, LoadAudio(), Track, failures)
    separate = SeparateByFanOut if job.join == "cogbk" else SeparateNearestNeighbors
    separated = tracks | "Separate" >> separate(
        settings.separation.resolved_recipe(), stems=settings.wanted_stems
    ).with_resource_hints(**job.pipeline_options.separation_hints)
    failures += separated["failures"]
    stems = run_step(separated["tracks"], LoadStems(settings, out), Track, failures)
    encoded = run_step(stems, EncodeStems(settings, out), Track, failures)
    powers = run_step(encoded, GetSpec(settings, out), Track, failures)
    plotted = run_step(powers, SpecToPlot(settings, out), Track, failures)
    published = run_step(plotted, PublishTrack(settings, out), Receipt, failures, tags=(PARTS,))
    published[PARTS].element_type = PartReceipt

    receipts_of_parts = report(published[PARTS], "part")
    joined = receipts_by_recording(receipts_of_parts, failures, settings.branches)
    joined = run_step(joined, JoinParts(settings, out), Track, failures)
    finished = run_step(
        joined, PublishTrack(settings, out), Receipt, failures, label="PublishJoined"
    )

    # Reported one by one: a Flatten waits for the whole batch.
    receipts = report_each((published.main, finished, pending[SKIPPED]), "finished", report)
    dead_letters = report_each(failures, "failed", report)
    dead_letters | WriteDeadLetters(out)
    return {"receipts": receipts, "failures": dead_letters}


class ReadEvents(beam.PTransform):
    """The events of a job, as the bytes of a `KlioMessage` each."""

    def __init__(self, events: EventList) -> None:
        super().__init__()
        self.events = events

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection:
        """Elements to messages."""
        elements = [os.fsencode(element) for element in self.events.elements]
        return (
            pipeline
            | beam.Create(elements)
            | "ToMessage"
            >> beam.Map(lambda element: new_message(element).SerializeToString()).with_output_types(
                bytes
            )
        )


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
    return tagged | "ReceiptsByRecording" >> beam.CoGroupByKey()


def report_each(
    collections: Iterable[beam.PCollection], event: str, report: "Reporter"
) -> beam.PCollection:
    """Report the elements of each collection where they arise; gives all of them."""
    reported = [
        report(collection, event, label=f"Report-{event}-{index}")
        for index, collection in enumerate(collections)
    ]
    return reported | f"All-{event}" >> beam.Flatten()


class Reporter:
    """Puts `ReportProgress` behind a collection, where there is a file to report to."""

    def __init__(self, path: str | None) -> None:
        self.path = path

    def __call__(
        self, elements: beam.PCollection, event: str, *, label: str | None = None
    ) -> beam.PCollection:
        """The same elements."""
        if self.path is None:
            return elements
        return elements | (label or f"Report-{event}") >> ReportProgress(self.path, event)
