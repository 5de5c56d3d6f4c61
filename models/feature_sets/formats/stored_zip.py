"""Zip files whose bytes follow from their content alone."""

import stat
import zipfile
from collections.abc import Iterable
from typing import BinaryIO

from ..errors import FeatureSetError

LONGEST_NAME_BYTES = 2**16 - 1


class StoredZip:
    """Writes a zip of uncompressed members, all dated 1980.

    Parameters
    ----------
    file
        empty, seekable; it is left open
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._zip = zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, strict_timestamps=True)

    def write(self, name: str, pieces: Iterable[bytes | memoryview], size_bytes: int) -> int:
        """Append a member.

        Parameters
        ----------
        pieces
            its content
        size_bytes
            of all of them

        Returns
        -------
        int
            the offset of its content in the file
        """
        if len(name.encode()) > LONGEST_NAME_BYTES:
            raise FeatureSetError(f"{name[:80]}…: is too long a name for a zip")
        member = zipfile.ZipInfo(name)  # dated 1980
        member.create_system = 3
        member.external_attr = (stat.S_IFREG | 0o644) << 16
        member.file_size = size_bytes
        with self._zip.open(member, "w") as opened:
            offset = self._file.tell()
            for piece in pieces:
                opened.write(piece)
        return offset

    def close(self) -> None:
        """Write the end of the zip."""
        self._zip.close()
