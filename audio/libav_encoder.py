"""wav and m4a (AAC-LC), written by the FFmpeg libraries inside PyAV.

Nothing of the time gets into the files. The edit list of an m4a, on a clock that counts samples,
says exactly which of its samples are the stem.
"""

from typing import Any, BinaryIO

import av
import numpy as np

from .channels import layout_of
from .stem_format import StemFormat

_PCM = {16: ("pcm_s16le", "s16"), 24: ("pcm_s24le", "s32"), 32: ("pcm_s32le", "s32")}


class LibavEncoder:
    """Writes one stem; the file stays open."""

    def __init__(self, file: BinaryIO, stem_format: StemFormat) -> None:
        self._format = stem_format
        self._frames = 0
        codec, self._kind = _codec_of(stem_format)
        muxer, options = {
            "wav": ("wav", {"rf64": "auto"}),
            "m4a": ("ipod", {"movie_timescale": str(stem_format.sample_rate)}),
        }[stem_format.container]
        self._file = _LeftOpen(file)
        self._container: Any = av.open(
            self._file, "w", format=muxer, options={"fflags": "+bitexact", **options}
        )
        self._stream: Any = self._container.add_stream(
            codec,
            rate=stem_format.sample_rate,
            layout=layout_of(stem_format.channels),
            options={"flags": "+bitexact"},
        )
        context: Any = self._stream.codec_context
        context.format = "fltp" if codec == "aac" else self._kind
        if stem_format.bit_rate_kbps:
            context.bit_rate = 1000 * stem_format.bit_rate_kbps
        self._container.start_encoding()

    def write(self, block: np.ndarray) -> None:
        """Appends floats or integers, shape (frames, channels)."""
        if self._kind == "s16":
            block = block.astype(np.int16)
        elif self._format.bit_depth == 24:
            block = block << 8
        frame: Any = av.AudioFrame.from_ndarray(
            block.reshape(1, -1), format=self._kind, layout=layout_of(self._format.channels)
        )
        frame.sample_rate = self._format.sample_rate
        frame.pts = self._frames
        self._frames += len(block)
        self._container.mux(self._stream.encode(frame))
        self._file.require_written()

    def close(self) -> None:
        """Writes what is left, and the sizes."""
        self._container.mux(self._stream.encode(None))
        self._container.close()
        self._file.require_written()


def _codec_of(stem_format: StemFormat) -> tuple[str, str]:
    """FFmpeg's name of the codec, and of the samples that it is given."""
    if stem_format.container == "m4a":
        return "aac", "flt"
    if stem_format.is_float:
        return "pcm_f32le", "flt"
    return _PCM[stem_format.bit_depth or 16]


class _LeftOpen:
    """A file that PyAV does not close with its container.

    PyAV hides what kind of error a write was, such as one of a full disk: the first is kept, and
    FFmpeg is told nothing.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._error: OSError | None = None
        self.read = file.read
        self.seek = file.seek
        self.tell = file.tell

    def write(self, data: bytes) -> int:
        if self._error is None:
            try:
                return self._file.write(data)
            except OSError as error:
                self._error = error
        return len(data)

    def require_written(self) -> None:
        """Raise the error of a write, if there was one."""
        if self._error is not None:
            raise self._error
