"""Recordings in, float32 samples out: every common format, exact lengths, ranges, honest errors.

Three decoders share the work, each where it is exact: `libsndfile` for wav, aiff, flac, ogg and
their like, `mp3` for mp3, and `libav` (FFmpeg) for what is left.
"""

import io
import struct
from typing import BinaryIO

import numpy as np

from ..errors import EmptyAudioError, NonFiniteAudioError
from .decoder import AudioInfo, Decoder, lacks_stream, undecodable
from .file_bytes import size_of
from .libav import Libav
from .libsndfile import CONTAINERS, open_with_libsndfile
from .mp3 import Mp3
from .sniffing import identify, what_else

__all__ = ["AudioInfo", "AudioSource", "probe", "read_audio", "stream_names"]

AudioSource = bytes | BinaryIO


def probe(source: AudioSource, *, name: str, stream: int = 0) -> AudioInfo:
    """What a recording is, with its exact length.

    wav, aiff, flac, ogg, m4a and mp3 are measured without decoding; of containers that do not say
    how many samples they hold (adts, webm, wma, ...) everything is decoded once, piece by piece.

    Parameters
    ----------
    source : bytes or binary file
        The file needs to be seekable; it is left open, at any position.
    name : str
        Used in messages only.
    stream : int
        Which of its audio streams, where it holds several; the first is 0.

    Raises
    ------
    UndecodableAudioError, TruncatedAudioError, EmptyAudioError
        Lost parts of an ogg or mp3 are noticed here; a flac cut short, and spots that can't be
        decoded, only where they are read.
    """
    return _checked_info(_open(source, name, stream), name)


def stream_names(source: AudioSource, *, name: str) -> tuple[str, ...]:
    """Names of the audio streams of a recording that holds several, as `AudioInfo.streams`.

    No more than the header is read. See `probe` for parameters and errors.
    """
    decoder = _open(source, name, 0)
    return decoder.stream_names() if isinstance(decoder, Libav) else ()


def read_audio(
    source: AudioSource,
    *,
    name: str,
    start_sample: int = 0,
    frames: int | None = None,
    info: AudioInfo | None = None,
) -> np.ndarray:
    """Samples of a recording, or of a range of it.

    A range equals that slice of the whole recording bit for bit: where a library's seek is off
    (Vorbis' last page, AAC with noise substitution) decoding begins earlier or at the start,
    without keeping what comes before the range. Only Opus merely converges: ranges are decoded from
    10 s before. That was bit for bit in all recordings tried but one, speech at about 21 kbit/s,
    where it was up to 0.0023 off.

    A spot that can't be decoded is an error that tells its time, never silence. The start of an mp3
    cut out of a longer stream is an exception: its first frames refer to data that is not there,
    and are silent. Bytes between the frames of an mp3 that are none, such as tags, are left out. Of
    what libsndfile and FFmpeg conceal without telling, nothing can be known.

    Parameters
    ----------
    source : bytes or binary file
        The file needs to be seekable; it is left open, at any position.
    name : str
        Used in messages only.
    start_sample : int
        First frame wanted.
    frames : int or None
        How many; None: up to the end.
    info : AudioInfo or None
        What `probe` said of this source, if known: saves measuring it again. Of a source with
        several audio streams, the one that it is said of is read, else the first.

    Returns
    -------
    np.ndarray, shape (channels, frames), float32, C-contiguous
        Integer samples become int / 2^(bits - 1), in [-1, 1]; stored floats are left untouched.

    Raises
    ------
    ValueError
        The range lies outside the recording.
    UndecodableAudioError, TruncatedAudioError, EmptyAudioError, NonFiniteAudioError
    """
    decoder = _open(source, name, 0 if info is None else info.stream)
    if info is None:
        info = _checked_info(decoder, name)
    stop = info.frames if frames is None else start_sample + frames
    if not 0 <= start_sample <= stop <= info.frames:
        raise ValueError(
            f"{name}: samples {start_sample} to {stop} were asked of a recording of {info.frames}"
        )
    if start_sample == stop:
        return np.zeros((info.channels, 0), np.float32)
    samples = decoder.read(start_sample, stop, info)
    # Minimum and maximum take NaN along, and no memory.
    if not np.isfinite([samples.min(), samples.max()]).all():
        raise _non_finite(samples, start_sample=start_sample, info=info, name=name)
    return samples


def _open(source: AudioSource, name: str, stream: int) -> Decoder:
    file: BinaryIO = io.BytesIO(source) if isinstance(source, bytes | bytearray) else source
    if size_of(file) == 0:
        raise EmptyAudioError(f"{name}: the file is empty (0 bytes); copy or download it again")
    file, container = identify(file)
    if container is None:
        raise undecodable(name, what_else(file))
    try:
        if container != "mp3" and container not in CONTAINERS:
            return Libav(file, name, container, stream=stream)
        if stream:
            raise lacks_stream(name, stream, 1)
        return (
            Mp3(file, name) if container == "mp3" else open_with_libsndfile(file, name, container)
        )
    except (struct.error, IndexError, OverflowError) as error:
        raise undecodable(name, "its header is damaged") from error


def _checked_info(decoder: Decoder, name: str) -> AudioInfo:
    info = decoder.info()
    if info.frames < 1:
        raise EmptyAudioError(f"{name}: holds no audio (0 samples); leave it out or replace it")
    return info


def _non_finite(
    samples: np.ndarray, *, start_sample: int, info: AudioInfo, name: str
) -> NonFiniteAudioError:
    bad = ~np.isfinite(samples)
    first = (start_sample + int(bad.any(axis=0).argmax())) / info.sample_rate
    return NonFiniteAudioError(
        f"{name}: {int(bad.sum())} of its samples are NaN or infinite, the first at {first:.3f} s; "
        "repair the file (for example by replacing them with zeros)"
    )
