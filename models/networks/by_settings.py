"""The network that settings describe."""

from collections.abc import Callable
from typing import Any

from torch import nn

from .band_net import BandNet
from .mask_model import MaskModel
from .settings import NetworkSettings
from .spectrogram_net import SpectrogramNetLSTM, SpectrogramNetSimple, SpectrogramNetVAE

NETWORKS: dict[str, Callable[[Any], nn.Module]] = {
    "SpectrogramNetSimple": SpectrogramNetSimple,
    "SpectrogramNetLSTM": SpectrogramNetLSTM,
    "SpectrogramNetVAE": SpectrogramNetVAE,
    "BandNet": BandNet,
}


def make_model(settings: NetworkSettings) -> MaskModel:
    """A model with fresh weights, drawn by torch's seed."""
    return MaskModel(settings, NETWORKS[settings.model_type](settings))
