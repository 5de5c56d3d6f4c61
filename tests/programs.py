"""Programs of Debian's that tests run."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

PACKAGES = Path(__file__).resolve().parents[1] / ".ci" / "packages.txt"


def run_program(name: str, *arguments: object, package: str) -> None:
    """Run a program to its end; raises if it fails.

    On a user's machine that lacks its package the test is skipped; in CI, which installs those that
    `.ci/packages.txt` names, it fails.
    """
    assert package in PACKAGES.read_text().split(), f"name {package} in {PACKAGES}"
    if shutil.which(name) is None:
        missing = f"needs {name}: apt-get install {package}"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    line = [name, *map(str, arguments)]
    done = subprocess.run(line, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, f"{' '.join(line)}: {done.stderr}"
