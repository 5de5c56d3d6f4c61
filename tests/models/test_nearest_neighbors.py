"""Separation by nearest neighbours: against librosa's tutorial, true stems, and odd recordings."""

import math

import librosa
import numpy as np
import pytest
import soundfile
from audio_files import recording
from pydantic import ValidationError

from beamsplitter.audio.errors import TooShortAudioError
from beamsplitter.audio.spectrum import magnitude_and_phase, stft
from beamsplitter.audio.synthesis import synthesize_song
from beamsplitter.models.evaluation.distortion import si_sdr
from beamsplitter.models.separators.nearest_neighbors import (
    filter_nearest,
    hop_length_of,
    mask_options,
    masked_stems,
    n_fft_of,
    require_duration,
    separate,
    stem_mask,
    with_residual,
)
from beamsplitter.models.separators.recipes import (
    MINIMUM_S,
    RECIPES,
    STEMS,
    NearestNeighborRecipe,
)

DEFAULT = RECIPES["default"]
LIBROSA = RECIPES["librosa"]


def noise(channels, samples, seed=0):
    generator = np.random.default_rng(seed)
    return (0.1 * generator.standard_normal((channels, samples))).astype(np.float32)


def assert_stems_sum_to(samples, stems):
    assert tuple(stems) == STEMS
    for stem in stems.values():
        assert stem.dtype == np.float32
        assert stem.shape == samples.shape
        assert np.isfinite(stem).all()
    np.testing.assert_allclose(stems["background"] + stems["foreground"], samples, atol=1e-6)


def tutorial(y, sr):
    """https://librosa.org/doc/0.11.0/auto_examples/plot_vocal_separation.html, and back to audio.

    The tutorial stops at the spectrograms.
    """
    S_full, phase = librosa.magphase(librosa.stft(y))
    S_filter = librosa.decompose.nn_filter(
        S_full,
        aggregate=np.median,
        metric="cosine",
        width=int(librosa.time_to_frames(2, sr=sr)),
    )
    S_filter = np.minimum(S_full, S_filter)
    margin_i, margin_v = 2, 10
    power = 2
    mask_i = librosa.util.softmask(S_filter, margin_i * (S_full - S_filter), power=power)
    mask_v = librosa.util.softmask(S_full - S_filter, margin_v * S_filter, power=power)
    return {
        "background": librosa.istft(mask_i * S_full * phase, length=len(y)),
        "foreground": librosa.istft(mask_v * S_full * phase, length=len(y)),
    }


@pytest.mark.parametrize(
    ("name", "start_s", "seconds"),
    # Klio's example takes 5 s from second 10 on.
    [
        ("fishin", 40, 12),
        ("brahms", 5, 12.3),
        ("fishin", 10, 5),
        ("nutcracker", 10, 5),
        ("vibeace", 0, 4.1),
    ],
)
def test_recipe_librosa_is_the_tutorial(name, start_s, seconds):
    samples, rate = librosa.load(
        recording(f"{name}.ogg"), sr=22050, offset=start_s, duration=seconds
    )
    stems = separate(samples[np.newaxis], int(rate), LIBROSA)
    for stem, expected in tutorial(samples, rate).items():
        np.testing.assert_allclose(stems[stem][0], expected, rtol=0, atol=1e-5)


def test_recipe_librosa_refuses_what_librosa_refuses():
    rate = 22050
    noise = np.random.default_rng(0).standard_normal(5 * rate).astype(np.float32)
    refused = []
    for frames in range(165, 185):
        samples = noise[: (frames - 1) * 512]
        try:
            expected = tutorial(samples, rate)
        except librosa.util.exceptions.ParameterError:
            refused.append(frames)
            with pytest.raises(TooShortAudioError, match=r"needs more than 4 s; .*recipe: default"):
                separate(samples[np.newaxis], rate, LIBROSA)
            continue
        stems = separate(samples[np.newaxis], rate, LIBROSA)
        for stem, there in expected.items():
            np.testing.assert_allclose(stems[stem][0], there, rtol=0, atol=1e-5)
    assert refused == list(range(165, 175))


@pytest.fixture(scope="module")
def song():
    return synthesize_song(duration_s=20, seed=21)


def test_a_song_gains_on_both_stems(song):
    mixture = song["accompaniment"] + song["vocals"]
    stems = separate(mixture, 44100, DEFAULT)
    assert_stems_sum_to(mixture, stems)
    for stem, true in zip(STEMS, ("accompaniment", "vocals"), strict=True):
        assert si_sdr(stems[stem], song[true]) > si_sdr(mixture, song[true]) + 3


def test_the_default_beats_the_tutorial(song):
    mixture = song["accompaniment"] + song["vocals"]
    ours, theirs = (separate(mixture, 44100, recipe) for recipe in (DEFAULT, LIBROSA))
    for stem, true in zip(STEMS, ("accompaniment", "vocals"), strict=True):
        assert si_sdr(ours[stem], song[true]) > si_sdr(theirs[stem], song[true]) + 1


def test_scale_does_not_matter(song):
    mixture = (song["accompaniment"] + song["vocals"])[:, : 5 * 44100]
    loud, quiet = (separate(gain * mixture, 44100, DEFAULT) for gain in np.float32([1, 2**-10]))
    np.testing.assert_allclose(quiet["background"] * 2**10, loud["background"], atol=1e-4)


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
@pytest.mark.parametrize("channels", [1, 2])
def test_silence_gives_silence(recipe, channels):
    for stem in separate(np.zeros((channels, 110250), np.float32), 22050, recipe).values():
        np.testing.assert_array_equal(stem, 0)


