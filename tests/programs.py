"""Programs of Debian's that tests run."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

PACKAGES = Path(__file__).resolve().parents[1] / ".ci" / "packages.txt"


def find_program(name: str, *, package: str) -> str:
    """The path of a program.

    On a user's machine that lacks its package the test is skipped; in CI, which installs those that
    `.ci/packages.txt` names, it fails.
    """
    assert package in PACKAGES.read_text().split(), f"name {package} in {PACKAGES}"
    path = shutil.which(name)
    if path is None:
        missing = f"needs {name}: apt-get install {package}"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    return path


def run_program(name: str, *arguments: object, package: str) -> None:
    """Run a program to its end, or skip the test (`find_program`); raises if it fails."""
    line = [find_program(name, package=package), *map(str, arguments)]
    done = subprocess.run(line, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, f"{' '.join(line)}: {done.stderr}"
