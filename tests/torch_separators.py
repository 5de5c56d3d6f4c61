"""Small networks behind the interface of separators, for tests."""

import os

import torch

from beamsplitter.models.separators.base import ModelError, TorchSeparator
from beamsplitter.models.separators.blocks import BlockLengths


class Toy(TorchSeparator):
    """Two convolutions with seeded weights; "rest" is what "network" leaves of the mixture."""

    name = "toy"
    stems = ("network", "rest")
    sample_rate = 16000

    def __init__(
        self, block_samples: int = 2000, channels: int | None = 1, normalizes: bool = False
    ) -> None:
        torch.manual_seed(0)
        super().__init__(
            torch.nn.Sequential(
                torch.nn.Conv1d(1, 8, 31, padding="same"),
                torch.nn.Tanh(),
                torch.nn.Conv1d(8, 1, 31, padding="same"),
            )
        )
        self.block_samples = block_samples
        self.context_samples = 30
        self.channels = channels
        self.normalizes = normalizes

    def forward(self, blocks: torch.Tensor) -> torch.Tensor:
        estimate = self.module(blocks)
        return torch.stack([estimate, blocks - estimate], dim=1)


class Hungry(Toy):
    """Has memory for so many blocks at once."""

    name = "hungry"

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most
        self.batches: list[int] = []

    def forward(self, blocks: torch.Tensor) -> torch.Tensor:
        if len(blocks) > self.most:
            raise torch.OutOfMemoryError("out of memory")
        self.batches.append(len(blocks))
        return super().forward(blocks)


class Choosy(Toy):
    """Fails on blocks louder than 1; notes how many blocks came at once in a file."""

    name = "choosy"
    block_lengths = BlockLengths(70, 100)

    def __init__(self, notes: str) -> None:
        super().__init__()
        self.notes = notes

    def forward(self, blocks: torch.Tensor) -> torch.Tensor:
        with open(self.notes, "a") as file:
            file.write(f"{os.getpid()} {len(blocks)}\n")
        if blocks.abs().max() > 1:
            raise ValueError("too loud")
        return super().forward(blocks)


class Absent(Toy):
    """Can't be loaded."""

    name = "absent"

    def __init__(self) -> None:
        raise ModelError("absent: its weights are not there")
