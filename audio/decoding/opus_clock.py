"""Granule positions of Opus in ogg, put right where they stray from what the packets hold.

ffmpeg before 6.0 writes some that are half a packet late. libsndfile refuses those as malformed;
FFmpeg and opusdec lose the end of a recording whose last page but one has such a position. Where a
stream that was cut from a longer one begins later than 0, libsndfile leaves its priming in.
"""

import statistics
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

    The last page may leave out samples of its end, as its position tells.
    """
    said: list[int] = []
    held: list[int] = []
    changes: list[dict[int, bytes]] = []
    for page, samples in _audio_pages(file):
        if checksum(page.data) != page.checksum:
            return file  # a new checksum would hide the damage
        said.append(page.granule)
        held.append(samples + (held[-1] if held else 0))
        changes.append(_with_granule(page, held[-1]))
    if not held:
        return file
    changes[-1] = _with_granule(page, _end_of(said, held))
    patches = {offset: data for change in changes for offset, data in change.items()}
    return window(file, 0, patches) if patches else file


def _end_of(said: list[int], held: list[int]) -> int:
    """Samples up to the end, from what pages say, and hold with all before them."""
    if len(said) == 1:
        return min(said[0], held[0])
    # Most pages tell when the stream began; where the time made a leap, the last two tell the end.
    origin = statistics.median_low(map(int.__sub__, said[:-1], held))
    ends = (said[-1] - origin, held[-2] + said[-1] - said[-2])
    return next((end for end in ends if held[-2] <= end <= held[-1]), held[-1])


def _with_granule(page: OggPage, granule: int) -> dict[int, bytes]:
    """What of a page changes, at its offsets in the file, for it to have this position."""
    if granule == page.granule:
        return {}
    said = granule.to_bytes(8, "little", signed=True)
    data = page.data[:_GRANULE_AT] + said + page.data[_GRANULE_AT + 8 :]
    check = checksum(data).to_bytes(4, "little")
    return {page.offset + _GRANULE_AT: said, page.offset + _CHECKSUM_AT: check}


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
