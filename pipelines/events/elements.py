"""Events of a job: which recordings it is about."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ...audio.extensions import AUDIO_EXTENSIONS
from ...storage import absolute
from ...transforms.resuming import Resumption
from ...transforms.roots import Root, name_below, without_extension
from ..job.event_config import (
    AvroEvents,
    BigQueryEvents,
    CustomEvents,
    EventInput,
    FileEvents,
    PubSubEvents,
    RecordingEvents,
)
from ..job.job_config import JobConfig
from .listing import (
    InputError,
    RecordingInput,
    common_folder,
    folder_of,
    recordings_of,
    root_of,
)
from .reading import avro_elements_of, lines_of, require_readable, rows_of

__all__ = ["InputError", "Place", "elements_of", "list_events", "place_of"]


@dataclass(frozen=True)
class Place:
    """Where a job's elements lie: they are paths below `location`, to which `suffix` is added."""

    location: str
    suffix: str


def place_of(job: JobConfig) -> Place:
    """Where the elements of a job lie: the data input, or else the folder of all event inputs.

    Raises
    ------
    InputError
        the job does not say it
    """
    if job.job_config.data.inputs:
        data = job.job_config.data.inputs[0]
        return Place(absolute(data.location), data.file_suffix)
    folders = {folder_of(each) for each in _recording_inputs(job)}
    return Place(common_folder(sorted(folders)), "")


def resumption_of(job: JobConfig) -> Resumption:
    """What finds out which recordings of a job are done already.

    Raises
    ------
    InputError
        the job does not say where its recordings lie
    """
    place = place_of(job)
    return Resumption(
        place.location,
        job.output_tree,
        job.settings,
        suffix=place.suffix,
        roots=None if job.job_config.data.inputs else _roots_of(job),
        finished_suffix=job.finished_suffix,
        replace=job.replace,
    )


def _roots_of(job: JobConfig) -> list[Root]:
    """What the recordings are called below that the inputs of a job do not name themselves."""
    return [
        root_of(each) for each in _recording_inputs(job) if not isinstance(each, RecordingEvents)
    ]


def _recording_inputs(job: JobConfig) -> list[RecordingInput]:
    """The event inputs of a job without a data input.

    Raises
    ------
    InputError
        there are none, or others than recordings
    """
    inputs = job.job_config.events.inputs
    if not inputs:
        raise InputError("the job has no event input: name one below job_config.events.inputs")
    for each in inputs:
        if not isinstance(each, RecordingInput):
            raise InputError(
                f"events of type {each.type} need job_config.data.inputs: the folder that their "
                "elements are paths below"
            )
    return [each for each in inputs if isinstance(each, RecordingInput)]


def elements_of(each: EventInput, job: JobConfig) -> Iterator[str]:
    """The elements of one event input, lazily, in order of name or as they stand there.

    Raises
    ------
    InputError
        the input is not there, or does not lie where the job's data does
    StorageError
        it can't be reached
    """
    if isinstance(each, PubSubEvents | CustomEvents):
        raise InputError(f"events of type {each.type} can't be listed")
    if isinstance(each, RecordingInput):
        output = job.output_location if job.job_config.data.outputs else None
        stems = job.settings.file_names
        return _below(
            place_of(job), recordings_of(each, job.file_storage, output=output, stems=stems)
        )
    if isinstance(each, BigQueryEvents):
        return rows_of(each)
    if isinstance(each, AvroEvents):
        return avro_elements_of(each, job.file_storage)
    return lines_of(each, job.file_storage)


def inputs_to_read(job: JobConfig) -> Sequence[EventInput]:
    """The event inputs that the job reads itself.

    Raises
    ------
    InputError
        there are none
    """
    inputs = [each for each in job.job_config.events.inputs if not each.skip_klio_read]
    if not inputs:
        raise InputError(
            "job_config.events.inputs: there is none that the job itself reads: name one, or read "
            "the events in code of your own (docs/porting-from-klio.md)"
        )
    return inputs


def require_events(job: JobConfig) -> None:
    """Find out before a job starts whether there is something in each of its event inputs.

    Raises
    ------
    InputError
        one is not there, or a folder holds no recordings
    StorageError
        one may not be read
    UnusableStorageError
        one can't be reached
    """
    for each in inputs_to_read(job):
        if isinstance(each, FileEvents | BigQueryEvents | AvroEvents):
            require_readable(each, job.file_storage)
        elif not isinstance(each, PubSubEvents) and next(elements_of(each, job), None) is None:
            raise _nothing_in([each])


def list_events(job: JobConfig) -> tuple[str, ...]:
    """All elements of a job, each once.

    Raises
    ------
    InputError
        an input is not there, or all of them together hold no element
    StorageError
        an input can't be reached
    """
    inputs = inputs_to_read(job)
    elements = tuple(
        dict.fromkeys(element for each in inputs for element in elements_of(each, job))
    )
    if not elements:
        raise _nothing_in(inputs)
    if len(inputs) > 1 and not job.job_config.data.inputs:
        names = NamesInTree(job)
        by_name: dict[str, list[str]] = {}
        for element in elements:
            by_name.setdefault(names.name_of(element), []).append(element)
        for name, sharing in by_name.items():
            require_one_folder(name, sharing)
    return elements


class NamesInTree:
    """What the recordings of several inputs are called in the output tree, without extension."""

    def __init__(self, job: JobConfig) -> None:
        self.location = place_of(job).location
        self.roots = _roots_of(job)

    def name_of(self, element: str) -> str:
        """The path of a recording below what named it."""
        return without_extension(name_below(os.path.join(self.location, element), self.roots))


def require_one_folder(name: str, elements: Iterable[str]) -> None:
    """Refuse recordings of several folders that would have one folder for their results.

    Those that lie beside each other, and differ in their extension, have folders of their own.

    Raises
    ------
    InputError
        there are some
    """
    by_folder = {os.path.dirname(element): element for element in sorted(elements, reverse=True)}
    if len(by_folder) > 1:
        raise InputError(
            f"{' and '.join(sorted(by_folder.values()))} would both have the folder {name} for "
            "their results: name a folder that holds them all, or --root (job_config.data.inputs), "
            "or do them one after the other with folders of their own"
        )


def _nothing_in(inputs: Sequence[EventInput]) -> InputError:
    places = ", ".join(each.location for each in inputs)
    if all(isinstance(each, FileEvents) for each in inputs):
        return InputError(f"no lines in {places}")
    if any(isinstance(each, BigQueryEvents | AvroEvents) for each in inputs):
        return InputError(f"no rows or records in {places}")
    extensions = " ".join(sorted(AUDIO_EXTENSIONS))
    return InputError(f"no audio files in {places}: known extensions are {extensions}")


def _below(place: Place, paths: Iterable[str]) -> Iterator[str]:
    """Paths as elements; those without the suffix of the job's recordings are left out."""
    folder = place.location.rstrip("/") + "/"
    for path in paths:
        if not path.startswith(folder):
            raise InputError(
                f"{path} does not lie below job_config.data.inputs.0.location, {place.location}"
            )
        if path.endswith(place.suffix):
            yield path.removeprefix(folder).removesuffix(place.suffix)
