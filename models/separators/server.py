"""One process for each GPU, which runs the blocks of all worker processes of a machine.

Workers decode, resample, encode and draw; the server alone holds the models. Blocks that wait are
batched whatever recording they are of, so that many short files fill a GPU as a long one does. Two
batches are under way at any time: while one is copied, the other is computed. A worker's thread has
at most `REQUESTS_AHEAD` batches of blocks here, which bounds the memory.

Blocks and stems cross a Unix socket as raw bytes, and what describes them as JSON: nothing is
pickled. The socket lies in a folder that only its user can open. The server ends with its last
client.

Every request is answered, with stems or with what went wrong. A client that gets no answer for long
ends the server and says so; one whose server is gone starts another.
"""

import contextlib
import hashlib
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from ...audio.progress import Progress, unheard
from .base import Member, ModelError, Separator, TorchSeparator
from .blocks import BlockLengths
from .by_name import SeparatorName, describe, fetch, load
from .mixing import RunBlocks
from .plain_runner import DeviceOptions, PlainRunner

REQUESTS_AHEAD = 2
TRIES = 3
IDLE_S = 5.0
# Blocks of all workers may wait before one's own, and the first compiles a model.
ANSWER_LIMIT_S = 900.0
START_LIMIT_S = 900.0
GREETING_LIMIT_S = 30.0
LANES = 2
# The path of a socket may have 103 bytes; its name has 17.
LONGEST_FOLDER = 85
_SIZES = struct.Struct("<IQ")
# What the path from parts to stems needs to know of a separator.
GEOMETRY = (
    "sample_rate",
    "channels",
    "block_samples",
    "context_samples",
    "overlap",
    "normalizes",
)


@dataclass(frozen=True)
class ServerSpec:
    """What a server runs, and where."""

    separators: tuple[SeparatorName, ...]
    options: DeviceOptions

    def to_json(self) -> str:
        """As JSON: the same spec, the same text."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "ServerSpec":
        """The spec of `to_json`."""
        plain = json.loads(text)
        return cls(
            tuple(SeparatorName(**each) for each in plain["separators"]),
            DeviceOptions(**plain["options"]),
        )


def send(connection: socket.socket, header: dict[str, Any], array: np.ndarray | None) -> None:
    """Send a JSON header, and the bytes of a float32 array."""
    data = memoryview(b"")
    if array is not None:
        header = {**header, "shape": array.shape}
        data = np.ascontiguousarray(array, np.float32).reshape(-1).view(np.uint8).data
    text = json.dumps(header).encode()
    connection.sendall(_SIZES.pack(len(text), len(data)) + text)
    connection.sendall(data)


def receive(connection: socket.socket) -> tuple[dict[str, Any], np.ndarray]:
    """What `send` sent: the header, and the array.

    Raises
    ------
    EOFError
        the other side is gone
    """
    text_bytes, data_bytes = _SIZES.unpack(_read(connection, _SIZES.size))
    header = json.loads(_read(connection, text_bytes))
    data = np.frombuffer(_read(connection, data_bytes), np.float32)
    return header, data.reshape(header.get("shape", (0,)))


def _read(connection: socket.socket, size_bytes: int) -> bytearray:
    data = bytearray(size_bytes)
    view, done = memoryview(data), 0
    while done < size_bytes:
        count = connection.recv_into(view[done:])
        if not count:
            raise EOFError("the other side is gone")
        done += count
    return data


class RemoteSeparator(Separator):
    """A separator whose model is in the server."""

    def __init__(self, facts: dict[str, Any]) -> None:
        self.name = facts["name"]
        self.stems = tuple(facts["stems"])
        self.labels = tuple(facts["labels"])
        for each in GEOMETRY:
            setattr(self, each, facts[each])
        if facts["block_lengths"]:
            self.block_lengths = BlockLengths(**facts["block_lengths"])

    def separate(self, block: np.ndarray, sample_rate: int) -> np.ndarray:
        """Its blocks go through a `RemoteRunner`."""
        raise NotImplementedError


class RemoteRunner:
    """Has blocks run by the server of a spec, which it starts if none is there.

    Attributes
    ----------
    members
        the ensemble

    Raises
    ------
    ModelError
        the server can't load the models
    """

    def __init__(self, spec: ServerSpec) -> None:
        self.spec = spec
        self._of_thread = threading.local()
        # Each of its threads has a connection.
        self._executor = ThreadPoolExecutor(thread_name_prefix="ask_model_server")
        answer, _ = self._ask({"ask": "members"}, None)
        self.members = tuple(
            Member(RemoteSeparator(each), each["weights"]) for each in answer["members"]
        )

    def __call__(
        self,
        member_index: int,
        batches: Iterable[np.ndarray],
        sample_rate: int,
        stems: Sequence[int],
        progress: Progress = unheard,
    ) -> Iterator[np.ndarray]:
        """Run one member's model, as `PlainRunner` does, a few batches ahead."""
        header = {
            "ask": "run",
            "member_index": member_index,
            "sample_rate": sample_rate,
            "stems": list(stems),
        }
        asked: deque[Future[tuple[dict[str, Any], np.ndarray]]] = deque()
        done = 0

        def answered() -> np.ndarray:
            nonlocal done
            made = asked.popleft().result()[1]
            done += len(made)
            progress(done)
            return made

        for blocks in batches:
            asked.append(self._executor.submit(self._ask, header, blocks))
            if len(asked) == REQUESTS_AHEAD:
                yield answered()
        while asked:
            yield answered()

    def _ask(
        self, header: dict[str, Any], blocks: np.ndarray | None
    ) -> tuple[dict[str, Any], np.ndarray]:
        for _ in range(TRIES):
            connection = self._connection()
            try:
                send(connection.socket, header, blocks)
                answer, data = receive(connection.socket)
            except TimeoutError:
                self._of_thread.connection = None
                with contextlib.suppress(ProcessLookupError):
                    os.kill(connection.process, signal.SIGKILL)
                raise ModelError(
                    f"{_names(self.spec)}: the process that runs the models gave no answer for "
                    f"{ANSWER_LIMIT_S:.0f} s, and was ended: see whether its GPU hangs"
                ) from None
            except (OSError, EOFError):
                # The server died, perhaps of another's blocks: a new one is started.
                self._of_thread.connection = None
                continue
            if "error" in answer:
                raise ModelError(answer["error"])
            return answer, data
        raise ModelError(
            f"{_names(self.spec)}: the process that runs the models ended each time that it was "
            "asked: see whether memory is short, or its GPU fails"
        )

    def _connection(self) -> "Connection":
        connection: Connection | None = getattr(self._of_thread, "connection", None)
        if connection is None:
            connection = self._of_thread.connection = connect(self.spec)
        return connection


