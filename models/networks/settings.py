"""What a network of ours is made by: the file `model.json` of a trained separator.

Options of the SpectrogramNets are called as Auralflow calls them, and have its defaults.
"""

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ...validation import problems_of

MaskActivation = Literal["sigmoid", "relu", "hardtanh", "tanh", "softmax", "prelu", "selu", "elu"]


class NetworkSettings(BaseModel):
    """What all networks have: targets, the signals that they take, and a spectrogram."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    about: ClassVar[str]
    # How many excerpts it is given at once when it separates.
    excerpts_of_block: ClassVar[int] = 1

    model_type: str
    targets: tuple[str, ...] = Field(min_length=1, description="the stems to estimate")
    num_channels: int = Field(1, ge=1, le=32, description="channels of the audio")
    sample_length: float = Field(3.0, gt=0, le=600, description="seconds of an excerpt")
    sample_rate: int = Field(44100, ge=1000, le=384_000, description="Hz")
    num_fft: int = Field(1024, ge=16, description="length of the FFT in samples")
    window_size: int = Field(1024, ge=16, description="length of the Hann window in samples")
    hop_length: int = Field(512, ge=1, description="samples between frames")

    @model_validator(mode="after")
    def _fits_together(self) -> "NetworkSettings":
        if len(set(self.targets)) < len(self.targets):
            raise ValueError("targets: one is there twice")
        if not 2 * self.hop_length <= self.window_size <= self.num_fft:
            raise ValueError(
                "hop_length is at most half of window_size, and that at most num_fft: they are "
                f"{self.hop_length}, {self.window_size} and {self.num_fft}"
            )
        return self

    @property
    def bins(self) -> int:
        """Of a spectrum."""
        return self.num_fft // 2 + 1

    @property
    def excerpt_samples(self) -> int:
        """Of an excerpt."""
        return round(self.sample_length * self.sample_rate)

    @property
    def excerpt_frames(self) -> int:
        """Of the spectrogram of an excerpt."""
        return -(-self.excerpt_samples // self.hop_length) + 1


class SpectrogramNetSettings(NetworkSettings):
    """A U-Net of convolutions that estimates a mask of magnitudes."""

    about: ClassVar[str] = "a U-Net"

    model_type: Literal["SpectrogramNetSimple"] = "SpectrogramNetSimple"
    num_hidden_channels: int = Field(16, ge=1, description="channels of its first layer")
    dropout_p: float = Field(0.4, ge=0, lt=1, description="share that its decoder drops")
    leak_factor: float = Field(0.0, ge=0, lt=1, description="of leaky ReLUs; 0: SELUs")
    normalize_input: bool = Field(False, description="learn to normalise the input")
    normalize_output: bool = Field(False, description="learn to scale the output")
    mask_act_fn: MaskActivation = Field("sigmoid", description="what makes its output a mask")


class RecurrentNetSettings(SpectrogramNetSettings):
    """The same with an LSTM in its middle."""

    about: ClassVar[str] = "a U-Net with an LSTM in its middle"

    model_type: Literal["SpectrogramNetLSTM"] = "SpectrogramNetLSTM"  # type: ignore[assignment]
    recurrent_depth: int = Field(3, ge=1, description="layers of the LSTM")
    hidden_size: int = Field(1024, ge=1, description="width of the LSTM")
    input_axis: Literal[0, 1] = Field(1, description="0: it runs over time, 1: over frequency")


class VariationalNetSettings(RecurrentNetSettings):
    """The same as a variational autoencoder."""

    about: ClassVar[str] = "a variational U-Net with an LSTM in its middle"

    model_type: Literal["SpectrogramNetVAE"] = "SpectrogramNetVAE"  # type: ignore[assignment]


class BandNetSettings(NetworkSettings):
    """A compact network of bands and a recurrent layer, for training on a CPU.

    Its window lasts long (128 ms at 16 kHz), since that tells harmonics of voices and of
    instruments from each other.
    """

    about: ClassVar[str] = "a compact recurrent network over bands of the spectrum"
    # It gains by what lies around, and has none of the other networks' fixed windows.
    excerpts_of_block: ClassVar[int] = 10

    model_type: Literal["BandNet"] = "BandNet"
    sample_rate: int = Field(16000, ge=1000, le=384_000, description="Hz")
    num_fft: int = Field(2048, ge=16, description="length of the FFT in samples")
    window_size: int = Field(2048, ge=16, description="length of the Hann window in samples")
    num_bands: int = Field(64, ge=1, description="bands of the spectrum, of equal width in mel")
    band_features: int = Field(8, ge=1, description="numbers that a band is described by")
    hidden_size: int = Field(256, ge=2, multiple_of=2, description="width of its layers")
    recurrent_depth: int = Field(2, ge=1, description="layers of the GRU")


SETTINGS: dict[str, type[NetworkSettings]] = {
    "SpectrogramNetSimple": SpectrogramNetSettings,
    "SpectrogramNetLSTM": RecurrentNetSettings,
    "SpectrogramNetVAE": VariationalNetSettings,
    "BandNet": BandNetSettings,
}


def network_settings(values: Mapping[str, object]) -> NetworkSettings:
    """The settings that a file or a command gives.

    Raises
    ------
    ValueError
        there is no such network, or a value is unknown or does not fit; the message says which
    """
    name = values.get("model_type")
    if name not in SETTINGS:
        raise ValueError(f"model_type: {name!r} is no network: there are {', '.join(SETTINGS)}")
    try:
        return SETTINGS[str(name)].model_validate(dict(values))
    except ValidationError as error:
        raise ValueError(f"{name}: {'; '.join(problems_of(error))}") from None
