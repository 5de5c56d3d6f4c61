"""Tells how far a training is."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl

from .lightning_runs import Progress
from .separator_training import AfterEpoch, EpochRecord, SeparatorTraining

# How much the loss that is told follows that of the last step.
SMOOTHING = 0.05


@dataclass(frozen=True)
class TrainingState(Progress):
    """How far the training of a separator is.

    Attributes
    ----------
    loss
        of the last steps, smoothed
    best_loss
        the best of a validation so far; infinity before the first
    excerpts_per_s
        since this process began, validation included
    left_s
        seconds, if it goes on to its last epoch or minute
    waited_share
        of the time between steps and in them, that went by waiting for data
    finished
        the epoch that has just ended
    """

    loss: float
    best_loss: float
    excerpts_per_s: float
    left_s: float
    waited_share: float
    finished: EpochRecord | None = None


Tell = Callable[[TrainingState], None]


class TellProgress(AfterEpoch):
    """Calls a function after each step and each epoch."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._began_s = time.monotonic()
        self._step_ended_s: float | None = None
        self._waited_s = self._worked_s = 0.0
        self._step_began_s = 0.0
        self._excerpts = 0
        self._progress_before = 0.0
        self._loss: float | None = None

    @property
    def waited_share(self) -> float:
        """Of the time between and in steps, that went by waiting for data."""
        total_s = self._waited_s + self._worked_s
        return self._waited_s / total_s if total_s else 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin to count."""
        assert isinstance(pl_module, SeparatorTraining)
        self._began_s = time.monotonic()
        self._progress_before = pl_module.progress

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The first batch of an epoch comes when its readers have begun: it is not counted."""
        self._step_ended_s = None

    def on_train_batch_start(self, *_arguments: Any) -> None:
        """A batch is there."""
        self._step_began_s = time.monotonic()
        if self._step_ended_s is not None:
            self._waited_s += self._step_began_s - self._step_ended_s

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """A step is done."""
        assert isinstance(pl_module, SeparatorTraining)
        loss = float(outputs["loss"])
        if self._step_ended_s is not None:
            self._worked_s += time.monotonic() - self._step_began_s
        self._excerpts += len(batch) * trainer.world_size
        self._loss = loss if self._loss is None else self._loss + SMOOTHING * (loss - self._loss)
        self._tell(self._state(trainer, pl_module, batch_idx + 1))
        self._step_ended_s = time.monotonic()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """An epoch is done, and summed up."""
        assert isinstance(pl_module, SeparatorTraining)
        batches = int(trainer.num_training_batches)
        self._tell(self._state(trainer, pl_module, batches, pl_module.history[-1]))

    def _state(
        self,
        trainer: pl.Trainer,
        training: SeparatorTraining,
        batch: int,
        finished: EpochRecord | None = None,
    ) -> TrainingState:
        elapsed_s = time.monotonic() - self._began_s
        done = training.progress - self._progress_before
        left_s = elapsed_s * (1 - training.progress) / done if done > 0 else 0.0
        return TrainingState(
            epoch=trainer.current_epoch + 1,
            epochs=training.settings.max_epochs,
            batch=batch,
            batches=int(trainer.num_training_batches),
            loss=self._loss or 0.0,
            best_loss=training.best_loss,
            excerpts_per_s=self._excerpts / elapsed_s if elapsed_s else 0.0,
            left_s=left_s,
            waited_share=self.waited_share,
            finished=finished,
        )
