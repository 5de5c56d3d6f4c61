"""From a reference, a message or a path to samples: LoadBinary, LoadAudio, LoadStems."""

import dataclasses
import hashlib
import io
import os
from collections.abc import Iterable
from typing import Any, BinaryIO

import apache_beam as beam
import numpy as np

from ..audio.decoding.audio_reader import AudioSource, probe
from ..audio.extensions import has_audio_extension
from ..audio.parts import Part, excerpt_range
from ..audio.resampling import resampled
from ..storage import OutputTree, Storage, absolute, scheme_of
from .klio.message import new_message, parse_message
from .published_files import require_unchanged
from .records import PartReference, PendingRecording, Recording, Track
from .resuming import shares_name
from .roots import place_below, without_extension
from .settings import SplitSettings
from .stem_files import read_plotted, stem_grid
from .steps import Step
from .track_signals import read_range

# Larger files are read where they lie, part by part.
BINARY_LIMIT_BYTES = 64 << 20


@beam.typehints.with_output_types(Track)
class LoadBinary(Step):
    """The bytes of a recording's file, if it is small and to be done in one part.

    Takes the bytes of a Klio message, whose element names the recording, or its path, or the
    reference that PlanParts makes. Gives a `Track` with its `recording` (rate, channels and length
    are those of its header) and `binary`.

    Parameters
    ----------
    storage
        where the recordings are read; by default here, and on all that their paths name
    location
        folder, here or on `gs://`, that elements and paths are below; without one they are whole
        paths
    file_suffix
        is added to each that is no whole path

    Raises
    ------
    StorageError
        there is no such file, it may not be read, or does not lie below the location
    AudioError
        it can't be decoded, or is empty
    KlioMessageError
        bytes are no Klio message
    """

    def __init__(
        self, storage: Storage | None = None, *, location: str = "", file_suffix: str = ""
    ) -> None:
        self.storage = storage or Storage()
        self.location = absolute(location) if location else ""
        self.file_suffix = file_suffix

    def apply(self, record: PartReference | bytes | str) -> Iterable[Track]:
        """One reference, message or path to one track."""
        if not isinstance(record, PartReference):
            return [self._track_of(record)]
        recording = record.recording
        require_unchanged(recording, self.storage)
        if not record.part.is_whole or recording.size_bytes > BINARY_LIMIT_BYTES:
            return [Track(record)]
        return [self._with_binary(Track(record), self.storage.read(recording.uri))]

    def _with_binary(self, track: Track, binary: bytes) -> Track:
        track.binary = binary
        track.source_sha256 = hashlib.sha256(binary).hexdigest()
        self.count("bytes", len(binary))
        return track

    def _track_of(self, record: bytes | str) -> Track:
        """The track of what was not planned: the whole recording."""
        element = _element_of(record)
        uri = absolute(element + self.file_suffix)
        if self.location:
            element, uri = place_below(self.location, element, self.file_suffix)
        found = self.storage.stat(uri)
        pending = PendingRecording(
            element=element,
            uri=uri,
            folder=_folder_of(element, uri, self.storage),
            size_bytes=found.size_bytes,
            generation=found.generation,
            todo=("stems", "labels", "features", "report", "plots"),
            message=record if isinstance(record, bytes) else message_of_path(record),
        )
        if found.size_bytes <= BINARY_LIMIT_BYTES:
            binary = self.storage.read(uri)
            return self._with_binary(_whole_track(pending, io.BytesIO(binary)), binary)
        with self.storage.reading(uri) as file:
            return _whole_track(pending, file)

    def identify(self, record: Any) -> dict[str, Any]:
        """What a dead letter calls the recording."""
        if isinstance(record, PartReference):
            return super().identify(record)
        return {"element": _element_of(record)}


def _element_of(record: bytes | str) -> str:
    if isinstance(record, str):
        return record
    return os.fsdecode(parse_message(record).data.element)


def message_of_path(path: str) -> bytes:
    """The bytes of a Klio message about a path, for any job."""
    return new_message(os.fsencode(path)).SerializeToString()


def _folder_of(element: str, uri: str, storage: Storage) -> str:
    """Where the results of a recording lie in an output tree: by its path, however it begins."""
    path = element.removeprefix(scheme_of(element)).lstrip("/")
    if not has_audio_extension(path) or shares_name(uri, storage):
        return path
    return without_extension(path)


