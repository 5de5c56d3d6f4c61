"""What all kinds of files share: their paths, description, checksum and errors."""

import base64
import re
from dataclasses import dataclass
from typing import Any

import google_crc32c

from ..errors import BeamsplitterError

GCS_SCHEME = "gs://"
SCRATCH_DAYS = 14
"""Age at which scratch files are nobody's: Dataflow ends batch jobs after 10 days."""
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
HOW_TO_SIGN_IN = (
    "run `gcloud auth application-default login`, or name a key file in "
    "GOOGLE_APPLICATION_CREDENTIALS"
)


def scheme_of(path: str) -> str:
    """The scheme that a path begins with, such as `gs://`; empty for files on this machine."""
    found = _SCHEME.match(path)
    return found[0] if found else ""


class _FileError(BeamsplitterError, OSError):
    def __str__(self) -> str:
        return f"{self.filename}: {self.strerror}"


class StorageError(_FileError):
    """A file that can't be read or written; the message names it and says what to do."""


class UnusableStorageError(_FileError):
    """Storage that can't be used now, which is no recording's fault, and never a dead letter.

    It is away, after all tries, or full, or closed to this account.
    """


@dataclass(frozen=True)
class Access:
    """How buckets are used: the project that pays for requests, and the key of what is written.

    Without them the bucket's owner pays, and the bucket's own default key is taken.
    """

    user_project: str | None = None
    kms_key: str | None = None


@dataclass(frozen=True)
class FileStat:
    """Size of a file in bytes, and a text that changes whenever its content does."""

    size_bytes: int
    generation: str


def crc32c_of(file: Any) -> str:
    """CRC32C of a file's content from its beginning, as Google Cloud Storage writes it."""
    file.seek(0)
    checksum = google_crc32c.Checksum()
    while block := file.read(1 << 20):
        checksum.update(block)
    return base64.b64encode(checksum.digest()).decode()