_preloaded: dict[tuple[SeparatorName, ...], tuple[Member, ...]] = {}


def preload(separators: tuple[SeparatorName, ...], device: str) -> None:
    """Load models that will run on the CPU, for the processes that are forked from this one.

    They share its memory. What loading computes must be computed by one thread, as an engine's
    environment says: a pool of threads would be missing in the forked processes, which would wait
    for it for ever.

    Raises
    ------
    ModelError
        a model can't be loaded, or the device is not there
    """
    if not describe(separators).uses_device:
        _preloaded[separators] = load(separators)
        return
    # torch takes seconds to import.
    from .device_runner import find_device

    if find_device(device).type == "cpu":
        _preloaded[separators] = load(separators)


def open_models(separators: tuple[SeparatorName, ...], options: DeviceOptions) -> "Models":
    """The models of a job: loaded in this process, or in that of their GPU.

    Several GPUs are shared out among the processes of a machine.

    Raises
    ------
    ModelError
        a model can't be loaded, or the device is not there
    """
    if describe(separators).uses_device:
        # torch takes seconds to import.
        from .device_runner import device_count, find_device

        device = find_device(options.device)
        if device.type == "cuda" and device.index is None:
            options = replace(options, device=f"cuda:{next_device(device_count())}")
        if device.type != "cpu":
            remote = RemoteRunner(ServerSpec(fetch(separators), options))
            return Models(remote.members, remote)
    members = _preloaded.get(separators) or load(separators)
    return Models(members, runner_of(members, options))


def runner_of(members: Sequence[Member], options: DeviceOptions) -> RunBlocks:
    """What runs the models of an ensemble.

    Raises
    ------
    ModelError
        the device is not there
    """
    if not any(isinstance(member.separator, TorchSeparator) for member in members):
        return PlainRunner(members)
    # torch takes seconds to import, and most jobs do without.
    from .device_runner import DeviceRunner

    return DeviceRunner(members, options)


@dataclass(frozen=True)
class Models:
    """The ensemble of a job, and what runs its models on blocks."""

    members: tuple[Member, ...]
    run: RunBlocks


@dataclass(frozen=True)
class Connection:
    """A connection to a server, and the number of its process."""

    socket: socket.socket
    process: int


