"""Stems out: the same bytes for the same samples, sample-exact.

wav and m4a are written by FFmpeg's libraries inside PyAV, the others by libsndfile. That puts the
time of day into float wavs, and decides on RF64 before it knows the length; FFmpeg mixes up the
loudspeakers of opus with 5 or 7 channels, and makes an mp3 of a few samples longer than they are.
"""

from collections.abc import Iterator
from types import TracebackType
from typing import Any, BinaryIO, Protocol

import numpy as np
import soundfile as sf

from .channels import VORBIS_ORDER
from .decoding.ogg_pages import set_stem_serial
from .libav_encoder import LibavEncoder
from .stem_format import StemFormat

_BLOCK_FRAMES = 16384  # larger Vorbis blocks overflow libsndfile's stack
# What libsndfile's compression levels 0 and 1 are in kbit/s: of mp3 from a rate on, of a channel of
# opus.
_MP3_KBPS = ((32000, 320, 32), (16000, 160, 8), (0, 64, 8))
_OPUS_KBPS = (256, 6)


def quantize(samples: np.ndarray, stem_format: StemFormat) -> tuple[np.ndarray, int]:
    """Samples as a lossless file gives them back, and how many of them had to be clipped.

    Parameters
    ----------
    samples : np.ndarray, shape (channels, frames), float32
    stem_format : StemFormat

    Returns
    -------
    np.ndarray, shape (channels, frames), float32
        Multiples of 2^-(bits - 1) in [-1, 1); unchanged for float wav, in [-1, 1] of what
        is lossy.
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

    Attributes
    ----------
    frames : int
        Written so far.
    clipped : int
        Samples (of any channel) that were outside of the format's range.
    """

    def __init__(self, file: BinaryIO, *, stem_format: StemFormat) -> None:
        self.frames = 0
        self.clipped = 0
        self._format = stem_format
        by_libav = stem_format.container in ("wav", "m4a")
        self._encoder: _Encoder = (LibavEncoder if by_libav else _SoundFileEncoder)(
            file, stem_format
        )

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
        if samples.ndim != 2 or len(samples) != self._format.channels:
            raise ValueError(
                f"samples of shape ({self._format.channels}, frames) are wanted, "
                f"got {samples.shape}"
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
    """flac, ogg, opus and mp3, by libsndfile."""

    def __init__(self, file: BinaryIO, stem_format: StemFormat) -> None:
        self._file = file
        self._format = stem_format
        kinds: dict[str, dict[str, Any]] = {
            "flac": {"format": "FLAC", "subtype": f"PCM_{stem_format.bit_depth}"},
            "ogg": {"format": "OGG", "subtype": "VORBIS"},
            "opus": {"format": "OGG", "subtype": "OPUS"},
            "mp3": {"format": "MP3", "subtype": "MPEG_LAYER_III", "bitrate_mode": "CONSTANT"},
        }
        self._is_ogg = stem_format.container in ("ogg", "opus")
        self._order = VORBIS_ORDER.get(stem_format.channels) if self._is_ogg else None
        self._sound = sf.SoundFile(
            file,
            "w",
            stem_format.sample_rate,
            stem_format.channels,
            compression_level=_compression_level(stem_format),
            **kinds[stem_format.container],
        )

    def write(self, block: np.ndarray) -> None:
        if self._order:
            block = np.ascontiguousarray(block[:, self._order])
        elif self._format.bit_depth == 16:
            block = block.astype(np.int16)
        elif self._format.bit_depth == 24:
            block = block << 8
        self._sound.write(block)

    def close(self) -> None:
        self._sound.close()
        if self._is_ogg:
            set_stem_serial(self._file)


def _compression_level(stem_format: StemFormat) -> float | None:
    """What libsndfile makes of a bit rate or a quality: 0 is the best, 1 the smallest."""
    if stem_format.quality is not None:
        return 1 - stem_format.quality / 10
    if stem_format.bit_rate_kbps is None:
        return None
    rate, channels = stem_format.sample_rate, stem_format.channels
    if stem_format.container == "opus":
        most, least = (channels * kbps for kbps in _OPUS_KBPS)
    else:
        most, least = next((most, least) for lowest, most, least in _MP3_KBPS if rate >= lowest)
    # It refuses 1 itself of mp3.
    return min((most - stem_format.bit_rate_kbps) / (most - least), 0.9999)
