"""From a separator to a package: written, tried as the pipeline runs it, and then put there."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..documents import write_json
from ..packages.metadata import FILE_NAME, problems
from ..packages.torchscript import load_torchscript
from ..separators.base import ModelError, TorchSeparator
from ..separators.by_name import SeparatorName, describe, load
from ..separators.model_package import PackageSeparator
from .older_torch import older_torch_complaints
from .package_folder import (
    FORMAT_FILES,
    Format,
    publish,
    require_free,
    require_no_other_model,
)
from .package_tools import validate_metadata
from .package_words import README_FILE, Words, metadata_of, model_card
from .round_trip import largest_difference, require_same_rows, separate_examples
from .scripting import save_torchscript, scripted
from .separator_model import SeparatorModel, model_of
from .torch_export import is_recurrent, save_exported

# Why networks of other people are not exported: tests/models/test_export.py shows that it is so.
OTHERS_CODE = {
    "demucs": "TorchScript does not compile its code, torch.export stops where that looks at "
    "samples, and a package would normalise each block for itself instead of the recording",
    "umx": "TorchScript does not compile its code, and torch.export would fix it to one length, "
    "while it is given shorter recordings as they are",
}


@dataclass
class Exported:
    """What was exported.

    Attributes
    ----------
    folder
        of the package
    files
        of its model, by format
    difference
        the largest of any sample between separator and package
    unreadable
        what torch 1.9, Audacity's, can't read of the TorchScript file; None if there is none
    fixed_samples
        the length that the file of torch.export is fixed to, if it is
    left_out
        formats that could not be written, and why
    """

    folder: Path
    files: dict[Format, str] = field(default_factory=dict)
    difference: float = 0.0
    unreadable: list[str] | None = None
    fixed_samples: int | None = None
    left_out: dict[Format, str] = field(default_factory=dict)


def export_separator(
    name: SeparatorName,
    folder: Path,
    formats: Sequence[Format] | None = None,
    words: Words | None = None,
    *,
    licence: str | None = None,
    replace: bool = False,
) -> Exported:
    """Write the package of a separator.

    Parameters
    ----------
    name
        of a separator that is one network
    folder
        of the package; what else is in it stays
    formats
        of the model; one that can't be written is left out if another one can. Default: all, but
        of recurrent networks TorchScript alone
    words
        for people, over those of the separator
    licence
        of the weights, as the model hub calls it
    replace
        the files of a package that is there

    Raises
    ------
    ModelError
        the separator is no single network, or can't be exported; not all readers would accept its
        metadata; the package gives something else than the separator; or the folder holds files
        that would be overwritten, or read in place of those of the package
    OSError
        it can't be written
    """
    require_free(folder, formats or tuple(FORMAT_FILES), replace=replace)
    separator = exportable(name)
    model = model_of(separator)
    done = Exported(folder)
    if formats is None:
        formats = tuple(FORMAT_FILES)
        if is_recurrent(model):
            formats = ("torchscript",)
            done.left_out["torch-export"] = (
                f"{separator.name}: torch.export would write each step of its recurrent layers, of "
                "which there are many: --format torch-export does so"
            )
    metadata = metadata_of(name, separator, model.channels, words or Words())
    is_valid, message = validate_metadata(metadata)
    if wrong := [message] * (not is_valid) or problems(metadata, strict=False):
        raise ModelError(f"{name.name}: {FILE_NAME} would be wrong: {'; '.join(wrong)}")
    examples = separate_examples(name, separator, model.channels)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as scratch:
        package = Path(scratch) / "package"
        package.mkdir()
        for each in formats:
            trial = Path(scratch) / each
            trial.mkdir()
            write_json(trial / FILE_NAME, metadata)
            try:
                _write_model(each, separator, model, trial, done)
                difference = largest_difference(examples, separator, trial)
            except ModelError as error:
                done.left_out[each] = str(error)
                continue
            done.difference = max(done.difference, difference)
            done.files[each] = FORMAT_FILES[each]
            (trial / FORMAT_FILES[each]).rename(package / FORMAT_FILES[each])
        if not done.files:
            raise ModelError("; ".join(done.left_out.values()))
        put_there(package, metadata, done, licence=licence)
    return done


def put_there(
    package: Path, metadata: dict[str, Any], done: Exported, *, licence: str | None
) -> None:
    """Add to the files of a model what is told of it, and put them into their folder.

    Raises
    ------
    ModelError
        that holds a file that would be read in place of one of them
    """
    card = model_card(
        metadata, done.files.values(), licence=licence, runs_in_audacity=done.unreadable == []
    )
    (package / README_FILE).write_text(card, "utf-8")
    write_json(package / FILE_NAME, metadata)
    require_no_other_model(done.folder, done.files.values())
    publish(package, done.folder)


def exportable(name: SeparatorName) -> TorchSeparator:
    """The one network that a separator is.

    Raises
    ------
    ModelError
        it is something else, or can't be loaded
    """
    kind = name.name.partition(":")[0]
    if kind in OTHERS_CODE:
        raise ModelError(
            f"{name.name}: {OTHERS_CODE[kind]}: export what you trained, or a class of your own"
        )
    if describe((name,)).effect == "labels":
        raise ModelError(f"{name.name}: is a model package already, one that gives labels: copy it")
    members = load((name,))
    if len(members) > 1:
        raise ModelError(
            f"{name.name}: is {len(members)} networks, and a package holds one: export each by a "
            "class of your own"
        )
    separator = members[0].separator
    if isinstance(separator, PackageSeparator):
        raise ModelError(f"{name.name}: is a model package already: copy it")
    if not isinstance(separator, TorchSeparator):
        raise ModelError(
            f"{name.name}: is a method without a network, which no package can hold: export what "
            "you trained, or a TorchSeparator of your own"
        )
    return separator


def _write_model(
    kind: Format, separator: TorchSeparator, model: SeparatorModel, folder: Path, done: Exported
) -> None:
    path, name = folder / FORMAT_FILES[kind], separator.name
    if kind == "torchscript":
        save_torchscript(scripted(model, name), path)
        rows = len(separator.stems) * model.channels
        lengths = (rows + 1, 2049, separator.block_samples + 1)
        require_same_rows(load_torchscript(path, name), model, lengths, name)
        done.unreadable = older_torch_complaints(path)
    else:
        samples = separator.longest_block_samples or separator.block_samples
        done.fixed_samples = save_exported(model, samples, path, name)
        if done.fixed_samples and separator.block_lengths:
            raise ModelError(
                f"{name}: torch.export fixes it to {samples} samples, and it is given shorter "
                "recordings as they are"
            )
