"""What is computed of a recording: a class for each kind, with the parameters that it uses.

A parameter that a kind does not use is none of its class, and refused. Names and defaults are
librosa's, but for units in the names.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)

from ...validation import in_words

Window = str | tuple[str, float]
Norm = Literal["max", 1, 2] | None
PadMode = Literal["constant", "edge", "reflect", "symmetric"]


class FeatureSettings(BaseModel):
    """What all kinds have."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    kind: str
    sample_rate: int | None = Field(
        None, ge=1, description="Hz, resampled to; default: the recording's"
    )
    mono: bool = Field(True, description="of the mean of the channels; else of each channel")
    hop_length: int = Field(512, ge=1, description="samples from frame to frame")
    window: Window = Field(
        "hann", description="one of scipy.signal's by its name, or name and parameter"
    )
    pad_mode: PadMode = Field("constant", description="what is beyond the recording's ends")

    @property
    def needs_highest_level(self) -> bool:
        """Whether frames are finished only when the recording's highest level is known."""
        return False

    @field_validator("window")
    @classmethod
    def _window_is_known(cls, window: Window) -> Window:
        if window != "hann":
            from scipy.signal import get_window

            try:
                get_window(window, 8)
            except (TypeError, ValueError) as error:
                raise ValueError(f"scipy.signal has no window {window!r}: {error}") from error
        return window


class StftSettings(FeatureSettings):
    """What all have that are made of a short-time Fourier transform."""

    n_fft: int = Field(2048, ge=2, description="samples of a transform")
    win_length: int | None = Field(
        None, ge=1, description="samples of the window, amid zeros; default: n_fft"
    )
    center: bool = Field(
        True, description="frame t is centred at sample t * hop_length; else it begins there"
    )

    @model_validator(mode="after")
    def _window_fits(self) -> "StftSettings":
        if self.win_length is not None and self.win_length > self.n_fft:
            raise ValueError(f"win_length: {self.win_length} is more than n_fft, {self.n_fft}")
        if not self.center and self.pad_mode != "constant":
            raise ValueError("pad_mode: without center nothing is padded")
        return self


class MagnitudeSettings(StftSettings):
    """|STFT|."""

    kind: Literal["magnitude"] = "magnitude"


class PhaseSettings(StftSettings):
    """The angle of the STFT, radians in (-pi, pi]; 0 where it is 0."""

    kind: Literal["phase"] = "phase"


class ComplexSettings(StftSettings):
    """The STFT."""

    kind: Literal["complex"] = "complex"


class PowerSettings(StftSettings):
    """|STFT| to a power."""

    kind: Literal["power"] = "power"
    power: float = Field(2.0, gt=0, description="exponent of the magnitude")


class MelBands(StftSettings):
    """What all have that are made of mel bands."""

    power: float = Field(2.0, gt=0, description="exponent of the magnitude")
    n_mels: int = Field(128, ge=1, description="bands")
    fmin_hz: float = Field(0.0, ge=0, description="where the lowest band begins")
    fmax_hz: float | None = Field(
        None, gt=0, description="where the highest ends; default: half the sample rate"
    )
    htk: bool = Field(False, description="HTK's mel scale; else Slaney's")
    mel_norm: Literal["slaney"] | Norm = Field(
        "slaney", description="bands of equal area, or of norm 1; null: of peak 1"
    )

    @model_validator(mode="after")
    def _bands_are_there(self) -> "MelBands":
        if self.fmax_hz is not None and self.fmax_hz <= self.fmin_hz:
            raise ValueError(f"fmax_hz: {self.fmax_hz:g} is not above fmin_hz, {self.fmin_hz:g}")
        # Of recordings at their own rates this is told when they are there.
        if self.sample_rate is not None:
            most_hz = self.sample_rate / 2
            if self.fmin_hz >= most_hz or (self.fmax_hz or 0) > most_hz:
                name = "fmin_hz" if self.fmin_hz >= most_hz else "fmax_hz"
                raise ValueError(
                    f"{name}: {getattr(self, name):g} is beyond what a sample_rate of "
                    f"{self.sample_rate} has, 0 to {most_hz:g} Hz"
                )
        return self


class MelSettings(MelBands):
    """|STFT| to a power, summed in mel bands."""

    kind: Literal["mel"] = "mel"


class LevelBands(MelBands):
    """What all have that are made of levels in mel bands."""

    amin: float = Field(1e-10, gt=0, description="less counts as so much")
    top_db: float | None = Field(
        80.0, ge=0, description="what is lower by more than this, below the recording's highest "
        "level, is raised to that; null: nothing is"
    )  # fmt: skip

    @property
    def needs_highest_level(self) -> bool:
        """Whether frames are finished only when the recording's highest level is known."""
        return self.top_db is not None


class ReferredLevelBands(LevelBands):
    """Levels in mel bands with a reference."""

    ref: Literal["max"] | float = Field(
        1.0, description="what has 0 dB: a number, or max, the highest of the recording"
    )

    @field_validator("ref")
    @classmethod
    def _ref_is_positive(cls, ref: Literal["max"] | float) -> Literal["max"] | float:
        if ref != "max" and not ref > 0:
            raise ValueError(f"{ref:g} has no level: give a number above 0, or max")
        return ref

    @property
    def needs_highest_level(self) -> bool:
        """Whether frames are finished only when the recording's highest level is known."""
        return self.ref == "max" or super().needs_highest_level


