"""Stems out: flac, wav, ogg or mp3, the same bytes for the same samples, sample-exact."""

from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, BinaryIO, Literal, Protocol, cast

import numpy as np
import soundfile as sf

from .decoding.decoder import AudioInfo
from .decoding.ogg_pages import set_stem_serial
from .errors import UnsupportedFormatError
from .wav_writer import WavWriter

Container = Literal["flac", "wav", "ogg", "mp3"]

_MP3_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
_MAX_FLAC_RATE = 655_350
_MAX_VORBIS_RATE = 200_000
_BLOCK_FRAMES = 16384  # larger Vorbis blocks overflow libsndfile's stack


@dataclass(frozen=True)
class StemFormat:
    """How stems are stored.

    Attributes
    ----------
    container : str
        'flac', 'wav', 'ogg' (Vorbis) or 'mp3'.
    bit_depth : int or None
        16, 24 or 32 bits a sample; None of ogg and mp3.
    is_float : bool
        32-bit floating point, wav only.
    """

    container: Container
    bit_depth: int | None
    is_float: bool = False

    @property
    def extension(self) -> str:
        """With its dot."""
        return f".{self.container}"


def choose_format(container: str, *, bit_depth: str | int | None, info: AudioInfo) -> StemFormat:
    """The format of a recording's stems.

    Parameters
    ----------
    container : str
        'flac', 'wav', 'ogg' or 'mp3'.
    bit_depth : str, int or None
        None or 'source': as the recording's own. flac has 16 bits for recordings of at most 16 and
        for lossy ones, else 24; wav also 32 and, for float recordings, 32-bit float. Or '16', '24',
        and for wav '32' or '32f'.
    info : AudioInfo
        The recording.

    Raises
    ------
    UnsupportedFormatError
        The format can't hold the recording's channels or sample rate, or has no such bit depth.
    """
    if container not in ("flac", "wav", "ogg", "mp3"):
        raise UnsupportedFormatError(f"no such stem format: {container!r}; use flac, wav, ogg, mp3")
    chosen = cast(Container, container)
    _refuse_misfit(chosen, info)
    depth = "source" if bit_depth is None else str(bit_depth)
    if chosen in ("ogg", "mp3"):
        if depth != "source":
            raise UnsupportedFormatError(
                f"{chosen} has no bit depth, but {depth} was asked for; leave it out or use flac"
            )
        return StemFormat(chosen, None)
    if depth == "source":
        return _source_format(chosen, info)
    depths = {"16": 16, "24": 24} if chosen == "flac" else {"16": 16, "24": 24, "32": 32, "32f": 32}
    if depth not in depths:
        raise UnsupportedFormatError(
            f"{chosen} stems can't have a bit depth of {depth}; use {', '.join(depths)} or source"
        )
    return StemFormat(chosen, depths[depth], is_float=depth == "32f")


def _source_format(container: Container, info: AudioInfo) -> StemFormat:
    bits = info.bit_depth or 16
    if container == "flac":
        return StemFormat("flac", 24 if bits > 16 or info.is_float else 16)
    if info.is_float:
        return StemFormat("wav", 32, is_float=True)
    return StemFormat("wav", 16 if bits <= 16 else 24 if bits <= 24 else 32)


def _refuse_misfit(container: Container, info: AudioInfo) -> None:
    most_channels = {"flac": 8, "wav": 65535, "ogg": 255, "mp3": 2}[container]
    if info.channels > most_channels:
        raise UnsupportedFormatError(
            f"{container} holds at most {most_channels} channels, the recording has "
            f"{info.channels}; use {'wav' if info.channels > 8 else 'flac'}"
        )
    rate = info.sample_rate
    if container == "mp3" and rate not in _MP3_RATES:
        known = ", ".join(f"{r / 1000:g}" for r in _MP3_RATES)
        raise UnsupportedFormatError(
            f"mp3 knows only sample rates of {known} kHz, the recording has {rate / 1000:g}; "
            "use flac"
        )
    fastest = {"flac": _MAX_FLAC_RATE, "ogg": _MAX_VORBIS_RATE}.get(container)
    if fastest is not None and rate > fastest:
        raise UnsupportedFormatError(
            f"{container} holds sample rates up to {fastest} Hz, the recording has {rate}; use wav"
        )


