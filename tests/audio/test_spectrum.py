"""Spectra and masks equal librosa's."""

import os
import subprocess
import sys
from pathlib import Path

import librosa
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from beamsplitter.audio.spectrum import inverse_stft, magnitude_and_phase, soft_mask, stft


def noise(channels: int, samples: int) -> np.ndarray:
    generator = np.random.default_rng(samples)
    return generator.standard_normal((channels, samples)).astype(np.float32)


@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize("samples", [1025, 5000, 22050])
def test_stft_equals_librosa(channels: int, samples: int) -> None:
    signal = noise(channels, samples)
    ours = stft(signal, n_fft=1024, hop_length=256)
    expected = librosa.stft(signal, n_fft=1024, hop_length=256)
    assert ours.dtype == expected.dtype
    np.testing.assert_allclose(ours, expected, atol=1e-6 * np.abs(expected).max())


def test_magnitude_and_phase_equal_librosa_with_silence_in_it() -> None:
    signal = noise(2, 9000)
    signal[:, 3000:6000] = 0
    spectrum = stft(signal, n_fft=512, hop_length=128)
    expected = librosa.magphase(spectrum)
    magnitude, phase = magnitude_and_phase(spectrum.copy())
    np.testing.assert_array_equal(magnitude, expected[0])
    np.testing.assert_array_equal(phase, expected[1])


@pytest.mark.parametrize("samples", [700, 1024, 8191])
def test_inverse_stft_with_a_full_mask_gives_the_signal_back(samples: int) -> None:
    signal = noise(2, samples)
    magnitude, phase = magnitude_and_phase(stft(signal, n_fft=1024, hop_length=256))
    back = inverse_stft(
        np.ones_like(magnitude), magnitude, phase, n_fft=1024, hop_length=256, samples=samples
    )
    assert back.shape == signal.shape and back.dtype == np.float32
    np.testing.assert_allclose(back, signal, atol=1e-5)


@pytest.mark.parametrize("hops", [2, 4, 8])
def test_inverse_stft_equals_librosa(hops: int) -> None:
    signal = noise(2, 9001)
    options = {"n_fft": 512, "hop_length": 512 // hops}
    magnitude, phase = magnitude_and_phase(stft(signal, **options))
    mask = np.random.default_rng(0).random(magnitude.shape, np.float32)
    ours = inverse_stft(mask, magnitude, phase, **options, samples=9001)
    expected = librosa.istft(mask * magnitude * phase, **options, length=9001)
    np.testing.assert_allclose(ours, expected, atol=1e-5)


levels = st.floats(0, 1e6, width=32)


@given(
    spectra=hnp.arrays(np.float32, (2, 5, 7), elements=levels),
    power=st.sampled_from([1.0, 2.0]),
    margin=st.sampled_from([1.0, 2.0, 10.0]),
)
@settings(deadline=None)
def test_soft_mask_equals_librosa_bit_for_bit(
    spectra: np.ndarray, power: float, margin: float
) -> None:
    wanted, rest = spectra
    ours = soft_mask(wanted, rest, margin=margin, power=power)
    expected = librosa.util.softmask(wanted, np.float32(margin) * rest, power=power)
    np.testing.assert_array_equal(ours, expected)


def test_soft_mask_writes_into_any_memory_order() -> None:
    wanted, rest = np.abs(noise(2, 12 * 9)).reshape(2, 12, 9)
    expected = soft_mask(wanted, rest, margin=2)
    for order in "CF":
        out = np.empty((12, 9), np.float32, order=order)
        soft_mask(np.asfortranarray(wanted), np.ascontiguousarray(rest), margin=2, out=out)
        np.testing.assert_array_equal(out, expected)


def test_the_masks_of_both_sides_sum_to_one() -> None:
    wanted, rest = np.abs(noise(2, 12 * 9)).reshape(2, 12, 9)
    total = soft_mask(wanted, rest, margin=1) + soft_mask(rest, wanted, margin=1)
    np.testing.assert_allclose(total, 1, atol=1e-6)


SPLIT = """
import numpy as np
from beamsplitter.audio import nn_filter
from beamsplitter.audio.spectrum import magnitude_and_phase, soft_mask, stft
samples = np.random.default_rng(0).standard_normal((2, 9000)).astype(np.float32)
magnitude, _ = magnitude_and_phase(stft(samples, n_fft=512, hop_length=128))
print(soft_mask(magnitude, magnitude[::-1], margin=1.0, power=2.0).sum())
"""


def test_without_a_place_for_its_cache_numba_gets_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    environment = {
        **os.environ,
        "NUMBA_CACHE_LOCATOR_CLASSES": "UserProvidedCacheLocator",  # and no NUMBA_CACHE_DIR
        "TMPDIR": str(tmp_path),
    }

    def run(program: str) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-c", program]
        return subprocess.run(line, env=environment, capture_output=True, text=True)

    as_librosa_does = "import numba, textwrap; numba.njit(cache=True)(textwrap.dedent)"
    assert "no locator" in run(as_librosa_does).stderr
    exec(SPLIT, {})
    without = run(f"{SPLIT}\n{as_librosa_does}")
    assert without.stderr == ""
    assert without.stdout == capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []
