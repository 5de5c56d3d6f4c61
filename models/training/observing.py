"""What can be seen and heard of a training while it goes on: TensorBoard, and pictures in files."""

import io
import re
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from .pictures import spectrogram_picture, waveform_picture
from .separator_training import AfterEpoch, SeparatorTraining
from .settings import TrainerSettings

# Excerpts of which the one is shown whose quietest row is the loudest.
LOOKED_AT = 8


class Observe(AfterEpoch):
    """Losses, weights, gradients, spectrograms, waveforms and sounds, as the settings ask for.

    Parameters
    ----------
    settings
        of the training
    writer
        of TensorBoard; None: none
    image_folder
        of pictures in files; None: none
    """

    def __init__(
        self, settings: TrainerSettings, writer: SummaryWriter | None, image_folder: Path | None
    ) -> None:
        self._settings = settings
        self._writer = writer
        self._image_folder = image_folder
        self._shown: Tensor | None = None

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        *_arguments: Any,
    ) -> None:
        """Write the loss of a step."""
        if self._writer and self._settings.view_iter:
            loss = float(outputs["loss"])
            self._writer.add_scalar("loss/iter", loss, trainer.global_step)

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, _optimizer: Any
    ) -> None:
        """Write weights and gradients of the last step of an epoch, when these are unscaled."""
        settings, writer = self._settings, self._writer
        progress = trainer.fit_loop.epoch_loop.batch_progress
        if writer is None or progress.current.ready < trainer.num_training_batches:
            return
        step = trainer.current_epoch + 1
        assert isinstance(pl_module, SeparatorTraining)
        for name, parameter in pl_module.model.network.named_parameters():
            if settings.view_weights:
                writer.add_histogram(name, parameter.detach().cpu(), step)
            if settings.view_norm:
                writer.add_scalar(f"norm/{name}", float(parameter.detach().norm()), step)
            if parameter.grad is None:
                continue
            if settings.view_grad:
                writer.add_histogram(f"{name}_grad", parameter.grad.cpu(), step)
            if settings.view_norm:
                writer.add_scalar(f"norm/{name}_grad", float(parameter.grad.norm()), step)

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Tensor,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Choose an excerpt to show."""
        if batch_idx == 0:
            levels = batch[:LOOKED_AT].square().mean(dim=(-2, -1)).amin(dim=1)
            self._shown = batch[int(levels.argmax())]

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write what came of an epoch."""
        assert isinstance(pl_module, SeparatorTraining)
        record = pl_module.history[-1]
        if self._writer and self._settings.view_epoch:
            losses = {"training": record.training_loss, "validation": record.validation_loss}
            for name, value in losses.items():
                self._writer.add_scalar(f"loss/epoch/{name}", value, record.epoch)
            for target, value in record.si_sdr_db.items():
                self._writer.add_scalar(f"si_sdr_db/{target}", value, record.epoch)
            self._writer.add_scalar("learning_rate", record.learning_rate, record.epoch)
        if record.epoch % self._settings.image_freq == 0 and self._shown is not None:
            self._show_stems(pl_module, self._shown, record.epoch)
        if self._writer:
            self._writer.flush()

    def _show_stems(self, training: SeparatorTraining, stems: Tensor, epoch: int) -> None:
        model = training.judged_model
        mixture = stems.sum(dim=0)
        was_training = model.training
        with torch.inference_mode():
            made = model.eval()(mixture[None])[0]
        model.train(was_training)
        rate = model.settings.sample_rate
        for name, estimate, true in zip(
            model.settings.targets, _plain(made), _plain(stems), strict=False
        ):
            self._show_stem(name, estimate, true, _plain(mixture), rate, epoch)

    def _show_stem(
        self,
        name: str,
        estimate: np.ndarray,
        true: np.ndarray,
        mixture: np.ndarray,
        rate: int,
        epoch: int,
    ) -> None:
        settings, writer = self._settings, self._writer
        title = f"{name}, epoch {epoch}"
        if settings.view_spec or self._image_folder:
            signals = {"mixture": mixture, "estimate": estimate, "true": true}
            self._show_picture(
                "spectrogram", name, spectrogram_picture(signals, rate, title), epoch
            )
        if settings.view_wave or self._image_folder:
            picture = waveform_picture(estimate, true, rate, title)
            self._show_picture("waveform", name, picture, epoch)
        if writer and settings.play_estimate:
            self._play(f"{name}/estimate", estimate, rate, epoch)
            self._play(f"{name}/true", true, rate, epoch)
        if writer and settings.play_residual:
            self._play(f"{name}/residual/estimate", mixture - estimate, rate, epoch)
            self._play(f"{name}/residual/true", mixture - true, rate, epoch)

    def _show_picture(self, kind: str, name: str, picture: bytes, epoch: int) -> None:
        wanted = {"spectrogram": self._settings.view_spec, "waveform": self._settings.view_wave}
        if self._writer and wanted[kind]:
            self._writer.add_image(f"{kind}/{name}", _pixels(picture), epoch, dataformats="HWC")
        if self._image_folder:
            folder = self._image_folder / kind
            folder.mkdir(parents=True, exist_ok=True)
            plain = re.sub(r"[^\w.-]", "-", name).lstrip(".")
            (folder / f"{plain}_{epoch:04d}.png").write_bytes(picture)

    def _play(self, tag: str, samples: np.ndarray, rate: int, epoch: int) -> None:
        assert self._writer is not None
        # TensorBoard plays mono.
        self._writer.add_audio(tag, samples.mean(axis=0).clip(-1, 1), epoch, sample_rate=rate)


def _plain(signals: Tensor) -> np.ndarray:
    return np.asarray(signals.detach().float().cpu().numpy())


def _pixels(picture: bytes) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"))
