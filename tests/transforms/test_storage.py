"""Files appear whole or not at all, and only inside the output folder."""

import functools
import itertools
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from beamsplitter import storage
from beamsplitter.storage import OutputTree, Storage, StorageError, local_files


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_file_is_there_only_when_it_is_complete(tmp_path: Path) -> None:
    tree = OutputTree(str(tmp_path))
    with tree.writing("a", "b.txt") as file:
        file.write(b"content")
        assert not (tmp_path / "a" / "b.txt").exists()
    tree.clear_scratch()
    assert files_below(tmp_path) == {"a/b.txt"}
    assert not (tmp_path / storage.WORK_FOLDER).exists()


def test_an_exception_leaves_what_was_there(tmp_path: Path) -> None:
    tree = OutputTree(str(tmp_path))
    tree.write(b"old", "b.txt")
    with pytest.raises(ZeroDivisionError), tree.writing("b.txt") as file:
        file.write(b"new")
        raise ZeroDivisionError
    assert (tmp_path / "b.txt").read_bytes() == b"old"
    assert files_below(tmp_path) == {"b.txt"}


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/x", "a\0b", ".."])
def test_names_that_lead_out_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(StorageError, match="leads out of"):
        OutputTree(str(tmp_path)).path(name)


def test_files_get_the_permissions_of_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        OutputTree(str(tmp_path)).write(b"", "f")
    finally:
        os.umask(before)
    assert (tmp_path / "f").stat().st_mode & 0o777 == 0o640


def test_removing_takes_empty_folders_along_but_not_others(tmp_path: Path) -> None:
    tree = OutputTree(str(tmp_path))
    tree.write(b"", "a", "b", "c")
    tree.write(b"", "a", "d")
    tree.remove("a", "b", "c")
    tree.remove("a", "b", "c")
    tree.clear_scratch()
    assert files_below(tmp_path) == {"a/d"} and not (tmp_path / "a" / "b").exists()


@pytest.fixture
def living_run(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that owns scratch files below `tmp_path`, with files of parts.

    It is in a container of its own, where its number means nothing to others, if that can be had.
    """
    program = (
        "import os, sys\n"
        "from beamsplitter.storage import OutputTree, scratch_names\n"
        "tree = OutputTree(sys.argv[1])\n"
        "with tree.owned_scratch():\n"
        "    tree.write(b'part', *scratch_names(), 'parts', 'x')\n"
        "    os.environ['BEAMSPLITTER_RUN'] += '.7'\n"
        "    tree.write(b'part', *scratch_names(), 'parts', 'x')\n"
        "    print(flush=True)\n"
        "    sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    container = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    if shutil.which("unshare") and not subprocess.run([*container, "true"]).returncode:
        command = [*container, *command]
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


def test_scratch_of_a_run_stays_while_it_lives(
    tmp_path: Path, living_run: subprocess.Popen[str]
) -> None:
    OutputTree(str(tmp_path)).clear_left_scratch()
    assert len([path for path in files_below(tmp_path) if path.endswith("parts/x")]) == 2
    living_run.kill()
    living_run.wait()
    wait_for(lambda: cleared(tmp_path))


def asked(answers: Iterator[bool], lock: Path) -> bool:
    """Whether a lock is left, as if it was let go after some answers."""
    return lock.exists() and next(answers)


def test_scratch_of_a_run_that_ends_meanwhile_is_not_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whenever its lock is let go: without one, its files would stay until they are old."""
    work = tmp_path / storage.WORK_FOLDER
    name = f"scratch-{socket.gethostname()}-01"
    for held_for in range(4):
        for folder in (name, f"{name}.7"):
            (work / folder / "parts").mkdir(parents=True)
        (work / f"{name}.lock").touch()
        answers = itertools.chain([False] * held_for, itertools.repeat(True))
        monkeypatch.setattr(local_files, "_is_over", functools.partial(asked, answers))
        for _ in range(held_for + 1):
            OutputTree(str(tmp_path)).clear_left_scratch()
        assert not work.exists()


def cleared(folder: Path) -> bool:
    OutputTree(str(folder)).clear_left_scratch()
    return not (folder / storage.WORK_FOLDER).exists()


def wait_for(condition: Callable[[], bool]) -> None:
    limit_s = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < limit_s
        time.sleep(0.05)


def test_a_run_takes_its_scratch_along(tmp_path: Path, living_run: subprocess.Popen[str]) -> None:
    living_run.communicate("")
    assert living_run.returncode == 0
    assert not (tmp_path / storage.WORK_FOLDER).exists()


def test_scratch_of_other_hosts_goes_by_age(tmp_path: Path) -> None:
    work = tmp_path / storage.WORK_FOLDER
    for name in ("scratch-other-01", "scratch-old-02", f"scratch-{socket.gethostname()}-03"):
        (work / name / "parts").mkdir(parents=True)
    for host in ("other", "old"):
        (work / f"scratch-{host}-02.lock").touch()
    a_month_ago_s = time.time() - 31 * 24 * 3600
    for path in (work / "scratch-old-02" / "parts", work / "scratch-old-02"):
        os.utime(path, (a_month_ago_s, a_month_ago_s))
    OutputTree(str(tmp_path)).clear_left_scratch()
    folders = {path.name for path in work.iterdir() if path.is_dir()}
    assert folders == {"scratch-other-01", f"scratch-{socket.gethostname()}-03"}


def test_errors_name_the_file_and_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"nothing\.wav: is not there"):
        Storage().read(str(tmp_path / "nothing.wav"))
    with pytest.raises(StorageError, match="is not a file"):
        Storage().stat(str(tmp_path))


def test_json_is_the_same_for_the_same_value_and_holds_any_name(tmp_path: Path) -> None:
    tree = OutputTree(str(tmp_path))
    tree.write_json({"b": "å", "a": "\udcff"}, "x.json")
    first = (tmp_path / "x.json").read_bytes()
    tree.write_json({"a": "\udcff", "b": "å"}, "x.json")
    assert (tmp_path / "x.json").read_bytes() == first
    assert json.loads(first) == {"a": "\udcff", "b": "å"}


def test_a_folder_that_another_run_removes_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / storage.WORK_FOLDER).mkdir()
    makedirs, removals = os.makedirs, iter([True, True, False, True, False])

    def made_and_removed(folder: str, exist_ok: bool = False) -> None:
        makedirs(folder, exist_ok=exist_ok)
        if next(removals):
            os.rmdir(folder)

    monkeypatch.setattr(os, "makedirs", made_and_removed)
    OutputTree(str(tmp_path)).write(b"content", "a", "b")
    assert (tmp_path / "a" / "b").read_bytes() == b"content"
