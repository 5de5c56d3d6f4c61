"""Compressed files, written and read as a stream of blocks.

The openers of `gzip`, `bz2`, `lzma` and `zstandard` would not do: that of zstandard takes a file
that is cut off for one that ends there, those of bz2 and lzma leave out what follows a compressed
file and is damaged, and deflate has none. Elements would be missing, and nobody be told.
"""

import bz2
import functools
import lzma
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import zstandard

from ..job.event_config import Compression

BLOCK_BYTES = 1 << 16
GZIP_BITS = zlib.MAX_WBITS | 16
EXTENSIONS = {
    ".bz2": "bzip2",
    ".deflate": "deflate",
    ".gz": "gzip",
    ".lzma": "lzma",
    ".xz": "lzma",
    ".zst": "zstd",
    ".zstd": "zstd",
}
COMPRESSORS: dict[str, Callable[[], Any]] = {
    "bzip2": bz2.BZ2Compressor,
    "deflate": zlib.compressobj,
    "gzip": functools.partial(zlib.compressobj, wbits=GZIP_BITS),
    "lzma": lzma.LZMACompressor,
    "zstd": lambda: zstandard.ZstdCompressor().compressobj(),
}
DECOMPRESSORS: dict[str, Callable[[], Any]] = {
    "bzip2": bz2.BZ2Decompressor,
    "deflate": zlib.decompressobj,
    "gzip": functools.partial(zlib.decompressobj, wbits=GZIP_BITS),
    "lzma": lzma.LZMADecompressor,
    "zstd": lambda: zstandard.ZstdDecompressor().decompressobj(),
}
ERRORS = (EOFError, OSError, ValueError, lzma.LZMAError, zlib.error, zstandard.ZstdError)


class DamagedFileError(ValueError):
    """A compressed file that is cut off or damaged, or compressed in another way."""


def kind_of(path: str, declared: Compression) -> str:
    """The compression of a file: as declared, or else by its extension."""
    if declared != "auto":
        return declared
    return EXTENSIONS.get(os.path.splitext(path)[1].lower(), "uncompressed")


def compressed(blocks: Iterable[bytes], kind: str) -> Iterator[bytes]:
    """The blocks of the compressed file; same blocks, same bytes."""
    if kind == "uncompressed":
        yield from blocks
        return
    compressor = COMPRESSORS[kind]()
    for block in blocks:
        yield compressor.compress(block)
    yield compressor.flush()


def decompressed(file: Any, kind: str) -> Iterator[bytes]:
    """The blocks of a file's content. Compressed files in a row are one.

    Raises
    ------
    DamagedFileError
        the file is cut off or damaged, or compressed in another way
    """
    blocks = iter(lambda: file.read(BLOCK_BYTES), b"")
    if kind == "uncompressed":
        yield from blocks
        return
    decompressor = None
    for block in blocks:
        while block:
            if decompressor is None or decompressor.eof:
                decompressor = DECOMPRESSORS[kind]()
            try:
                content = decompressor.decompress(block)
            except ERRORS as error:
                raise DamagedFileError(f"is damaged, or is not compressed by {kind}") from error
            yield content
            block = decompressor.unused_data
    if decompressor is not None and not decompressor.eof:
        raise DamagedFileError("is cut off")
