"""What a training makes small. All are finite, with finite gradients, on silence too.

Spectra are magnitudes, masks lie in [0, 1]; both have the shape `(batch, …, bins, frames)`. Signals
have the shape `(batch, …, channels, samples)`. Each loss is a mean over the batch.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from ..evaluation.spectral import RESOLUTIONS, Resolution

EPSILON = 1e-8
# Of the mixture's magnitude: quieter bins say nothing about a mask.
QUIETEST = 1e-6


def l1_loss(estimate: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference, as `torch.nn.functional.l1_loss`."""
    return torch.nn.functional.l1_loss(estimate, target)


def l2_loss(estimate: Tensor, target: Tensor) -> Tensor:
    """Mean squared difference, as `torch.nn.functional.mse_loss`."""
    return torch.nn.functional.mse_loss(estimate, target)


def rmse_loss(estimate: Tensor, target: Tensor) -> Tensor:
    """Root of the mean squared difference of each item of the batch."""
    squares = (estimate - target).square().flatten(1).mean(dim=1)
    return (squares + EPSILON**2).sqrt().mean()


CONSTRUCTION: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"l1": l1_loss, "l2": l2_loss}


def mask_loss(
    mask: Tensor, target: Tensor, mixture: Tensor, *, construction: Literal["l1", "l2"] = "l2"
) -> Tensor:
    """Distance of a mask from the ideal ratio mask.

    Parameters
    ----------
    target, mixture
        magnitudes
    """
    ideal = (target / mixture.clamp(min=QUIETEST)).clamp(0, 1)
    return CONSTRUCTION[construction](mask, ideal)


def component_weights(alpha: float, beta: float) -> tuple[float, float, float]:
    """Weights of what is kept of the target, what is left of the rest, and how that sounds.

    They are `1 - alpha - beta`, `alpha` and `beta`. Where the first would be nothing, as by the
    usual 0.2 and 0.8, all are scaled down beside a first of 1: else a mask of zeros were best.

    Raises
    ------
    ValueError
        a weight is below 0
    """
    if alpha < 0 or beta < 0:
        raise ValueError(f"alpha and beta are at least 0: they are {alpha:g} and {beta:g}")
    first = 1 - alpha - beta
    if first > 0:
        return first, alpha, beta
    total = 1 + alpha + beta
    return 1 / total, alpha / total, beta / total


def component_loss(
    mask: Tensor, target: Tensor, mixture: Tensor, *, alpha: float = 0.2, beta: float = 0.8
) -> Tensor:
    """What a mask takes from the target, and leaves of the rest, and how natural that sounds.

    Xu, Elshamy, Zhao and Fingscheidt, "Components loss for neural networks in mask-based speech
    enhancement", 2019: the loss of three components. The third wants what is left of the rest to
    sound as the rest does; where nothing is left, it counts fully.

    Parameters
    ----------
    target, mixture
        magnitudes
    """
    weights = component_weights(alpha, beta)
    rest = (mixture - target).clamp(min=0)
    left = mask * rest
    kept = (mask * target - target).square()
    shape = (_normalised(left) - _normalised(rest)).square()
    terms = (kept, left.square(), shape)
    return torch.stack(
        [weight * term.mean() for weight, term in zip(weights, terms, strict=True)]
    ).sum()


def _normalised(spectrum: Tensor) -> Tensor:
    """A spectrum of mean power 1, or silence."""
    power = spectrum.square().mean(dim=(-2, -1), keepdim=True)
    return spectrum / (power + EPSILON).sqrt()


def kl_divergence(mean: Tensor, deviation: Tensor) -> Tensor:
    """How far a normal distribution of these means and deviations is from a standard one.

    Kingma and Welling, "Auto-encoding variational Bayes", 2014, appendix B; the mean over all its
    dimensions.
    """
    variance = deviation.square()
    return 0.5 * (mean.square() + variance - (variance + EPSILON).log() - 1).mean()


def si_sdr(estimate: Tensor, target: Tensor) -> Tensor:
    """Scale-invariant signal-to-distortion ratio in dB, without mean removal.

    Le Roux, Wisdom, Erdogan and Hershey, "SDR – half-baked or well done?", ICASSP 2019; equals
    `torchmetrics.functional.audio.scale_invariant_signal_distortion_ratio` where both signals are
    louder than -80 dB. Below that it tends to 0 dB, so that no training runs after silence.

    Parameters
    ----------
    estimate, target
        `(…, samples)`

    Returns
    -------
    `(…)`
    """
    energy = target.square().sum(-1, keepdim=True)
    floor = EPSILON * target.shape[-1]
    scale = ((estimate * target).sum(-1, keepdim=True) + floor) / (energy + floor)
    wanted = scale * target
    distortion = (wanted - estimate).square().sum(-1)
    return 10 * ((wanted.square().sum(-1) + floor) / (distortion + floor)).log10()


def si_sdr_loss(estimate: Tensor, target: Tensor) -> Tensor:
    """The mean SI-SDR of all channels, negated."""
    return -si_sdr(estimate, target).mean()


def multi_resolution_stft_loss(
    estimate: Tensor,
    target: Tensor,
    *,
    resolutions: Sequence[Resolution] = RESOLUTIONS,
) -> Tensor:
    """Distance of spectra at several resolutions: spectral convergence and log magnitudes.

    Yamamoto, Song and Kim, "Parallel WaveGAN", ICASSP 2020.

    Parameters
    ----------
    estimate, target
        `(…, samples)`
    resolutions
        FFT length, hop and window of each, in samples
    """
    losses = []
    for n_fft, hop_length, window_length in resolutions:
        window = torch.hann_window(window_length, device=target.device, dtype=target.dtype)
        ours, theirs = (
            _magnitude(signal, n_fft, hop_length, window) for signal in (estimate, target)
        )
        difference = (theirs - ours).flatten(1).norm(dim=1)
        convergence = difference / (theirs.flatten(1).norm(dim=1) + QUIETEST)
        losses.append(convergence.mean() + l1_loss(ours.log(), theirs.log()))
    return torch.stack(losses).mean()


def _magnitude(signal: Tensor, n_fft: int, hop_length: int, window: Tensor) -> Tensor:
    rows = signal.flatten(0, -2)
    spectrum = torch.stft(
        rows, n_fft, hop_length, len(window), window, return_complex=True, pad_mode="constant"
    )
    power = spectrum.real.square() + spectrum.imag.square()
    magnitude = (power + EPSILON).sqrt()  # not abs: its gradient at 0 is no number
    return magnitude.reshape(len(signal), -1, *magnitude.shape[-2:])


def best_permutation_loss(
    loss: Callable[[Tensor, Tensor], Tensor], estimates: Tensor, targets: Tensor
) -> Tensor:
    """The loss of each item of a batch by the order of its estimates that is the best for it.

    As `torchmetrics.functional.audio.permutation_invariant_training`. Targets stay where they are:
    it is the estimates that change places.

    Parameters
    ----------
    loss
        of estimates and targets of one item, a batch of one
    estimates, targets
        `(batch, stems, …)`
    """
    orders = list(itertools.permutations(range(targets.shape[1])))
    best = []
    for estimate, target in zip(estimates, targets, strict=True):
        of_orders = [loss(estimate[None, list(order)], target[None]) for order in orders]
        best.append(torch.stack(of_orders).min())
    return torch.stack(best).mean()
