"""The score of a stem: its formula written out, and what it does not depend on."""

import numpy as np
import pytest
import torch
from torchmetrics.functional.audio import scale_invariant_signal_distortion_ratio

from beamsplitter.models.evaluation import si_sdr

TARGET, NOISE = np.random.default_rng(5).standard_normal((2, 2, 8000)).astype(np.float32)


def by_torchmetrics(estimate, target):
    ratios = scale_invariant_signal_distortion_ratio(
        torch.from_numpy(estimate), torch.from_numpy(target)
    )
    return float(ratios.mean())


@pytest.mark.parametrize("noise_gain", [0, 0.01, 1, 10])
@pytest.mark.parametrize("gain", [0, 1e-4, 1])
def test_equals_torchmetrics(noise_gain, gain):
    estimate = (gain * TARGET + noise_gain * NOISE).astype(np.float32)
    expected = by_torchmetrics(estimate, TARGET)
    assert si_sdr(estimate, TARGET) == pytest.approx(expected, abs=1e-2, rel=1e-2)


def written_out(estimate, target):
    ratios = []
    for ours, true in zip(estimate.astype(float), target.astype(float), strict=True):
        wanted = (ours @ true) / (true @ true) * true
        ratios.append(10 * np.log10(np.sum(wanted**2) / np.sum((ours - wanted) ** 2)))
    return np.mean(ratios)


@pytest.mark.parametrize("noise_gain", [0.01, 0.3, 1, 10])
def test_equals_the_formula(noise_gain):
    estimate = (TARGET + noise_gain * NOISE).astype(np.float32)
    assert si_sdr(estimate, TARGET) == pytest.approx(written_out(estimate, TARGET), abs=1e-3)


def test_is_the_mean_over_channels():
    estimate = (TARGET + np.array([[0.1], [1]]) * NOISE).astype(np.float32)
    single = [si_sdr(estimate[i : i + 1], TARGET[i : i + 1]) for i in range(2)]
    assert single[0] > single[1] + 15
    assert si_sdr(estimate, TARGET) == pytest.approx(np.mean(single), abs=1e-4)


@pytest.mark.parametrize("gain", [0.01, 3, -1])
def test_scale_does_not_matter(gain):
    estimate = TARGET + NOISE / 2
    expected = si_sdr(estimate, TARGET)
    assert si_sdr(np.float32(gain) * estimate, TARGET) == pytest.approx(expected, abs=1e-3)
    assert si_sdr(estimate, np.float32(gain) * TARGET) == pytest.approx(expected, abs=1e-3)


def test_mean_is_not_removed():
    assert si_sdr(TARGET + 1, TARGET) < 1


def test_a_perfect_stem_scores_high():
    assert si_sdr(TARGET, TARGET) > 60


@pytest.mark.parametrize(
    ("estimate", "target"),
    [(np.zeros_like(TARGET), TARGET), (TARGET, np.zeros_like(TARGET)), (0 * TARGET, 0 * TARGET)],
)
def test_silence_is_finite(estimate, target):
    assert np.isfinite(si_sdr(estimate, target))


def test_takes_arrays_that_lie_anyhow_in_memory():
    estimate = TARGET + NOISE
    turned = np.asfortranarray(estimate)
    assert si_sdr(turned[:, ::2], TARGET[:, ::2]) == si_sdr(
        np.ascontiguousarray(estimate[:, ::2]), np.ascontiguousarray(TARGET[:, ::2])
    )
