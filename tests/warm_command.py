"""Our Python programs in processes forked from one that has imported what they need.

Most of a short job's time goes into its imports, twice: in the launcher, and in the engine that it
starts. A test that runs a command to its end runs it so; the launcher and the engine are processes
as they are elsewhere, and are told what to do as they are elsewhere, by the command line, the
environment and the files of a spec. Where Python itself is told to start otherwise, it is started
as a user starts it.

To change what a program does, a test hands it code in the variable that `HOOK` names.
"""

import atexit
import contextlib
import gc
import importlib
import json
import multiprocessing.context
import os
import select
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import weakref
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

START = """
import gc, sys
gc.disable()
sys.path.insert(0, sys.argv[1])
import warm_command
del sys.path[0]
line = warm_command.wait_for_a_start(int(sys.argv[2]), sys.argv[3:])
warm_command.use_forks()
warm_command.change_as_told()
warm_command.run_to_the_end(line)
"""
IMPORTED = (
    "torch",
    "joblib",
    "librosa.filters",
    "librosa.util.utils",
    "beamsplitter.audio.chorus",
    "beamsplitter.audio.drawing",
    "beamsplitter.models.classifiers.fitting",
    "beamsplitter.models.training.fitting",
    "beamsplitter.pipelines.command_line",
    "beamsplitter.pipelines.local.engine",
    "beamsplitter.pipelines.local.track_engine",
    "beamsplitter.pipelines.stream.forking",
    "beamsplitter.pipelines.stream.streaming",
    "beamsplitter.transforms.scoring",
    "beamsplitter.transforms.separation",
)
COMMAND = ("-m", "beamsplitter.pipelines.command_line")
# A program that does what the command does, by its first line's interpreter.
STAND_IN = """#!{python} -I
import sys
sys.path.insert(0, {here!r})
import os
from warm_command import COMMAND, WarmCommand
done = WarmCommand({address!r}).run([sys.executable, *COMMAND, *sys.argv[1:]], os.environ, 600)
sys.stdout.write(done.stdout)
sys.stderr.write(done.stderr)
sys.exit(done.returncode)
"""
# What only a process that starts anew would heed.
OF_A_START = ("PYTHON", "LD_", "MALLOC_")
MODULES = "PYTHONPATH"
HOOK = "HOOK_OF_A_TEST"
# It would be imported before all others.
FIRST_MODULE = "sitecustomize.py"


class WarmCommand:
    """Runs our Python programs in forks of a process that waits for them."""

    def __init__(self, address: str, process: int | None = None) -> None:
        self.address = address
        self.process = process
        self.environment = of_a_start(os.environ)

    def takes(self, environment: Mapping[str, str]) -> bool:
        """Whether a fork can be what a new process with such variables would be."""
        first = (Path(folder, FIRST_MODULE) for folder in module_folders(environment))
        return of_a_start(environment) == self.environment and not any(map(Path.exists, first))

    def run(
        self, line: Sequence[str], environment: Mapping[str, str], timeout_s: float
    ) -> subprocess.CompletedProcess[str]:
        """Run a program to its end, as `subprocess.run` does."""
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            process = self.start(line, stdout=out, stderr=err, env=environment)
            try:
                code = process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
            for file in (out, err):
                file.seek(0)
            return subprocess.CompletedProcess(line, code, out.read(), err.read())

    def start(self, line: Sequence[str], **options: Any) -> "WarmProcess":
        """Start a program, as `subprocess.Popen` does."""
        return WarmProcess(line, address=self.address, **options)

    def start_engine(self, line: Sequence[str], **options: Any) -> "WarmProcess":
        """Start an engine of this process, whose spec says what launcher it is to end with."""
        path = Path(line[-1])
        path.write_text(json.dumps({**json.loads(path.read_text()), "launcher": self.process}))
        return self.start(line, **options)

    def write_stand_in(self, path: Path) -> None:
        """Write a program for shells that runs commands so."""
        here = str(Path(__file__).parent)
        path.write_text(STAND_IN.format(python=sys.executable, here=here, address=self.address))
        path.chmod(0o700)


