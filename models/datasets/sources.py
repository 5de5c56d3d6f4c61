"""Where a training's excerpts come from: one interface, whatever the data lies in."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from .excerpts import Excerpt, TrackLength
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
    """The excerpts of a folder of tracks.

    Parameters
    ----------
    path
        a folder of tracks, of one split
    targets
        the stems that are to be learnt
    sample_rate
        Hz; what has another one is resampled
    channels
        1: the mean of all; more: as the files have, or copies of their only one

    Raises
    ------
    DatasetError
        there are no tracks, one lacks a target, can't be decoded, or has other channels
    """
    return FolderSource(path, targets=targets, sample_rate=sample_rate, channels=channels)
