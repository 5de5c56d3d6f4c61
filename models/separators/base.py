"""What a separator is: the one interface between the graph and any model.

A separator turns a block of a mixture into stems. Cutting a recording into blocks, their overlap,
resampling, channels, batches and devices are not its business: `blocks`, `mixing` and `inference`
do that for all of them.
"""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from ...audio.progress import Progress
from ...errors import BeamsplitterError
from .blocks import BlockLengths

if TYPE_CHECKING:
    import torch

RESIDUAL = "residual"


class ModelError(BeamsplitterError, ValueError):
    """A model that can't be found or loaded, or whose output is wrong; the message names it."""


class UnknownNameError(ModelError):
    """A name that no separator or model has."""


class UnusableModelError(BeamsplitterError):
    """A model that can't be loaded where the job runs: no recording's fault, so the job ends."""


@dataclass(frozen=True)
class Description:
    """What is known of a separator before it is loaded; reading it needs no torch.

    Parameters
    ----------
    stems
        names of the stems, in the order of the output
    effect
        "labels" for a model that annotates a recording and gives no stems
    sample_rates
        the rates in Hz that its models work at; empty if at any
    context_s
        seconds of real audio that it needs on either side of a part
    minimum_s
        shorter recordings are refused
    sums_to_mixture
        whether its stems always sum to the mixture, so that no residual is left
    normalizes
        whether it needs mean and deviation of the whole recording
    uses_device
        whether a GPU helps: its models are torch modules
    sha256
        digest of its files; None if it has none
    resolved_options
        all its options, defaults included, as JSON: with the files they decide what
        it gives
    """

    stems: tuple[str, ...]
    effect: Literal["stems", "labels"] = "stems"
    sample_rates: tuple[int, ...] = ()
    context_s: float = 5.0
    minimum_s: float = 0.0
    sums_to_mixture: bool = False
    normalizes: bool = False
    uses_device: bool = False
    sha256: str | None = None
    resolved_options: str = "{}"

    @property
    def all_stems(self) -> tuple[str, ...]:
        """The stems, and `residual` where they may leave some of the mixture."""
        leaves_none = self.sums_to_mixture or not self.stems
        return self.stems if leaves_none else (*self.stems, RESIDUAL)


class Separator(ABC):
    """One model. Subclasses set the attributes and define `separate`.

    Attributes
    ----------
    name
        how messages call it
    stems
        names of the stems, in the order of the output
    sample_rate
        Hz; None for a method that works at any rate
    channels
        how many it takes at once; None for any number
    block_samples
        length of the blocks that it is given; None if a whole part is one block
    block_lengths
        if it takes blocks of other lengths, too: then those at the ends of a recording
        are cut there, and each is lengthened to the next of these
    context_samples
        how many samples at either end of a block only serve as context (receptive
        field): what it makes of them is dropped
    overlap
        share of the rest of a block that it has in common with the next, in [0, 1)
    normalizes
        whether blocks are normalised by mean and deviation of the whole recording
    labels
        what it calls stretches of a recording, if it gives labels and no stems
    """

    name: str
    stems: tuple[str, ...]
    sample_rate: int | None = None
    channels: int | None = None
    block_samples: int | None = None
    block_lengths: BlockLengths | None = None
    context_samples: int = 0
    overlap: float = 0.25
    normalizes: bool = False
    labels: tuple[str, ...] = ()

    @property
    def longest_block_samples(self) -> int | None:
        """Length of a block in the middle of a recording; None if a whole part is one block."""
        if self.block_samples is None or self.block_lengths is None:
            return self.block_samples
        return self.block_lengths.fitting(self.block_samples)

    @abstractmethod
    def separate(self, block: np.ndarray, sample_rate: int) -> np.ndarray:
        """Separate one block.

        Parameters
        ----------
        block
            float32 `(channels, samples)`
        sample_rate
            Hz; that of the separator, if it has one

        Returns
        -------
        float32 `(stems, channels, samples)`; with one channel, it is for all channels of the block
        """

    def separate_telling(
        self, block: np.ndarray, sample_rate: int, progress: Progress
    ) -> np.ndarray:
        """What `separate` gives, by those that take long for a block and can tell how far they are.

        Parameters
        ----------
        progress
            is told how much is done, as a share that rises to 1
        """
        return self.separate(block, sample_rate)


class TorchSeparator(Separator):
    """A separator whose model runs on a device, on batches of blocks of one length.

    Parameters
    ----------
    module
        its model; `to` moves it
    """

    sample_rate: int
    block_samples: int

    def __init__(self, module: "torch.nn.Module") -> None:
        self.module = module.eval()

    def forward(self, blocks: "torch.Tensor") -> "torch.Tensor":
        """Separate a batch; gradients are off, and the module is on the device of the blocks.

        Subclasses define it where the module takes, or gives, something else.

        Parameters
        ----------
        blocks
            float32 `(batch, channels, samples)`

        Returns
        -------
        `(batch, stems, channels, samples)`
        """
        stems: torch.Tensor = self.module(blocks)
        return stems

    def separate(self, block: np.ndarray, sample_rate: int) -> np.ndarray:
        """Separate one block, on the device of the module."""
        # torch takes seconds to import, and most separators do without.
        import torch

        weights = itertools.chain(self.module.parameters(), self.module.buffers())
        device = next(weights, torch.empty(0)).device
        with torch.inference_mode():
            stems = self.forward(torch.from_numpy(block)[None].to(device))
        return np.asarray(stems[0].float().cpu().numpy())


@dataclass(frozen=True)
class Label:
    """A label of a stretch of a recording, in seconds from its start.

    `confidence` is what the model makes of it, in [0, 1]; None if it does not say.
    """

    start_s: float
    end_s: float
    text: str
    confidence: float | None = None


@dataclass(frozen=True)
class Member:
    """A separator with its say in each stem of an ensemble.

    Parameters
    ----------
    weights
        by stem; a stem of the ensemble is the weighted mean of its members' estimates. Stems
        that it gives but that have no weight here are not used
    """

    separator: Separator
    weights: Mapping[str, float] = field(default_factory=dict)


def alone(separator: Separator) -> tuple[Member, ...]:
    """An ensemble of one."""
    return (Member(separator, dict.fromkeys(separator.stems, 1.0)),)
