"""Where the frames of an mp3 lie, and what its Xing, Info or VBRI header says of its length.

libsndfile guesses the length of an mp3 without a Xing header, wrong by a factor of three for
variable bit rates; hence the frames are counted here.
"""

import struct
from array import array
from typing import BinaryIO, NamedTuple

import numpy as np

from .file_bytes import read_at, size_of

_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
_MPEG2_KILOBITS = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_MPEG1_KILOBITS = {
    2: (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    3: (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
}
_DECODER_DELAY = 529  # samples by which every mp3 decoder is late
_BLOCK_BYTES = 1 << 20
_SAME = 0xFE0C  # sync, version, layer and sample rate: what all frames of a stream share


def _frame_sizes(layer: int) -> list[int]:
    """Bytes of a frame by the second and third byte of its header; 0 where that is none."""
    sizes = [0] * 65536
    for key in range(0xE000, 65536):
        version, bit_rate, rate, padding = key >> 11 & 3, key >> 4 & 15, key >> 2 & 3, key >> 1 & 1
        if 4 - (key >> 9 & 3) == layer and version != 1 and 0 < bit_rate < 15 and rate < 3:
            kilobits = _MPEG1_KILOBITS[layer] if version == 3 else _MPEG2_KILOBITS
            per_kilobit = 72000 if layer == 3 and version != 3 else 144000
            sizes[key] = per_kilobit * kilobits[bit_rate - 1] // _RATES[version][rate] + padding
    return sizes


_SIZES = {2: _frame_sizes(2), 3: _frame_sizes(3)}


def find_chain(data: bytes, reach: int) -> int | None:
    """Offset of the first of three mp3 frames in a row (or of fewer, up to the data's end)."""
    offset = data.find(b"\xff")
    while 0 <= offset < reach:
        if is_chain(data, offset):
            return offset
        offset = data.find(b"\xff", offset + 1)
    return None


def is_chain(data: bytes, offset: int, *, layer: int = 3) -> bool:
    """Whether three frames of an MPEG audio layer, or fewer up to the data's end, begin there."""
    same = None
    for count in range(3):
        if offset + 4 > len(data):
            return count > 0 and offset == len(data)
        key = data[offset + 1] << 8 | data[offset + 2]
        size = _SIZES[layer][key]
        if data[offset] != 0xFF or not size or same not in (None, key & _SAME):
            return False
        same = key & _SAME
        offset += size
    return True


class Mp3Layout(NamedTuple):
    """The audio frames of an mp3, without its Xing header's."""

    offsets: np.ndarray  # bytes
    sizes: np.ndarray
    overhead: int  # bytes of a frame that hold no sound
    rate: int
    channels: int
    samples_per_frame: int
    skipped: int  # samples before the recording begins
    frames: int  # samples of the recording
    promised: int  # audio frames that the Xing header promises, 0: none

    @property
    def first_gap(self) -> int | None:
        """Number of the first frame before which bytes lie that are none."""
        is_gap = self.offsets[1:] != self.offsets[:-1] + self.sizes[:-1]
        return int(is_gap.argmax()) + 1 if is_gap.any() else None


def mp3_layout(file: BinaryIO) -> Mp3Layout:
    """Finds the frames of an mp3; reads all of it."""
    data = read_at(file, 0, (1 << 18) + 8192)
    begin = find_chain(data, len(data)) or 0
    header = data[begin : begin + 4]
    version, is_mono = header[1] >> 3 & 3, header[3] >> 6 == 3
    step = 1152 if version == 3 else 576
    side_bytes = (17 if is_mono else 32) if version == 3 else (9 if is_mono else 17)
    size = _SIZES[3][header[1] << 8 | header[2]]
    promised, delay, padding = _gapless(data[begin : begin + size], side_bytes)
    offsets, sizes = _find_frames(file, begin)
    if promised is not None:
        offsets, sizes = offsets[1:], sizes[1:]
    total = len(offsets) * step
    # Concatenated files hold more than the first one's header knows of: its padding is not theirs.
    more = promised is not None and len(offsets) > promised + 1 > 1
    skipped = delay + _DECODER_DELAY if delay or padding else 0
    end = total if more else total - max(0, padding - _DECODER_DELAY)
    return Mp3Layout(
        offsets=offsets,
        sizes=sizes,
        overhead=4 + 2 + side_bytes,
        rate=_RATES[version][header[2] >> 2 & 3],
        channels=1 if is_mono else 2,
        samples_per_frame=step,
        skipped=skipped,
        frames=max(0, end - skipped),
        promised=promised or 0,
    )


def _gapless(frame: bytes, side_bytes: int) -> tuple[int | None, int, int]:
    """What a Xing, Info or VBRI frame says: audio frames, encoder delay, padding (samples).

    The first is None where the frame is none of these, but audio.
    """
    if frame[36:40] == b"VBRI":
        return struct.unpack(">I", frame[50:54])[0], 0, 0
    tag = frame[4 + side_bytes :]
    if tag[:4] not in (b"Xing", b"Info"):
        return None, 0, 0
    flags = struct.unpack(">I", tag[4:8])[0]
    frames = struct.unpack(">I", tag[8:12])[0] if flags & 1 else 0
    extra = 8 + 4 * (flags & 1) + 4 * (flags >> 1 & 1) + 100 * (flags >> 2 & 1)
    extra += 4 * (flags >> 3 & 1)
    gaps = tag[extra + 21 : extra + 24]
    if tag[extra : extra + 4] in (b"\0\0\0\0", b"") or len(gaps) < 3:
        return frames, 0, 0
    packed = int.from_bytes(gaps, "big")
    return frames, packed >> 12, packed & 0xFFF


def _find_frames(file: BinaryIO, begin: int) -> tuple[np.ndarray, np.ndarray]:
    """Offset and size (bytes) of every whole frame of the stream, whatever lies between them."""
    offsets, sizes = array("q"), array("q")  # lists would take four times the memory
    file_size = size_of(file)
    same = None
    base = begin
    while base + 4 <= file_size:
        data = read_at(file, base, _BLOCK_BYTES)
        offset = 0
        while offset + 4 <= len(data):
            key = data[offset + 1] << 8 | data[offset + 2]
            size = _SIZES[3][key]
            if same is None:
                same = key & _SAME
            if data[offset] == 0xFF and size and key & _SAME == same:
                if base + offset + size <= file_size:
                    offsets.append(base + offset)
                    sizes.append(size)
                offset += size
                continue
            found = _resync(data, offset + 1, same)
            # Frames that the block's end cuts are sought again in the next one.
            offset = found if found is not None else max(offset + 1, len(data) - 4096)
        if base + len(data) >= file_size:
            break
        base += offset
    return np.array(offsets, np.int64), np.array(sizes, np.int64)


def _resync(data: bytes, offset: int, same: int) -> int | None:
    """Offset of the next frames of the stream, behind bytes that are none."""
    while (offset := data.find(b"\xff", offset)) >= 0:
        key = int.from_bytes(data[offset + 1 : offset + 3], "big")
        if key & _SAME == same and is_chain(data, offset):
            return offset
        offset += 1
    return None
