"""The cache of model files: fetched once for all processes, resumed, checked, and there as a whole.

Environment: BEAMSPLITTER_MODEL_CACHE is its folder; BEAMSPLITTER_MODEL_MIRROR a folder, anywhere,
that is asked before the published addresses and holds `demucs/htdemucs/FILE` for `demucs:htdemucs`;
BEAMSPLITTER_OFFLINE=1 leaves only the cache and the mirror.
"""

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tenacity
from filelock import FileLock
from pydantic import BaseModel, ValidationError

from ..storage import scheme_of, source_files_of
from ..storage.files import HTTP_SCHEMES
from ..storage.http_files import UnreachableError
from ..storage.protocol import SourceStat
from .documents import write_whole
from .model_registry import ModelEntry, ModelFile
from .separators.base import ModelError

CACHE_VARIABLE = "BEAMSPLITTER_MODEL_CACHE"
MIRROR_VARIABLE = "BEAMSPLITTER_MODEL_MIRROR"
OFFLINE_VARIABLE = "BEAMSPLITTER_OFFLINE"
TRIES = 8
# Where nobody ever answered, there is no network, or the address is wrong.
UNREACHABLE_TRIES = 2
FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 20.0
# As much as a broken connection may lose.
CHUNK_BYTES = 1 << 16
RECORD = "checked.json"
LATEST = "latest"
# No name of an entry begins like this.
ADDRESSES = "_addresses"

Progress = Callable[[str, int, int | None], None]
"""Called with the name of a file, its bytes so far, and all of them where that is known."""


@dataclass(frozen=True)
class CheckedFile:
    """What the check of a cached file came to.

    Parameters
    ----------
    state
        "changed" if it no longer has the digest of the registry, or that of its download
    """

    model: str
    path: Path
    state: Literal["ok", "changed", "missing"]


