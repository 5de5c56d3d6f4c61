"""The page of an output tree: of all recordings whose manifest lies there, whoever made them."""

import datetime
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from ...storage import DEAD_LETTER_FOLDER, DEAD_LETTERS, OutputTree, StorageError, scheme_of
from ...transforms.feature_settings import MIXTURE
from ...transforms.manifest import folders_with_manifest
from ...transforms.page_script import parse_page_script
from ...transforms.plain import utc_text
from ..outcomes.summary import NAME as RUN_FACTS
from .facts import RecordingFacts, facts_of
from .page_files import (
    FACTS,
    FAILURES,
    FOLDER,
    ROWS,
    ROWS_PER_FILE,
    RUN,
    data_name,
    remove_left,
    write_data,
    write_static,
)

FORMAT = 1
READERS_ELSEWHERE = 16
RUNNING, STOPPED, FINISHED = "running", "stopped", "finished"
# What `run.json` and the page call alike.
TOLD_OF_RUN = (
    *("job_name", "began", "ended", "wall_s", "audio_s", "workers"),
    *("versions", "settings", "job"),
)
TOLD_OF_FAILURE = ("element", "step", "exception", "message")


@dataclass
class PageTotals:
    """What the page says of all its recordings together.

    Attributes
    ----------
    recordings
        how many
    without_page
        how many of them were made without what the page plays
    audio_s
        of all of them, seconds
    stems, measures
        names, in the order in which they came
    has_labels
        whether a recording has any
    """

    recordings: int = 0
    without_page: int = 0
    audio_s: float = 0.0
    stems: dict[str, None] = field(default_factory=dict)
    measures: dict[str, None] = field(default_factory=dict)
    has_labels: bool = False

    @classmethod
    def of(cls, group: Iterable[RecordingFacts]) -> "PageTotals":
        """Those of some recordings."""
        totals = cls()
        for each in group:
            totals.add(each.row)
        return totals

    def add(self, row: Mapping[str, Any]) -> None:
        """Count a row of the table."""
        self.recordings += 1
        self.without_page += not row["page"]
        self.audio_s += row["duration_s"]
        self.has_labels = self.has_labels or bool(row["labels"])
        for scores in row["scores"].values():
            self.measures.update(dict.fromkeys(scores))
        signals = (*row["levels"], *row["scores"])
        self.stems.update(dict.fromkeys(each for each in signals if each != MIXTURE))

    def __add__(self, other: "PageTotals") -> "PageTotals":
        """Those of the recordings of both."""
        return PageTotals(
            self.recordings + other.recordings,
            self.without_page + other.without_page,
            self.audio_s + other.audio_s,
            {**self.stems, **other.stems},
            {**self.measures, **other.measures},
            self.has_labels or other.has_labels,
        )


def build_page(tree: OutputTree) -> PageTotals:
    """Write the page of an output tree: its own files, and the data of all recordings.

    Raises
    ------
    StorageError
        the tree can't be listed, or the page can't be written
    """
    folders = sorted(folders_with_manifest(tree))
    return write_page(recordings_of(folders, tree), tree, of=tree)


def write_page(
    recordings: Iterable[RecordingFacts], tree: OutputTree, *, of: OutputTree
) -> PageTotals:
    """Write the page of some recordings.

    Parameters
    ----------
    tree
        where the page goes
    of
        the tree that the recordings are of
    """
    totals = PageTotals()
    files = 0
    for group in _in_groups(recordings):
        write_group(files, group, tree)
        totals += PageTotals.of(group)
        files += 1
    end_page(totals, files, tree, of=of, about=run_facts_of(of))
    return totals


def end_page(
    totals: PageTotals,
    files: int,
    tree: OutputTree,
    *,
    of: OutputTree,
    about: Mapping[str, Any],
) -> None:
    """Write what a page has once, when its rows are written, and remove what one before has left.

    Parameters
    ----------
    totals, files
        of its recordings, and how many files have their rows
    tree
        where the page goes
    of
        the tree that the recordings are of: a page elsewhere has no stems beside it
    about
        what of `run.json` is known
    """
    for kind in (ROWS, FACTS):
        remove_left(kind, files, tree)
    failures = dead_letters_of(of)
    write_failures(failures, tree)
    write_static(tree)
    files_here = tree.location == of.location
    write_run(tree, totals, len(failures), state=FINISHED, about=about, files_here=files_here)


def recordings_of(folders: Sequence[str], tree: OutputTree) -> Iterator[RecordingFacts]:
    """What the page tells of each; manifests that can't be read are left out."""
    readers = READERS_ELSEWHERE if scheme_of(tree.location) else 1
    with ThreadPoolExecutor(readers) as executor:
        # A few at a time: of a million recordings no more is held than of these.
        for start in range(0, len(folders), ROWS_PER_FILE):
            group = folders[start : start + ROWS_PER_FILE]
            yield from filter(None, executor.map(lambda folder: facts_of(folder, tree), group))


def _in_groups(found: Iterable[RecordingFacts]) -> Iterator[list[RecordingFacts]]:
    group: list[RecordingFacts] = []
    for each in found:
        group.append(each)
        if len(group) == ROWS_PER_FILE:
            yield group
            group = []
    if group:
        yield group


def write_group(number: int, group: Sequence[RecordingFacts], tree: OutputTree) -> None:
    """Write the rows of some recordings, and what is seen when these are opened."""
    write_data([each.row for each in group], data_name(ROWS, number), tree)
    write_data([each.facts for each in group], data_name(FACTS, number), tree)


def write_failures(failures: Sequence[Mapping[str, Any]], tree: OutputTree) -> None:
    """Write the dead letters."""
    files = 0
    for start in range(0, len(failures), ROWS_PER_FILE):
        told = [
            {name: failure.get(name) for name in TOLD_OF_FAILURE}
            for failure in failures[start : start + ROWS_PER_FILE]
        ]
        write_data(told, data_name(FAILURES, files), tree)
        files += 1
    remove_left(FAILURES, files, tree)


def write_run(
    tree: OutputTree,
    totals: PageTotals,
    failures: int,
    *,
    state: str,
    about: Mapping[str, Any],
    files_here: bool = True,
) -> None:
    """Write what the page says of the run: what it reads first, so the last thing to be written.

    Parameters
    ----------
    totals
        of the recordings whose rows are written
    failures
        how many dead letters are written
    state
        `running`, `stopped`, `finished`
    about
        what of `run.json` is known
    files_here
        all that the manifests name lies beside the page
    """
    content = {
        "format": FORMAT,
        "state": state,
        "updated": utc_text(datetime.datetime.now(datetime.UTC)),
        **{name: about.get(name) for name in TOLD_OF_RUN},
        "counts": about.get("recordings"),
        "recordings": totals.recordings,
        "total_audio_s": round(totals.audio_s, 3),
        "failures": failures,
        "rows_per_file": ROWS_PER_FILE,
        "stems": [*totals.stems],
        "measures": [*totals.measures],
        "has_labels": totals.has_labels,
        "files_here": files_here,
    }
    write_data(content, RUN, tree)


def run_facts_of(tree: OutputTree) -> dict[str, Any]:
    """The content of `run.json`; empty where it can't be read."""
    try:
        return dict(json.loads(tree.read(RUN_FACTS)))
    except (StorageError, ValueError, TypeError):
        return {}


def tell_of_run(tree: OutputTree) -> None:
    """Have the page of a service's job say what `run.json` says, which is written after it."""
    try:
        content = parse_page_script(tree.read(FOLDER, RUN))
    except (StorageError, ValueError):
        return
    about = run_facts_of(tree)
    told = {name: about.get(name) for name in TOLD_OF_RUN}
    write_data({**content, **told, "counts": about.get("recordings")}, RUN, tree)


def dead_letters_of(tree: OutputTree) -> list[dict[str, Any]]:
    """The dead letters of the last batch; where there was none, those of a stream."""
    try:
        texts = tree.read(DEAD_LETTERS).decode().splitlines()
    except StorageError:
        names = sorted(tree.names_below(DEAD_LETTER_FOLDER))
        texts = [tree.read(DEAD_LETTER_FOLDER, name).decode() for name in names]
    return [json.loads(text) for text in texts]
