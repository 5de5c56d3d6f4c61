"""Benchmarks are run by people only, so that what a change takes from them is found here."""

import os
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(autouse=True)
def own_environment() -> Iterator[None]:
    """Some set how many threads libraries take."""
    with mock.patch.dict(os.environ):
        yield


@pytest.mark.parametrize("name", sorted(path.stem for path in BENCHMARKS.glob("*.py")))
def test_what_benchmarks_import_is_there(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
    runpy.run_path(str(BENCHMARKS / f"{name}.py"), run_name="imported")


def test_the_benchmark_of_the_filter_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It measures private functions of the filter by their names."""
    monkeypatch.setattr(sys, "argv", ["nn_filter_speed.py", "--seconds", "5"])
    runpy.run_path(str(BENCHMARKS / "nn_filter_speed.py"), run_name="__main__")
    assert "yes" in capsys.readouterr().out
