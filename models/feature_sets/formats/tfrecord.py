"""Shards as TensorFlow reads them: TFRecord files of `tf.train.Example`.

Features of a sample: `key`, `facts` (JSON); of each array `log_mel/mixture`, the bytes of its
values, little endian, in C order, `log_mel/mixture/shape` and `log_mel/mixture/dtype`.

Encoded here, not by the library protobuf, since the index tells where the values lie.
"""

import itertools
import struct
from collections.abc import Sequence
from typing import BinaryIO

import google_crc32c

from ..arrays import raw_bytes
from ..errors import FeatureSetError
from ..json_text import json_bytes
from ..samples import Sample
from .escaping import in_utf8

LARGEST_MESSAGE_BYTES = 2**31 - 1
"""What protobuf reads."""
BYTES_LIST, INT64_LIST = 1, 3
Pieces = list[bytes | memoryview]


class TfrecordWriter:
    """Writes samples as records.

    Parameters
    ----------
    file
        empty; it is left open
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._offset = 0

    def write(self, sample: Sample) -> dict[str, int]:
        """Append a sample; gives where the values of each array begin, in bytes."""
        features = [
            _feature("key", BYTES_LIST, _field(1, [in_utf8(sample.key).encode()])),
            _feature("facts", BYTES_LIST, _field(1, [json_bytes(sample.facts)])),
        ]
        for name, array in sample.arrays.items():
            shape = b"".join(map(_varint, array.shape))
            features += [
                _feature(f"{name}/dtype", BYTES_LIST, _field(1, [array.dtype.name.encode()])),
                _feature(f"{name}/shape", INT64_LIST, _field(1, [shape])),
                _feature(name, BYTES_LIST, _field(1, [raw_bytes(array)])),
            ]
        message = _field(1, [*itertools.chain(*features)])
        size_bytes = _length(message)
        if size_bytes > LARGEST_MESSAGE_BYTES:
            raise FeatureSetError(
                f"{sample.key}: has {size_bytes} bytes, and TensorFlow reads 2 GiB at most: take "
                "shorter excerpts or another format"
            )
        length = struct.pack("<Q", size_bytes)
        record = [length, _masked_crc([length]), *message, _masked_crc(message)]
        starts = [*itertools.accumulate(map(len, record), initial=self._offset)]
        for piece in record:
            self._file.write(piece)
        self._offset = starts[-1]
        values = (
            start
            for start, piece in zip(starts, record, strict=False)
            if isinstance(piece, memoryview)
        )
        return dict(zip(sample.arrays, values, strict=True))

    def close(self) -> None:
        """There is nothing that a file ends with."""


def _feature(name: str, kind: int, values: Pieces) -> Pieces:
    """An entry of the map of features."""
    return _field(1, [*_field(1, [name.encode()]), *_field(2, _field(kind, values))])


def _field(number: int, pieces: Pieces) -> Pieces:
    """A field that has a length."""
    return [_varint(number << 3 | 2) + _varint(_length(pieces)), *pieces]


def _length(pieces: Sequence[bytes | memoryview]) -> int:
    return sum(map(len, pieces))


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 127:
        encoded.append(number & 127 | 128)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def _masked_crc(pieces: Sequence[bytes | memoryview]) -> bytes:
    checksum = google_crc32c.Checksum()
    for piece in pieces:
        checksum.update(bytes(piece))
    crc = int.from_bytes(checksum.digest(), "big")
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)
