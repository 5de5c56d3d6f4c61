"""BSSEval: museval, the definition written out, and what must not matter."""

import itertools

import numpy as np
import pytest
import soundfile
from audio_files import recording
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import museval

from beamsplitter.audio.synthesis import synthesize_song
from beamsplitter.models.evaluation.bsseval import BssEval, bss_eval

RATE = 8000
SDR, ISR, SIR, SAR = range(4)


def as_16_bits(signals):
    """What recordings hold, whose lowest bit keeps museval's systems from being singular."""
    return np.round(signals * 32767) / 32768


def recorded(*names, seconds, channels, start_s=1):
    """Stretches of recordings, thinned out without a filter; channels are delayed if it is mono."""
    stems = []
    for name in names:
        samples, rate = soundfile.read(recording(f"{name}.ogg"), always_2d=True)
        thinned = samples[start_s * rate :: rate // RATE][: seconds * RATE].T
        shifted = [np.roll(thinned[i % len(thinned)], 3 * i) for i in range(channels)]
        stems.append(np.stack(shifted) / np.abs(thinned).max())
    return as_16_bits(np.stack(stems) / 2)


def synthesized(*seeds, seconds, channels):
    songs = [synthesize_song(duration_s=seconds, sample_rate=RATE, seed=seed) for seed in seeds]
    return as_16_bits(np.stack([stem[:channels] for song in songs for stem in song.values()]))


def degraded(references, *, leak=0.1, noise=0.003, gain=0.8):
    rng = np.random.default_rng(len(references))
    echo = np.roll(references, 40, axis=-1) * 0.3
    made_up = noise * rng.standard_normal(references.shape)
    return gain * references + echo + leak * references.sum(axis=0) + made_up


def by_museval(references, estimates, *, window=RATE, hop=RATE, taps=512):
    return np.stack(
        museval.metrics.bss_eval(
            references.transpose(0, 2, 1),
            estimates.transpose(0, 2, 1),
            window=window,
            hop=hop,
            filters_len=taps,
        )[:4]
    )


def assert_equals_museval(references, estimates, *, window=RATE, hop=RATE, taps=512):
    expected = by_museval(references, estimates, window=window, hop=hop, taps=taps)
    ours = bss_eval(references, estimates, window_samples=window, hop_samples=hop, taps=taps)
    # What is above 120 dB is the rounding of doubles, which differs between processors.
    np.testing.assert_allclose(ours.clip(max=120), expected.clip(max=120), rtol=0, atol=1e-3)
    return ours


@pytest.mark.parametrize(
    ("stems", "channels", "taps"),
    [
        (["speech_austen", "brahms"], 1, 512),
        (["fishin", "nutcracker"], 2, 512),
        (["fishin", "brahms", "vibeace", "nutcracker"], 2, 128),
    ],
)
def test_equals_museval_on_recordings(stems, channels, taps):
    references = recorded(*stems, seconds=3, channels=channels)
    ours = assert_equals_museval(references, degraded(references), taps=taps)
    assert np.isfinite(ours).any(axis=-1).all()


@pytest.mark.parametrize(
    ("seeds", "channels", "taps"), [([1], 2, 512), ([2, 3], 1, 512), ([2, 3], 2, 64)]
)
def test_equals_museval_on_songs(seeds, channels, taps):
    references = synthesized(*seeds, seconds=4, channels=channels)
    ours = assert_equals_museval(references, degraded(references), taps=taps)
    assert np.isfinite(ours).any(axis=-1).all()


def test_equals_museval_by_its_own_evaluation():
    references = recorded("fishin", "brahms", seconds=3, channels=2)
    estimates = degraded(references)
    expected = museval.evaluate(
        references.transpose(0, 2, 1), estimates.transpose(0, 2, 1), win=RATE, hop=RATE
    )
    ours = bss_eval(references, estimates, window_samples=RATE, hop_samples=RATE)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    "estimates_of",
    [
        lambda references: degraded(references, gain=1e-3),
        lambda references: degraded(references, gain=-1),
        lambda references: references[::-1] + 0.1 * references,  # the wrong way round
        lambda references: degraded(references, leak=1, gain=0),  # the mixture
        lambda references: (
            np.apply_along_axis(np.convolve, -1, references, [0.5, 0.3, 0.1], "same")
            + degraded(references, gain=0)
        ),
    ],
    ids=["quiet", "inverted", "swapped", "mixture", "filtered"],
)
def test_equals_museval_on_all_kinds_of_estimates(estimates_of):
    references = synthesized(1, seconds=3, channels=2)
    assert_equals_museval(references, estimates_of(references), taps=128)


