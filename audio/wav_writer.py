"""Writes wav files, RF64 from 4 GiB on, sample-exact and the same bytes for the same samples.

libsndfile puts the time of day into float files and decides on RF64 before it knows the length.
"""

import os
import struct
from typing import BinaryIO

import numpy as np


class WavWriter:
    """Writes one wav; `bits` 16, 24 or 32, or 32-bit floats."""

    _HEADER_BYTES = 12 + 8 + 28 + 8 + 40 + 8 + 4 + 8

    def __init__(
        self, file: BinaryIO, *, sample_rate: int, channels: int, bits: int, is_float: bool
    ) -> None:
        self._file = file
        self._rate = sample_rate
        self._channels = channels
        self._bits = bits
        self._is_float = is_float
        self._bytes = 0
        self._file.write(self._header())

    def write(self, block: np.ndarray) -> None:
        """Appends floats or integers, shape (frames, channels)."""
        if self._is_float:
            data = block.astype("<f4").tobytes()
        elif self._bits == 24:
            data = block.astype("<i4").view(np.uint8).reshape(-1, 4)[:, :3].tobytes()
        else:
            data = block.astype(f"<i{self._bits // 8}").tobytes()
        self._file.write(data)
        self._bytes += len(data)

    def close(self) -> None:
        """Writes the sizes into the header; the file stays open."""
        if self._bytes % 2:
            self._file.write(b"\0")
        self._file.seek(0)
        self._file.write(self._header())
        self._file.seek(0, os.SEEK_END)

    def _header(self) -> bytes:
        align = self._channels * self._bits // 8
        body = self._HEADER_BYTES - 8 + self._bytes + self._bytes % 2
        long = body > 0xFFFFFFFF
        sizes = struct.pack("<QQQI", body, self._bytes, self._bytes // align, 0)
        # Room for the long sizes is kept in every file, since they are known only at the end.
        reserved = sizes if long else bytes(28)
        return b"".join(
            (
                struct.pack("<4sI4s", *_either(long, b"RF64", b"RIFF", body), b"WAVE"),
                struct.pack("<4sI", b"ds64" if long else b"JUNK", 28) + reserved,
                struct.pack("<4sI", b"fmt ", 40) + self._fmt(align),
                struct.pack("<4sII", b"fact", 4, min(self._bytes // align, 0xFFFFFFFF)),
                struct.pack("<4sI", *_either(long, b"data", b"data", self._bytes)),
            )
        )

    def _fmt(self, align: int) -> bytes:
        codec = struct.pack("<H", 3 if self._is_float else 1)
        codec += b"\0\0\0\0\x10\0\x80\0\0\xaa\0\x38\x9b\x71"
        speakers = {1: 0x4, 2: 0x3, 3: 0x7, 4: 0x33, 5: 0x37, 6: 0x3F, 7: 0x70F, 8: 0x63F}
        return (
            struct.pack(
                "<HHIIHHHHI",
                0xFFFE,
                self._channels,
                self._rate,
                self._rate * align,
                align,
                self._bits,
                22,
                self._bits,
                speakers.get(self._channels, 0),
            )
            + codec
        )


def _either(long: bool, name_if: bytes, name_else: bytes, size: int) -> tuple[bytes, int]:
    return (name_if, 0xFFFFFFFF) if long else (name_else, size)
