"""Arrays of a recording in one `.npz`, as NumPy writes and loads it, and their metadata as JSON."""

import contextlib
import io
import os
import zipfile
from collections.abc import Iterable
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy

from ..arrays import DTYPES, ArrayEntry, ArrayForm, RecordingArrays, read_into
from ..errors import told
from ..json_text import json_bytes, json_object
from .stored_zip import StoredZip

METADATA = "metadata.json"
EXTENSION = ".npy"
MAGIC = b"PK"
ADVICE = "make it again, or copy it again"


def npy_header(form: ArrayForm) -> bytes:
    """What an `.npy` of an array begins with."""
    header = io.BytesIO()
    npy.write_array_header_1_0(
        header,
        {"descr": DTYPES[form.dtype].str, "fortran_order": False, "shape": form.shape},
    )
    return header.getvalue()


def write_npz(file: BinaryIO, entries: Iterable[ArrayEntry], metadata: dict[str, Any]) -> None:
    """Write arrays, a block of frames at a time: see `recording_file`."""
    with contextlib.closing(StoredZip(file)) as archive:
        text = json_bytes(metadata)
        archive.write(METADATA, [text], len(text))
        for entry in entries:
            header = npy_header(entry.form)
            archive.write(
                entry.name + EXTENSION,
                (piece for pieces in ([header], entry.pieces()) for piece in pieces),
                len(header) + entry.form.size_bytes,
            )


class NpzArrays(RecordingArrays):
    """The arrays in an `.npz`. Their checksums are compared as they are read.

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
        size_bytes = file.seek(0, os.SEEK_END)
        with told(name, ADVICE):
            self._zip = zipfile.ZipFile(file)
            members = {each.filename: each for each in self._zip.infolist()}
            _require_plain([*self._zip.infolist()], size_bytes)
            metadata = json_object(self._zip.read(members.pop(METADATA)))
            forms = {
                member.removesuffix(EXTENSION): self._form_of(info)
                for member, info in members.items()
            }
        super().__init__(name, metadata, forms)

    def _form_of(self, info: zipfile.ZipInfo) -> ArrayForm:
        with self._zip.open(info) as member:
            form = _read_header(member)
            if member.tell() + form.size_bytes != info.file_size:
                raise ValueError(f"{info.filename} is not as large as its shape")
        return form

    def read(self, name: str) -> np.ndarray:
        """See `RecordingArrays`."""
        form = self.forms[name]
        with told(self.name, ADVICE):
            array = form.empty()
            with self._zip.open(name + EXTENSION) as member:
                _read_header(member)
                read_into(member, array)
        return array


def _require_plain(members: list[zipfile.ZipInfo], size_bytes: int) -> None:
    if len({each.filename for each in members}) < len(members):
        raise ValueError("a name comes twice")
    if any(each.compress_type != zipfile.ZIP_STORED or each.flag_bits & 1 for each in members):
        raise ValueError("it is compressed or encrypted")
    if sum(each.file_size for each in members) > size_bytes:
        raise ValueError("its arrays are larger than the file")
    for each in members:
        if each.compress_size != each.file_size or not 0 <= each.header_offset < size_bytes:
            raise ValueError(f"{each.filename} lies beyond its end")


def _read_header(member: Any) -> ArrayForm:
    if npy.read_magic(member) != (1, 0):
        raise ValueError("an array is of a later format of NumPy's")
    shape, is_fortran, dtype = npy.read_array_header_1_0(member)
    if is_fortran or dtype not in DTYPES.values():
        raise ValueError(f"arrays are float32 or complex64 in C order, not {dtype}")
    return ArrayForm.parse(shape, dtype.name)
