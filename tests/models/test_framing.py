"""Frames of a track, and a track read frame by frame."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beamsplitter.models.evaluation.framing import FrameGrid, stretches

GRIDS = st.builds(FrameGrid, st.integers(1, 200), st.integers(1, 60), st.integers(1, 80))


@given(GRIDS)
def test_all_frames_are_whole_but_that_of_a_short_track(grid):
    ranges = [grid.range_of(index) for index in range(len(grid))]
    assert ranges[0][0] == 0
    if grid.samples < grid.frame_samples:
        assert ranges == [(0, grid.samples)]
        return
    assert all(stop - start == grid.frame_samples for start, stop in ranges)
    assert ranges[-1][1] <= grid.samples < ranges[-1][1] + grid.hop_samples


@given(GRIDS, st.integers(0, 250))
def test_the_frames_that_hold_a_sample(grid, sample):
    ranges = [grid.range_of(index) for index in range(len(grid))]
    expected = [index for index, (start, stop) in enumerate(ranges) if start <= sample < stop]
    if sample < grid.samples:
        assert list(grid.holding(sample)) == expected


@given(GRIDS)
def test_a_track_is_read_once_and_no_more_held_than_a_frame_and_a_hop(grid):
    track = np.arange(grid.samples, dtype=float)[np.newaxis]
    reads = []

    def read(start, stop):
        reads.append((start, stop))
        return track[:, start:stop]

    read_stretches = list(stretches(grid, read))
    assert [each.index for each in read_stretches] == list(range(len(grid)))
    for each in read_stretches:
        start, stop = grid.range_of(each.index)
        np.testing.assert_array_equal(each.frame, track[:, start:stop])
        assert each.fresh.shape[1] < grid.frame_samples + grid.hop_samples
    np.testing.assert_array_equal(np.concatenate([x.fresh for x in read_stretches], 1), track)
    assert [start for start, _ in reads] == [0, *(stop for _, stop in reads[:-1])]
    assert all(start < stop for start, stop in reads)
    assert reads[-1][1] == grid.samples


@pytest.mark.parametrize("numbers", [(0, 1, 1), (1, 0, 1), (1, 1, 0)])
def test_nothing_is_no_frame(numbers):
    with pytest.raises(ValueError, match="at least 1"):
        FrameGrid(*numbers)
