"""Where the files of the page lie below an output tree, and those that are always the same."""

import importlib.resources
from collections.abc import Iterator

from ...storage import OutputTree
from ...transforms.page_script import page_script

INDEX = "index.html"
FOLDER = "report"
RUN = "run.js"
ROWS, FACTS, FAILURES = "rows", "facts", "failures"
ROWS_PER_FILE = 200


def data_name(kind: str, number: int) -> str:
    """What a file of data is called, in its folder."""
    return f"{kind}-{number:05d}.js"


def write_data(content: object, name: str, tree: OutputTree) -> None:
    """Write a file of data."""
    tree.write(page_script(content), FOLDER, name)


def static_files() -> Iterator[tuple[tuple[str, ...], bytes]]:
    """The files that are the same for each page: their names below the tree, and their content."""
    page = importlib.resources.files(__package__) / "page"
    for file in sorted(page.iterdir(), key=lambda each: each.name):
        names = (INDEX,) if file.name == INDEX else (FOLDER, file.name)
        yield names, file.read_bytes()


def write_static(tree: OutputTree) -> None:
    """Write the files that are the same for each page."""
    for names, data in static_files():
        tree.write(data, *names)


def remove_left(kind: str, count: int, tree: OutputTree) -> None:
    """Remove the files of a kind that a larger page has left."""
    number = count
    while tree.is_there(FOLDER, data_name(kind, number)):
        tree.remove(FOLDER, data_name(kind, number))
        number += 1
