"""m4a, aac, alac, wma, webm, video and more, read by the FFmpeg libraries inside PyAV."""

import struct
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

import av
import av.audio.frame
import av.error
import numpy as np

from .decoder import AudioInfo, as_channels, damaged, lacks_stream, place, truncated, undecodable
from .file_bytes import window
from .mp4_index import find_edit, itunes_samples, skipped_samples, ticks, walk_packets
from .sniffing import identify, what_else
from .stream_names import names_of_streams

_FORMATS = {
    "m4a": "mp4",
    "wma": "asf",
    "wavpack": "wv",
    "adts": "aac",
    "mp2": "mp3",
}
_SEEKABLE_CODECS = frozenset({"alac", "flac"})
_PCM_BITS = {"u8": 8, "s8": 8, "s16": 16, "s24": 24, "s32": 32, "s64": 64, "f32": 32, "f64": 64}


class _Span(NamedTuple):
    """Where the recording lies on an mp4 track's clock, in samples."""

    origin: int
    frames: int


class Libav:
    """Decoder of what FFmpeg reads.

    Packets that do not decode are errors. What can't be known is damage that a decoder conceals
    (some of AAC's, Opus' and wma's), and data that a container leaves out on its own (webm, adts
    and mpegts look for the next packet they understand).
    """

    def __init__(
        self,
        file: BinaryIO,
        name: str,
        container: str,
        *,
        stream: int = 0,
        late_samples: int = 0,
    ) -> None:
        """`late_samples`: how many at the begin of what FFmpeg gives are none of the recording."""
        self._file = file
        self._number = stream
        self._late = late_samples
        self._name = name
        self._container = container
        self._edit = find_edit(file, stream) if container == "m4a" else None

    def info(self) -> AudioInfo:
        """What the file says; where it does not say its length, all of it is decoded."""
        with self._opened() as container:
            stream = self._stream(container)
            first = next(self._decoded(container, stream), None)
            if first is None:
                raise undecodable(self._name, "none of its audio decodes")
            codec = stream.codec_context.name
            bit_depth = _lossless_bits(stream.codec_context)
            label = self._container
            if label == "m4a" and any(s.average_rate for s in container.streams.video):
                label = "mp4"
            rate, channels = first.sample_rate, first.layout.nb_channels
            streams = names_of_streams(container, self._file)
        span = self._mp4_span(rate)
        return AudioInfo(
            container=label,
            codec=codec,
            sample_rate=rate,
            channels=channels,
            frames=span.frames if span else self._count_frames(),
            bit_depth=bit_depth,
            is_float="_f32" in codec or "_f64" in codec,
            streams=streams,
            stream=self._number,
        )

    def stream_names(self) -> tuple[str, ...]:
        """As `AudioInfo.streams`, by the header alone."""
        with self._opened() as container:
            return names_of_streams(container, self._file)

    def read(self, start: int, stop: int, info: AudioInfo) -> np.ndarray:
        """The frames of a range, decoded from the start where a seek would not be exact."""
        out = np.zeros((info.channels, stop - start), np.float32)
        rate = info.sample_rate
        span, late = self._mp4_span(rate), self._late_samples()
        with self._opened() as container:
            stream = self._stream(container)
            tick = ticks(stream, rate)
            if span and _is_seekable(stream.codec_context.name):
                container.seek((span.origin + start) // tick, stream=stream)
            position = -late
            for frame in self._decoded(container, stream):
                if span and frame.pts is not None:
                    position = frame.pts * tick - span.origin
                if position >= stop:
                    break
                if position + frame.samples > start:
                    place(out, as_channels(_as_floats(frame), info.channels), position - start)
                position += frame.samples
        if position < stop and not span:
            raise truncated(self._name, held_s=position / rate, promised_s=info.frames / rate)
        return out

    def _opened(self) -> Any:
        self._file.seek(0)
        try:
            return av.open(
                self._file,
                format=_FORMATS.get(self._container, self._container),
                options={"ignore_editlist": "1"} if self._edit is not None else {},
                metadata_errors="replace",  # old taggers wrote Latin-1
            )
        except av.error.FFmpegError as error:
            reason = f"{error.strerror or error}".lower()
            if self._container == "m4a":
                reason = "its index, 'moov', is missing or broken: it may be truncated"
            raise undecodable(self._name, reason) from error

    def _stream(self, container: Any) -> Any:
        streams = container.streams.audio
        if not streams:
            raise undecodable(self._name, "it holds no audio track")
        if self._number >= len(streams):
            raise lacks_stream(self._name, self._number, len(streams))
        if streams[self._number].codec_context is None:
            raise undecodable(self._name, "its codec is none that FFmpeg knows")
        return streams[self._number]

    def _decoded(self, container: Any, stream: Any) -> Iterator[Any]:
        """Decoded frames, and an error at the first packet that does not decode.

        The last packet of a file that does not say its length may be one that its end cuts: it is
        left out, as is the last frame of an mp3.
        """
        second = 0.0
        broken: Exception | None = None
        codec = _decoder_of(stream)
        try:
            for packet in container.demux(stream):
                if broken and packet.size:
                    break
                if packet.pts is not None:
                    second = float(packet.pts * packet.time_base)
                try:
                    yield from codec.decode(packet)
                except av.error.InvalidDataError as error:
                    broken = error
            else:
                broken = broken if self._container == "m4a" else None
        except (av.error.FFmpegError, IndexError) as error:  # IndexError: of a stream come midway
            broken = error
        if broken:
            raise damaged(self._name, second=second, reason="a packet is broken") from broken

    def _count_frames(self) -> int:
        with self._opened() as container:
            stream = self._stream(container)
            held = sum(frame.samples for frame in self._decoded(container, stream))
        return max(0, held - self._late_samples())

    def _late_samples(self) -> int:
        """Samples at the begin of what FFmpeg gives that are none of the recording.

        Of Opus in Matroska, it takes the length of the priming for one at the rate that the header
        names, which may be another than Opus' own.
        """
        if self._container != "matroska":
            return self._late
        with self._opened() as container:
            stream = self._stream(container)
            head = stream.codec_context.extradata or b""
            packet = next(container.demux(stream), None)
            if not head.startswith(b"OpusHead") or len(head) < 12 or packet is None:
                return 0
            skipped = skipped_samples(packet)
            (priming,) = struct.unpack_from("<H", head, 10)
            return max(0, priming - skipped) if skipped else 0

    def _mp4_span(self, rate: int) -> _Span | None:
        """The recording without the codec's priming and padding, as an mp4's edit list tells them.

        None where the container has no clock that counts samples.
        """
        if self._container != "m4a":
            return None
        with self._opened() as container:
            stream = self._stream(container)
            tick = ticks(stream, rate)
            walk = walk_packets(container, stream) if tick else None
            noted = itunes_samples(container.metadata)
        if walk is None:
            return None
        origin = walk.first * tick + walk.priming
        end = walk.end * tick
        declared = (max(0, walk.first) + stream.duration) * tick if stream.duration else end
        if self._edit is not None:
            origin = self._edit.first * tick
            declared = origin + self._edit.frames(end - origin, rate)
        if walk.is_cut or (walk.packets < stream.frames and declared - end > walk.longest * tick):
            held_s, promised_s = max(0, end - origin) / rate, (declared - origin) / rate
            raise truncated(self._name, held_s=held_s, promised_s=promised_s)
        end = min(end, declared)
        if noted is not None and walk.priming and self._edit is None:
            end = min(end, origin + noted)
        return _Span(origin, max(0, end - origin))


def open_for_tags(file: BinaryIO) -> Any:
    """The container, opened as what it is, with no more read of it than its header.

    Bytes of texts that are no UTF-8 are in them as surrogates.
    """
    _, container = identify(file)
    if container is None:  # FFmpeg would guess, and take a text for a playlist
        raise undecodable("", what_else(file))
    return av.open(
        window(file, 0),
        format=_FORMATS.get(container, container),
        options={"probesize": "4096", "analyzeduration": "1"},
        metadata_errors="surrogateescape",
    )


def _decoder_of(stream: Any) -> Any:
    """The decoder of a track: for Opus that of libopus, as FFmpeg's own strays at low bit rates."""
    if stream.codec_context.name != "opus":
        return stream.codec_context
    codec: Any = av.CodecContext.create("libopus", "r")
    codec.extradata = stream.codec_context.extradata
    codec.options = {"request_sample_fmt": "flt", "pkt_timebase": str(stream.time_base)}
    return codec


def _is_seekable(codec: str) -> bool:
    """Whether a codec's frames do not depend on what came before."""
    return codec in _SEEKABLE_CODECS or codec.startswith("pcm_")


def _lossless_bits(codec: Any) -> int | None:
    """Bits per sample of a lossless codec, None of a lossy one."""
    extra = codec.extradata or b""
    if codec.name == "alac" and len(extra) >= 18:
        return int(extra[17])
    if codec.name == "flac" and len(extra) >= 14:
        return ((extra[12] & 1) << 4 | extra[13] >> 4) + 1
    if codec.name.startswith("pcm_"):
        return _PCM_BITS.get(codec.name[4:7])
    if codec.name in {"ape", "tta", "tak", "wavpack", "alac", "flac", "wmalossless"}:
        return 16 if "16" in codec.format.name else 24
    return None


def _as_floats(frame: "av.audio.frame.AudioFrame") -> np.ndarray:
    """A decoded frame as float32, shape (channels, frames), integers over their full scale."""
    channels = frame.layout.nb_channels
    if frame.format.name.startswith("s64"):  # PyAV makes no array of it
        frame = _converted(frame, "dbl")
    elif frame.format.is_planar and channels >= 8:  # PyAV crashes on counting so many planes
        frame = _converted(frame, frame.format.packed.name)
    samples = frame.to_ndarray()
    if not frame.format.is_planar:
        samples = samples.reshape(-1, channels).T
    if samples.dtype == np.uint8:
        return (samples.astype(np.float32) - 128) / 128
    if samples.dtype.kind == "i":
        scale = np.float64(2.0) ** -(8 * samples.dtype.itemsize - 1)
        return (samples * scale).astype(np.float32)
    return samples.astype(np.float32, copy=False)


def _converted(frame: "av.audio.frame.AudioFrame", form: str) -> "av.audio.frame.AudioFrame":
    """The same samples in another, packed format."""
    resampler = av.AudioResampler(format=form, layout=frame.layout, rate=frame.sample_rate)
    (converted,) = resampler.resample(frame)
    return converted
