"""Numbers that others have published, of signals that can be made again, to the digits they print.

- torchmetrics: the examples in the docstrings of version 1.9.0 (Apache-2.0), which the pages of
  https://lightning.ai/docs/torchmetrics/stable/audio/ show. They draw from seed 42, as
  `src/conftest.py` has it for all of them; those of version 1.0.0 name another seed.
- pb_bss: `pb_bss/evaluation/module_si_sdr.py` of github.com/fgnt/pb_bss (MIT), commit 10acc347fc9e.
- ci_sdr: `ci_sdr/np/wiener_filter.py` of github.com/fgnt/ci_sdr (MIT), commit 4f014718f935:
  what `mir_eval.separation._project` gives.
- SpeechBrain: `cal_si_snr` in `speechbrain/nnet/losses.py` of github.com/speechbrain/speechbrain
  (Apache-2.0), commit 1b4509a204d0.
- scipy: the first example of `scipy.stats.wilcoxon`, version 1.17.1 (BSD), of plants that Wilcoxon
  had in 1945.
"""

import importlib.util
import math

import numpy as np
import pytest
import torch

from beamsplitter.models.evaluation.bsseval import NAMES, bss_eval
from beamsplitter.models.evaluation.distortion import si_sdr, si_snr, snr, usdr
from beamsplitter.models.evaluation.perceptual import pesq_of, stoi_of
from beamsplitter.models.evaluation.statistics import compare

DOCSTRINGS_SEED = 42
NAMED_SEED = 1
needs_pesq = pytest.mark.skipif(
    importlib.util.find_spec("pesq") is None, reason="pesq needs a C compiler to be installed"
)


def noise_of_torchmetrics(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Estimate and reference, float32 `(8000,)`."""
    generator = torch.Generator().manual_seed(seed)
    estimate, reference = (torch.randn(8000, generator=generator).numpy() for _ in range(2))
    return estimate, reference


@pytest.mark.parametrize(
    ("measure", "published"),
    [
        pytest.param(si_sdr, 18.4030, id="si_sdr"),
        pytest.param(si_snr, 15.0918, id="si_snr"),
        pytest.param(snr, 16.1805, id="snr"),
        # Of one channel the two are the same.
        pytest.param(usdr, 16.1805, id="usdr"),
    ],
)
def test_ratios_of_torchmetrics(measure, published):
    reference, estimate = np.array([[3.0, -0.5, 2.0, 7.0]]), np.array([[2.5, 0.0, 2.0, 8.0]])
    assert measure(estimate, reference) == pytest.approx(published, abs=5.1e-5)


REFERENCE = np.random.RandomState(0).standard_normal((1, 100))
TURNED = REFERENCE[:, ::-1]


@pytest.mark.parametrize(
    ("estimate", "published"),
    [
        pytest.param(TURNED, -25.127672346460717, id="turned"),
        pytest.param(REFERENCE + TURNED, 0.481070445785553, id="with-turned"),
        pytest.param(REFERENCE + 0.5, 6.3704606032577304, id="shifted"),
        pytest.param(REFERENCE * 2 + 1, 6.3704606032577304, id="scaled-and-shifted"),
    ],
)
def test_si_sdr_of_pb_bss(estimate, published):
    """It adds nothing to energies; torchmetrics, and we, 1.2e-7."""
    assert si_sdr(estimate, REFERENCE) == pytest.approx(published, abs=3e-6)


def test_si_sdr_of_silence_is_undefined_to_pb_bss_too():
    assert math.isnan(si_sdr(np.array([[0.0, 0.0]]), np.array([[1.0, 0.0]])))


def test_si_snr_of_speechbrain():
    first, second = np.array([[1.0, 123.0, 34.0, 2312.0]]), np.array([[0.0, 45.0, 5.0, 421.0]])
    assert si_snr(second, first) == pytest.approx(25.2142, abs=5.1e-5)
    assert si_snr(first, second) == pytest.approx(25.2142, abs=5.1e-5)


@pytest.mark.parametrize(
    ("seed", "published"), [(DOCSTRINGS_SEED, -11.9930), (NAMED_SEED, -12.0589)]
)
def test_bsseval_of_torchmetrics(seed, published):
    """Its SDR is that of BSSEval version 3, which version 4 calls SAR where nothing interferes."""
    estimate, reference = noise_of_torchmetrics(seed)
    ratios = bss_eval(
        reference[np.newaxis, np.newaxis],
        estimate[np.newaxis, np.newaxis],
        window_samples=8000,
        hop_samples=8000,
    )
    sar = ratios[NAMES.index("sar")].item()
    assert sar == pytest.approx(published, abs=5.1e-5)


RISING, ALTERNATING = np.array([1.0, 2, 3, 4, 5]), np.array([1.0, 2, 1, 2, 1])
# What a filter of two taps makes of the first to come near the second.
PROJECTION = np.array([0.41754386, 0.78596491, 1.15438596, 1.52280702, 1.89122807, -0.24561404])


def decibels(signal: np.ndarray, distortion: np.ndarray) -> float:
    return float(10 * np.log10(np.sum(np.square(signal)) / np.sum(np.square(distortion))))


@pytest.mark.parametrize(
    "references",
    [
        pytest.param([RISING], id="one"),
        # The second adds nothing: the filters are many, what they project is one.
        pytest.param([RISING, -RISING], id="dependent"),
    ],
)
def test_bsseval_is_of_the_projection_of_mir_eval(references):
    estimates = [ALTERNATING] * len(references)
    signals = (np.array(each)[:, np.newaxis] for each in (references, estimates))
    ratios = bss_eval(*signals, window_samples=5, hop_samples=5, taps=2)[..., 0]
    by_name = dict(zip(NAMES, ratios, strict=True))
    artefacts = decibels(PROJECTION, np.append(ALTERNATING, 0) - PROJECTION)
    assert by_name["sar"] == pytest.approx([artefacts] * len(references), abs=1e-6)
    filtered = decibels(RISING, PROJECTION - np.append(RISING, 0))
    assert by_name["isr"][0] == pytest.approx(filtered, abs=1e-6)
    assert by_name["sdr"][0] == pytest.approx(decibels(RISING, ALTERNATING - RISING), abs=1e-9)


@needs_pesq
def test_pesq_of_torchmetrics():
    estimate, reference = noise_of_torchmetrics(DOCSTRINGS_SEED)
    assert pesq_of(estimate, reference, 16000) == pytest.approx(1.6805, abs=5.1e-5)


def test_stoi_of_torchmetrics():
    """It prints -0.084…"""
    estimate, reference = noise_of_torchmetrics(DOCSTRINGS_SEED)
    assert -0.085 < stoi_of(estimate, reference, 8000) <= -0.084


def test_two_systems_side_by_side_as_wilcoxons_plants():
    """By how much cross-fertilized plants were higher than self-fertilized ones."""
    differences = [6, 8, 14, 16, 23, 24, 28, 29, 41, -48, 49, 56, 60, -67, 75]
    self_fertilized = np.arange(100.0, 115.0)
    found = compare(self_fertilized + differences, self_fertilized)
    assert found.p_value == pytest.approx(0.041259765625, abs=1e-12)
    assert (found.tracks, found.better, found.worse) == (15, 13, 2)
