"""The graph: from events to stems, plots and manifests.

ReadEvents - AcceptMessages - SkipFinished - PlanParts - Spread
  - LoadBinary - LoadAudio - GetSTFT - GetMagnitude <spectrogram, phase>
      - FilterNearestNeighbors - GetSoftMask (twice) - InverseSTFT
  - LoadStems - EncodeStems - ScoreStems - TakeFeatures - MakeReport
  - GetSpec - SpecToPlot - UploadPlots - PublishTrack
  - CoGroupByKey of the receipts of long recordings - JoinParts - PublishTrack
  - Flatten - WriteEvents; failures of every step - dead letters
"""

import functools
import os
from collections.abc import Iterable
from typing import Any

import apache_beam as beam

from ..transforms import coders  # noqa: F401  (registers the coders)
from ..transforms.accepting import NOT_FOR_US, PASS_THROUGH, AcceptMessages
from ..transforms.attempts import CountAttempts
from ..transforms.beam_speed import speed_up_beam
from ..transforms.klio.message import KlioJob
from ..transforms.labels import WriteLabels
from ..transforms.loading import LoadAudio, LoadBinary, LoadStems
from ..transforms.planning import (
    RESULTS,
    SKIPPED,
    UPSTREAM,
    GivenUp,
    PlanParts,
    SkipFinished,
    Spread,
)
from ..transforms.plots import GetSpec, SpecToPlot, UploadPlots
from ..transforms.publishing import PARTS, EncodeStems, JoinParts, PublishTrack
from ..transforms.receipts import receipts_by_recording
from ..transforms.records import (
    PartReceipt,
    PartReference,
    PendingRecording,
    Receipt,
    Track,
)
from ..transforms.reporting import ReportProgress, WriteDeadLetters, finished_message
from ..transforms.run_tables import WriteRunTables
from ..transforms.steps import run_step
from .events.elements import resumption_of
from .events.upstream import TriggerUpstream
from .events.writing import WriteEvents
from .job.job_config import JobConfig
from .outcomes.run_state import CRASHED
from .outcomes.summary import facts_of_job
from .report.graph import WritePage

speed_up_beam()


def build(
    job: JobConfig,
    messages: beam.PCollection,
    *,
    local_workers: int | None = None,
    model_threads: int | None = None,
    progress_path: str | os.PathLike[str] | None = None,
    given_up: GivenUp | None = None,
    done: Iterable[str] = (),
    attempts: str | None = None,
) -> dict[str, beam.PCollection]:
    """Compose the graph of a job.

    Parameters
    ----------
    messages
        the events: the bytes of a message each, or `PubsubMessage`s
    local_workers
        worker processes of FnApiRunner; None on other runners
    model_threads
        of each worker, for the arithmetic of models on the CPU; None: as torch has it
    progress_path
        file that the steps append what they did to, for the progress bar
    given_up
        by element of recordings that go straight to the dead letters: reason, and step
    done
        elements that are not done again, even if the job forces it
    attempts
        folder of the output tree that tries are noted in, on runners that repeat what has
        failed; None where the launcher knows which recordings end their process

    Returns
    -------
    `receipts` of all recordings that are finished, `messages` about them and of all that was passed
    through, and `failures`.
    """
    tree, settings = job.output_tree, job.settings
    failures: list[beam.PCollection] = []
    report = Reporter(progress_path)
    accepted = run_step(
        messages, accept_messages(job), bytes, failures, tags=(PASS_THROUGH, NOT_FOR_US)
    )
    upstream = job.job_config.upstream
    skip = SkipFinished(
        resumption_of(job),
        given_up=given_up,
        done=done,
        asks_upstream=upstream is not None,
    )
    pending = run_step(
        accepted.main, skip, PendingRecording, failures, tags=(SKIPPED, RESULTS, UPSTREAM)
    )
    pending[SKIPPED].element_type = Receipt
    pending[RESULTS].element_type = pending[UPSTREAM].element_type = bytes
    untouched = [accepted[PASS_THROUGH], accepted[NOT_FOR_US], pending[RESULTS], pending[UPSTREAM]]
    report_each(untouched, "passed", report)
    if upstream:
        failures.append(pending[UPSTREAM] | TriggerUpstream(upstream, klio_job_of(job)))

    to_plan = report(pending.main, "opened")
    if attempts:
        count = CountAttempts(tree, attempts, reason=CRASHED)
        to_plan = run_step(to_plan, count, PendingRecording, failures, label="CountPlanning")
    parts = report(
        run_step(to_plan, PlanParts(settings, tree.storage), PartReference, failures), "planned"
    )
    spread = report(parts | Spread(local_workers=local_workers), "started")
    tracks = loaded(spread, job, failures, attempts=attempts)
    if job.join == "cogbk":
        from ..transforms.fan_out import SplitByFanOut

        split = tracks | "Split" >> SplitByFanOut(job.nearest_neighbors, settings, tree)
        failures += split["failures"]
        finished = [split["receipts"]]
    else:
        published = fused_stage(
            tracks, job, failures, model_threads=model_threads, at_once=attempts is not None
        )
        receipts_of_parts = report(published[PARTS], "part")
        joined = receipts_by_recording(receipts_of_parts, failures, settings.branches)
        join = JoinParts(settings, tree, is_stream=not receipts_of_parts.is_bounded)
        joined = run_step(joined, join, Track, failures)
        publish = PublishTrack(settings, tree)
        of_parts = run_step(joined, publish, Receipt, failures, label="PublishJoined")
        finished = [published.main, of_parts]

    # Reported one by one: a Flatten waits for the whole batch.
    receipts = report_each((*finished, pending[SKIPPED]), "finished", report)
    outgoing = (
        receipts
        | "ToMessage" >> beam.Map(finished_message, tree.location).with_output_types(bytes),
        accepted[PASS_THROUGH],
    ) | "Outgoing" >> beam.Flatten()
    if not job.pipeline_options.streaming:
        receipts | WriteRunTables(settings, tree)
    failures.append(outgoing | WriteEvents(job.job_config.events.outputs, tree.storage))
    dead_letters = report_each(failures, "failed", report)
    written = dead_letters | WriteDeadLetters(tree, is_stream=job.pipeline_options.streaming)
    # On this machine the launcher writes it, again and again.
    if settings.report.enabled and not job.pipeline_options.streaming and local_workers is None:
        (receipts, written) | WritePage(tree, facts_of_job(job))
    return {"receipts": receipts, "messages": outgoing, "failures": dead_letters}