def test_equals_museval_on_correlated_stems():
    references = recorded("fishin", "brahms", seconds=3, channels=2)
    references = as_16_bits(np.stack([references[0], 0.6 * references[0] + 0.3 * references[1]]))
    assert_equals_museval(references, degraded(references), taps=128)


@pytest.mark.parametrize(
    ("window", "hop", "frames"),
    [(RATE, RATE, 2), (2000, 700, 26), (2000, 3000, 6), (20000, 20000, 1), (19999, 5, 1)],
)
def test_frames_are_those_of_museval(window, hop, frames):
    """What is left behind the last is in none; a track that is shorter than one is one."""
    references = synthesized(1, seconds=3, channels=1)[..., :19999]
    estimates = degraded(references)
    ours = assert_equals_museval(references, estimates, window=window, hop=hop, taps=32)
    assert ours.shape == (4, 2, frames)


@pytest.mark.parametrize("silenced", ["reference", "estimate", "channels that cancel out"])
def test_a_frame_with_a_silent_signal_is_undefined_for_all_stems_as_in_museval(silenced):
    references = recorded("fishin", "brahms", seconds=3, channels=2)
    estimates = degraded(references)
    second = slice(RATE, 2 * RATE)
    if silenced == "estimate":
        estimates[0, :, second] = 0
    elif silenced == "reference":
        references[1, :, second] = 0
    else:
        references[0, 1, second] = -references[0, 0, second]
    ours = assert_equals_museval(references, estimates, taps=64)
    assert np.isnan(ours[:, :, 1]).all()
    assert np.isfinite(ours[:, :, [0, 2]]).all()


@pytest.mark.parametrize("silent", [0, 1, 2])
@pytest.mark.parametrize("which", ["references", "estimates"])
def test_a_stem_that_is_silent_throughout_costs_no_other(silent, which):
    references = recorded("fishin", "brahms", "vibeace", seconds=2, channels=2)
    estimates = degraded(references)
    others = [each for each in range(3) if each != silent]
    if which == "references":
        references[silent] = 0
        expected = by_museval(references[others], estimates[others], taps=64)
    else:
        # Its reference sounds on, as one that others may hold.
        replaced = estimates.copy()
        estimates[silent] = 0
        expected = by_museval(references, replaced, taps=64)[:, others]
    ours = bss_eval(references, estimates, window_samples=RATE, hop_samples=RATE, taps=64)
    assert np.isnan(ours[:, silent]).all()
    np.testing.assert_allclose(ours[:, others], expected, rtol=0, atol=1e-3)


def test_nothing_sounds():
    silence = np.zeros((2, 2, 3000))
    assert np.isnan(bss_eval(silence, silence, window_samples=1000, hop_samples=1000)).all()


def written_out(references, estimates, taps):
    """Of one frame, the whole: projections on all delayed references by their singular values."""

    def projected(signals, target):
        rows = [
            np.pad(row, (delay, taps - 1 - delay))
            for row in signals.reshape(-1, signals.shape[-1])
            for delay in range(taps)
        ]
        basis = np.stack(rows, axis=1)
        return (basis @ np.linalg.lstsq(basis, target.T, rcond=1e-9)[0]).T

    ratios = []
    for reference, estimate in zip(references, estimates, strict=True):
        true, made = (np.pad(each, ((0, 0), (0, taps - 1))) for each in (reference, estimate))
        alone, together = projected(reference, made), projected(references, made)
        parts = [
            (true, made - true),
            (true, alone - true),
            (alone, together - alone),
            (together, made - together),
        ]
        ratios.append([10 * np.log10(np.sum(a**2) / np.sum(b**2)) for a, b in parts])
    return np.transpose(ratios)