class LogMelSettings(ReferredLevelBands):
    """Levels in mel bands, in dB."""

    kind: Literal["log_mel"] = "log_mel"


class MfccSettings(ReferredLevelBands):
    """Mel-frequency cepstral coefficients: the cosine transform of levels in mel bands."""

    kind: Literal["mfcc"] = "mfcc"
    n_mfcc: int = Field(20, ge=1, description="coefficients kept")
    dct_type: Literal[1, 2, 3] = Field(2, description="of the cosine transform")
    dct_norm: Literal["ortho"] | None = Field("ortho", description="null: not normalized")
    lifter: float = Field(
        0.0, ge=0, description="above 0: coefficients n, from 1, times 1 + L/2 sin(pi n / L)"
    )

    @model_validator(mode="after")
    def _coefficients_are_there(self) -> "MfccSettings":
        if self.n_mfcc > self.n_mels:
            raise ValueError(f"n_mfcc: {self.n_mfcc} is more than n_mels, {self.n_mels}")
        if self.dct_type == 1 and self.n_mels < 2:
            raise ValueError("dct_type: 1 takes two mel bands at least")
        return self


class OnsetSettings(LevelBands):
    """How much levels in mel bands rise: an envelope with peaks at onsets."""

    kind: Literal["onset"] = "onset"
    lag: int = Field(1, ge=1, description="frames that levels are compared over")
    max_size: int = Field(
        1, ge=1, description="bands of the earlier frame whose highest level counts"
    )
    aggregate: Literal["mean", "median"] = Field("mean", description="of the bands")
    detrend: bool = Field(False, description="without what is constant")


class ChromaSettings(StftSettings):
    """The power of each pitch class."""

    kind: Literal["chroma"] = "chroma"
    n_chroma: int = Field(12, ge=1, description="pitch classes")
    tuning: float = Field(0.0, description="from A440, in pitch classes; never estimated")
    norm: Norm = Field("max", description="of each frame: its highest value, its sum …")
    ctroct: float = Field(5.0, description="octave that counts most, from A0 at 27.5 Hz")
    octwidth: float | None = Field(
        2.0, gt=0, description="octaves around it that count; null: all count alike"
    )
    base_c: bool = Field(True, description="the first pitch class is C; else A")


class CqtSettings(FeatureSettings):
    """The magnitude of a constant-Q transform."""

    kind: Literal["cqt"] = "cqt"
    fmin_hz: float = Field(32.70319566257483, gt=0, description="the lowest bin; C1 by default")
    n_bins: int = Field(84, ge=1)
    bins_per_octave: int = Field(12, ge=1)
    tuning: float = Field(0.0, description="of fmin_hz, in bins; never estimated")
    filter_scale: float = Field(1.0, gt=0, description="length of filters; 1 is constant Q")
    norm: Norm = Field(1, description="of the filters")
    sparsity: float = Field(0.01, ge=0, lt=1, description="share of the filters that is left out")
    scale: bool = Field(True, description="by the square root of the filters' lengths")


KINDS: dict[str, type[FeatureSettings]] = {
    settings.model_fields["kind"].default: settings
    for settings in (
        MagnitudeSettings,
        PhaseSettings,
        ComplexSettings,
        PowerSettings,
        MelSettings,
        LogMelSettings,
        MfccSettings,
        OnsetSettings,
        ChromaSettings,
        CqtSettings,
    )
}
AnyFeature = Annotated[
    MagnitudeSettings
    | PhaseSettings
    | ComplexSettings
    | PowerSettings
    | MelSettings
    | LogMelSettings
    | MfccSettings
    | OnsetSettings
    | ChromaSettings
    | CqtSettings,
    Field(discriminator="kind"),
]
_ADAPTER: TypeAdapter[FeatureSettings] = TypeAdapter(AnyFeature)


def feature_settings(values: Mapping[str, Any]) -> FeatureSettings:
    """The settings of a kind, `{"kind": "mel", "n_mels": 64, …}`.

    Raises
    ------
    ValueError
        there is no such kind, it does not use a parameter, or a value is out of its range
    """
    try:
        return _ADAPTER.validate_python(values)
    except ValidationError as error:
        kind = values.get("kind")
        raise ValueError(
            "; ".join(_told(kind, each) for each in error.errors(include_url=False))
        ) from error


def _told(kind: Any, error: Any) -> str:
    if kind not in KINDS:
        return f"kind: is one of {', '.join(KINDS)}, not {kind!r}"
    name = ".".join(str(each) for each in error["loc"][1:2])
    if error["type"] == "extra_forbidden":
        parameters = ", ".join(each for each in KINDS[kind].model_fields if each != "kind")
        return f"{name}: {kind} does not use it; it has {parameters}"
    return f"{name}: {in_words(error)}" if name else in_words(error)
