"""Shards as the package `zarr` reads them: a zip of a store of version 3.

    zarr.json                                   the root
    album%2Fsong/zarr.json                      a group of each key, its facts as attributes
    album%2Fsong/log_mel.mixture/zarr.json      an array
    album%2Fsong/log_mel.mixture/c/0/0          its values, in one uncompressed chunk

Groups of groups would be in each other's way where a key is the beginning of another's. So slashes
are escaped: `unescaped` gives the key.
"""

from typing import Any, BinaryIO

from ..arrays import ArrayForm, raw_bytes
from ..json_text import json_bytes
from ..samples import Sample
from .escaping import dotted, escaped
from .stored_zip import StoredZip


class ZarrWriter:
    """Writes samples into a zip.

    Parameters
    ----------
    file
        empty, seekable; it is left open
    """

    def __init__(self, file: BinaryIO) -> None:
        self._zip = StoredZip(file)
        self._add("zarr.json", json_bytes(_group({})))

    def write(self, sample: Sample) -> dict[str, int]:
        """Append a sample; gives where the values of each array begin, in bytes."""
        group = group_name(sample.key)
        self._add(f"{group}/zarr.json", json_bytes(_group({"key": sample.key} | sample.facts)))
        offsets = {}
        for name, array in sample.arrays.items():
            path = f"{group}/{dotted(name)}"
            offsets[name] = self._add(f"{path}/zarr.json", json_bytes(_array(ArrayForm.of(array))))
            # An array of nothing has no chunk.
            if array.size:
                chunk = "/".join("0" * array.ndim)
                offsets[name] = self._add(f"{path}/c/{chunk}", raw_bytes(array))
        return offsets

    def _add(self, name: str, content: bytes | memoryview) -> int:
        return self._zip.write(name, [content], len(content))

    def close(self) -> None:
        """Write what the file ends with."""
        self._zip.close()


def group_name(key: str) -> str:
    """The name of a sample's group: one part, whatever the key is, and none that zarr reserves."""
    name = escaped(key, "/\\")
    return f"%5F{name[1:]}" if name.startswith("__") else name


def _group(attributes: dict[str, Any]) -> dict[str, Any]:
    return {"zarr_format": 3, "node_type": "group", "attributes": attributes}


def _array(form: ArrayForm) -> dict[str, Any]:
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": form.shape,
        "data_type": form.dtype,
        "chunk_grid": {
            "name": "regular",
            "configuration": {"chunk_shape": [max(1, length) for length in form.shape]},
        },
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0.0 if form.dtype == "float32" else [0.0, 0.0],
        "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
        "attributes": {},
    }