def connect(spec: ServerSpec) -> Connection:
    """Connect to the server of a spec, and start it if none is there.

    Raises
    ------
    ModelError
        it can't load the models
    """
    address = _own_folder() / hashlib.sha256(spec.to_json().encode()).hexdigest()[:16]
    with FileLock(f"{address}.lock"):
        try:
            return _greeted(address)
        except (OSError, EOFError):
            _start(spec, address)
            return _greeted(address)


def _own_folder() -> Path:
    """A folder of this machine that only its user can open."""
    folder = Path(tempfile.gettempdir()) / f"beamsplitter-models-{os.getuid()}"
    if len(str(folder)) > LONGEST_FOLDER:
        folder = Path("/tmp") / folder.name
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid() or folder.stat().st_mode & 0o077:
        raise ModelError(f"{folder}: others can open it: remove it")
    return folder


def next_device(count: int) -> int:
    """The GPU for one more process of this machine, in turn: 0, 1, …, count - 1, 0, …"""
    turns = _own_folder() / "turns"
    with FileLock(f"{turns}.lock"):
        turn = turns.stat().st_size if turns.exists() else 0
        turns.write_bytes(b"." * ((turn + 1) % count))
    return turn % count


def _greeted(address: Path) -> Connection:
    """A connection that was answered: one that is about to end takes connections, too."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(GREETING_LIMIT_S)
    connection.connect(str(address))
    send(connection, {"ask": "members"}, None)
    answer, _ = receive(connection)
    connection.settimeout(ANSWER_LIMIT_S)
    return Connection(connection, answer["process"])


def _start(spec: ServerSpec, address: Path) -> None:
    """Start a server, and wait until it takes connections; it ends by itself."""
    address.unlink(missing_ok=True)
    process = subprocess.Popen(
        [sys.executable, "-m", __name__, str(address)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(spec.to_json().encode())
    process.stdin.close()
    ready, _, _ = select.select([process.stdout], [], [], START_LIMIT_S)
    said = process.stdout.readline() if ready else b""
    process.stdout.close()
    if not ready:
        process.kill()
        raise ModelError(f"{_names(spec)}: was not loaded within {START_LIMIT_S:.0f} s")
    if not said:
        raise ModelError(f"{_names(spec)}: the process that runs the models ended at its start")
    error = json.loads(said)["error"]
    if error:
        raise ModelError(error)


def _names(spec: ServerSpec) -> str:
    return " + ".join(each.name for each in spec.separators)


# By identity: samples of several shapes can't be compared.
@dataclass(frozen=True, eq=False)
class _Request:
    member_index: int
    sample_rate: int
    stems: tuple[int, ...]
    blocks: np.ndarray
    done: "Future[np.ndarray]"

    def fits(self, other: "_Request") -> bool:
        """Whether both can share a batch."""
        return (self.member_index, self.sample_rate, self.stems, self.blocks.shape[1:]) == (
            other.member_index,
            other.sample_rate,
            other.stems,
            other.blocks.shape[1:],
        )


class ModelServer:
    """Runs the requests of all clients, those that fit together in one batch.

    Parameters
    ----------
    spec
        its models, and their device

    Raises
    ------
    ModelError
        a model can't be loaded, or the device is not there
    """

    def __init__(self, spec: ServerSpec) -> None:
        from .device_runner import DeviceRunner

        self.members = load(spec.separators)
        self.runner = DeviceRunner(self.members, spec.options)
        self.waiting: deque[_Request] = deque()
        self.changed = threading.Condition()
        self.broken: ModelError | None = None
        """Why no lane takes requests any more."""
        self.clients = 0
        self.idle_since_s = time.monotonic()
        lanes = LANES if self.runner.device.type == "cuda" else 1
        for _ in range(lanes):
            threading.Thread(target=self._work, daemon=True).start()

    def serve(self, listener: socket.socket) -> None:
        """Take connections until there have been none for a while."""
        listener.settimeout(1.0)
        while self.clients or time.monotonic() - self.idle_since_s < IDLE_S:
            with contextlib.suppress(TimeoutError):
                connection, _ = listener.accept()
                connection.setblocking(True)
                with self.changed:
                    self.clients += 1
                threading.Thread(target=self._attend, args=(connection,), daemon=True).start()

    def _attend(self, connection: socket.socket) -> None:
        try:
            while True:
                header, blocks = receive(connection)
                send(connection, *self._answer(header, blocks))
                # They hold on to a whole batch.
                del blocks
        # What is no request can't be answered, nor what came after it.
        except (OSError, EOFError, ValueError, MemoryError):
            pass
        finally:
            connection.close()
            with self.changed:
                self.idle_since_s = time.monotonic()
                self.clients -= 1

    def _answer(
        self, header: dict[str, Any], blocks: np.ndarray
    ) -> tuple[dict[str, Any], np.ndarray | None]:
        try:
            if header["ask"] == "members":
                return {"members": self._facts(), "process": os.getpid()}, None
            return {}, self._run(header, blocks)
        except Exception as error:
            return {"error": str(_as_model_error(error))}, None

    def _facts(self) -> list[dict[str, Any]]:
        return [
            {
                "name": member.separator.name,
                "stems": member.separator.stems,
                "labels": member.separator.labels,
                "weights": dict(member.weights),
                "block_lengths": (lengths := member.separator.block_lengths) and asdict(lengths),
                **{name: getattr(member.separator, name) for name in GEOMETRY},
            }
            for member in self.members
        ]

    def _run(self, header: dict[str, Any], blocks: np.ndarray) -> np.ndarray:
        request = _Request(
            header["member_index"],
            header["sample_rate"],
            tuple(header["stems"]),
            blocks,
            Future(),
        )
        with self.changed:
            if self.broken:
                raise self.broken
            self.waiting.append(request)
            self.changed.notify()
        return request.done.result()

    def _work(self) -> None:
        try:
            with self.runner.lane():
                while True:
                    self._run_next()
        # A lane that can't begin: those that wait for it must not wait for ever.
        except Exception as error:
            with self.changed:
                self.broken = _as_model_error(error)
                left, self.waiting = list(self.waiting), deque()
            for request in left:
                request.done.set_exception(self.broken)

    def _run_next(self) -> None:
        """Run the request that waits longest, and others that fit into its batch."""
        with self.changed:
            self.changed.wait_for(lambda: self.waiting)
            taken = [self.waiting.popleft()]
        try:
            # May take a while: the batch size is found out by trying.
            room = self.runner.batch_size(taken[0].member_index, taken[0].blocks)
            taken += self._take_fitting(taken[0], room - len(taken[0].blocks))
            self._run_together(taken)
        # A separator of one's own may call `sys.exit`.
        except (Exception, SystemExit) as error:
            if not self.runner.is_usable():
                # After some faults of a GPU nothing runs in this process any more. Who waits sees
                # it end, and asks another.
                os._exit(1)
            for request in taken:
                if not request.done.done():
                    request.done.set_exception(_as_model_error(error))

    def _take_fitting(self, first: _Request, room: int) -> list[_Request]:
        taken: list[_Request] = []
        with self.changed:
            for request in list(self.waiting):
                if first.fits(request) and len(request.blocks) <= room:
                    taken.append(request)
                    room -= len(request.blocks)
                    self.waiting.remove(request)
        return taken

    def _run_together(self, requests: list[_Request]) -> None:
        first = requests[0]
        blocks = [request.blocks for request in requests]
        together = blocks[0] if len(blocks) == 1 else np.concatenate(blocks)
        try:
            (stems,) = self.runner(first.member_index, [together], first.sample_rate, first.stems)
        except (Exception, SystemExit):
            if len(requests) == 1 or not self.runner.is_usable():
                raise
            # One's fault must not cost the others.
            for request in requests:
                try:
                    self._run_together([request])
                except (Exception, SystemExit) as error:
                    request.done.set_exception(_as_model_error(error))
            return
        done = 0
        for request in requests:
            request.done.set_result(stems[done : done + len(request.blocks)])
            done += len(request.blocks)


def _as_model_error(error: BaseException) -> ModelError:
    if isinstance(error, ModelError):
        return error
    return ModelError(f"{type(error).__name__}: {error}")


def main() -> None:
    """Serve the spec on standard input, at the address that the first argument is."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    spec = ServerSpec.from_json(sys.stdin.read())
    # Nothing else may write where the first line says whether all is well.
    said = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        server = ModelServer(spec)
    except Exception as error:
        message = str(error) if isinstance(error, ModelError) else f"{_names(spec)}: {error!r}"
        print(json.dumps({"error": message}), file=said, flush=True)
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(sys.argv[1])
        listener.listen(128)
        print(json.dumps({"error": ""}), file=said, flush=True)
        said.close()
        server.serve(listener)
    os._exit(0)


if __name__ == "__main__":
    main()
