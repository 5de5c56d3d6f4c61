"""Blocks cover every sample, and what they give joins to what a single pass gives."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beamsplitter.models.separators.blocks import (
    Block,
    BlockLengths,
    Grid,
    cut_blocks,
    in_batches,
    kept_of,
    overlap_add,
    plan_blocks,
    triangle,
)


@st.composite
def grids(draw: st.DrawFn) -> Grid:
    context = draw(st.integers(0, 20))
    return Grid(
        block_samples=2 * context + draw(st.integers(1, 60)),
        context_samples=context,
        overlap=draw(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9])),
        origin_sample=-draw(st.integers(0, 80)),
        lengths=draw(st.none() | st.builds(BlockLengths, st.integers(1, 150), st.integers(1, 40))),
    )


def cut_each(samples: np.ndarray, blocks: list[Block]) -> list[np.ndarray]:
    return [
        each
        for batch in in_batches(blocks, 3)
        for each in cut_blocks(samples, batch, start_sample=0)
    ]


@st.composite
def ranges(draw: st.DrawFn) -> tuple[int, int, int]:
    total = draw(st.integers(1, 300))
    start = draw(st.integers(0, total - 1))
    return total, start, draw(st.integers(start + 1, total))


@given(grid=grids(), where=ranges())
def test_what_is_kept_of_blocks_covers_a_range_and_joins_to_it(
    grid: Grid, where: tuple[int, int, int]
) -> None:
    total, start, stop = where
    samples = np.random.default_rng(total).standard_normal((2, total)).astype(np.float32)
    blocks = plan_blocks(grid, total, start_sample=start, stop_sample=stop)
    cut = cut_each(samples, blocks)
    outputs = [(block, kept_of(block, each[None])) for block, each in zip(blocks, cut, strict=True)]
    joined = overlap_add(grid, outputs, start_sample=start, stop_sample=stop)
    np.testing.assert_allclose(joined[0], samples[:, start:stop], atol=1e-6)


@given(grid=grids(), where=ranges())
def test_a_range_has_the_blocks_of_the_whole(grid: Grid, where: tuple[int, int, int]) -> None:
    total, start, stop = where
    whole = plan_blocks(grid, total, start_sample=0, stop_sample=total)
    part = plan_blocks(grid, total, start_sample=start, stop_sample=stop)
    assert part == [
        block
        for block in whole
        if block.kept_start_sample < stop and block.kept_stop_sample > start
    ]


@given(grid=grids(), where=ranges())
def test_blocks_have_real_audio_wherever_there_is_some(
    grid: Grid, where: tuple[int, int, int]
) -> None:
    total, start, stop = where
    blocks = plan_blocks(grid, total, start_sample=start, stop_sample=stop)
    cut = cut_each(np.ones((1, total), np.float32), blocks)
    for block, each in zip(blocks, cut, strict=True):
        positions = np.arange(block.start_sample, block.start_sample + block.samples)
        np.testing.assert_array_equal(each[0] == 1, (positions >= 0) & (positions < total))


@given(grid=grids(), where=ranges())
def test_blocks_have_their_context_and_no_more_than_they_must(
    grid: Grid, where: tuple[int, int, int]
) -> None:
    total, start, stop = where
    for block in plan_blocks(grid, total, start_sample=start, stop_sample=stop):
        stop_sample = block.start_sample + block.samples
        before = block.kept_start_sample - block.start_sample
        after = stop_sample - block.kept_stop_sample
        if grid.lengths is None:
            assert block.samples == grid.block_samples
            assert min(before, after) >= grid.context_samples
        else:
            assert (block.samples - grid.lengths.least) % grid.lengths.step == 0
            assert before >= min(grid.context_samples, max(0, block.kept_start_sample))
            assert after >= min(grid.context_samples, total - block.kept_stop_sample)
            assert (
                block.samples < grid.block_samples + grid.lengths.step
                or block.samples == grid.lengths.least
            )


@given(lengths=st.builds(BlockLengths, st.integers(1, 50), st.integers(1, 9)))
def test_the_next_length_fits(lengths: BlockLengths) -> None:
    legal = range(lengths.least, 200, lengths.step)
    for samples in range(1, 150):
        assert lengths.fitting(samples) == next(each for each in legal if each >= samples)


@given(counts=st.lists(st.integers(1, 4), max_size=30), batch=st.integers(1, 5))
def test_a_batch_has_blocks_of_one_length_in_order(counts: list[int], batch: int) -> None:
    blocks = [Block(index, samples, 0, 1) for index, samples in enumerate(counts)]
    batches = list(in_batches(blocks, batch))
    assert [block for some in batches for block in some] == blocks
    assert all(len({block.samples for block in some}) == 1 for some in batches)
    assert all(len(some) <= batch for some in batches)
    for some, following in itertools.pairwise(batches):
        assert len(some) == batch or some[0].samples != following[0].samples


@pytest.mark.parametrize("samples", [1, 2, 3, 8, 344])
def test_the_window_is_a_triangle_that_is_never_zero(samples: int) -> None:
    window = triangle(samples)
    assert window.shape == (samples,)
    assert window.max() == 1
    assert window.min() > 0
    np.testing.assert_allclose(window, window[::-1])
