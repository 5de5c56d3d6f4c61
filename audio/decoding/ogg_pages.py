"""Pages of ogg files: whether all are there and whole, what they carry, their serial numbers.

libsndfile and FFmpeg leave out pages that are lost or broken without a word, so that what follows
moves to an earlier time.
"""

import os
import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from ..errors import TruncatedAudioError
from .decoder import damaged, undecodable
from .file_bytes import read_at, size_of

_MAGIC = b"OggS\0"
_HEADER = struct.Struct("<5xBqIIIB")
_TAIL_BYTES = 1 << 18
_SEARCH_BYTES = 1 << 16
_STEM_SERIAL = 0x73_74_65_6D


class OggPage(NamedTuple):
    """One page; one that the file's end cuts is not whole, its numbers may be -1."""

    is_first: bool  # of its stream
    is_last: bool
    granule: int  # samples up to its end, -1: no packet ends on it
    serial: int
    number: int
    checksum: int
    offset: int
    data: bytes
    is_whole: bool


def last_pages(file: BinaryIO) -> list[OggPage]:
    """The pages in the last 256 KiB; one that the file's end cuts is not whole."""
    return list(pages(file, max(0, size_of(file) - _TAIL_BYTES)))


def check_end(file: BinaryIO, name: str) -> None:
    """Refuses a file that ends amid a page.

    A missing end-of-stream mark alone is no proof: many recorders never write it.
    """
    tail = last_pages(file)
    if not tail or tail[-1].is_whole:
        return
    granule = max((page.granule for page in tail if page.is_whole), default=0)
    rate = _granule_rate(file)
    held = f"after {granule / rate:.2f} s" if rate and granule > 0 else "near its start"
    raise TruncatedAudioError(
        f"{name}: cut off {held}, its last ogg page is incomplete and how long it was meant to be "
        "is not recorded; copy or download it again"
    )


def check_pages(file: BinaryIO, name: str) -> None:
    """Refuses a file of which a page is lost or broken; reads all of it (0.1 s an hour)."""
    rate = _granule_rate(file)
    numbers: dict[int, int] = {}
    ended = second = 0.0  # ends of the streams before, and of this one so far
    for page in pages(file, 0):
        # Recorders that join a broadcast number on from its headers with a gap: nothing is lost.
        following = numbers.get(page.serial, page.number - 1) + 1
        is_lost = second > 0 and not page.is_first and page.number != following
        if is_lost or checksum(page.data) != page.checksum:
            reason = "an ogg page is lost or broken"
            if not rate:
                raise undecodable(name, f"damaged: {reason}")
            raise damaged(name, second=ended + second, reason=reason)
        numbers[page.serial] = page.number
        if page.is_first:
            ended, second = ended + second, 0.0
        second = max(second, page.granule / (rate or 1))


def is_chained(file: BinaryIO) -> bool:
    """Whether other streams follow the first ones, of which libsndfile reads only the first."""
    serials = set()
    for page in pages(file, 0):
        if not page.is_first:
            break
        serials.add(page.serial)
    tail = last_pages(file)
    return bool(tail) and bool(serials) and tail[-1].serial not in serials


def seekable_sample(file: BinaryIO) -> int:
    """The last sample to which libsndfile seeks right: it misses those on the last Vorbis page."""
    granules = [page.granule for page in last_pages(file) if page.granule >= 0]
    return max(0, granules[-2] - 8192) if len(granules) > 2 else 0


def set_stem_serial(file: BinaryIO) -> None:
    """Gives an ogg stream a constant serial number in place of libsndfile's random one."""
    for page in pages(file, 0):
        data = bytearray(page.data)
        struct.pack_into("<I", data, 14, _STEM_SERIAL)
        struct.pack_into("<I", data, 22, checksum(data))
        file.seek(page.offset)
        file.write(data)
    file.seek(0, os.SEEK_END)


def pages(file: BinaryIO, offset: int) -> Iterator[OggPage]:
    """Pages from an offset on, whatever lies between them."""
    while header := read_at(file, offset, 27 + 255):
        if not header.startswith(_MAGIC[: len(header)]):
            found = read_at(file, offset, _SEARCH_BYTES).find(_MAGIC, 1)
            # The next search begins early enough to see a mark that this one saw half of.
            offset += found if found > 0 else max(1, min(_SEARCH_BYTES, size_of(file) - offset) - 4)
            continue
        if len(header) < _HEADER.size:
            yield OggPage(False, False, -1, -1, -1, -1, offset, header, False)
            return
        flags, granule, serial, number, check, segments = _HEADER.unpack_from(header)
        size = _HEADER.size + segments + sum(header[27 : 27 + segments])
        data = read_at(file, offset, size)
        is_whole = len(header) >= 27 + segments and len(data) == size
        yield OggPage(
            is_first=bool(flags & 2),
            is_last=bool(flags & 4),
            granule=granule,
            serial=serial,
            number=number,
            checksum=check,
            offset=offset,
            data=data,
            is_whole=is_whole,
        )
        offset += size


def _granule_rate(file: BinaryIO) -> int:
    """Granules per second of a Vorbis, Opus or FLAC stream, 0 if it is another."""
    packet = read_at(file, 28, 64)
    if packet[:7] == b"\x01vorbis" and len(packet) >= 16:
        return int(struct.unpack_from("<I", packet, 12)[0])
    if packet[:5] == b"\x7fFLAC":
        return int.from_bytes(packet[27:30], "big") >> 4
    return 48000 if packet[:8] == b"OpusHead" else 0


_BITS_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def checksum(page: bytes | bytearray) -> int:
    """Ogg's CRC-32: zlib's polynomial with the bits of every byte the other way round, bare."""
    bare = page[:22] + bytes(4) + page[26:]
    mirrored = zlib.crc32(bare.translate(_BITS_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{mirrored:032b}"[::-1], 2)
