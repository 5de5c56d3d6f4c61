"""Arrays of a recording in one `.safetensors`, and their metadata as JSON in its header.

The library writes whole arrays only. The format: 8 bytes, the length of the header; the header,
JSON filled up with spaces; the values. https://github.com/huggingface/safetensors describes it.
"""

import itertools
import json
import os
import struct
from collections.abc import Sequence
from typing import Any, BinaryIO

import numpy as np

from ..arrays import DTYPES, ArrayEntry, ArrayForm, RecordingArrays, read_into
from ..errors import told
from ..json_text import json_bytes, json_object
from .npz import ADVICE, METADATA

CODES = {"float32": "F32", "complex64": "C64"}
NAMES = {code: dtype for dtype, code in CODES.items()}
ALIGNMENT = 8
LARGEST_HEADER_BYTES = 100_000_000
"""What the library takes."""


def write_safetensors(
    file: BinaryIO, entries: Sequence[ArrayEntry], metadata: dict[str, Any]
) -> None:
    """Write arrays, a block of frames at a time: see `recording_file`."""
    # PyTorch takes views of the file, which have to be aligned.
    ordered = sorted(entries, key=lambda each: -DTYPES[each.dtype].itemsize)
    ends = [0, *itertools.accumulate(each.form.size_bytes for each in ordered)]
    offsets = {
        each.name: span for each, span in zip(ordered, itertools.pairwise(ends), strict=True)
    }
    header: dict[str, Any] = {"__metadata__": {METADATA: json_bytes(metadata).decode()}}
    for entry in entries:
        header[entry.name] = {
            "dtype": CODES[entry.dtype],
            "shape": entry.shape,
            "data_offsets": offsets[entry.name],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    file.write(struct.pack("<Q", len(text)) + text)
    for entry in ordered:
        for piece in entry.pieces():
            file.write(piece)


class SafetensorsArrays(RecordingArrays):
    """The arrays in a `.safetensors`.

    Parameters
    ----------
    file
        open for random access while arrays are read
    name
        of the file in messages

    Raises
    ------
    FeatureSetError
        it is not whole, or no file of a recording's arrays
    """

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file = file
        size_bytes = file.seek(0, os.SEEK_END)
        file.seek(0)
        with told(name, ADVICE):
            (header_bytes,) = struct.unpack("<Q", file.read(8))
            if header_bytes > min(LARGEST_HEADER_BYTES, size_bytes - 8):
                raise ValueError("its header lies beyond its end")
            header = json_object(file.read(header_bytes))
            metadata = json_object(header.pop("__metadata__")[METADATA])
            forms = {
                array: ArrayForm.parse(each["shape"], NAMES.get(each["dtype"], each["dtype"]))
                for array, each in header.items()
            }
            spans = {array: tuple(each["data_offsets"]) for array, each in header.items()}
            _require_filled(forms, spans, size_bytes - 8 - header_bytes)
            self._offsets = {array: 8 + header_bytes + spans[array][0] for array in spans}
        super().__init__(name, metadata, forms)

    def read(self, name: str) -> np.ndarray:
        """See `RecordingArrays`."""
        form, offset = self.forms[name], self._offsets[name]
        with told(self.name, ADVICE):
            array = form.empty()
            self._file.seek(offset)
            read_into(self._file, array)
        return array


def _require_filled(
    forms: dict[str, ArrayForm], spans: dict[str, tuple[int, int]], size_bytes: int
) -> None:
    """Arrays fill the file: none overlaps another, and nothing lies between them."""
    end = 0
    for array, (start, stop) in sorted(spans.items(), key=lambda item: item[1]):
        if start != end or stop - start != forms[array].size_bytes:
            raise ValueError(f"{array} is not where the one before it ends, or not of its size")
        end = stop
    if end != size_bytes:
        raise ValueError(f"its arrays have {end} bytes, and there are {size_bytes}")
