"""What a training leaves in its folder: checkpoints to go on from, and the best network so far."""

import dataclasses
import hashlib
import io
import json
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch

from ..datasets.excerpts import ExcerptGrid
from ..documents import write_json, write_whole
from ..packages.trained import save_trained
from .excerpt_data import ExcerptData
from .separator_training import AfterEpoch, SeparatorTraining
from .settings import TrainerSettings

CHECKPOINT_FILE = "checkpoint.ckpt"
TRAINER_FILE = "trainer.json"
RECORD_FILE = "training.json"


class KeepTraining(AfterEpoch):
    """Writes the training record and the checkpoint of an epoch, and the network if it is the best.

    Parameters
    ----------
    folder
        of the training
    data
        what it is trained on
    """

    def __init__(self, folder: Path, data: ExcerptData) -> None:
        self._folder = folder
        self._data = data
        self._kept_s = time.monotonic()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_arguments: Any
    ) -> None:
        """Write a checkpoint now and then; at the end of an epoch its own follows."""
        assert isinstance(pl_module, SeparatorTraining)
        if trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            return
        if time.monotonic() - self._kept_s >= 60 * pl_module.settings.checkpoint_minutes:
            self._keep_checkpoint(trainer, pl_module.settings)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write what came of an epoch."""
        assert isinstance(pl_module, SeparatorTraining)
        if trainer.is_global_zero:
            if pl_module.history[-1].is_best:
                save_trained(self._folder, pl_module.judged_model)
            write_json(self._folder / RECORD_FILE, training_record(pl_module, self._data))
        self._keep_checkpoint(trainer, pl_module.settings)

    def _keep_checkpoint(self, trainer: pl.Trainer, settings: TrainerSettings) -> None:
        # All processes take part in putting it together.
        checkpoint = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
        if trainer.is_global_zero:
            write_json(self._folder / TRAINER_FILE, settings.model_dump())
            content = io.BytesIO()
            torch.save(checkpoint, content)
            write_whole(self._folder / CHECKPOINT_FILE, content.getvalue())
        self._kept_s = time.monotonic()


def training_record(training: SeparatorTraining, data: ExcerptData) -> dict[str, Any]:
    """What is known of a training: its data, settings, epochs, and versions."""
    history = [dataclasses.asdict(record) for record in training.history]
    best = min(training.history, key=lambda record: record.validation_loss)
    return {
        "best": dataclasses.asdict(best),
        "epochs": history,
        "minutes": training.spent_s / 60,
        "parameters": sum(each.numel() for each in training.model.parameters()),
        "data": facts_of_data(data),
        "settings": training.settings.model_dump(),
        "versions": {name: version(name) for name in ("beamsplitter", "torch", "lightning")},
    }


def facts_of_data(data: ExcerptData) -> dict[str, Any]:
    """Tracks, excerpts, seconds and a digest of what is trained on and validated by."""
    return {
        "training": _facts_of(data.training_grid, data.training_grid.count),
        "validation": _facts_of(data.validation_grid, len(data.validation_excerpts)),
        "short_tracks": [*data.training_grid.short_tracks, *data.validation_grid.short_tracks],
    }


def _facts_of(grid: ExcerptGrid, excerpts: int) -> dict[str, Any]:
    tracks = grid.tracks
    lengths = [[track.name, track.samples, track.sample_rate] for track in tracks]
    return {
        "tracks": len(tracks),
        "excerpts": excerpts,
        "duration_s": sum(track.samples / track.sample_rate for track in tracks),
        # Of names and lengths: reading all samples would take as long as an epoch.
        "sha256_of_lengths": hashlib.sha256(json.dumps(lengths).encode()).hexdigest(),
    }
