"""The command `beamsplitter models`: known models and their files."""

import dataclasses
import json
import math
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich import box
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn
from rich.table import Table
from rich.text import Text

from ...models.model_registry import ModelEntry, find_entry, list_entries
from ...models.separators.base import ModelError
from ...models.separators.by_name import SeparatorName, describe, require_installed, require_usable
from .tables import table_console
from .told_errors import command_group, failing_with

models_app = command_group(
    "models", help="Known models: list them, fetch their files into the cache, and check those."
)
FAILED = 1
ASKED_AT_ONCE = 8
BUILT_IN = ("nn-filter", "hpss")

LogFormat = Annotated[
    Literal["text", "json"], typer.Option(help="json: one object a line for each model or file.")
]


@models_app.command("list")
def list_models(
    sizes: Annotated[
        bool, typer.Option("--sizes", help="Ask servers for the sizes of models that are not here.")
    ] = False,
    log_format: LogFormat = "text",
) -> None:
    """List what separates: what is here already, and the known models that can be fetched.

    Those of BEAMSPLITTER_MODEL_REGISTRY come first. The size of what is not here is a ?, unless
    servers are asked and tell it.
    """
    from ...models.model_cache import ModelCache

    entries = list_entries()
    cache = ModelCache()
    # A server that gives no answer keeps the others waiting for seconds.
    with ThreadPoolExecutor(ASKED_AT_ONCE) as executor:
        found = executor.map(lambda entry: cache.size_bytes(entry, ask=sizes), entries)
        sized = list(zip(entries, found, strict=True))
    if log_format == "json":
        for entry, size_bytes in sized:
            facts = {"cached": cache.has(entry), "size_bytes": size_bytes}
            _print_json({**entry.model_dump(), **facts})
        return
    table = Table(box=box.SIMPLE)
    # Names are there to be copied.
    table.add_column("name", no_wrap=True, overflow="ignore")
    for column in ("stems", "rate", "size", "here", "licence"):
        table.add_column(column, overflow="fold")
    for name in BUILT_IN:
        stems = ", ".join(describe((SeparatorName(name),)).stems)
        table.add_row(*map(Text, (name, stems, "any", "", "yes", "part of beamsplitter")))
    for entry, size_bytes in sized:
        here = "yes" if cache.has(entry) else "fetch"
        stems, rate = ", ".join(entry.stems), f"{entry.sample_rate} Hz"
        row = entry.name, stems, rate, _megabytes(size_bytes), here, entry.licence
        table.add_row(*map(Text, row))
    table_console().print(table)


def _megabytes(size_bytes: int | None) -> str:
    """Rounded up to a tenth."""
    return "?" if size_bytes is None else f"{math.ceil(size_bytes / 1e5) / 10:.1f} MB"


@models_app.command()
def fetch(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", help="Names of known models.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All known models.")] = False,
    to: Annotated[
        Path | None,
        typer.Option(help="Also copy the files to this folder, which then can be a mirror."),
    ] = None,
    log_format: LogFormat = "text",
) -> None:
    """Fetch the files of models into the cache, and check them.

    Exit code: 0 if all are there, 1 if some can't be had, 2 for a mistake in the call.
    """
    from ...models.model_cache import ModelCache

    if bool(names) == everything:
        raise ModelError("name the models, or give --all")
    entries = [find_entry(name) for name in names] if names else list_entries()
    failed = False
    with shown_progress(log_format) as on_progress:
        cache = ModelCache(on_progress)
        for entry in entries:
            try:
                folder = cache.fetch(entry)
                if to:
                    _copy(entry, folder, to)
            except (ModelError, OSError) as error:
                print(f"error: {error}", file=sys.stderr)
                failed = True
                continue
            if log_format == "json":
                _print_json({"name": entry.name, "folder": str(folder)})
            else:
                print(f"{entry.name}: {folder}")
    raise typer.Exit(FAILED if failed else 0)


