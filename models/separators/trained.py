"""Separators that were trained here: networks of ours between a spectrogram and its inverse."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ..networks.settings import NetworkSettings
from .base import TorchSeparator
from .options import parse_options

if TYPE_CHECKING:
    from ..networks.mask_model import MaskModel


class TrainedOptions(BaseModel):
    """`separation.options` of a job file for a trained separator."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    block_seconds: float = Field(
        ge=0.1, le=600, description="what the network is given; default: as suits it"
    )
    context_seconds: float = Field(0.0, ge=0, description="dropped at either end of a block")

    @model_validator(mode="after")
    def _something_is_left_of_a_block(self) -> "TrainedOptions":
        if 4 * self.context_seconds > self.block_seconds:
            raise ValueError("context_seconds can be at most a quarter of block_seconds")
        return self


def trained_options(options: Mapping[str, object], network: NetworkSettings) -> TrainedOptions:
    """What is given, over what suits the network.

    Raises
    ------
    ValueError
        an option is wrong
    """
    fitting = {"block_seconds": network.sample_length * network.excerpts_of_block}
    return parse_options(TrainedOptions, {**fitting, **options})


class Trained(TorchSeparator):
    """A trained network.

    Parameters
    ----------
    name
        in messages
    model
        the network
    options
        how it is used
    stems
        names of its targets
    """

    def __init__(
        self, name: str, model: "MaskModel", options: TrainedOptions, stems: tuple[str, ...]
    ) -> None:
        super().__init__(model)
        settings: NetworkSettings = model.settings
        self.name = name
        self.stems = stems
        self.sample_rate = settings.sample_rate
        self.channels = settings.num_channels
        self.block_samples = round(options.block_seconds * settings.sample_rate)
        self.context_samples = round(options.context_seconds * settings.sample_rate)
