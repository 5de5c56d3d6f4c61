"""What Lightning trains: a network with its losses, its optimiser and its learning rates.

Whatever is random in a step is drawn from (seed, step, rank) alone, and all that a training knows
stands in its checkpoints: one that was stopped and goes on has the losses of one that was not.
"""

import functools
import math
import time
from dataclasses import asdict, dataclass
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.loops.progress import _ProcessedTracker as ProcessedTracker
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from ..networks.mask_model import MaskModel
from .augmentation import augment
from .lightning_runs import TrainingError
from .losses import si_sdr
from .objective import estimates_of, loss_of
from .settings import TrainerSettings

# By how much the learning rates fall at a plateau.
PLATEAU_FACTOR = 0.1
# Lightning calls callbacks of this kind after the module has summed up its epoch, others before.
AfterEpoch = Checkpoint


@dataclass(frozen=True)
class EpochRecord:
    """What came of an epoch.

    Attributes
    ----------
    epoch
        from 1
    step
        optimiser steps so far
    training_loss, validation_loss
        means over the excerpts
    si_sdr_db
        mean over the validation excerpts of each target that is not silent
    learning_rate
        in it
    seconds
        of the epoch, without those of an earlier process
    is_best
        whether no validation loss was lower before
    """

    epoch: int
    step: int
    training_loss: float
    validation_loss: float
    si_sdr_db: dict[str, float]
    learning_rate: float
    seconds: float
    is_best: bool


