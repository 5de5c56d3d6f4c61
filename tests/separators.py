"""Small separators whose output is known, for tests."""

import os
import signal
import sys
import time

import numpy as np
from scipy.ndimage import convolve1d

from beamsplitter.models.separators.base import Separator, alone
from beamsplitter.models.separators.blocks import BlockLengths


class Identity(Separator):
    """Gives the mixture as "same", and silence as "nothing"."""

    name = "identity"
    stems = ("same", "nothing")

    def __init__(
        self,
        block_samples: int | None = 100,
        *,
        block_lengths: BlockLengths | None = None,
        context_samples: int = 0,
        overlap: float = 0.25,
        sample_rate: int | None = None,
        channels: int | None = None,
        normalizes: bool = False,
    ) -> None:
        self.block_samples = block_samples
        self.block_lengths = block_lengths
        self.context_samples = context_samples
        self.overlap = overlap
        self.sample_rate = sample_rate
        self.channels = channels
        self.normalizes = normalizes

    def separate(self, block: np.ndarray, sample_rate: int) -> np.ndarray:
        assert sample_rate == self.sample_rate or self.sample_rate is None
        samples = block.shape[-1]
        if self.block_lengths:
            assert samples == self.block_lengths.fitting(samples)
        else:
            assert samples == self.block_samples or self.block_samples is None
        assert self.channels in (None, block.shape[0])
        return np.stack([block, np.zeros_like(block)])


class Smoothing(Identity):
    """Splits by a FIR filter, whose receptive field is its context: "same" is what it passes."""

    def separate(self, block: np.ndarray, sample_rate: int) -> np.ndarray:
        low = smooth(block, self.context_samples)
        return np.stack([low, block - low])


class Inventing(Identity):
    """Each block anew gives what depends on where it begins: neighbours never agree."""

    def separate(self, block: np.ndarray, sample_rate: int) -> np.ndarray:
        return np.stack([block * block[:, :1], block])


class FailingOnStereo(Identity):
    """Gives what no model should, for recordings of two channels."""

    name = "failing"

    def __init__(self, fault: str) -> None:
        super().__init__(4000)
        self.fault = fault

    def separate(self, block: np.ndarray, sample_rate: int) -> np.ndarray:
        stems = super().separate(block, sample_rate)
        if block.shape[0] == 1:
            return stems
        if self.fault == "raises":
            raise KeyError("no such layer")
        return stems * np.float32("nan") if self.fault == "nan" else stems[:1]


class FailingOnLoud(Identity):
    """Fails on what is louder than music that is not cut off."""

    def separate(self, block: np.ndarray, sample_rate: int) -> np.ndarray:
        if np.abs(block).max(initial=0) > 0.9:
            raise ValueError("too loud")
        return super().separate(block, sample_rate)


class Ending(Identity):
    """Does what no separator should, for recordings that are one of these numbers throughout."""

    HANGS, STOPS, LEAVES, EXITS = 0.5, 0.25, 0.125, -0.5

    def __init__(self) -> None:
        super().__init__(None)

    def separate(self, block: np.ndarray, sample_rate: int) -> np.ndarray:
        level = float(np.median(block))
        if level == self.HANGS:
            time.sleep(3600)
        elif level == self.STOPS:
            os.kill(os.getpid(), signal.SIGSTOP)
        elif level == self.LEAVES:
            os._exit(0)
        elif level == self.EXITS:
            sys.exit("no licence")
        return super().separate(block, sample_rate)


class Unwilling(Identity):
    """Can't be made."""

    def __init__(self) -> None:
        raise KeyError("weights")


def smooth(samples: np.ndarray, reach: int) -> np.ndarray:
    """A FIR filter over `reach` samples on either side; zeros beyond the ends."""
    taps = np.hanning(2 * reach + 3)[1:-1]
    return convolve1d(samples, taps / taps.sum(), axis=-1, mode="constant").astype(np.float32)


__all__ = [
    "Ending",
    "FailingOnLoud",
    "FailingOnStereo",
    "Identity",
    "Inventing",
    "Smoothing",
    "Unwilling",
    "alone",
    "smooth",
]


class OwnRest(Identity):
    """Has a stem that is called as the sum of all but one would be."""

    stems = ("harmonic", "no_harmonic")


class Lone(Identity):
    """Gives the mixture as its only stem."""

    stems = ("vocals",)

    def separate(self, block: np.ndarray, sample_rate: int) -> np.ndarray:
        return block[None]
