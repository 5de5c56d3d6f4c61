"""The frames that a track is scored in, and a track read frame by frame."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
# Of (start_sample, stop_sample): float64, whose last axis has so many samples.
ReadRange = Callable[[int, int], FloatArray]


@dataclass(frozen=True)
class FrameGrid:
    """Frames of a track, as museval cuts them: what is left behind the last whole one has none.

    A track that is shorter than a frame has one, of its own length.

    Attributes
    ----------
    samples : of the track, 1 or more
    frame_samples, hop_samples : 1 or more
    """

    samples: int
    frame_samples: int
    hop_samples: int

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 1:
                raise ValueError(f"{name} is at least 1: it is {value}")

    def __len__(self) -> int:
        return max(0, self.samples - self.frame_samples) // self.hop_samples + 1

    def range_of(self, index: int) -> tuple[int, int]:
        """First sample of a frame, and the one behind its last."""
        start = index * self.hop_samples
        return start, min(start + self.frame_samples, self.samples)

    def holding(self, sample: int) -> range:
        """The frames that hold a sample."""
        first = max(0, (sample - self.frame_samples) // self.hop_samples + 1)
        return range(first, min(sample // self.hop_samples + 1, len(self)))


@dataclass(frozen=True)
class Stretch:
    """What is read of a track for a frame of it.

    Attributes
    ----------
    index : of the frame
    frame : its samples
    fresh : the samples between its start and that of the next frame, of the last one all to the
        end: those of all stretches are the track, once
    """

    index: int
    frame: FloatArray
    fresh: FloatArray


def stretches(grid: FrameGrid, read: ReadRange) -> Iterator[Stretch]:
    """Read a track once from its start to its end; no more is held than a frame and a hop."""
    held: FloatArray | None = None
    for index in range(len(grid)):
        start, stop = grid.range_of(index)
        last = index + 1 == len(grid)
        fresh_stop = grid.samples if last else start + grid.hop_samples
        needed_stop = max(stop, fresh_stop)
        if held is None:
            held = read(start, needed_stop)
        elif start + held.shape[-1] < needed_stop:
            block = read(start + held.shape[-1], needed_stop)
            held = np.concatenate([held, block], axis=-1)
        yield Stretch(index, held[..., : stop - start], held[..., : fresh_stop - start])
        held = held[..., grid.hop_samples :]
