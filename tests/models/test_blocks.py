"""Blocks cover every sample, and what they give joins to what a single pass gives."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beamsplitter.models.separators.blocks import (
    Grid,
    cut_blocks,
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
    )


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
    cut = cut_blocks(samples, blocks, grid.block_samples, start_sample=0)
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
    cut = cut_blocks(np.ones((1, total), np.float32), blocks, grid.block_samples, start_sample=0)
    for block, each in zip(blocks, cut, strict=True):
        positions = np.arange(block.start_sample, block.start_sample + grid.block_samples)
        np.testing.assert_array_equal(each[0] == 1, (positions >= 0) & (positions < total))


@pytest.mark.parametrize("samples", [1, 2, 3, 8, 344])
def test_the_window_is_a_triangle_that_is_never_zero(samples: int) -> None:
    window = triangle(samples)
    assert window.shape == (samples,)
    assert window.max() == 1
    assert window.min() > 0
    np.testing.assert_allclose(window, window[::-1])
