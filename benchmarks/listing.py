"""Listing many recordings, against a plain loop over all names: speed, and memory as it grows.

The plain loop is one over `google.cloud.storage.Client.list_blobs` that asks for names only, on the
same server; for files on this machine, one over `os.walk`. Each listing runs in a fresh process,
and so does the server.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from measuring import ONE_THREAD

SERVER = Path(__file__).parents[1] / "tests" / "storage_server.py"
RESULTS = (
    *("background.flac", "background.png", "foreground.flac", "foreground.png", "manifest.json"),
    "spectrogram.png",
)
MANIFEST = json.dumps(
    {"format": 1, "digests": {}, "files": [{"name": name} for name in RESULTS if name[0] in "bfs"]}
)


def in_folders(count: int) -> Iterator[str]:
    for number in range(count):
        yield f"{number // 1000:05}/{number:08}.wav"


def flat(count: int) -> Iterator[str]:
    for number in range(count):
        yield f"{number:08}.wav"


def with_results(count: int) -> Iterator[str]:
    """One recording and its six results in turn, so that a seventh of all is recordings."""
    for number in range(count // (1 + len(RESULTS))):
        yield f"songs/{number:08}.wav"
        for result in RESULTS:
            yield f"stems/songs/{number:08}/{result}"


# How the names are laid out, and the job's output folder, if it lies below the listed one.
CASES = {
    "folders of 1000": (in_folders, None),
    "one flat folder": (flat, None),
    "results in the job's output folder": (with_results, "stems"),
    "results of another job": (with_results, None),
}


@dataclass(frozen=True)
class Listing:
    """What a listing took: seconds, of all and of its processor, and MiB above its start."""

    found: int
    wall_s: float
    cpu_s: float
    peak_mib: float


def recordings(location: str, output: str | None) -> Iterator[str]:
    from beamsplitter.pipelines.events.listing import recordings_of
    from beamsplitter.pipelines.job.event_config import FolderEvents
    from beamsplitter.storage import Storage
    from beamsplitter.transforms.settings import SplitSettings

    folder = FolderEvents(type="folder", location=location)
    return recordings_of(folder, Storage(), output=output, stems=SplitSettings().file_names)


def plain(location: str, _output: str | None) -> Iterator[str]:
    if not location.startswith("gs://"):
        for folder, _, files in os.walk(location):
            for name in files:
                yield f"{folder}/{name}"
        return
    from google.cloud import storage

    bucket, prefix = location.removeprefix("gs://").split("/")
    client = storage.Client.create_anonymous_client()
    fields = "items(name),nextPageToken"
    for blob in client.list_blobs(bucket, prefix=f"{prefix}/", fields=fields):
        yield f"gs://{bucket}/{blob.name}"


def peak_mib() -> float:
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024  # type: ignore[index]


def list_here(way: str, location: str, output: str | None) -> Listing:
    """List in this process, after something small, so that modules and connections are there."""
    # As on a worker.
    import apache_beam.metrics  # noqa: F401

    ways = {"recordings_of": recordings, "plain": plain}
    for _ in ways[way](f"{location}-warm", None):
        pass
    start_mib, started, cpu_started = peak_mib(), time.monotonic(), time.process_time()
    found = sum(1 for _ in ways[way](location, output))
    return Listing(
        found,
        time.monotonic() - started,
        time.process_time() - cpu_started,
        peak_mib() - start_mib,
    )


def best_of(runs: int, way: str, location: str, output: str | None, address: str) -> Listing:
    listings = []
    for _ in range(runs):
        done = subprocess.run(
            [sys.executable, __file__, "--list", way, location, output or ""],
            env={**os.environ, **ONE_THREAD, "STORAGE_EMULATOR_HOST": address},
            stdout=subprocess.PIPE,
            check=True,
        )
        listings.append(Listing(**json.loads(done.stdout)))
    return min(listings, key=lambda listing: listing.wall_s)


@contextmanager
def bucket_of(names: Iterator[str]) -> Iterator[str]:
    """The address of a server whose bucket has these names below `in` and one below `in-warm`."""
    command = [sys.executable, str(SERVER)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as server:
        try:
            assert server.stdin and server.stdout
            server.stdin.write(json.dumps(["in-warm/a.wav", ""]) + "\n")
            for name in names:
                text = MANIFEST if name.endswith(".json") else ""
                server.stdin.write(json.dumps([f"in/{name}", text]) + "\n")
            server.stdin.close()
            yield server.stdout.readline().strip()
        finally:
            server.kill()


def write_files(root: Path, names: Iterator[str]) -> None:
    for name in names:
        path = root / name
        if not path.parent.exists():
            path.parent.mkdir(parents=True)
        path.write_text(MANIFEST if name.endswith(".json") else "")


def report(title: str, count: int, ours: Listing, rival: Listing) -> None:
    print(
        f"{title}, {count} names: {count / ours.wall_s:.0f} names a second "
        f"({ours.found} recordings in {ours.wall_s:.2f} s, {ours.cpu_s:.2f} s of CPU), "
        f"{ours.peak_mib:.1f} MiB above the start; plain loop {count / rival.wall_s:.0f} a second "
        f"({rival.cpu_s:.2f} s of CPU), {rival.peak_mib:.1f} MiB; "
        f"ratio {rival.wall_s / ours.wall_s:.2f}, of CPU {rival.cpu_s / ours.cpu_s:.2f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--names", type=int, nargs="*", default=[10_000, 100_000])
    parser.add_argument("--runs", type=int, default=3, help="of each, in turn; the best counts")
    parser.add_argument("--list", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.list:
        way, location, output = options.list
        print(json.dumps(vars(list_here(way, location, output or None))))
        return
    for title, (names, output) in CASES.items():
        for count in options.names:
            with bucket_of(names(count)) as address:
                place = f"gs://music/in/{output}" if output else None
                ours = best_of(options.runs, "recordings_of", "gs://music/in", place, address)
                rival = best_of(options.runs, "plain", "gs://music/in", None, address)
            report(f"gs://, {title}", count, ours, rival)
    for title, (names, output) in CASES.items():
        for count in options.names:
            with tempfile.TemporaryDirectory() as work:
                folder = Path(work) / "in"
                write_files(folder, names(count))
                write_files(Path(work) / "in-warm", flat(1))
                place = f"{folder}/{output}" if output else None
                ours = best_of(options.runs, "recordings_of", str(folder), place, "")
                rival = best_of(options.runs, "plain", str(folder), None, "")
            report(f"here, {title}", count, ours, rival)


if __name__ == "__main__":
    main()
