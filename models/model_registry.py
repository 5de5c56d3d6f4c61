"""The known models: their files with addresses and digests, their stems and licences.

The registry of the project is `registry.yaml` beside this module. Users name files of their own in
BEAMSPLITTER_MODEL_REGISTRY; an entry there hides one of the same name in a later file.
"""

import difflib
import os
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ..validation import problems_of
from .separators.base import ModelError

REGISTRY_VARIABLE = "BEAMSPLITTER_MODEL_REGISTRY"
PACKAGED_REGISTRY = Path(__file__).with_name("registry.yaml")
PACKAGE_METADATA = "metadata.json"
PACKAGE_MODELS = ("model.pt2", "model.pt")
# Without separators of folders, and never hidden: a name becomes a path in the cache.
_WORD = r"[A-Za-z0-9][A-Za-z0-9._+-]*"
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://[^/\s]\S*")


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelFile(_Section):
    """A file of a model.

    Parameters
    ----------
    name
        the file's name in the cache, and on a mirror
    address
        where it is published: with a scheme, or an absolute path
    sha256
        digest in hexadecimal, or its first 8 digits or more
    """

    name: Annotated[str, Field(pattern=f"^{_WORD}$", max_length=200)]
    address: str
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{8,64}$")]

    @field_validator("address")
    @classmethod
    def _address_is_absolute(cls, address: str) -> str:
        if not _ADDRESS.fullmatch(address) and not os.path.isabs(address):
            raise ValueError(f"{address!r} is neither an address with a scheme nor absolute")
        return address


class ModelEntry(_Section):
    """A known model.

    Parameters
    ----------
    name
        what a job file calls it; for weights with their separator, `demucs:htdemucs`
    kind
        weights of a separator of this project, or a model package
    stems
        the names of its stems, in the order of the output
    sample_rate
        Hz
    files
        in the order in which its separator takes them
    """

    name: Annotated[str, Field(pattern=f"^{_WORD}(:{_WORD})?$", max_length=100)]
    kind: Literal["weights", "package"] = "weights"
    summary: str
    stems: tuple[str, ...]
    sample_rate: Annotated[int, Field(gt=0)]
    licence: str
    homepage: str
    files: Annotated[tuple[ModelFile, ...], Field(min_length=1)]

    @field_validator("files")
    @classmethod
    def _files_have_names_of_their_own(cls, files: tuple[ModelFile, ...]) -> tuple[ModelFile, ...]:
        if twice := _repeated(file.name for file in files):
            raise ValueError(f"two files are called {twice}")
        return files

    @model_validator(mode="after")
    def _kind_has_its_files(self) -> "ModelEntry":
        names = {file.name for file in self.files}
        if self.kind == "weights" and ":" not in self.name:
            raise ValueError(f"{self.name!r}: weights are named SEPARATOR:MODEL")
        if self.kind == "package" and ":" in self.name:
            raise ValueError(f"{self.name!r}: the name of a package has no colon")
        if self.kind == "package" and not (
            PACKAGE_METADATA in names and names.intersection(PACKAGE_MODELS)
        ):
            raise ValueError(
                f"a package has the files {PACKAGE_METADATA} and {' or '.join(PACKAGE_MODELS)}"
            )
        return self


class _Registry(_Section):
    models: tuple[ModelEntry, ...]

    @field_validator("models")
    @classmethod
    def _models_have_names_of_their_own(
        cls, models: tuple[ModelEntry, ...]
    ) -> tuple[ModelEntry, ...]:
        if twice := _repeated(entry.name for entry in models):
            raise ValueError(f"two models are called {twice}")
        return models


def list_entries() -> list[ModelEntry]:
    """All known models: those of the user's registries first.

    Raises
    ------
    ModelError
        a registry can't be read; the message names the file and the place in it
    """
    named = os.environ.get(REGISTRY_VARIABLE, "").split(os.pathsep)
    entries: dict[str, ModelEntry] = {}
    for path in [*(Path(each) for each in named if each), PACKAGED_REGISTRY]:
        for entry in read_registry(path):
            entries.setdefault(entry.name, entry)
    return list(entries.values())


def find_entry(name: str) -> ModelEntry:
    """The known model of a name.

    Raises
    ------
    ModelError
        there is none, or a registry can't be read
    """
    entries = {entry.name: entry for entry in list_entries()}
    if name in entries:
        return entries[name]
    near = difflib.get_close_matches(name, entries, n=3)
    advice = f"did you mean {' or '.join(near)}? " if near else ""
    raise ModelError(
        f"{name}: no model is known by this name: {advice}`beamsplitter models list` shows them"
    )


def read_registry(path: Path) -> tuple[ModelEntry, ...]:
    """The models of a registry file.

    Raises
    ------
    ModelError
        it can't be read, or says what can't be; the message names the file and the place
    """
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
        return _Registry.model_validate(content).models
    except OSError as error:
        advice = f": check {REGISTRY_VARIABLE}"
        raise ModelError(f"{path}: can't be read ({error.strerror}){advice}") from error
    except UnicodeDecodeError as error:
        raise ModelError(f"{path}: is not UTF-8") from error
    except yaml.YAMLError as error:
        raise ModelError(f"{path}: is no YAML: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        raise ModelError(f"{path}: {'; '.join(problems_of(error))}") from error


def _repeated(names: Iterable[str]) -> str:
    return next((name for name, count in Counter(names).items() if count > 1), "")
