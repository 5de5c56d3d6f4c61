"""Mel bands and the Hann window, equal to librosa's, which takes most of a second to import."""

import numpy as np

# Slaney's scale, of his Auditory Toolbox: linear up to 1 kHz, logarithmic from there on.
_LINEAR_HZ = 200.0 / 3
_LOG_FROM_HZ = 1000.0
_LOG_STEP = np.log(6.4) / 27.0
_LOG_FROM_MEL = _LOG_FROM_HZ / _LINEAR_HZ


def hann_window(samples: int) -> np.ndarray:
    """`scipy.signal.get_window("hann", samples)`: float64, periodic."""
    if samples == 1:
        return np.ones(1)
    phases = np.linspace(-np.pi, np.pi, samples + 1)[:-1]
    return 0.5 + 0.5 * np.cos(phases)


def mel_weights(
    *,
    sample_rate: int,
    n_fft: int,
    n_mels: int,
    lowest_hz: float,
    highest_hz: float,
    htk: bool,
    norm: str | float | None,
) -> np.ndarray:
    """The weights of a spectrum's bins in each mel band: `librosa.filters.mel`, without warnings.

    Parameters
    ----------
    lowest_hz, highest_hz
        where the lowest band begins, and the highest ends
    htk
        HTK's mel scale, else Slaney's
    norm
        "slaney": bands of equal area; a number, or infinity: of this norm 1; None: of peak 1

    Returns
    -------
    np.ndarray, shape (n_mels, 1 + n_fft // 2), float32
    """
    bins_hz = np.fft.rfftfreq(n=n_fft, d=1.0 / sample_rate)
    lowest, highest = _mels_of(np.array([lowest_hz, highest_hz]), htk=htk)
    edges_hz = _hz_of(np.linspace(lowest, highest, n_mels + 2), htk=htk)
    widths_hz = np.diff(edges_hz)
    ramps = np.subtract.outer(edges_hz, bins_hz)
    rising = -ramps[:-2] / widths_hz[:-1, np.newaxis]
    falling = ramps[2:] / widths_hz[1:, np.newaxis]
    weights = np.maximum(0, np.minimum(rising, falling)).astype(np.float32)
    if norm == "slaney":
        weights *= (2.0 / (edges_hz[2:] - edges_hz[:-2]))[:, np.newaxis]
    elif norm is not None:
        weights = _normalized(weights, float(norm))
    return weights


def _normalized(weights: np.ndarray, norm: float) -> np.ndarray:
    magnitudes = np.abs(weights).astype(float)
    if norm == np.inf:
        lengths = magnitudes.max(axis=-1, keepdims=True)
    else:
        lengths = np.sum(magnitudes**norm, axis=-1, keepdims=True) ** (1.0 / norm)
    lengths[lengths < np.finfo(np.float32).tiny] = 1.0
    return np.asarray(weights / lengths, np.float32)


def _mels_of(frequencies_hz: np.ndarray, *, htk: bool) -> np.ndarray:
    if htk:
        return np.asarray(2595.0 * np.log10(1.0 + frequencies_hz / 700.0))
    linear = frequencies_hz / _LINEAR_HZ
    above = np.maximum(frequencies_hz, _LOG_FROM_HZ)
    logarithmic = _LOG_FROM_MEL + np.log(above / _LOG_FROM_HZ) / _LOG_STEP
    return np.where(frequencies_hz >= _LOG_FROM_HZ, logarithmic, linear)


def _hz_of(mels: np.ndarray, *, htk: bool) -> np.ndarray:
    if htk:
        return np.asarray(700.0 * (10.0 ** (mels / 2595.0) - 1.0))
    above = np.maximum(mels, _LOG_FROM_MEL)
    logarithmic = _LOG_FROM_HZ * np.exp(_LOG_STEP * (above - _LOG_FROM_MEL))
    return np.where(mels >= _LOG_FROM_MEL, logarithmic, _LINEAR_HZ * mels)
