"""Where the recording lies in an mp4's track: its edit list, priming, and iTunes' own note.

A track begins with the codec's priming and ends with padding; what plays is between.
"""

import contextlib
import json
import struct
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, BinaryIO, NamedTuple

import av.error

from .file_bytes import read_at


class Edit(NamedTuple):
    """The one stretch of a track that its edit list plays."""

    first: int  # on the track's clock
    length: int  # on the movie's clock
    movie_rate: int  # ticks of that a second

    def frames(self, held: int, rate: int) -> int:
        """Samples in it, of those held behind its begin.

        The movie's clock is often coarse (milliseconds): where it agrees with what the track itself
        holds, the track is the one to believe; 0 means up to its end.
        """
        if not self.length or abs(held * self.movie_rate - self.length * rate) <= rate:
            return held
        return round(self.length * rate / self.movie_rate)


def find_edit(file: BinaryIO, stream: int = 0) -> Edit | None:
    """The edit of an audio track, the first being 0; None if there is none or more than one."""
    moov = _moov(file)
    header = dict(_boxes(moov)).get(b"mvhd", b"")
    at = 20 if header[:1] == b"\1" else 12
    if len(header) < at + 4:
        return None
    movie_rate = struct.unpack(">I", header[at : at + 4])[0]
    tracks = (dict(_boxes(body)) for kind, body in _boxes(moov) if kind == b"trak")
    sounds = [track for track in tracks if _handler_of(track) == b"soun"]
    if stream >= len(sounds):
        return None
    edits = dict(_boxes(sounds[stream].get(b"edts", b""))).get(b"elst", b"")
    return _single_edit(edits, movie_rate)


def _handler_of(track: dict[bytes, bytes]) -> bytes:
    return dict(_boxes(track.get(b"mdia", b""))).get(b"hdlr", b"")[8:12]


def stem_names(file: BinaryIO) -> tuple[str, ...]:
    """What Native Instruments' Stems call the audio tracks behind the first; none without them."""
    user_data = dict(_boxes(dict(_boxes(_moov(file))).get(b"udta", b"")))
    with contextlib.suppress(ValueError, TypeError, KeyError):
        stems = json.loads(user_data.get(b"stem", b"{}"))["stems"]
        return tuple(str(stem["name"]) for stem in stems)
    return ()


def _single_edit(elst: bytes, movie_rate: int) -> Edit | None:
    if len(elst) < 8 or not movie_rate:
        return None
    entry = ">Qqi" if elst[0] == 1 else ">Iii"
    size = struct.calcsize(entry)
    count = min(struct.unpack(">I", elst[4:8])[0], (len(elst) - 8) // size)
    edits = [struct.unpack_from(entry, elst, 8 + size * index) for index in range(count)]
    played = [edit for edit in edits if edit[1] >= 0]  # the others are pauses before the sound
    if len(played) != 1:
        return None
    return Edit(played[0][1], played[0][0], movie_rate)


def _moov(file: BinaryIO) -> bytes:
    offset = 0
    while len(header := read_at(file, offset, 16)) >= 8:
        size, kind = struct.unpack(">I4s", header[:8])
        begin = 8
        if size == 1 and len(header) == 16:
            begin, size = 16, struct.unpack(">Q", header[8:])[0]
        if size < begin:
            break
        if kind == b"moov":
            return read_at(file, offset + begin, size - begin)
        offset += size
    return b""


def _boxes(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and content of the boxes inside a box."""
    offset = 0
    while offset + 8 <= len(content):
        size, kind = struct.unpack_from(">I4s", content, offset)
        if size < 8:
            return
        yield kind, content[offset + 8 : offset + size]
        offset += size


class PacketWalk(NamedTuple):
    """What the packets of a track say of themselves; times are on the track's clock."""

    first: int
    end: int
    longest: int
    packets: int
    priming: int  # samples to leave out at the begin
    is_cut: bool


def walk_packets(container: Any, stream: Any) -> PacketWalk | None:
    """Walks over all packets without decoding any; None if there are none."""
    first = None
    end = longest = count = priming = 0
    is_cut = False
    try:
        for packet in container.demux(stream):
            if packet.pts is None:
                continue
            if first is None:
                first = packet.pts
                priming = skipped_samples(packet)
            count += 1
            end = max(end, packet.pts + (packet.duration or 0))
            longest = max(longest, packet.duration or 0)
            is_cut = is_cut or packet.is_corrupt
    except av.error.FFmpegError:
        is_cut = True
    return None if first is None else PacketWalk(first, end, longest, count, priming, is_cut)


def skipped_samples(packet: Any) -> int:
    """Samples that decoding leaves out at the begin of a packet."""
    for side_data in packet.iter_sidedata():
        if str(side_data.data_type) == "skip_samples":
            return int(struct.unpack("<I", bytes(side_data)[:4])[0])
    return 0


def itunes_samples(metadata: dict[str, str]) -> int | None:
    """The exact length that iTunes notes beside the audio instead of in an edit list."""
    fields = metadata.get("iTunSMPB", "").split()
    try:
        return int(fields[3], 16) or None
    except (IndexError, ValueError):
        return None


def ticks(stream: Any, rate: int) -> int:
    """Samples per unit of the stream's clock; 0 if that is no whole number."""
    samples = Fraction(stream.time_base) * rate
    return int(samples) if samples.denominator == 1 else 0
