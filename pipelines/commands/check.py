"""`beamsplitter check`: the files of an output tree against the digests in its manifests."""

import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import asdict, dataclass

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from ...models.feature_sets.checking import damaged_files
from ...models.feature_sets.errors import FeatureSetError
from ...models.feature_sets.index import INDEX, open_feature_set
from ...storage import OutputTree, StorageError, scheme_of
from ...transforms.manifest import NAME as MANIFEST
from ...transforms.manifest import Manifest, folders_with_manifest, parse_manifest
from ...transforms.records import FileReceipt
from ..events.listing import InputError
from ..job.job_config import JobConfig
from ..local.cores import available_cores
from .jobs_again import job_again, jobs_again
from .progress import printable

READERS_ELSEWHERE = 16
MISSING, CHANGED, UNREADABLE = "missing", "changed", "unreadable"
Checked = Callable[[FileReceipt], None]


@dataclass(frozen=True)
class Damage:
    """A file that is not as its manifest says.

    Attributes
    ----------
    path
        below the output tree
    what
        `missing`, `changed`, or `unreadable`, of a manifest
    recording
        whole path of the recording; None if its manifest does not tell it, or it is of all
    folder
        of its results; "": of all
    """

    path: str
    what: str
    recording: str | None
    folder: str


@dataclass(frozen=True)
class Tree:
    """The results of an output tree: manifests by folder, and manifests that can't be read."""

    output: OutputTree
    manifests: dict[str, Manifest]
    unreadable: tuple[Damage, ...]

    @property
    def files(self) -> int:
        """How many files the manifests name."""
        return sum(len(each.files) for each in self.manifests.values())

    @property
    def size_bytes(self) -> int:
        """Size of all of them."""
        return sum(file.size_bytes for each in self.manifests.values() for file in each.files)


def read_tree(output: OutputTree) -> Tree:
    """Read all manifests of an output tree.

    Raises
    ------
    InputError
        there are none
    StorageError
        the folder can't be listed
    """
    require_results(output)
    with _readers(output.location) as readers:
        folders = sorted(folders_with_manifest(output))
        read = readers.map(lambda folder: _read(output, folder), folders)
        manifests: dict[str, Manifest] = {}
        unreadable: list[Damage] = []
        for folder, manifest in zip(folders, read, strict=True):
            if manifest is None:
                unreadable.append(Damage(f"{folder}/{MANIFEST}", UNREADABLE, None, folder))
            else:
                manifests[folder] = manifest
    return Tree(output, manifests, tuple(unreadable))


def require_results(output: OutputTree) -> None:
    """Refuse a folder without results.

    Raises
    ------
    InputError
        it is not there, or holds none
    StorageError
        it can't be listed
    """
    location = output.location
    if not scheme_of(location) and not os.path.isdir(location):
        raise InputError(f"{location}: no such folder")
    if next(folders_with_manifest(output), None) is None:
        raise InputError(f"{location}: holds no results: no {MANIFEST} lies in a folder below it")


def _read(output: OutputTree, folder: str) -> Manifest | None:
    try:
        return parse_manifest(output.read(folder, MANIFEST))
    except (StorageError, ValueError):
        return None


def check(tree: Tree, checked: Checked = lambda _: None) -> list[Damage]:
    """Hold all files against their digests, several at once; gives what is damaged.

    On `gs://` a file's checksum is the one that the service keeps of it: nothing is read but the
    indexes of shards, which are told by their size.

    Parameters
    ----------
    checked
        called with each file
    """

    def damages_of(folder: str) -> list[Damage]:
        manifest = tree.manifests[folder]
        found = []
        for file in manifest.files:
            what = _what_is_wrong(tree.output, folder, file)
            if what:
                found.append(Damage(f"{folder}/{file.name}", what, manifest.input.uri, folder))
            checked(file)
        return found

    with _readers(tree.output.location) as readers:
        return [
            *tree.unreadable,
            *(damage for found in readers.map(damages_of, tree.manifests) for damage in found),
            *_damages_of_shards(tree.output),
        ]


