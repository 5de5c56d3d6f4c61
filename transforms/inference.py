"""The separation by any model: RunInference, with a handler whose element is a part.

A batch of Beam's has one part. What is batched are blocks: those of one part, and on a GPU those of
all parts that are at work on the machine (`models/separators/server`).
"""

import functools
import os
from collections.abc import Iterable, Sequence
from typing import Any

import apache_beam as beam
from apache_beam.ml.inference.base import ModelHandler, RunInference

from ..models.model_cache import MIRROR_VARIABLE
from ..models.separators.base import RESIDUAL, ModelError, UnusableModelError
from ..models.separators.by_name import SeparatorName, describe
from ..models.separators.labelling import label_part
from ..models.separators.mixing import (
    STATISTICS_BLOCK_S,
    MixingOptions,
    Position,
    Statistics,
    StreamingStatistics,
    separate_part,
)
from ..models.separators.plain_runner import DeviceOptions
from ..models.separators.server import Models, open_models
from ..storage import OutputTree, Storage
from .label_settings import LabelSettings
from .published_files import PublishingStep
from .records import Recording, Track, there
from .settings import SeparationSettings, SplitSettings
from .steps import Step, failure_of, identity_of, run_step
from .track_signals import held_mixture, read_range
from .whereabouts import at_step, tell_share

STATISTICS_KEPT = 64


class PartHandler(ModelHandler[Track, Track, Any]):
    """How RunInference works on parts: `work` does one.

    A part whose model fails comes back with `failure`: the others of its bundle go on.

    Parameters
    ----------
    models
        which
    separation
        where they run
    threads
        of the arithmetic on the CPU; None: as torch has it
    """

    branch: str

    def __init__(
        self,
        models: tuple[SeparatorName, ...],
        separation: SeparationSettings,
        *,
        threads: int | None = None,
    ) -> None:
        # A mirror that is named where the job is submitted is meant for its workers.
        mirror = (
            {MIRROR_VARIABLE: os.environ[MIRROR_VARIABLE]} if MIRROR_VARIABLE in os.environ else {}
        )
        super().__init__(min_batch_size=1, max_batch_size=1, env_vars=mirror)
        self.separation = separation
        self.models = models
        self.threads = threads

    def work(self, track: Track, model: Models) -> None:
        """What the models do with a part."""
        raise NotImplementedError

    def load_model(self) -> Models:
        """Load the models here, or connect to the process of the GPU.

        Raises
        ------
        UnusableModelError
            they can't be loaded; the job can't go on
        """
        separation = self.separation
        options = DeviceOptions(
            device=separation.device,
            precision=separation.precision,
            compile=separation.compile,
            batch_size=separation.batch_size,
            threads=self.threads,
        )
        try:
            return open_models(self.models, options)
        except ModelError as error:
            raise UnusableModelError(str(error)) from error

    def run_inference(
        self, batch: Sequence[Track], model: Any, inference_args: dict[str, Any] | None = None
    ) -> list[Track]:
        """The tracks of a batch, with what their models gave."""
        tracks = [track for track in batch if track.samples is not None]
        for track in tracks:
            if self.branch not in track.recording.todo:
                continue
            try:
                with at_step("RunInference", track.recording.element, track):
                    self.work(track, model)
            # One part must not cost the others of its bundle.
            except (Exception, SystemExit) as error:
                track.failure = failure_of(error, "RunInference", identity_of(track))
        return tracks

    def get_num_bytes(self, batch: Sequence[Track]) -> int:
        """Bytes of the samples: Beam's own way would pickle them."""
        return sum(track.samples.nbytes for track in batch if track.samples is not None)

    def get_metrics_namespace(self) -> str:
        """The name of the step in the metrics."""
        return "RunInference"


class SeparationHandler(PartHandler):
    """Tracks with samples to tracks with stems.

    Parameters
    ----------
    stems
        the stems that are wanted
    """

    branch = "stems"

    def __init__(
        self, separation: SeparationSettings, *, stems: Iterable[str], threads: int | None = None
    ) -> None:
        super().__init__(separation.separators, separation, threads=threads)
        self.stems = tuple(stems)

    def work(self, track: Track, model: Models) -> None:
        """Sets `stems`."""
        part, recording, separation = track.part, track.recording, self.separation
        track.stems = separate_part(
            there(track.samples, "samples"),
            recording.info.sample_rate,
            model.members,
            model.run,
            position=Position.of(part, recording.total_samples),
            stems=self.stems,
            statistics=Statistics(*track.statistics) if track.statistics else None,
            options=MixingOptions(
                overlap=separation.overlap, shifts=separation.shifts, seed=separation.seed
            ),
            progress=tell_share,
        )

    def update_model_path(self, model_path: str | None = None) -> None:
        """Go on with another model package, named by its folder or its `metadata.json`.

        Raises
        ------
        UnusableModelError
            it can't be used, or lacks stems that are wanted
        """
        if not model_path:
            return
        address = model_path.removesuffix("/metadata.json")
        models = (SeparatorName(address, self.models[0].options_json),)
        try:
            stems = describe(models).stems
        except (ModelError, ValueError) as error:
            raise UnusableModelError(f"model update: {error}") from error
        lacking = {*self.stems} - {*stems, RESIDUAL}
        if lacking:
            raise UnusableModelError(
                f"model update {model_path}: has no stems {', '.join(sorted(lacking))}"
            )
        self.models = models


