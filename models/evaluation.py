"""How near estimated stems come to true ones."""

import numpy as np


def si_sdr(estimate: np.ndarray, target: np.ndarray) -> float:
    """Scale-invariant signal-to-distortion ratio, by torchmetrics, without mean removal.

    Parameters
    ----------
    estimate, target : float32 `(channels, samples)`

    Returns
    -------
    dB, averaged over the channels
    """
    # torch takes seconds to import, and most jobs never score anything.
    import torch
    from torchmetrics.functional.audio import scale_invariant_signal_distortion_ratio

    ratios = scale_invariant_signal_distortion_ratio(
        torch.from_numpy(np.ascontiguousarray(estimate)),
        torch.from_numpy(np.ascontiguousarray(target)),
    )
    return float(ratios.mean())
