"""Files appear whole or not at all, and only inside the output folder."""

import os
from pathlib import Path

import pytest

from beamsplitter.transforms import storage
from beamsplitter.transforms.storage import OutputTree, StorageError


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
    with pytest.raises(StorageError, match="leads out of the output folder"):
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


def test_scratch_of_living_runs_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = tmp_path / storage.WORK_FOLDER
    host = storage.socket.gethostname()
    for name in (f"scratch-{host}-{os.getppid()}", f"scratch-{host}-999999999", "scratch-other-1"):
        (work / name).mkdir(parents=True)
    OutputTree(str(tmp_path)).clear_scratch()
    assert {path.name for path in work.iterdir()} == {
        f"scratch-{host}-{os.getppid()}",
        "scratch-other-1",
    }


def test_errors_name_the_file_and_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"nothing\.wav: is not there"):
        storage.read_bytes(str(tmp_path / "nothing.wav"))
    with pytest.raises(StorageError, match="is not a file"):
        storage.stat_file(str(tmp_path))


def test_json_is_the_same_for_the_same_value_and_holds_any_name(tmp_path: Path) -> None:
    tree = OutputTree(str(tmp_path))
    tree.write_json({"b": "å", "a": "\udcff"}, "x.json")
    first = (tmp_path / "x.json").read_bytes()
    tree.write_json({"a": "\udcff", "b": "å"}, "x.json")
    assert (tmp_path / "x.json").read_bytes() == first
    assert storage.json.loads(first) == {"a": "\udcff", "b": "å"}


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
