"""Where files of models come from: HTTP, folders on this machine, and schemes that others add."""

import errno
import os
import re
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Protocol

if TYPE_CHECKING:
    import requests

CONNECT_TIMEOUT_S = 15.0
READ_TIMEOUT_S = 60.0
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
_RANGE_SIZE = re.compile(r"bytes .*/(\d+)")
_REQUEST_TIMEOUT, _TOO_MANY_REQUESTS = 408, 429
_PARTIAL_CONTENT, _RANGE_NOT_SATISFIABLE = 206, 416
_ABSENT = (404, 410)
_CLOSED = (401, 403)


class SourceStat(Protocol):
    """What is known of a file before it is read.

    Attributes
    ----------
    size_bytes : None if the server doesn't say
    generation : a text that changes whenever the content does
    """

    @property
    def size_bytes(self) -> int | None: ...

    @property
    def generation(self) -> str: ...


class SourceReader(Protocol):
    """A file that is read once, from one position to the end."""

    def seek(self, offset: int, /) -> int:
        """Read from this byte on."""

    def read(self, size: int, /) -> bytes:
        """The next bytes, at most so many; none at the end."""


class SourceFiles(Protocol):
    """The files behind one scheme.

    Their errors are OSErrors: FileNotFoundError (or ENOENT) if there is no such file,
    PermissionError (or EACCES) if it is closed, ConnectionError or TimeoutError if it is worth
    another try; any other is taken for permanent.
    """

    def stat(self, address: str, /) -> SourceStat:
        """Size and generation of a file."""

    def reading(self, address: str, /) -> AbstractContextManager[SourceReader]:
        """Open a file."""


def scheme_of(address: str) -> str:
    """The scheme of an address in small letters, such as `https`; empty for a path."""
    found = _SCHEME.match(address)
    return found[1].lower() if found else ""


def register_files(scheme: str, make: Callable[[], SourceFiles]) -> None:
    """Make addresses of a scheme readable, in this process.

    Parameters
    ----------
    scheme : such as `gs`
    make : is called when the first such file is read
    """
    _makers[scheme] = make


def files_of(address: str) -> SourceFiles:
    """The kind of files that an address names.

    Raises
    ------
    OSError : nobody knows its scheme
    """
    scheme = scheme_of(address)
    if scheme not in _makers:
        raise OSError(errno.EPROTONOSUPPORT, f"{scheme}:// is not known here")
    return _makers[scheme]()


@dataclass(frozen=True)
class _Stat:
    size_bytes: int | None
    generation: str


class LocalFiles:
    """Files whose address is a path."""

    def stat(self, path: str) -> _Stat:
        """Size and time of change."""
        found = os.stat(path)
        return _Stat(found.st_size, f"{found.st_size} {found.st_mtime_ns}")

    def reading(self, path: str) -> AbstractContextManager[BinaryIO]:
        """Open a file."""
        return open(path, "rb")


class HttpFiles:
    """Files at `http://` and `https://`; credentials come from ~/.netrc, as requests takes them."""

    def stat(self, address: str) -> _Stat:
        """Size and ETag; without an ETag, its time of change.

        A server that tells neither is taken to change a file only along with its size.
        """
        # Not HEAD, which signed addresses refuse.
        with closing(_get(address, "bytes=0-0")) as response:
            size_bytes = _size_of(response)
            headers = response.headers
            version = headers.get("ETag") or headers.get("Last-Modified") or ""
            return _Stat(size_bytes, f"{size_bytes} {version}")

    def reading(self, address: str) -> "closing[_HttpReader]":
        """Open a file; it is asked for when the first bytes are read."""
        return closing(_HttpReader(address))


class _HttpReader:
    def __init__(self, address: str) -> None:
        self.address = address
        self.position = 0
        self.response: requests.Response | None = None

    def seek(self, offset: int) -> int:
        self.close()
        self.position = offset
        return offset

    def read(self, size: int) -> bytes:
        if self.response is None:
            self.response = self._opened()
        data = _read(self.response, size)
        self.position += len(data)
        return data

    def close(self) -> None:
        if self.response is not None:
            self.response.close()
        self.response = None

    def _opened(self) -> "requests.Response":
        response = _get(self.address, f"bytes={self.position}-" if self.position else None)
        if self.position and response.status_code == _PARTIAL_CONTENT:
            if not response.headers.get("Content-Range", "").startswith(f"bytes {self.position}-"):
                response.close()
                raise OSError(errno.EPROTO, "the server sent another range than was asked for")
        elif response.status_code != _RANGE_NOT_SATISFIABLE:
            # A server without ranges begins at the beginning.
            left = self.position
            while left and (skipped := _read(response, min(left, 1 << 20))):
                left -= len(skipped)
        return response


def _get(address: str, wanted: str | None) -> "requests.Response":
    import requests

    headers = {"Accept-Encoding": "identity"}
    if wanted:
        headers["Range"] = wanted
    try:
        response = requests.get(
            address, headers=headers, stream=True, timeout=(CONNECT_TIMEOUT_S, READ_TIMEOUT_S)
        )
    except (requests.ConnectionError, requests.Timeout) as error:
        cause = error.args[0] if error.args else error
        raise ConnectionError(f"can't be reached ({getattr(cause, 'reason', cause)})") from error
    status = response.status_code
    if response.ok or status == _RANGE_NOT_SATISFIABLE:
        return response
    response.close()
    if status in _ABSENT:
        raise FileNotFoundError(errno.ENOENT, f"is not there (HTTP {status})")
    if status in _CLOSED:
        raise PermissionError(errno.EACCES, f"may not be read (HTTP {status})")
    if status >= 500 or status in (_REQUEST_TIMEOUT, _TOO_MANY_REQUESTS):
        raise ConnectionError(f"the server is not able to (HTTP {status})")
    raise OSError(errno.EPROTO, f"was refused (HTTP {status})")


def _read(response: "requests.Response", size: int) -> bytes:
    import urllib3.exceptions

    if response.status_code == _RANGE_NOT_SATISFIABLE:
        return b""
    try:
        return bytes(response.raw.read(size, decode_content=True))
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise ConnectionError(f"the connection broke ({error})") from error


def _size_of(response: "requests.Response") -> int | None:
    if response.status_code in (_PARTIAL_CONTENT, _RANGE_NOT_SATISFIABLE):
        found = _RANGE_SIZE.fullmatch(response.headers.get("Content-Range", ""))
        return int(found[1]) if found else None
    length = response.headers.get("Content-Length", "")
    # That of the encoded body would not be the file's.
    encoded = "Content-Encoding" in response.headers
    return int(length) if length.isdigit() and not encoded else None


_makers: dict[str, Callable[[], SourceFiles]] = {
    "": LocalFiles,
    "http": HttpFiles,
    "https": HttpFiles,
}
