"""Blocks: cutting a mixture for a model, and joining what the model made of them.

The blocks of a recording lie on one grid, whichever part of it is separated where, so that parts
agree. A block has real audio around what is kept of it; zeros stand only beyond the recording's
ends. What is kept of neighbours overlaps, weighted by a triangle and normalised, as demucs does
(`demucs.apply.apply_model`): where two estimates agree, so does their mean.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class BlockLengths:
    """The lengths that a model takes, in samples: `least`, and that with any number of `step`."""

    least: int = 1
    step: int = 1

    def fitting(self, samples: int) -> int:
        """The shortest of them that is not below so many samples."""
        return self.least + max(0, -(-(samples - self.least) // self.step)) * self.step


@dataclass(frozen=True)
class Grid:
    """How a recording is cut. All fields but `overlap` are of samples at the model's rate.

    Parameters
    ----------
    block_samples
        length of each block
    lengths
        if there are several, a block at an end of the recording is only as long as that
        leaves it, and each is lengthened to the next of these
    context_samples
        what is dropped of a block at either end
    overlap
        share of what is kept of a block that it has in common with the next, in [0, 1)
    origin_sample
        where what is kept of the first block begins, at most 0
    """

    block_samples: int
    context_samples: int = 0
    overlap: float = 0.25
    origin_sample: int = 0
    lengths: BlockLengths | None = None

    @property
    def kept_samples(self) -> int:
        """What is kept of a block that does not reach the recording's end."""
        return self.block_samples - 2 * self.context_samples

    @property
    def stride_samples(self) -> int:
        """From a block to the next."""
        return max(1, int((1 - self.overlap) * self.kept_samples))

    def around(self, kept_start: int, kept_stop: int, total_samples: int) -> "Block":
        """The block of which a range is kept, with that in its middle where there is a choice."""
        start, stop = kept_start - self.context_samples, kept_stop + self.context_samples
        samples = self.block_samples
        if self.lengths:
            # What is kept may begin before the recording does; context never need.
            start, stop = max(start, min(0, kept_start)), min(stop, total_samples)
            samples = self.lengths.fitting(stop - start)
        spare = samples - (stop - start)
        return Block(start - spare // 2, samples, kept_start, kept_stop)


@dataclass(frozen=True)
class Block:
    """One block, in samples of the recording at the model's rate.

    `start_sample` is where it begins, possibly before the recording does, `samples` its length;
    `kept_start_sample` to `kept_stop_sample` is what is kept of it.
    """

    start_sample: int
    samples: int
    kept_start_sample: int
    kept_stop_sample: int


def plan_blocks(
    grid: Grid, total_samples: int, *, start_sample: int, stop_sample: int
) -> list[Block]:
    """The blocks that a range of a recording needs.

    Parameters
    ----------
    total_samples
        length of the recording
    start_sample, stop_sample
        the range, inside the recording

    Returns
    -------
    Blocks in order; what is kept of them covers the range. One that reaches the end keeps less.
    """
    kept, stride = grid.kept_samples, grid.stride_samples
    first = max(0, -(-(start_sample - kept + 1 - grid.origin_sample) // stride))
    blocks = []
    for index in range(first, -(-(stop_sample - grid.origin_sample) // stride)):
        kept_start = grid.origin_sample + index * stride
        kept_stop = min(kept_start + kept, total_samples)
        blocks.append(grid.around(kept_start, kept_stop, total_samples))
    return blocks


def cut_blocks(samples: np.ndarray, blocks: Sequence[Block], *, start_sample: int) -> np.ndarray:
    """Cut blocks out of a mixture.

    Parameters
    ----------
    samples
        float32 `(channels, samples)`
    blocks
        all of one length
    start_sample
        where `samples` begins in the recording

    Returns
    -------
    float32 `(blocks, channels, samples of a block)`, zeros where `samples` has none
    """
    block_samples = blocks[0].samples
    cut = np.zeros((len(blocks), samples.shape[0], block_samples), np.float32)
    for block, out in zip(blocks, cut, strict=True):
        begin = block.start_sample - start_sample
        source = samples[:, max(0, begin) : max(0, begin + block_samples)]
        skipped = max(0, -begin)
        out[:, skipped : skipped + source.shape[-1]] = source
    return cut


def triangle(samples: int) -> np.ndarray:
    """The weights of what is kept of a block: float32, rising to 1 in the middle, never 0."""
    rise = np.arange(1, samples // 2 + 1)
    fall = np.arange(samples - samples // 2, 0, -1)
    return (np.concatenate([rise, fall]) / max(1, samples - samples // 2)).astype(np.float32)


def overlap_add(
    grid: Grid,
    outputs: Iterable[tuple[Block, np.ndarray]],
    *,
    start_sample: int,
    stop_sample: int,
) -> np.ndarray:
    """Join what a model made of the blocks of a range.

    Parameters
    ----------
    outputs
        each block with what is kept of it, float32 `(stems, channels, kept samples)`
    start_sample, stop_sample
        the range that `plan_blocks` was given

    Returns
    -------
    float32 `(stems, channels, stop_sample - start_sample)`
    """
    window = triangle(grid.kept_samples)
    length = stop_sample - start_sample
    joined: np.ndarray | None = None
    weights = np.zeros(length, np.float32)
    for block, kept in outputs:
        if joined is None:
            joined = np.zeros((*kept.shape[:2], length), np.float32)
        begin, end = block.kept_start_sample - start_sample, block.kept_stop_sample - start_sample
        inside = slice(max(0, begin), min(length, end))
        of_block = slice(inside.start - begin, inside.stop - begin)
        joined[..., inside] += window[of_block] * kept[..., of_block]
        weights[inside] += window[of_block]
    if joined is None:
        raise ValueError("there are no blocks to join")
    joined /= weights
    return joined


def kept_of(block: Block, output: np.ndarray) -> np.ndarray:
    """What is kept of a block's output: `(…, samples)` to `(…, kept samples)`."""
    begin = block.kept_start_sample - block.start_sample
    return output[..., begin : begin + block.kept_stop_sample - block.kept_start_sample]


def in_batches(blocks: Sequence[Block], batch: int) -> Iterator[Sequence[Block]]:
    """Blocks in order, at most `batch` at once, all of one length."""
    for _, alike in itertools.groupby(blocks, lambda block: block.samples):
        while some := list(itertools.islice(alike, batch)):
            yield some
