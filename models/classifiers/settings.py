"""What a classifier is, and how it is trained."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ...validation import problems_of

RECURRENT = ("lstm", "gru")
# Of the transformer.
ATTENTION_HEADS = 4


class EncoderSettings(BaseModel):
    """The network"""

    model_config = ConfigDict(extra="forbid", frozen=True)

    encoder: Literal["lstm", "gru", "cnn", "transformer"] = Field(
        "lstm", description="what goes over the frames"
    )
    hidden_size: int = Field(64, ge=1, le=4096, description="features of a frame in the network")
    num_layers: int = Field(1, ge=1, le=16, description="layers of the encoder")
    bidirectional: bool = Field(False, description="of lstm and gru: from the end, too")
    initial_state: Literal["zero", "learned"] = Field(
        "zero", description="of lstm and gru: what they begin with"
    )
    pooling: Literal["mean", "last", "attention"] = Field(
        "mean",
        description="from frames to one vector: the mean of all, the last one (of bidirectional "
        "layers the last of each direction), or a mean whose weights are learned",
    )
    dropout: float = Field(0.2, ge=0, lt=1, description="share of features left out in training")

    @model_validator(mode="after")
    def _fits_the_encoder(self) -> "EncoderSettings":
        if self.encoder not in RECURRENT:
            if self.bidirectional:
                raise ValueError(f"bidirectional: {self.encoder} looks both ways in any case")
            if self.initial_state != "zero":
                raise ValueError(f"initial_state: {self.encoder} has no state")
        if self.encoder == "transformer" and self.hidden_size % (2 * ATTENTION_HEADS):
            raise ValueError(
                f"hidden_size: is a multiple of {2 * ATTENTION_HEADS} for a transformer, not "
                f"{self.hidden_size}"
            )
        return self


class LearningSettings(BaseModel):
    """How it is trained"""

    lr: float = Field(1e-3, gt=0, description="learning rate")
    weight_decay: float = Field(0.01, ge=0, description="of AdamW")
    batch_size: int = Field(16, ge=1, description="excerpts in a step")
    max_epochs: int = Field(50, ge=1, description="most epochs")
    patience: int = Field(
        10, ge=1, description="epochs without a better validation after which it ends"
    )
    monitor: Literal["loss", "balanced_accuracy"] = Field(
        "loss", description="of the validation: what says which epoch is the best"
    )
    class_weights: Literal["balanced", "none"] = Field(
        "balanced", description="balanced: rare labels count as much as frequent ones"
    )
    max_grad_norm: float = Field(5.0, gt=0, description="limit of the gradient's norm")
    seed: int = Field(0, ge=0, description="of the split and all else that is random")
    num_workers: int = Field(0, ge=0, description="processes that read features")
    tensorboard: bool = Field(True, description="write losses for TensorBoard, in OUT/runs")


class ShareSettings(BaseModel):
    """Which recordings"""

    validation_share: float = Field(
        0.2, gt=0, lt=1, description="of recordings, to stop by and to choose the best epoch"
    )
    test_share: float = Field(0.2, gt=0, lt=1, description="of recordings, kept for the report")

    @model_validator(mode="after")
    def _something_is_left(self) -> "ShareSettings":
        if self.validation_share + self.test_share >= 1:
            raise ValueError("validation_share and test_share leave nothing to train on")
        return self


class ClassifierSettings(ShareSettings, LearningSettings, EncoderSettings):
    """All that decides on a training but its features and labels."""

    @property
    def network(self) -> EncoderSettings:
        """Those of the network alone."""
        return EncoderSettings(**self.model_dump(include={*EncoderSettings.model_fields}))


def classifier_settings(values: Mapping[str, Any]) -> ClassifierSettings:
    """Settings of what is given, over the defaults.

    Raises
    ------
    ValueError
        a value is unknown, or does not fit; the message says which
    """
    try:
        return ClassifierSettings.model_validate(values)
    except ValidationError as error:
        raise ValueError("; ".join(problems_of(error))) from None