def klio_job_of(job: JobConfig) -> KlioJob:
    """What messages call a job."""
    return KlioJob(job_name=job.job_name, gcp_project=job.pipeline_options.project)


def accept_messages(job: JobConfig) -> AcceptMessages:
    """The step that finds out which messages a job processes; for graphs of one's own, too."""
    return AcceptMessages(
        klio_job_of(job).SerializeToString(),
        allow_non_klio_messages=job.job_config.allow_non_klio_messages,
        ping=job.ping,
        force=job.force,
    )


def loaded(
    parts: beam.PCollection,
    job: JobConfig,
    failures: list[beam.PCollection],
    *,
    attempts: str | None = None,
) -> beam.PCollection:
    """The beginning of the fused stage: from references of parts to tracks with samples."""
    tree = job.output_tree
    apply = functools.partial(run_step, failures=failures, hints=hints_of(job))
    if attempts:
        parts = apply(parts, CountAttempts(tree, attempts, reason=CRASHED), PartReference)
    binaries = apply(parts, LoadBinary(tree.storage), Track)
    return apply(binaries, LoadAudio(tree.storage), Track)


def hints_of(job: JobConfig) -> dict[str, str]:
    """Those of all steps of the fused stage: it ends where they change, and samples would cross."""
    return job.pipeline_options.fused_stage_hints


def fused_stage(
    tracks: beam.PCollection,
    job: JobConfig,
    failures: list[beam.PCollection],
    *,
    model_threads: int | None = None,
    at_once: bool = False,
) -> Any:
    """From tracks with samples to receipts: with `loaded` the only steps that hold arrays.

    Returns an object with `main`, receipts of finished recordings, and `parts`, those of parts.
    """
    tree, settings, hints = job.output_tree, job.settings, hints_of(job)
    apply = functools.partial(run_step, failures=failures, hints=hints)
    if "stems" in settings.branches:
        separate = separation(job, model_threads=model_threads, at_once=at_once)
        separated = tracks | "Separate" >> separate.with_resource_hints(**hints)
        failures += separated["failures"]
        stems = apply(separated["tracks"], LoadStems(settings, tree), Track)
        tracks = apply(stems, EncodeStems(settings, tree), Track)
    if "labels" in settings.branches:
        label = labelling(job, model_threads=model_threads, at_once=at_once)
        labelled = tracks | "Label" >> label.with_resource_hints(**hints)
        failures += labelled["failures"]
        tracks = apply(labelled["tracks"], WriteLabels(settings, tree), Track)
    # SciPy's signals take a second to import.
    if "scores" in settings.branches:
        from ..transforms.stem_scores import ScoreStems

        tracks = apply(tracks, ScoreStems(settings, tree), Track)
    if "features" in settings.branches:
        from ..transforms.features import TakeFeatures

        tracks = apply(tracks, TakeFeatures(settings, tree), Track)
    # matplotlib's colours take a third of a second to import.
    if "report" in settings.branches:
        from ..transforms.report import MakeReport

        tracks = apply(tracks, MakeReport(settings, tree), Track)
    powers = apply(tracks, GetSpec(settings, tree), Track)
    plots = apply(powers, SpecToPlot(settings, tree), Track)
    uploaded = apply(plots, UploadPlots(settings, tree), Track)
    published = apply(uploaded, PublishTrack(settings, tree), Receipt, tags=(PARTS,))
    published[PARTS].element_type = PartReceipt
    return published


def separation(
    job: JobConfig, *, model_threads: int | None, at_once: bool = False
) -> beam.PTransform:
    """The steps from samples to stems: those of the method itself, or a model's inference."""
    settings = job.settings
    if not settings.separation.is_nn_filter:
        # RunInference takes a second to import.
        from ..transforms.inference import SeparateByModels

        return SeparateByModels(settings, job.output_tree, threads=model_threads, at_once=at_once)
    # With it comes numba, which takes a third of a second to import.
    from ..transforms.separation import SeparateNearestNeighbors

    return SeparateNearestNeighbors(job.nearest_neighbors, stems=settings.separated_stems)


def labelling(job: JobConfig, *, model_threads: int | None, at_once: bool) -> beam.PTransform:
    """The inference of a model that gives labels."""
    from ..transforms.inference import LabelHandler, RunModels

    handler = LabelHandler(job.labels, job.separation, job.file_storage, threads=model_threads)
    return RunModels(handler, job.settings, job.output_tree, at_once=at_once)


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

    def __init__(self, path: str | os.PathLike[str] | None) -> None:
        self.path = path

    def __call__(
        self, elements: beam.PCollection, event: str, *, label: str | None = None
    ) -> beam.PCollection:
        """The same elements."""
        if self.path is None:
            return elements
        return elements | (label or f"Report-{event}") >> ReportProgress(self.path, event)
