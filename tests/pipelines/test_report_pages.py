"""The page's data: of manifests, of runs while they go on, of graphs, in folders of its own."""

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from conftest import Command, dead_letters
from graph_runs import run_on_files
from storage_server import StorageServer

from beamsplitter.pipelines.report.building import PageTotals, build_page, tell_of_run
from beamsplitter.pipelines.report.copying import copy_page
from beamsplitter.pipelines.report.page_files import ROWS_PER_FILE
from beamsplitter.pipelines.report.watching import WatchedPage
from beamsplitter.pipelines.separate_files import split_job
from beamsplitter.storage import OutputTree, Storage
from beamsplitter.transforms.page_script import page_script, parse_page_script

RATE = 8000
HOSTILE = "<img src=x onerror=alert(1)> '\"&\u2028#?% 名前"


def write(path: Path, seconds: float = 1.0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    times = np.arange(round(seconds * RATE)) / RATE
    soundfile.write(path, 0.3 * np.sin(2 * np.pi * 440 * times), RATE, subtype="PCM_16")


def data_of(out: Path, name: str) -> Any:
    return parse_page_script((out / "report" / name).read_bytes())


def made_tree(out: Path, recordings: int) -> OutputTree:
    """An output tree of manifests only."""
    for index in range(recordings):
        folder = out / f"album {index % 7}/{index:05d}"
        folder.mkdir(parents=True)
        manifest = {
            "format": 2,
            "input": {"element": f"album {index % 7}/{index:05d}.wav", "duration_s": 1.5 + index},
            "branches": {},
            "files": [],
        }
        (folder / "manifest.json").write_text(json.dumps(manifest))
    return OutputTree(str(out))


def rows_of(out: Path) -> list[dict[str, Any]]:
    return [
        row
        for path in sorted((out / "report").glob("rows-*.js"))
        for row in parse_page_script(path.read_bytes())
    ]


@pytest.fixture(scope="module")
def separated(tmp_path_factory: pytest.TempPathFactory, command: Command) -> Path:
    """A folder of results, with a recording that failed."""
    folder = tmp_path_factory.mktemp("separated")
    write(folder / "data/one.wav", 2)
    write(folder / f"data/deep/{HOSTILE}.wav")
    (folder / "data/broken.wav").write_text("no sound")
    done = command(
        "separate",
        folder / "data",
        "-o",
        folder / "out",
        "--separator",
        "hpss",
        "--no-plots",
        "--report",
    )
    assert done.returncode == 1
    assert f"page: {folder}/out/index.html" in done.stderr
    return folder / "out"


def test_a_run_leaves_its_page(separated: Path) -> None:
    told = data_of(separated, "run.js")
    assert (told["state"], told["recordings"], told["failures"]) == ("finished", 2, 1)
    assert told["stems"] == ["harmonic", "percussive"]
    assert told["counts"] == json.loads((separated / "run.json").read_text())["recordings"]
    assert told["wall_s"] > 0 and told["versions"]["beamsplitter"] and told["files_here"]
    rows, facts = data_of(separated, "rows-00000.js"), data_of(separated, "facts-00000.js")
    assert [row["name"] for row in rows] == [f"deep/{HOSTILE}.wav", "one.wav"]
    for row, fact in zip(rows, facts, strict=True):
        folder = separated / row["folder"]
        assert fact["manifest"] == json.loads((folder / "manifest.json").read_text())
        assert row["page"] and (folder / "report.js").exists()
        assert [*row["levels"]] == ["mixture", "harmonic", "percussive"]
    (failure,) = data_of(separated, "failures-00000.js")
    assert failure["element"] == "broken.wav" and "not" in failure["message"]
    assert (separated / "index.html").exists()


def test_the_page_is_the_same_whoever_writes_it(separated: Path, tmp_path: Path) -> None:
    """A launcher, the command, and the graph, which writes it where others run it."""

    def pages(out: Path) -> dict[str, bytes]:
        files = (path for path in (out / "report").iterdir() if path.name != "run.js")
        return {path.name: path.read_bytes() for path in files}

    by_launcher = pages(separated)
    build_page(OutputTree(str(separated)))
    assert pages(separated) == by_launcher
    # Manifests tell their own time: the graph writes a page of these ones.
    out = tmp_path / "out"
    shutil.copytree(separated, out)
    shutil.rmtree(out / "report")
    (out / "run.json").unlink()
    sections: dict[str, Any] = {"separation": {"separator": "hpss"}, "plots": {"enabled": False}}
    job = split_job([separated.parent / "data"], out, report={"enabled": True}, **sections)
    run_on_files(job)
    assert [*dead_letters(out)] == ["broken.wav"]
    assert pages(out) == by_launcher
    # What a service tells at the end is told, too.
    assert data_of(out, "run.js")["counts"] is None
    (out / "run.json").write_text((separated / "run.json").read_text())
    tell_of_run(OutputTree(str(out)))
    told, expected = data_of(out, "run.js"), data_of(separated, "run.js")
    assert {**told, "updated": None} == {**expected, "updated": None}


def test_a_job_without_recordings_has_a_page(tmp_path: Path) -> None:
    (tmp_path / "broken.wav").write_text("no sound")
    job = split_job([tmp_path / "broken.wav"], tmp_path / "out", report={"enabled": True})
    run_on_files(job)
    told = data_of(tmp_path / "out", "run.js")
    assert (told["recordings"], told["failures"]) == (0, 1)


def test_many_recordings_come_in_pages(tmp_path: Path) -> None:
    tree = made_tree(tmp_path / "out", 2 * ROWS_PER_FILE + 50)
    (tmp_path / "out/album 3/00003/manifest.json").write_text("{")
    totals = build_page(tree)
    files = sorted((tmp_path / "out/report").glob("rows-*.js"))
    assert [len(parse_page_script(path.read_bytes())) for path in files] == [200, 200, 49]
    assert totals.recordings == totals.without_page == 449
    rows = rows_of(tmp_path / "out")
    assert rows == sorted(rows, key=lambda row: row["folder"])
    # What is gone by the next time is gone from the page.
    for folder in ("album 1", "album 2", "album 4", "album 5"):
        shutil.rmtree(tmp_path / "out" / folder)
    assert build_page(tree).recordings == len(rows_of(tmp_path / "out")) < 200


def test_totals_add_up() -> None:
    row = {"duration_s": 2.0, "levels": {"mixture": -3, "a": -6}, "scores": {"b": {"sdr": 1}}}
    totals = PageTotals()
    totals.add({**row, "labels": [], "page": True})
    other = PageTotals(3, 2, 5.0, {"a": None, "c": None}, {}, True)
    assert totals + other == PageTotals(
        4, 2, 7.0, {"a": None, "b": None, "c": None}, {"sdr": None}, True
    )


def test_names_that_are_no_text_are_told(tmp_path: Path) -> None:
    out = tmp_path / "out"
    folder = os.path.join(os.fsencode(out), b"caf\xe9")
    os.makedirs(folder)
    manifest = {"input": {"element": "caf\udce9.wav", "duration_s": 1}, "branches": {}, "files": []}
    with open(os.path.join(folder, b"manifest.json"), "w") as file:
        json.dump(manifest, file)
    build_page(OutputTree(str(out)))
    (row,) = rows_of(out)
    assert (row["folder"], row["name"]) == ("caf\udce9", "caf\udce9.wav")


def test_a_script_can_hold_anything() -> None:
    content = {"name": f"</script>{HOSTILE}", "numbers": [1, None, 0.5]}
    data = page_script(content)
    assert b"</" not in data and "\u2028" not in data.decode()
    assert parse_page_script(data) == content
    with pytest.raises(ValueError):
        parse_page_script(b"alert(1)")


def test_the_page_is_there_while_the_job_runs(
    separated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("beamsplitter.pipelines.report.watching.REFRESH_S", 0.0)
    out = tmp_path / "out"
    shutil.copytree(separated, out)
    shutil.rmtree(out / "report")
    page = WatchedPage(split_job([separated.parent / "data"], out), 3)
    page.take(None)
    assert (data_of(out, "run.js")["state"], data_of(out, "run.js")["recordings"]) == ("running", 0)
    for _ in range(2):
        page.take({"event": "finished", "element": "one.wav", "folder": "one"})
    told = data_of(out, "run.js")
    assert told["counts"] == {"finished": 1, "failed": 0, "total": 3}
    assert [row["name"] for row in rows_of(out)] == ["one.wav"]
    failure = {"element": "broken.wav", "step": "LoadAudio", "exception": "E", "message": "no"}
    page.take({"event": "failed", **failure})
    assert data_of(out, "failures-00000.js") == [failure]


def test_a_job_that_is_interrupted_says_so(tmp_path: Path, command: Command) -> None:
    for index in range(40):
        write(tmp_path / f"data/{index:02d}.wav", 20)
    out = tmp_path / "out"
    line = command.line("separate", tmp_path / "data", "-o", out, "--report", "--workers", 1)
    with subprocess.Popen(line, stderr=subprocess.DEVNULL) as process:
        while not (out / "run.json").exists() and not [*out.glob("*/manifest.json")]:
            time.sleep(0.1)
        assert data_of(out, "run.js")["state"] == "running"
        process.send_signal(signal.SIGINT)
    told = data_of(out, "run.js")
    assert told["state"] == "stopped"
    assert told["recordings"] == len(rows_of(out)) < 40


def test_a_copy_can_be_sent(separated: Path, tmp_path: Path) -> None:
    copy_page(OutputTree(str(separated)), OutputTree(str(tmp_path / "copy")))
    copied = {str(path.relative_to(tmp_path / "copy")) for path in (tmp_path / "copy").rglob("*.*")}
    assert not [name for name in copied if name.endswith((".flac", "manifest.json"))]
    assert {"index.html", "one/report.js", "one/report-00000.js"} <= copied
    assert data_of(tmp_path / "copy", "run.js")["files_here"] is False
    assert rows_of(tmp_path / "copy") == rows_of(separated)


def test_two_runs_are_compared(separated: Path, tmp_path: Path, command: Command) -> None:
    other, page = tmp_path / "out", tmp_path / "page"
    shutil.copytree(separated, other)
    done = command("report", separated, other, "--to", page)
    assert (done.returncode, done.stdout) == (0, f"page: {page}/index.html\n")
    told = data_of(page, "run.js")
    # Both are called alike: their whole paths tell which is which.
    assert told["compare"] == [
        {"name": str(separated), "path": "a"},
        {"name": str(other), "path": "b"},
    ]
    assert rows_of(page / "a") == rows_of(page / "b") == rows_of(separated)


def test_what_was_made_without_is_made_later(tmp_path: Path, command: Command) -> None:
    write(tmp_path / "data/a.wav")
    write(tmp_path / "more/b.wav")
    out = tmp_path / "out"
    arguments = ("-o", out, "--separator", "hpss", "--no-plots", "--no-report")
    for folder in ("data", "more"):
        assert command("separate", tmp_path / folder, *arguments).returncode == 0
    assert not (out / "index.html").exists()
    written = {path: path.stat().st_mtime_ns for path in out.rglob("*.flac")}
    done = command("report", out)
    assert "2 of 2 recordings have nothing to play" in done.stdout
    assert [row["page"] for row in rows_of(out)] == [False, False]
    done = command("report", out, "--complete")
    assert (done.returncode, done.stdout) == (0, f"page: {out}/index.html\n")
    assert [row["page"] for row in rows_of(out)] == [True, True]
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.flac")} == written


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["{out}", "--to", "{out}/page"], "--to: name a folder that is not in"),
        (["{out}", "{out}", "--to", "{tmp}/page"], "is named twice"),
        (["{out}", "{tmp}"], "--to: say where the page of two folders goes"),
        (["{out}", "{tmp}", "{tmp}/x"], "compares two folders of results at most"),
        (["{tmp}/nothing"], "no such folder"),
        (["{tmp}"], "holds no results: no manifest.json lies in a folder below it"),
    ],
)
def test_mistakes_are_told(
    arguments: list[str], complaint: str, separated: Path, tmp_path: Path, command: Command
) -> None:
    done = command("report", *(each.format(out=separated, tmp=tmp_path) for each in arguments))
    assert done.returncode == 2
    assert complaint in done.stderr and "Traceback" not in done.stderr


def test_a_bucket_has_one(gcs: StorageServer, tmp_path: Path) -> None:
    write(tmp_path / "data/a b.wav")
    out = f"gs://{gcs.bucket.name}/out"
    sections: dict[str, Any] = {"separation": {"separator": "hpss"}, "plots": {"enabled": False}}
    run_on_files(split_job([tmp_path / "data"], out, report={"enabled": True}, **sections))
    storage = Storage()
    (row,) = parse_page_script(storage.read(f"{out}/report/rows-00000.js"))
    assert row["folder"] == "a b"
    # Browsers run nothing that is called something else.
    for name, kind in (("index.html", "text/html"), ("a b/report.js", "text/javascript")):
        assert gcs.bucket.get_blob(f"out/{name}").content_type == kind
    copy = OutputTree(str(tmp_path / "copy"))
    copy_page(OutputTree(out), copy)
    assert (tmp_path / "copy/a b/report.js").read_bytes() == storage.read(f"{out}/a b/report.js")
