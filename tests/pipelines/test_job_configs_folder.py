"""Each job file that comes along loads and runs."""

from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Command

JOB_FILES = sorted((Path(__file__).parents[2] / "job-configs").glob("*.yaml"))


def test_there_are_job_files() -> None:
    assert [path.name for path in JOB_FILES] == ["local-folder.yaml"]


def test_local_folder_makes_what_separate_makes(
    write_audio: Callable[..., Path], tmp_path: Path, command: Command
) -> None:
    write_audio("in/song.wav", seconds=2)
    templates = ["-T", f"INPUT={tmp_path / 'in'}", "-T", f"OUTPUT={tmp_path / 'a'}"]
    done = command("run", JOB_FILES[0], *templates)
    assert done.returncode == 0, done.stderr
    assert command("separate", tmp_path / "in", "-o", tmp_path / "b").returncode == 0
    for name in ("background.flac", "foreground.png", "manifest.json"):
        made = [(tmp_path / out / "song" / name).read_bytes() for out in "ab"]
        assert made[0] == made[1]


@pytest.mark.parametrize("path", JOB_FILES, ids=lambda path: path.name)
def test_a_missing_template_value_is_explained(path: Path, command: Command) -> None:
    done = command("run", path, "-T", "INPUT=x")
    assert done.returncode == 2
    assert "'OUTPUT' is missing: give it with --template" in done.stderr
