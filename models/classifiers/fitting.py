"""Training a classifier: from features and labels to a folder with its weights and its report."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..documents import write_json, write_whole
from ..training.keeping import CHECKPOINT_FILE, RECORD_FILE, TRAINER_FILE
from ..training.lightning_runs import (
    Devices,
    interrupts,
    make_trainer,
    quiet,
    require_checkpoint,
)
from .classifier_training import ClassifierTraining
from .errors import ClassifierError
from .excerpt_data import Batch, ClassifierData
from .excerpts import ExcerptSource
from .keeping import SPLIT_FILE, KeepClassifier, Tell, facts_of_data, split_text
from .label_table import LabelTable, Split, read_label_table
from .report import Report, SideResult, make_report, report_files
from .sequence_classifier import SequenceClassifier
from .settings import ClassifierSettings, classifier_settings
from .splitting import split_recordings
from .trained_classifier import (
    ClassifierDescription,
    load_classifier,
)


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
    try:
        sides = split_recordings(
            table.recordings,
            validation_share=settings.validation_share,
            test_share=settings.test_share,
            seed=settings.seed,
        )
    except ClassifierError as error:
        raise ClassifierError(f"{labels}: {error}") from error
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
        keep = KeepClassifier(folder, data, _description(data, settings, plan.signal), tell)
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
    # Those of a training that goes on are in its checkpoint.
    normal = np.zeros(data.bins, np.float32), np.ones(data.bins, np.float32)
    mean, deviation = map(torch.from_numpy, normal if plan.resumes else data.normalisation())
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


def _description(
    data: ClassifierData, settings: ClassifierSettings, signal: str
) -> ClassifierDescription:
    excerpts = data.source.excerpts
    return ClassifierDescription(
        labels=data.table.classes,
        multi_label=data.table.is_multi_label,
        features=data.source.settings.model_dump(mode="json"),
        signal=signal,
        bins=data.bins,
        excerpt_s=float(
            np.median([excerpts[place].duration_s for place in data.sides["train"].places])
        ),
        network=settings.network,
    )


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
