"""The page of results: how soon it is seen, and what it costs the jobs that make it.

    python benchmarks/page_speed.py paint [--recordings 10000] [--runs 5]
    python benchmarks/page_speed.py cost --audio FOLDER [--runs 3]

`paint` writes manifests of so many recordings, builds their page, and opens it in Chromium, from
the disk and from a server on loopback: the first paint, and when the table's first rows are there,
from the beginning of the navigation. `cost` runs `separate` on a folder, with and without the page,
one worker, and prints seconds of CPU and bytes of the results.
"""

import argparse
import contextlib
import functools
import http.server
import json
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from measuring import beamsplitter, cost_of
from playwright.sync_api import sync_playwright

from beamsplitter.pipelines.report.building import build_page
from beamsplitter.storage import OutputTree

PAINT = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
ROWS = "tbody tr"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    commands = parser.add_subparsers(dest="command", required=True)
    paint = commands.add_parser("paint")
    paint.add_argument("--recordings", type=int, default=10_000)
    paint.add_argument("--runs", type=int, default=5, help="all are printed")
    paint.add_argument("--chromium", default="/usr/bin/chromium")
    cost = commands.add_parser("cost")
    cost.add_argument("--audio", type=Path, required=True, help="folder of recordings")
    cost.add_argument("--separator", default="nn-filter")
    cost.add_argument("--runs", type=int, default=3, help="of each, in turn; all are printed")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        if options.command == "paint":
            measure_paint(Path(work), options.recordings, options.runs, options.chromium)
        else:
            measure_cost(Path(work), options.audio, options.separator, options.runs)


def measure_paint(out: Path, recordings: int, runs: int, chromium: str) -> None:
    """Build the page of made-up manifests, and open it."""
    write_manifests(out, recordings)
    began = time.process_time()
    build_page(OutputTree(str(out)))
    print(f"{recordings} manifests: {time.process_time() - began:.1f} s of CPU to build the page")
    size = sum(path.stat().st_size for path in (out / "report").iterdir())
    print(f"its data: {size / 1e6:.1f} MB in {len([*(out / 'report').iterdir()])} files")
    with sync_playwright() as tools, served(out) as address:
        browser = tools.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for kind, url in (("disk", (out / "index.html").as_uri()), ("server", address)):
            painted, filled = [], []
            for _ in range(runs):
                page = browser.new_page()
                page.goto(url)
                page.locator(ROWS).first.wait_for()
                filled.append(page.evaluate("performance.now()"))
                painted.append(page.evaluate(PAINT))
                page.close()
            print(
                f"{kind}: first paint {_told(painted)} ms, rows there by {_told(filled)} ms; "
                f"medians {statistics.median(painted):.0f} and {statistics.median(filled):.0f}"
            )
        browser.close()


def _told(values: list[float]) -> str:
    return ", ".join(f"{value:.0f}" for value in values)


def write_manifests(out: Path, recordings: int) -> None:
    """Manifests as long as those of a separation with plots, without their files."""
    for index in range(recordings):
        name = f"album {index // 12:04d}/{index % 12:02d} a song of its own"
        files = [
            {
                "name": f"{stem}.{kind}",
                "branch": branch,
                "stem": stem,
                "sha256": f"{index:064x}",
                "crc32c": "AAAAAA==",
                "size_bytes": 1_000_000 + index,
            }
            for stem in ("background", "foreground")
            for branch, kind in (("stems", "flac"), ("plots", "png"))
        ]
        levels = [
            {"signal": signal, "rms_db": -10.0 - index % 30, "peak_db": -1.0}
            for signal in ("mixture", "background", "foreground")
        ]
        files.append({"name": "report.js", "branch": "report", "stem": None, "levels": levels})
        manifest = {
            "format": 2,
            "input": {"element": f"{name}.flac", "duration_s": 120 + index % 200},
            "branches": {"stems": {"digest": "0", "settings": {"separator": "nn-filter"}}},
            "files": files,
        }
        folder = out / name
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text(json.dumps(manifest, indent=1))


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of the page on a server of this machine."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            """Nothing."""

    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/index.html"
        server.shutdown()


def measure_cost(work: Path, audio: Path, separator: str, runs: int) -> None:
    """Run a job with and without the page, in turn."""
    ways = {"with": [], "without": ["--no-report"], "without copies": ["-O", "report.audio=false"]}
    for run in range(runs):
        told = []
        for way, options in ways.items():
            out = work / "out"
            arguments = (audio, "-o", out, "--separator", separator, "--workers", 1, *options)
            cpu_s = cost_of(*beamsplitter("separate", *arguments)).cpu_s
            size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
            told.append(f"{way} {cpu_s:.1f} s, {size / 1e6:.1f} MB")
            shutil.rmtree(out)
        print(f"run {run + 1}: {'; '.join(told)}", flush=True)


if __name__ == "__main__":
    main()