def of_a_start(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that a process heeds when it starts, and not later."""
    names = (name for name in environment if name.startswith(OF_A_START) and name != MODULES)
    return {name: environment[name] for name in names}


def module_folders(environment: Mapping[str, str]) -> list[str]:
    """Where modules are looked for before all others."""
    return [*filter(None, environment.get(MODULES, "").split(os.pathsep))]


class PythonProcess:
    """What `subprocess.Popen` is to our programs; how it comes about is said below."""

    def __init__(
        self,
        line: Sequence[str],
        *,
        stdin: Any = None,
        stdout: Any = None,
        stderr: Any = None,
        env: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
        start_new_session: bool = False,
    ) -> None:
        assert line[0] == sys.executable
        self.args = [*line]
        self.returncode: int | None = None
        self.stdin: IO[bytes] | None = None
        self.stdout: IO[bytes] | None = None
        sys.stdout.flush()
        sys.stderr.flush()
        start = {
            "line": self.args[1:],
            "environment": {**(os.environ if env is None else env)},
            "folder": os.getcwd(),
            "passed": [*pass_fds],
            "session": start_new_session,
        }
        with contextlib.ExitStack() as theirs:
            files = [
                self._file_of(number, given, theirs)
                for number, given in enumerate((stdin, stdout, stderr))
            ]
            self.pid = self._begin(start, files)

    def _file_of(self, number: int, given: Any, theirs: contextlib.ExitStack) -> int:
        """The number of the file that is to be the program's of a number."""
        if given is None:
            return number
        if given == subprocess.DEVNULL:
            file = os.open(os.devnull, os.O_RDWR)
        elif given == subprocess.PIPE:
            reading, writing = os.pipe()
            file, ours = (reading, writing) if number == 0 else (writing, reading)
            setattr(self, ("stdin", "stdout")[number], os.fdopen(ours, ("wb", "rb")[number]))
        else:
            return int(given.fileno())
        theirs.callback(os.close, file)
        return file

    def _begin(self, start: dict[str, Any], files: list[int]) -> int:
        """Begin the process; gives its number."""
        raise NotImplementedError

    def _ended(self, timeout_s: float | None) -> int | None:
        """The exit code once it has ended, or none after a time."""
        raise NotImplementedError

    def poll(self) -> int | None:
        """The exit code, if it has ended."""
        if self.returncode is None:
            self.returncode = self._ended(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, once it has ended."""
        if self.returncode is None:
            self.returncode = self._ended(timeout)
        if self.returncode is None:
            assert timeout is not None
            raise subprocess.TimeoutExpired(self.args, timeout)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it has not ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)


class WarmProcess(PythonProcess):
    """Forked from the warm process at an address, which waits for it."""

    def __init__(self, line: Sequence[str], *, address: str, **options: Any) -> None:
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.connect(address)
        super().__init__(line, **options)

    def _begin(self, start: dict[str, Any], files: list[int]) -> int:
        socket.send_fds(self._connection, [b"."], files)
        self._connection.sendall(json.dumps(start).encode() + b"\n")
        return received_number(self._connection)

    def _ended(self, timeout_s: float | None) -> int | None:
        ready, _, _ = select.select([self._connection], [], [], timeout_s)
        if not ready:
            return None
        with self._connection:
            return received_number(self._connection)


class ForkedProcess(PythonProcess):
    """Forked from the process that starts it."""

    def _begin(self, start: dict[str, Any], files: list[int]) -> int:
        process = os.fork()
        if process:
            return process
        code: Any = 1
        try:
            become(start, files)
            run_program(start["line"])
            code = 0
        except SystemExit as end:
            code = end.code or 0
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1)

    def _ended(self, timeout_s: float | None) -> int | None:
        assert not timeout_s
        process, status = os.waitpid(self.pid, 0 if timeout_s is None else os.WNOHANG)
        return os.waitstatus_to_exitcode(status) if process else None


def send_number(connection: socket.socket, number: int) -> None:
    """Send a number, so that none is received with another."""
    with contextlib.suppress(OSError):  # who waited for it may be gone
        connection.sendall(number.to_bytes(8, "big", signed=True))


def received_number(connection: socket.socket) -> int:
    """The next number."""
    number = connection.recv(8)
    if len(number) < 8:
        raise ConnectionError("the warm process has ended")
    return int.from_bytes(number, "big", signed=True)


@contextlib.contextmanager
def warm_command(imported: Sequence[str] = IMPORTED) -> Iterator[WarmCommand]:
    """A process that has imported what the command needs, to the end of the block."""
    # Not above: what stands in for the command in shells imports this, and is to start at once.
    from beamsplitter.pipelines.local.launch import PATIENT_THREADS

    with tempfile.TemporaryDirectory(prefix="warm-") as folder:
        address = str(Path(folder, "socket"))
        plain = {name: text for name, text in os.environ.items() if name != MODULES}
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(address)
            listener.listen()
            here = str(Path(__file__).parent)
            process = subprocess.Popen(
                [sys.executable, "-c", START, here, str(listener.fileno()), *imported],
                pass_fds=[listener.fileno()],
                env={**plain, **PATIENT_THREADS},
            )
        try:
            yield WarmCommand(address, process.pid)
        finally:
            process.kill()
            process.wait()


def wait_for_a_start(listener_number: int, imported: list[str]) -> list[str]:
    """Import what programs need; return the line of one in a fork that is to run it."""
    for name in imported:
        importlib.import_module(name)
    for clean_up in weakref.finalize._registry:  # type: ignore[attr-defined]
        clean_up.atexit = False  # torch's: nothing of a program's own is there yet
    gc.collect()
    gc.freeze()
    os.set_inheritable(listener_number, False)
    listener = socket.socket(fileno=listener_number)
    with selectors.DefaultSelector() as selector:
        selector.register(listener, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.data is None:
                    connection, _ = listener.accept()
                    _, files, _, _ = socket.recv_fds(connection, 1, 3)
                    start = json.loads(connection.makefile("r").readline())
                    process = os.fork()
                    if process == 0:
                        become(start, files)
                        line: list[str] = start["line"]
                        return line
                    for file in files:
                        os.close(file)
                    selector.register(
                        os.pidfd_open(process), selectors.EVENT_READ, (process, connection)
                    )
                    send_number(connection, process)
                else:
                    selector.unregister(key.fd)
                    os.close(key.fd)
                    process, connection = key.data
                    _, status = os.waitpid(process, 0)
                    send_number(connection, os.waitstatus_to_exitcode(status))
                    connection.close()


def become(start: dict[str, Any], files: list[int]) -> None:
    """Take on what a new process would be given."""
    if start["session"]:
        os.setsid()
    for number, file in enumerate(files):
        if file != number:
            os.dup2(file, number)
            os.set_inheritable(file, False)
    for number in start["passed"]:
        os.set_inheritable(number, True)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    close_what_is_not_handed_on()
    # pytest's stand where a test forks.
    sys.stdin, sys.stdout = os.fdopen(0, closefd=False), os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    set_environment(start["environment"])
    os.chdir(start["folder"])
    # Before them stands the folder that the process is in.
    sys.path[1:1] = module_folders(start["environment"])
    gc.enable()


def close_what_is_not_handed_on() -> None:
    """Close files as a new program would; their numbers are not given anew to others."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in map(int, os.listdir("/dev/fd")):
        with contextlib.suppress(OSError):  # of the folder that was listed
            if number > 2 and not os.get_inheritable(number):
                os.dup2(nothing, number, inheritable=False)


def set_environment(environment: Mapping[str, str]) -> None:
    """Replace the environment variables of this process."""
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None
    time.tzset()


def run_program(line: list[str]) -> None:
    """Run what an interpreter with such a command line would: `-m`, `-c`, or a script."""
    main = vars(sys.modules["__main__"])
    kind, *arguments = line
    if kind.endswith(".py"):
        main.update(__spec__=None, __package__=None, __file__=kind)
        sys.argv[:] = line
        sys.path.insert(0, str(Path(kind).parent))
        exec(compile(Path(kind).read_bytes(), kind, "exec"), main)
        return
    program, *arguments = arguments
    if kind == "-m":
        module = importlib.import_module(program)
        assert module.__spec__ is not None
        # Lightning starts other processes by it.
        main.update(__spec__=module.__spec__, __package__=module.__spec__.parent)
        sys.argv[:] = [str(module.__spec__.origin), *arguments]
        module.main()
    else:
        main.update(__spec__=None, __package__=None)
        sys.argv[:] = ["-c", *arguments]
        exec(program, main)


def run_to_the_end(line: list[str]) -> None:
    """Run a program, and end this process as Python does, but for freeing its modules.

    To free what forks share would copy it first: two thirds of a second for each command.
    """
    try:
        run_program(line)
    except SystemExit as end:
        if not isinstance(end.code, int | None):
            raise
        code = end.code or 0
    else:
        code = 0
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def change_as_told() -> None:
    """Run the hook of a test; what it replaces in our modules is replaced where they import it."""
    hook = os.environ.pop(HOOK, None)
    if hook is None:
        return
    ours = [module for name, module in sys.modules.items() if name.startswith("beamsplitter.")]
    before = [{**vars(module)} for module in ours]
    exec(hook, {})
    for module, old in zip(ours, before, strict=True):
        for name in old:
            new = getattr(module, name)
            if new is not old[name]:
                for other in ours:
                    if vars(other).get(name) is old[name]:
                        setattr(other, name, new)


def use_forks() -> None:
    """Have launchers fork their engines and workers, and engines the servers of their models."""
    from beamsplitter.models.separators import server
    from beamsplitter.pipelines.local import launch, processes
    from beamsplitter.pipelines.stream import batches

    launch.subprocess = server.subprocess = FORKING  # type: ignore[attr-defined]
    batches.subprocess = FORKING_ALONE  # type: ignore[attr-defined]
    # A server of forks would import what this process has imported.
    processes.multiprocessing = SimpleNamespace(  # type: ignore[attr-defined]
        get_context=lambda _: ForkedWorkers()
    )


class ForkedWorkers(multiprocessing.context.ForkContext):
    """Stands in for the context of a server of forks, whose forks heed signals as new processes."""

    class Process(multiprocessing.context.ForkProcess):
        """One of them."""

        def run(self) -> None:
            """Do its work."""
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            super().run()


def forked_if_alone(line: Sequence[str], **options: Any) -> Any:
    """A process that is forked, unless this one has threads: clients of Pub/Sub rely on theirs."""
    is_alone = len(os.listdir("/proc/self/task")) == 1
    return (ForkedProcess if is_alone else subprocess.Popen)(line, **options)


# Stand in for `subprocess` in modules that start our programs.
FORKING = SimpleNamespace(Popen=ForkedProcess, PIPE=subprocess.PIPE)
FORKING_ALONE = SimpleNamespace(Popen=forked_if_alone, DEVNULL=subprocess.DEVNULL)
