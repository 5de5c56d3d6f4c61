"""Files in Google Cloud Storage: objects with names `gs://bucket/name`.

An object appears whole or not at all, when its upload is done. All requests are repeated with
back-off while the service is away; uploads state the generation that they replace, so that a
repeated one can't undo what another run wrote in between.
"""

import contextlib
import datetime
import errno
import functools
import io
import os
from collections.abc import Iterator
from typing import Any

import google.auth.exceptions
import requests
from google.api_core import exceptions as api_exceptions
from google.cloud import storage
from google.cloud.storage.retry import DEFAULT_RETRY

from .file_facts import (
    GCS_SCHEME,
    HOW_TO_SIGN_IN,
    Access,
    FileStat,
    StorageError,
    UnusableStorageError,
    crc32c_of,
)
from .remote_files import RemoteFiles

READ_CHUNK_BYTES = 4 << 20
CONTENT_TYPES = {
    ".css": "text/css",
    ".flac": "audio/flac",
    ".html": "text/html",
    ".js": "text/javascript",
    ".json": "application/json",
    ".jsonl": "application/jsonl",
    ".m4a": "audio/mp4",
    ".mp3": "audio/mpeg",
    ".ogg": "audio/ogg",
    ".opus": "audio/ogg",
    ".png": "image/png",
    ".txt": "text/plain",
    ".wav": "audio/wav",
}


def _may_be_repeated(error: Exception) -> bool:
    """The client's own judgement, and a count of what it has repeated."""
    repeated = bool(DEFAULT_RETRY._predicate(error))
    if repeated:
        # Slow to import, and most processes need not repeat anything.
        from apache_beam.metrics import Metrics

        Metrics.counter("Storage", "retries").inc()
    return repeated


RETRY = DEFAULT_RETRY.with_predicate(_may_be_repeated)


@functools.cache
def client() -> storage.Client:
    """The client of this process; anonymous where STORAGE_EMULATOR_HOST names another server."""
    if os.environ.get("STORAGE_EMULATOR_HOST"):
        return storage.Client.create_anonymous_client()
    return storage.Client()


# Processes that share a connection get each other's answers.
os.register_at_fork(after_in_child=client.cache_clear)


def split(path: str) -> tuple[str, str]:
    """Bucket and object name of `gs://bucket/name`."""
    bucket, _, name = path.removeprefix(GCS_SCHEME).partition("/")
    if not bucket:
        raise StorageError(errno.EINVAL, "names no bucket: write gs://BUCKET/FOLDER", path)
    return bucket, name


@contextlib.contextmanager
def explained(path: str, *, service: str = "Google Cloud Storage") -> Iterator[None]:
    """Turn the errors of a client of Google's into ones that name the object and say what to do."""
    try:
        yield
    except google.auth.exceptions.TransportError as error:
        raise UnusableStorageError(None, f"can't be reached: {error}", path) from error
    except google.auth.exceptions.GoogleAuthError as error:
        advice = f"no credentials for {service}: {HOW_TO_SIGN_IN}"
        raise UnusableStorageError(errno.EACCES, advice, path) from error
    except api_exceptions.NotFound as error:
        raise StorageError(errno.ENOENT, "is not there (any more)", path) from error
    except (api_exceptions.Forbidden, api_exceptions.Unauthorized) as error:
        advice = f"may not be accessed: check the roles of this account ({error.message})"
        raise StorageError(errno.EACCES, advice, path) from error
    except (
        api_exceptions.RetryError,
        api_exceptions.ServerError,
        api_exceptions.TooManyRequests,
        requests.RequestException,
        ConnectionError,
    ) as error:
        raise UnusableStorageError(
            None, f"can't be reached, after many tries: {error}", path
        ) from error
    except api_exceptions.GoogleAPICallError as error:
        raise StorageError(None, f"was refused by the service: {error.message}", path) from error


class _ObjectReader(io.RawIOBase):
    """One generation of an object, read by ranges. (`Blob.open` does not keep to the generation.)

    Parameters
    ----------
    found
        the object with its metadata
    """

    def __init__(self, found: storage.Blob) -> None:
        self.blob = found.bucket.blob(found.name, generation=found.generation)
        self.size_bytes = found.size
        self.position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self.position, os.SEEK_END: self.size_bytes}[whence]
        self.position = max(0, base + offset)
        return self.position

    def readinto(self, buffer: Any) -> int:
        count = min(len(buffer), self.size_bytes - self.position)
        if count <= 0:
            return 0
        stop = self.position + count
        data = self.blob.download_as_bytes(
            start=self.position, end=stop - 1, checksum=None, retry=RETRY
        )
        if len(data) != count:
            raise ConnectionError(f"got {len(data)} of {count} bytes")
        buffer[:count] = data
        self.position = stop
        return count


def content_type_of(name: str) -> str:
    """What browsers and players are told that an object is, by its extension."""
    extension = os.path.splitext(name)[1].lower()
    return CONTENT_TYPES.get(extension, "application/octet-stream")