@pytest.mark.parametrize(
    "mixed",
    [
        np.float64([[1, 1], [1, 1]]),  # mono in two channels
        np.float64([[1, 0.6], [0.3, 1]]),  # panned, to rounding
        np.float64([[1, 0], [0.3, 1]]),  # one channel is empty
    ],
    ids=["mono", "panned", "one-sided"],
)
def test_references_that_hold_one_another_project_as_by_singular_values(mixed):
    """To museval's solver these are noise: on such tracks it is wrong by many dB."""
    mono = recorded("fishin", "brahms", seconds=1, channels=1)[..., :4000]
    references = mono * mixed[:, :, np.newaxis]
    estimates = degraded(references)
    ours = bss_eval(references, estimates, window_samples=4000, hop_samples=1, taps=16)
    expected = written_out(references, estimates, taps=16)
    np.testing.assert_allclose(ours[..., 0], expected, rtol=0, atol=1e-3)


def test_16_bits_mend_most_of_what_bands_without_energy_spoil():
    rng = np.random.default_rng(1)
    spectra = np.fft.rfft(rng.standard_normal((2, 1, 20000)))
    spectra[..., 7300:] = 0
    references = 0.1 * np.fft.irfft(spectra)
    leak = 0.2
    estimates = references + leak * references[::-1] + 0.001 * rng.standard_normal(references.shape)
    true_sir = -20 * np.log10(leak)

    def medians(of):
        return np.median(bss_eval(of, estimates, window_samples=5000, hop_samples=5000), axis=-1)

    floats, integers = medians(references), medians(as_16_bits(references))
    assert np.all(floats[SIR] < true_sir - 20)
    np.testing.assert_allclose(integers[SIR], true_sir, rtol=0, atol=4)
    np.testing.assert_allclose(integers[[SDR, ISR]], floats[[SDR, ISR]], rtol=0, atol=0.1)


def test_ratios_of_a_perfect_estimate_are_infinite_or_nearly():
    references = recorded("fishin", "brahms", seconds=2, channels=2)
    ours = bss_eval(references, references, window_samples=RATE, hop_samples=RATE, taps=64)
    assert np.isposinf(ours[SDR]).all()
    assert ours.min() > 150


SONG = synthesized(1, seconds=2, channels=1)


@settings(max_examples=20, deadline=None)
@given(cuts=st.lists(st.integers(0, 16000), max_size=6))
def test_how_a_track_is_cut_makes_no_difference_to_a_bit(cuts):
    references = SONG
    signals = np.concatenate([references, degraded(references)])

    def ratios(edges):
        first_pass = BssEval(2, [[(0, 2), (1, 3)]], signals=4, channels=1, taps=32)
        for start, stop in itertools.pairwise(edges):
            first_pass.add(signals[..., start:stop])
        return first_pass.solve(RATE).ratios(signals[..., RATE : 2 * RATE])

    np.testing.assert_array_equal(ratios([0, *sorted(cuts), 16000]), ratios([0, 16000]))


def test_a_mixture_as_the_estimate_of_all_stems_is_a_group_of_its_own():
    """Silence in an estimate says nothing of the mixture."""
    references = recorded("fishin", "brahms", seconds=2, channels=2)
    estimates = degraded(references)
    estimates[0, :, :RATE] = 0
    mixture = degraded(references, gain=0, leak=1)[0]
    signals = np.concatenate([references, estimates, mixture[np.newaxis]])
    groups = [[(0, 2), (1, 3)], [(0, 4), (1, 4)]]
    first_pass = BssEval(2, groups, signals=5, channels=2, taps=64)
    first_pass.add(signals)
    scorer = first_pass.solve(RATE)
    ours = np.stack([scorer.ratios(signals[..., i * RATE : (i + 1) * RATE]) for i in (0, 1)], -1)
    mixtures = np.stack([mixture, mixture])
    np.testing.assert_allclose(
        ours,
        np.concatenate(
            [by_museval(references, each, taps=64) for each in (estimates, mixtures)], axis=1
        ),
        rtol=0,
        atol=1e-3,
    )


@pytest.mark.parametrize("shape", [(2, 1, 99), (1, 1, 100), (2, 100)])
def test_shapes_differ(shape):
    with pytest.raises(ValueError, match="one shape"):
        bss_eval(np.zeros((2, 1, 100)), np.zeros(shape), window_samples=10, hop_samples=10)