class ModelCache:
    """The cache, as the environment describes it now.

    Parameters
    ----------
    on_progress
        is told of downloads

    Attributes
    ----------
    folder
        where the files lie
    """

    def __init__(self, on_progress: Progress | None = None) -> None:
        self.folder = _cache_folder()
        self.mirror = os.environ.get(MIRROR_VARIABLE, "").rstrip("/")
        self.offline = os.environ.get(OFFLINE_VARIABLE, "").lower() not in ("", "0", "false", "no")
        self._on_progress = on_progress or (lambda _name, _done_bytes, _total_bytes: None)

    def folder_of(self, entry: ModelEntry) -> Path:
        """The folder of an entry's files, there or not; other digests make another folder."""
        identity = _digest([[file.name, file.sha256] for file in entry.files])[:8]
        return self.folder.joinpath(*entry.name.split(":"), identity)

    def has(self, entry: ModelEntry) -> bool:
        """Whether all files of an entry are there; their content is not looked at."""
        folder = self.folder_of(entry)
        return all((folder / file.name).is_file() for file in entry.files)

    def size_bytes(self, entry: ModelEntry, *, ask: bool = False) -> int | None:
        """Bytes of all files of an entry; None where one is not here, and its size not to be had.

        Parameters
        ----------
        ask
            ask where the files are fetched from, too; what gives no answer is no error
        """
        sizes = [self._size_of_file(entry, file, ask=ask) for file in entry.files]
        return None if None in sizes else sum(size for size in sizes if size is not None)

    def _size_of_file(self, entry: ModelEntry, file: ModelFile, *, ask: bool) -> int | None:
        with contextlib.suppress(FileNotFoundError):
            return (self.folder_of(entry) / file.name).stat().st_size
        for address in self._addresses(entry, file) if ask else ():
            with contextlib.suppress(_SourceError):
                size_bytes = _stat(address).size_bytes
                if size_bytes is not None:
                    return size_bytes
        return None

    def fetch(self, entry: ModelEntry) -> Path:
        """Make sure that the files of an entry are there, and have their digests.

        Returns
        -------
        the folder that holds them

        Raises
        ------
        ModelError
            a file can't be had, or is another than the registry says
        OSError
            the disk is full or broken
        """
        folder = self.folder_of(entry)
        # A cache that is complete may be read-only: the lock comes second.
        if all(_is_checked(folder, file) for file in entry.files):
            return folder
        with self._locked(folder, entry.name):
            for file in entry.files:
                if not _is_checked(folder, file):
                    self._fetch_file(entry, file, folder)
        return folder

    def fetch_folder(
        self, address: str, required: Sequence[str], optional: Sequence[str] = ()
    ) -> Path:
        """The files of a folder that no registry knows, such as a model package.

        A process asks once whether the files have changed. If they have, they get a new folder, and
        those who read the old one are not disturbed.

        Parameters
        ----------
        address
            of the folder; a path is returned as it is
        required
            names of files that have to be there
        optional
            names of files that are fetched if they are there

        Raises
        ------
        ModelError
            a file can't be had
        OSError
            the disk is full or broken
        """
        if not scheme_of(address):
            return _local_folder(address, required)
        address = _checked_address(address)
        asked = (self.folder, address, tuple(required), tuple(optional))
        if asked not in _validated or not _validated[asked].is_dir():
            if self.offline:
                _validated[asked] = self._latest(address, required)
            else:
                _validated[asked] = self._fetch_folder(address, required, optional)
        return _validated[asked]

    def verify(self, entry: ModelEntry) -> list[CheckedFile]:
        """Hash the files of an entry anew; one that has changed is fetched anew the next time."""
        return self._verify(
            entry.name, self.folder_of(entry), {file.name: file.sha256 for file in entry.files}
        )

    def verify_addresses(self) -> list[CheckedFile]:
        """Hash the files of all folders that were fetched by their address."""
        checked = []
        for record_file in sorted(self.folder.glob(f"{ADDRESSES}/*/*/{RECORD}")):
            record = _Record.read(record_file.parent)
            digests = {name: each.sha256 for name, each in record.files.items()}
            checked += self._verify(record.address, record_file.parent, digests)
        return checked

    def _verify(self, model: str, folder: Path, digests: Mapping[str, str]) -> list[CheckedFile]:
        record = _Record.read(folder)
        checked = []
        for name, expected in digests.items():
            path = folder / name
            state: Literal["ok", "changed", "missing"] = "missing"
            if path.is_file():
                found = sha256_of(path)
                known = record.files.get(name)
                same = found.startswith(expected) and (known is None or known.sha256 == found)
                state = "ok" if same else "changed"
            if state != "ok" and name in record.files:
                del record.files[name]
                # A read-only cache can only be told of.
                with contextlib.suppress(OSError):
                    record.write(folder)
            checked.append(CheckedFile(model, path, state))
        return checked

    def _fetch_file(self, entry: ModelEntry, file: ModelFile, folder: Path) -> None:
        part = folder / f"{file.name}.part"
        reasons = []
        for address in self._addresses(entry, file):
            try:
                digest = self._download_checked(address, part, file)
            except _SourceError as error:
                reasons.append(f"{address}: {error}")
            else:
                os.replace(part, folder / file.name)
                _Record.read(folder).with_file(folder / file.name, digest).write(folder)
                return
        if self.offline:
            reasons.append(f"{OFFLINE_VARIABLE} is set")
        raise ModelError(
            f"{entry.name}: {file.name} is not in the cache and can't be fetched: "
            f"{'; '.join(reasons)}: try again later, put it on a mirror ({MIRROR_VARIABLE}), "
            f"or put it into {folder}"
        )

    def _addresses(self, entry: ModelEntry, file: ModelFile) -> list[str]:
        mirrored = f"{self.mirror}/{entry.name.replace(':', '/')}/{file.name}"
        return [*([mirrored] if self.mirror else []), *([] if self.offline else [file.address])]

    def _download_checked(self, address: str, part: Path, file: ModelFile) -> str:
        digest = ""
        # What an earlier try left may be of another file: the second begins at the beginning.
        for _ in range(2):
            self._download(address, part)
            digest = sha256_of(part)
            if digest.startswith(file.sha256):
                return digest
            part.unlink()
        raise _SourceError(f"is another file: its sha256 is {digest}, not {file.sha256}")

    def _download(self, address: str, part: Path) -> None:
        """Bring a file to its end, from where an earlier try left off."""
        _tries()(self._append, address, part)

    def _append(self, address: str, part: Path) -> None:
        size_bytes = _stat(address).size_bytes
        with open(part, "ab") as file:
            done_bytes = file.tell()
            if size_bytes is not None and done_bytes > size_bytes:
                file.truncate(0)
                done_bytes = 0
            for data in _chunks(address, done_bytes):
                file.write(data)
                done_bytes += len(data)
                self._on_progress(part.stem, done_bytes, size_bytes)
        if size_bytes is not None and done_bytes < size_bytes:
            raise _SourceError(f"ended after {done_bytes} of {size_bytes} bytes", transient=True)

    def _fetch_folder(self, address: str, required: Sequence[str], optional: Sequence[str]) -> Path:
        try:
            for _ in range(3):
                generations = self._generations(address, required, optional)
                base = self._folder_of_address(address)
                folder = base / _digest(generations)[:12]
                if not _is_complete(folder, generations):
                    with self._locked(base, address):
                        if not self._fill(folder, address, generations, required, optional):
                            continue
                _mark_latest(base, folder)
                return folder
        except _SourceError as error:
            raise ModelError(
                f"{address}: {error}: check the address, or set {OFFLINE_VARIABLE}=1 to take what "
                "is in the cache"
            ) from error
        raise ModelError(f"{address}: changes while it is read: let its upload finish, try again")

    def _fill(
        self,
        folder: Path,
        address: str,
        generations: Mapping[str, str],
        required: Sequence[str],
        optional: Sequence[str],
    ) -> bool:
        """Fetch the files of a folder; false if they changed meanwhile, and nothing is kept."""
        if _is_complete(folder, generations):
            return True
        folder.mkdir(exist_ok=True)
        for name in generations:
            self._download(f"{address}/{name}", folder / f"{name}.part")
        if self._generations(address, required, optional) != generations:
            shutil.rmtree(folder)
            return False
        record = _Record(address=address)
        for name in generations:
            os.replace(folder / f"{name}.part", folder / name)
            record = record.with_file(folder / name, sha256_of(folder / name))
        record.write(folder)
        return True

    def _generations(
        self, address: str, required: Sequence[str], optional: Sequence[str]
    ) -> dict[str, str]:
        generations = {}
        for name in [*required, *optional]:
            try:
                generations[name] = _tries()(_stat, f"{address}/{name}").generation
            except _SourceError as error:
                # Buckets whose listing is closed answer so for what is not there.
                if name in optional and error.absent_or_closed:
                    continue
                raise _SourceError(f"{name}: {error}") from error
        return generations

    def _latest(self, address: str, required: Sequence[str]) -> Path:
        base = self._folder_of_address(address)
        with contextlib.suppress(OSError, UnicodeDecodeError):
            folder = base / Path((base / LATEST).read_text("utf-8")).name
            if _is_complete(folder, required):
                return folder
        raise ModelError(
            f"{address}: is not in the cache {self.folder}, and {OFFLINE_VARIABLE} is set: fetch "
            "it once while online"
        )

    def _folder_of_address(self, address: str) -> Path:
        readable = re.sub(r"[^A-Za-z0-9.]+", "-", address.partition("://")[2])[-40:].strip("-.")
        return self.folder / ADDRESSES / f"{readable}-{_digest(address)[:12]}"

    @contextlib.contextmanager
    def _locked(self, folder: Path, model: str) -> Iterator[None]:
        lock = FileLock(folder / ".lock")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise
            raise ModelError(
                f"{model}: is not in the cache, and {folder} can't be written to: fetch it as a "
                f"user who may, or name another folder in {CACHE_VARIABLE}"
            ) from error
        try:
            yield
        finally:
            lock.release()


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _SourceError(Exception):
    """A file that can't be had from an address; the message goes on after the address."""

    def __init__(
        self, message: str, *, transient: bool = False, absent_or_closed: bool = False
    ) -> None:
        super().__init__(message)
        self.transient = transient
        self.absent_or_closed = absent_or_closed


