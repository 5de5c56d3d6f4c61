"""Multichannel Wiener filter: from magnitudes that a model estimates to spectra of sources.

Uhlich et al., "Improving music source separation based on deep neural networks through data
augmentation and network blending", ICASSP 2017; Nugraha, Liutkus and Vincent, "Multichannel audio
source separation with deep neural networks", TASLP 2016. Equals `openunmix.filtering.wiener` in
double precision, but where the mixture is exactly 0: that one puts 1 in its place.
"""

import torch
from torch import Tensor

# All as Open-Unmix has them.
WINDOW_FRAMES = 300
LARGEST_MAGNITUDE = 10.0
EPSILON = 1e-10


def wiener(
    magnitudes: Tensor,
    mixture: Tensor,
    *,
    iterations: int,
    window_frames: int = WINDOW_FRAMES,
) -> Tensor:
    """Spectra of sources from their magnitudes and the mixture.

    Estimates with the phase of the mixture are refined by expectation maximisation: each source is
    a power per bin and frame and a covariance of the channels per bin, both of the last estimate.
    The refined sources sum to the mixture, but for bins some 70 dB below the loudest one of their
    window, which lose a share to regularisation.

    Parameters
    ----------
    magnitudes
        float32 `(…, sources, channels, bins, frames)`, at least 0; of 2 sources or more if
        there are iterations
    mixture
        complex64 `(…, channels, bins, frames)`, 1 or 2 channels
    iterations
        of expectation maximisation; 0 leaves the magnitudes as they are
    window_frames
        sources may move between windows of so many frames, each filtered on its own,
        which also bounds the memory

    Returns
    -------
    complex64 `(…, sources, channels, bins, frames)`

    Raises
    ------
    ValueError
        a single source, with iterations
    """
    sources, channels, bins, frames = magnitudes.shape[-4:]
    if iterations and sources < 2:
        raise ValueError("a Wiener filter needs the magnitudes of two sources or more")
    phase = torch.polar(torch.ones_like(mixture.real), mixture.angle())
    estimates = magnitudes * phase.unsqueeze(-4)
    if iterations == 0:
        return estimates
    items = estimates.reshape(-1, sources, channels, bins, frames)
    mixtures = mixture.reshape(-1, channels, bins, frames)
    for item, mixed in zip(items, mixtures, strict=True):
        for start in range(0, frames, window_frames):
            window = slice(start, start + window_frames)
            item[..., window] = _refine(item[..., window], mixed[..., window], iterations)
    return items.reshape(estimates.shape)


def _refine(estimates: Tensor, mixture: Tensor, iterations: int) -> Tensor:
    """Expectation maximisation in one window.

    Parameters
    ----------
    estimates
        complex64 `(sources, channels, bins, frames)`
    mixture
        complex64 `(channels, bins, frames)`

    Returns
    -------
    complex128, shape of `estimates`
    """
    # In single precision the determinant of what is nearly mono is rounding error. Apple's GPUs
    # have no double.
    device = "cpu" if estimates.device.type == "mps" else estimates.device
    estimates = estimates.to(device, torch.complex128)
    mixture = mixture.to(device, torch.complex128)
    scale = (mixture.abs().amax() / LARGEST_MAGNITUDE).clamp(min=1)
    estimates, mixture = estimates / scale, mixture / scale
    identity = torch.eye(len(mixture), dtype=mixture.dtype, device=mixture.device)
    noise = EPSILON**0.5 * identity[..., None, None]
    for _ in range(iterations):
        powers = estimates.abs().square().mean(dim=1)
        outer = torch.einsum("scbt,sdbt->scdb", estimates, estimates.conj())
        covariances = outer / (powers.sum(dim=-1) + EPSILON)[:, None, None]
        mixed = noise + torch.einsum("sbt,scdb->cdbt", powers.to(outer.dtype), covariances)
        whitened = _solve(mixed, mixture)
        images = torch.einsum("scdb,dbt->scbt", covariances, whitened)
        estimates = powers[:, None] * images
    return estimates * scale


def _solve(matrices: Tensor, vectors: Tensor) -> Tensor:
    """Solve `(channels, channels, …)` Hermitian systems for `(channels, …)`."""
    if len(vectors) == 1:
        return vectors / matrices[0]
    (a, b), (c, d) = matrices
    left, right = vectors
    return torch.stack([d * left - b * right, a * right - c * left]) / (a * d - b * c).real
