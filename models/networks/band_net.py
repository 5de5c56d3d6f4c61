"""A compact network: bands of the spectrum, a recurrent layer over time, masks.

It learns fast on a CPU: there are few frames a second, and all bands of a frame share a step of the
recurrence. What was tried beside it: `docs/compact-network.md`.
"""

import itertools
import math
from typing import Final

import torch
from torch import Tensor, nn

from .mask_model import MaskEstimate
from .settings import BandNetSettings


def band_edges(bins: int, bands: int, sample_rate: int) -> list[int]:
    """Where bands begin that are of equal width on the mel scale, and at least one bin wide.

    Parameters
    ----------
    bins
        of a spectrum from 0 Hz to half the sample rate
    bands
        at most `bins`
    sample_rate
        Hz

    Returns
    -------
    `bands + 1` bins; the last is `bins`
    """
    top = math.log1p(sample_rate / 2 / 700)
    edges = [0]
    for band in range(1, bands):
        hertz = 700 * math.expm1(top * band / bands)
        wanted = round(2 * hertz / sample_rate * (bins - 1))
        edges.append(min(max(wanted, edges[-1] + 1), bins - bands + band))
    return [*edges, bins]


class BandFeatures(nn.Module):
    """A linear layer of its own for each band of the spectrum.

    Parameters
    ----------
    edges
        of the bands, in bins
    per_bin
        numbers of a bin
    features
        of a band
    """

    bins_of_bands: Tensor

    def __init__(self, edges: list[int], per_bin: int, features: int) -> None:
        super().__init__()
        widths = [stop - start for start, stop in itertools.pairwise(edges)]
        # Narrow bands are filled up with a bin of zeros that stands behind the last.
        index = torch.full((len(widths), max(widths)), edges[-1])
        for band, (start, width) in enumerate(zip(edges, widths, strict=False)):
            index[band, :width] = torch.arange(start, start + width)
        self.register_buffer("bins_of_bands", index, persistent=False)
        deviations = torch.tensor(widths).mul(per_bin).rsqrt()[:, None, None]
        weight = torch.randn(len(widths), max(widths) * per_bin, features) * deviations
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(torch.zeros(len(widths), features))

    def forward(self, spectra: Tensor) -> Tensor:
        """`(batch, frames, bins, per_bin)` to `(batch, frames, bands, features)`."""
        padded = torch.constant_pad_nd(spectra, [0, 0, 0, 1])
        bands = padded[:, :, self.bins_of_bands].flatten(3)
        return torch.einsum("btki,kif->btkf", bands, self.weight) + self.bias


class BandNet(nn.Module):
    """Real masks in [0, 1] of each target, from magnitudes.

    Magnitudes are taken relative to their mean over the excerpt, so that masks do not depend on its
    level. Items of a batch have no influence on each other. It has no dropout and no normalisation
    by batches: it does the same in training as in evaluation.

    Parameters
    ----------
    settings
        of the spectrogram and the sizes of the layers
    """

    # Of a mean magnitude: below it all is silence, whatever the gain.
    QUIETEST: Final = 1e-20
    # Makes quiet bins count beside loud ones.
    COMPRESSION: Final = 0.3
    # Of the mean magnitude: bins below it look alike, and have finite gradients.
    FLOOR: Final = 1e-6

    def __init__(self, settings: BandNetSettings) -> None:
        super().__init__()
        self.targets = len(settings.targets)
        bands = min(settings.num_bands, settings.bins)
        edges = band_edges(settings.bins, bands, settings.sample_rate)
        hidden = settings.hidden_size
        self.bands = BandFeatures(edges, settings.num_channels, settings.band_features)
        self.encoder = nn.Linear(bands * settings.band_features, hidden)
        self.encoder_norm = nn.LayerNorm(hidden)
        self.recurrence = nn.GRU(
            hidden, hidden // 2, settings.recurrent_depth, batch_first=True, bidirectional=True
        )
        self.decoder = nn.Linear(2 * hidden, hidden)
        self.decoder_norm = nn.LayerNorm(hidden)
        self.masks = nn.Linear(hidden, settings.bins * self.targets * settings.num_channels)

    def forward(self, spectrograms: Tensor) -> MaskEstimate:
        """Estimate the masks.

        Parameters
        ----------
        spectrograms
            complex `(batch, channels, bins, frames)`

        Returns
        -------
        `masks`: float32 `(batch, targets, channels, bins, frames)`, in [0, 1]
        """
        magnitudes = spectrograms.abs()
        batch, channels, bins, frames = magnitudes.shape
        level = magnitudes.mean(dim=(1, 2, 3), keepdim=True).clamp(min=self.QUIETEST)
        spectra = (magnitudes / level + self.FLOOR).pow(self.COMPRESSION).permute(0, 3, 2, 1)
        bands = torch.relu(self.bands(spectra)).flatten(2)
        encoded = torch.tanh(self.encoder_norm(self.encoder(bands)))
        recurrent, _ = self.recurrence(encoded)
        both = torch.cat([encoded, recurrent], dim=-1)
        decoded = torch.relu(self.decoder_norm(self.decoder(both)))
        masks = torch.sigmoid(self.masks(decoded))
        masks = masks.reshape(batch, frames, bins, self.targets, channels)
        return MaskEstimate(masks.permute(0, 3, 4, 2, 1))