def test_a_silent_passage_and_a_silent_channel_stay_silent():
    samples = noise(2, 4 * 22050)
    samples[:, 22050 : 3 * 22050] = 0
    samples[1] = 0
    stems = separate(samples, 22050, DEFAULT)
    assert_stems_sum_to(samples, stems)
    for stem in stems.values():
        np.testing.assert_array_equal(stem[1], 0)
        np.testing.assert_allclose(stem[0, 22050 + 2048 : 3 * 22050 - 2048], 0, atol=1e-6)


def test_a_constant_is_background():
    samples = np.full((2, 3 * 44100), 0.5, np.float32)
    stems = separate(samples, 44100, DEFAULT)
    assert_stems_sum_to(samples, stems)
    inside = slice(8192, -8192)
    np.testing.assert_allclose(stems["background"][:, inside], 0.5, atol=1e-3)


def test_below_the_highpass_all_is_background():
    times = np.arange(6 * 44100) / 44100
    # A note that occurs once: nothing like it repeats.
    samples = np.sin(2 * np.pi * 50 * times) * (np.abs(times - 3) < 0.3)
    samples = (0.3 * samples).astype(np.float32)[np.newaxis] + noise(1, len(times)) / 10
    note = slice(int(2.8 * 44100), int(3.2 * 44100))
    kept = separate(samples, 44100, DEFAULT)["background"][0, note]
    lost = separate(samples, 44100, DEFAULT.model_copy(update={"highpass_hz": 0}))
    assert np.std(kept) > 0.2
    assert np.std(lost["background"][0, note]) < 0.05


def test_a_very_short_recording_gives_sensible_stems():
    samples, rate = soundfile.read(recording("robin.ogg"), dtype="float32", always_2d=True)
    samples = np.ascontiguousarray(samples.T)
    stems = separate(samples, rate, DEFAULT)
    assert_stems_sum_to(samples, stems)
    for stem in stems.values():
        assert 0.01 < np.std(stem) / np.std(samples) <= 1


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
@pytest.mark.parametrize("rate", [8000, 11025, 16000, 44100, 48000, 96000, 192000])
@pytest.mark.parametrize("seconds", [0, 0.27, 1.4])
def test_every_length_and_rate(recipe, rate, seconds):
    # Librosa refuses what is shorter than twice the distance of neighbours.
    seconds += 4.2 if recipe is LIBROSA else MINIMUM_S
    samples = noise(1, math.ceil(seconds * rate))
    stems = separate(samples, rate, recipe)
    assert all(stem.shape == samples.shape for stem in stems.values())
    assert all(np.isfinite(stem).all() for stem in stems.values())


@pytest.mark.parametrize("channels", [1, 3, 6, 8])
def test_many_channels(channels):
    samples = noise(channels, 2 * 44100)
    assert_stems_sum_to(samples, separate(samples, 44100, DEFAULT))


def test_too_short_is_refused():
    require_duration(MINIMUM_S)
    with pytest.raises(TooShortAudioError, match=r"0\.499 s is too short .* needs 0\.5 s"):
        require_duration(0.499)
    with pytest.raises(TooShortAudioError):
        separate(noise(2, 4000), 44100, DEFAULT)


def test_what_repeats_is_never_more_than_all():
    magnitude, _ = magnitude_and_phase(
        stft(noise(2, 5 * 22050), n_fft=2048, hop_length=hop_length_of(DEFAULT, 22050))
    )
    for recipe in RECIPES.values():
        nearest = filter_nearest(magnitude, recipe, sample_rate=22050, hop_length=512)
        assert nearest.dtype == np.float32
        assert (nearest <= magnitude).all()
        assert (nearest >= 0).all()
        for stem in STEMS:
            options = mask_options(recipe, stem)
            mask = stem_mask(stem, magnitude, nearest, sample_rate=22050, **options)
            assert mask.min() >= 0
            assert mask.max() <= 1


def test_a_masked_foreground_is_the_complement_with_the_default_margins():
    masked = DEFAULT.model_copy(update={"foreground": "mask"})
    assert masked_stems(masked) == STEMS
    assert masked_stems(DEFAULT) == ("background",)
    samples = noise(2, 3 * 22050)
    assert_stems_sum_to(samples, separate(samples, 22050, masked))


def test_the_residual_is_taken_in_samples():
    samples, background = noise(2, 100), noise(2, 100, seed=1)
    stems = with_residual({"background": background}, samples)
    np.testing.assert_array_equal(stems["foreground"], samples - background)


def test_separating_twice_gives_the_same_bits():
    samples = noise(2, 3 * 44100)
    first, again = (separate(samples, 44100, DEFAULT) for _ in range(2))
    for stem in STEMS:
        np.testing.assert_array_equal(first[stem], again[stem])


@pytest.mark.parametrize(
    ("rate", "n_fft"), [(8000, 1024), (22050, 2048), (44100, 4096), (192000, 16384)]
)
def test_the_window_follows_the_sample_rate(rate, n_fft):
    assert n_fft_of(DEFAULT, rate) == n_fft
    assert hop_length_of(DEFAULT, rate) == n_fft // 4


def test_a_recipe_refuses_what_it_does_not_know():
    with pytest.raises(ValidationError):
        NearestNeighborRecipe.model_validate({"widths": 2})
    with pytest.raises(ValidationError):
        NearestNeighborRecipe.model_validate({"power": 0})
    with pytest.raises(ValidationError):
        DEFAULT.power = 2
