"""A server of Google Cloud Storage on loopback, behind a proxy that keeps preconditions and fails.

The emulator is gcp-storage-emulator; it knows no preconditions and no pages, so the proxy does.

As a program it reads lines of JSON, the name of an object and its text each; it serves a bucket of
them, and writes its address.
"""

import bisect
import http.client
import json
import re
import sys
import threading
import time
import urllib.parse
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from gcp_storage_emulator.handlers.objects import _checksums
from gcp_storage_emulator.server import create_server
from gcp_storage_emulator.storage import Storage
from google.cloud import storage

BUCKET = "music"
HOP_HEADERS = {"transfer-encoding", "connection", "content-length", "date", "server"}


@dataclass
class Fault:
    """What the proxy does to the next requests that a pattern finds in "METHOD /path".

    `kind` is an HTTP status, "reset" (the connection is closed without an answer), "truncate" (half
    of the body is sent), "slow" (the body is sent in pieces, over a second), or "lost answer" (the
    request is carried out, then the connection closed).
    """

    pattern: str
    kind: int | str
    times: int = 1


@dataclass
class StorageServer:
    """The server: `address` for STORAGE_EMULATOR_HOST, and the faults that are still to come.

    `page_size` is the largest number of objects in an answer; `requests` are those so far.
    """

    address: str
    storage: Storage
    page_size: int = 1000
    faults: list[Fault] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    @property
    def bucket(self) -> storage.Bucket:
        """The bucket, through the proxy."""
        client = storage.Client(
            project="test",
            credentials=storage.Client.create_anonymous_client()._credentials,
            client_options={"api_endpoint": self.address},
        )
        return client.bucket(BUCKET)

    def fill(self, names: Iterable[str], content: bytes = b"") -> None:
        """Make objects at once, all with the same content."""
        facts = _checksums(content, {"size": str(len(content)), "generation": "1"})
        for name in names:
            named = facts | {"name": name, "bucket": BUCKET, "contentType": "audio/wav"}
            self.storage.objects.setdefault(BUCKET, {})[name] = named
            self.storage._store._files[self.storage._object_path(BUCKET, name)] = content

    def clear(self) -> None:
        """Empty the bucket, and forget faults and requests."""
        self.storage.wipe(keep_buckets=True)
        self.faults.clear()
        self.requests.clear()
        self.page_size = 1000

    def upload(self, folder: Path, prefix: str) -> None:
        """Upload all files of a folder."""
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                name = f"{prefix}/{path.relative_to(folder).as_posix()}"
                self.bucket.blob(name).upload_from_filename(str(path))

    def download(self, prefix: str, folder: Path) -> None:
        """Download all objects of a prefix."""
        for blob in self.names(prefix):
            path = folder / blob.removeprefix(f"{prefix}/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.bucket.blob(blob).download_as_bytes())

    def names(self, prefix: str) -> list[str]:
        """Names of all objects with a prefix."""
        return [blob.name for blob in self.bucket.list_blobs(prefix=f"{prefix}/")]

    def take_fault(self, request: str) -> Fault | None:
        """The fault that a request is to meet."""
        for fault in self.faults:
            if fault.times and re.search(fault.pattern, request):
                fault.times -= 1
                return fault
        return None


@contextmanager
def serving() -> Iterator[StorageServer]:
    """Run the emulator and its proxy."""
    emulator = create_server("127.0.0.1", 0, in_memory=True, default_bucket=BUCKET)
    emulator.start()
    emulator_port = emulator._api._httpd.server_address[1]
    # In memory nobody reads it, and each upload would write all of it.
    emulator._storage._write_config_to_file = lambda: None
    proxy = _Server(("127.0.0.1", 0), _Proxy)
    server = StorageServer(f"http://127.0.0.1:{proxy.server_address[1]}", emulator._storage)
    proxy.state, proxy.emulator_port = server, emulator_port  # type: ignore[attr-defined]
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        proxy.shutdown()
        emulator.stop()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, *_: Any) -> None:
        """Clients that go away, as killed workers do, are no matter."""


