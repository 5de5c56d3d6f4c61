"""Shards as the package `webdataset` reads them: a tar with files of the same key side by side.

    album/song.json                       facts, and the key
    album/song.log_mel.mixture.npy        an array

It takes the key to end at the first dot behind the last slash, and passes over what lies in a
folder like `__this__`. So these are escaped: `unescaped` gives the key.
"""

import io
import tarfile
from typing import BinaryIO

from ..arrays import ArrayForm, raw_bytes
from ..errors import FeatureSetError
from ..json_text import json_bytes
from ..samples import Sample
from .escaping import dotted, escaped
from .npz import npy_header


class WebdatasetWriter:
    """Writes samples into a tar.

    Parameters
    ----------
    file
        empty; it is left open
    """

    def __init__(self, file: BinaryIO) -> None:
        self._tar = tarfile.TarFile(fileobj=file, mode="w", format=tarfile.PAX_FORMAT)

    def write(self, sample: Sample) -> dict[str, int]:
        """Append a sample; gives where the values of each array begin, in bytes."""
        if len({name.lower() for name in sample.arrays}) < len(sample.arrays):
            raise FeatureSetError(
                f"{', '.join(sample.arrays)}: webdataset does not tell apart names that differ in "
                "case: rename one"
            )
        key = member_key(sample.key)
        self._add(f"{key}.json", b"", json_bytes({"key": sample.key} | sample.facts))
        return {
            name: self._add(
                f"{key}.{dotted(name)}.npy", npy_header(ArrayForm.of(array)), raw_bytes(array)
            )
            for name, array in sample.arrays.items()
        }

    def _add(self, name: str, header: bytes, content: bytes | memoryview) -> int:
        # Its other fields have defaults that do not depend on time or user.
        member = tarfile.TarInfo(name)
        member.size = len(header) + len(content)
        self._tar.addfile(member, io.BytesIO(header + content))
        filled = -(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
        return self._tar.offset - filled + len(header)

    def close(self) -> None:
        """Write what the file ends with."""
        self._tar.close()


def member_key(key: str) -> str:
    """What the names of a sample's files begin with, up to a dot."""
    folder, slash, name = key.rpartition("/")
    member = escaped(folder, "") + slash + escaped(name, ".")
    return f"%5F{member[1:]}" if member.startswith("__") else member
