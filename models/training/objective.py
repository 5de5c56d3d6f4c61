"""The loss of a network on a batch: which of the losses, of what."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

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


class Estimates(NamedTuple):
    """What a model makes of mixtures, in float32 whatever its network is.

    Attributes
    ----------
    mixtures
        complex `(batch, channels, bins, frames)`
    stems
        complex `(batch, targets, channels, bins, frames)`
    network
        what the network gave, masks among it
    """

    mixtures: Tensor
    stems: Tensor
    network: MaskEstimate


def estimates_of(model: MaskModel, mixtures: Tensor) -> Estimates:
    """The spectra of mixtures, float32 `(batch, channels, samples)`, and of the stems in them."""
    with torch.autocast(mixtures.device.type, enabled=False):
        spectrograms = model.spectrograms(mixtures)
    made: MaskEstimate = model.network(spectrograms)
    masks = made.masks if made.masks.is_complex() else made.masks.float()
    return Estimates(spectrograms, masks * spectrograms[:, None], made._replace(masks=masks))


def loss_of(
    model: MaskModel, settings: TrainerSettings, estimates: Estimates, targets: Tensor
) -> Tensor:
    """The loss that a training makes small.

    The divergence of a variational network is added to each.

    Parameters
    ----------
    targets
        float32 `(batch, targets, channels, samples)`

    Returns
    -------
    A scalar
    """
    with torch.autocast(targets.device.type, enabled=False):
        loss = _loss_of_stems(model, settings, estimates, targets)
        _, mean, deviation = estimates.network
        if mean is not None and deviation is not None:
            loss = loss + losses.kl_divergence(mean.float(), deviation.float())
    return loss


def _loss_of_stems(
    model: MaskModel, settings: TrainerSettings, estimates: Estimates, targets: Tensor
) -> Tensor:
    name = settings.criterion
    if name in OF_WAVEFORMS:
        waveforms = model.waveforms(estimates.stems, targets.shape[-1])
        return _permuted(OF_WAVEFORMS[name], settings, waveforms, targets)
    wanted = magnitudes(model.spectrograms(targets))
    if name in ("mask", "component"):
        masks = estimates.network.masks
        gains = magnitudes(masks) if masks.is_complex() else masks
        mixture = magnitudes(estimates.mixtures)[:, None]
        if name == "mask":
            return losses.mask_loss(gains, wanted, mixture, construction=settings.construction_loss)
        return losses.component_loss(
            gains, wanted, mixture, alpha=settings.alpha, beta=settings.beta
        )
    pair = OF_MAGNITUDES[settings.construction_loss if name == "kl_div" else name]
    if settings.reduction == "sum" and name in ("l1", "l2"):
        return pair(magnitudes(estimates.stems), wanted) * wanted.numel()
    return _permuted(pair, settings, magnitudes(estimates.stems), wanted)


def _permuted(pair: Pair, settings: TrainerSettings, estimates: Tensor, targets: Tensor) -> Tensor:
    if settings.best_perm:
        pair = partial(losses.best_permutation_loss, pair)
    return pair(estimates, targets)


def magnitudes(spectrograms: Tensor) -> Tensor:
    """Of complex spectrograms, with a gradient at 0, where `abs` has none."""
    power = spectrograms.real.square() + spectrograms.imag.square()
    return (power + losses.EPSILON**2).sqrt()
