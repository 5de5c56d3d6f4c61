"""Granule positions of Opus in ogg, put right where they stray from what the packets hold.

ffmpeg before 6.0 writes some that are half a packet late. libsndfile refuses those as malformed;
FFmpeg and opusdec lose the end of a recording whose last page but one has such a position.
"""

from collections.abc import Iterator
from typing import BinaryIO

from .file_bytes import read_at, window
from .ogg_pages import OggPage, checksum, pages

_HEADER_PACKETS = 2
_GRANULE_AT, _CHECKSUM_AT = 6, 22
# Samples at 48 kHz in a frame, by the upper five bits of a packet's first byte.
_FRAME_SAMPLES = (
    *(480, 960, 1920, 2880) * 3,  # SILK
    *(480, 960) * 2,  # both
    *(120, 240, 480, 960) * 4,  # CELT
)


def is_opus(file: BinaryIO) -> bool:
    """Whether the first stream of an ogg file is Opus."""
    return read_at(file, 28, 8) == b"OpusHead"


def repaired_opus(file: BinaryIO) -> BinaryIO:
    """The file with granule positions that count the samples of its packets; reads all of it.

    A recording begins where its first page says, and its last page may leave out samples of that
    page, as the positions of it and of the page before tell.
    """
    patches: dict[int, bytes] = {}
    last: OggPage | None = None
    position = begin = said_before = early = 0
    for page, samples in _audio_pages(file):
        if checksum(page.data) != page.checksum:
            return file  # a new checksum would hide the damage
        if last is None:
            position = max(0, page.granule - samples)
            early = max(0, samples - page.granule)  # what a cut left before time zero
        else:
            said_before = last.granule
        begin, position = position, position + samples
        _set_granule(patches, page, position)
        last = page
    if last is not None:
        relative = begin + last.granule - said_before
        ends = (end for end in (last.granule + early, relative) if begin <= end <= position)
        _set_granule(patches, last, next(ends, position))
    return window(file, 0, patches) if patches else file


def _set_granule(patches: dict[int, bytes], page: OggPage, granule: int) -> None:
    at = page.offset
    patches.pop(at + _GRANULE_AT, None)
    patches.pop(at + _CHECKSUM_AT, None)
    if granule == page.granule:
        return
    said = granule.to_bytes(8, "little", signed=True)
    data = page.data[:_GRANULE_AT] + said + page.data[_GRANULE_AT + 8 :]
    patches[at + _GRANULE_AT] = said
    patches[at + _CHECKSUM_AT] = checksum(data).to_bytes(4, "little")


def _audio_pages(file: BinaryIO) -> Iterator[tuple[OggPage, int]]:
    """The pages of the first stream on which audio packets end, and the samples of these."""
    serial = None
    packets = 0
    unfinished = b""  # of a packet that goes on on the next page
    for page in pages(file, 0):
        serial = page.serial if serial is None else serial
        if page.serial != serial or not page.is_whole:
            continue
        ended = samples = 0
        segments = page.data[26]
        at = 27 + segments
        for size in page.data[27:at]:
            unfinished = unfinished or page.data[at : at + min(size, 2)]
            at += size
            if size < 255:
                packets += 1
                if packets > _HEADER_PACKETS:
                    ended += 1
                    samples += _samples_of(unfinished)
                unfinished = b""
        if ended:
            yield page, samples


def _samples_of(packet: bytes) -> int:
    """Samples at 48 kHz in a packet, of which the first two bytes are enough."""
    if not packet:
        return 0
    frames = (1, 2, 2, packet[1] & 63 if len(packet) > 1 else 0)[packet[0] & 3]
    return frames * _FRAME_SAMPLES[packet[0] >> 3]
