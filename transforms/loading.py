"""From a reference to samples: LoadBinary, LoadAudio, LoadStems."""

import hashlib
from collections.abc import Iterable

import numpy as np

from ..audio.decoding.audio_reader import AudioSource, read_audio
from ..storage import OutputTree, Storage
from .published_files import require_unchanged
from .records import PartReference, Track
from .settings import SplitSettings
from .stem_files import read_plotted, stem_grid
from .steps import Step

# Larger files are read where they lie, part by part.
BINARY_LIMIT_BYTES = 64 << 20


class LoadBinary(Step):
    """A part's reference to a track with the bytes of its file, if it is small and one part.

    Parameters
    ----------
    storage
        where the recordings are read
    """

    def __init__(self, storage: Storage) -> None:
        self.storage = storage

    def apply(self, record: PartReference) -> Iterable[Track]:
        """One reference to one track."""
        recording = record.recording
        require_unchanged(recording, self.storage)
        if not record.part.is_whole or recording.size_bytes > BINARY_LIMIT_BYTES:
            return [Track(record)]
        binary = self.storage.read(recording.uri)
        self.count("bytes", len(binary))
        return [Track(record, binary=binary, source_sha256=hashlib.sha256(binary).hexdigest())]


class LoadAudio(Step):
    """Decodes a track's part, with its context, and no more than that.

    Parameters
    ----------
    storage
        where the recordings are read
    """

    def __init__(self, storage: Storage) -> None:
        self.storage = storage

    def apply(self, record: Track) -> Iterable[Track]:
        """Sets `samples`."""
        if record.binary is not None:
            record.samples = _samples_of(record, record.binary)
        else:
            with self.storage.reading(record.recording.uri) as file:
                record.samples = _samples_of(record, file)
        samples = record.part.stop_sample - record.part.start_sample
        self.count("audio_milliseconds", round(1000 * samples / record.recording.info.sample_rate))
        return [record]


def _samples_of(track: Track, source: AudioSource) -> np.ndarray:
    recording, part = track.recording, track.part
    return read_audio(
        source,
        name=recording.element,
        start_sample=recording.start_sample + part.context_start_sample,
        frames=part.context_stop_sample - part.context_start_sample,
        info=recording.info,
    )


def samples_of(track: Track) -> np.ndarray:
    """The decoded samples of a track."""
    if track.samples is None:
        raise RuntimeError("LoadAudio did not run")
    return track.samples


class LoadStems(Step):
    """Reads published stems back, for branches that were asked for after the separation."""

    def __init__(self, settings: SplitSettings, tree: OutputTree) -> None:
        self.settings = settings
        self.tree = tree

    def apply(self, record: Track) -> Iterable[Track]:
        """Sets `stems`, to what their plots are made of, where they are not made in this run."""
        recording, part = record.recording, record.part
        grid = stem_grid(recording, self.settings)
        for file in recording.kept if "stems" not in recording.todo else ():
            if file.branch != "stems" or file.stem is None:
                continue
            record.stems[file.stem] = read_plotted(file.name, part, recording, grid, self.tree)
        return [record]
