"""Headers of wav and aiff files: wrong ones put right, and whether the file holds what they say."""

import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from ..errors import EmptyAudioError
from .decoder import truncated
from .file_bytes import read_at, size_of, window


def repaired_wav(file: BinaryIO, name: str) -> BinaryIO:
    """The file with a header that libsndfile takes as meant; an error if it holds too little."""
    form = read_at(file, 0, 4)
    order = ">" if form == b"RIFX" else "<"
    patches = {0: b"RF64"} if form == b"BW64" else {}
    sizes = _Sizes(0, 0, None)
    long_size = None
    for chunk, claimed, body in _chunks(file, order, 12):
        if chunk == b"ds64":
            long_size = struct.unpack("<Q", read_at(file, body + 8, 8))[0]
        elif chunk == b"fmt ":
            sizes = _wav_sizes(read_at(file, body, 26), order)
            if sizes.repair:
                patches[body + 8] = sizes.repair
        elif chunk == b"data":
            if claimed == 0xFFFFFFFF and long_size is not None:
                claimed = long_size
            held = size_of(file) - body
            if _is_unknown_size(claimed) and not (claimed == 0 and _is_chunks(file, order, body)):
                if claimed == 0:
                    patches[body - 4] = b"\xff" * 4
            elif claimed - held >= max(1, sizes.frame):
                second = max(1, sizes.second)
                raise truncated(name, held_s=held / second, promised_s=claimed / second)
            break
    else:
        if sizes.frame:
            raise EmptyAudioError(f"{name}: a wav file without a data chunk; copy it again")
    return window(file, 0, patches) if patches else file


class _Sizes(NamedTuple):
    frame: int  # bytes
    second: int
    repair: bytes | None  # the byte rate and alignment, if those of the header are wrong


def _wav_sizes(fmt: bytes, order: str) -> _Sizes:
    if len(fmt) < 16:
        return _Sizes(0, 0, None)
    tag, channels, rate, byte_rate, align, bits = struct.unpack(order + "HHIIHH", fmt[:16])
    if tag == 0xFFFE and len(fmt) >= 26:
        tag = struct.unpack(order + "H", fmt[24:26])[0]
    if tag not in (1, 3):
        return _Sizes(align, byte_rate, None)
    frame = channels * ((bits + 7) // 8)
    second = rate * frame
    is_right = (byte_rate, align) == (second, frame)
    return _Sizes(frame, second, None if is_right else struct.pack(order + "IH", second, frame))


def _is_unknown_size(claimed: int) -> bool:
    """Whether programs that can't seek back (ffmpeg, sox, arecord) write such a size."""
    return (
        claimed == 0
        or 0x7FFF0000 <= claimed <= 0x80000100
        or 0xFFFF0000 <= claimed <= 0xFFFFFFFF
        or claimed >= 1 << 62
    )


def _is_chunks(file: BinaryIO, order: str, offset: int) -> bool:
    """Whether the rest of a RIFF file is chunks to its very end."""
    size = size_of(file)
    for chunk, claimed, body in _chunks(file, order, offset):
        if not (chunk.isascii() and chunk.decode().isprintable()):
            return False
        offset = body + claimed + claimed % 2
    return offset in (size, size + 1)


def _chunks(file: BinaryIO, order: str, offset: int) -> Iterator[tuple[bytes, int, int]]:
    """Kind, claimed size and offset of the content of each chunk."""
    while len(header := read_at(file, offset, 8)) == 8:
        kind, claimed = struct.unpack(order + "4sI", header)
        yield kind, claimed, offset + 8
        offset += 8 + claimed + claimed % 2


def check_aiff(file: BinaryIO, name: str) -> None:
    """Refuses an aiff that holds less than its header says."""
    is_pcm = read_at(file, 8, 4) == b"AIFF"
    promised_s, frame_bytes = 0.0, 1
    for chunk, claimed, body in _chunks(file, ">", 12):
        if chunk == b"COMM":
            channels, frames, bits, exponent, mantissa = struct.unpack(
                ">hIhHQ", read_at(file, body, 18).ljust(18, b"\0")
            )
            rate = mantissa * 2.0 ** ((exponent & 0x7FFF) - 16383 - 63)
            promised_s = frames / max(1.0, rate)
            frame_bytes = max(1, channels * ((bits + 7) // 8)) if is_pcm else 1
        elif chunk == b"SSND":
            promised, held = claimed - 8, size_of(file) - body - 8
            if claimed < 0x7F000000 and promised - held >= frame_bytes:
                raise truncated(name, held_s=promised_s * held / promised, promised_s=promised_s)
