"""Training a separator: from a folder with the description of a network to one with its weights."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.plugins import MixedPrecision
from lightning_utilities.core.rank_zero import rank_zero_only
from torch.utils.tensorboard import SummaryWriter

from ..datasets.stem_folders import ExcerptError
from ..networks.by_settings import make_model
from ..packages.trained import read_network
from .excerpt_data import ExcerptData
from .keeping import (
    CHECKPOINT_FILE,
    RECORD_FILE,
    TRAINER_FILE,
    KeepTraining,
    facts_of_data,
    training_record,
)
from .lightning_runs import (
    STRATEGIES,
    Devices,
    TrainingError,
    interrupts,
    make_trainer,
    quiet,
    require_checkpoint,
)
from .observing import Observe
from .separator_training import SeparatorTraining
from .settings import TrainerSettings, trainer_settings
from .telling import Tell, TellProgress

RUNS_FOLDER = "runs"


@dataclass(frozen=True)
class TrainingPlan:
    """What is about to be trained, before anything is."""

    folder: Path
    settings: TrainerSettings
    data: ExcerptData
    training: SeparatorTraining
    devices: Devices = field(default_factory=Devices)
    resumes: bool = False

    @property
    def data_has_changed(self) -> bool:
        """Whether it goes on with other data than it had."""
        try:
            known = json.loads((self.folder / RECORD_FILE).read_text("utf-8"))["data"]
        except (OSError, ValueError, KeyError):
            return False
        return self.resumes and known != facts_of_data(self.data)

    @property
    def is_first(self) -> bool:
        """Whether this process is the first, or only one: it writes and tells."""
        return not getattr(rank_zero_only, "rank", 0)


def plan_training(
    folder: Path,
    data_folder: Path,
    values: Mapping[str, object],
    *,
    resume: bool = False,
    devices: Devices | None = None,
) -> TrainingPlan:
    """See whether all is there that a training needs; nothing is written.

    Parameters
    ----------
    folder
        with `model.json`
    data_folder
        see `ExcerptData`
    values
        settings that differ from those of the folder's `trainer.json`, if it resumes, else from the
        defaults
    resume
        whether to go on from the folder's checkpoint, if there is one

    Raises
    ------
    BeamsplitterError
        it can't be trained
    """
    network = read_network(folder, str(folder))
    resumes = (folder / CHECKPOINT_FILE).exists()
    if resumes and not resume:
        raise TrainingError(
            f"{folder}: holds a training already: --resume goes on with it; or make another folder "
            "by `beamsplitter config`"
        )
    if (devices or Devices()).strategy not in STRATEGIES:
        raise TrainingError(f"--strategy: is one of {', '.join(STRATEGIES)}")
    kept = _kept_settings(folder) if resumes else {}
    try:
        settings = trainer_settings(network, {**kept, **values})
    except ValueError as error:
        raise TrainingError(str(error)) from error
    data = ExcerptData(data_folder, network, settings)
    torch.manual_seed(settings.seed)
    training = SeparatorTraining(make_model(network), settings)
    if resumes:
        require_checkpoint(folder / CHECKPOINT_FILE, training)
    return TrainingPlan(folder, settings, data, training, devices or Devices(), resumes)


def _kept_settings(folder: Path) -> dict[str, Any]:
    try:
        values = json.loads((folder / TRAINER_FILE).read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise TrainingError(f"{folder / TRAINER_FILE} is no JSON: {error}") from error
    return dict(values)


def run_training(plan: TrainingPlan, tell: Tell) -> dict[str, Any]:
    """Train, and leave the best network in the folder.

    Returns
    -------
    The training record, see `keeping.training_record`

    Raises
    ------
    BeamsplitterError
        the data can't be read, or the loss is no number
    KeyboardInterrupt
        it was interrupted; a training that resumes goes on from the last checkpoint
    """
    folder, settings = plan.folder, plan.settings
    progress = TellProgress(tell)
    writer = None
    if settings.tensorboard and plan.is_first:
        writer = SummaryWriter(settings.logging_dir or folder / RUNS_FOLDER)
    images = Path(settings.image_dir) if settings.image_dir and plan.is_first else None
    callbacks: list[pl.Callback] = [
        progress,
        Observe(settings, writer, images),
        KeepTraining(folder, plan.data),
    ]
    with quiet():
        trainer = _trainer(plan, callbacks)
        checkpoint = folder / CHECKPOINT_FILE if plan.resumes else None
        try:
            with interrupts():
                trainer.fit(
                    plan.training, datamodule=plan.data, ckpt_path=checkpoint, weights_only=True
                )
        except ExcerptError as error:
            # A reading process hands on its trace in the message.
            reason = str(error).rpartition(f"{ExcerptError.__name__}: ")[2].strip()
            raise TrainingError(f"{reason}; `beamsplitter dataset check` finds all such") from error
        finally:
            if writer:
                writer.close()
    record = training_record(plan.training, plan.data)
    return {**record, "waited_share": progress.waited_share}


def _trainer(plan: TrainingPlan, callbacks: list[pl.Callback]) -> pl.Trainer:
    settings = plan.settings
    return make_trainer(
        plan.devices,
        callbacks,
        max_epochs=settings.max_epochs,
        max_grad_norm=settings.max_grad_norm if settings.clip_grad else None,
        **_precision(settings),
    )


def _precision(settings: TrainerSettings) -> dict[str, Any]:
    """bfloat16, which needs no scaling; or float16 with scaled gradients, which GPUs can do."""
    if not settings.use_amp:
        return {"precision": "32-true"}
    if not settings.scale_grad:
        return {"precision": "bf16-mixed"}
    if not torch.cuda.is_available():
        raise TrainingError(
            "--scale-grad: is for float16 on a CUDA GPU, and there is none: leave it out, and "
            "--use-amp takes bfloat16"
        )
    scaler = torch.amp.GradScaler("cuda", init_scale=settings.init_scale)
    return {"plugins": [MixedPrecision("16-mixed", "cuda", scaler)]}
