"""Signals of a track, read range by range: of what it holds, and of its files."""

import contextlib
import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..audio.decoding.audio_reader import AudioInfo, AudioSource, probe, read_audio
from ..storage import Storage
from .records import Recording, Track, there

Read = Callable[[int, int], np.ndarray]


@dataclass(frozen=True)
class Signal:
    """The mixture, or a stem, at its own rate.

    `read` gives float32 `(channels, samples)` from one of its samples up to another.
    """

    read: Read
    sample_rate: int
    channels: int
    total_samples: int

    @classmethod
    def held(cls, samples: np.ndarray, sample_rate: int) -> "Signal":
        """What is in memory: float32 `(channels, samples)`."""
        return cls(lambda start, stop: samples[:, start:stop], sample_rate, *samples.shape)


def held_mixture(track: Track, storage: Storage) -> Signal:
    """The recording, of which a track holds a part; what that lacks is decoded."""
    recording, part, held = track.recording, track.part, there(track.samples, "samples")

    first, last = part.context_start_sample, part.context_stop_sample

    def read(start_sample: int, stop_sample: int) -> np.ndarray:
        if stop_sample <= first or last <= start_sample:
            return _read(recording, storage, start_sample, stop_sample)
        pieces = [held[:, max(0, start_sample - first) : stop_sample - first]]
        if start_sample < first:
            pieces.insert(0, _read(recording, storage, start_sample, first))
        if stop_sample > last:
            pieces.append(_read(recording, storage, last, stop_sample))
        return np.concatenate(pieces, axis=1) if len(pieces) > 1 else pieces[0]

    return Signal(read, track.sample_rate, len(held), recording.total_samples)


def read_range(
    source: AudioSource, recording: Recording, start_sample: int, stop_sample: int
) -> np.ndarray:
    """Some samples of a recording, from one of the range that the job asks for up to another.

    Parameters
    ----------
    source
        its file, or the bytes of it

    Returns
    -------
    np.ndarray, shape (channels, samples), float32
    """
    return read_audio(
        source,
        name=recording.element,
        start_sample=recording.start_sample + start_sample,
        frames=stop_sample - start_sample,
        info=recording.info,
    )


def _read(
    recording: Recording, storage: Storage, start_sample: int, stop_sample: int
) -> np.ndarray:
    with storage.reading(recording.uri) as file:
        return read_range(file, recording, start_sample, stop_sample)


def stored_mixture(recording: Recording, storage: Storage) -> Signal:
    """The recording, read from its file."""
    info = recording.info
    read = functools.partial(_read, recording, storage)
    return Signal(read, info.sample_rate, info.channels, recording.total_samples)


def file_signal(stack: contextlib.ExitStack, path: str, storage: Storage) -> Signal:
    """What the file of a stem holds."""
    file = stack.enter_context(storage.reading(path))
    info: AudioInfo = probe(file, name=path)

    def read(start_sample: int, stop_sample: int) -> np.ndarray:
        return read_audio(
            file, name=path, start_sample=start_sample, frames=stop_sample - start_sample, info=info
        )

    return Signal(read, info.sample_rate, info.channels, info.frames)