def _whole_track(pending: PendingRecording, file: BinaryIO) -> Track:
    info = probe(file, name=pending.element)
    recording = Recording(
        **{name: getattr(pending, name) for name in pending.__dataclass_fields__},
        info=info,
        start_sample=0,
        total_samples=info.frames,
    )
    return Track(PartReference(recording, Part.whole(info.frames)))


@beam.typehints.with_output_types(Track)
class LoadAudio(Step):
    """Decodes a track, and no more of it than is wanted.

    Takes a `Track` of LoadBinary. Gives it with `samples`, at the recording's own rate with all its
    channels, unless another rate or mono is asked for.

    Parameters
    ----------
    storage
        where the recordings are read; by default here, and on all that their paths name
    offset, duration
        seconds: the excerpt to decode, as `librosa.load` has it; None: up to the end
    sample_rate
        Hz, to resample to; None: the recording's
    mono
        take the mean of all channels

    Raises
    ------
    TooShortAudioError
        the recording ends before the excerpt begins
    AudioError
        it can't be decoded
    """

    def __init__(
        self,
        storage: Storage | None = None,
        *,
        offset: float = 0.0,
        duration: float | None = None,
        sample_rate: int | None = None,
        mono: bool = False,
    ) -> None:
        if offset < 0 or (duration is not None and duration <= 0):
            raise ValueError(
                "offset is at least 0 seconds, and duration above 0; they are "
                f"{offset} and {duration}"
            )
        if sample_rate is not None and sample_rate < 1:
            raise ValueError(f"sample_rate is at least 1 Hz, not {sample_rate}")
        self.storage = storage or Storage()
        self.offset = offset
        self.duration = duration
        self.sample_rate = sample_rate
        self.mono = mono

    def apply(self, record: Track) -> Iterable[Track]:
        """Sets `samples`."""
        if self.offset or self.duration is not None:
            self._take_excerpt(record)
        if record.binary is not None:
            record.samples = _samples_of(record, record.binary)
        else:
            with self.storage.reading(record.recording.uri) as file:
                record.samples = _samples_of(record, file)
        samples = record.part.stop_sample - record.part.start_sample
        self.count("audio_milliseconds", round(1000 * samples / record.recording.info.sample_rate))
        if self.mono and len(record.samples) > 1:
            self._store(record, record.samples.mean(axis=0, keepdims=True), record.sample_rate)
        if self.sample_rate not in (None, record.sample_rate):
            blocks = resampled([record.samples], record.sample_rate, self.sample_rate)
            self._store(record, np.concatenate([*blocks], axis=1), self.sample_rate)
        return [record]

    def _take_excerpt(self, track: Track) -> None:
        recording = track.recording
        start_sample, total_samples = excerpt_range(
            recording.total_samples, recording.info.sample_rate, self.offset, self.duration
        )
        excerpt = dataclasses.replace(
            recording,
            start_sample=recording.start_sample + start_sample,
            total_samples=total_samples,
        )
        track.reference = PartReference(excerpt, Part.whole(total_samples))

    def _store(self, track: Track, samples: np.ndarray, rate: int) -> None:
        """Have a track be one of other samples: as if its file held them."""
        recording, frames = track.recording, samples.shape[1]
        info = dataclasses.replace(recording.info, sample_rate=rate, channels=len(samples))
        changed = dataclasses.replace(
            recording,
            info=dataclasses.replace(info, frames=round(info.frames * rate / track.sample_rate)),
            start_sample=round(recording.start_sample * rate / track.sample_rate),
            total_samples=frames,
        )
        track.samples = samples
        track.reference = PartReference(changed, Part.whole(frames))


def _samples_of(track: Track, source: AudioSource) -> np.ndarray:
    part = track.part
    start_sample, stop_sample = part.context_start_sample, part.context_stop_sample
    return read_range(source, track.recording, start_sample, stop_sample)


@beam.typehints.with_output_types(Track)
class LoadStems(Step):
    """Reads published stems back, for branches that were asked for after the separation."""

    def __init__(self, settings: SplitSettings, tree: OutputTree) -> None:
        self.settings = settings
        self.tree = tree

    def apply(self, record: Track) -> Iterable[Track]:
        """Sets `stems`, to what their plots are made of, where they are not made in this run."""
        recording, part = record.recording, record.part
        if not self.settings.branches_of_stems & {*recording.todo}:
            return [record]
        grid = stem_grid(recording, self.settings)
        for file in recording.kept if "stems" not in recording.todo else ():
            if file.branch != "stems" or file.stem is None:
                continue
            record.stems[file.stem] = read_plotted(file.name, part, recording, grid, self.tree)
        return [record]
