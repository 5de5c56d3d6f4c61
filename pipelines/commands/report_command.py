"""`beamsplitter report`: the page of results."""

import os
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from ...storage import Access, OutputTree, Storage, absolute
from ..events.listing import InputError
from ..job.locations import expanded
from .progress import printable

if TYPE_CHECKING:
    from ..report.building import PageTotals


def report(
    outputs: Annotated[
        list[str],
        typer.Argument(metavar="OUT", help="The folder of the results; two are compared."),
    ],
    to: Annotated[
        str | None,
        typer.Option(
            "--to",
            help="Write the page into this folder, with what it shows and plays, but without the "
            "stems: to send it. Default: into OUT.",
        ),
    ] = None,
    complete: Annotated[
        bool,
        typer.Option(
            "--complete",
            help="First make what recordings lack that were separated without it: waveforms, "
            "spectrograms and what is played, of the files that are there, on this machine.",
        ),
    ] = False,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Of --complete; default one for each core.")
    ] = None,
    user_project: Annotated[
        str | None,
        typer.Option(help="Project that pays for requests to a bucket whose owner doesn't."),
    ] = None,
) -> None:
    """Write the page of results, OUT/index.html: to look at recordings and stems, and to listen.

    It is made of the manifests, and shows all recordings that lie there. Of two folders it shows
    the same recordings side by side; they must go --to a third. Exit code: 0; 1 if --complete left
    recordings out, 2 for a mistake in the call.
    """
    storage = Storage(Access(user_project=user_project))
    trees = [OutputTree(absolute(expanded(each)), storage) for each in outputs]
    target = None if to is None else OutputTree(absolute(expanded(to)), storage)
    _require_places(trees, target)
    code = max([_complete(tree, workers) for tree in trees]) if complete else 0
    if target is None:
        _build(trees[0])
    else:
        _copy(trees, target)
    raise typer.Exit(code)


def _require_places(trees: list[OutputTree], target: OutputTree | None) -> None:
    """Refuse folders without results, and a target that is not one of its own."""
    from .check import require_results

    if len(trees) > 2:
        raise InputError("the page compares two folders of results at most")
    if len(trees) == 2 and target is None:
        raise InputError("--to: say where the page of two folders goes")
    if len({tree.location for tree in trees}) < len(trees):
        raise InputError(f"{trees[0].location}: is named twice: name two folders to compare")
    for tree in trees:
        require_results(tree)
        if target and f"{target.location}/".startswith(f"{tree.location}/"):
            raise InputError(f"--to: name a folder that is not in {tree.location}")


def _build(tree: OutputTree) -> None:
    from ..report.building import build_page

    _tell(build_page(tree), tree)


def _copy(trees: list[OutputTree], target: OutputTree) -> None:
    from ..report.copying import copy_page, write_comparison

    if len(trees) == 1:
        _tell(copy_page(trees[0], target), target)
        return
    names = [os.path.basename(tree.location) for tree in trees]
    if names[0] == names[1]:
        names = [tree.location for tree in trees]
    write_comparison(dict(zip(names, trees, strict=True)), target)
    _tell(None, target)


def _complete(tree: OutputTree, workers: int | None) -> int:
    """Make what the page lacks of recordings; gives the exit code."""
    from ..local.preparing import require_ready
    from .check import read_tree
    from .jobs_again import jobs_again
    from .running import run_batch

    lacking = [
        (manifest.input.uri, folder)
        for folder, manifest in read_tree(tree).manifests.items()
        if "report" not in manifest.branches
    ]
    sections = {"report": {"enabled": True}}
    codes = [0]
    for job in jobs_again(tree, lacking, force=False, sections=sections):
        require_ready(job)
        codes.append(run_batch(job, workers=workers, log_format="text"))
    return max(codes)


def _tell(totals: "PageTotals | None", tree: OutputTree) -> None:
    from ..report.page_files import INDEX

    console = Console(soft_wrap=True)
    if totals and totals.without_page:
        console.print(
            f"{totals.without_page} of {totals.recordings} recordings have nothing to play: they "
            "were made without; --complete makes it",
            highlight=False,
        )
    console.print(Text(printable(f"page: {tree.path(INDEX)}")))
