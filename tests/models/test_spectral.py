"""The distance of spectra: the loss of trainings, and what must not matter."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from beamsplitter.models.evaluation.framing import FrameGrid
from beamsplitter.models.evaluation.spectral import (
    RESOLUTIONS,
    SpectralDistance,
    spectral_distance,
)
from beamsplitter.models.training.losses import multi_resolution_stft_loss

REFERENCE, NOISE = np.random.default_rng(3).standard_normal((2, 2, 20000))
ESTIMATE = 0.8 * REFERENCE + 0.3 * NOISE


def loss(estimate, reference, **options):
    tensors = (torch.from_numpy(each)[None] for each in (estimate, reference))
    return float(multi_resolution_stft_loss(*tensors, **options))


@pytest.mark.parametrize("samples", [1, 100, 8000, 9999, 20000])
@pytest.mark.parametrize("estimate", [ESTIMATE, REFERENCE, 0 * REFERENCE, NOISE, 1e-5 * NOISE])
def test_equals_the_loss_of_trainings(estimate, samples):
    signals = estimate[:, :samples], REFERENCE[:, :samples]
    assert spectral_distance(*signals) == pytest.approx(loss(*signals), rel=1e-9)


@pytest.mark.parametrize("resolution", [*RESOLUTIONS, (600, 77, 600)])
def test_equals_the_loss_at_each_resolution(resolution):
    ours = spectral_distance(ESTIMATE, REFERENCE, resolutions=[resolution])
    assert ours == pytest.approx(loss(ESTIMATE, REFERENCE, resolutions=[resolution]), rel=1e-9)


def test_silence():
    assert np.isnan(spectral_distance(REFERENCE, 0 * REFERENCE))
    assert spectral_distance(REFERENCE, REFERENCE) == 0


def distances(grid, *, cuts=(), pairs=((0, 1),), signals=(REFERENCE, ESTIMATE)):
    signals = np.stack(signals)[..., : grid.samples]
    distance = SpectralDistance(pairs, grid, resolutions=[(512, 100, 400)])
    for start, stop in itertools.pairwise([0, *sorted(cuts), grid.samples]):
        distance.add(signals[..., start:stop])
    return distance.finished()


@settings(max_examples=20, deadline=None)
@given(cuts=st.lists(st.integers(0, 20000), max_size=6))
def test_how_a_track_is_cut_makes_no_difference_to_a_bit(cuts):
    grid = FrameGrid(20000, 4000, 3000)
    for ours, expected in zip(distances(grid, cuts=cuts), distances(grid), strict=True):
        np.testing.assert_array_equal(ours, expected)


@pytest.mark.parametrize("hop", [4000, 1500, 6000])
def test_a_frame_has_the_spectra_that_are_centred_in_it(hop):
    """Far from its edges, what is centred in it knows nothing of the rest."""
    grid = FrameGrid(20000, 4000, hop)
    _, frames = distances(grid)
    assert frames.shape == (1, len(grid))
    for index in range(len(grid)):
        start, stop = grid.range_of(index)
        # From spectra with all that they see, and without those of the edges.
        around = slice(max(0, start - 1000), stop + 1000)
        alone = [each[:, around] for each in (REFERENCE, ESTIMATE)]
        offset = start - around.start
        _, of_inner = distances(FrameGrid(alone[0].shape[1], 4000, offset or 1), signals=alone)
        assert frames[0, index] == pytest.approx(of_inner[0, 1 if offset else 0], rel=1e-9)


def test_frames_with_a_silent_reference_are_undefined():
    silenced = REFERENCE.copy()
    silenced[:, 7000:13000] = 0
    track, frames = distances(FrameGrid(20000, 2000, 2000), signals=(silenced, ESTIMATE))
    assert np.isfinite(track).all()
    assert np.flatnonzero(np.isnan(frames[0])).tolist() == [4, 5]


def test_pairs_are_scored_each_by_itself():
    grid = FrameGrid(20000, 5000, 5000)
    signals = (REFERENCE, NOISE, ESTIMATE)
    track, frames = distances(grid, pairs=[(0, 2), (1, 2)], signals=signals)
    for pair, reference in enumerate((REFERENCE, NOISE)):
        alone, of_frames = distances(grid, signals=(reference, ESTIMATE))
        np.testing.assert_allclose(track[pair], alone[0], rtol=1e-12)
        np.testing.assert_allclose(frames[pair], of_frames[0], rtol=1e-12)