class LabelHandler(PartHandler):
    """Tracks with samples to tracks with labels.

    Parameters
    ----------
    storage
        where the recordings are read: blocks of a model reach beyond the ends of parts
    """

    branch = "labels"

    def __init__(
        self,
        labels: LabelSettings,
        separation: SeparationSettings,
        storage: Storage,
        *,
        threads: int | None,
    ) -> None:
        super().__init__(labels.labelers, separation, threads=threads)
        self.storage = storage

    def work(self, track: Track, model: Models) -> None:
        """Sets `labels`."""
        mixture, part = held_mixture(track, self.storage), track.part
        track.labels = tuple(
            label_part(
                mixture.read,
                mixture.sample_rate,
                model.members[0].separator,
                model.run,
                total_samples=mixture.total_samples,
                core=(part.start_sample, part.stop_sample),
                progress=tell_share,
            )
        )


class MeasureMixture(Step):
    """Mean and deviation of a long recording, for separators that normalise by them.

    Parts must agree on them, so each reads the whole recording, block by block; a process that has
    several parts of it does so once.

    Parameters
    ----------
    rates
        of the separator's models, in Hz; empty: they work at any
    storage
        where the recordings are read
    """

    branch = "stems"

    def __init__(self, rates: Iterable[int], storage: Storage) -> None:
        self.rates = tuple(rates)
        self.storage = storage

    def apply(self, record: Track) -> Iterable[Track]:
        """Sets `statistics` of a part that is not the whole."""
        if not record.part.is_whole:
            rates = self.rates or (record.recording.info.sample_rate,)
            found = measure(record.recording, rates[0], self.storage)
            record.statistics = (found.mean, found.deviation)
        return [record]


@functools.lru_cache(STATISTICS_KEPT)
def measure(recording: Recording, rate: int, storage: Storage) -> Statistics:
    """Mean and deviation of the mono mixture of a recording's range, at another rate."""
    sample_rate = recording.info.sample_rate
    statistics = StreamingStatistics(sample_rate, rate)
    block = round(STATISTICS_BLOCK_S * sample_rate)
    with storage.reading(recording.uri) as file:
        for start in range(0, recording.total_samples, block):
            stop = min(start + block, recording.total_samples)
            statistics.add(read_range(file, recording, start, stop))
    return statistics.result()


class TakeResults(PublishingStep):
    """Parts whose model failed to the dead letters; the others go on.

    Parameters
    ----------
    branch
        what the models give: "stems" or "labels"
    """

    def __init__(self, branch: str, settings: SplitSettings, tree: OutputTree) -> None:
        super().__init__(settings, tree)
        self.branch = branch

    def process(self, record: Track) -> Iterable[Any]:
        """Beam's entry."""
        if record.failure is None:
            yield from super().process(record)
        else:
            yield from self.fail(record, record.failure)

    def apply(self, record: Track) -> Iterable[Track]:
        """The track."""
        return [record]


class RunModels(beam.PTransform):
    """Tracks with samples to tracks with what models make of them.

    Parameters
    ----------
    handler
        what works on each
    settings, tree
        of the job: what of a recording was written is removed again when its model fails
    updates
        glob of model packages: a stream goes on with each new one that matches
    at_once
        work on a track as soon as it comes. RunInference keeps one back until the next, or
        the end of the bundle, comes: so each is followed by one without samples, which the counters
        of RunInference count, too.
    """

    def __init__(
        self,
        handler: PartHandler,
        settings: SplitSettings,
        tree: OutputTree,
        *,
        updates: str | None = None,
        at_once: bool = False,
    ) -> None:
        super().__init__()
        self.handler = handler
        self.settings = settings
        self.tree = tree
        self.updates = updates
        self.at_once = at_once

    def expand(self, tracks: beam.PCollection) -> Any:
        """A dict: `tracks`, and `failures`, a list."""
        failures: list[beam.PCollection] = []
        if self.at_once:
            follow = beam.FlatMap(lambda track: (track, Track(track.reference)))
            tracks = tracks | "Follow" >> follow.with_output_types(Track)
        made = tracks | "RunInference" >> RunInference(
            self.handler, watch_model_pattern=self.updates
        )
        made.element_type = Track
        take = TakeResults(self.handler.branch, self.settings, self.tree)
        results = run_step(made, take, Track, failures)
        return {"tracks": results, "failures": failures}


class SeparateByModels(beam.PTransform):
    """Tracks with samples to tracks with stems, by any separator but the nearest neighbours.

    Parameters
    ----------
    tree
        where the results go; its storage reads the recordings
    threads
        see `PartHandler`
    at_once
        see `RunModels`
    """

    def __init__(
        self,
        settings: SplitSettings,
        tree: OutputTree,
        *,
        threads: int | None = None,
        at_once: bool = False,
    ) -> None:
        super().__init__()
        self.settings = settings
        self.tree = tree
        self.threads = threads
        self.at_once = at_once

    def expand(self, tracks: beam.PCollection) -> Any:
        """A dict: `tracks`, and `failures`, a list."""
        failures: list[beam.PCollection] = []
        separation = self.settings.separation
        if separation.description.normalizes:
            rates = separation.description.sample_rates
            measure = MeasureMixture(rates, self.tree.storage)
            tracks = run_step(tracks, measure, Track, failures)
        handler = SeparationHandler(
            separation, stems=self.settings.separated_stems, threads=self.threads
        )
        made = tracks | "RunModels" >> RunModels(
            handler,
            self.settings,
            self.tree,
            updates=separation.model_updates,
            at_once=self.at_once,
        )
        return {"tracks": made["tracks"], "failures": [*failures, *made["failures"]]}
