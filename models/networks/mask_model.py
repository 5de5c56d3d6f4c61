"""From a waveform to stems, by a network that estimates masks of a spectrogram."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from .settings import NetworkSettings


class MaskEstimate(NamedTuple):
    """What a network makes of a spectrogram.

    Attributes
    ----------
    masks
        real or complex `(batch, targets, channels, bins, frames)`
    mean, deviation
        of the latent variables of a variational network; None of others
    """

    masks: Tensor
    mean: Tensor | None = None
    deviation: Tensor | None = None


class MaskModel(nn.Module):
    """A network between a short-time Fourier transform and its inverse.

    Parameters
    ----------
    settings
        of the spectrogram
    network
        gives a `MaskEstimate` of complex spectrograms `(batch, channels, bins, frames)`
    """

    window: Tensor

    def __init__(self, settings: NetworkSettings, network: nn.Module) -> None:
        super().__init__()
        self.settings = settings
        self.network = network
        self.register_buffer("window", torch.hann_window(settings.window_size), persistent=False)

    def spectrograms(self, waveforms: Tensor) -> Tensor:
        """Complex `(…, bins, frames)` of float32 `(…, samples)` of any length, zeros around it.

        There are `samples / hop_length + 1` frames, rounded up.
        """
        settings = self.settings
        missing = -waveforms.shape[-1] % settings.hop_length
        rows = nn.functional.pad(waveforms, (0, missing)).flatten(0, -2)
        spectrograms = torch.stft(
            rows,
            settings.num_fft,
            settings.hop_length,
            settings.window_size,
            self.window,
            pad_mode="constant",
            return_complex=True,
        )
        return spectrograms.reshape(*waveforms.shape[:-1], *spectrograms.shape[-2:])

    def waveforms(self, spectrograms: Tensor, samples: int) -> Tensor:
        """The inverse of `spectrograms`: `(…, samples)`."""
        settings = self.settings
        rows = torch.istft(
            spectrograms.flatten(0, -3),
            settings.num_fft,
            settings.hop_length,
            settings.window_size,
            self.window,
        )
        return rows[:, :samples].reshape(*spectrograms.shape[:-2], samples)

    def forward(self, waveforms: Tensor) -> Tensor:
        """The targets in mixtures.

        Parameters
        ----------
        waveforms
            float32 `(batch, channels, samples)`

        Returns
        -------
        float32 `(batch, targets, channels, samples)`
        """
        mixtures = self.spectrograms(waveforms)
        estimate: MaskEstimate = self.network(mixtures)
        return self.waveforms(estimate.masks * mixtures[:, None], waveforms.shape[-1])
