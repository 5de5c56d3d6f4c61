"""From a waveform to stems, by a network that estimates masks of a spectrogram.

Here and in the networks stands what TorchScript compiles, by operators that torch 1.9 has: that is
what Audacity runs. So `constant_pad_nd` goes before `pad`, and `reshape` before `unflatten`.
"""

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
        self.n_fft = settings.num_fft
        self.hop_length = settings.hop_length
        self.window_size = settings.window_size
        self.register_buffer("window", torch.hann_window(settings.window_size), persistent=False)

    def spectrograms(self, waveforms: Tensor) -> Tensor:
        """Complex `(…, bins, frames)` of float32 `(…, samples)` of any length, zeros around it.

        There are `samples / hop_length + 1` frames, rounded up.
        """
        missing = -waveforms.shape[-1] % self.hop_length
        half = self.n_fft // 2
        rows = torch.constant_pad_nd(waveforms, [half, half + missing]).flatten(0, -2)
        # The operator itself: what torch.stft makes of it, TorchScript of torch 1.9 can't read.
        spectrograms = torch.ops.aten.stft(
            rows, self.n_fft, self.hop_length, self.window_size, self.window, False, True, True
        )
        bins, frames = spectrograms.shape[-2], spectrograms.shape[-1]
        # TorchScript can't unpack a shape.
        return spectrograms.reshape(waveforms.shape[0:-1] + (bins, frames))  # noqa: RUF005

    def waveforms(self, spectrograms: Tensor, samples: int) -> Tensor:
        """The inverse of `spectrograms`: `(…, samples)`."""
        rows = torch.istft(
            spectrograms.flatten(0, -3), self.n_fft, self.hop_length, self.window_size, self.window
        )
        return rows[:, 0:samples].reshape(spectrograms.shape[0:-2] + (samples,))  # noqa: RUF005

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
