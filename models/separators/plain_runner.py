"""Running models that need no device, and how those run that do."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ...audio.progress import Progress, piece_of, unheard
from .base import Member, ModelError, Separator

Precision = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class DeviceOptions:
    """Where and how models run.

    Parameters
    ----------
    device
        "auto" (a GPU if there is one), "cpu", "cuda", "cuda:N", "mps"
    precision
        that of the models' arithmetic; halves by autocast
    compile
        by `torch.compile`
    batch_size
        blocks in a batch; None: as many as memory allows on a GPU, 1 elsewhere
    threads
        of the arithmetic on the CPU; None: as torch has it
    """

    device: str = "auto"
    precision: Precision = "float32"
    compile: bool = False
    batch_size: int | None = None
    threads: int | None = None


class PlainRunner:
    """Runs separators that are no torch modules, block by block."""

    def __init__(self, members: Sequence[Member]) -> None:
        self.separators = [member.separator for member in members]

    def __call__(
        self,
        member_index: int,
        batches: Iterable[np.ndarray],
        sample_rate: int,
        stems: Sequence[int],
        progress: Progress = unheard,
    ) -> Iterator[np.ndarray]:
        """Run one member's model, as `RunBlocks` says.

        Raises
        ------
        ModelError
            the model gives another shape than it should
        """
        separator = self.separators[member_index]
        done = 0
        for blocks in batches:
            outputs = []
            for block in blocks:
                output = separator.separate_telling(
                    block, sample_rate, piece_of(progress, done, done + 1)
                )
                require_shape(separator, output.shape, block.shape)
                outputs.append(output[list(stems)])
                done += 1
                progress(done)
            yield np.stack(outputs)


def require_shape(separator: Separator, given: tuple[int, ...], block: tuple[int, ...]) -> None:
    """Refuse what is no `(stems, channels, samples)`, or `(stems, 1, samples)`, of a block.

    Raises
    ------
    ModelError
        it has another shape
    """
    channels, samples = block
    stems = len(separator.stems)
    if given not in ((stems, channels, samples), (stems, 1, samples)):
        raise ModelError(
            f"{separator.name}: gives an array of shape {given} for a block of shape {block}: "
            f"({stems}, {channels}, {samples}) is right, for {', '.join(separator.stems)}"
        )