class GcsFiles(RemoteFiles):
    """Files whose paths begin with `gs://`.

    Parameters
    ----------
    access
        how their buckets are used
    """

    def __init__(self, access: Access) -> None:
        self.access = access

    def stat(self, path: str) -> FileStat:
        """Size and generation of an object."""
        blob = self._found(path)
        return FileStat(blob.size, str(blob.generation))

    def written_ns(self, _path: str) -> int | None:
        """None: objects have checksums."""
        return None

    def has(
        self, path: str, *, size_bytes: int, crc32c: str, written_ns: int | None = None
    ) -> bool:
        """Whether an object is there and has this content."""
        try:
            blob = self._found(path)
        except StorageError:
            return False
        return bool(blob.size == size_bytes and blob.crc32c == crc32c)

    @contextlib.contextmanager
    def reading(self, path: str) -> Iterator[Any]:
        """Open an object for random access; it is read in chunks as they are needed."""
        found = self._found(path)
        with (
            explained(path),
            io.BufferedReader(_ObjectReader(found), READ_CHUNK_BYTES) as file,
        ):
            yield file

    def read(self, path: str) -> bytes:
        """The whole content of an object, its checksum compared."""
        with explained(path):
            return self._blob(path).download_as_bytes(checksum="crc32c", retry=RETRY)

    def put(self, path: str, file: Any) -> None:
        """Upload the content of a local file."""
        with explained(path):
            self._upload(path, file)

    def _upload(self, path: str, file: Any) -> None:
        size_bytes = file.seek(0, os.SEEK_END)
        bucket, name = split(path)
        blob = self._bucket(bucket).blob(name, kms_key_name=self.access.kms_key)
        replaced = blob.bucket.get_blob(blob.name, retry=RETRY)
        try:
            blob.upload_from_file(
                file,
                rewind=True,
                size=size_bytes,
                content_type=content_type_of(name),
                if_generation_match=replaced.generation if replaced else 0,
                retry=RETRY,
            )
        except api_exceptions.PreconditionFailed as error:
            # A repeated upload meets its own first try; the same job twice writes the same.
            if not self.has(path, size_bytes=size_bytes, crc32c=crc32c_of(file)):
                raise StorageError(
                    errno.EBUSY,
                    "was written by another run in the meantime: let one run at a time write here",
                    path,
                ) from error

    def remove(self, path: str, _root: str) -> None:
        """Remove an object. No error if it is not there."""
        with explained(path), contextlib.suppress(api_exceptions.NotFound):
            self._blob(path).delete(retry=RETRY)

    def set_content_type(self, path: str, content_type: str) -> None:
        """Have browsers and players told that an object is something else than by its extension."""
        with explained(path):
            blob = self._blob(path)
            blob.content_type = content_type
            blob.patch(retry=RETRY)

    def list_names(
        self, folder: str, *, beginning: str = "", without: str | None = None
    ) -> Iterator[str]:
        """Names of the objects below a folder, page by page; those left out are not asked for."""
        bucket, prefix = split(folder)
        prefix = prefix.rstrip("/") + "/" if prefix.strip("/") else ""
        ranges: list[dict[str, str]] = [{}]
        if without is not None:
            # The character after the slash is the zero.
            ranges = [
                {"end_offset": f"{prefix}{without}/"},
                {"start_offset": f"{prefix}{without}0"},
            ]
        with explained(folder):
            for offsets in ranges:
                for name in self._listed_names(bucket, prefix + beginning, **offsets):
                    yield name.removeprefix(prefix)

    def list_older(self, folder: str, before_s: float) -> Iterator[str]:
        """Names of the objects below a folder that were not written after a time."""
        bucket, prefix = split(f"{folder}/")
        before = datetime.datetime.fromtimestamp(before_s, datetime.UTC)
        with explained(folder):
            for item in self._listed(bucket, prefix, "items(name,updated),nextPageToken"):
                if datetime.datetime.fromisoformat(item["updated"]) < before:
                    yield item["name"].removeprefix(prefix)

    def names_alike(self, path: str) -> frozenset[str]:
        """Names of the objects beside this one that have its name but for the extension."""
        bucket, name = split(path)
        stem = os.path.splitext(name)[0]
        with explained(path):
            return frozenset(
                os.path.basename(name)
                for name in self._listed_names(bucket, f"{stem}.", delimiter="/")
                if os.path.splitext(name)[0] == stem
            )

    def _bucket(self, name: str) -> storage.Bucket:
        return client().bucket(name, user_project=self.access.user_project)

    def _blob(self, path: str) -> storage.Blob:
        bucket, name = split(path)
        return self._bucket(bucket).blob(name)

    def _found(self, path: str) -> storage.Blob:
        """An object with its metadata."""
        with explained(path):
            blob = self._blob(path)
            blob.reload(retry=RETRY)
            return blob

    def _listed_names(self, bucket: str, prefix: str, **options: str) -> Iterator[str]:
        for item in self._listed(bucket, prefix, "items(name),nextPageToken", **options):
            yield item["name"]

    def _listed(
        self, bucket: str, prefix: str, fields: str, **options: str
    ) -> Iterator[dict[str, Any]]:
        found = self._bucket(bucket)
        blobs = client().list_blobs(found, prefix=prefix, fields=fields, retry=RETRY, **options)
        for page in blobs.pages:
            yield from page.raw_page.get("items", ())
