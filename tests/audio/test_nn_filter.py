"""The nearest-neighbour filter against librosa itself, bit for bit, and against plain numpy."""

import librosa
import numpy as np
import pytest
import sklearn
from audio_files import recording
from hypothesis import given, settings
from hypothesis import strategies as st

from beamsplitter.audio import nn_filter as module
from beamsplitter.audio.errors import TooShortAudioError
from beamsplitter.audio.nn_filter import (
    default_k,
    median_over_neighbors,
    nearest_frames,
    nn_filter,
)


def librosa_filter(S, *, width, k=None):
    return librosa.decompose.nn_filter(S, aggregate=np.median, metric="cosine", width=width, k=k)


def assert_same_bits(got, expected):
    assert got.dtype == np.float32
    assert got.shape == expected.shape
    np.testing.assert_array_equal(got.view(np.uint32), np.ascontiguousarray(expected).view("u4"))


def noise(*shape, seed=0):
    return np.random.default_rng(seed).random(shape, dtype=np.float32) ** 3


def slow_nearest(S, *, width, k):
    """The filter in "nearest" mode as one would write it down, in float32 as well."""
    frames = S.shape[-1]
    unit = module._unit_frames(S, multiple=32)
    distance = np.clip(1 - unit @ unit.T, 0, 2)
    result = S.copy()
    for i in range(frames):
        allowed = [j for j in range(frames) if abs(i - j) >= width]
        nearest = sorted(allowed, key=lambda j: (distance[i, j], j))[:k]
        if nearest:
            result[..., i] = np.median(S[..., sorted(nearest)], axis=-1)
    return result


@pytest.mark.parametrize(
    ("name", "seconds", "sample_rate", "width"),
    [
        ("fishin.ogg", 30, 22050, 86),
        ("brahms.ogg", 20, 22050, 43),
        ("humpback.ogg", 15, 22050, 86),
        ("speech_austen.ogg", 10, 44100, 10),
    ],
)
def test_equals_librosa_on_recordings(name, seconds, sample_rate, width):
    y, _ = librosa.load(recording(name), sr=sample_rate, duration=seconds)
    S = np.abs(librosa.stft(y))
    assert_same_bits(nn_filter(S, width=width), librosa_filter(S, width=width))


def test_equals_librosa_in_stereo():
    y, _ = librosa.load(recording("fishin.ogg"), sr=22050, duration=12)
    y = np.stack([y, np.roll(y, 3000) * 0.5])
    S = np.abs(librosa.stft(y))
    assert_same_bits(nn_filter(S, width=20), librosa_filter(S, width=20))


def test_memory_layout_makes_no_difference_and_input_stays():
    S = noise(30, 200)
    before = S.copy()
    expected = nn_filter(S, width=5)
    assert_same_bits(nn_filter(np.asfortranarray(S), width=5), expected)
    assert_same_bits(nn_filter(np.repeat(S, 2, axis=0)[::2], width=5), expected)
    np.testing.assert_array_equal(S, before)
    assert expected.flags.c_contiguous


@st.composite
def spectrograms(draw):
    frames = draw(st.integers(6, 120))
    bins = draw(st.sampled_from([1, 2, 31, 96, 97, 200]))
    channels = draw(st.sampled_from([(), (1,), (2,)]))
    S = noise(*channels, bins, frames, seed=draw(st.integers(0, 2**16)))
    S *= np.float32(10.0 ** draw(st.integers(-7, 3)))
    change = draw(st.sampled_from(["none", "silence", "loop", "constant", "coarse", "sparse"]))
    start = draw(st.integers(0, frames - 1))
    if change == "silence":
        S[..., start : start + frames // 2] = 0
    elif change == "loop":
        S = S[..., np.arange(frames) % max(3, start // 2)]
    elif change == "constant":
        S[..., start:] = S[..., start : start + 1]
    elif change == "coarse":
        S = np.round(S / S.max() * 2)
    elif change == "sparse":
        loud = np.quantile(S, 0.8)
        S[loud > S] = 0
    width = draw(st.integers(1, (frames - 1) // 2 - 1))
    k = draw(st.one_of(st.none(), st.integers(1, frames + 5)))
    return S, width, k


@settings(max_examples=120, deadline=None, derandomize=True)
@given(spectrograms())
def test_equals_librosa_on_any_spectrogram(case):
    S, width, k = case
    assert_same_bits(nn_filter(S, width=width, k=k), librosa_filter(S, width=width, k=k))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(spectrograms())
def test_nearest_equals_plain_numpy(case):
    S, width, k = case
    k = default_k(S.shape[-1], width) if k is None else k
    got = nn_filter(S, width=width, k=k, neighbors="nearest")
    assert_same_bits(got, slow_nearest(S, width=width, k=k))


@pytest.mark.parametrize("frames", [255, 256, 257, 1500])
@pytest.mark.parametrize("k", [None, 1, 7, 600])
def test_equals_librosa_with_ties_at_larger_sizes(frames, k):
    """Sorting and partitioning take other paths in numpy when there is more to sort."""
    S = noise(40, frames)
    S[:, frames // 3 : frames // 2] = 0
    S[:, -40:] = S[:, 10:50]
    assert_same_bits(nn_filter(S, width=9, k=k), librosa_filter(S, width=9, k=k))


@pytest.mark.parametrize("rows", [64, 512])
@pytest.mark.parametrize("megabytes", [1, 2])
def test_equals_librosa_where_scikit_learn_works_in_chunks(monkeypatch, rows, megabytes):
    S = noise(700, 601)
    S[:, 100:160] = 0  # in a chunk a silent frame is not at distance 0 from itself
    S[:, 200:230] *= np.float32(1e-9)
    monkeypatch.setattr(module, "_SKLEARN_WORKING_MEMORY", megabytes * 2**20)
    monkeypatch.setattr(module, "_ROWS", rows)
    with sklearn.config_context(working_memory=megabytes):
        expected = librosa_filter(S, width=12)
    assert_same_bits(nn_filter(S, width=12), expected)


def test_nearest_is_the_same_in_blocks(monkeypatch):
    S = noise(1025, 1201)
    whole = nn_filter(S, width=12, neighbors="nearest")
    monkeypatch.setattr(module, "_SMALL_MATRIX", 0)
    monkeypatch.setattr(module, "_ROWS", 300)
    assert_same_bits(nn_filter(S, width=12, neighbors="nearest"), whole)


@pytest.mark.parametrize("neighbors", ["librosa", "nearest"])
def test_silence_stays_silent(neighbors):
    S = np.zeros((2, 100, 300), np.float32)
    assert_same_bits(nn_filter(S, width=10, neighbors=neighbors), S)


def test_a_repeated_pattern_is_kept_and_what_is_unique_goes():
    S = np.tile(noise(50, 40), 10)
    marked = S.copy()
    marked[5, 203] += 0.5
    got = nn_filter(marked, width=20, k=6, neighbors="nearest")
    np.testing.assert_array_equal(got, S)


def test_more_neighbours_than_16_bit_ranks():
    frames, bins = 2**16 + 10, 3
    S = noise(bins, frames)
    rng = np.random.default_rng(1)
    indices = np.sort(rng.integers(0, frames // 8, (frames, 8)) * 8 + np.arange(8), axis=1)
    indices = indices.astype(np.int32)
    counts = rng.integers(0, 9, frames).astype(np.int32)
    got = median_over_neighbors(S, indices, counts)
    for count in range(9):
        rows = np.flatnonzero(counts == count)
        near = indices[rows, :count] if count else rows[:, None]
        np.testing.assert_array_equal(got[:, rows], np.median(S[:, near], axis=-1))


def test_negative_values_are_ordered_too():
    S = noise(20, 100) - np.float32(0.3)
    indices, counts = nearest_frames(S, width=3)
    got = median_over_neighbors(S, indices, counts)
    for i in range(100):
        near = S[:, indices[i, : counts[i]]]
        np.testing.assert_array_equal(got[:, i], np.median(near, axis=1))


@pytest.mark.parametrize("neighbors", ["librosa", "nearest"])
def test_features_decide_who_is_near(neighbors):
    S = noise(2, 60, 200)
    features = noise(8, 200, seed=1)
    indices, counts = nearest_frames(features, width=5, neighbors=neighbors)
    got = nn_filter(S, width=5, neighbors=neighbors, features=features)
    assert_same_bits(got, median_over_neighbors(S, indices, counts))
    assert not np.array_equal(got, nn_filter(S, width=5, neighbors=neighbors))


def test_neighbors_are_in_time_order_outside_the_width():
    indices, counts = nearest_frames(noise(20, 90), width=30, k=70, neighbors="nearest")
    for i in range(90):
        found = indices[i, : counts[i]]
        outside = np.flatnonzero(np.abs(np.arange(90) - i) >= 30)
        np.testing.assert_array_equal(found, outside)  # k is more than there are


def test_too_few_frames():
    message = "10 frames are too few .* less than 4 frames .* at least 11 "
    with pytest.raises(TooShortAudioError, match=message):
        nn_filter(noise(5, 10), width=4)
    nn_filter(noise(5, 11), width=4)
    with pytest.raises(TooShortAudioError):
        nn_filter(noise(5, 0), width=4)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"width": 0}, "width is 0"),
        ({"width": 3, "k": 0}, "k is 0"),
        ({"width": 3, "neighbors": "far"}, "'far'"),
        ({"width": 3, "features": noise(4, 99)}, "S has 100 frames"),
    ],
)
def test_wrong_arguments(wrong, message):
    with pytest.raises(ValueError, match=message):
        nn_filter(noise(5, 100), **wrong)


def test_wrong_shapes():
    with pytest.raises(ValueError, match=r"\(100,\)"):
        nn_filter(noise(100), width=3)
    indices, counts = nearest_frames(noise(5, 100), width=3)
    with pytest.raises(ValueError, match="99 frames"):
        median_over_neighbors(noise(5, 99), indices, counts)
    with pytest.raises(ValueError, match=r"^indices"):
        median_over_neighbors(noise(5, 100), indices + 100, counts)
    with pytest.raises(ValueError, match=r"^counts"):
        median_over_neighbors(noise(5, 100), indices, counts + 100)


@pytest.mark.parametrize("neighbors", ["librosa", "nearest"])
@pytest.mark.parametrize("shape", [(1025, 300), (2, 129, 700)])
def test_progress_rises_to_one_and_changes_nothing(monkeypatch, neighbors, shape):
    monkeypatch.setattr(module, "_SMALL_MATRIX", 0)
    S = np.abs(noise(*shape))
    told = []
    made = nn_filter(S, width=3, neighbors=neighbors, progress=told.append)
    assert_same_bits(made, nn_filter(S, width=3, neighbors=neighbors))
    assert told == sorted(told) and told[-1] == 1 and 0 < told[0] < 1
    assert len(set(told)) >= 4
