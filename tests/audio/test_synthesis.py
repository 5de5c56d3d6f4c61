"""Songs made by the program: true stems, the same for a seed, and separable by repetition."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beamsplitter.audio.synthesis import synthesize_song


def rms(signal):
    return np.sqrt(np.mean(np.square(signal, dtype=np.float64)))


@pytest.fixture(scope="module")
def song():
    return synthesize_song()


def test_the_default_song_has_two_stereo_stems(song):
    assert list(song) == ["accompaniment", "vocals"]
    for stem in song.values():
        assert stem.dtype == np.float32
        assert stem.shape == (2, 30 * 44100)
        assert stem.flags.c_contiguous


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    duration=st.floats(0.001, 20),
    rate=st.sampled_from([8000, 16000, 22050, 44100, 48000]),
    level=st.floats(-20, 20),
)
def test_stems_are_finite_and_leave_headroom(seed, duration, rate, level):
    if round(duration * rate) < 1:
        return
    song = synthesize_song(duration_s=duration, sample_rate=rate, seed=seed, vocal_level_db=level)
    mixture = song["accompaniment"] + song["vocals"]
    for signal in (*song.values(), mixture):
        assert signal.shape == (2, round(duration * rate))
        assert np.isfinite(signal).all()
        assert np.abs(signal).max() < 0.9


@pytest.mark.parametrize("level", [-12.0, 0.0, 6.0])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_vocal_level_is_relative_to_the_accompaniment(seed, level):
    song = synthesize_song(duration_s=10, seed=seed, vocal_level_db=level, sample_rate=16000)
    ratio = 20 * np.log10(rms(song["vocals"]) / rms(song["accompaniment"]))
    assert ratio == pytest.approx(level, abs=0.05)


def test_a_seed_gives_one_song_and_another_seed_another():
    options = {"duration_s": 5, "sample_rate": 16000}
    first, again, other = (synthesize_song(seed=seed, **options) for seed in (3, 3, 4))
    for name in first:
        np.testing.assert_array_equal(first[name], again[name])
        assert not np.allclose(first[name], other[name], atol=1e-2)


def test_tempo_and_key_can_be_chosen():
    options = {"duration_s": 5, "sample_rate": 16000}
    plain = synthesize_song(**options)
    for changed in ({"tempo_bpm": 97.0}, {"key": 3}, {"key": 4}):
        song = synthesize_song(**options, **changed)
        assert not np.allclose(plain["accompaniment"], song["accompaniment"], atol=1e-2)


@pytest.mark.parametrize("tempo", [60.0, 120.0])
def test_the_voice_enters_after_the_first_bar(tempo):
    song = synthesize_song(tempo_bpm=tempo, duration_s=20)
    bar = round(4 * 60 / tempo * 44100)
    breath = round(0.5 * 44100)
    assert not song["vocals"][:, : bar - breath].any()
    assert rms(song["vocals"][:, 2 * bar :]) > 0.01
    assert rms(song["accompaniment"][:, :bar]) > 0.01


def similarity(stem, lag):
    """The cosine similarity of the stem's magnitudes with themselves some loops later."""
    librosa = pytest.importorskip("librosa")
    magnitude = np.abs(librosa.stft(stem.mean(axis=0), hop_length=1024))
    frames = round(lag * 22050 / 1024)
    early, late = magnitude[:, :-frames], magnitude[:, frames:]
    return float((early * late).sum() / np.sqrt((early**2).sum() * (late**2).sum()))


@pytest.mark.parametrize("seed", range(4))
def test_the_accompaniment_repeats_and_the_voice_does_not(seed):
    song = synthesize_song(seed=seed, sample_rate=22050, tempo_bpm=120)
    loop = 4 * 4 * 60 / 120
    assert similarity(song["accompaniment"], loop) > 0.8
    assert similarity(song["vocals"], loop) < 0.6
    first, second = np.split(song["accompaniment"][:, : 2 * round(loop * 22050)], 2, axis=1)
    assert rms(first - second) > 0.1 * rms(first)  # but isn't a mere copy


@pytest.mark.parametrize(
    "options",
    [{"duration_s": 0}, {"duration_s": -1}, {"sample_rate": 4000}, {"tempo_bpm": 0}],
)
def test_impossible_songs_are_refused(options):
    with pytest.raises(ValueError, match=r"frames|sample rate|tempo"):
        synthesize_song(**options)
