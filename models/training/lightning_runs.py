"""How trainings are run by Lightning, whatever they are of."""

import contextlib
import logging
import signal
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException

from ...errors import BeamsplitterError

# Those whose processes are commands of their own: what others find out stays in theirs.
STRATEGIES = ("auto", "ddp", "ddp_find_unused_parameters_true", "fsdp", "deepspeed")


class TrainingError(BeamsplitterError):
    """A training that can't go on; the message says why and what to do."""


@dataclass(frozen=True)
class Devices:
    """What a training runs on, as Lightning calls it.

    Attributes
    ----------
    accelerator
        "auto", "cpu", "gpu", "mps" …
    devices
        how many, or which: "auto", "2", "0,1"
    num_nodes
        machines
    strategy
        one of `STRATEGIES`
    """

    accelerator: str = "auto"
    devices: str = "auto"
    num_nodes: int = 1
    strategy: str = "auto"


@dataclass(frozen=True)
class Progress:
    """How far a training is.

    Attributes
    ----------
    epoch, epochs
        the one under way, from 1, and how many there are at most
    batch, batches
        of the epoch
    """

    epoch: int
    epochs: int
    batch: int
    batches: int


def make_trainer(
    devices: Devices,
    callbacks: list[pl.Callback],
    *,
    max_epochs: int,
    max_grad_norm: float | None,
    **precision: Any,
) -> pl.Trainer:
    """A trainer that writes and tells nothing by itself.

    Parameters
    ----------
    max_grad_norm
        limit of the gradient's norm; None: none
    **precision
        as Lightning has it

    Raises
    ------
    TrainingError
        the devices are not there
    """
    try:
        return pl.Trainer(
            accelerator=devices.accelerator,
            devices=devices.devices,
            num_nodes=devices.num_nodes,
            strategy=devices.strategy,
            max_epochs=max_epochs,
            gradient_clip_val=max_grad_norm,
            callbacks=callbacks,
            logger=False,
            enable_checkpointing=True,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            **precision,
        )
    except (MisconfigurationException, ValueError, TypeError, RuntimeError) as error:
        (reason, *_) = str(error).splitlines()
        raise TrainingError(f"--accelerator, --devices, --num-nodes: {reason}") from error


def require_checkpoint(path: Path, training: pl.LightningModule) -> None:
    """Refuse a checkpoint that a training can't go on from.

    Raises
    ------
    TrainingError
        it is cut off or something else, or of another network
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        weights = checkpoint["state_dict"]
    # It fails in many ways on what is none.
    except Exception as error:
        raise TrainingError(
            f"{path}: is no whole checkpoint of a training: take it away to train anew"
        ) from error
    try:
        training.load_state_dict(weights)
    except RuntimeError as error:
        raise TrainingError(
            f"{path}: is of another network, or of settings that change its weights: take it away "
            "to train anew"
        ) from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without Lightning's talk: what its users should know is told by ours."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextlib.contextmanager
def interrupts() -> Iterator[None]:
    """Lightning ends the process at an interrupt, and leaves later ones ignored."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as error:
        raise KeyboardInterrupt from error
    finally:
        signal.signal(signal.SIGINT, handler)
