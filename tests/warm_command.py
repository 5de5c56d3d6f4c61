"""The command `beamsplitter` in a process forked from one that has imported it.

Most of a short job's time goes into its imports, twice: in the launcher, and in the engine that it
starts. A test that runs a command to its end runs it so; the launcher and the engine are processes
as they are elsewhere, and are told what to do as they are elsewhere, by the command line, the
environment and the files of a spec. Where Python itself is told to start otherwise, and in tests
that stop, kill or watch a command, it is started as a user starts it.
"""

import contextlib
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

START = """
import gc, importlib.util, sys
gc.disable()
sys.path.insert(0, sys.argv[1])
import warm_command
del sys.path[0]
arguments = warm_command.wait_for_a_command(int(sys.argv[2]))
warm_command.use_forked_engines()
# As of a process of `-m`: Lightning starts others by it, and the command is called by it.
__spec__ = importlib.util.find_spec("beamsplitter.pipelines.command_line")
__package__ = __spec__.parent
sys.argv[:] = [__spec__.origin, *arguments]
from beamsplitter.pipelines.command_line import main
main()
"""
# A program that does what the command does, by its first line's interpreter.
STAND_IN = """#!{python} -I
import sys
sys.path.insert(0, {here!r})
import os
from warm_command import WarmCommand
done = WarmCommand({address!r}).run(sys.argv[1:], os.environ, 600)
sys.stdout.write(done.stdout)
sys.stderr.write(done.stderr)
sys.exit(done.returncode)
"""
# What only a process that starts anew would heed.
OF_A_START = ("PYTHON", "LD_", "MALLOC_")
MODULES = "PYTHONPATH"
# It would be imported before all others.
HOOK = "sitecustomize.py"
REQUEST = "request.json"
STREAMS = ("stdout", "stderr")


class WarmCommand:
    """Runs commands in forks of a process that waits for them."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.environment = of_a_start(os.environ)

    def takes(self, environment: Mapping[str, str]) -> bool:
        """Whether a fork can be what a new process with such variables would be."""
        hooks = (Path(folder, HOOK) for folder in module_folders(environment))
        return of_a_start(environment) == self.environment and not any(map(Path.exists, hooks))

    def run(
        self, arguments: list[str], environment: Mapping[str, str], timeout_s: float
    ) -> subprocess.CompletedProcess[str]:
        """Run the command to its end, as `subprocess.run` does."""
        with (
            tempfile.TemporaryDirectory(prefix="command-") as name,
            socket.socket(socket.AF_UNIX) as connection,
        ):
            folder = Path(name)
            request = {
                "arguments": arguments,
                "environment": {**environment},
                "folder": os.getcwd(),
            }
            (folder / REQUEST).write_text(json.dumps(request))
            connection.connect(self.address)
            answers = connection.makefile("r")
            connection.sendall(f"{folder}\n".encode())
            process = int(answers.readline())
            connection.settimeout(timeout_s)
            try:
                code = int(answers.readline())
            except TimeoutError:
                os.kill(process, signal.SIGKILL)
                raise subprocess.TimeoutExpired(arguments, timeout_s) from None
            texts = [(folder / stream).read_text() for stream in STREAMS]
        return subprocess.CompletedProcess(arguments, code, *texts)

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


@contextlib.contextmanager
def warm_command() -> Iterator[WarmCommand]:
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
                [sys.executable, "-c", START, here, str(listener.fileno())],
                pass_fds=[listener.fileno()],
                env={**plain, **PATIENT_THREADS},
            )
        try:
            yield WarmCommand(address)
        finally:
            process.kill()
            process.wait()


def wait_for_a_command(listener_number: int) -> list[str]:
    """Import what commands need; return its arguments in a fork that is to run one."""
    import torch  # noqa: F401

    import beamsplitter.audio.drawing
    import beamsplitter.pipelines.command_line
    import beamsplitter.pipelines.local.engine
    import beamsplitter.transforms.separation  # noqa: F401

    gc.collect()
    gc.freeze()
    listener = socket.socket(fileno=listener_number)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        connection, _ = listener.accept()
        # It waits for the command and tells its end, while this process takes the next.
        if os.fork() == 0:
            break
        connection.close()
    listener.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    folder = Path(connection.makefile("r").readline().rstrip("\n"))
    process = os.fork()
    if process == 0:
        connection.close()
        return become(folder)
    with contextlib.suppress(BrokenPipeError):
        connection.sendall(f"{process}\n".encode())
        _, status = os.waitpid(process, 0)
        connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os._exit(0)


def become(folder: Path) -> list[str]:
    """Take on what a new process would be given, of a request; gives the arguments."""
    request: dict[str, Any] = json.loads((folder / REQUEST).read_text())
    paths = (os.devnull, *(folder / stream for stream in STREAMS))
    for number, path in enumerate(paths):
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(file, number)
        os.close(file)
    set_environment(request["environment"])
    os.chdir(request["folder"])
    # Before them stands the folder that the process is in.
    sys.path[1:1] = module_folders(request["environment"])
    arguments: list[str] = request["arguments"]
    gc.enable()
    return arguments


def set_environment(environment: Mapping[str, str]) -> None:
    """Replace the environment variables of this process."""
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None
    time.tzset()


def use_forked_engines() -> None:
    """Have the launcher fork its engines from itself."""
    from beamsplitter.pipelines.local import launch

    launch.subprocess = SimpleNamespace(Popen=ForkedProcess)  # type: ignore[attr-defined]


class ForkedProcess:
    """What `subprocess.Popen` is to the launcher: a process that runs a program, forked."""

    def __init__(
        self, command: list[str], *, stdout: Any, stderr: Any, env: Any, start_new_session: bool
    ) -> None:
        assert command[:2] == [sys.executable, "-c"] and start_new_session
        self.returncode: int | None = None
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.setsid()
                os.dup2(stdout.fileno(), 1)
                os.dup2(stderr.fileno(), 2)
                set_environment(env)
                sys.argv[:] = ["-c", *command[3:]]
                main = vars(sys.modules["__main__"])
                main.update(__spec__=None, __package__=None)
                exec(command[2], main)
            except BaseException:
                traceback.print_exc()
                sys.stderr.flush()
            os._exit(1)

    def poll(self) -> int | None:
        """The exit code, if it has ended."""
        return self._wait(os.WNOHANG)

    def wait(self) -> int | None:
        """The exit code, once it has ended."""
        return self._wait(0)

    def _wait(self, options: int) -> int | None:
        if self.returncode is None:
            process, status = os.waitpid(self.pid, options)
            if process:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode
