"""The page of a job that a service runs: WritePage, behind all else."""

import dataclasses
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import apache_beam as beam

from ...storage import OutputTree
from ...transforms.manifest import folders_with_manifest
from .building import PageTotals, end_page, recordings_of, write_group
from .page_files import ROWS_PER_FILE


@dataclass
class WritePage(beam.PTransform):
    """What lies in the output tree when a batch is over to its page, written by many workers.

    Parameters
    ----------
    tree
        where the results lie
    about
        what is known of the run
    """

    tree: OutputTree
    about: dict[str, Any]

    def expand(self, ended: tuple[beam.PCollection, beam.PCollection]) -> beam.PCollection:
        """Receipts, and what comes of writing the dead letters, to nothing that is of use."""
        tree, about = self.tree, self.about
        receipts, written = ended
        count = receipts | "Count" >> beam.combiners.Count.Globally()
        return (
            receipts.pipeline
            | "Begin" >> beam.Create([None])
            # Both are waited for.
            | "Groups"
            >> beam.FlatMap(
                lambda _, receipts, written: groups_of(tree),
                beam.pvalue.AsSingleton(count),
                beam.pvalue.AsIter(written),
            ).with_output_types(tuple[int, list[str]])
            | "Spread" >> beam.Reshuffle()
            | "WriteRows"
            >> beam.MapTuple(
                lambda number, folders: (0, (number, write_rows(number, folders, tree)))
            ).with_output_types(tuple[int, tuple[int, str]])
            | "AllRows" >> beam.GroupByKey()
            | "EndPage" >> beam.MapTuple(lambda _, groups: end(groups, about, tree))
        )


def groups_of(tree: OutputTree) -> Iterator[tuple[int, list[str]]]:
    """The folders of recordings, as many at a time as a file has rows; at least one group."""
    folders = sorted(folders_with_manifest(tree))
    for number, start in enumerate(range(0, max(1, len(folders)), ROWS_PER_FILE)):
        yield number, folders[start : start + ROWS_PER_FILE]


def write_rows(number: int, folders: Sequence[str], tree: OutputTree) -> str:
    """Write those of a group; gives their totals as JSON."""
    group = [*recordings_of(folders, tree)]
    write_group(number, group, tree)
    return json.dumps(dataclasses.asdict(PageTotals.of(group)))


def end(groups: Iterable[tuple[int, str]], about: dict[str, Any], tree: OutputTree) -> None:
    """Write what the page has once."""
    totals = PageTotals()
    files = 0
    # Work that was done twice is told twice.
    for _, told in sorted({*groups}):
        totals += PageTotals(**json.loads(told))
        files += 1
    end_page(totals, files, tree, of=tree, about=about)
