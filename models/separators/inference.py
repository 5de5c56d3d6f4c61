"""Models on a device: batches of blocks, their size, precision, and what to do when memory ends."""

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from .base import Member, ModelError, Separator, TorchSeparator

logger = logging.getLogger("beamsplitter")

Precision = Literal["float32", "bfloat16", "float16"]
LARGEST_BATCH = 32
# What a batch may take of the memory that is free: others on the device need some, too.
SHARE_OF_FREE_MEMORY = 0.6


@dataclass(frozen=True)
class DeviceOptions:
    """Where and how models run.

    Parameters
    ----------
    device : "auto" (a GPU if there is one), "cpu", "cuda", "cuda:N", "mps"
    precision : that of the models' arithmetic; halves by autocast
    compile : by `torch.compile`
    batch_size : blocks in a batch; None: as many as memory allows on a GPU, 1 elsewhere
    """

    device: str = "auto"
    precision: Precision = "float32"
    compile: bool = False
    batch_size: int | None = None


def find_device(name: str) -> torch.device:
    """The device of a name.

    Raises
    ------
    ModelError : it is not there
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
        if name == "cpu" and torch.backends.mps.is_available():
            name = "mps"
    kind, _, index = name.partition(":")
    there = {
        "cpu": 1,
        "cuda": torch.cuda.device_count(),
        "mps": int(torch.backends.mps.is_available()),
    }.get(kind, 0)
    if int(index or 0) >= there:
        raise ModelError(f"device {name}: is not on this machine; use auto, or cpu")
    return torch.device(name)


class BlockRunner:
    """Runs the models of an ensemble on blocks; callable by several threads, one at a time runs."""

    def __init__(self, members: Sequence[Member], options: DeviceOptions) -> None:
        self.separators = [member.separator for member in members]
        self.options = options
        self.device = find_device(options.device)
        self.batch_sizes: dict[int, int] = {}
        self._lock = threading.Lock()
        for separator in self.separators:
            if isinstance(separator, TorchSeparator):
                self._prepare(separator)

    def _prepare(self, separator: TorchSeparator) -> None:
        separator.module.requires_grad_(False).to(self.device)
        if self.options.compile:
            separator.module.compile()

    def __call__(
        self, member_index: int, blocks: np.ndarray, sample_rate: int, stems: Sequence[int]
    ) -> np.ndarray:
        """Run one member's model.

        Parameters
        ----------
        blocks : float32 `(blocks, channels, samples)`
        sample_rate : Hz
        stems : indexes of the stems that are wanted

        Returns
        -------
        float32 `(blocks, stems, channels, samples)`; one channel stands for all

        Raises
        ------
        ModelError : the model fails, gives another shape than it should, or needs more memory for a
            single block than there is
        """
        separator = self.separators[member_index]
        with self._lock:
            if not isinstance(separator, TorchSeparator):
                outputs = [separator.separate(block, sample_rate) for block in blocks]
                for output in outputs:
                    _require_shape(separator, output.shape, blocks.shape[1:])
                return np.stack(outputs)[:, list(stems)]
            return self._run_in_batches(member_index, separator, blocks, stems)

    def _run_in_batches(
        self, member_index: int, separator: TorchSeparator, blocks: np.ndarray, stems: Sequence[int]
    ) -> np.ndarray:
        outputs: list[np.ndarray] = []
        done = 0
        while done < len(blocks):
            size = self._batch_size(member_index, separator, blocks)
            batch = blocks[done : done + size]
            try:
                outputs.append(self._run_batch(separator, batch, stems))
            except torch.OutOfMemoryError as error:
                # The traceback of the error holds on to the batch's memory.
                error.__traceback__ = None
                self._make_smaller(member_index, separator, len(batch))
                continue
            done += len(batch)
        return outputs[0] if len(outputs) == 1 else np.concatenate(outputs)

    def _run_batch(
        self, separator: TorchSeparator, batch: np.ndarray, stems: Sequence[int]
    ) -> np.ndarray:
        host = torch.from_numpy(np.ascontiguousarray(batch))
        if self.device.type == "cuda":
            host = host.pin_memory()
        half = self.options.precision != "float32"
        with (
            torch.inference_mode(),
            torch.autocast(
                self.device.type,
                dtype=getattr(torch, self.options.precision) if half else None,
                enabled=half,
            ),
        ):
            try:
                output = separator.forward(host.to(self.device, non_blocking=True))
            except (ModelError, torch.OutOfMemoryError):
                raise
            except Exception as error:
                raise ModelError(
                    f"{separator.name}: fails on a block of {batch.shape[-1]} samples: "
                    f"{type(error).__name__}: {error}"
                ) from error
            if not isinstance(output, torch.Tensor):
                raise ModelError(f"{separator.name}: gives {type(output).__name__}, not a tensor")
            if output.shape[0] != len(batch):
                raise ModelError(
                    f"{separator.name}: gives {output.shape[0]} blocks for a batch of {len(batch)}"
                )
            _require_shape(separator, tuple(output.shape[1:]), batch.shape[1:])
            wanted = output[:, list(stems)] if len(stems) < output.shape[1] else output
            return np.asarray(wanted.float().cpu().numpy())

    def _batch_size(self, member_index: int, separator: TorchSeparator, blocks: np.ndarray) -> int:
        if self.options.batch_size:
            return self.batch_sizes.setdefault(member_index, self.options.batch_size)
        if self.device.type != "cuda":
            return self.batch_sizes.setdefault(member_index, 1)
        if member_index not in self.batch_sizes:
            self.batch_sizes[member_index] = self._measure_batch_size(separator, blocks[:1])
        return self.batch_sizes[member_index]

    def _measure_batch_size(self, separator: TorchSeparator, block: np.ndarray) -> int:
        """How many blocks fit into what is free, by what one takes."""
        torch.cuda.reset_peak_memory_stats(self.device)
        before = torch.cuda.memory_allocated(self.device)
        try:
            self._run_batch(separator, block, range(len(separator.stems)))
        except torch.OutOfMemoryError:
            return 1
        taken = max(1, torch.cuda.max_memory_allocated(self.device) - before)
        free = torch.cuda.mem_get_info(self.device)[0]
        return max(1, min(LARGEST_BATCH, int(SHARE_OF_FREE_MEMORY * free / taken)))

    def _make_smaller(self, member_index: int, separator: Separator, tried: int) -> None:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        if tried == 1:
            raise ModelError(
                f"{separator.name}: {self.device} has too little memory for a single block: use "
                "device: cpu, or a GPU with more"
            )
        self.batch_sizes[member_index] = tried // 2
        logger.warning(
            "%s: out of memory with %d blocks, going on with %d",
            separator.name,
            tried,
            tried // 2,
        )


def _require_shape(separator: Separator, given: tuple[int, ...], block: tuple[int, ...]) -> None:
    channels, samples = block
    stems = len(separator.stems)
    if given not in ((stems, channels, samples), (stems, 1, samples)):
        raise ModelError(
            f"{separator.name}: gives an array of shape {given} for a block of shape {block}: "
            f"({stems}, {channels}, {samples}) is right, for {', '.join(separator.stems)}"
        )
