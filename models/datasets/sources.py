"""Where a training's excerpts come from: one interface, whatever the data lies in."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from .excerpts import Excerpt, ExcerptGrid, TrackLength
from .shard_source import ShardSource, find_index
from .stem_excerpts import FolderSource


class StemSource(Protocol):
    """Excerpts of tracks with their stems. It can be pickled, and holds no samples.

    Attributes
    ----------
    targets
        names of the stems that are to be learnt
    sample_rate
        Hz, of what it gives
    channels
        of what it gives
    tracks
        lengths of all tracks, at this rate
    """

    targets: tuple[str, ...]
    sample_rate: int
    channels: int

    @property
    def tracks(self) -> Sequence[TrackLength]: ...

    def grid(self, *, excerpt_s: float, hop_s: float | None = None) -> ExcerptGrid:
        """The excerpts that there are.

        Parameters
        ----------
        excerpt_s
            length of an excerpt in seconds
        hop_s
            seconds from one to the next; None: the length of one, or as shards have it

        Raises
        ------
        DatasetError
            there are none, or shards have others
        """

    def read(self, excerpt: Excerpt) -> np.ndarray:
        """The targets of an excerpt, and the rest, which together are the mixture.

        Returns
        -------
        np.ndarray, shape (targets + 1, channels, samples), float32

        Raises
        ------
        ExcerptError
            a file can't be read (any more)
        """


def open_source(
    path: Path, *, targets: Sequence[str], sample_rate: int, channels: int
) -> StemSource:
    """The excerpts of a folder of tracks, or of shards.

    Parameters
    ----------
    path
        a folder of tracks or of shards, or of one split of either
    targets
        the stems that are to be learnt
    sample_rate
        Hz; what has another one is resampled
    channels
        1: the mean of all; more: as the files have, or copies of their only one

    Raises
    ------
    DatasetError
        there are no tracks, one lacks a target, can't be decoded, or has other channels; or shards
        were made for something else
    """
    index = find_index(path)
    if index is None:
        return FolderSource(path, targets=targets, sample_rate=sample_rate, channels=channels)
    return ShardSource(
        index,
        split="" if index.parent == path else path.name,
        targets=targets,
        sample_rate=sample_rate,
        channels=channels,
    )
