"""How near estimated stems come to true ones."""

import numpy as np

EPSILON = float(np.finfo(np.float32).eps)


def si_sdr(estimate: np.ndarray, target: np.ndarray) -> float:
    """Scale-invariant signal-to-distortion ratio, without mean removal.

    Equals `torchmetrics.functional.audio.scale_invariant_signal_distortion_ratio`, which would need
    torch. Le Roux, Wisdom, Erdogan and Hershey, "SDR – half-baked or well done?", ICASSP 2019.

    Parameters
    ----------
    estimate, target
        float32 `(channels, samples)`

    Returns
    -------
    dB, averaged over the channels
    """
    estimate, target = estimate.astype(np.float64), target.astype(np.float64)
    energy = np.sum(target**2, axis=-1, keepdims=True)
    scale = (np.sum(estimate * target, axis=-1, keepdims=True) + EPSILON) / (energy + EPSILON)
    wanted = scale * target
    distortion = np.sum((wanted - estimate) ** 2, axis=-1)
    ratios = (np.sum(wanted**2, axis=-1) + EPSILON) / (distortion + EPSILON)
    return float(np.mean(10 * np.log10(ratios)))
