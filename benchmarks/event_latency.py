"""How soon a stream on one machine answers an event, and how many it works through.

Seconds from publishing an event to its recording's manifest, when the stream is idle; events a
second when many wait; the time to start; and the memory of the launcher as events go by.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import soundfile

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from pubsub_server import PubSubServer, available_servers, serving

from beamsplitter.transforms.klio.message import new_message

SAMPLE_RATE = 16000
DIFFERENT = 20


def write_recordings(folder: Path, count: int, seconds: float) -> list[str]:
    """Recordings of noise and a tone; every 20th is a copy of the first."""
    folder.mkdir()
    names = [f"{number:05d}.wav" for number in range(count)]
    time_s = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    for number, name in enumerate(names):
        if number >= DIFFERENT:
            shutil.copyfile(folder / names[number % DIFFERENT], folder / name)
            continue
        noise = np.random.default_rng(number).standard_normal(time_s.size) * 0.02
        tone = 0.3 * np.sin(2 * np.pi * (200 + 20 * number) * time_s) * (time_s % 0.5 < 0.2)
        soundfile.write(folder / name, tone + noise, SAMPLE_RATE)
    return names


def wait_until(condition: Callable[[], object]) -> None:
    while not condition():
        time.sleep(0.005)


class Stream:
    """A running stream: its results, and its log."""

    def __init__(self, process: psutil.Popen, out: Path, log: Path) -> None:
        self.process = process
        self.out = out
        self.log = log

    def has(self, name: str) -> bool:
        return (self.out / Path(name).stem / "manifest.json").exists()

    def count(self, event: str) -> int:
        return self.log.read_text().count(f'"event": "{event}"')

    def launcher_mib(self) -> float:
        return float(self.process.memory_full_info().uss / 2**20)


@contextmanager
def streaming(work: Path, server: PubSubServer, subscription: str, options: object) -> Iterator:
    log, out, job = work / "log", work / "out", work / "job.yaml"
    plain = {
        "job_name": "latency",
        "pipeline_options": {"runner": "DirectRunner", "streaming": True},
        "job_config": {
            "events": {"inputs": [{"type": "pubsub", "subscription": subscription}]},
            "data": {
                "inputs": [{"type": "file", "location": str(work / "in")}],
                "outputs": [{"type": "file", "location": str(out)}],
            },
        },
        "plots": {"enabled": options.plots},
    }
    job.write_text(json.dumps(plain))
    command = [sys.executable, "-m", "beamsplitter.pipelines.command_line", "run", str(job)]
    with open(log, "wb") as file:
        process = psutil.Popen(
            [*command, "--workers", str(options.workers), "--log-format", "json"],
            stdout=file,
            env={**os.environ, "PUBSUB_EMULATOR_HOST": server.address},
        )
    try:
        yield Stream(process, out, log)
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", choices=available_servers(), default=available_servers()[0])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=3.0, help="length of a recording")
    parser.add_argument("--single", type=int, default=10, help="events one by one")
    parser.add_argument("--waiting", type=int, default=500, help="events at once")
    parser.add_argument("--known", type=int, default=5000, help="events about finished recordings")
    parser.add_argument("--plots", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, serving(options.server) as server:
        work = Path(folder)
        names = write_recordings(work / "in", 1 + options.single + options.waiting, options.seconds)
        topic = server.topic()
        subscription = server.subscription(topic)

        def publish(*elements: str) -> None:
            for element in elements:
                server.publish(topic, new_message(element).SerializeToString())

        publish(names[0])
        started = time.monotonic()
        with streaming(work, server, subscription, options) as stream:
            wait_until(lambda: stream.count("listening"))
            listening_s = time.monotonic() - started
            wait_until(lambda: stream.has(names[0]))
            first_s = time.monotonic() - started
            print(f"start: listens after {listening_s:.1f} s, first result after {first_s:.1f} s")

            latencies_s = []
            for name in names[1 : 1 + options.single]:
                time.sleep(0.5)
                published = time.monotonic()
                publish(name)
                wait_until(lambda name=name: stream.has(name))
                latencies_s.append(time.monotonic() - published)
            print(
                f"one event, idle stream: median {statistics.median(latencies_s):.2f} s, "
                f"from {min(latencies_s):.2f} to {max(latencies_s):.2f} s",
                flush=True,
            )

            before = stream.count("finished")
            publish(*names[1 + options.single :])
            published = time.monotonic()
            wait_until(lambda: stream.count("finished") >= before + options.waiting)
            rate = options.waiting / (time.monotonic() - published)
            print(f"{options.waiting} events of {options.seconds:g} s waiting: {rate:.1f} a second")

            memory_mib = stream.launcher_mib()
            before = stream.count("finished")
            published = time.monotonic()
            publish(*(names[index % len(names)] for index in range(options.known)))
            wait_until(lambda: stream.count("finished") >= before + options.known)
            rate = options.known / (time.monotonic() - published)
            print(f"{options.known} events about finished recordings: {rate:.0f} a second")
            print(
                f"launcher's memory: {memory_mib:.1f} MiB before them, "
                f"{stream.launcher_mib():.1f} MiB after"
            )


if __name__ == "__main__":
    main()
