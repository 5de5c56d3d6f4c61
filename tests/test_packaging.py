"""What an installation and a source distribution hold: all that is here."""

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
FLOORS = ("audio", "storage", "models", "transforms", "pipelines")
IN_BOTH = ("CHANGELOG.md", "py.typed", "__init__.py", "models/registry.yaml")
IN_SOURCES = ("README.md", "LICENSE", "Dockerfile", "Makefile", "constraints.txt", "pyproject.toml")


def files_in(*folders: str) -> set[str]:
    return {
        path.relative_to(ROOT).as_posix()
        for folder in folders
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_a_wheel_and_a_source_distribution_are_whole(tmp_path: Path) -> None:
    sources = tmp_path / "sources"
    # Not where it lies: a build leaves folders behind.
    shutil.copytree(
        ROOT,
        sources,
        ignore=shutil.ignore_patterns(".*", "tests", "benchmarks", "__pycache__", "*.egg-info"),
    )
    done = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(tmp_path), str(sources)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    code = {name for name in files_in(*FLOORS) if name.endswith(".py")}
    data = {*IN_BOTH, *files_in("job-configs")}
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        names = {name.removeprefix("beamsplitter/") for name in wheel.namelist()}
    assert names >= code | data
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert names >= code | data | files_in("docs") | {*IN_SOURCES}
