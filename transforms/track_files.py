"""Ranges of the files of a dataset's tracks, by the steps that load recordings."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..audio.channels import as_many
from ..audio.decoding.audio_reader import probe
from ..audio.parts import Part
from ..audio.resampling import resampled_range
from ..models.datasets.stem_folders import StemFile
from ..storage import Storage
from .loading import LoadAudio, LoadBinary
from .records import PartReference, Track, there


class TrackFiles:
    """Opens files of tracks, and reads ranges of them.

    Parameters
    ----------
    storage
        where they lie
    """

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self.load_binary = LoadBinary(storage)
        self.load_audio = LoadAudio(storage)

    def opened(self, files: Sequence[StemFile]) -> dict[StemFile, Track]:
        """What each file is, and its bytes if they are few; a path is read once.

        Raises
        ------
        StorageError
            a file is not there, or may not be read
        AudioError
            it can't be decoded
        """
        paths = dict.fromkeys(file.path for file in files)
        loaded = {path: next(iter(self.load_binary.apply(path))) for path in paths}
        return {file: self._stream_of(loaded[file.path], file.stream) for file in files}

    def _stream_of(self, track: Track, stream: int) -> Track:
        """The track of another of its file's audio streams."""
        recording = track.recording
        if stream == recording.info.stream:
            return track
        options: dict[str, Any] = {"name": recording.element, "stream": stream}
        if track.binary is not None:
            info = probe(track.binary, **options)
        else:
            with self.storage.reading(recording.uri) as file:
                info = probe(file, **options)
        recording = dataclasses.replace(recording, info=info, total_samples=info.frames)
        reference = PartReference(recording, Part.whole(info.frames))
        return Track(reference, binary=track.binary)

    def read(
        self, track: Track, *, sample_rate: int, channels: int, start_sample: int, stop_sample: int
    ) -> np.ndarray:
        """A range of a file, resampled, with channels added up or copied: see `as_many`.

        Parameters
        ----------
        track
            of `opened`
        sample_rate
            Hz, wanted
        channels
            wanted
        start_sample, stop_sample
            at this rate

        Returns
        -------
        np.ndarray, shape (channels, samples), float32
        """

        def read(first: int, last: int) -> np.ndarray:
            part = Part(0, 1, *(first, last) * 3)
            wanted = Track(PartReference(track.recording, part), binary=track.binary)
            (loaded,) = self.load_audio.apply(wanted)
            return as_many(there(loaded.samples, "samples"), channels)

        info = track.recording.info
        return resampled_range(
            read,
            samples=info.frames,
            sample_rate=info.sample_rate,
            rate=sample_rate,
            start_sample=start_sample,
            stop_sample=stop_sample,
        )