class SeparatorTraining(pl.LightningModule):
    """The training of a network.

    Parameters
    ----------
    model
        the network
    settings
        how it is trained
    """

    def __init__(self, model: MaskModel, settings: TrainerSettings) -> None:
        super().__init__()
        self.model = model
        self.settings = settings
        self.averaged: AveragedModel | None = None
        if settings.ema_decay:
            average = functools.partial(_move_average, settings.ema_decay)
            self.averaged = AveragedModel(model, multi_avg_fn=average, use_buffers=True)
            self.averaged.requires_grad_(False)
        self.history: list[EpochRecord] = []
        self.best_loss = math.inf
        self.plateaus = 0
        self._epochs_without_better = 0
        self._plateau_loss = math.inf
        self._training_sum = torch.zeros(2, dtype=torch.float64)
        self._validation: list[tuple[int, float, Tensor]] = []
        self._spent_s = 0.0
        self._batches_of_epoch: int | float = 0
        self._started_s = self._epoch_started_s = time.monotonic()

    @property
    def judged_model(self) -> MaskModel:
        """What is validated and kept: the network, or the average of its weights."""
        model = self.model if self.averaged is None else self.averaged.module
        assert isinstance(model, MaskModel)
        return model

    # Optimiser and learning rates

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW, with a group of its own for recurrent layers where they have their own rate."""
        recurrent = {
            id(parameter)
            for module in self.model.modules()
            if isinstance(module, nn.RNNBase)
            for parameter in module.parameters()
        }
        parameters = [each for each in self.model.parameters() if each.requires_grad]
        groups: list[dict[str, Any]] = [
            {"params": [each for each in parameters if id(each) not in recurrent]},
            {
                "params": [each for each in parameters if id(each) in recurrent],
                "lr": self.settings.lr_lstm or self.settings.lr,
            },
        ]
        groups = [group for group in groups if group["params"]]
        optimizer = torch.optim.AdamW(groups, lr=self.settings.lr)
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
        return optimizer

    def _set_learning_rates(self) -> None:
        if self.settings.schedule == "plateau":
            factor = PLATEAU_FACTOR**self.plateaus
        else:
            factor = 0.5 * (1 + math.cos(math.pi * self.progress))
        if self.trainer.global_step < self.settings.warmup_steps:
            factor *= (self.trainer.global_step + 1) / self.settings.warmup_steps
        for group in self._optimizer.param_groups:
            group["lr"] = factor * group["initial_lr"]

    @property
    def _optimizer(self) -> torch.optim.Optimizer:
        optimizer = self.optimizers(use_pl_optimizer=False)
        assert isinstance(optimizer, torch.optim.Optimizer)
        return optimizer

    @property
    def spent_s(self) -> float:
        """Seconds of training, those of earlier processes included."""
        return self._spent_s + time.monotonic() - self._started_s

    @property
    def progress(self) -> float:
        """How much of what it may take is done, from 0 to 1."""
        steps = self.settings.max_epochs * self.trainer.num_training_batches
        done = self.trainer.global_step / max(1, steps)
        if self.settings.max_minutes is not None:
            done = max(done, self.spent_s / (60 * self.settings.max_minutes))
        return min(1.0, done)

    # Training

    def on_train_start(self) -> None:
        """Begin to count the time.

        Raises
        ------
        TrainingError
            it goes on in the middle of an epoch of another length
        """
        batches, (_, done) = self.trainer.num_training_batches, self.position
        if done and batches != self._batches_of_epoch:
            raise TrainingError(
                f"the checkpoint is in the middle of an epoch of {self._batches_of_epoch} batches, "
                f"and there are {batches} now: go on with the data and the settings that it had, "
                "up to the end of the epoch at least"
            )
        self._batches_of_epoch = batches
        self._started_s = self._epoch_started_s = time.monotonic()

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Make what is random in the network, such as dropout, depend on the step alone."""
        torch.manual_seed(self._seed_of_step())
        self._set_learning_rates()

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        """The loss of a batch.

        Parameters
        ----------
        batch
            float32 `(batch, targets + 1, channels, samples)`, which sum to mixtures

        Raises
        ------
        TrainingError
            it is no number
        """
        generator = torch.Generator().manual_seed(self._seed_of_step())
        mixtures, stems = augment(batch, self.settings, generator)
        loss = loss_of(self.model, self.settings, estimates_of(self.model, mixtures), stems[:, :-1])
        value = loss.detach()
        if not torch.isfinite(value):
            raise TrainingError(
                f"the loss was {float(value)} in step {self.trainer.global_step + 1}: try a lower "
                "--lr, or --clip-grad with a lower --max-grad-norm"
            )
        self._training_sum += torch.tensor([float(value) * len(batch), len(batch)]).double()
        return loss

    def optimizer_step(self, *arguments: Any, **options: Any) -> None:
        """Take a step, and let the average of the weights follow."""
        super().optimizer_step(*arguments, **options)
        if self.averaged is not None:
            self.averaged.update_parameters(self.model)

    @property
    def batches_done(self) -> int:
        """Of this process, over all epochs and resumptions."""
        total = self.trainer.fit_loop.epoch_loop.batch_progress.total
        assert isinstance(total, ProcessedTracker)
        return total.processed

    @property
    def position(self) -> tuple[int, int]:
        """The epoch that is to go on, from 0, and how many batches of it are done."""
        loop = self.trainer.fit_loop
        epochs, batches = loop.epoch_progress.current, loop.epoch_loop.batch_progress.current
        assert isinstance(epochs, ProcessedTracker)
        assert isinstance(batches, ProcessedTracker)
        is_over = batches.processed >= self._batches_of_epoch
        return epochs.processed, 0 if is_over else batches.processed

    def _seed_of_step(self) -> int:
        entropy = (self.settings.seed, self.batches_done, self.global_rank)
        return int(np.random.SeedSequence(entropy).generate_state(1)[0])

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Stop when the time is over."""
        if self.settings.max_minutes is not None:
            self.trainer.should_stop |= self.spent_s >= 60 * self.settings.max_minutes

    # Validation

    def on_validation_epoch_start(self) -> None:
        """Begin a validation."""
        self._validation = []

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        """Loss and SI-SDR of a batch."""
        mixtures, targets = batch.sum(dim=1), batch[:, :-1]
        model = self.judged_model
        estimates = estimates_of(model, mixtures)
        loss = float(loss_of(model, self.settings, estimates, targets))
        waveforms = model.waveforms(estimates.stems, targets.shape[-1])
        ratios = si_sdr(waveforms, targets).mean(dim=-1)
        silent = targets.abs().amax(dim=(-2, -1)) == 0
        self._validation.append((len(batch), loss, ratios.masked_fill(silent, math.nan).cpu()))

    def on_train_epoch_end(self) -> None:
        """Sum up the epoch, and see whether it was the best, or ends a plateau."""
        loss, ratios = self._validated()
        training_sum = self._over_ranks(self._training_sum)
        is_best = loss < self.best_loss
        self.best_loss = min(loss, self.best_loss)
        now = time.monotonic()
        record = EpochRecord(
            epoch=len(self.history) + 1,
            step=self.trainer.global_step,
            training_loss=float(training_sum[0] / training_sum[1]),
            validation_loss=loss,
            si_sdr_db=ratios,
            learning_rate=self._optimizer.param_groups[0]["lr"],
            seconds=now - self._epoch_started_s,
            is_best=is_best,
        )
        self._epoch_started_s = now
        self._training_sum = torch.zeros(2, dtype=torch.float64)
        self.history.append(record)
        self._count_plateaus(loss)

    def _validated(self) -> tuple[float, dict[str, float]]:
        counts = torch.tensor([count for count, _, _ in self._validation]).double()
        losses = torch.tensor([loss for _, loss, _ in self._validation]).double()
        ratios = torch.cat([each for _, _, each in self._validation]).double()
        heard = ~ratios.isnan()
        sums = torch.cat(
            [
                torch.stack([(counts * losses).sum(), counts.sum()]),
                ratios.nan_to_num(0).sum(dim=0),
                heard.sum(dim=0).double(),
            ]
        )
        total, count, *rest = self._over_ranks(sums).tolist()
        targets = self.model.settings.targets
        of_targets = zip(targets, rest[: len(targets)], rest[len(targets) :], strict=True)
        return total / count, {name: each / many for name, each, many in of_targets if many}

    def _over_ranks(self, sums: Tensor) -> Tensor:
        """Sums of all processes, which each has in full."""
        if self.trainer.world_size == 1:
            return sums
        # GPUs' own library takes no float64 of the CPU.
        summed = self.trainer.strategy.reduce(sums.to(self.device), reduce_op="sum")
        assert isinstance(summed, Tensor)
        return summed.cpu()

    def _count_plateaus(self, loss: float) -> None:
        if loss < self._plateau_loss - self.settings.min_delta:
            self._plateau_loss = loss
            self._epochs_without_better = 0
            return
        self._epochs_without_better += 1
        if self._epochs_without_better >= self.settings.stop_patience:
            self._epochs_without_better = 0
            self.plateaus += 1
            self.trainer.should_stop |= self.plateaus >= self.settings.max_plateaus

    # Checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what this object knows beside weights and optimiser."""
        checkpoint["separator_training"] = {
            "history": [asdict(record) for record in self.history],
            "best_loss": self.best_loss,
            "plateaus": self.plateaus,
            "epochs_without_better": self._epochs_without_better,
            "plateau_loss": self._plateau_loss,
            "training_sum": self._training_sum,
            "spent_s": self.spent_s,
            "batches_of_epoch": self._batches_of_epoch,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take it up again."""
        state = checkpoint["separator_training"]
        self.history = [EpochRecord(**record) for record in state["history"]]
        self.best_loss = state["best_loss"]
        self.plateaus = state["plateaus"]
        self._epochs_without_better = state["epochs_without_better"]
        self._plateau_loss = state["plateau_loss"]
        self._training_sum = state["training_sum"]
        self._spent_s = state["spent_s"]
        self._batches_of_epoch = state["batches_of_epoch"]


def _move_average(
    decay: float, averages: list[Tensor], weights: list[Tensor], steps: Tensor | int
) -> None:
    """Move averages towards weights, at first more than later: the first weights are random."""
    if averages[0].is_floating_point():
        share = 1 - min(decay, (1 + int(steps)) / (10 + int(steps)))
        torch._foreach_lerp_(averages, weights, share)
    else:
        torch._foreach_copy_(averages, weights)  # counts, of batch norms
