"""Excerpts of shards that `beamsplitter prepare` has made."""

import os
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ...audio.channels import as_many
from .excerpts import Excerpt, ExcerptGrid, KeptExcerpts, TrackLength
from .shards import INDEX, ShardIndex, ShardRecord, rows_of
from .stem_folders import DatasetError, ExcerptError, require_distinct

PREPARE_AGAIN = "run `beamsplitter prepare` again"


def find_index(path: Path) -> Path | None:
    """The index of shards in a folder, or of those in a split of it; None if there is none."""
    return next((each for each in (path / INDEX, path.parent / INDEX) if each.is_file()), None)


class ShardSource:
    """Excerpts of shards: those of the folder that they were made of, but for the silent ones.

    Parameters
    ----------
    index_path
        the index of the shards
    split
        of whose tracks alone; empty: of all
    targets
        of those that the shards have; the others are counted to the rest
    sample_rate
        Hz, as the shards have it
    channels
        as the shards have them, or 1, their mean

    Raises
    ------
    DatasetError
        the index can't be read, the shards are not whole, or made for something else
    """

    def __init__(
        self,
        index_path: Path,
        *,
        split: str = "",
        targets: Sequence[str],
        sample_rate: int,
        channels: int,
    ) -> None:
        require_distinct(targets)
        self.targets = tuple(targets)
        self.sample_rate = sample_rate
        self.channels = channels
        self.folder = index_path.parent
        index = _read_index(index_path)
        self.settings = index.settings
        self.digest = index.digest
        self._require_fitting(index_path)
        prefix = f"{split}/" if split else ""
        self._records = {
            record.name.removeprefix(prefix): record
            for record in index.records
            if record.name.startswith(prefix)
        }
        self.tracks = tuple(
            TrackLength(name, record.samples, sample_rate) for name, record in self._records.items()
        )
        for record in self._records.values():
            self._require_whole(record)
        if not self.tracks:
            raise DatasetError(f"{index_path}: has no tracks of {split or 'any split'}")

    def _require_fitting(self, index_path: Path) -> None:
        made = self.settings
        missing = [target for target in self.targets if target not in made.targets]
        if missing:
            raise DatasetError(
                f"{index_path}: the shards have no {', '.join(missing)}, but "
                f"{', '.join(made.targets)}: name some of these, or prepare others"
            )
        if self.sample_rate != made.sample_rate:
            raise DatasetError(
                f"{index_path}: the shards have {made.sample_rate} Hz, not {self.sample_rate}: "
                "train at this rate, or prepare others"
            )
        if self.channels not in (1, made.channels):
            raise DatasetError(
                f"{index_path}: the shards have {made.channels} channels, not {self.channels}: "
                "train with as many, or prepare others"
            )

    def _require_whole(self, record: ShardRecord) -> None:
        if not record.file:
            return
        path = self.folder / record.file
        try:
            size_bytes = os.stat(path).st_size
        except OSError as error:
            raise DatasetError(f"{path}: {error.strerror}: {PREPARE_AGAIN}") from error
        if size_bytes != record.size_bytes:
            raise DatasetError(
                f"{path}: has {size_bytes} bytes, not the {record.size_bytes} of the index: "
                f"{PREPARE_AGAIN}"
            )

    def grid(self, *, excerpt_s: float, hop_s: float | None = None) -> ExcerptGrid:
        """The excerpts that were kept.

        Parameters
        ----------
        excerpt_s, hop_s
            seconds, as the shards have them; a hop of None: theirs

        Raises
        ------
        DatasetError
            the shards have others, or hold none
        """
        made = self.settings
        if excerpt_s != made.excerpt_s or hop_s not in (None, made.hop_s):
            hop = "" if hop_s is None else f" every {hop_s:g} s"
            raise DatasetError(
                f"{self.folder}: the shards have excerpts of {made.excerpt_s:g} s every "
                f"{made.hop_s:g} s, not {excerpt_s:g} s{hop}: train with theirs, or prepare others"
            )
        starts = [np.array(record.starts, np.int64) for record in self._records.values()]
        try:
            return KeptExcerpts(self.tracks, excerpt_s=excerpt_s, hop_s=made.hop_s, starts=starts)
        except ValueError as error:
            raise DatasetError(f"{self.folder}: {error}") from error

    def read(self, excerpt: Excerpt) -> np.ndarray:
        """The targets of an excerpt that was kept, and the rest, which together are the mixture.

        Returns
        -------
        np.ndarray, shape (targets + 1, channels, samples), float32

        Raises
        ------
        ExcerptError
            the shard can't be read (any more)
        """
        record = self._records[excerpt.track]
        path = self.folder / record.file
        start, stop = record.bytes_of(excerpt.start_sample)
        try:
            with path.open("rb") as file:
                file.seek(start)
                rows = rows_of(file.read(stop - start), name=str(path))
        except (OSError, tarfile.TarError, ValueError, KeyError) as error:
            raise ExcerptError(f"{path}: can't be read: {error}: {PREPARE_AGAIN}") from error
        return np.stack([as_many(row, self.channels) for row in self._wanted(rows)])

    def _wanted(self, rows: np.ndarray) -> list[np.ndarray]:
        """The rows of the targets that are wanted, and what the others are together."""
        made = self.settings.targets
        if self.targets == made:
            return [*rows]
        chosen = [made.index(target) for target in self.targets]
        others = [index for index in range(len(rows)) if index not in chosen]
        return [*rows[chosen], rows[others].sum(axis=0)]


def _read_index(path: Path) -> ShardIndex:
    try:
        with path.open(encoding="utf-8") as file:
            return ShardIndex.parse(file)
    except OSError as error:
        raise DatasetError(f"{path}: {error.strerror}") from error
    except (ValueError, TypeError, KeyError) as error:
        raise DatasetError(f"{path}: is no index of shards ({error}): {PREPARE_AGAIN}") from error
