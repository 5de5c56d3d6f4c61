"""Mistakes in the set-up of models: told with their cure, before anything is fetched or made."""

import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Command
from facts import assert_names
from model_packages import Halves, write_package

from beamsplitter.models.model_cache import CACHE_VARIABLE

WriteAudio = Callable[..., Path]
NO_DEMUCS = "import sys; sys.modules['demucs'] = None"
NO_DEVICE = "device cuda:99: is not on this machine; use auto, or cpu"
EXTRA = "needs demucs, which is not installed: pip install 'beamsplitter[demucs]'"
MODELS_EXTRA = "pip install 'beamsplitter[models]'"
CUT_OFF = "model.pt is not a whole model file: export it again, or fetch it anew"
OTHER = "model.pt is no TorchScript model that torch"


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(write_package(tmp_path_factory.mktemp("models") / "halves", Halves()))


def spoilt(package: Path, how: str, folder: Path) -> Path:
    """A copy of a package whose model is cut off, or something else in a sound archive."""
    folder.mkdir()
    (folder / "metadata.json").write_bytes((package / "metadata.json").read_bytes())
    if how == "cut off":
        data = (package / "model.pt").read_bytes()
        (folder / "model.pt").write_bytes(data[: len(data) // 2])
    else:
        with zipfile.ZipFile(folder / "model.pt", "w") as archive:
            archive.writestr("readme.txt", "no model")
    return folder


@pytest.mark.parametrize("how", ["run", "dry-run"])
@pytest.mark.parametrize("mistake", ["device", "extra", "cut off", "other"])
def test_a_mistake_in_the_set_up_ends_a_job_before_anything_is_made(
    tmp_path: Path,
    write_audio: WriteAudio,
    command: Command,
    package: Path,
    how: str,
    mistake: str,
) -> None:
    write_audio("in/a.wav")
    (tmp_path / "hook").mkdir()
    separator, cure = {
        "device": (package, NO_DEVICE),
        "extra": ("demucs:htdemucs", EXTRA),
        "cut off": (tmp_path / "spoilt", CUT_OFF),
        "other": (tmp_path / "spoilt", OTHER),
    }[mistake]
    if mistake in ("cut off", "other"):
        spoilt(package, mistake, tmp_path / "spoilt")
    if mistake == "extra":
        (tmp_path / "hook" / "sitecustomize.py").write_text(NO_DEMUCS)
    options = ["--device", "cuda:99"] if mistake == "device" else []
    run = command(
        *("separate", tmp_path / "in", "-o", tmp_path / "out", "--separator", separator, *options),
        *(["--dry-run"] if how == "dry-run" else ["--workers", 1]),
        PYTHONPATH=str(tmp_path / "hook"),
        **{CACHE_VARIABLE: str(tmp_path / "cache")},
    )
    assert run.returncode == 2
    assert run.stderr.startswith("error: ")
    assert cure in run.stderr
    assert "run it again" not in run.stderr
    assert "Traceback" not in run.stderr
    assert not (tmp_path / "cache").exists()
    assert not list((tmp_path / "out").glob("*"))


# Not `sys.modules["torch"] = None`, which scipy looks at.
NO_TORCH = """
from importlib.machinery import PathFinder
from pathlib import Path
find = PathFinder.find_spec
def find_others(name, *rest):
    if name != "torch":
        return find(name, *rest)
    Path(__file__).with_name("torch-was-sought").touch()
PathFinder.find_spec = find_others
"""


def without_torch(folder: Path) -> dict[str, str]:
    """The environment of a process that has no torch, as after a plain installation."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(NO_TORCH)
    return {"PYTHONPATH": os.pathsep.join([str(folder), str(Path(__file__).parents[1])])}


@pytest.mark.parametrize("separator", ["nn-filter", "hpss", "separators:Smoothing"])
def test_what_needs_no_torch_runs_without(
    separator: str, tmp_path: Path, write_audio: WriteAudio, command: Command
) -> None:
    path = write_audio("a.wav", seconds=2)
    run = command(
        *("separate", path, "-o", tmp_path / "out", "--separator", separator),
        **without_torch(tmp_path / "hook"),
    )
    assert run.returncode == 0, run.stderr
    # To import it takes seconds, also where it is installed.
    assert not (tmp_path / "hook" / "torch-was-sought").exists()


def test_the_demo_needs_no_torch(tmp_path: Path, command: Command) -> None:
    run = command("demo", "-o", tmp_path / "out", **without_torch(tmp_path / "hook"))
    assert run.returncode == 0, run.stderr
    assert "background: SI-SDR" in run.stderr


@pytest.mark.parametrize(
    ("separator", "facts"),
    [
        ("umx:umxhq", ["umx:umxhq: ", "torch", MODELS_EXTRA]),
        ("demucs:htdemucs", ["demucs:htdemucs: ", "torch", "pip install 'beamsplitter[demucs"]),
        ("torch_separators:Toy", ["torch", MODELS_EXTRA]),
        ("package", ["torch", MODELS_EXTRA]),
        ("htdemucs", ["demucs:htdemucs"]),
    ],
)
def test_what_needs_torch_says_how_to_have_it(
    separator: str,
    facts: list[str],
    tmp_path: Path,
    write_audio: WriteAudio,
    command: Command,
    package: Path,
) -> None:
    path = write_audio("a.wav", seconds=2)
    run = command(
        *("separate", path, "-o", tmp_path / "out"),
        *("--separator", package if separator == "package" else separator),
        **without_torch(tmp_path / "hook"),
    )
    assert run.returncode == 2
    (line,) = run.stderr.splitlines()
    assert_names(line, *facts)
    assert not (tmp_path / "out").exists()
    assert (tmp_path / "hook" / "torch-was-sought").exists() or separator == "htdemucs"


@pytest.mark.parametrize("mistake", ["extra", "cut off", "other"])
def test_models_show_tells_a_mistake_in_the_set_up(
    tmp_path: Path, command: Command, package: Path, mistake: str
) -> None:
    (tmp_path / "hook").mkdir()
    if mistake == "extra":
        (tmp_path / "hook" / "sitecustomize.py").write_text(NO_DEMUCS)
        name, cure = "demucs:htdemucs", EXTRA
    else:
        name = str(spoilt(package, mistake, tmp_path / "spoilt"))
        cure = CUT_OFF if mistake == "cut off" else OTHER
    run = command("models", "show", name, PYTHONPATH=str(tmp_path / "hook"))
    assert (run.returncode, run.stderr[:7]) == (2, "error: ")
    assert cure in run.stderr
    assert "stems" in run.stdout
