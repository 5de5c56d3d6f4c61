"""From an event to the parts that are to be done: SkipFinished, PlanParts, Spread."""

import errno
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import apache_beam as beam
from apache_beam.pvalue import TaggedOutput

from ..audio.decoding.audio_reader import probe
from ..audio.errors import TooShortAudioError
from ..audio.extensions import has_audio_extension
from ..models.separators.mixing import plan_parts_for
from ..storage import OutputTree, StorageError, files_of, open_for_reading, scheme_of, stat_file
from .klio.message import parse_message
from .manifest import Manifest, finished_branches, read_manifest
from .published_files import part_folder
from .records import PartReference, PendingRecording, Receipt, Recording
from .settings import SeparationSettings, SplitSettings
from .stem_files import format_of
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
    location : folder of the recordings; a message's element is a path below it, or a whole
        `gs://` path, as storage notifications have it
    suffix : added to each element that is a path below the location
    output_location : folder of the output tree
    settings : what is to be made of each recording
    given_up : by element of recordings that are not to be tried again: the reason, and the step
        that they were in, if known
    done : elements that this run has finished before: they are not forced again
    finished_suffix : a recording is finished, too, if this added to its element names a file in the
        output tree: Klio's check
    asks_upstream : another job is to make the recordings that are not there
    """

    def __init__(
        self,
        location: str,
        output_location: str,
        settings: SplitSettings,
        *,
        suffix: str = "",
        given_up: GivenUp | None = None,
        done: Iterable[str] = (),
        finished_suffix: str = "",
        asks_upstream: bool = False,
    ) -> None:
        self.location = location
        self.suffix = suffix
        self.tree = OutputTree(output_location)
        self.digests = {
            branch: digest
            for branch, digest in settings.digests().items()
            if branch in settings.branches
        }
        self.stem_names = {settings.stems.name_of(stem) for stem in settings.wanted_stems}
        self.given_up = given_up or {}
        self.done = frozenset(done)
        self.finished_suffix = finished_suffix
        self.asks_upstream = asks_upstream

    def apply(self, record: Any) -> Iterable[Any]:
        """One message to one pending recording, or to a receipt."""
        message = parse_message(record)
        element, force = os.fsdecode(message.data.element), message.metadata.force
        if self._is_result(element):
            self.count("results")
            yield TaggedOutput(RESULTS, record)
            return
        try:
            outcome = self.pending_or_receipt(element, force=force, message=record)
        except StorageError as error:
            if not self.asks_upstream or error.errno != errno.ENOENT:
                raise
            self.count("kmsg-data-not-found-input")
            outcome = TaggedOutput(UPSTREAM, record)
        if isinstance(outcome, TaggedOutput) and outcome.tag == SKIPPED:
            self.count("skipped")
        yield outcome

    def identify(self, record: Any) -> dict[str, Any]:
        """The element of a message."""
        return {"element": os.fsdecode(parse_message(record).data.element)}

    def pending_or_receipt(self, element: str, *, force: bool, message: bytes = b"") -> Any:
        """The pending recording of an element, or the tagged receipt of a finished one.

        Parameters
        ----------
        force : do it again if it is finished
        message : the bytes of the event
        """
        # Where it hangs in finding out its place, it is known by the other name.
        if element in self.given_up:
            raise GivenUpError(*self.given_up[element])
        element, uri = self._place_of(element)
        if element in self.given_up:
            raise GivenUpError(*self.given_up[element])
        force = force and element not in self.done
        found = stat_file(uri)
        folder = folder_of(element, uri)
        if (
            self.finished_suffix
            and not force
            and self.tree.is_there(element + self.finished_suffix)
        ):
            receipt = Receipt(element, folder, 0.0, (), skipped=True, message=message)
            return TaggedOutput(SKIPPED, receipt)
        manifest = read_manifest(self.tree, folder)
        finished: set[str] = set()
        if manifest and not force:
            finished = finished_branches(
                manifest, self.tree, folder, self.digests, found.generation
            )
        todo = tuple(branch for branch in self.digests if branch not in finished)
        # Plots show what the stems hold: new stems, new plots.
        if "stems" in todo:
            todo = tuple(self.digests)
        if manifest and not todo:
            receipt = Receipt(
                element, folder, manifest.duration_s, manifest.files, skipped=True, message=message
            )
            return TaggedOutput(SKIPPED, receipt)
        kept, stale = _kept_and_stale(manifest, todo)
        return PendingRecording(
            element=element,
            uri=uri,
            folder=folder,
            size_bytes=found.size_bytes,
            generation=found.generation,
            todo=todo,
            kept=kept,
            stale=stale,
            message=message,
        )

    def _is_result(self, element: str) -> bool:
        """Whether a whole path is that of a stem of this job.

        Where recordings and results may lie in the same folders, it is one that is called as a stem
        and lies in a folder that is called as a recording beside that folder.
        """
        output = self.tree.location
        if not element.startswith(f"{output}/") or not scheme_of(element):
            return False
        if not f"{self.location}/".startswith(f"{output}/"):
            return True
        folder, name = os.path.split(element)
        if os.path.splitext(name)[0] not in self.stem_names:
            return False
        return any(map(has_audio_extension, files_of(folder).names_alike(f"{folder}.wav")))

    def _place_of(self, element: str) -> tuple[str, str]:
        """The path below the location, and the whole path, of an element that is either."""
        if not scheme_of(element):
            OutputTree(self.location).path(element)  # refuses what leads out of the folder
            return element, os.path.join(self.location, element + self.suffix)
        below = element.removeprefix(f"{self.location}/")
        if below == element:
            raise StorageError(errno.EINVAL, f"does not lie below {self.location}", element)
        return below, OutputTree(self.location).path(below)


def _kept_and_stale(manifest: Manifest | None, todo: tuple[str, ...]) -> tuple[Any, Any]:
    if manifest is None:
        return (), ()
    kept = tuple(file for file in manifest.files if file.branch not in todo and "stems" not in todo)
    stale = tuple(file.name for file in manifest.files if file not in kept)
    return kept, stale


def folder_of(element: str, uri: str) -> str:
    """The folder of a recording in the output tree: its path without the extension.

    The extension stays where another recording beside it would have the same folder.
    """
    if not has_audio_extension(element):
        return element
    shared = sum(map(has_audio_extension, files_of(uri).names_alike(uri))) > 1
    return element if shared else os.path.splitext(element)[0]


class PlanParts(Step):
    """Pending recordings to their parts: reads the header, cuts what is longer than a part."""

    def __init__(self, settings: SplitSettings) -> None:
        self.settings = settings

    def apply(self, record: Any) -> Iterable[PartReference]:
        """One pending recording to one reference a part."""
        recording = self.recording_of(record)
        separation = self.settings.separation
        parts = plan_parts_for(
            separation.description,
            recording.total_samples,
            recording.info.sample_rate,
            recording.info.channels,
            part_seconds=separation.part_seconds,
        )
        return [PartReference(recording, part) for part in parts]

    def recording_of(self, pending: PendingRecording) -> Recording:
        """The recording of a pending one.

        Raises
        ------
        AudioError : it can't be decoded, is empty, or too short
        """
        with open_for_reading(pending.uri) as file:
            info = probe(file, name=pending.element)
        separation = self.settings.separation
        start_sample = round(separation.start_s * info.sample_rate)
        total_samples = info.frames - start_sample
        if total_samples <= 0:
            raise TooShortAudioError(
                f"ends after {info.duration_s:.3f} s, before the excerpt begins: start_s is "
                f"{separation.start_s:g}"
            )
        if separation.duration_s is not None:
            total_samples = min(total_samples, round(separation.duration_s * info.sample_rate))
        # Found out now rather than after the separation.
        format_of(info, self.settings.stems)
        require_duration(total_samples / info.sample_rate, separation)
        fields = {name: getattr(pending, name) for name in pending.__dataclass_fields__}
        return Recording(
            **fields,
            info=info,
            start_sample=start_sample,
            total_samples=total_samples,
            scratch=part_folder(pending),
        )


def require_duration(duration_s: float, separation: SeparationSettings) -> None:
    """Refuse what is too short for the separator.

    Raises
    ------
    TooShortAudioError : it is
    """
    minimum_s = separation.description.minimum_s
    if duration_s < minimum_s:
        raise TooShortAudioError(
            f"{duration_s:.3f} s is too short for {separation.name}, which needs {minimum_s:g} s: "
            "leave the file out"
        )


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