class _CheckedContent(BaseModel):
    """The state in which a file was last hashed."""

    sha256: str
    size_bytes: int
    mtime_s: int


class _Record(BaseModel):
    """What is known of the files of a folder; `checked.json` there."""

    address: str = ""
    files: dict[str, _CheckedContent] = {}

    @classmethod
    def read(cls, folder: Path) -> "_Record":
        try:
            return cls.model_validate_json((folder / RECORD).read_bytes())
        except (OSError, ValidationError):
            return cls()

    def with_file(self, path: Path, sha256: str) -> "_Record":
        return self.model_copy(update={"files": {**self.files, path.name: _content(path, sha256)}})

    def write(self, folder: Path) -> None:
        write_whole(folder / RECORD, self.model_dump_json(indent=2).encode())

    def holds(self, path: Path) -> bool:
        """Whether a file is as it was when it was hashed, as far as can be told without reading."""
        known = self.files.get(path.name)
        try:
            return known is not None and known == _content(path, known.sha256)
        except OSError:
            return False


def _content(path: Path, sha256: str) -> _CheckedContent:
    found = path.stat()
    # The layers of container images keep whole seconds only.
    return _CheckedContent(
        sha256=sha256, size_bytes=found.st_size, mtime_s=found.st_mtime_ns // 10**9
    )


