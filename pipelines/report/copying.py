"""The page in a folder of its own, to be sent: of one output tree, or of two, side by side."""

import os
from collections.abc import Iterator, Mapping

from ...storage import OutputTree
from ...transforms.manifest import folders_with_manifest
from .building import FORMAT, PageTotals, recordings_of, write_page
from .facts import RecordingFacts
from .page_files import RUN, write_data, write_static


def copy_page(source: OutputTree, target: OutputTree) -> PageTotals:
    """Write the page of an output tree into another folder, with what it shows and plays.

    Stems stay where they are.

    Raises
    ------
    StorageError
        files can't be read or written
    """
    folders = sorted(folders_with_manifest(source))

    def copied() -> Iterator[RecordingFacts]:
        for each in recordings_of(folders, source):
            _copy_files(each, source, target)
            yield each

    return write_page(copied(), target, of=source)


def _copy_files(recording: RecordingFacts, source: OutputTree, target: OutputTree) -> None:
    folder = recording.row["folder"]
    for file in recording.facts["manifest"]["files"]:
        name = file["name"]
        if file["branch"] == "report" or os.path.splitext(name)[1] == ".png":
            target.write(source.read(folder, name), folder, name)


def write_comparison(sources: Mapping[str, OutputTree], target: OutputTree) -> None:
    """Write the page of two output trees side by side, with what it shows and plays.

    Parameters
    ----------
    sources
        by the names that the page calls them

    Raises
    ------
    StorageError
        files can't be read or written
    """
    paths = dict(zip(sources, "ab", strict=True))
    for name, source in sources.items():
        copy_page(source, OutputTree(f"{target.location}/{paths[name]}", target.storage))
    write_static(target)
    runs = [{"name": name, "path": path} for name, path in paths.items()]
    write_data({"format": FORMAT, "compare": runs}, RUN, target)
