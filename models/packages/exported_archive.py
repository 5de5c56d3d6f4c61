"""The file of an exported model, read as data; it needs no torch."""

import json
import zipfile
from pathlib import Path
from typing import Any

from .shape_limits import ShapeLimits

SCHEMA_MAJOR = 8
# What a file that is something else, or is damaged, makes of its reading.
MALFORMED = (
    ArithmeticError,
    AttributeError,
    LookupError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    zipfile.BadZipFile,
)


class RefusedError(Exception):
    """The file is well-formed but holds what isn't allowed or known."""


class ExportedArchive:
    """The files of an archive, below its one root folder."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self._root = archive.namelist()[0].split("/")[0]

    def read(self, name: str) -> bytes:
        """RefusedError if it is compressed, and may be larger than memory."""
        entry = self._archive.getinfo(f"{self._root}/{name}")
        if entry.compress_type != zipfile.ZIP_STORED:
            raise RefusedError(f"holds {name} compressed, which torch never does")
        return self._archive.read(entry)

    def read_json(self, name: str) -> Any:
        """What a document holds."""
        return json.loads(self.read(name))

    def read_program(self) -> Any:
        """The document of the graph; RefusedError if it is of another version of the format."""
        program = self.read_json("models/model.json")
        version = program["schema_version"]
        if version["major"] != SCHEMA_MAJOR:
            raise RefusedError(
                f"has version {version['major']} of the format, and {SCHEMA_MAJOR} is known"
            )
        return program


def limits_of(program: Any) -> ShapeLimits:
    """The shapes that its input may have.

    Raises
    ------
    RefusedError
        it does not take just one tensor
    """
    specs = program["graph_module"]["signature"]["input_specs"]
    users = [spec["user_input"]["arg"] for spec in specs if "user_input" in spec]
    if len(users) != 1 or "as_tensor" not in users[0]:
        raise RefusedError(f"takes {len(users)} inputs, and not one tensor")
    return ShapeLimits(
        program["graph_module"]["graph"]["tensor_values"][users[0]["as_tensor"]["name"]]["sizes"],
        program["range_constraints"],
        program.get("guards_code", []),
    )


def can_take_samples(path: Path, samples: int) -> bool:
    """Whether a file is of a model for blocks of that length; true of one that can't be read.

    Parameters
    ----------
    path
        a file by `torch.export.save`
    samples
        of a block of one channel or two, or of as many as the model is fixed to
    """
    try:
        with zipfile.ZipFile(path) as archive:
            limits = limits_of(ExportedArchive(archive).read_program())
        channels = {1, 2, limits.fixed[0] or 1}
        return any(limits.complaint((each, samples)) is None for each in channels)
    except (RefusedError, *MALFORMED):
        return True
