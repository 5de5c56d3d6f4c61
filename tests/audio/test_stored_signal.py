"""What becomes of a stem on its way into its file: folded down, resampled, below full scale."""

from collections.abc import Iterable, Iterator

import numpy as np
import pytest
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from beamsplitter.audio.channels import fold_down
from beamsplitter.audio.encoding import quantize
from beamsplitter.audio.limiting import FADE_S, HOLD_S, limited
from beamsplitter.audio.resampling import resampled, rounded_length
from beamsplitter.audio.stem_format import StemFormat
from beamsplitter.audio.stored_signal import as_stored, gain_for, peak_of, scaled

RATES = (8000, 11025, 22050, 44100, 48000, 96000)


def noise(channels: int, samples: int, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return (0.3 * generator.standard_normal((channels, samples))).astype(np.float32)


def blocks(samples: np.ndarray, size: int) -> Iterator[np.ndarray]:
    return (samples[:, first : first + size] for first in range(0, samples.shape[1], size))


def joined(made: Iterable[np.ndarray]) -> np.ndarray:
    return np.concatenate(list(made), axis=1)


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from(RATES),
    st.sampled_from(RATES),
    st.integers(1, 3000) | st.sampled_from([16383, 16384, 16385, 30011]),
    st.sampled_from([1, 7, 1009, 4096]),
)
def test_resampled_is_exactly_as_long_however_it_is_cut(
    old: int, new: int, samples: int, size: int
) -> None:
    signal = noise(2, samples)
    whole = joined(resampled([signal], old, new))
    assert whole.shape == (2, max(1, int(samples * new / old + 0.5)))
    np.testing.assert_array_equal(joined(resampled(blocks(signal, size), old, new)), whole)


@pytest.mark.parametrize("old,new", [(44100, 48000), (96000, 44100), (22050, 8000)])
def test_resampled_is_what_soxr_gives_and_in_place(old: int, new: int) -> None:
    signal = noise(2, old + 123)
    made = joined(resampled(blocks(signal, 1 << 14), old, new))
    expected = soxr.resample(signal.T, old, new, quality="VHQ").T
    shared = min(made.shape[1], expected.shape[1])
    np.testing.assert_allclose(made[:, :shared], expected[:, :shared], atol=1e-6)
    time, low = np.arange(made.shape[1]) / new, 440.0
    tone = np.sin(2 * np.pi * low * np.arange(old + 123) / old).astype(np.float32)
    here = joined(resampled([tone[None]], old, new))[0]
    inner = slice(new // 4, new // 2)
    np.testing.assert_allclose(here[inner], np.sin(2 * np.pi * low * time)[inner], atol=1e-5)


def test_nothing_becomes_nothing() -> None:
    assert list(resampled([], 44100, 48000)) == list(limited([], 44100, 1.0)) == []
    assert rounded_length(0, 44100, 48000) == 0


@pytest.mark.parametrize("channels", range(3, 9))
def test_folding_down_never_clips_and_leaves_lfe_out(channels: int) -> None:
    everywhere = np.ones((channels, 5), np.float32)
    np.testing.assert_allclose(fold_down(everywhere), 1, rtol=1e-6)
    left, right = np.zeros((2, channels, 1), np.float32)
    left[0] = right[1] = 1
    folded = fold_down(left)
    assert folded[0, 0] > 0 and folded[1, 0] == 0
    np.testing.assert_array_equal(fold_down(right), folded[::-1])
    if channels > 5:
        lfe = np.zeros((channels, 1), np.float32)
        lfe[3] = 1
        assert not fold_down(lfe).any()


def test_folding_5_1_down_is_that_of_bs_775() -> None:
    signal = noise(6, 100)
    front_left, front_right, centre, _, left, right = signal
    expected = np.stack([front_left, front_right]) + (centre + np.stack([left, right])) / 2**0.5
    np.testing.assert_allclose(fold_down(signal), expected / (1 + 2**0.5), atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 9000),
    st.sampled_from([1, 7, 1009, 4096]),
    st.lists(st.tuples(st.integers(0, 8999), st.floats(-8, 8, width=32)), max_size=8),
    st.sampled_from([1 - 2.0**-15, 1 - 2.0**-23, 0.25]),
)
def test_limited_is_below_the_ceiling_however_it_is_cut(
    samples: int, size: int, peaks: list[tuple[int, float]], ceiling: float
) -> None:
    signal = np.clip(noise(2, samples), -0.2, 0.2)
    for index, (position, peak) in enumerate(peaks):
        signal[index % 2, position % samples] = peak
    whole = joined(limited([signal], 8000, ceiling))
    assert whole.shape == signal.shape
    assert np.abs(whole).max() <= ceiling
    np.testing.assert_array_equal(joined(limited(blocks(signal, size), 8000, ceiling)), whole)


def test_a_limiter_turns_all_channels_down_and_nothing_far_from_a_peak() -> None:
    rate, at = 44100, 20000
    signal = np.clip(noise(2, 40000), -0.9, 0.9)
    signal[0, at] = 3
    made = joined(limited([signal], rate, 1.0))
    near = (np.arange(40000) > at - FADE_S * rate) & (
        np.arange(40000) < at + (FADE_S + HOLD_S) * rate + 2
    )
    np.testing.assert_array_equal(made[:, ~near], signal[:, ~near])
    assert made[0, at] == pytest.approx(1)
    gain = made / signal
    np.testing.assert_allclose(gain[0], gain[1], rtol=1e-5)
    # No step in the gain: that would be a click.
    assert np.abs(np.diff(gain[1])).max() < 0.005


@settings(max_examples=60, deadline=None)
@given(st.floats(0.01, 50), st.sampled_from(["flac", "wav", "mp3"]), st.sampled_from([16, 24, 32]))
def test_a_gain_for_the_peak_clips_nothing(level: float, container: str, bits: int) -> None:
    stem_format = StemFormat(
        container=container,  # type: ignore[arg-type]
        bit_depth=None if container == "mp3" else min(bits, 24) if container == "flac" else bits,
    )
    signal = noise(2, 300) * np.float32(level)
    gain = gain_for(peak_of(blocks(signal, 77)), stem_format)
    made = joined(scaled(blocks(signal, 50), gain))
    stored, clipped = quantize(made, stem_format)
    assert clipped == 0 and np.abs(stored).max() <= 1
    if np.abs(signal).max() <= stem_format.full_scale:
        assert gain == 1
        np.testing.assert_array_equal(made, signal)
    else:
        assert np.abs(made).max() == pytest.approx(1, abs=1e-4)
    silent = gain_for(peak_of([np.zeros((2, 5), np.float32)]), stem_format)
    assert silent == 1


@pytest.mark.parametrize("channels", [2, 6])
def test_sums_of_stems_stay_sums(channels: int) -> None:
    stem_format = StemFormat(container="mp3", sample_rate=32000, channels=2)
    stems = [noise(channels, 30011, seed) for seed in range(3)]
    made = [joined(as_stored([stem], 44100, stem_format)) for stem in stems]
    mixture = joined(as_stored([sum(stems, np.zeros_like(stems[0]))], 44100, stem_format))
    assert mixture.shape == (2, rounded_length(30011, 44100, 32000))
    np.testing.assert_allclose(sum(made), mixture, atol=2e-6)