def _damages_of_shards(output: OutputTree) -> list[Damage]:
    """What of the shards of features is not whole, where there are any."""
    if not output.is_there(INDEX):
        return []
    try:
        features = open_feature_set(output.location, output.storage)
    except (FeatureSetError, StorageError):
        return [Damage(INDEX, UNREADABLE, None, "")]
    return [Damage(name, what, None, "") for name, what in damaged_files(features)]


def _what_is_wrong(output: OutputTree, folder: str, file: FileReceipt) -> str | None:
    try:
        path = output.path(folder, file.name)
        if scheme_of(path):
            is_whole = output.has(folder, file.name, size_bytes=file.size_bytes, crc32c=file.crc32c)
            if not is_whole:
                output.storage.stat(path)
        else:
            is_whole = output.storage.sha256_of(path) == file.sha256
    except StorageError:
        return MISSING
    return None if is_whole else CHANGED


def _readers(location: str) -> Executor:
    # Hashing lets other threads compute.
    return ThreadPoolExecutor(READERS_ELSEWHERE if scheme_of(location) else available_cores())


def repairs(tree: Tree, damages: Iterable[Damage]) -> list[JobConfig]:
    """The jobs that make anew what is damaged.

    Raises
    ------
    JobFileError
        what the last run was can't be read, or can't be run here
    """
    damaged = ((each.recording, each.folder) for each in damages)
    known = [(recording, folder) for recording, folder in damaged if recording is not None]
    return jobs_again(tree.output, known, force=True)


def write_tables_of_all(tree: Tree, damages: Iterable[Damage]) -> None:
    """Write the tables and shards of all that the manifests name, by the job of the last run.

    A repair left those of its own recordings, and shards that are not whole are packed anew.
    Results that other settings made are in none.

    Raises
    ------
    JobFileError
        what the last run was can't be read, or can't be run here
    """
    from ...transforms.run_tables import write_run_tables

    job = job_again(tree.output, "/", "", [], force=True)
    digests = job.settings.digests()
    results = [
        (folder, tuple(each for each in manifest.files if each.branch in same))
        for folder, manifest in tree.manifests.items()
        if (same := {name for name, each in manifest.digests.items() if digests.get(name) == each})
    ]
    with tree.output.owned_scratch():
        if job.settings.features.shards:
            for each in damages:
                if not each.folder:
                    tree.output.remove(each.path)
        write_run_tables(results, job.settings, tree.output)


def print_check(tree: Tree, damages: Sequence[Damage], *, log_format: str) -> None:
    """Print a line for each damaged file, and how many there are of all."""
    counts = Counter(each.what for each in damages)
    if log_format == "json":
        for each in damages:
            print(json.dumps({"event": "damaged", **asdict(each)}))
        summary = {"recordings": len(tree.manifests), "files": tree.files, **counts}
        print(json.dumps({"event": "checked", **summary, "size_bytes": tree.size_bytes}))
        return
    console = Console(soft_wrap=True)
    for each in damages:
        console.print(Text(printable(f"{each.what:<11}{each.path}")))
    told = ", ".join(f"{count} {what}" for what, count in sorted(counts.items())) or "all whole"
    console.print(
        f"{len(tree.manifests)} recordings, {tree.files} files, {tree.size_bytes / 1e6:.1f} MB: "
        f"{told}",
        highlight=False,
    )


def check_with_bar(tree: Tree, *, log_format: str) -> list[Damage]:
    """Check, and show how far it is where a person watches."""
    console = Console(stderr=True)
    if log_format == "json" or not sys.stderr.isatty():
        return check(tree)
    columns = (TextColumn("checking"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=tree.size_bytes)
        return check(tree, lambda file: bar.advance(task, file.size_bytes))
