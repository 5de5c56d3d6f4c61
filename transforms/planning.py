"""From an event to the parts that are to be done: SkipFinished, PlanParts, Spread."""

import errno
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import apache_beam as beam
from apache_beam.pvalue import TaggedOutput

from ..audio.extensions import has_audio_extension
from ..storage import Storage, StorageError, scheme_of
from .klio.message import parse_message
from .part_planning import part_references
from .records import PartReference, Receipt
from .resuming import Resumption
from .settings import SplitSettings
from .steps import GivenUpError, Step

SKIPPED = "skipped"
RESULTS = "results"
UPSTREAM = "upstream"

GivenUp = Mapping[str, tuple[str, str | None]]


class SkipFinished(Step):
    """Message bytes to recordings, with the branches that are still to do.

    What is finished goes to the output `skipped`, as a receipt. Messages about the job's own
    results, as the notifications of a bucket tell of them, go to the output `results`; with
    `asks_upstream`, messages whose recording is not there to the output `upstream`.

    Parameters
    ----------
    resumption
        what is done already, and what is to be done
    given_up
        by element of recordings that are not to be tried again: the reason, and the step
        that they were in, if known
    done
        elements that this run has finished before: they are not forced again
    asks_upstream
        another job is to make the recordings that are not there
    """

    def __init__(
        self,
        resumption: Resumption,
        *,
        given_up: GivenUp | None = None,
        done: Iterable[str] = (),
        asks_upstream: bool = False,
    ) -> None:
        self.resumption = resumption
        self.given_up = given_up or {}
        self.done = frozenset(done)
        self.asks_upstream = asks_upstream

    def apply(self, record: Any) -> Iterable[Any]:
        """One message to one pending recording, or to a receipt."""
        message = parse_message(record)
        element, force = os.fsdecode(message.data.element), message.metadata.force
        if self._is_result(element):
            self.count("results")
            yield TaggedOutput(RESULTS, record)
            return
        # Where it hangs in finding out its place, it is known by the other name.
        for name in (element, self.resumption.place_of(element)[0]):
            if name in self.given_up:
                raise GivenUpError(*self.given_up[name])
            force = force and name not in self.done
        try:
            outcome = self.resumption.pending_or_receipt(
                element, force=force, message=record, renew=True
            )
        except StorageError as error:
            if not self.asks_upstream or error.errno != errno.ENOENT:
                raise
            self.count("kmsg-data-not-found-input")
            yield TaggedOutput(UPSTREAM, record)
            return
        if isinstance(outcome, Receipt):
            self.count("skipped")
            yield TaggedOutput(SKIPPED, outcome)
        else:
            yield outcome

    def identify(self, record: Any) -> dict[str, Any]:
        """The element of a message."""
        return {"element": os.fsdecode(parse_message(record).data.element)}

    def _is_result(self, element: str) -> bool:
        """Whether a whole path is that of a stem of this job.

        Where recordings and results may lie in the same folders, it is one that is called as a stem
        and lies in a folder that is called as a recording beside that folder.
        """
        output = self.resumption.tree.location
        if not element.startswith(f"{output}/") or not scheme_of(element):
            return False
        if not f"{self.resumption.location}/".startswith(f"{output}/"):
            return True
        folder, name = os.path.split(element)
        names = self.resumption.settings.file_names(folder)
        if os.path.splitext(name)[0] not in names.values():
            return False
        files = self.resumption.tree.storage.files_of(folder)
        return any(map(has_audio_extension, files.names_alike(f"{folder}.wav")))


class PlanParts(Step):
    """Pending recordings to their parts: reads the header, cuts what is longer than a part.

    Parameters
    ----------
    settings
        what is to be made of each recording
    storage
        where the recordings are read
    """

    def __init__(self, settings: SplitSettings, storage: Storage) -> None:
        self.settings = settings
        self.storage = storage

    def apply(self, record: Any) -> Iterable[PartReference]:
        """One pending recording to one reference a part."""
        return part_references(record, self.settings, self.storage)


class Spread(beam.PTransform):
    """Spread the parts over the workers: references only.

    Elsewhere that is a Reshuffle. FnApiRunner deals out the keys of a GroupByKey once and for all,
    in turn; so for it the parts are dealt out beforehand, one key a worker, the costliest first.
    """

    def __init__(self, *, local_workers: int | None) -> None:
        super().__init__()
        self.local_workers = local_workers

    def expand(self, parts: beam.PCollection) -> beam.PCollection:
        """Same parts, elsewhere."""
        if self.local_workers is None:
            return parts | beam.Reshuffle()
        spread = (
            parts
            | "OneKey" >> beam.WithKeys(0).with_output_types(tuple[int, PartReference])
            | "Gather" >> beam.GroupByKey()
            | "Deal"
            >> beam.FlatMapTuple(
                lambda _, gathered: deal(list(gathered), self.local_workers or 1)
            ).with_output_types(tuple[int, PartReference])
            | "Reshuffle" >> beam.GroupByKey()
        )
        return spread | "Parts" >> beam.FlatMapTuple(lambda _, dealt: dealt).with_output_types(
            PartReference
        )


def deal(parts: list[PartReference], workers: int) -> Iterator[tuple[int, PartReference]]:
    """Deal parts out so that the workers' costs are even: the costliest first, to the least busy.

    Yields `(worker, part)`, each worker's first part before any second, so that a runner that
    takes keys as they come gives each worker its own.
    """
    costs = [0.0] * workers
    hands: list[list[PartReference]] = [[] for _ in range(workers)]
    by_cost = sorted(
        parts, key=lambda each: (-_cost(each), each.recording.element, each.part.index)
    )
    for part in by_cost:
        worker = costs.index(min(costs))
        costs[worker] += _cost(part)
        hands[worker].append(part)
    for turn in range(max(map(len, hands), default=0)):
        for worker, hand in enumerate(hands):
            if turn < len(hand):
                yield worker, hand[turn]


def _cost(reference: PartReference) -> float:
    """Work of a part, in that of a second of one channel at 44.1 kHz, as measured."""
    info = reference.recording.info
    part = reference.part
    seconds = (part.context_stop_sample - part.context_start_sample) / info.sample_rate
    # What is the same for every part, mostly plots; what grows with the samples; and the
    # comparison of all frames with all others.
    return 40 + seconds * info.sample_rate * info.channels / 44100 * (1 + seconds / 450)
