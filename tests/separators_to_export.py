"""Separators of one's own, as `beamsplitter export` meets them."""

import torch

from beamsplitter.models.separators.base import TorchSeparator
from beamsplitter.models.separators.blocks import BlockLengths

RATE = 8000


class Smooth(TorchSeparator):
    """Low and high frequencies of each channel for itself."""

    name = "smooth"
    stems = ("low", "high")
    sample_rate = RATE
    block_samples = 2000
    context_samples = 30

    def __init__(self, width: int = 31) -> None:
        module = torch.nn.Conv1d(1, 1, width, padding="same", bias=False)
        torch.nn.init.constant_(module.weight, 1 / width)
        super().__init__(module)

    def forward(self, blocks: torch.Tensor) -> torch.Tensor:
        low = self.smoothed(blocks)
        return torch.stack([low, blocks - low], dim=1)

    def smoothed(self, blocks: torch.Tensor) -> torch.Tensor:
        rows = blocks.reshape(-1, 1, blocks.shape[2])
        return self.module(rows).reshape(blocks.shape)


class Newer(Smooth):
    """Uses an operator that has come to mean something else since torch 1.9."""

    name = "newer"

    def forward(self, blocks: torch.Tensor) -> torch.Tensor:
        bent = torch.nn.functional.gelu(blocks)
        return torch.stack([bent, blocks - bent], dim=1)


class MidSide(Smooth):
    """Takes two channels at once, and gives one for both."""

    name = "mid-side"
    stems = ("mid", "side")
    channels = 2

    def forward(self, blocks: torch.Tensor) -> torch.Tensor:
        mid = blocks.mean(dim=1, keepdim=True)
        return torch.stack([mid, blocks[:, :1] - mid], dim=1)


class Mixing(Smooth):
    """Takes any number of channels, and mixes them."""

    name = "mixing"
    channels = None
    stems = ("mean",)

    def forward(self, blocks: torch.Tensor) -> torch.Tensor:
        return blocks.mean(dim=1, keepdim=True)[:, None]


class MonoOnly(Smooth):
    """Says that it takes any number of channels, and takes one."""

    def forward(self, blocks: torch.Tensor) -> torch.Tensor:
        return self.module(blocks)[:, None].expand(-1, 2, -1, -1)


class Normalized(Smooth):
    """What it gives depends on the level."""

    name = "normalized"
    normalizes = True
    block_lengths = BlockLengths()

    def forward(self, blocks: torch.Tensor) -> torch.Tensor:
        loud = torch.relu(blocks - 1)
        return torch.stack([loud, blocks - loud], dim=1)


class Stepped(Smooth):
    """Takes blocks of certain lengths, and is told shorter ones as they are."""

    name = "stepped"
    block_samples = 2030
    block_lengths = BlockLengths(70, 100)

    def forward(self, blocks: torch.Tensor) -> torch.Tensor:
        assert (blocks.shape[2] - 70) % 100 == 0
        low = self.smoothed(blocks)
        return torch.stack([low, blocks - low], dim=1)


class Uncompilable(Smooth):
    """Python that neither TorchScript nor torch.export knows."""

    name = "uncompilable"

    def forward(self, blocks: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(blocks.numpy() * 1.0)[:, None].expand(-1, 2, -1, -1)


class Changing(Smooth):
    """Is something else as TorchScript."""

    name = "changing"

    def forward(self, blocks: torch.Tensor) -> torch.Tensor:
        if torch.jit.is_scripting():
            blocks = blocks * 1.001
        low = self.smoothed(blocks)
        return torch.stack([low, blocks - low], dim=1)
