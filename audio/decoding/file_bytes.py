"""Bytes of files: at an offset, or as a window that decoders take for the whole file."""

import bisect
import io
import os
from collections.abc import Mapping
from typing import Any, BinaryIO, cast


def size_of(file: BinaryIO) -> int:
    """Bytes in a file; leaves it at its end."""
    return file.seek(0, os.SEEK_END)


def read_at(file: BinaryIO, offset: int, count: int) -> bytes:
    """Up to `count` bytes from `offset` on."""
    file.seek(offset)
    return file.read(count)


def window(file: BinaryIO, start: int, patches: Mapping[int, bytes] | None = None) -> BinaryIO:
    """The file from `start` on, the bytes at some of its offsets replaced, as a file of its own."""
    return cast(BinaryIO, _Window(file, start, patches or {}))


class _Window(io.RawIOBase):
    def __init__(self, file: BinaryIO, start: int, patches: Mapping[int, bytes]) -> None:
        self._file = file
        self._start = start
        self._patches = sorted(patches.items())
        self._longest_patch = max(map(len, patches.values()), default=0)
        self._size = size_of(file) - start
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)  # damaged headers lead to before the start
        return self._position

    def readinto(self, buffer: Any, /) -> int:
        if self._position >= self._size:
            return 0
        data = read_at(self._file, self._start + self._position, len(buffer))
        buffer[: len(data)] = data
        first = bisect.bisect(self._patches, (self._position - self._longest_patch, b""))
        stop = bisect.bisect(self._patches, (self._position + len(data), b""))
        for offset, patch in self._patches[first:stop]:
            at = offset - self._position
            begin, end = max(0, at), min(len(data), at + len(patch))
            if begin < end:
                buffer[begin:end] = patch[begin - at : end - at]
        self._position += len(data)
        return len(data)
