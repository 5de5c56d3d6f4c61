"""Which measures there are, what they are called, and which of them are wanted. Light to import."""

import difflib
import math
from dataclasses import dataclass

from .errors import EvaluationError

RATIO_MEASURES = ("si_sdr", "si_snr", "snr", "usdr")
BSSEVAL, SPECTRAL_DISTANCE = "bsseval", "spectral_distance"
PERCEPTUAL_MEASURES = ("pesq", "stoi")
MEASURES = (*RATIO_MEASURES, BSSEVAL, SPECTRAL_DISTANCE, *PERCEPTUAL_MEASURES)
DEFAULT_MEASURES = ("si_sdr", "snr", "usdr", BSSEVAL)
# Others are the better the higher.
LOWER_IS_BETTER = (SPECTRAL_DISTANCE,)
# A mixture has no artefacts: its SAR is infinite but for rounding.
WITHOUT_IMPROVEMENT = ("sar",)
# Of BSSEval, as SiSEC has it, the median over frames counts.
OF_FRAMES = ("sdr", "isr", "sir", "sar")
TITLES = {
    "si_sdr": "SI-SDR",
    "si_snr": "SI-SNR",
    "snr": "SNR",
    "usdr": "uSDR",
    "sdr": "SDR",
    "isr": "ISR",
    "sir": "SIR",
    "sar": "SAR",
    "spectral_distance": "spectral distance",
    "pesq": "PESQ",
    "stoi": "STOI",
}
UNITS = {"spectral_distance": "", "pesq": "MOS", "stoi": ""}


@dataclass(frozen=True)
class ScoringSettings:
    """What is measured.

    Attributes
    ----------
    measures
        some of `MEASURES`; `bsseval` gives `sdr`, `isr`, `sir` and `sar`
    frame_s, hop_s
        length and distance of frames, seconds

    Raises
    ------
    EvaluationError
        there is no such measure, or a frame has no length
    """

    measures: tuple[str, ...] = DEFAULT_MEASURES
    frame_s: float = 1.0
    hop_s: float = 1.0

    def __post_init__(self) -> None:
        for measure in self.measures:
            if measure not in MEASURES:
                near = difflib.get_close_matches(measure, MEASURES, 1)
                meant = (
                    f"; did you mean {near[0]}?" if near else f": there are {', '.join(MEASURES)}"
                )
                raise EvaluationError(f"there is no measure {measure}{meant}")
        for name in ("frame_s", "hop_s"):
            if not 0 < getattr(self, name) < math.inf:
                raise EvaluationError(f"{name} is above 0: it is {getattr(self, name)}")


def main_span(measure: str) -> str:
    """Whether the score of whole tracks is what counts, or the median over their frames."""
    return "frames" if measure in OF_FRAMES else "track"


def title_of(measure: str) -> str:
    """As papers write it, with its unit."""
    unit = UNITS.get(measure, "dB")
    return TITLES.get(measure, measure) + (f" ({unit})" if unit else "")