@models_app.command()
def show(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME_OR_ADDRESS", help="A known model, or the folder of a model package."
        ),
    ],
    log_format: LogFormat = "text",
) -> None:
    """Show all that is known of a model.

    Exit code: 0 if there is such a model, 1 if its files can't be had, 2 if none has the name, or
    it can't be run on this machine as it is.
    """
    is_package = "://" in name or os.sep in name or os.path.isdir(name)
    if is_package:
        with failing_with(FAILED):
            facts = _facts_of_package(name)
    else:
        facts = _facts_of_entry(find_entry(name))
    if log_format == "json":
        _print_json(facts)
    else:
        _print_facts(facts)
    if is_package:
        require_usable((SeparatorName(name),), load_packages=True)
    else:
        require_installed(name)


def _print_facts(facts: dict[str, Any]) -> None:
    width = 2 + max(map(len, facts))
    for fact, value in facts.items():
        lines = value if isinstance(value, list) else [value]
        if fact == "files":
            lines = [
                f"{file['name']}  sha256 {file['sha256']}  {file['address']}" for file in lines
            ]
        elif isinstance(value, list | tuple):
            lines = [", ".join(map(str, value))]
        for index, line in enumerate(lines):
            print(f"{'' if index else fact:<{width}}{line}")


@models_app.command()
def verify(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME", help="Known models; default: all that is in the cache."),
    ] = None,
    log_format: LogFormat = "text",
) -> None:
    """Hash the files in the cache anew, and compare them with the registry and their download.

    What has changed is fetched anew the next time. Exit code: 0 if all files are as they should
    be, 1 if some have changed or are missing, 2 for a mistake in the call.
    """
    from ...models.model_cache import ModelCache

    cache = ModelCache()
    entries = [find_entry(name) for name in names or ()]
    entries = entries or [entry for entry in list_entries() if cache.folder_of(entry).is_dir()]
    with failing_with(FAILED):
        checked = [file for entry in entries for file in cache.verify(entry)]
        checked += [] if names else cache.verify_addresses()
    for file in checked:
        if log_format == "json":
            _print_json({**dataclasses.asdict(file), "path": str(file.path)})
        else:
            print(f"{file.state:<8} {file.model}: {file.path}")
    raise typer.Exit(0 if all(file.state == "ok" for file in checked) else FAILED)


def _facts_of_entry(entry: ModelEntry) -> dict[str, Any]:
    from ...models.model_cache import ModelCache

    cache = ModelCache()
    facts = entry.model_dump(mode="json")
    return {**facts, "folder": str(cache.folder_of(entry)), "cached": cache.has(entry)}


def _facts_of_package(address: str) -> dict[str, Any]:
    return {"address": address, **dataclasses.asdict(describe((SeparatorName(address),)))}


def _copy(entry: ModelEntry, folder: Path, mirror: Path) -> None:
    copies = mirror.joinpath(*entry.name.split(":"))
    copies.mkdir(parents=True, exist_ok=True)
    for file in entry.files:
        shutil.copyfile(folder / file.name, copies / file.name)


@contextmanager
def shown_progress(
    log_format: str,
) -> Iterator[Callable[[str, int, int | None], None] | None]:
    """What shows downloads on a terminal; None where there is none."""
    console = Console(stderr=True)
    if log_format == "json" or not console.is_terminal:
        yield None
        return
    tasks: dict[str, TaskID] = {}
    with Progress(
        TextColumn("{task.description}"), BarColumn(), DownloadColumn(), console=console
    ) as bar:

        def advance(name: str, done_bytes: int, total_bytes: int | None) -> None:
            if name not in tasks:
                tasks[name] = bar.add_task(name)
            bar.update(tasks[name], completed=done_bytes, total=total_bytes)

        yield advance


def _print_json(value: dict[str, Any]) -> None:
    print(json.dumps(value, ensure_ascii=False))
