"""The loss of a network on a batch: which of the losses, of what."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from ..networks.mask_model import MaskEstimate, MaskModel
from . import losses
from .settings import TrainerSettings

Pair = Callable[[Tensor, Tensor], Tensor]
# Losses of waveforms; all others are of magnitudes.
OF_WAVEFORMS: dict[str, Pair] = {
    "si_sdr": losses.si_sdr_loss,
    "multi_resolution_stft": losses.multi_resolution_stft_loss,
}
OF_MAGNITUDES: dict[str, Pair] = {
    "l1": losses.l1_loss,
    "l2": losses.l2_loss,
    "rmse": losses.rmse_loss,
}


def loss_of(
    model: MaskModel, settings: TrainerSettings, mixtures: Tensor, targets: Tensor
) -> Tensor:
    """The loss that a training makes small.

    The divergence of a variational network is added to each. Spectra and losses are worked out in
    float32 whatever the network is.

    Parameters
    ----------
    mixtures
        float32 `(batch, channels, samples)`
    targets
        float32 `(batch, targets, channels, samples)`

    Returns
    -------
    A scalar
    """
    with torch.autocast(mixtures.device.type, enabled=False):
        spectrograms = model.spectrograms(mixtures)
    estimate: MaskEstimate = model.network(spectrograms)
    with torch.autocast(mixtures.device.type, enabled=False):
        masks = _in_full(estimate.masks)
        loss = _loss_of_masks(model, settings, masks, spectrograms, targets)
        if estimate.mean is not None and estimate.deviation is not None:
            loss = loss + losses.kl_divergence(estimate.mean.float(), estimate.deviation.float())
    return loss


def _in_full(masks: Tensor) -> Tensor:
    return masks if masks.is_complex() else masks.float()


def _loss_of_masks(
    model: MaskModel,
    settings: TrainerSettings,
    masks: Tensor,
    spectrograms: Tensor,
    targets: Tensor,
) -> Tensor:
    name = settings.criterion
    estimates = masks * spectrograms[:, None]
    if name in OF_WAVEFORMS:
        waveforms = model.waveforms(estimates, targets.shape[-1])
        return _permuted(OF_WAVEFORMS[name], settings, waveforms, targets)
    wanted = magnitudes(model.spectrograms(targets))
    if name in ("mask", "component"):
        gains = magnitudes(masks) if masks.is_complex() else masks
        mixture = magnitudes(spectrograms)[:, None]
        if name == "mask":
            return losses.mask_loss(gains, wanted, mixture, construction=settings.construction_loss)
        return losses.component_loss(
            gains, wanted, mixture, alpha=settings.alpha, beta=settings.beta
        )
    pair = OF_MAGNITUDES[settings.construction_loss if name == "kl_div" else name]
    if settings.reduction == "sum" and name in ("l1", "l2"):
        return pair(magnitudes(estimates), wanted) * wanted.numel()
    return _permuted(pair, settings, magnitudes(estimates), wanted)


def _permuted(pair: Pair, settings: TrainerSettings, estimates: Tensor, targets: Tensor) -> Tensor:
    if settings.best_perm:
        pair = partial(losses.best_permutation_loss, pair)
    return pair(estimates, targets)


def magnitudes(spectrograms: Tensor) -> Tensor:
    """Of complex spectrograms, with a gradient at 0, where `abs` has none."""
    power = spectrograms.real.square() + spectrograms.imag.square()
    return (power + losses.EPSILON**2).sqrt()
