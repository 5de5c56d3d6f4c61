"""Beam's own job server and worker pool, on loopback, each in a process of its own."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc

START_LIMIT_S = 60


@dataclass(frozen=True)
class PortableServer:
    """Addresses, for `job_endpoint` and for `environment_config`."""

    job_server: str
    worker_pool: str


@contextmanager
def serving(folder: Path) -> Iterator[PortableServer]:
    """Both servers; what they print goes into the folder."""
    ports = free_port(), free_port()
    programs = (
        ("runners.portability.local_job_service_main", f"--port={ports[0]}"),
        ("runners.worker.worker_pool_main", f"--service_port={ports[1]}"),
    )
    # The pool starts `python`: that of this environment, as in a container.
    path = os.pathsep.join((os.path.dirname(sys.executable), os.environ["PATH"]))
    processes = []
    try:
        for module, port in programs:
            with open(folder / f"{module}.log", "wb") as log:
                command = [sys.executable, "-m", f"apache_beam.{module}", port]
                environment = {**os.environ, "PATH": path}
                processes.append(
                    subprocess.Popen(
                        command, stdout=log, stderr=log, env=environment, start_new_session=True
                    )
                )
        for process, port in zip(processes, ports, strict=True):
            wait_for(f"localhost:{port}", process)
        yield PortableServer(*(f"localhost:{port}" for port in ports))
    finally:
        for process in processes:
            # With the workers that it started.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait_for(address: str, process: subprocess.Popen[bytes]) -> None:
    with grpc.insecure_channel(address) as channel:
        grpc.channel_ready_future(channel).result(timeout=START_LIMIT_S)
    assert process.poll() is None


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port