def _is_checked(folder: Path, file: ModelFile) -> bool:
    """Whether a file is there with its digest; one that lies there unrecorded is hashed."""
    path, record = folder / file.name, _Record.read(folder)
    if record.holds(path):
        return record.files[file.name].sha256.startswith(file.sha256)
    try:
        digest = sha256_of(path)
    except FileNotFoundError:
        return False
    if not digest.startswith(file.sha256):
        return False
    # Else a read-only cache is hashed by each process.
    with contextlib.suppress(OSError):
        record.with_file(path, digest).write(folder)
    return True


def _is_complete(folder: Path, names: Sequence[str] | Mapping[str, str]) -> bool:
    record = _Record.read(folder)
    return all(record.holds(folder / name) for name in names)


def _mark_latest(base: Path, folder: Path) -> None:
    with contextlib.suppress(OSError):
        write_whole(base / LATEST, folder.name.encode())


def _tries() -> tenacity.Retrying:
    answered = False

    def is_enough(state: tenacity.RetryCallState) -> bool:
        nonlocal answered
        error = state.outcome and state.outcome.exception()
        answered = answered or not isinstance(error and error.__cause__, UnreachableError)
        return state.attempt_number >= (TRIES if answered else UNREACHABLE_TRIES)

    return tenacity.Retrying(
        stop=is_enough,
        wait=tenacity.wait_exponential_jitter(
            FIRST_WAIT_S, max=LONGEST_WAIT_S, jitter=FIRST_WAIT_S
        ),
        retry=tenacity.retry_if_exception(
            lambda error: isinstance(error, _SourceError) and error.transient
        ),
        reraise=True,
    )


def _stat(address: str) -> SourceStat:
    with _explained():
        return source_files_of(address).stat(address)


def _chunks(address: str, start_byte: int) -> Iterator[bytes]:
    """The content of a file from a byte on."""
    # What is done with a chunk is no part of this: a full disk stays an OSError.
    with _explained(), source_files_of(address).reading(address) as file:
        file.seek(start_byte)
        while data := file.read(CHUNK_BYTES):
            yield data


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _SourceError(
            error.strerror or str(error),
            transient=isinstance(error, ConnectionError | TimeoutError),
            absent_or_closed=error.errno in (errno.ENOENT, errno.EACCES),
        ) from error


def _local_folder(path: str, required: Sequence[str]) -> Path:
    folder = Path(path)
    if not folder.is_dir():
        raise ModelError(f"{path}: is no folder: name the folder of a model package")
    for name in required:
        if not (folder / name).is_file():
            raise ModelError(f"{path}: holds no {name}: name the folder of a model package")
    return folder


def _checked_address(address: str) -> str:
    parts = urllib.parse.urlsplit(address)
    if scheme_of(address).lower() in HTTP_SCHEMES and (
        parts.query or parts.fragment or "@" in parts.netloc
    ):
        # The address is shown in messages and records.
        raise ModelError(
            f"{parts.scheme}://{parts.hostname}{parts.path}: give the folder's address without "
            "user, ? and #; credentials belong into ~/.netrc"
        )
    if not parts.netloc:
        raise ModelError(f"{address}: names no host")
    return address.rstrip("/")


def _cache_folder() -> Path:
    if named := os.environ.get(CACHE_VARIABLE):
        return Path(named).expanduser().absolute()
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(caches) / "beamsplitter" / "models"


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


_validated: dict[tuple[Path, str, tuple[str, ...], tuple[str, ...]], Path] = {}
