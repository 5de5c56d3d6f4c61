"""What the page plays and shows of a signal: chunks exact to the sample, peaks, levels."""

import io

import numpy as np
import pytest
import soundfile
from PIL import Image

from beamsplitter.audio.channels import fold_down
from beamsplitter.audio.listening import (
    COLUMNS_PER_S,
    LEAD_S,
    PEAKS_PER_S,
    ROWS,
    SAMPLE_RATE,
    highest_level_db,
    levels_within,
    merged_levels,
    merged_peaks,
    opus_of,
    peaks_of,
    picture_of,
    reach_of,
)
from beamsplitter.audio.resampling import resampled


def sound(seconds: float, sample_rate: int, channels: int = 2) -> np.ndarray:
    """Sweeps that no codec finds hard, and that fit in one place only."""
    times = np.arange(round(seconds * sample_rate)) / sample_rate
    sweep = 0.4 * np.sin(2 * np.pi * (200 + 40 * times) * times)
    tones = [0.1 * np.sin(2 * np.pi * 150 * (each + 2) * times) for each in range(channels)]
    return (sweep + np.stack(tones)).astype(np.float32)


def encoded(samples: np.ndarray, sample_rate: int, start_s: float, stop_s: float) -> bytes:
    """A range of a signal."""
    return opus_of(
        lambda start, stop: samples[:, start:stop],
        samples=samples.shape[1],
        sample_rate=sample_rate,
        start_s=start_s,
        stop_s=stop_s,
    )


def encoded_chunk(samples: np.ndarray, sample_rate: int, start_s: int, stop_s: int) -> bytes:
    """A range with its leads, of which no more is read than there is around a chunk."""
    reach = reach_of(sample_rate)
    first, last = start_s * sample_rate - reach, stop_s * sample_rate + reach

    def read(start_sample: int, stop_sample: int) -> np.ndarray:
        assert first <= start_sample <= stop_sample <= last
        return samples[:, start_sample:stop_sample]

    return opus_of(
        read,
        samples=samples.shape[1],
        sample_rate=sample_rate,
        start_s=start_s - LEAD_S,
        stop_s=stop_s + LEAD_S,
    )


def decoded(data: bytes) -> np.ndarray:
    samples, sample_rate = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    assert sample_rate == SAMPLE_RATE
    return samples.T


@pytest.mark.parametrize("sample_rate", [7919, 8000, 11025, 22050, 44100, 48000, 96000])
def test_a_chunk_is_the_signal_there_to_the_sample(sample_rate: int) -> None:
    samples = sound(9.7, sample_rate)
    whole = np.concatenate([*resampled([samples], sample_rate, SAMPLE_RATE)], axis=1)
    found = decoded(encoded_chunk(samples, sample_rate, 3, 7))
    lead = round(LEAD_S * SAMPLE_RATE)
    expected = whole[:, 3 * SAMPLE_RATE - lead : 7 * SAMPLE_RATE + lead]
    assert found.shape == expected.shape
    error = (found - expected)[:, lead:-lead]
    assert error.std() < 0.03 * expected.std()
    # A sample away is further away.
    moved = np.roll(found, 1, axis=1)[:, lead:-lead] - expected[:, lead:-lead]
    assert error.std() < 0.7 * moved.std()


@pytest.mark.parametrize("sample_rate", [2, 101, 999])
def test_no_more_is_read_than_is_there(sample_rate: int) -> None:
    """Damaged headers tell of any rate."""
    samples = np.zeros((1, 2000 * sample_rate), np.float32)
    data = encoded_chunk(samples, sample_rate, 900, 920)
    assert decoded(data).shape == (1, round((20 + 2 * LEAD_S) * SAMPLE_RATE))


def test_chunks_end_where_the_signal_ends() -> None:
    samples = sound(1.2345, 44100, channels=1)
    total = round(samples.shape[1] * SAMPLE_RATE / 44100)
    assert decoded(encoded(samples, 44100, -0.1, 20.1)).shape == (1, total)
    assert decoded(encoded(samples, 44100, 1.0, 2.0)).shape == (1, total - SAMPLE_RATE)


