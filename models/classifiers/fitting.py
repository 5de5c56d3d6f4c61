"""Training a classifier: from features and labels to a folder with its weights and its report."""

import csv
import dataclasses
import hashlib
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch.utils.tensorboard import SummaryWriter

from ..packages.trained import write_json, write_whole
from ..training.keeping import CHECKPOINT_FILE, RECORD_FILE, TRAINER_FILE
from ..training.lightning_runs import (
    Devices,
    interrupts,
    make_trainer,
    quiet,
    require_checkpoint,
)
from ..training.separator_training import AfterEpoch
from .classifier_training import ClassifierTraining, EpochRecord
from .errors import ClassifierError
from .excerpt_data import Batch, ClassifierData
from .excerpts import ExcerptSource
from .label_table import LabelTable, Split, read_label_table
from .report import Report, SideResult, make_report, report_files
from .sequence_classifier import SequenceClassifier
from .settings import ClassifierSettings, classifier_settings
from .splitting import Sides, split_recordings
from .trained_classifier import (
    ClassifierDescription,
    load_classifier,
    save_classifier,
)

RUNS_FOLDER = "runs"
# The split as a table of labels: given as one, it makes the same split again.
SPLIT_FILE = "split.csv"


@dataclass(frozen=True)
class TrainingState:
    """How far a training is.

    Attributes
    ----------
    epoch, epochs
        the one under way, from 1, and how many there are at most
    batch, batches
        of the epoch
    finished
        the epoch that has just ended
    """

    epoch: int
    epochs: int
    batch: int
    batches: int
    finished: EpochRecord | None = None


Tell = Callable[[TrainingState], None]


@dataclass(frozen=True)
class ClassifierPlan:
    """What is about to be trained, before anything is.

    Attributes
    ----------
    folder
        of the classifier
    signal
        that the features are of: "mixture", or a stem
    """

    folder: Path
    settings: ClassifierSettings
    data: ClassifierData
    signal: str = "mixture"
    accelerator: str = "auto"
    resumes: bool = False

    @property
    def table(self) -> LabelTable:
        """The labels."""
        return self.data.table


def plan_classifier(
    folder: Path,
    source: ExcerptSource,
    labels: Path,
    values: Mapping[str, object],
    *,
    signal: str = "mixture",
    accelerator: str = "auto",
    resume: bool = False,
    allow_missing: bool = False,
) -> ClassifierPlan:
    """See whether all is there that a training needs; nothing is written.

    Parameters
    ----------
    folder
        of the classifier, made if it is not there
    source
        of the features
    labels
        the table, see `label_table`
    values
        settings that differ from those of the folder's `trainer.json`, if it resumes, else from the
        defaults
    signal
        that the features are of
    accelerator
        "auto", "cpu", "gpu", "mps", as Lightning calls it
    resume
        whether to go on from the folder's checkpoint, if there is one
    allow_missing
        see `read_label_table`

    Raises
    ------
    BeamsplitterError
        it can't be trained
    """
    resumes = (folder / CHECKPOINT_FILE).exists()
    if resumes and not resume:
        raise ClassifierError(
            f"{folder}: holds a training already: --resume goes on with it; or name another folder"
        )
    kept = _read_json(folder / TRAINER_FILE) if resumes else {}
    try:
        settings = classifier_settings({**kept, **values})
    except ValueError as error:
        raise ClassifierError(str(error)) from error
    if not source.excerpts:
        raise ClassifierError(f"{source.name}: holds no features")
    table = read_label_table(labels, source.excerpts, allow_missing=allow_missing)
    sides = split_recordings(
        table.recordings,
        validation_share=settings.validation_share,
        test_share=settings.test_share,
        seed=settings.seed,
    )
    data = ClassifierData(source, table, sides, settings)
    if resumes and _read_json(folder / RECORD_FILE).get("data") != facts_of_data(data):
        # Else it might be tested on what it was trained on.
        raise ClassifierError(
            f"{folder}: its training was on other features, labels or sides of the split than "
            "these: go on with those, or name another folder"
        )
    return ClassifierPlan(folder, settings, data, signal, accelerator, resumes)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text("utf-8")))
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError) as error:
        raise ClassifierError(f"{path}: is no JSON object: {error}") from error


