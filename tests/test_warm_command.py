"""Commands in forks of a warm process do what they do started anew."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Command, dead_letters, result_files
from warm_command import warm_command


def test_the_results_are_those_of_commands_that_start_anew(
    command: Command, write_audio, tmp_path: Path
) -> None:
    folder = write_audio("music/a.wav").parent
    (folder / "b.wav").write_bytes(b"none")
    done, anew = (
        run("separate", folder, "-o", tmp_path / name, "--report", "--workers", 2)
        for run, name in ((command, "warm"), (command.anew, "anew"))
    )
    assert done.returncode == anew.returncode == 1
    assert done.stdout == anew.stdout.replace(str(tmp_path / "anew"), str(tmp_path / "warm"))
    assert dead_letters(tmp_path / "warm") == dead_letters(tmp_path / "anew")
    assert result_files(tmp_path / "warm") == result_files(tmp_path / "anew")


@pytest.mark.parametrize("line", [["--help"], ["separate"], ["run", "no.yaml"], ["config", "x"]])
def test_so_is_what_they_say(command: Command, line: list[str]) -> None:
    done, anew = command(*line), command.anew(*line)
    assert (done.stdout, done.stderr) == (anew.stdout, anew.stderr)
    assert done.returncode == anew.returncode


def test_it_is_forked_but_where_python_is_to_start_otherwise(
    command: Command, tmp_path: Path
) -> None:
    takes = command.warm.takes
    assert takes({**os.environ, "ANY": "x", "PYTHONPATH": str(tmp_path)})
    assert not takes({**os.environ, "PYTHONSAFEPATH": "1"})
    (tmp_path / "sitecustomize.py").touch()
    assert not takes({**os.environ, "PYTHONPATH": str(tmp_path)})


def test_modules_are_found_where_python_is_told_to_look_and_nowhere_else(
    command: Command, write_audio, tmp_path: Path
) -> None:
    path = write_audio("a.wav")
    line = ("separate", path, "-o", tmp_path / "out", "--separator", "separators:Smoothing")
    assert "No module named 'separators'" in command(*line).stderr
    done = command(*line, PYTHONPATH=str(Path(__file__).parent))
    assert done.returncode == 0, done.stderr


def test_an_end_of_the_process_that_forks_is_no_success() -> None:
    with warm_command(imported=()) as warm:
        process = warm.start([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    with pytest.raises(ConnectionError):
        process.wait()