@pytest.mark.parametrize("channels", [1, 2, 3, 6, 8, 9])
def test_more_than_two_channels_are_folded_down(channels: int) -> None:
    samples = sound(1.0, SAMPLE_RATE, channels)
    found = decoded(encoded(samples, SAMPLE_RATE, 0, 1))
    expected = samples
    if channels > 2:
        expected = fold_down(samples) if channels <= 8 else samples.mean(axis=0, keepdims=True)
    assert found.shape == expected.shape
    assert (found - expected)[:, 4800:].std() < 0.05 * expected.std()


@pytest.mark.parametrize("value", [0.0, 1.0, 3.5, 3e38])
def test_any_values_can_be_encoded_and_always_to_the_same_bytes(value: float) -> None:
    samples = np.full((1, 3000), value, np.float32)
    first, second = (encoded(samples, 8000, 0, 1) for _ in range(2))
    assert first == second
    found = decoded(first)
    assert np.isfinite(found).all()
    assert np.abs(found).max() <= 1.5


def test_peaks_are_the_extremes_of_hundredths_of_a_second() -> None:
    samples = sound(2.345, 44100)
    peaks = peaks_of(samples, 44100)
    assert len(peaks) == 234
    for column in (0, 17, 232):
        of_column = samples[:, column * 44100 // PEAKS_PER_S : (column + 1) * 44100 // PEAKS_PER_S]
        assert list(peaks[column]) == [
            np.floor(127 * of_column.min()),
            np.ceil(127 * of_column.max()),
        ]
    few = merged_peaks(peaks, 50)
    assert few.shape == (50, 2)
    assert few[:, 0].min() == peaks[:, 0].min() and few[:, 1].max() == peaks[:, 1].max()
    assert merged_peaks(peaks, 1000).shape == peaks.shape


@pytest.mark.parametrize("samples", [1, 5, 440])
def test_the_shortest_signals_have_a_column(samples: int) -> None:
    signal = np.ones((1, samples), np.float32)
    assert list(peaks_of(signal, 44100)[0]) == [127, 127]
    assert levels_within(signal, 44100, 0, samples).shape[1] >= 1


@pytest.mark.parametrize("sample_rate", [8000, 11025, 44100])
def test_levels_of_chunks_are_those_of_the_whole(sample_rate: int) -> None:
    samples = sound(12.0, sample_rate) + np.random.default_rng(1).normal(
        0, 0.01, (2, 12 * sample_rate)
    ).astype(np.float32)
    whole = levels_within(samples, sample_rate, 0, samples.shape[1])
    assert whole.shape == (ROWS, 12 * COLUMNS_PER_S)
    reach = reach_of(sample_rate)
    pieces = []
    for start in range(0, 12 * sample_rate, 4 * sample_rate):
        stop = start + 4 * sample_rate
        first, last = max(0, start - reach), min(samples.shape[1], stop + reach)
        pieces.append(
            levels_within(samples[:, first:last], sample_rate, start - first, stop - first)
        )
    joined = np.concatenate(pieces, axis=1)
    assert joined.shape == whole.shape
    # Their windows do not lie at the very same samples.
    apart = np.abs(joined.astype(int) - whole)
    assert np.median(apart) <= 3 and (apart[:, 95:105].max() < 40)
    assert merged_levels(whole, 100).shape == (ROWS, 100)


def test_a_picture_shows_a_tone_where_it_is() -> None:
    sample_rate = 44100
    times = np.arange(4 * sample_rate) / sample_rate
    tone = np.sin(2 * np.pi * 1000 * times).astype(np.float32)[np.newaxis]
    levels = levels_within(tone, sample_rate, 0, tone.shape[1])
    top_db = highest_level_db(levels)
    assert top_db == pytest.approx(0, abs=1)
    picture = np.asarray(Image.open(io.BytesIO(picture_of(levels, top_db))).convert("L"))
    assert picture.shape == levels.shape
    octaves = np.log2(22050 / 30)
    row = ROWS - 1 - int(np.log2(1000 / 30) / octaves * ROWS)
    assert abs(int(picture[:, 50].argmax()) - row) <= 1
    assert picture[:5].max() < 30


def test_silence_has_a_picture() -> None:
    levels = levels_within(np.zeros((2, 44100), np.float32), 44100, 0, 44100)
    assert highest_level_db(levels) == 0.0
    picture = np.asarray(Image.open(io.BytesIO(picture_of(levels, 0.0))).convert("L"))
    assert picture.max() < 10
