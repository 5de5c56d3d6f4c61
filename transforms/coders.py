"""Coders of the records: JSON for what is small, npy for arrays, never pickle."""

import io
import json
import struct
import typing
from typing import Any

import apache_beam as beam
import numpy as np

from ..models.evaluation.rows import TrackRecord
from ..models.feature_sets.index import ShardFile
from .plain import from_plain, to_plain
from .records import (
    Failure,
    FeatureFile,
    FolderLabels,
    PartReceipt,
    PartReference,
    PendingRecording,
    Receipt,
    Recording,
    Track,
    UploadedPlot,
)


class RecordCoder(beam.coders.Coder):
    """Small records as JSON."""

    def __init__(self, record_type: type) -> None:
        self.record_type = record_type

    @classmethod
    def from_type_hint(cls, type_hint: type, registry: Any) -> "RecordCoder":
        """How Beam's registry makes one for a type."""
        return cls(type_hint)

    def encode(self, value: Any) -> bytes:
        """JSON bytes of a record."""
        return json.dumps(to_plain(value), separators=(",", ":")).encode()

    def decode(self, encoded: bytes) -> Any:
        """The record of JSON bytes."""
        return from_plain(self.record_type, json.loads(encoded))

    def is_deterministic(self) -> bool:
        """Same record, same bytes."""
        return True

    def to_type_hint(self) -> type:
        """The type that it encodes."""
        return self.record_type

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.record_type is self.record_type

    def __hash__(self) -> int:
        return hash((type(self), self.record_type))


class TrackCoder(RecordCoder):
    """Tracks: a JSON header, then each array as npy."""

    def encode(self, value: Track) -> bytes:
        """Header length, header, arrays."""
        arrays = dict(_arrays_of(value))
        small = Track(value.reference)
        for name in _SMALL_FIELDS:
            setattr(small, name, getattr(value, name))
        # The clock is one of this process.
        small.work_before_s = value.work_s
        plain = to_plain(small)
        del plain["begun_s"]
        header = {"track": plain, "arrays": [list(key) for key in arrays]}
        output = io.BytesIO()
        _write_block(output, json.dumps(header).encode())
        _write_block(output, b"" if value.binary is None else b"b" + value.binary)
        for array in arrays.values():
            np.lib.format.write_array(output, array, allow_pickle=False)
        return output.getvalue()

    def decode(self, encoded: bytes) -> Track:
        """The track, with arrays of its own."""
        data = io.BytesIO(encoded)
        header = json.loads(_read_block(data))
        track = from_plain(Track, header["track"])
        binary = _read_block(data)
        track.binary = binary[1:] if binary else None
        for name, key in header["arrays"]:
            array = np.lib.format.read_array(data, allow_pickle=False)
            if key is None:
                setattr(track, name, array)
            else:
                getattr(track, name)[key] = array.tobytes() if name == "plots" else array
        return track

    def estimate_size(self, value: Track) -> int:
        """Bytes of the arrays: Beam asks for it often, and encoding them would cost far more."""
        return len(value.binary or b"") + sum(array.nbytes for _, array in _arrays_of(value))


_ARRAY_FIELDS = ("samples", "stft", "magnitude", "phase", "nearest", "net")
_SMALL_FIELDS = (
    *("n_fft", "hop_length", "statistics", "failure", "labels"),
    *("source_sha256", "files", "part_files"),
)
_ARRAY_DICT_FIELDS = ("masks", "stems", "powers")


def _arrays_of(track: Track) -> typing.Iterator[tuple[tuple[str, str | None], np.ndarray]]:
    for name in _ARRAY_FIELDS:
        if getattr(track, name) is not None:
            yield (name, None), getattr(track, name)
    for name in _ARRAY_DICT_FIELDS:
        for key, array in getattr(track, name).items():
            yield (name, key), array
    for key, png in track.plots.items():
        yield ("plots", key), np.frombuffer(png, np.uint8)


def _write_block(output: io.BytesIO, block: bytes) -> None:
    output.write(struct.pack("<Q", len(block)) + block)


def _read_block(data: io.BytesIO) -> bytes:
    (length,) = struct.unpack("<Q", data.read(8))
    return data.read(length)


for _record_type in (
    *(PendingRecording, Recording, PartReference, PartReceipt),
    *(Receipt, UploadedPlot, Failure, TrackRecord, FolderLabels, FeatureFile, ShardFile),
):
    beam.coders.registry.register_coder(_record_type, RecordCoder)
beam.coders.registry.register_coder(Track, TrackCoder)
