"""The network of Open-Unmix.

Stöter, Uhlich, Liutkus and Mitsufuji, "Open-Unmix – a reference implementation for music source
separation", JOSS 2019. Equals `openunmix.model.OpenUnmix` in evaluation, and has the names of its
parameters, so that published weights fit.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

LAYERS = 3
# The first release kept the transform and its rate in the network.
OBSOLETE_KEYS = frozenset({"sample_rate", "stft.window", "transform.0.window"})


class OpenUnmix(nn.Module):
    """Estimates the magnitudes of one target in a mixture: a mask out of a three-layer BLSTM.

    Parameters
    ----------
    channels
        of the mixture
    bins
        of its spectrogram
    used_bins
        how many of them it reads, from the lowest; all are masked
    hidden_size
        width of its layers, even
    """

    def __init__(self, *, channels: int, bins: int, used_bins: int, hidden_size: int) -> None:
        super().__init__()
        self.channels, self.bins, self.used_bins = channels, bins, used_bins
        self.fc1 = nn.Linear(channels * used_bins, hidden_size, bias=False)
        self.bn1 = nn.BatchNorm1d(hidden_size)
        self.lstm = nn.LSTM(hidden_size, hidden_size // 2, num_layers=LAYERS, bidirectional=True)
        self.fc2 = nn.Linear(2 * hidden_size, hidden_size, bias=False)
        self.bn2 = nn.BatchNorm1d(hidden_size)
        self.fc3 = nn.Linear(hidden_size, channels * bins, bias=False)
        self.bn3 = nn.BatchNorm1d(channels * bins)
        self.input_mean = nn.Parameter(torch.zeros(used_bins))
        self.input_scale = nn.Parameter(torch.ones(used_bins))
        self.output_scale = nn.Parameter(torch.ones(bins))
        self.output_mean = nn.Parameter(torch.ones(bins))

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> "OpenUnmix":
        """The network that a state dict is of; its size is that of the tensors.

        Raises
        ------
        KeyError, ValueError, RuntimeError
            tensors are missing, unknown, or don't fit together
        """
        used_bins = state["input_mean"].numel()
        hidden_size, inputs = state["fc1.weight"].shape
        network = cls(
            channels=inputs // max(1, used_bins),
            bins=state["output_mean"].numel(),
            used_bins=used_bins,
            hidden_size=hidden_size,
        )
        network.load_state_dict({key: state[key] for key in state if key not in OBSOLETE_KEYS})
        return network

    def forward(self, magnitudes: Tensor) -> Tensor:
        """Magnitudes of the target.

        Parameters
        ----------
        magnitudes
            float32 `(batch, channels, bins, frames)`

        Returns
        -------
        float32, same shape, at least 0
        """
        batch, channels, bins, frames = magnitudes.shape
        rows = magnitudes.permute(3, 0, 1, 2)
        # Training starts them as the negative mean and the reciprocal of the deviation.
        scaled = (rows[..., : self.used_bins] + self.input_mean) * self.input_scale
        encoded = torch.tanh(self.bn1(self.fc1(scaled.reshape(frames * batch, -1))))
        recurrent, _ = self.lstm(encoded.view(frames, batch, -1))
        both = torch.cat([encoded, recurrent.reshape(frames * batch, -1)], dim=-1)
        decoded = self.bn3(self.fc3(torch.relu(self.bn2(self.fc2(both)))))
        mask = decoded.view(frames, batch, channels, bins) * self.output_scale + self.output_mean
        return (torch.relu(mask) * rows).permute(1, 2, 3, 0)


class Targets(nn.ModuleDict):
    """One network for each target."""

    def forward(self, magnitudes: Tensor) -> Tensor:
        """`(batch, channels, bins, frames)` to `(batch, targets, channels, bins, frames)`."""
        return torch.stack([network(magnitudes) for network in self.values()], dim=1)