class _Proxy(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or each answer of two packets waits 40 ms
    server: Any

    def log_message(self, *_: Any) -> None:
        pass

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        request = f"{self.command} {urllib.parse.unquote(self.path)}"
        self.server.state.requests.append(request)
        fault = self.server.state.take_fault(request)
        if fault and fault.kind == "reset":
            self.close_connection = True
            return
        if fault and isinstance(fault.kind, int):
            self._answer(fault.kind, {}, b"no")
            return
        if not self._precondition_holds(body):
            self._answer(412, {}, json.dumps({"error": {"message": "conditionNotMet"}}).encode())
            return
        status, headers, answer = self._page() or self._forward(self.command, self.path, body)
        self._answer(status, headers, answer, fault.kind if fault else None)

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = _handle

    def _page(self) -> tuple[int, dict[str, str], bytes] | None:
        """A page of a listing, with names only where no more is asked for."""
        address = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(address.query))
        is_listing = self.command == "GET" and address.path.endswith(f"/b/{BUCKET}/o")
        if not is_listing or "delimiter" in query:
            return None
        objects = self.server.state.storage.objects.get(BUCKET, {})
        names = sorted(objects)
        prefix, token = query.get("prefix", ""), query.get("pageToken", "")
        end = query.get("endOffset", chr(sys.maxunicode))
        start = bisect.bisect_left(names, max(prefix, query.get("startOffset", ""), token))
        size = min(int(query.get("maxResults", 1000)), self.server.state.page_size)
        page = [
            name
            for name in names[start : start + size + 1]
            if name.startswith(prefix) and name < end
        ]
        only_names = query.get("fields") == "items(name),nextPageToken"
        items = [{"name": name} if only_names else objects[name] for name in page[:size]]
        answer = {"items": items, **({"nextPageToken": page[size]} if page[size:] else {})}
        return 200, {"Content-Type": "application/json"}, json.dumps(answer).encode()

    def _forward(self, method: str, path: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.emulator_port)
        connection.request(method, path, body, dict(self.headers.items()))
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read()

    def _precondition_holds(self, body: bytes) -> bool:
        address = urllib.parse.urlsplit(self.path)
        query = urllib.parse.parse_qs(address.query)
        if "ifGenerationMatch" not in query or self.command != "POST":
            return True
        bucket = address.path.split("/b/")[1].split("/")[0]
        name = urllib.parse.quote(_uploaded_name(body), safe="")
        status, _, answer = self._forward("GET", f"/storage/v1/b/{bucket}/o/{name}", b"")
        generation = json.loads(answer)["generation"] if status == 200 else "0"
        return bool(query["ifGenerationMatch"][0] == generation)

    def _answer(
        self, status: int, headers: dict[str, str], body: bytes, kind: int | str | None = None
    ) -> None:
        if kind == "lost answer":
            self.close_connection = True
            return
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() not in HOP_HEADERS:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if kind == "truncate":
            self.wfile.write(body[: len(body) // 2])
            self.close_connection = True
            return
        if kind == "slow":
            for start in range(0, len(body), len(body) // 5 + 1):
                self.wfile.write(body[start : start + len(body) // 5 + 1])
                time.sleep(0.2)
            return
        self.wfile.write(body)


def _uploaded_name(body: bytes) -> str:
    """The name in the metadata of an upload: the first part of a multipart body, or all of it."""
    metadata = body if body.startswith(b"{") else body.split(b"\r\n\r\n")[1].split(b"\r\n--")[0]
    return str(json.loads(metadata)["name"])


def main() -> None:
    """Serve the names of the standard input until it is stopped."""
    with serving() as server:
        for line in sys.stdin:
            name, text = json.loads(line)
            server.fill([name], text.encode())
        print(server.address, flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
