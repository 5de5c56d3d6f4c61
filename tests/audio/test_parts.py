"""Parts tile the recording, and joining them gives it back."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import fftconvolve

from beamsplitter.audio.parts import (
    PART_CHANNEL_SAMPLES,
    Part,
    cut_to_stem_range,
    join_parts,
    plan_parts,
)

RATE = 8000


def joined(samples: np.ndarray, parts: list[Part], separate=lambda block: block) -> np.ndarray:
    stems = [
        cut_to_stem_range(
            separate(samples[:, part.context_start_sample : part.context_stop_sample]), part
        )
        for part in parts
    ]

    def read(part: Part, start: int, stop: int) -> np.ndarray:
        assert part.stem_start_sample <= start < stop <= part.stem_stop_sample
        offset = part.stem_start_sample
        return stems[part.index][:, start - offset : stop - offset]

    return np.concatenate(list(join_parts(parts, read)), axis=1)


@given(
    total=st.integers(1, 400_000),
    rate=st.sampled_from([8000, 22050, 44100]),
    part_seconds=st.floats(10, 60),
)
@settings(deadline=None)
def test_cores_tile_the_recording_and_stay_within_the_limit(
    total: int, rate: int, part_seconds: float
) -> None:
    parts = plan_parts(total, rate, 1, part_seconds=part_seconds)
    assert parts[0].start_sample == 0 and parts[-1].stop_sample == total
    for before, after in itertools.pairwise(parts):
        assert before.stop_sample == after.start_sample
    for part in parts:
        assert 0 < part.stop_sample - part.start_sample <= round(part_seconds * rate)
        assert part.context_start_sample <= part.stem_start_sample <= part.start_sample
        assert part.stop_sample <= part.stem_stop_sample <= part.context_stop_sample


def test_a_recording_no_longer_than_a_part_is_one_part() -> None:
    assert len(plan_parts(10 * RATE, RATE, 1, part_seconds=10)) == 1
    assert len(plan_parts(10 * RATE + 1, RATE, 1, part_seconds=10)) == 2


def test_many_channels_make_shorter_parts() -> None:
    parts = plan_parts(192_000 * 300, 192_000, 8, part_seconds=300)
    assert max(8 * (part.stop_sample - part.start_sample) for part in parts) <= PART_CHANNEL_SAMPLES


AWKWARD = [
    1,
    *(RATE * 10 + d for d in (-1, 0, 1)),
    *(RATE * 20 + d for d in (-1, 0, 1)),
    3 * 80_021,
]


@pytest.mark.parametrize("total", AWKWARD)
def test_identity_in_identity_out_at_every_length(total: int) -> None:
    samples = np.random.default_rng(total).standard_normal((2, total)).astype(np.float32)
    parts = plan_parts(total, RATE, 2, part_seconds=10)
    np.testing.assert_array_equal(joined(samples, parts), samples)


def test_a_separator_with_a_finite_receptive_field_does_not_see_the_parts() -> None:
    samples = np.random.default_rng(0).standard_normal((1, 45 * RATE)).astype(np.float32)
    response = np.random.default_rng(1).standard_normal((1, 4 * RATE)).astype(np.float32) / 200

    def separate(block: np.ndarray) -> np.ndarray:
        return fftconvolve(block, response, mode="same", axes=1).astype(np.float32)

    whole = separate(samples)
    parts = plan_parts(45 * RATE, RATE, 1, part_seconds=10)
    assert len(parts) == 5
    np.testing.assert_allclose(joined(samples, parts, separate), whole, atol=1e-5)


@pytest.mark.parametrize("offset", [-801, -800, -1, 0, 1, 799, 800])
def test_an_impulse_at_a_seam_stays_one_impulse(offset: int) -> None:
    samples = np.zeros((1, 25 * RATE), np.float32)
    parts = plan_parts(25 * RATE, RATE, 1, part_seconds=10)
    position = parts[1].start_sample + offset
    samples[0, position] = 1.0
    out = joined(samples, parts)
    assert out[0, position] == 1.0 and np.count_nonzero(out) == 1


def test_a_step_between_parts_is_faded_monotonically() -> None:
    parts = plan_parts(25 * RATE, RATE, 1, part_seconds=10)

    def read(part: Part, start: int, stop: int) -> np.ndarray:
        return np.full((1, stop - start), part.index, np.float32)

    out = np.concatenate(list(join_parts(parts, read)), axis=1)[0]
    steps = np.diff(out)
    assert out.size == 25 * RATE and (steps >= 0).all() and steps.max() < 0.001
