"""Excerpts varied on the device that trains, so that a network sees more than there is.

Uhlich et al., "Improving music source separation based on deep neural networks through data
augmentation and network blending", ICASSP 2017, has all but the clipping.
"""

import torch
from torch import Tensor

from .settings import TrainerSettings

# How far a mixture is driven that is clipped, in dB.
DRIVE_DB = (0.0, 12.0)
# Root mean squares: of stems brought to one level, and of what is left as it is.
LEVEL, QUIET = 0.1, 0.001


def augment(
    stems: Tensor, settings: TrainerSettings, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Mixtures and stems for a step.

    Parameters
    ----------
    stems
        float32 `(batch, stems, channels, samples)`, which sum to the mixture
    generator
        of random numbers on the CPU, so that they are the same on every device

    Returns
    -------
    Mixtures `(batch, channels, samples)`, and the stems in them, shaped as before. A mixture is
    their sum, or clipped softly, which their sum is not
    """
    batch, count, channels, _ = stems.shape

    def drawn(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator).to(stems.device)

    stems = _remixed(stems, settings.remix, generator)
    if settings.even_levels:
        stems = _at_one_level(stems)
    if channels > 1:
        swapped = drawn(batch, count, 1, 1) < settings.swap_channels
        stems = torch.where(swapped, stems.flip(2), stems)
    gains = 10 ** ((2 * drawn(batch, count, 1, 1) - 1) * settings.gain_db / 20)
    signs = 1 - 2 * (drawn(batch, count, 1, 1) < settings.flip_polarity).to(stems)
    stems = stems * gains * signs
    mixtures = stems.sum(dim=1)
    lowest, highest = DRIVE_DB
    drive = 10 ** ((lowest + (highest - lowest) * drawn(batch, 1, 1)) / 20)
    clipped = drawn(batch, 1, 1) < settings.soft_clip
    return torch.where(clipped, torch.tanh(mixtures * drive) / drive, mixtures), stems


def _at_one_level(stems: Tensor) -> Tensor:
    levels = stems.square().mean(dim=(-2, -1), keepdim=True).sqrt()
    return torch.where(levels > QUIET, stems * (LEVEL / levels.clamp(min=QUIET)), stems)


def _remixed(stems: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Stems of some items exchanged for those of others, each stem on its own."""
    batch, count = stems.shape[:2]
    remixed = torch.rand(batch, generator=generator) < share
    # The same items change places in each stem: no stem is there twice, and none is lost.
    places = remixed.nonzero().flatten()
    columns = []
    for _ in range(count):
        order = torch.arange(batch)
        order[places] = places[torch.randperm(len(places), generator=generator)]
        columns.append(order)
    orders = torch.stack(columns, dim=1).to(stems.device)
    return stems[orders, torch.arange(count, device=stems.device)]
