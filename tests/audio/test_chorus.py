"""Choruses: songs whose form is known, pychorus, and what must not matter."""

import itertools
import re

import librosa
import numpy as np
import pytest
from audio_files import recording
from hypothesis import given, settings
from hypothesis import strategies as st
from made_songs import made_section, made_song
from oracles import pychorus
from scipy.ndimage import gaussian_filter1d

from beamsplitter.audio import chorus
from beamsplitter.audio.chorus import Choruses, find_choruses
from beamsplitter.audio.chroma import HOP_S, chroma_frames
from beamsplitter.audio.decoding.audio_reader import read_audio
from beamsplitter.audio.synthesis import synthesize_song

RATE = 8000
# pychorus is made for this rate.
THEIR_RATE = 22050
NEAR_S = 2 * HOP_S
WIDTH = 13


def best(song: np.ndarray, **arguments: float) -> chorus.RepeatedSection:
    return find_choruses(song, RATE, **arguments).sections[0]


def chroma_of(song: np.ndarray, rate: int) -> np.ndarray:
    return np.concatenate([*chroma_frames([song], rate)])


def by_pychorus(chroma: np.ndarray, seconds: float, clip_s: float = 15) -> float | None:
    """Where a chorus begins: of its occurrences a later one."""
    return pychorus.find_chorus(chroma.T.astype(float), THEIR_RATE, seconds, clip_s)


@pytest.mark.parametrize(
    ("order", "starts_s", "length_s", "score"),
    [
        ("ABCB", [20, 60], 20, 0),
        ("ABCBD", [20, 60], 20, 0),
        ("ABAB", [0, 40], 40, 0),
        ("BB", [0, 20], 20, 0),
        ("AAB", [0, 20], 20, 0),
        ("ABB", [20, 40], 20, 0),
        ("ABABCB", [20, 60, 100], 20, 2),
        ("ABACABA", [0, 40, 80, 120], 20, 3),
    ],
)
def test_the_form_is_found(order: str, starts_s: list[float], length_s: float, score: int) -> None:
    found = best(made_song(order))
    assert [found.start_s, *found.repeats_s] == pytest.approx(starts_s, abs=NEAR_S)
    assert found.length_s == pytest.approx(length_s, abs=2 * NEAR_S)
    assert found.score == score


def test_sections_of_a_song_like_those_that_are_sung() -> None:
    """A band whose chords come round within a section, too, and a voice; cut at any sample."""
    seconds = {"A": 24.13, "B": 21.37, "C": 27.71}
    parts = {
        name: sum(synthesize_song(duration_s=length, sample_rate=RATE, seed=seed).values())
        for seed, (name, length) in enumerate(seconds.items())
    }
    order = "ABABCB"
    ends_s = np.cumsum([0, *(seconds[each] for each in order)])
    found = best(np.concatenate([parts[each] for each in order], axis=1))
    assert [found.start_s, *found.repeats_s] == pytest.approx(ends_s[[1, 3, 5]], abs=2)
    assert found.length_s == pytest.approx(seconds["B"], abs=2)


def test_more_repetitions_rank_before_longer_ones_and_those_before_shorter_ones() -> None:
    song = made_song("ACBXBYABZDCEACW", A=20, B=30, C=25, X=16, Y=17, Z=18, W=16, section_s=16)
    sections = find_choruses(song, RATE).sections
    keys = [(each.score, each.length_s) for each in sections]
    assert keys == sorted(keys, reverse=True)
    assert len(sections[0].repeats_s) == 2
    assert len({each.start_s for each in sections}) > 1


def test_each_section_is_told_once() -> None:
    """All pairs of four occurrences are lines."""
    (found,) = find_choruses(made_song("ABACADAE"), RATE).sections
    assert [found.start_s, *found.repeats_s] == pytest.approx([0, 40, 80, 120], abs=NEAR_S)


