"""Files behind HTTP, which can be read only."""

import errno
import re
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import requests

CONNECT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 60.0
_RANGE_SIZE = re.compile(r"bytes .*/(\d+)")
_REQUEST_TIMEOUT, _TOO_MANY_REQUESTS = 408, 429
_PARTIAL_CONTENT, _RANGE_NOT_SATISFIABLE = 206, 416
_ABSENT = (404, 410)
_CLOSED = (401, 403)


class UnreachableError(ConnectionError):
    """There is no connection at all: no such host, no network, or nobody who takes it."""


@dataclass(frozen=True)
class _Stat:
    size_bytes: int | None
    generation: str


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
    from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

    headers = {"Accept-Encoding": "identity"}
    if wanted:
        headers["Range"] = wanted
    try:
        response = requests.get(
            address, headers=headers, stream=True, timeout=(CONNECT_TIMEOUT_S, READ_TIMEOUT_S)
        )
    except (requests.ConnectionError, requests.Timeout) as error:
        cause = error.args[0] if error.args else error
        reason = getattr(cause, "reason", cause)
        gone = isinstance(reason, NewConnectionError | ConnectTimeoutError)
        kind = UnreachableError if gone else ConnectionError
        raise kind(f"can't be reached ({reason})") from error
    status = response.status_code
    if response.ok or status == _RANGE_NOT_SATISFIABLE:
        return response
    response.close()
    if status in _ABSENT:
        raise FileNotFoundError(errno.ENOENT, f"is not there (HTTP {status})")
    if status in _CLOSED:
        raise PermissionError(errno.EACCES, f"may not be read (HTTP {status})")
    if status >= 500 or status in (_REQUEST_TIMEOUT, _TOO_MANY_REQUESTS):
        raise ConnectionError(f"the server can't give it now (HTTP {status})")
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