def quantize(samples: np.ndarray, stem_format: StemFormat) -> tuple[np.ndarray, int]:
    """Samples as a lossless file gives them back, and how many of them had to be clipped.

    Parameters
    ----------
    samples : np.ndarray, shape (channels, frames), float32
    stem_format : StemFormat

    Returns
    -------
    np.ndarray, shape (channels, frames), float32
        Multiples of 2^-(bits - 1) in [-1, 1); unchanged for float wav, in [-1, 1] for ogg and mp3.
    int
        Samples beyond that range.
    """
    samples = np.asarray(samples, np.float32)
    if stem_format.is_float:
        return samples, 0
    if stem_format.bit_depth is None:
        clipped = sum(
            int(np.count_nonzero(np.abs(samples[:, block]) > 1.0))
            for block in _blocks(samples.shape[1])
        )
        return np.clip(samples, -1.0, 1.0), clipped
    out = np.empty(samples.shape, np.float32)
    clipped = 0
    for block in _blocks(samples.shape[1]):
        integers, clipped_here = _integers(samples[:, block], stem_format.bit_depth)
        np.multiply(integers, 2.0 ** (1 - stem_format.bit_depth), out=out[:, block])
        clipped += clipped_here
    return out, clipped


def _blocks(frames: int) -> Iterator[slice]:
    """Few enough frames at a time that what is made of them takes no memory to speak of."""
    for first in range(0, frames, _BLOCK_FRAMES):
        yield slice(first, first + _BLOCK_FRAMES)


def _integers(samples: np.ndarray, bits: int) -> tuple[np.ndarray, int]:
    """Rounded to the integers of so many bits (int32), and how many samples were clipped."""
    top = 2 ** (bits - 1)
    # 2^31 - 1 is no float32, hence doubles for 32 bits.
    scaled = samples.astype(np.float64 if bits > 24 else np.float32) * top
    rounded = np.rint(scaled, out=scaled)
    clipped = int(np.count_nonzero((rounded < -top) | (rounded > top - 1)))
    return np.clip(rounded, -top, top - 1, out=rounded).astype(np.int32), clipped


class _Encoder(Protocol):
    def write(self, block: np.ndarray) -> None: ...

    def close(self) -> None: ...


class StemWriter:
    """Writes one stem piece by piece; the same samples give the same bytes.

    Parameters
    ----------
    file : binary file
        Empty, seekable and readable; it is left open.
    stem_format : StemFormat
    sample_rate : int
        Hz.
    channels : int

    Attributes
    ----------
    frames : int
        Written so far.
    clipped : int
        Samples (of any channel) that were outside of the format's range.
    """

    def __init__(
        self, file: BinaryIO, *, stem_format: StemFormat, sample_rate: int, channels: int
    ) -> None:
        self.frames = 0
        self.clipped = 0
        self._format = stem_format
        self._channels = channels
        self._encoder: _Encoder
        if stem_format.container == "wav":
            self._encoder = WavWriter(
                file,
                sample_rate=sample_rate,
                channels=channels,
                bits=stem_format.bit_depth or 32,
                is_float=stem_format.is_float,
            )
        else:
            self._encoder = _SoundFileEncoder(file, stem_format, sample_rate, channels)

    def __enter__(self) -> "StemWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._encoder.close()

    def write(self, samples: np.ndarray) -> None:
        """Appends samples.

        Parameters
        ----------
        samples : np.ndarray, shape (channels, frames), float32
            Rounded to the format's grid as `quantize` does it.
        """
        if samples.ndim != 2 or len(samples) != self._channels:
            raise ValueError(
                f"samples of shape ({self._channels}, frames) are wanted, got {samples.shape}"
            )
        for block in _blocks(samples.shape[1]):
            self._write_block(samples[:, block])
        self.frames += samples.shape[1]

    def _write_block(self, samples: np.ndarray) -> None:
        bits = self._format.bit_depth
        if bits is None or self._format.is_float:
            block, clipped = quantize(samples, self._format)
        else:
            block, clipped = _integers(np.asarray(samples, np.float32), bits)
        self.clipped += clipped
        self._encoder.write(np.ascontiguousarray(block.T))


class _SoundFileEncoder:
    """flac, ogg and mp3, by libsndfile."""

    def __init__(
        self, file: BinaryIO, stem_format: StemFormat, sample_rate: int, channels: int
    ) -> None:
        self._file = file
        self._container = stem_format.container
        self._bits = stem_format.bit_depth
        kinds: dict[str, dict[str, Any]] = {
            "flac": {"format": "FLAC", "subtype": f"PCM_{self._bits}"},
            "ogg": {"format": "OGG", "subtype": "VORBIS", "compression_level": 0.4},
            "mp3": {
                "format": "MP3",
                "subtype": "MPEG_LAYER_III",
                "compression_level": 0.0,
                "bitrate_mode": "CONSTANT",
            },
        }
        self._sound = sf.SoundFile(file, "w", sample_rate, channels, **kinds[self._container])

    def write(self, block: np.ndarray) -> None:
        if self._bits == 16:
            block = block.astype(np.int16)
        elif self._bits == 24:
            block = block << 8
        self._sound.write(block)

    def close(self) -> None:
        self._sound.close()
        if self._container == "ogg":
            set_stem_serial(self._file)
