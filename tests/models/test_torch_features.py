"""Features in torch are those of audio.features, also where TorchScript computes them."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from beamsplitter.audio.features.extraction import features_of
from beamsplitter.audio.features.settings import feature_settings
from beamsplitter.models.classifiers.errors import ClassifierError
from beamsplitter.models.classifiers.torch_features import torch_features
from beamsplitter.models.export.scripting import scripted

RATE = 8000
SEED = {
    "n_fft": 400,
    "hop_length": 200,
    "pad_mode": "reflect",
    "n_mels": 64,
    "htk": True,
    "mel_norm": None,
}
PARAMETERS: list[dict[str, Any]] = [
    {},
    SEED,
    {"n_fft": 512, "hop_length": 128, "pad_mode": "edge", "top_db": None},
    {"n_fft": 255, "hop_length": 100, "pad_mode": "symmetric", "ref": "max", "power": 1.0},
    {"n_fft": 256, "win_length": 200, "center": False, "ref": 0.5, "amin": 1e-6, "top_db": 30},
    {"n_fft": 300, "window": ["kaiser", 8.0], "fmin_hz": 200, "fmax_hz": 3000, "mel_norm": 1},
    {"n_fft": 256, "hop_length": 300, "power": 1.5, "mel_norm": "max", "n_mels": 10},
]


def signal(samples: int, seed: int = 0) -> np.ndarray:
    """A tone over noise, with a quiet stretch in it: float32 `(1, samples)`."""
    noise = np.random.default_rng(seed).standard_normal(samples)
    made = 0.05 * noise + 0.3 * np.sin(np.arange(samples) * 0.4)
    made[samples // 2 : samples // 2 + samples // 4] *= 1e-4
    return made.astype(np.float32)[np.newaxis]


@pytest.mark.parametrize("kind", ["log_mel", "mel"])
@pytest.mark.parametrize("parameters", PARAMETERS)
@pytest.mark.parametrize("samples", [1000, 8001, 12345])
def test_they_are_those_of_audio_features(
    kind: str, parameters: dict[str, Any], samples: int
) -> None:
    used = {n: v for n, v in parameters.items() if kind == "log_mel" or n not in LEVEL_ONLY}
    values = feature_settings({"kind": kind, "sample_rate": RATE, **used})
    made = scripted(torch_features(values), "features")
    samples_of = signal(samples)
    expected = features_of(samples_of, RATE, values)[0].T
    found = made(torch.from_numpy(samples_of[0])).numpy()
    assert found.shape == expected.shape
    if kind == "log_mel":
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3)
    else:
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-7 * expected.max())


LEVEL_ONLY = ("top_db", "ref", "amin")


@settings(deadline=None)
@given(
    samples=st.integers(1, 200), mode=st.sampled_from(["reflect", "edge", "symmetric", "constant"])
)
def test_signals_shorter_than_a_window_are_padded_as_by_numpy(samples: int, mode: str) -> None:
    values = feature_settings(
        {"kind": "mel", "sample_rate": RATE, "n_fft": 128, "n_mels": 8, "pad_mode": mode}
    )
    made = np.random.default_rng(samples).standard_normal(samples).astype(np.float32)
    found = torch_features(values).padded(torch.from_numpy(made)).numpy()
    np.testing.assert_array_equal(found, np.pad(made, 64, mode=mode))  # type: ignore[call-overload]


@pytest.mark.parametrize("samples", [1, 255])
def test_what_is_too_short_for_a_frame_gives_one(samples: int) -> None:
    """Where audio.features has none to give: the last stretch of a recording may be so short."""
    values = feature_settings(
        {"kind": "log_mel", "sample_rate": RATE, "n_fft": 256, "n_mels": 8, "center": False}
    )
    assert torch_features(values)(torch.ones(samples)).shape == (1, 8)


def test_silence_is_finite() -> None:
    values = feature_settings({"kind": "log_mel", "sample_rate": RATE, "ref": "max"})
    assert torch_features(values)(torch.zeros(4000)).isfinite().all()


@pytest.mark.parametrize(
    ("values", "fact"),
    [
        ({"kind": "cqt", "sample_rate": RATE}, "kind cqt .* mel, log_mel"),
        ({"kind": "log_mel"}, "sample_rate"),
        ({"kind": "log_mel", "sample_rate": RATE, "mono": False}, "mono"),
    ],
)
def test_others_are_refused(values: dict[str, Any], fact: str) -> None:
    with pytest.raises(ClassifierError, match=fact):
        torch_features(feature_settings(values))
