"""Files on any other file system that Beam knows, such as `s3://`, `hdfs://` and `azfs://`.

Beam's own way to them has neither preconditions nor generations, so two runs that write to the
same folder are not kept apart, and a whole listing is held in memory. Whether a file appears at
once is up to the file system: on object stores it does.
"""

import contextlib
import errno
import functools
import os
import shutil
from collections.abc import Iterator
from typing import Any

from apache_beam.io.filesystem import BeamIOError, CompressionTypes, FileMetadata, FileSystem
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions

from .file_facts import FileStat, StorageError, UnusableStorageError, crc32c_of
from .remote_files import RemoteFiles

AS_THEY_ARE = CompressionTypes.UNCOMPRESSED


@contextlib.contextmanager
def explained(path: str) -> Iterator[None]:
    """Turn the errors of Beam and of a file system's client into ones that name the file."""
    try:
        yield
    except (StorageError, UnusableStorageError):
        raise
    # What is installed for a file system may raise anything.
    except Exception as error:
        raise _unusable(path, error) from error


def _unusable(path: str, error: Exception) -> UnusableStorageError:
    return UnusableStorageError(None, f"can't be used: {error}", path)


@functools.cache
def _set_default_options() -> None:
    """Some clients refuse without any. Where a graph runs, Beam sets those of the job."""
    if FileSystems._pipeline_options is None:
        FileSystems.set_options(PipelineOptions([]))


def _filesystem(path: str) -> FileSystem:
    _set_default_options()
    try:
        return FileSystems.get_filesystem(path)
    except ValueError as error:
        scheme = path.partition("://")[0]
        advice = (
            f"there is no file system for {scheme}:// here: install what Beam needs for it, as "
            "apache-beam[aws] for s3://, apache-beam[azure] for azfs://, and hdfs for hdfs://"
        )
        raise StorageError(errno.EINVAL, advice, path) from error


class BeamFiles(RemoteFiles):
    """Files whose paths begin with a scheme that is not Google's."""

    def stat(self, path: str) -> FileStat:
        """Size of a file, and a generation that changes with its size and time."""
        found = self._metadata(path)
        return FileStat(
            found.size_in_bytes, f"{found.size_in_bytes}-{found.last_updated_in_seconds}"
        )

    def _metadata(self, path: str) -> FileMetadata:
        filesystem = _filesystem(path)
        with explained(path):
            if not filesystem.exists(path):
                raise StorageError(errno.ENOENT, "is not there (any more)", path)
            return filesystem.metadata(path)

    def has(
        self, path: str, *, size_bytes: int, crc32c: str, written_ns: int | None = None
    ) -> bool:
        """Whether a file is there and has this content; one that is newer than that is read."""
        try:
            found = self._metadata(path)
            if found.size_in_bytes != size_bytes:
                return False
            if written_ns is not None and _written_ns(found) <= written_ns:
                return True
            with self.reading(path) as file:
                return crc32c_of(file) == crc32c
        except StorageError:
            return False

    def written_ns(self, path: str) -> int | None:
        """When a file was written last, in nanoseconds; None if it is not there."""
        try:
            return _written_ns(self._metadata(path))
        except StorageError:
            return None

    @contextlib.contextmanager
    def reading(self, path: str) -> Iterator[Any]:
        """Open a file for random access."""
        self._metadata(path)
        with explained(path):
            file = FileSystems.open(path, compression_type=AS_THEY_ARE)
        with file:
            try:
                yield file
            # Others, such as those of a decoder, are not the storage's.
            except BeamIOError as error:
                raise _unusable(path, error) from error

    def read(self, path: str) -> bytes:
        """The whole content of a file."""
        with self.reading(path) as file, explained(path):
            return bytes(file.read())

    def put(self, path: str, file: Any) -> None:
        """Copy the content of a local file there."""
        filesystem = _filesystem(path)
        file.seek(0)
        with explained(path):
            folder = os.path.dirname(path)
            if filesystem.has_dirs() and not filesystem.exists(folder):
                with contextlib.suppress(BeamIOError, OSError):  # another worker was quicker
                    filesystem.mkdirs(folder)
            with FileSystems.create(path, compression_type=AS_THEY_ARE) as there:
                shutil.copyfileobj(file, there, 1 << 20)

    def remove(self, path: str, _root: str) -> None:
        """Remove a file. No error if it is not there."""
        with explained(path):
            if _filesystem(path).exists(path):
                FileSystems.delete([path])

    def list_names(
        self, folder: str, *, beginning: str = "", without: str | None = None
    ) -> Iterator[str]:
        """Names of the files below a folder, all of them held in memory."""
        _filesystem(folder)
        with explained(folder):
            (found,) = FileSystems.match([f"{folder}/**"])
        prefix = f"{folder}/"
        for name in sorted(each.path.removeprefix(prefix) for each in found.metadata_list):
            if name.startswith(beginning) and not (without and name.startswith(f"{without}/")):
                yield name

    def list_older(self, folder: str, before_s: float) -> Iterator[str]:
        """Names of the files below a folder that were not written after a time."""
        _filesystem(folder)
        with explained(folder):
            (found,) = FileSystems.match([f"{folder}/**"])
        for each in found.metadata_list:
            if 0 < each.last_updated_in_seconds < before_s:
                yield each.path.removeprefix(f"{folder}/")

    def names_alike(self, path: str) -> frozenset[str]:
        """Names of the files beside this one that have its name but for the extension."""
        stem = os.path.splitext(path)[0]
        with explained(path):
            (found,) = FileSystems.match([f"{stem}.*"])
        return frozenset(
            os.path.basename(each.path)
            for each in found.metadata_list
            if os.path.splitext(each.path)[0] == stem
        )


def _written_ns(found: FileMetadata) -> int:
    return round(found.last_updated_in_seconds * 1e9)
