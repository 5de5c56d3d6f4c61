"""Samples: what a network takes at once, the arrays of an excerpt of a recording."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from ...validation import problems_of
from .arrays import RecordingArrays, require_names
from .errors import FeatureSetError


@dataclass(frozen=True)
class Sample:
    """The arrays of an excerpt.

    Attributes
    ----------
    key
        names it in the set: parts with slashes between
    facts
        what is told of it, by name: texts, numbers, or else what JSON can tell
    arrays
        float32 or complex64, frames first, by `set/signal`

    Raises
    ------
    FeatureSetError
        the key or the name of an array is none
    """

    key: str
    facts: dict[str, Any]
    arrays: dict[str, np.ndarray]

    def __post_init__(self) -> None:
        if {"", ".", ".."} & {*self.key.split("/")} or "\0" in self.key:
            raise FeatureSetError(f"{self.key!r} is no key: it is like album/song or album/song/3")
        require_names([*self.arrays])


class _Excerpt(BaseModel):
    start_s: float
    duration_s: float


class _Metadata(BaseModel):
    """What of a recording's metadata becomes facts of its samples."""

    model_config = ConfigDict(strict=True)

    element: str
    folder: str
    sets: dict[str, dict[str, Any]]
    signals: list[str]
    excerpts: list[_Excerpt]
    indexed: bool


def samples_of(recording: RecordingArrays) -> Iterator[Sample]:
    """The samples of a recording: one an excerpt, one after the other.

    Raises
    ------
    FeatureSetError
        the file is not whole, or lacks an array of what it says that it has
    """
    try:
        told = _Metadata.model_validate(recording.metadata)
    except ValidationError as error:
        problems = "; ".join(problems_of(error))
        raise FeatureSetError(f"{recording.name}: its metadata are none: {problems}") from error
    if not told.indexed and len(told.excerpts) != 1:
        raise FeatureSetError(
            f"{recording.name}: has {len(told.excerpts)} excerpts whose arrays have no numbers"
        )
    for index, excerpt in enumerate(told.excerpts):
        number = f"/{index:05d}" if told.indexed else ""
        names = [f"{set_name}/{signal}" for set_name in told.sets for signal in told.signals]
        missing = [name + number for name in names if name + number not in recording.forms]
        if missing:
            raise FeatureSetError(f"{recording.name}: has no {', '.join(missing)}: make it again")
        yield Sample(
            key=told.folder + number,
            facts={
                "element": told.element,
                "folder": told.folder,
                "index": index,
                "start_s": excerpt.start_s,
                "duration_s": excerpt.duration_s,
            },
            arrays={name: recording.read(name + number) for name in names},
        )
