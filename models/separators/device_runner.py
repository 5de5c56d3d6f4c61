"""Models on a device: batches of blocks, their size, precision, and what to do when memory ends."""

import contextlib
import logging
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from ...audio.progress import Progress, unheard
from .base import Member, ModelError, Separator, TorchSeparator
from .plain_runner import DeviceOptions, PlainRunner, require_shape

logger = logging.getLogger("beamsplitter")

LARGEST_BATCH = 32
# What a batch may take of the memory that is free: two are under way, and others need some, too.
SHARE_OF_FREE_MEMORY = 0.35


def find_device(name: str) -> torch.device:
    """The device of a name.

    Raises
    ------
    ModelError
        it is not there
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


def device_count() -> int:
    """How many GPUs of CUDA there are."""
    return torch.cuda.device_count()


class DeviceRunner:
    """Runs the models of an ensemble on one device. Threads may share it: one at a time runs."""

    def __init__(self, members: Sequence[Member], options: DeviceOptions) -> None:
        self.separators = [member.separator for member in members]
        self.plain = PlainRunner(members)
        self.options = options
        self.device = find_device(options.device)
        self.batch_sizes: dict[int, int] = {}
        self._alone: contextlib.AbstractContextManager[Any] = threading.Lock()
        self._measuring = threading.Lock()
        if options.threads is not None:
            torch.set_num_threads(options.threads)
        for separator in self.separators:
            if isinstance(separator, TorchSeparator):
                self._prepare(separator)
        if self.device.type == "cuda":
            # Other streams are about to use what this one has copied.
            torch.cuda.synchronize(self.device)

    def _prepare(self, separator: TorchSeparator) -> None:
        separator.module.requires_grad_(False).to(self.device)
        if self.options.compile:
            separator.module.compile()

    def __call__(
        self,
        member_index: int,
        batches: Iterable[np.ndarray],
        sample_rate: int,
        stems: Sequence[int],
        progress: Progress = unheard,
    ) -> Iterator[np.ndarray]:
        """Run one member's model, as `RunBlocks` says.

        Raises
        ------
        ModelError
            the model fails, gives another shape than it should, or needs more memory for a
            single block than there is
        """
        separator = self.separators[member_index]
        if not isinstance(separator, TorchSeparator):
            yield from self.plain(member_index, batches, sample_rate, stems, progress)
            return
        done = 0
        for blocks in batches:
            outputs = []
            with self._alone:
                for output in self._run_blocks(member_index, separator, blocks, stems):
                    outputs.append(output)
                    done += len(output)
                    progress(done)
            yield outputs[0] if len(outputs) == 1 else np.concatenate(outputs)

    @contextlib.contextmanager
    def lane(self) -> Iterator[None]:
        """Run what the calling thread runs beside what other threads do, where a device can."""
        if self.device.type != "cuda":
            yield
            return
        self._alone = contextlib.nullcontext()
        with torch.cuda.stream(torch.cuda.Stream(self.device)):
            yield

    def is_usable(self) -> bool:
        """Whether the device still computes: after some faults a GPU does not, for this process."""
        if self.device.type != "cuda":
            return True
        try:
            torch.zeros(1, device=self.device).cpu()
        except torch.OutOfMemoryError:
            return True
        except RuntimeError:
            return False
        return True

    def batch_size(self, member_index: int, blocks: np.ndarray) -> int:
        """How many blocks the member's model takes at once, of the longest that it is given."""
        if self.options.batch_size:
            return self.batch_sizes.setdefault(member_index, self.options.batch_size)
        separator = self.separators[member_index]
        if self.device.type != "cuda" or not isinstance(separator, TorchSeparator):
            return self.batch_sizes.setdefault(member_index, 1)
        with self._measuring:
            if member_index not in self.batch_sizes:
                self.batch_sizes[member_index] = self._measure_batch_size(separator, blocks)
            return self.batch_sizes[member_index]

    def _run_blocks(
        self, member_index: int, separator: TorchSeparator, blocks: np.ndarray, stems: Sequence[int]
    ) -> Iterator[np.ndarray]:
        done = 0
        while done < len(blocks):
            batch = blocks[done : done + self.batch_size(member_index, blocks)]
            try:
                made = self._run_batch(separator, batch, stems)
            except torch.OutOfMemoryError as error:
                # The traceback of the error holds on to the batch's memory.
                error.__traceback__ = None
                self._make_smaller(member_index, separator, len(batch))
                continue
            done += len(batch)
            yield made

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
            require_shape(separator, tuple(output.shape[1:]), batch.shape[1:])
            wanted = output[:, list(stems)] if len(stems) < output.shape[1] else output
            return self._on_host(wanted.float())

    def _on_host(self, stems: torch.Tensor) -> np.ndarray:
        if self.device.type != "cuda":
            return np.asarray(stems.cpu().numpy())
        # Into pinned memory, at several times the speed; other lanes go on meanwhile.
        host = torch.empty(stems.shape, pin_memory=True).copy_(stems, non_blocking=True)
        torch.cuda.current_stream(self.device).synchronize()
        return np.asarray(host.numpy())

    def _measure_batch_size(self, separator: TorchSeparator, blocks: np.ndarray) -> int:
        """How many blocks fit into what is free, by what the longest takes."""
        longest = separator.longest_block_samples or blocks.shape[-1]
        block = np.zeros((1, blocks.shape[1], longest), np.float32)
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
