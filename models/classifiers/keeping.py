"""What a training leaves in its folder, and tells while it goes on."""

import csv
import dataclasses
import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from torch.utils.tensorboard import SummaryWriter

from ..documents import write_json
from ..training.keeping import CHECKPOINT_FILE, RECORD_FILE
from ..training.lightning_runs import Progress
from ..training.separator_training import AfterEpoch
from .classifier_training import ClassifierTraining, EpochRecord
from .excerpt_data import ClassifierData
from .splitting import Sides
from .trained_classifier import ClassifierDescription, save_classifier

RUNS_FOLDER = "runs"
# The split as a table of labels: given as one, it makes the same split again.
SPLIT_FILE = "split.csv"


@dataclass(frozen=True)
class TrainingState(Progress):
    """How far the training of a classifier is.

    Attributes
    ----------
    finished
        the epoch that has just ended
    """

    finished: EpochRecord | None = None


Tell = Callable[[TrainingState], None]


class KeepClassifier(AfterEpoch):
    """Writes record and checkpoint of an epoch, and the network if it is the best; and tells.

    Parameters
    ----------
    folder
        of the classifier
    data
        what it is trained on
    description
        of the network
    tell
        called after each step and each epoch
    """

    def __init__(
        self, folder: Path, data: ClassifierData, description: ClassifierDescription, tell: Tell
    ) -> None:
        self._folder = folder
        self._data = data
        self._description = description
        self._tell = tell
        self._writer: SummaryWriter | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin to write for TensorBoard."""
        assert isinstance(pl_module, ClassifierTraining)
        if pl_module.settings.tensorboard:
            self._writer = SummaryWriter(self._folder / RUNS_FOLDER)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """A step is done."""
        self._tell(self._state(trainer, pl_module, batch_idx + 1))

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """An epoch is done, and summed up."""
        assert isinstance(pl_module, ClassifierTraining)
        folder, record = self._folder, pl_module.history[-1]
        if record.is_best:
            save_classifier(folder, pl_module.model, self._description)
        write_json(folder / RECORD_FILE, training_record(pl_module, self._data))
        partial = folder / f".{CHECKPOINT_FILE}.partial"
        trainer.save_checkpoint(partial)
        partial.replace(folder / CHECKPOINT_FILE)
        if self._writer:
            for name in ("training_loss", "validation_loss", "balanced_accuracy"):
                self._writer.add_scalar(name, getattr(record, name), record.epoch)
            self._writer.flush()
        batches = int(trainer.num_training_batches)
        self._tell(self._state(trainer, pl_module, batches, record))

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """No more is written."""
        if self._writer:
            self._writer.close()

    def _state(
        self,
        trainer: pl.Trainer,
        training: pl.LightningModule,
        batch: int,
        finished: EpochRecord | None = None,
    ) -> TrainingState:
        assert isinstance(training, ClassifierTraining)
        return TrainingState(
            epoch=finished.epoch if finished else len(training.history) + 1,
            epochs=training.settings.max_epochs,
            batch=batch,
            batches=int(trainer.num_training_batches),
            finished=finished,
        )


def training_record(training: ClassifierTraining, data: ClassifierData) -> dict[str, Any]:
    """What is known of a training: its data, settings, epochs, and versions."""
    epochs = [dataclasses.asdict(record) for record in training.history]
    return {
        "best": dataclasses.asdict(training.best),
        "epochs": epochs,
        "minutes": sum(each["seconds"] for each in epochs) / 60,
        "parameters": sum(each.numel() for each in training.model.parameters()),
        "features": data.source.name,
        "data": facts_of_data(data),
        "settings": training.settings.model_dump(mode="json"),
        "versions": {
            name: version(name) for name in ("beamsplitter", "torch", "lightning", "scikit-learn")
        },
    }


def facts_of_data(data: ClassifierData) -> dict[str, Any]:
    """Digests of features, labels and split, and how much is on each side."""
    return {
        "features_sha256": data.source.digest,
        "labels_sha256": data.table.sha256,
        "split_sha256": hashlib.sha256(split_text(data.recordings).encode()).hexdigest(),
        "sides": {
            name: {
                "excerpts": len(side.places),
                "recordings": len(data.recordings[name]),
                "of_labels": {
                    label: int(count)
                    for label, count in zip(
                        data.table.classes, side.targets.sum(axis=0), strict=True
                    )
                },
            }
            for name, side in data.sides.items()
        },
        "unlabelled": len(data.table.unlabelled),
        "missing": len(data.table.missing),
    }


def split_text(sides: Sides) -> str:
    """The sides of all recordings as a table of labels."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("element", "label", "group", "split"))
    for name, recordings in sides.items():
        for each in recordings:
            for label in each.labels:
                writer.writerow((each.recording, label, each.group, name))
    return text.getvalue()
