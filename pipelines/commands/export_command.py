"""The command `beamsplitter export`: a separator as a model package."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ...models.classifiers.trained_classifier import is_classifier
from ...models.separators.base import ModelError
from ...models.separators.by_name import SeparatorName, describe, require_installed
from .option_values import options_of

if TYPE_CHECKING:
    from ...models.export.exporting import Exported


def export(
    separator: Annotated[
        str,
        typer.Argument(
            metavar="SEPARATOR",
            help="The folder of what you trained, a separator or a classifier, or module:Class.",
        ),
    ],
    to: Annotated[str, typer.Option("--to", metavar="PACKAGE", help="Folder of the package.")],
    option: Annotated[
        list[str] | None,
        typer.Option("--option", help="NAME=value: an option of the separator."),
    ] = None,
    format: Annotated[
        Literal["torchscript", "torch-export", "both"] | None,
        typer.Option(
            help="model.pt, for Audacity too, or model.pt2; default both, of recurrent networks "
            "torchscript."
        ),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Of the model, for people.")] = None,
    author: Annotated[str | None, typer.Option(help="Of the model.")] = None,
    short_description: Annotated[str | None, typer.Option(help="60 characters at most.")] = None,
    long_description: Annotated[str | None, typer.Option(help="280 characters at most.")] = None,
    domain: Annotated[
        str | None, typer.Option(help="music, speech, environmental, other; commas between.")
    ] = None,
    tags: Annotated[
        str | None, typer.Option(help="5 at most, each of 15 characters; commas between.")
    ] = None,
    licence: Annotated[
        str | None,
        typer.Option("--license", help="Of the weights, as the model hub calls it: mit, …"),
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace the files of a package that is there.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was done as JSON.")] = False,
) -> None:
    """Write a separator or a classifier as a model package: Audacity and any job can run it without
    its code.

    What is not said of it is as in the separator's metadata.json. Before the package is put there,
    it is run as jobs run it, and has to give what the separator gives, to 1e-5, or the
    probabilities that the classifier gives, to 1e-3.
    """
    require_installed(separator)
    if "://" in to:
        raise ModelError(f"--to {to}: name a folder on this machine, and copy it from there")
    # torch takes seconds to import.
    from ...models.export.classifier_export import export_classifier
    from ...models.export.exporting import export_separator
    from ...models.export.package_folder import FORMAT_FILES
    from ...models.export.package_words import Words

    chosen = tuple(each for each in FORMAT_FILES if format in (each, "both")) or None
    words = Words(
        name=name,
        author=author,
        short_description=short_description,
        long_description=long_description,
        domain_tags=_names(domain),
        tags=_names(tags),
    )
    package, own = Path(to).expanduser().absolute(), Path(separator).expanduser()
    given = options_of(option or ())
    if is_classifier(own):
        if given:
            raise ModelError(f"--option: {separator} is a classifier, which has none")
        done = export_classifier(own, package, chosen, words, licence=licence, replace=replace)
    else:
        named = _described(SeparatorName.of(separator, given))
        done = export_separator(named, package, chosen, words, licence=licence, replace=replace)
    _print_exported(done, as_json=as_json)


def _described(name: SeparatorName) -> SeparatorName:
    """A separator whose options are right; ModelError if they are not."""
    try:
        describe((name,))
    except ModelError:
        raise
    except ValueError as error:
        raise ModelError(f"{name.name}: {error}") from error
    return name


def _names(text: str | None) -> list[str] | None:
    return None if text is None else [each.strip() for each in text.split(",") if each.strip()]


def _print_exported(done: "Exported", *, as_json: bool) -> None:
    if as_json:
        facts = {
            "folder": str(done.folder),
            "files": done.files,
            "difference": done.difference,
            "unreadable_for_torch_1_9": done.unreadable,
            "fixed_samples": done.fixed_samples,
            "left_out": done.left_out,
        }
        print(json.dumps(facts))
        return
    for reason in done.left_out.values():
        print(f"left out: {reason}", file=sys.stderr)
    if done.unreadable:
        print(
            f"model.pt: Audacity, whose torch is 1.9, can't read {', '.join(done.unreadable)}",
            file=sys.stderr,
        )
    if done.fixed_samples and "torch-export" in done.files:
        print(f"model.pt2: takes blocks of {done.fixed_samples} samples only", file=sys.stderr)
    names = ", ".join(done.files.values())
    print(
        f"{done.folder}: {names}; in the pipeline at most {done.difference:.1e} from the original"
    )
