"""What a classifier is trained on: excerpts of recordings, each with the frames of one feature."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ...audio.features.settings import FeatureSettings


@dataclass(frozen=True)
class Excerpt:
    """A stretch of a recording.

    Attributes
    ----------
    recording
        what tells recordings from each other: the folder of its results
    element
        the file or address that it was read from
    start_s, duration_s
        where in the recording it lies, in seconds
    """

    recording: str
    element: str
    start_s: float
    duration_s: float


class ExcerptSource(Protocol):
    """Excerpts with their frames; it can be pickled, as processes that read get it so.

    Attributes
    ----------
    settings
        of the feature
    digest
        SHA-256 of what it reads, for records
    name
        of what it reads, in messages
    """

    settings: FeatureSettings
    digest: str
    name: str

    @property
    def excerpts(self) -> Sequence[Excerpt]:
        """All of them."""
        ...

    def frames(self, index: int) -> np.ndarray:
        """Those of an excerpt, by its place in `excerpts`: float32 `(frames, bins)`."""
        ...
