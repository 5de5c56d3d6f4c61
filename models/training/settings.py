"""How a network is trained: the file `trainer.json` of a training.

Options are called as Auralflow calls them; those that it has not stand below their own headings.
"""

import os
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ...validation import problems_of
from ..datasets.excerpts import Strategy
from ..networks.settings import NetworkSettings

Criterion = Literal[
    "si_sdr", "l1", "l2", "rmse", "mask", "component", "kl_div", "multi_resolution_stft"
]
MOST_WORKERS = 8


class LossSettings(BaseModel):
    """What is made small"""

    criterion: Criterion = Field("si_sdr", description="the loss")
    construction_loss: Literal["l1", "l2"] = Field("l2", description="inside of kl_div and mask")
    reduction: Literal["mean", "sum"] = Field("mean", description="of l1 and l2")
    best_perm: bool = Field(
        False, description="the best order of the targets counts; stems then have no names"
    )
    alpha: float = Field(0.2, ge=0, description="of component: weight of what is left of the rest")
    beta: float = Field(0.8, ge=0, description="of component: weight of how that sounds")


class OptimizerSettings(BaseModel):
    """How, and how long"""

    lr: float = Field(0.01, gt=0, description="learning rate")
    lr_lstm: float | None = Field(
        None, gt=0, description="learning rate of recurrent layers; default that of all"
    )
    batch_size: int = Field(32, ge=1, description="excerpts in a step")
    max_epochs: int = Field(100, ge=1, description="most epochs")
    max_minutes: float | None = Field(None, gt=0, description="most minutes")
    max_plateaus: int = Field(5, ge=1, description="plateaus after which it ends")
    stop_patience: int = Field(
        5, ge=1, description="epochs without a better loss that make a plateau"
    )
    min_delta: float = Field(0.01, ge=0, description="by how much a loss has to be better")
    schedule: Literal["plateau", "cosine"] = Field(
        "plateau",
        description="plateau: the learning rate falls to a tenth at each; cosine: it falls to 0 "
        "at the end of max_minutes or max_epochs",
    )
    warmup_steps: int = Field(0, ge=0, description="steps in which the learning rate rises")
    use_amp: bool = Field(False, description="arithmetic in 16 bits where it may be")
    scale_grad: bool = Field(False, description="float16 with scaled gradients, of use_amp on CUDA")
    init_scale: float = Field(2.0**16, gt=0, description="first scale of gradients")
    clip_grad: bool = Field(False, description="limit the norm of the gradient")
    max_grad_norm: float = Field(100.0, gt=0, description="its limit")
    ema_decay: float = Field(
        0.0, ge=0, lt=1, description="average weights over steps, with this decay; 0: don't"
    )
    seed: int = Field(0, ge=0, description="of all that is random")


class ExcerptSettings(BaseModel):
    """Which excerpts"""

    max_tracks: int | None = Field(None, ge=1, description="most tracks; default all")
    max_samples: int = Field(10_000, ge=1, description="most excerpts in an epoch")
    sampling: Strategy = Field("exhaustive", description="in which order excerpts are seen")
    hop_length_s: float | None = Field(
        None, gt=0, description="seconds from one excerpt to the next; default: one's length"
    )
    val_split: float = Field(
        0.2, gt=0, lt=1, description="share of tracks to validate by, if there is no folder of them"
    )


class AugmentationSettings(BaseModel):
    """How excerpts are varied"""

    remix: float = Field(
        0.5, ge=0, le=1, description="share of excerpts whose stems come from different tracks"
    )
    even_levels: bool = Field(
        False, description="bring stems to one level first, but for silent ones"
    )
    gain_db: float = Field(6.0, ge=0, le=40, description="gain of a stem, up or down at most")
    swap_channels: float = Field(0.5, ge=0, le=1, description="share with channels swapped")
    flip_polarity: float = Field(0.5, ge=0, le=1, description="share of stems turned over")
    soft_clip: float = Field(0.0, ge=0, le=1, description="share of mixtures driven into clipping")


class LoadingSettings(BaseModel):
    """How they are read"""

    num_workers: int = Field(
        default_factory=lambda: min(MOST_WORKERS, os.cpu_count() or 1),
        ge=0,
        description="processes that read; default: one a core, 8 at most",
    )
    persistent_workers: bool = Field(True, description="keep them between epochs")
    pin_memory: bool = Field(False, description="read into memory that a GPU fetches itself")
    pre_fetch: int = Field(4, ge=1, description="batches that each reads ahead")


class DisplaySettings(BaseModel):
    """What is shown and kept"""

    tensorboard: bool = Field(True, description="write losses for TensorBoard")
    view_iter: bool = Field(False, description="the loss of each step")
    view_epoch: bool = Field(True, description="the losses of each epoch")
    view_weights: bool = Field(False, description="histograms of weights")
    view_grad: bool = Field(False, description="histograms of gradients")
    view_norm: bool = Field(False, description="norms of weights and gradients")
    view_spec: bool = Field(False, description="pictures of spectrograms")
    view_wave: bool = Field(False, description="pictures of waveforms")
    play_estimate: bool = Field(False, description="estimates to listen to")
    play_residual: bool = Field(False, description="what estimates leave, to listen to")
    image_freq: int = Field(5, ge=1, description="epochs from one picture or sound to the next")
    image_dir: str | None = Field(None, description="a folder for pictures, without TensorBoard")
    logging_dir: str | None = Field(None, description="of TensorBoard; default DIR/runs")
    checkpoint_minutes: float = Field(
        10.0, gt=0, description="minutes between checkpoints within an epoch"
    )


class TrainerSettings(
    DisplaySettings,
    LoadingSettings,
    AugmentationSettings,
    ExcerptSettings,
    OptimizerSettings,
    LossSettings,
):
    """All that decides on a training but its network and its data."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="after")
    def _fits_together(self) -> "TrainerSettings":
        if self.scale_grad and not self.use_amp:
            raise ValueError("scale_grad: is for use_amp: set that, too")
        return self


# What is better for a network than the defaults above.
RECIPES: dict[str, dict[str, Any]] = {
    "BandNet": {
        "lr": 1e-3,
        "batch_size": 8,
        "schedule": "cosine",
        "warmup_steps": 50,
        "clip_grad": True,
        "max_grad_norm": 5.0,
        "ema_decay": 0.998,
        "remix": 1.0,
        "even_levels": True,
        "gain_db": 7.0,
    },
    "SpectrogramNetLSTM": {"lr_lstm": 1e-5},
    "SpectrogramNetVAE": {"lr_lstm": 1e-5},
}


def trainer_settings(network: NetworkSettings, values: Mapping[str, object]) -> TrainerSettings:
    """The settings of a training: what is given, over what suits the network.

    Raises
    ------
    ValueError
        a value is unknown, does not fit, or does not fit the network; the message says which
    """
    try:
        made = TrainerSettings.model_validate({**RECIPES.get(network.model_type, {}), **values})
    except ValidationError as error:
        raise ValueError("; ".join(problems_of(error))) from None
    if made.criterion == "kl_div" and network.model_type != "SpectrogramNetVAE":
        raise ValueError(f"criterion: kl_div is for SpectrogramNetVAE, not {network.model_type}")
    if made.best_perm and len(network.targets) == 1:
        raise ValueError("best_perm: is for several targets, and there is one: leave it out")
    return made