@pytest.mark.parametrize(
    ("song", "reason"),
    [
        (made_song("ABCD"), "nothing repeats"),
        (np.random.default_rng(0).standard_normal(60 * RATE) / 10, "nothing repeats"),
        (np.sin(0.3 * np.arange(60 * RATE)), "nothing repeats"),
        (np.tile([1.0, *np.zeros(RATE // 2 - 1)], 120), "nothing repeats"),
        (np.zeros((2, 60 * RATE)), "silent"),
        (made_song("A"), "too short"),
        (made_song("AA", section_s=14.9), "too short"),
        (np.zeros(1), "too short"),
        (np.zeros(0), "too short"),
        (np.zeros((2, 0)), "too short"),
    ],
    ids=itertools.count(),
)
def test_where_there_is_none_there_is_a_reason(song: np.ndarray, reason: str) -> None:
    found = find_choruses(song, RATE)
    assert (found.sections, found.reason) == ((), reason)
    assert found.duration_s == song.shape[-1] / RATE
    assert found.excerpt_stop_s - found.excerpt_start_s == min(15, found.duration_s)


def test_quiet_between_sections_is_none() -> None:
    """Moments of silence resemble each other, whatever lag is between them."""
    silence = np.zeros(20 * RATE, np.float32)
    song = np.concatenate([silence, made_song("A"), silence, made_song("B"), silence])
    assert find_choruses(song, RATE).reason == "nothing repeats"
    noise = np.random.default_rng(1).standard_normal(len(song)).astype(np.float32)
    assert find_choruses(song + 1e-4 * noise, RATE).reason == "nothing repeats"


@given(
    duration_s=st.floats(0, 1e4),
    clip_s=st.floats(5, 60),
    start_s=st.none() | st.floats(0, 1e4),
)
def test_excerpts_lie_in_the_song(duration_s: float, clip_s: float, start_s: float | None) -> None:
    sections = (
        () if start_s is None else (chorus.RepeatedSection(min(start_s, duration_s), 1, (), 0),)
    )
    found = Choruses(duration_s, clip_s, sections, None if sections else "nothing repeats")
    assert 0 <= found.excerpt_start_s <= found.excerpt_stop_s <= duration_s
    length_s = found.excerpt_stop_s - found.excerpt_start_s
    assert length_s == pytest.approx(min(clip_s, duration_s), abs=1e-6)
    if duration_s <= clip_s:
        assert found.excerpt_start_s == 0


def test_without_a_section_an_excerpt_begins_after_two_fifths_of_the_song() -> None:
    assert Choruses(100.0, 15.0, reason="nothing repeats").excerpt_start_s == 40
    assert Choruses(20.0, 15.0, reason="too short").excerpt_start_s == 5


@settings(max_examples=15, deadline=None)
@given(silence_s=st.floats(0, 30), level_db=st.floats(-60, 60), seed=st.integers(0, 99))
def test_silence_before_a_song_shifts_it_and_its_level_does_not_matter(
    silence_s: float, level_db: float, seed: int
) -> None:
    parts = [made_section(seed + each, 18, RATE) for each in (0, 1, 2, 1)]
    song = np.concatenate(parts)
    plain = best(song)
    silence = np.zeros(round(silence_s * RATE), np.float32)
    shifted = best(np.concatenate([silence, 10 ** (level_db / 20) * song]))
    assert shifted.start_s == pytest.approx(plain.start_s + silence_s, abs=NEAR_S)
    assert shifted.length_s == pytest.approx(plain.length_s, abs=2 * NEAR_S)
    assert len(shifted.repeats_s) == len(plain.repeats_s) == 1


@settings(max_examples=15, deadline=None)
@given(cuts=st.lists(st.integers(0, 64 * RATE), max_size=6), channels=st.integers(1, 3))
def test_how_the_samples_come_does_not_matter(cuts: list[int], channels: int) -> None:
    song = made_song("ABCB", section_s=16)
    blocks = np.split(np.repeat([song], channels, axis=0), sorted(cuts), axis=1)
    assert find_choruses(iter(blocks), RATE) == find_choruses(song, RATE)


@pytest.mark.parametrize("rate", [11025, 16000, 44100, 48000])
def test_rates_give_the_same_times(rate: int) -> None:
    found = find_choruses(made_song("ABCB", sample_rate=rate), rate).sections[0]
    assert [found.start_s, *found.repeats_s] == pytest.approx([20, 60], abs=NEAR_S)


@pytest.mark.parametrize("semitones", [0.25, 0.5, 3])
def test_any_tuning_does(semitones: float) -> None:
    """A song that is played at another speed is one in another tuning, and as much shorter."""
    faster = 2 ** (semitones / 12)
    song = made_song("ABCB", section_s=24)
    found = find_choruses(song, round(RATE * faster)).sections[0]
    expected = np.array([24, 72]) / faster
    assert [found.start_s, *found.repeats_s] == pytest.approx(expected, abs=NEAR_S)


@pytest.mark.parametrize("clip_s", [5, 8, 15, 20])
def test_clips_of_other_lengths(clip_s: float) -> None:
    found = best(made_song("ABCB", section_s=25), clip_s=clip_s)
    assert [found.start_s, *found.repeats_s] == pytest.approx([25, 75], abs=NEAR_S)


def test_sections_that_are_shorter_than_the_clip_are_none() -> None:
    song = made_song("ABCB", section_s=14)
    assert find_choruses(song, RATE, clip_s=16).reason == "nothing repeats"
    assert find_choruses(song, RATE, clip_s=10).reason is None


def test_where_pychorus_works_it_gives_one_of_the_occurrences() -> None:
    for order in ("ABCBD", "AABC", "ABACABA", "ABABCBD"):
        song = made_song(order, sample_rate=THEIR_RATE)
        chroma = chroma_of(song, THEIR_RATE)
        theirs_s = by_pychorus(chroma, len(song) / THEIR_RATE)
        ours = find_choruses(song, THEIR_RATE).sections[0]
        # Theirs begins where a smoothed row rises.
        assert theirs_s is not None
        assert min(abs(theirs_s - each) for each in (ours.start_s, *ours.repeats_s)) < 2, order


def test_what_ends_with_the_song_is_nothing_to_pychorus() -> None:
    """The reason to have our own: should this fail, they have mended it."""
    song = made_song("ABCB", sample_rate=THEIR_RATE)
    assert by_pychorus(chroma_of(song, THEIR_RATE), len(song) / THEIR_RATE) is None
    assert find_choruses(song, THEIR_RATE).sections


def test_rows_are_those_of_pychorus() -> None:
    """But for the ends of the song, beyond which all is zero to it."""
    song = made_song("ABCBA", sample_rate=THEIR_RATE)
    chroma = chroma_of(song, THEIR_RATE)
    theirs = pychorus.similarity_matrix.TimeLagSimilarityMatrix(chroma.T.astype(float), THEIR_RATE)
    times = pychorus.similarity_matrix.TimeTimeSimilarityMatrix(chroma.T.astype(float), THEIR_RATE)
    theirs.denoise(times.matrix, WIDTH)
    reach, last_lag = 5 * WIDTH, len(chroma) - 12 * WIDTH
    ours = chorus._denoised_rows(chroma, first_lag=WIDTH, last_lag=last_lag, width=WIDTH)
    rows = list(ours)
    assert len(rows) == last_lag + 1 - WIDTH
    for lag, row in enumerate(rows, WIDTH):
        assert len(row) == len(chroma) - lag
        np.testing.assert_allclose(
            row[reach:-reach], theirs.matrix[lag, lag + reach : -reach], atol=1e-6
        )
    assert max(row[reach:-reach].max() for row in rows) > 0.3


@pytest.mark.parametrize("order", ["ABCB", "BB"])
def test_rows_are_those_of_the_definition(order: str) -> None:
    """At the ends of the song, too: there only windows count that lie in it."""
    chroma = chroma_of(made_song(order, section_s=6), RATE).astype(float)
    frames, width = len(chroma), 5
    similar = 1 - np.linalg.norm(chroma[:, None] - chroma, axis=2) / 12**0.5
    last_lag = frames - 2 * width
    ours = chorus._denoised_rows(chroma, first_lag=width, last_lag=last_lag, width=width)
    steps = np.arange(width)
    for lag, row in enumerate(ours, width):
        rest = []
        for earlier in range(frames - lag):
            later = earlier + lag
            has_before, has_after = earlier >= width - 1, later + width <= frames
            along = [similar[later - steps, earlier - steps].mean()] * has_before
            along += [
                similar[later + steps[: frames - later], earlier + steps[: frames - later]].mean()
            ] * has_after
            across = [
                similar[later - steps, earlier].mean(),
                similar[later, earlier + steps].mean(),
            ]
            across += [similar[later, earlier - steps].mean()] * has_before
            across += [similar[(later + steps) % frames, earlier].mean()] * has_after
            off = min(across) if max(along) > max(across) else max(across)
            rest.append(similar[later, earlier] - off)
        smoothed = gaussian_filter1d(rest, width)
        np.testing.assert_allclose(row, np.maximum(smoothed, 0), atol=1e-6)


@pytest.mark.parametrize("rate", [8000, 22050, 44100])
def test_chroma_is_that_of_librosa(rate: int) -> None:
    song = made_section(1, 7.3, rate)
    ours = chroma_of(song, rate)
    if rate == THEIR_RATE:
        theirs = librosa.feature.chroma_stft(
            y=song, sr=rate, n_fft=16384, hop_length=4096, tuning=0.0
        )
        assert ours.shape == theirs.T.shape
        np.testing.assert_allclose(ours, theirs.T, atol=1e-5)
    assert ours.dtype == np.float32
    assert ours.max(axis=1) == pytest.approx(1)


def test_chroma_of_silence_is_finite() -> None:
    assert not chroma_of(np.zeros(RATE, np.float32), RATE).any()
    faint = chroma_of(np.full(RATE, 1e-30, np.float32), RATE)
    assert np.isfinite(faint).all()


def test_a_recording_in_two_halves_that_are_the_same() -> None:
    """What was played twice is found in what was recorded, with noise over one of them."""
    samples = read_audio(recording("nutcracker.ogg").read_bytes(), name="nutcracker")[
        :, : 44100 * 40
    ]
    noise = np.random.default_rng(0).standard_normal(samples.shape).astype(np.float32)
    song = np.concatenate([samples, samples + 0.1 * samples.std() * noise], axis=1)
    found = find_choruses(song, 44100).sections[0]
    assert [found.start_s, *found.repeats_s] == pytest.approx([0, 40], abs=2 * NEAR_S)
    assert found.length_s == pytest.approx(40, abs=2 * NEAR_S)


@pytest.mark.parametrize(
    ("samples", "arguments", "said"),
    [
        (np.zeros(8), {"sample_rate": 0}, "sample_rate: 0 is no whole number of Hz"),
        (np.zeros(8), {"sample_rate": 8000.5}, "no whole number of Hz"),
        (np.zeros(8), {"clip_s": 2}, "clip_s is at least 5 seconds, not 2"),
        (np.zeros(8), {"clip_s": float("nan")}, "clip_s is at least 5 seconds, not nan"),
        (np.zeros(8, np.int16), {}, "samples are int16: hand over floats"),
        (np.zeros((2, 2, 8)), {}, "samples have shape (2, 2, 8): (channels, samples)"),
        (np.zeros((8000, 2)), {}, "samples have shape (8000, 2): (channels, samples)"),
        (np.zeros(()), {}, "samples have shape (): (channels, samples)"),
        (np.array([0, np.nan]), {}, "samples hold NaN or infinity"),
        (np.array([0, -np.inf]), {}, "samples hold NaN or infinity"),
    ],
)
def test_mistakes_are_told(samples: np.ndarray, arguments: dict[str, float], said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        find_choruses(samples, **{"sample_rate": RATE, **arguments})
