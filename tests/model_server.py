"""A server of model files on loopback, with ranges and ETags, and faults on demand."""

import hashlib
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class ModelServer:
    """The server.

    `files` are its contents by path, with a leading slash. `faults` come to the next requests for
    bodies, first first: an HTTP status, or ("cut", n): the connection breaks after n bytes of the
    body. `probes` faults those that only ask for the first byte.
    """

    address: str
    files: dict[str, bytes] = field(default_factory=dict)
    faults: list[int | tuple[str, int]] = field(default_factory=list)
    probe_faults: list[int] = field(default_factory=list)
    knows_ranges: bool = True
    seconds_a_body: float = 0.0
    closed: bool = False
    bodies: list[str] = field(default_factory=list)
    sent_bytes: int = 0

    def add(self, path: str, content: bytes) -> str:
        """Serve a file, and return its address."""
        self.files[path] = content
        return f"{self.address}{path}"


@contextmanager
def serving() -> Iterator[ModelServer]:
    """A server as long as the block lasts."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle(self) -> None:
            # A client that only asked for the first byte does not wait for the rest.
            with suppress(ConnectionError):
                super().handle()

        def do_GET(self) -> None:
            _answer(self, state)

        def log_message(self, *_arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state = ModelServer(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()


def _answer(handler: BaseHTTPRequestHandler, state: ModelServer) -> None:
    wanted = handler.headers.get("Range")
    probe = wanted == "bytes=0-0"
    fault: int | tuple[str, int] | None = None
    if probe:
        fault = state.probe_faults.pop(0) if state.probe_faults else None
    else:
        state.bodies.append(f"{handler.path} {wanted or 'whole'}")
        fault = state.faults.pop(0) if state.faults else None
    content = state.files.get(handler.path)
    if isinstance(fault, int) or content is None:
        absent = 403 if state.closed else 404
        _send(handler, fault if isinstance(fault, int) else absent, b"", {})
        return
    headers = {"ETag": f'"{hashlib.md5(content).hexdigest()}"'}
    status, body = 200, content
    if wanted and state.knows_ranges:
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", wanted)
        assert found
        start, stop = int(found[1]), int(found[2] or len(content) - 1) + 1
        if start >= len(content):
            _send(handler, 416, b"", {"Content-Range": f"bytes */{len(content)}"})
            return
        status, body = 206, content[start:stop]
        headers["Content-Range"] = f"bytes {start}-{start + len(body) - 1}/{len(content)}"
    if not probe:
        time.sleep(state.seconds_a_body)
    cut_bytes = fault[1] if fault else None
    state.sent_bytes += 0 if probe else len(body[:cut_bytes])
    _send(handler, status, body, headers, cut_bytes)


def _send(
    handler: BaseHTTPRequestHandler,
    status: int,
    body: bytes,
    headers: dict[str, str],
    cut_bytes: int | None = None,
) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body[:cut_bytes])
    if cut_bytes is not None:
        handler.close_connection = True
