"""Features equal librosa's, and those of streams and parts those of the whole recording."""

import itertools
import json
import re
import tracemalloc
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import pytest
import scipy.signal
import torch
import yaml
from conftest import made_signal
from hypothesis import given, settings
from hypothesis import strategies as st

from beamsplitter.audio.errors import (
    EmptyAudioError,
    LowSampleRateError,
    TooShortAudioError,
)
from beamsplitter.audio.features.extraction import (
    features_of,
    frame_blocks,
    frame_grid,
    frames_of,
    highest_level_db,
    part_frames,
)
from beamsplitter.audio.features.finishing import finished
from beamsplitter.audio.features.mel_bands import hann_window, mel_weights
from beamsplitter.audio.features.settings import (
    KINDS,
    ChromaSettings,
    ComplexSettings,
    CqtSettings,
    FeatureSettings,
    LevelBands,
    LogMelSettings,
    MagnitudeSettings,
    MelBands,
    MelSettings,
    MfccSettings,
    OnsetSettings,
    PhaseSettings,
    PowerSettings,
    ReferredLevelBands,
    StftSettings,
    feature_settings,
)

SAMPLE_RATE = 16000
SIGNAL = made_signal(3.01, SAMPLE_RATE, 2)
SEED = LogMelSettings(
    sample_rate=22050,
    n_fft=400,
    hop_length=200,
    pad_mode="reflect",
    n_mels=64,
    htk=True,
    mel_norm=None,
)
HIGH_CQT = CqtSettings(fmin_hz=1000, n_bins=18, hop_length=256)
SETTINGS: list[FeatureSettings] = [
    MagnitudeSettings(),
    MagnitudeSettings(n_fft=401, hop_length=160, win_length=300, window="hamming"),
    MagnitudeSettings(mono=False, n_fft=512, hop_length=1000, center=False),
    PhaseSettings(n_fft=1024, hop_length=256),
    ComplexSettings(n_fft=512, hop_length=100, window=("kaiser", 8.0), pad_mode="reflect"),
    ComplexSettings(mono=False, n_fft=300, hop_length=77, center=False),
    PowerSettings(),
    PowerSettings(power=0.5, n_fft=256, hop_length=64, pad_mode="edge"),
    MelSettings(),
    MelSettings(power=1, n_mels=40, fmin_hz=50, fmax_hz=7000, htk=True, mel_norm=None),
    MelSettings(mono=False, power=1.5, n_fft=1024, n_mels=30, mel_norm=1, pad_mode="symmetric"),
    MelSettings(n_mels=20, mel_norm="max"),
    LogMelSettings(),
    LogMelSettings(mono=False, ref="max", top_db=40, n_mels=64),
    LogMelSettings(ref=0.01, amin=1e-5, top_db=None),
    MfccSettings(),
    MfccSettings(mono=False, n_mfcc=13, dct_type=3, lifter=22, n_mels=40, ref="max"),
    MfccSettings(n_mfcc=40, n_mels=40, dct_type=1, dct_norm=None, top_db=None, htk=True),
    OnsetSettings(),
    OnsetSettings(mono=False, lag=3, max_size=5, aggregate="median", hop_length=100),
    OnsetSettings(detrend=True, top_db=None, n_fft=512, hop_length=160, center=False),
    OnsetSettings(hop_length=2048, top_db=20),
    ChromaSettings(),
    ChromaSettings(mono=False, n_chroma=24, tuning=0.3, norm=2, octwidth=None, base_c=False),
    ChromaSettings(norm=None, n_fft=4096, hop_length=1024, ctroct=4, octwidth=1),
    HIGH_CQT,
    CqtSettings(mono=False),
    CqtSettings(
        fmin_hz=220, n_bins=30, bins_per_octave=24, tuning=0.2, filter_scale=0.5, norm=2,
        sparsity=0, scale=False, window="hamming", pad_mode="reflect",
    ),
    CqtSettings(fmin_hz=440, n_bins=1, hop_length=99),
]  # fmt: skip
LOCAL = [each for each in SETTINGS if not isinstance(each, LevelBands)]


