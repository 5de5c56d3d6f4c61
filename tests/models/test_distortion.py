"""Ratios of signal and distortion: torchmetrics, formulas written out, and what does not matter."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchmetrics.functional.audio import (
    scale_invariant_signal_distortion_ratio,
    scale_invariant_signal_noise_ratio,
    signal_noise_ratio,
)

from beamsplitter.models.evaluation.distortion import (
    RATIOS,
    SignalSums,
    si_sdr,
    si_snr,
    snr,
    usdr,
)

REFERENCE, NOISE = np.random.default_rng(5).standard_normal((2, 2, 8000)).astype(np.float32)
SILENCE = np.zeros_like(REFERENCE)
OF_TORCHMETRICS = {
    si_sdr: scale_invariant_signal_distortion_ratio,
    si_snr: scale_invariant_signal_noise_ratio,
    snr: signal_noise_ratio,
}
ALL = (si_sdr, si_snr, snr, usdr)


def by_torchmetrics(measure, estimate, reference):
    ratios = OF_TORCHMETRICS[measure](torch.from_numpy(estimate), torch.from_numpy(reference))
    return float(ratios.mean())


@pytest.mark.parametrize("measure", OF_TORCHMETRICS)
@pytest.mark.parametrize("noise_gain", [1e-3, 0.1, 1, 10])
@pytest.mark.parametrize("gain", [-0.5, 0.01, 1, 3])
@pytest.mark.parametrize("offset", [0, 0.3])
def test_equals_torchmetrics(measure, noise_gain, gain, offset):
    """In double precision, where it adds less to energies: of loud signals that is nothing."""
    reference = 1000 * REFERENCE.astype(np.float64)
    estimate = gain * reference + 1000 * (noise_gain * NOISE + offset)
    expected = by_torchmetrics(measure, estimate, reference)
    assert measure(estimate, reference) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("measure", OF_TORCHMETRICS)
@pytest.mark.parametrize("level", [1e-4, 1])
def test_equals_torchmetrics_with_what_it_adds_to_energies_of_float32(measure, level):
    reference = np.float32(level) * REFERENCE
    estimate = reference + np.float32(level / 3) * NOISE
    expected = by_torchmetrics(measure, estimate, reference)
    assert measure(estimate, reference) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("distortion_db", [-60, -80, -100])
def test_small_distortions_keep_their_digits(distortion_db):
    reference = 1000 * REFERENCE.astype(np.float64)
    estimate = reference + 1000 * 10 ** (distortion_db / 20) * NOISE
    wanted = np.sum(estimate * reference, -1, keepdims=True)
    wanted = wanted / np.sum(reference**2, -1, keepdims=True) * reference
    expected = 10 * np.log10(np.sum(wanted**2, -1) / np.sum((estimate - wanted) ** 2, -1))
    assert si_sdr(estimate, reference) == pytest.approx(expected.mean(), abs=1e-5)


def of_the_challenge(references, estimates):
    """As its evaluator has it, of `(stems, samples, channels)`."""
    signal = np.sum(np.square(references), axis=(1, 2)) + 1e-7
    distortion = np.sum(np.square(references - estimates), axis=(1, 2)) + 1e-7
    return 10 * np.log10(signal / distortion)


@pytest.mark.parametrize("noise_gain", [0, 0.1, 10])
def test_usdr_is_that_of_the_music_demixing_challenge(noise_gain):
    reference = REFERENCE.astype(np.float64) * [[1], [0.01]]
    estimate = reference + noise_gain * NOISE
    (expected,) = of_the_challenge(reference.T[np.newaxis], estimate.T[np.newaxis])
    assert usdr(estimate, reference) == pytest.approx(expected, abs=1e-9)
    if noise_gain:
        together = snr(estimate.reshape(1, -1), reference.reshape(1, -1))
        assert usdr(estimate, reference) == pytest.approx(together, abs=1e-5)


@pytest.mark.parametrize("measure", [si_sdr, si_snr, snr])
def test_is_the_mean_over_channels(measure):
    estimate = REFERENCE + np.array([[0.1], [1]]) * NOISE
    single = [measure(estimate[i : i + 1], REFERENCE[i : i + 1]) for i in range(2)]
    assert single[0] > single[1] + 15
    assert measure(estimate, REFERENCE) == pytest.approx(np.mean(single), abs=1e-9)


@pytest.mark.parametrize("gain", [0.01, 3, -1])
def test_scale_does_not_matter_to_si_sdr(gain):
    estimate = REFERENCE + NOISE / 2
    expected = si_sdr(estimate, REFERENCE)
    assert si_sdr(gain * estimate, REFERENCE) == pytest.approx(expected, abs=1e-3)
    assert si_sdr(estimate, gain * REFERENCE) == pytest.approx(expected, abs=1e-3)


def test_means_matter_to_si_sdr_alone():
    assert si_sdr(REFERENCE + 1, REFERENCE) < 1
    assert si_snr(REFERENCE + 1, REFERENCE) > 60


@pytest.mark.parametrize("measure", ALL)
def test_a_perfect_stem_scores_high(measure):
    assert measure(REFERENCE, REFERENCE) > 60


@pytest.mark.parametrize("measure", ALL)
@pytest.mark.parametrize("estimate", [REFERENCE, SILENCE], ids=["sounding", "silent"])
def test_nothing_is_said_of_silent_references(measure, estimate):
    assert math.isnan(measure(estimate, SILENCE))


def test_silent_estimates():
    """0 dB leave as much error as there was signal; a shape that is not there has no quality."""
    assert math.isnan(si_sdr(SILENCE, REFERENCE))
    assert math.isnan(si_snr(SILENCE + 0.1, REFERENCE))  # of a constant, its mean aside
    assert snr(SILENCE, REFERENCE) == usdr(SILENCE, REFERENCE) == 0


def test_channels_with_a_silent_reference_are_left_out():
    reference = REFERENCE * np.float32([[1], [0]])
    estimate = REFERENCE + NOISE
    assert si_sdr(estimate, reference) == si_sdr(estimate[:1], reference[:1])
    assert snr(estimate, reference) == snr(estimate[:1], reference[:1])
    # But not those with a silent estimate: a stem that lacks a channel would gain by it.
    assert math.isnan(si_sdr(REFERENCE * np.float32([[1], [0]]), REFERENCE))


@given(
    cuts=st.lists(st.integers(0, 8000), max_size=5),
    gain=st.floats(-2, 2),
    noise_gain=st.floats(0.01, 2),
)
def test_blocks_add_up(cuts, gain, noise_gain):
    estimate = gain * REFERENCE + noise_gain * NOISE + 0.2
    edges = [0, *sorted(cuts), 8000]
    blocks = [slice(a, b) for a, b in itertools.pairwise(edges)]
    total = SignalSums.of(estimate[:, blocks[0]], REFERENCE[:, blocks[0]])
    for block in blocks[1:]:
        total += SignalSums.of(estimate[:, block], REFERENCE[:, block])
    whole = SignalSums.of(estimate, REFERENCE)
    assert total.samples == whole.samples
    for ratio_of in RATIOS.values():
        np.testing.assert_allclose(ratio_of(total), ratio_of(whole), rtol=0, atol=1e-8)


def test_takes_arrays_that_lie_anyhow_in_memory():
    estimate = REFERENCE + NOISE
    turned = np.asfortranarray(estimate)
    assert si_sdr(turned[:, ::2], REFERENCE[:, ::2]) == si_sdr(
        np.ascontiguousarray(estimate[:, ::2]), np.ascontiguousarray(REFERENCE[:, ::2])
    )


def test_many_signals_at_once_have_the_ratios_of_each():
    estimates = np.stack([REFERENCE + NOISE, NOISE, SILENCE])
    together = SignalSums.of(estimates, np.stack([REFERENCE] * 3))
    for ratio_of in RATIOS.values():
        alone = [float(ratio_of(SignalSums.of(each, REFERENCE))) for each in estimates]
        np.testing.assert_array_equal(ratio_of(together), alone)


def test_shapes_differ():
    with pytest.raises(ValueError, match=r"\(2, 7999\).*\(2, 8000\)"):
        si_sdr(REFERENCE[:, 1:], REFERENCE)
