"""What Lightning trains: a classifier with its loss, its optimiser, and when it is at its best."""

import math
import time
from dataclasses import asdict, dataclass
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from .errors import ClassifierError
from .excerpt_data import Batch
from .figures import balanced_accuracy
from .sequence_classifier import SequenceClassifier
from .settings import ClassifierSettings


@dataclass(frozen=True)
class EpochRecord:
    """What came of an epoch.

    Attributes
    ----------
    epoch
        from 1
    training_loss, validation_loss
        weighted means over the excerpts
    balanced_accuracy
        of the validation's excerpts
    seconds
        of the epoch
    is_best
        whether the validation was better than all before
    """

    epoch: int
    training_loss: float
    validation_loss: float
    balanced_accuracy: float
    seconds: float
    is_best: bool


class ClassifierTraining(pl.LightningModule):
    """The training of a classifier.

    Parameters
    ----------
    model
        the network
    settings
        how it is trained
    training_targets
        float32 `(excerpts, labels)` of all that it is trained on: how labels are weighted
    multi_label
        whether excerpts may have several labels
    """

    label_weights: Tensor

    def __init__(
        self,
        model: SequenceClassifier,
        settings: ClassifierSettings,
        training_targets: np.ndarray,
        *,
        multi_label: bool,
    ) -> None:
        super().__init__()
        self.model = model
        self.settings = settings
        self.multi_label = multi_label
        weights = label_weights(training_targets, multi_label=multi_label)
        if settings.class_weights == "none":
            weights = np.ones_like(weights)
        self.register_buffer("label_weights", torch.from_numpy(weights), persistent=False)
        self.history: list[EpochRecord] = []
        self._best = -math.inf
        self._epochs_without_better = 0
        self._training_sums = torch.zeros(2, dtype=torch.float64)
        self._validation: list[tuple[Tensor, Tensor]] = []
        self._began_s = time.monotonic()

    @property
    def best(self) -> EpochRecord:
        """The epoch with the best validation."""
        return [each for each in self.history if each.is_best][-1]

    @property
    def is_over(self) -> bool:
        """Whether it has gone on for long enough without a better validation."""
        return self._epochs_without_better >= self.settings.patience

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW."""
        parameters = [each for each in self.model.parameters() if each.requires_grad]
        return torch.optim.AdamW(
            parameters, lr=self.settings.lr, weight_decay=self.settings.weight_decay
        )

    def probabilities(self, logits: Tensor) -> Tensor:
        """`(batch, labels)`: they sum to 1, or are of each label by itself."""
        return torch.sigmoid(logits) if self.multi_label else torch.softmax(logits, dim=1)

    def losses(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The weighted loss of each excerpt, and the weights that these are to be divided by."""
        if self.multi_label:
            of_labels = functional.binary_cross_entropy_with_logits(
                logits, targets, pos_weight=self.label_weights, reduction="none"
            )
            losses = of_labels.mean(dim=1)
            return losses, torch.ones_like(losses)
        places = targets.argmax(dim=1)
        losses = functional.cross_entropy(
            logits, places, weight=self.label_weights, reduction="none"
        )
        return losses, self.label_weights[places]

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Make what is random in the network depend on the step alone."""
        step = np.random.SeedSequence((self.settings.seed, self.trainer.global_step))
        torch.manual_seed(int(step.generate_state(1)[0]))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of a batch.

        Raises
        ------
        ClassifierError
            it is no number
        """
        losses, weights = self.losses(self.model(batch.frames, batch.lengths), batch.targets)
        sums = torch.stack([losses.sum(), weights.sum()])
        loss: Tensor = sums[0] / sums[1]
        value = float(loss.detach())
        if not math.isfinite(value):
            raise ClassifierError(
                f"the loss was {value} in step {self.trainer.global_step + 1}: try a lower "
                "--lr or --max-grad-norm"
            )
        self._training_sums += sums.detach().cpu().double()
        return loss

    def on_validation_epoch_start(self) -> None:
        """Begin a validation."""
        self._validation = []

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Scores of a batch."""
        self._validation.append((self.model(batch.frames, batch.lengths), batch.targets))

    def on_train_epoch_end(self) -> None:
        """Sum up the epoch, and see whether it was the best, or it has been enough."""
        logits, targets = (torch.cat(each) for each in zip(*self._validation, strict=True))
        losses, weights = self.losses(logits, targets)
        loss = float(losses.sum() / weights.sum())
        accuracy = balanced_accuracy(
            targets.cpu().numpy(),
            self.probabilities(logits).float().cpu().numpy(),
            multi_label=self.multi_label,
        )
        value = -loss if self.settings.monitor == "loss" else accuracy
        is_best = value > self._best
        self._best = max(value, self._best)
        self._epochs_without_better = 0 if is_best else self._epochs_without_better + 1
        now = time.monotonic()
        self.history.append(
            EpochRecord(
                epoch=len(self.history) + 1,
                training_loss=float(self._training_sums[0] / self._training_sums[1]),
                validation_loss=loss,
                balanced_accuracy=accuracy,
                seconds=now - self._began_s,
                is_best=is_best,
            )
        )
        self._began_s = now
        self._training_sums = torch.zeros(2, dtype=torch.float64)
        self.trainer.should_stop |= self.is_over

    def on_train_start(self) -> None:
        """Begin to count the time."""
        self._began_s = time.monotonic()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what this object knows beside weights and optimiser."""
        checkpoint["classifier_training"] = {
            "history": [asdict(record) for record in self.history],
            "best": self._best,
            "epochs_without_better": self._epochs_without_better,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take it up again."""
        state = checkpoint["classifier_training"]
        self.history = [EpochRecord(**record) for record in state["history"]]
        self._best = state["best"]
        self._epochs_without_better = state["epochs_without_better"]


def label_weights(targets: np.ndarray, *, multi_label: bool) -> np.ndarray:
    """Weights by which rare labels count as much as frequent ones.

    Parameters
    ----------
    targets
        `(excerpts, labels)`, in which each label is at least once
    multi_label
        of one label each: excerpts of all labels have the same weight together, 1 on the mean. Of
        several labels at once: those that have a label have the weight of those that do not

    Returns
    -------
    float32 `(labels,)`
    """
    have = targets.sum(axis=0)
    if multi_label:
        # Where all have it there is nothing to weigh up.
        return np.where(have < len(targets), (len(targets) - have) / have, 1).astype(np.float32)
    return (len(targets) / (targets.shape[1] * have)).astype(np.float32)
