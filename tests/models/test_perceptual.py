"""PESQ and STOI: their packages, segment by segment."""

import importlib.util
import itertools
import math

import numpy as np
import pystoi
import pytest
import soundfile
import soxr
from audio_files import recording
from facts import assert_names

from beamsplitter.models.evaluation.errors import EvaluationError
from beamsplitter.models.evaluation.perceptual import PerceptualScore, require_installed

RATE = 16000
needs_pesq = pytest.mark.skipif(
    importlib.util.find_spec("pesq") is None, reason="pesq needs a C compiler to be installed"
)
MEASURES = [pytest.param("pesq", marks=needs_pesq), "stoi"]


def by_package(measure, reference, estimate, rate=RATE):
    if measure == "stoi":
        return pystoi.stoi(reference, estimate, rate)
    import pesq

    return pesq.pesq(rate, reference, estimate, "wb")


def speech(seconds, rate=RATE):
    samples, file_rate = soundfile.read(recording("speech_austen.ogg"), always_2d=True)
    return np.resize(soxr.resample(samples[:, 0], file_rate, rate), round(seconds * rate))


def with_noise(signal, level=0.01):
    return signal + level * np.random.default_rng(4).standard_normal(signal.shape)


def score(measure, reference, estimate, *, rate=RATE, cuts=()):
    signals = np.stack([np.atleast_2d(each) for each in (reference, estimate)])
    samples = signals.shape[-1]
    perceptual = PerceptualScore(measure, [(0, 1)], sample_rate=rate, samples=samples)
    edges = [0, *cuts, samples]
    for start, stop in itertools.pairwise(edges):
        perceptual.add(signals[..., start:stop])
    return perceptual.finished()[0]


@pytest.mark.parametrize("measure", MEASURES)
def test_a_short_track_has_the_score_of_the_package(measure):
    reference = speech(6)
    estimate = with_noise(reference)
    expected = by_package(measure, reference, estimate)
    assert score(measure, reference, estimate, cuts=(7, 50000)) == pytest.approx(expected)
    assert score(measure, reference, reference) > expected


@pytest.mark.parametrize("measure", MEASURES)
def test_a_long_track_has_the_mean_of_its_segments(measure):
    reference = speech(23)
    estimate = with_noise(reference)
    half = len(reference) // 2
    expected = [
        by_package(measure, reference[part], estimate[part])
        for part in (slice(half), slice(half, None))
    ]
    assert score(measure, reference, estimate) == pytest.approx(np.mean(expected))
    # A pause of a whole segment says nothing.
    reference[half:] = 0
    assert score(measure, reference, estimate) == pytest.approx(expected[0])


@pytest.mark.parametrize("measure", MEASURES)
def test_other_rates(measure):
    reference = speech(6, rate=44100)
    estimate = with_noise(reference)
    # pystoi resamples by itself.
    at_rate = (reference, estimate, 44100)
    if measure == "pesq":
        at_rate = (*(soxr.resample(each, 44100, RATE) for each in (reference, estimate)), RATE)
    expected = by_package(measure, *at_rate)
    assert score(measure, reference, estimate, rate=44100) == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize("measure", MEASURES)
def test_channels_are_averaged_where_the_reference_sounds(measure):
    reference = speech(5)
    estimates = with_noise(reference), with_noise(reference, 0.1)
    both = score(measure, np.stack([reference, reference]), np.stack(estimates))
    alone = [score(measure, reference, estimate) for estimate in estimates]
    assert both == pytest.approx(np.mean(alone))
    one_sided = np.stack([reference, 0 * reference])
    assert score(measure, one_sided, np.stack(estimates)) == pytest.approx(alone[0])


@pytest.mark.parametrize("measure", MEASURES)
def test_what_is_undefined(measure):
    reference = speech(5)
    for ours, true in [
        (reference, 0 * reference),
        (0 * reference, reference),
        (reference[:2000], reference[:2000]),
    ]:
        assert math.isnan(score(measure, true, ours))


@pytest.mark.parametrize("measure", MEASURES)
def test_an_estimate_in_which_nothing_can_be_heard_does_not_end_it(measure):
    reference = speech(5)
    assert not score(measure, reference, np.full_like(reference, 1e-30)) > 1e-3


@pytest.mark.parametrize(("measure", "package"), [("pesq", "pesq"), ("stoi", "pystoi")])
def test_a_package_that_is_missing_is_told(measure, package, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    require_installed(["si_sdr", "bsseval"])
    with pytest.raises(EvaluationError) as caught:
        require_installed(["si_sdr", measure])
    assert_names(caught.value, measure, package, "pip install 'beamsplitter[perceptual]'")