def told(each: FeatureSettings) -> str:
    return each.kind + "".join(
        f" {key}={value}" for key, value in each.model_dump(exclude_defaults=True).items()
    )


def oracle(samples: np.ndarray, sample_rate: int, each: FeatureSettings) -> np.ndarray:
    """What librosa gives: `(channels, bins, frames)`."""
    signal = samples.mean(axis=0, keepdims=True) if each.mono else samples
    if isinstance(each, CqtSettings):
        options = each.model_dump(exclude={"kind", "sample_rate", "mono", "fmin_hz"})
        return np.abs(librosa.cqt(signal, sr=sample_rate, fmin=each.fmin_hz, **options))
    assert isinstance(each, StftSettings)
    options = each.model_dump(
        include=set(StftSettings.model_fields) - {"kind", "sample_rate", "mono"}
    )
    if isinstance(each, ChromaSettings):
        options |= each.model_dump(include={"n_chroma", "tuning", "ctroct", "octwidth", "base_c"})
        return librosa.feature.chroma_stft(
            y=signal, sr=sample_rate, norm=norm_of(each.norm), **options
        )
    spectrum = librosa.stft(signal, **options)
    if isinstance(each, MelBands):
        bank = librosa.filters.mel(
            sr=sample_rate, n_fft=each.n_fft, n_mels=each.n_mels, fmin=each.fmin_hz,
            fmax=each.fmax_hz, htk=each.htk, norm=norm_of(each.mel_norm),
        )  # fmt: skip
        mel = bank @ np.abs(spectrum) ** each.power
        return of_mel(mel, each)
    match each:
        case MagnitudeSettings():
            return np.abs(spectrum)
        case PhaseSettings():
            return np.angle(spectrum)
        case PowerSettings():
            return np.abs(spectrum) ** each.power
    return spectrum


def norm_of(norm: Any) -> Any:
    return np.inf if norm == "max" else norm


def of_mel(mel: np.ndarray, each: MelBands) -> np.ndarray:
    if not isinstance(each, LevelBands):
        return mel
    ref: Any = each.ref if isinstance(each, ReferredLevelBands) else 1.0
    levels = librosa.power_to_db(
        mel, ref=np.max if ref == "max" else ref, amin=each.amin, top_db=each.top_db
    )
    match each:
        case MfccSettings():
            return librosa.feature.mfcc(
                S=levels, n_mfcc=each.n_mfcc, dct_type=each.dct_type, norm=each.dct_norm,
                lifter=each.lifter,
            )  # fmt: skip
        case OnsetSettings():
            aggregate = np.mean if each.aggregate == "mean" else np.median
            strength = librosa.onset.onset_strength(
                S=levels, n_fft=each.n_fft, hop_length=each.hop_length, lag=each.lag,
                max_size=each.max_size, detrend=each.detrend, center=each.center,
                aggregate=aggregate,
            )  # fmt: skip
            return strength[:, np.newaxis]
    return levels


@pytest.mark.filterwarnings("ignore:n_fft=.* is too large")
@pytest.mark.filterwarnings("ignore:Empty filters")
@pytest.mark.parametrize("each", SETTINGS, ids=told)
def test_features_equal_librosa(each: FeatureSettings) -> None:
    ours = features_of(SIGNAL, SAMPLE_RATE, each)
    expected = oracle(SIGNAL, SAMPLE_RATE, each)
    assert ours.shape == expected.shape
    assert ours.dtype == (np.complex64 if each.kind == "complex" else np.float32)
    if isinstance(each, PhaseSettings):
        magnitude = np.abs(librosa.stft(SIGNAL.mean(axis=0), n_fft=1024, hop_length=256))[None]
        apart = np.abs(np.exp(1j * ours) - np.exp(1j * expected)) * magnitude
        assert apart.max() < 1e-6 * magnitude.max()
        assert np.abs(ours).max() <= np.float32(np.pi)
    else:
        # Levels may be 80 dB and more below what else is in their frame.
        tolerance = 2e-4 if isinstance(each, LevelBands) else 2e-6
        np.testing.assert_allclose(ours, expected, atol=tolerance * np.abs(expected).max())


