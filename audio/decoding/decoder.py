"""What the decoders have in common: the facts they find, their errors, placing samples."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ..errors import TruncatedAudioError, UndecodableAudioError


@dataclass(frozen=True)
class AudioInfo:
    """What a recording is.

    Attributes
    ----------
    container : str
        'wav', 'aiff', 'flac', 'ogg', 'mp3', 'm4a', ...
    codec : str
        'pcm_16', 'float', 'flac', 'vorbis', 'opus', 'mp3', 'aac', 'alac', ...
    sample_rate : int
        Hz.
    channels : int
    frames : int
        Exactly as many as reading the whole file yields.
    bit_depth : int or None
        8, 16, 24, 32 (64 of wav doubles) of lossless sources, None of lossy ones.
    is_float : bool
        Whether the file itself stores floating point samples.
    streams : tuple of str
        Names of the audio streams of a file that holds several, as `.stem.mp4` files do.
    stream : int
        The one that this is said of, and that is read; the first is 0.
    """

    container: str
    codec: str
    sample_rate: int
    channels: int
    frames: int
    bit_depth: int | None
    is_float: bool
    streams: tuple[str, ...] = ()
    stream: int = 0

    @property
    def duration_s(self) -> float:
        """Seconds."""
        return self.frames / self.sample_rate


class Decoder(Protocol):
    """One recording, opened by the decoder that suits it."""

    def info(self) -> AudioInfo:
        """What the recording is; raises where its index or header shows damage."""

    def read(self, start: int, stop: int, info: AudioInfo) -> np.ndarray:
        """Frames `start` to `stop`, float32 (channels, frames), C-contiguous."""


def truncated(name: str, *, held_s: float, promised_s: float) -> TruncatedAudioError:
    """The error of a file that ends too early."""
    held_s = max(0.0, held_s)  # its header may end after its end
    return TruncatedAudioError(
        f"{name}: cut off, only {held_s:.2f} s of the {promised_s:.2f} s that its header promises "
        "can be decoded; copy or download it again"
    )


def undecodable(name: str, reason: str) -> UndecodableAudioError:
    """The error of a file that no decoder understands."""
    return UndecodableAudioError(
        f"{name}: not audio that any decoder here reads ({reason}); check that it is a complete "
        "sound file, or convert it to flac or wav"
    )


def lacks_stream(name: str, stream: int, held: int) -> UndecodableAudioError:
    """The error of a file that has fewer audio streams than were counted; the first is 0."""
    return UndecodableAudioError(
        f"{name}: holds {held} audio streams, and stream {stream + 1} was asked for; it may have "
        "been replaced by another file"
    )


def damaged(name: str, *, second: float, reason: str) -> UndecodableAudioError:
    """The error of a recording with a spot that can't be decoded."""
    return UndecodableAudioError(
        f"{name}: damaged near {max(0.0, second):.2f} s, what lies there can't be decoded "
        f"({reason}); get an undamaged copy, or re-encode it with a program that skips the damage"
    )


def as_channels(samples: np.ndarray, channels: int) -> np.ndarray:
    """A mono frame amid stereo ones, or the other way round."""
    if len(samples) == channels:
        return samples
    return np.broadcast_to(samples.mean(axis=0), (channels, samples.shape[1]))


def place(out: np.ndarray, samples: np.ndarray, position: int) -> None:
    """Copies samples to their position in `out`, leaving away what lies outside it."""
    first = max(0, position)
    last = min(out.shape[1], position + samples.shape[1])
    if first < last:
        out[:, first:last] = samples[:, first - position : last - position]
