"""The folder that a package is put into."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Literal

from ..packages.metadata import FILE_NAME
from ..packages.trained import NETWORK_FILE, WEIGHTS_FILE
from ..separators.base import ModelError
from .package_tools import MODEL_FILE
from .package_words import README_FILE

Format = Literal["torchscript", "torch-export"]
FORMAT_FILES: dict[Format, str] = {"torchscript": MODEL_FILE, "torch-export": "model.pt2"}


def require_free(folder: Path, formats: Sequence[Format], *, replace: bool) -> None:
    """Refuse a folder with files that those of a package would replace, or be read beside.

    Raises
    ------
    ModelError
        it holds some, and is not to be replaced; or it is a file
    """
    if folder.exists() and not folder.is_dir():
        raise ModelError(f"{folder}: is a file: name a folder for the package")
    files = [FORMAT_FILES[each] for each in formats]
    require_no_other_model(folder, files)
    there = [each for each in (FILE_NAME, README_FILE, *files) if (folder / each).exists()]
    if there and not replace:
        raise ModelError(
            f"{folder}: holds {', '.join(there)}: name another folder, or replace them by --replace"
        )


def require_no_other_model(folder: Path, files: Collection[str]) -> None:
    """Refuse a folder with a model that would be read beside those of the package: ModelError."""
    for name in (NETWORK_FILE, WEIGHTS_FILE, *FORMAT_FILES.values()):
        if name not in files and (folder / name).exists():
            raise ModelError(
                f"{folder}: holds {name}, another model, which this does not replace: remove it, "
                "or name another folder"
            )


def publish(package: Path, folder: Path) -> None:
    """Put the files there, that which makes them a package last."""
    if not folder.exists():
        package.rename(folder)
        return
    for path in sorted(package.iterdir(), key=lambda path: path.name == FILE_NAME):
        path.replace(folder / path.name)
