"""Harmonic and percussive sounds, told apart by median filters along time and along frequency.

FitzGerald, "Harmonic/percussive separation using median filtering", DAFx 2010; with margins:
Driedger, Müller and Disch, "Extending harmonic-percussive separation of audio", ISMIR 2014. Equals
`librosa.effects.hpss` but for the window, which has the same length in seconds at any rate.
"""

from collections.abc import Mapping

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from .base import Description, Member, Separator, alone
from .options import parse_options

STEMS = ("harmonic", "percussive")
WINDOW_S = 0.0464  # 2048 samples at 44.1 kHz
HOPS_PER_WINDOW = 4


class HarmonicPercussiveOptions(BaseModel):
    """The numbers of the method."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kernel_size: int = Field(31, ge=3, description="of the median filters, in frames and in bins")
    margin: float = Field(
        1.0, ge=1, description="how many times one has to exceed the other; above 1 a rest is left"
    )
    power: float = Field(2.0, gt=0, description="how hard the masks are")


def describe(_name: str, options: Mapping[str, object]) -> Description:
    """What is known of the separator."""
    parsed = parse_options(HarmonicPercussiveOptions, options)
    return Description(
        STEMS,
        sums_to_mixture=parsed.margin == 1,
        resolved_options=parsed.model_dump_json(),
    )


def load(_name: str, options: Mapping[str, object]) -> tuple[Member, ...]:
    """The separator."""
    return alone(HarmonicPercussive(parse_options(HarmonicPercussiveOptions, options)))


class HarmonicPercussive(Separator):
    """Separates a whole part at once, at any rate."""

    name = "hpss"
    stems = STEMS

    def __init__(self, options: HarmonicPercussiveOptions) -> None:
        self.options = options
        # librosa takes a second to import: here, for processes that are forked after this.
        import librosa

        _ = librosa.stft, librosa.istft, librosa.decompose

    def separate(self, block: np.ndarray, sample_rate: int) -> np.ndarray:
        """Both stems; with a margin of 1 the percussive one is what the harmonic one leaves."""
        import librosa

        n_fft = max(64, 2 ** round(np.log2(WINDOW_S * sample_rate)))
        hop_length = n_fft // HOPS_PER_WINDOW
        estimates = []
        for channel in block:
            spectrum = librosa.stft(channel, n_fft=n_fft, hop_length=hop_length)
            parts = librosa.decompose.hpss(
                spectrum,
                kernel_size=self.options.kernel_size,
                margin=self.options.margin,
                power=self.options.power,
            )
            harmonic, percussive = (
                librosa.istft(part, n_fft=n_fft, hop_length=hop_length, length=channel.size)
                for part in parts
            )
            if self.options.margin == 1:
                percussive = channel - harmonic
            estimates.append(np.stack([harmonic, percussive]))
        return np.stack(estimates, axis=1).astype(np.float32)
