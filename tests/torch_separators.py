"""Small networks behind the interface of separators, for tests."""

import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

from beamsplitter.models.separators.base import ModelError, TorchSeparator
from beamsplitter.models.separators.blocks import BlockLengths
from beamsplitter.models.separators.device_runner import DeviceRunner


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


class Thoughtful(Toy):
    """Computes when it is loaded, enough for several threads."""

    def __init__(self) -> None:
        super().__init__()
        self.module(torch.ones(8, 1, 100_000))


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


class Faulty(Toy):
    """What can go wrong in a process that runs models: with loud blocks, or altogether."""

    name = "faulty"

    def __init__(self, fault: str) -> None:
        super().__init__()
        self.fault = fault
        if fault == "unmeasured":
            DeviceRunner.batch_size = raising(ModelError("no memory to measure with"))
        elif fault == "no lane":
            DeviceRunner.lane = raising(RuntimeError("no stream"))
        elif fault == "poisoned":
            DeviceRunner.is_usable = lambda self: False

    def forward(self, blocks: torch.Tensor) -> torch.Tensor:
        if blocks.abs().max() > 1:
            if self.fault == "exits":
                sys.exit("no licence")
            if self.fault == "hangs":
                time.sleep(3600)
            if self.fault == "stops":
                os.kill(os.getpid(), signal.SIGSTOP)
                # This thread may go on for a moment, where another has taken the signal.
                time.sleep(3600)
            raise ValueError("too loud")
        return super().forward(blocks)


def raising(error: Exception) -> Callable[..., Any]:
    def fail(*_: Any) -> Any:
        raise error

    return fail


class Absent(Toy):
    """Can't be loaded."""

    name = "absent"

    def __init__(self) -> None:
        raise ModelError("absent: its weights are not there")