def run_training(plan: ClassifierPlan, tell: Tell) -> tuple[dict[str, Any], Report]:
    """Train, and leave the best network in the folder, with its report.

    Returns
    -------
    The training record, see `training_record`, and the report of the best network

    Raises
    ------
    BeamsplitterError
        features can't be read, or the loss is no number
    KeyboardInterrupt
        it was interrupted; a training that resumes goes on from the last checkpoint
    """
    folder, settings, data = plan.folder, plan.settings, plan.data
    try:
        training = _made_training(plan)
        if plan.resumes:
            require_checkpoint(folder / CHECKPOINT_FILE, training)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / TRAINER_FILE, settings.model_dump(mode="json"))
        write_whole(folder / SPLIT_FILE, split_text(data.recordings).encode())
        keep = KeepClassifier(plan, _description(plan), tell)
        with quiet():
            trainer = make_trainer(
                Devices(plan.accelerator, "1"),
                [keep],
                max_epochs=settings.max_epochs,
                max_grad_norm=settings.max_grad_norm,
            )
            if not (plan.resumes and _is_done(plan)):
                with interrupts():
                    trainer.fit(
                        training,
                        datamodule=data,
                        ckpt_path=folder / CHECKPOINT_FILE if plan.resumes else None,
                        weights_only=True,
                    )
            best = load_classifier(folder)
            report = _report(plan, training, best.to(trainer.strategy.root_device))
    except ClassifierError as error:
        # A reading process hands on its trace in the message.
        raise ClassifierError(str(error).rpartition("ClassifierError: ")[2].strip()) from error
    for name, content in report_files(report):
        (folder / name).parent.mkdir(exist_ok=True)
        write_whole(folder / name, content)
    return _read_json(folder / RECORD_FILE), report


def _is_done(plan: ClassifierPlan) -> bool:
    """Whether the training that is to go on had come to its end."""
    epochs = _read_json(plan.folder / RECORD_FILE)["epochs"]
    since_best = next(number for number, each in enumerate(reversed(epochs)) if each["is_best"])
    return len(epochs) >= plan.settings.max_epochs or since_best >= plan.settings.patience


def _made_training(plan: ClassifierPlan) -> ClassifierTraining:
    data, settings = plan.data, plan.settings
    mean, deviation = map(torch.from_numpy, data.normalisation())
    torch.manual_seed(settings.seed)
    model = SequenceClassifier(
        settings.network, data.bins, len(data.table.classes), mean, deviation
    )
    training = ClassifierTraining(
        model,
        settings,
        data.sides["train"].targets,
        multi_label=data.table.is_multi_label,
    )
    data.epoch = lambda: len(training.history)
    return training


def _description(plan: ClassifierPlan) -> ClassifierDescription:
    data = plan.data
    excerpts = data.source.excerpts
    return ClassifierDescription(
        labels=data.table.classes,
        multi_label=data.table.is_multi_label,
        features=data.source.settings.model_dump(mode="json"),
        signal=plan.signal,
        bins=data.bins,
        excerpt_s=float(
            np.median([excerpts[place].duration_s for place in data.sides["train"].places])
        ),
        network=plan.settings.network,
    )


class KeepClassifier(AfterEpoch):
    """Writes record and checkpoint of an epoch, and the network if it is the best; and tells."""

    def __init__(
        self, plan: ClassifierPlan, description: ClassifierDescription, tell: Tell
    ) -> None:
        self._plan = plan
        self._description = description
        self._tell = tell
        self._writer: SummaryWriter | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin to write for TensorBoard."""
        if self._plan.settings.tensorboard:
            self._writer = SummaryWriter(self._plan.folder / RUNS_FOLDER)

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
        folder, record = self._plan.folder, pl_module.history[-1]
        if record.is_best:
            save_classifier(folder, pl_module.model, self._description)
        write_json(folder / RECORD_FILE, training_record(pl_module, self._plan.data))
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


def _report(
    plan: ClassifierPlan, training: ClassifierTraining, model: SequenceClassifier
) -> Report:
    data = plan.data
    of_training = data.sides["train"]
    nothing = np.zeros_like(of_training.targets)
    results: dict[Split, SideResult] = {}
    for name in ("validation", "test"):
        side = data.sides[name]
        if side.places:
            found = _probabilities(training, model, data, name)
            results[name] = SideResult(side.recordings, side.targets, found)
    return make_report(
        data.table.classes,
        SideResult(of_training.recordings, of_training.targets, nothing),
        results,
        multi_label=data.table.is_multi_label,
    )


def _probabilities(
    training: ClassifierTraining,
    model: SequenceClassifier,
    data: ClassifierData,
    side: Split,
) -> np.ndarray:
    """Of all excerpts of a side: float32 `(excerpts, labels)`."""
    device = model.mean.device
    found = []
    with torch.inference_mode():
        for batch in data.batches_of(side):
            assert isinstance(batch, Batch)
            logits = model(batch.frames.to(device), batch.lengths.to(device))
            found.append(training.probabilities(logits).cpu().numpy())
    return np.concatenate(found)