def seed_levels(samples: np.ndarray) -> np.ndarray:
    """torchaudio's `MelSpectrogram` and `AmplitudeToDB("power", top_db=80)`, by torch."""
    spectrum = torch.stft(
        torch.from_numpy(samples.astype(np.float64)),
        n_fft=400,
        hop_length=200,
        window=torch.hann_window(400, dtype=torch.float64),
        center=True,
        pad_mode="reflect",
        return_complex=True,
    )
    frequencies_hz = torch.linspace(0, 22050 // 2, 201, dtype=torch.float64)
    highest_mel = 2595 * np.log10(1 + (22050 // 2) / 700)
    edges_hz = 700 * (10 ** (torch.linspace(0, highest_mel, 66, dtype=torch.float64) / 2595) - 1)
    slopes = edges_hz[None] - frequencies_hz[:, None]
    widths = edges_hz[1:] - edges_hz[:-1]
    rising, falling = -slopes[:, :-2] / widths[:-1], slopes[:, 2:] / widths[1:]
    bank = torch.minimum(rising, falling).clamp(min=0)
    power = spectrum.abs().pow(2)
    levels = 10 * torch.log10((power.transpose(1, 2) @ bank).transpose(1, 2).clamp(min=1e-10))
    return torch.maximum(levels, levels.max() - 80).numpy()


def test_the_mel_spectrogram_of_torchaudio_can_be_told() -> None:
    samples = made_signal(20, 22050, 2)
    levels = features_of(samples, 22050, SEED)
    assert levels[0].T.shape == (2206, 64)
    expected = seed_levels(samples.mean(axis=0, keepdims=True))
    np.testing.assert_allclose(levels, expected, atol=1e-3)  # dB


def test_other_rates_are_resampled_to_that_of_the_settings() -> None:
    """Tones below half of either rate: their levels are the same as at that rate itself."""

    def tones(sample_rate: int) -> np.ndarray:
        time_s = np.arange(20 * sample_rate) / sample_rate
        waves = [np.sin(2 * np.pi * hz * time_s) for hz in (220, 997, 5003)]
        return np.float32(0.2 * np.stack([sum(waves), waves[0]]))

    ours = features_of(tones(44100), 44100, SEED)
    expected = features_of(tones(22050), 22050, SEED)
    assert ours.shape == expected.shape == (1, 64, 2206)
    np.testing.assert_allclose(ours[..., 5:-5], expected[..., 5:-5], atol=0.01)  # dB


def blocks_of(samples: np.ndarray, borders: list[int]) -> Iterator[np.ndarray]:
    ends = [0, *sorted(border % (samples.shape[1] + 1) for border in borders), samples.shape[1]]
    for start, stop in itertools.pairwise(ends):
        yield samples[:, start:stop]


def streamed(
    samples: np.ndarray, sample_rate: int, each: FeatureSettings, borders: list[int]
) -> np.ndarray:
    frames = [*frame_blocks(blocks_of(samples, borders), sample_rate, each)]
    highest = [highest_level_db(block, each) for block in frames]
    of_all = max(highest) if isinstance(each, LevelBands) and each.needs_highest_level else None
    made = [*finished(frames, each, of_all)]
    assert [block.shape[2] for block in made] == [block.shape[2] for block in frames]
    return np.concatenate(made, axis=2)


# Some of several batches, some of hops longer than windows.
STREAMS = [
    *SETTINGS,
    SEED,
    MagnitudeSettings(n_fft=64, hop_length=333),
    MfccSettings(sample_rate=11025, n_fft=512, hop_length=128),
    HIGH_CQT.model_copy(update={"sample_rate": 12000}),
]  # fmt: skip
LONG_SIGNAL = made_signal(8, SAMPLE_RATE, 2)
border_lists = st.lists(st.integers(0, 10**6), max_size=12)


@pytest.mark.filterwarnings("ignore:Empty filters")
@pytest.mark.parametrize("each", STREAMS, ids=told)
@given(borders=border_lists)
@settings(deadline=None, max_examples=5)
def test_blocks_give_the_features_of_the_whole(each: FeatureSettings, borders: list[int]) -> None:
    made = streamed(LONG_SIGNAL, SAMPLE_RATE, each, borders)
    expected = features_of(LONG_SIGNAL, SAMPLE_RATE, each)
    if isinstance(each, MfccSettings | OnsetSettings):  # sums over bands, in any order
        np.testing.assert_allclose(made, expected, atol=1e-5 * np.abs(expected).max())
    else:
        np.testing.assert_array_equal(made, expected)


@given(borders=border_lists, seed=st.integers(0, 9))
@settings(deadline=None, max_examples=30)
def test_blocks_of_frames_are_finished_as_the_whole(borders: list[int], seed: int) -> None:
    levels = np.random.default_rng(seed).uniform(-90, 0, (2, 16, 50)).astype(np.float32)
    for each in (
        OnsetSettings(n_mels=16, lag=seed + 1, hop_length=100, detrend=True),
        OnsetSettings(n_mels=16, hop_length=3000, aggregate="median", max_size=4),
        MfccSettings(n_mels=16, n_mfcc=9, lifter=5, ref="max"),
    ):
        ends = [0, *sorted(border % 51 for border in borders), 50]
        pieces = [levels[..., start:stop] for start, stop in itertools.pairwise(ends)]
        blocks = [piece for piece in pieces if piece.shape[2]]
        highest = highest_level_db(levels, each)
        made = np.concatenate([*finished(blocks, each, highest)], axis=2)
        (expected,) = finished([levels], each, highest)
        np.testing.assert_allclose(made, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.filterwarnings("ignore:n_fft=.* is too large")
@pytest.mark.filterwarnings("ignore:Empty filters")
@pytest.mark.parametrize("each", STREAMS, ids=told)
@given(borders=border_lists)
@settings(deadline=None, max_examples=5)
def test_parts_have_each_frame_once_and_as_the_whole(
    each: FeatureSettings, borders: list[int]
) -> None:
    total = LONG_SIGNAL.shape[1]
    grid = frame_grid(each, SAMPLE_RATE, total)
    whole = np.concatenate([*frame_blocks([LONG_SIGNAL], SAMPLE_RATE, each)], axis=2)
    assert grid.count == whole.shape[2]
    ends = [0, *sorted(border % (total + 1) for border in borders), total]
    parts = []
    for start, stop in itertools.pairwise(ends):
        frames = grid.frames_in(start, stop)
        if not frames:
            continue
        first, last = grid.samples_of(frames)
        assert 0 <= first < last <= total

        def read(
            start_sample: int, stop_sample: int, first: int = first, last: int = last
        ) -> np.ndarray:
            assert first <= start_sample < stop_sample <= last
            return LONG_SIGNAL[:, start_sample:stop_sample]

        parts.append(part_frames(read, frames, grid, each))
        assert parts[-1].shape[2] == len(frames)
    made = np.concatenate(parts, axis=2)
    assert made.shape == whole.shape
    if each.sample_rate is None and not isinstance(each, ChromaSettings | CqtSettings):
        np.testing.assert_array_equal(made, whole)
    else:
        tolerance = 1e-4 if isinstance(each, LevelBands) else 3e-6
        np.testing.assert_allclose(made, whole, atol=tolerance * np.abs(whole).max())


@given(
    start=st.integers(0, 50_000),
    length=st.integers(0, 50_000),
    total=st.integers(1, 50_000),
    sample_rate=st.sampled_from([8000, 16000, 44100]),
    rate=st.sampled_from([None, 16000, 22050]),
    center=st.booleans(),
)
@settings(deadline=None)
def test_frames_are_in_the_range_that_they_are_centred_in(
    start: int, length: int, total: int, sample_rate: int, rate: int | None, center: bool
) -> None:
    each = MagnitudeSettings(n_fft=128, hop_length=50, center=center, sample_rate=rate)
    grid = frame_grid(each, sample_rate, total)
    if grid.resampled_samples < 128:
        return
    start, stop = min(start, total), min(start + length, total)
    centres = (np.arange(grid.count) * 50 + (0 if center else 64)) * sample_rate / grid.rate
    centres = np.minimum(centres, total - 0.5)
    inside = np.flatnonzero((start <= centres) & (centres < stop))
    assert list(grid.frames_in(start, stop)) == list(inside)


@pytest.mark.parametrize("each", [SEED, MfccSettings(), HIGH_CQT], ids=told)
def test_memory_does_not_grow_with_length(each: FeatureSettings) -> None:
    block = made_signal(0.25, SAMPLE_RATE, 1)

    def peak(blocks: int) -> int:
        tracemalloc.start()
        for _ in frame_blocks(itertools.repeat(block, blocks), SAMPLE_RATE, each):
            pass
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(5)
    assert peak(600) < 1.2 * peak(150)


@pytest.mark.filterwarnings("ignore:Empty filters")
@pytest.mark.filterwarnings("ignore:n_fft=.* is too large")
@pytest.mark.parametrize("each", [*SETTINGS, SEED], ids=told)
def test_silence_is_finite(each: FeatureSettings) -> None:
    features = features_of(np.zeros((2, SAMPLE_RATE), np.float32), SAMPLE_RATE, each)
    assert np.isfinite(features).all()
    if isinstance(each, PhaseSettings | OnsetSettings | ChromaSettings | CqtSettings):
        assert not features.any()


@pytest.mark.filterwarnings("ignore:n_fft=.* is too large")
@pytest.mark.filterwarnings("ignore:Empty filters")
@pytest.mark.parametrize("samples", [1, 2, 100])
@pytest.mark.parametrize("each", [*SETTINGS, SEED], ids=told)
def test_less_than_a_window_is_padded_or_told(each: FeatureSettings, samples: int) -> None:
    short = SIGNAL[:, 5000 : 5000 + samples]
    too_short_to_halve = isinstance(each, CqtSettings) and each.fmin_hz == 220 and samples < 4
    if not getattr(each, "center", True) or too_short_to_halve:
        with pytest.raises(TooShortAudioError, match=f"has {samples} of the "):
            features_of(short, SAMPLE_RATE, each)
        return
    ours = features_of(short, SAMPLE_RATE, each)
    assert np.isfinite(ours).all()
    if each.sample_rate is None and samples > 1 and not isinstance(each, PhaseSettings):
        expected = oracle(short, SAMPLE_RATE, each)
        assert ours.shape == expected.shape
        atol = (2e-4 if isinstance(each, LevelBands) else 2e-6) * np.abs(expected).max()
        np.testing.assert_allclose(ours, expected, atol=atol)


@pytest.mark.parametrize("each", [MagnitudeSettings(), SEED, HIGH_CQT], ids=told)
def test_no_samples_have_no_features(each: FeatureSettings) -> None:
    with pytest.raises(EmptyAudioError, match="no samples"):
        features_of(np.zeros((2, 0), np.float32), SAMPLE_RATE, each)
    with pytest.raises(EmptyAudioError, match="no samples"):
        [*frame_blocks([], SAMPLE_RATE, each)]


@pytest.mark.parametrize(
    ("each", "message"),
    [
        (MelSettings(fmax_hz=9000), "0 to 9000 Hz are not within .* 16000 Hz have"),
        (MelSettings(fmin_hz=8000), "8000 to 8000 Hz"),
        (CqtSettings(n_bins=100), "16000 Hz have 8000 Hz at most: take fewer n_bins"),
    ],
)
def test_frequencies_that_a_rate_lacks_are_told(each: FeatureSettings, message: str) -> None:
    with pytest.raises(LowSampleRateError, match=message):
        features_of(SIGNAL, SAMPLE_RATE, each)
    with pytest.raises(LowSampleRateError, match=message):
        frame_grid(each, SAMPLE_RATE, 1000)
    features_of(SIGNAL, 32000, each)


def test_levels_are_not_finished_without_the_highest() -> None:
    with pytest.raises(ValueError, match="log_mel needs the highest level"):
        [*finished([np.zeros((1, 4, 4), np.float32)], LogMelSettings())]
    (block,) = finished([np.zeros((1, 4, 4), np.float32)], LogMelSettings(top_db=None))
    assert not block.any()


@pytest.mark.parametrize("each", [*SETTINGS, SEED], ids=told)
def test_settings_are_read_as_they_are_written(each: FeatureSettings) -> None:
    assert feature_settings(json.loads(each.model_dump_json())) == each
    assert hash(feature_settings(each.model_dump())) == hash(each)


ALL_PARAMETERS = {
    name: field for each in KINDS.values() for name, field in each.model_fields.items()
}


@pytest.mark.parametrize("kind", KINDS)
def test_parameters_that_a_kind_does_not_use_are_refused(kind: str) -> None:
    unused = ALL_PARAMETERS.keys() - KINDS[kind].model_fields.keys()
    assert unused
    for name in unused:
        with pytest.raises(ValueError, match=f"^{name}: {kind} does not use it; it has "):
            feature_settings({"kind": kind, name: ALL_PARAMETERS[name].default})


OTHER_VALUES = {
    "sample_rate": 12000, "mono": False, "hop_length": 300, "window": "hamming",
    "pad_mode": "edge", "n_fft": 1024, "win_length": 999, "center": False, "power": 1.5,
    "n_mels": 60, "fmin_hz": 200, "fmax_hz": 5000, "htk": True, "mel_norm": None, "amin": 1e-3,
    "top_db": 20, "ref": "max", "n_mfcc": 7, "dct_type": 3, "dct_norm": None, "lifter": 9,
    "lag": 2, "max_size": 3, "aggregate": "median", "detrend": True, "n_chroma": 10,
    "tuning": 0.3, "norm": 2, "ctroct": 2, "octwidth": None, "base_c": False, "n_bins": 40,
    "bins_per_octave": 24, "filter_scale": 0.5, "sparsity": 0.2, "scale": False,
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_no_parameter_is_dead(kind: str) -> None:
    assert {*OTHER_VALUES, "kind"} == ALL_PARAMETERS.keys()
    values = {"kind": kind, "n_bins": 30} if kind == "cqt" else {"kind": kind}
    fading = SIGNAL * np.logspace(0, -6, SIGNAL.shape[1], dtype=np.float32)
    usual = features_of(fading, SAMPLE_RATE, feature_settings(values))
    for name in KINDS[kind].model_fields.keys() - {"kind"}:
        changed = feature_settings({**values, name: OTHER_VALUES[name]})
        features = features_of(fading, SAMPLE_RATE, changed)
        assert features.shape != usual.shape or not np.allclose(features, usual), name


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "^kind: is one of magnitude, .*, cqt, not None$"),
        ({"kind": "tempo"}, "^kind: is one of magnitude, .*, cqt, not 'tempo'$"),
        ({"kind": "mel", "power": np.inf}, "^power: must be a finite number"),
        ({"kind": "log_mel", "ref": np.nan}, "^ref: .*finite number"),
        ({"kind": "mel", "n_mels": 0}, "n_mels: must be greater than or equal to 1"),
        ({"kind": "mel", "window": "square"}, "window: scipy.signal has no window 'square'"),
        ({"kind": "mel", "fmin_hz": 300, "fmax_hz": 200}, "^fmax_hz: 200 is not above fmin_hz"),
        ({"kind": "power", "win_length": 4096}, "^win_length: 4096 is more than n_fft, 2048"),
        ({"kind": "power", "center": False, "pad_mode": "edge"}, "^pad_mode: without center"),
        ({"kind": "log_mel", "ref": 0}, "ref: 0 has no level"),
        ({"kind": "mfcc", "n_mfcc": 129}, "^n_mfcc: 129 is more than n_mels, 128"),
        ({"kind": "mfcc", "n_mels": 1, "n_mfcc": 1, "dct_type": 1}, "^dct_type: 1 takes two"),
    ],
)
def test_bad_settings_are_told(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        feature_settings(values)


def test_what_computes_frames_is_made_once() -> None:
    assert frames_of(MelSettings(n_mels=33), 16000) is frames_of(MelSettings(n_mels=33), 16000)


PAGE = Path(__file__).parents[2] / "docs" / "features.md"


def rows_of(page: str, columns: int) -> list[list[str]]:
    rows = [re.split(r" *\| *", line.strip("| ")) for line in page.splitlines() if line[:1] == "|"]
    return [row for row in rows if len(row) == columns and row[0].startswith("`")]


def test_the_page_has_all_parameters_with_their_kinds_and_defaults() -> None:
    page = PAGE.read_text()
    kinds, parameters = page.split("## Parameters")
    assert [row[0].strip("`") for row in rows_of(kinds, 4)] == ["kind", *KINDS]
    told_of = {}
    for name, default, of, _ in rows_of(parameters, 4):
        listed = re.findall(r"`(\w+)`", of)
        of_all = [kind for kind in KINDS if kind not in listed] if of.startswith("all") else listed
        for kind in of_all:
            told_of[kind, name.strip("`")] = yaml.safe_load(default.strip("`"))
    assert told_of == {
        (kind, name): field.default if name != "amin" else "1e-10"
        for kind, each in KINDS.items()
        for name, field in each.model_fields.items()
        if name != "kind"
    }


def test_the_page_tells_the_settings_of_torchaudio() -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.S)
    assert feature_settings(yaml.safe_load(block)) == SEED


def test_librosa_reflects_its_last_windows_and_we_the_recording() -> None:
    """Told by the page: as torchaudio, we pad the recording, whatever its length."""
    each = MagnitudeSettings(n_fft=400, hop_length=200, pad_mode="reflect", window="boxcar")
    signal = SIGNAL[:1, :8000]
    padded = np.pad(signal, ((0, 0), (200, 200)), mode="reflect")
    options = {"n_fft": 400, "hop_length": 200, "window": "boxcar"}
    expected = np.abs(librosa.stft(padded, center=False, **options))
    ours = features_of(signal, SAMPLE_RATE, each)
    np.testing.assert_allclose(ours, expected, atol=2e-6 * expected.max())
    theirs = np.abs(librosa.stft(signal, pad_mode="reflect", **options))
    np.testing.assert_allclose(ours[..., :-1], theirs[..., :-1], atol=2e-6 * expected.max())
    assert not np.allclose(ours[..., -1], theirs[..., -1], atol=1e-4 * expected.max())


def test_frames_of_a_constant_q_transform_end_with_the_recording() -> None:
    each = CqtSettings(fmin_hz=100, n_bins=12, hop_length=512)
    signal = SIGNAL[:, : 20 * 512 - 1]
    ours, theirs = features_of(signal, SAMPLE_RATE, each), oracle(signal, SAMPLE_RATE, each)
    assert theirs.shape[2] == ours.shape[2] + 1 == 21
    np.testing.assert_allclose(ours, theirs[..., :-1], atol=2e-6 * theirs.max())


def test_levels_are_as_exact_as_the_page_tells() -> None:
    time_s = np.arange(10 * SAMPLE_RATE) / SAMPLE_RATE
    noise = np.random.default_rng(0).standard_normal(time_s.size)
    signal = np.float32(0.9 * np.sin(2 * np.pi * 1234.5 * time_s) + 1e-6 * noise)[np.newaxis]
    each = LogMelSettings(top_db=None, amin=1e-20)
    expected = oracle(signal, SAMPLE_RATE, each)
    apart = np.abs(features_of(signal, SAMPLE_RATE, each) - expected)
    below = expected.max(axis=1, keepdims=True) - expected
    assert below.max() > 120
    for level_db, at_most_db in ((80, 0.01), (100, 0.05), (120, 1)):
        assert apart[below <= level_db].max() < at_most_db


@pytest.mark.parametrize("each", [SEED, ComplexSettings(mono=False), HIGH_CQT], ids=told)
def test_the_memory_that_samples_lie_in_makes_no_difference(each: FeatureSettings) -> None:
    usual = features_of(SIGNAL, SAMPLE_RATE, each)
    as_decoded = np.ascontiguousarray(SIGNAL.T).T
    as_decoded.flags.writeable = False
    before = SIGNAL.copy()
    np.testing.assert_array_equal(features_of(as_decoded, SAMPLE_RATE, each), usual)
    np.testing.assert_array_equal(SIGNAL, before)


def test_samples_without_channels_are_told() -> None:
    with pytest.raises(ValueError, match=r"shape \(channels, samples\), not \(48160,\)"):
        features_of(SIGNAL[0], SAMPLE_RATE, MelSettings())


@pytest.mark.parametrize(
    "each",
    [
        *[MagnitudeSettings(center=center, n_fft=701) for center in (True, False)],
        SEED,
        CqtSettings(),
        CqtSettings(filter_scale=0.1),  # where halving the sample rate reaches further than filters
        CqtSettings(filter_scale=0.05, fmin_hz=100, n_bins=60, hop_length=64),
        CqtSettings(fmin_hz=50, n_bins=12, hop_length=256),  # halved before all octaves
    ],
    ids=told,
)
def test_frames_depend_on_no_more_than_is_told(each: FeatureSettings) -> None:
    generator = np.random.default_rng(0)
    signal, other = generator.standard_normal((2, 1, 12 * SAMPLE_RATE)).astype(np.float32)
    grid = frame_grid(each, SAMPLE_RATE, signal.shape[1])
    frames = range(grid.count // 2, grid.count // 2 + 20)
    first, last = grid.samples_of(frames)
    assert 0 < first < last < signal.shape[1]
    other[:, first:last] = signal[:, first:last]
    here, there = (
        np.concatenate([*frame_blocks([samples], SAMPLE_RATE, each)], axis=2)
        for samples in (signal, other)
    )
    assert not np.allclose(here, there, atol=0.1 * np.abs(here).max())
    here, there = (made[..., frames.start : frames.stop] for made in (here, there))
    np.testing.assert_allclose(here, there, atol=1e-5 * np.abs(here).max())


@given(
    sample_rate=st.sampled_from([8000, 16000, 22050, 44100, 48000]),
    n_fft=st.integers(16, 4096),
    n_mels=st.integers(1, 160),
    range_hz=st.tuples(st.floats(0, 3000), st.floats(500, 4000)),
    htk=st.booleans(),
    norm=st.sampled_from(["slaney", None, np.inf, 1, 2]),
)
def test_mel_weights_are_those_of_librosa(
    sample_rate: int,
    n_fft: int,
    n_mels: int,
    range_hz: tuple[float, float],
    htk: bool,
    norm: str | float | None,
) -> None:
    lowest_hz, width_hz = range_hz
    highest_hz = min(lowest_hz + width_hz, sample_rate / 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of bands between two bins
        right = librosa.filters.mel(
            sr=sample_rate,
            n_fft=n_fft,
            n_mels=n_mels,
            fmin=lowest_hz,
            fmax=highest_hz,
            htk=htk,
            norm=norm,
        )
    made = mel_weights(
        sample_rate=sample_rate,
        n_fft=n_fft,
        n_mels=n_mels,
        lowest_hz=lowest_hz,
        highest_hz=highest_hz,
        htk=htk,
        norm=norm,
    )
    np.testing.assert_allclose(made, right, rtol=1e-6, atol=1e-9)


@given(samples=st.integers(1, 5000))
def test_the_hann_window_is_that_of_scipy(samples: int) -> None:
    np.testing.assert_allclose(
        hann_window(samples), scipy.signal.get_window("hann", samples), atol=1e-15
    )
