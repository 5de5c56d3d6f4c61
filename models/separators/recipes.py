"""The numbers of the separation by nearest neighbours: what a job file may change.

Apart from the method itself, so that reading a job file does not load the compiled kernels.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

STEMS = ("background", "foreground")


class NearestNeighborRecipe(BaseModel):
    """The numbers of the method. The defaults are the best of `docs/separation.md`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    window_s: float = Field(
        0.0929, gt=0.005, lt=1, description="STFT window, rounded to 2^n samples"
    )
    width_s: float = Field(2.0, gt=0, description="frames nearer than this are no neighbours")
    features: Literal["magnitude", "bands"] = Field(
        "bands", description="what frames are compared by: themselves, or bands and their context"
    )
    neighbors: Literal["librosa", "nearest"] = "nearest"
    neighbor_count: int | None = Field(
        100, ge=1, description="at most; librosa's rule gives fewer in short recordings"
    )
    margin_background: float = Field(0.5, gt=0, description="how cautious its mask is")
    margin_foreground: float = Field(2.0, gt=0, description="unused with a residual foreground")
    power: float = Field(1.0, gt=0, description="how hard the masks are")
    highpass_hz: float = Field(100.0, ge=0, description="below it all is background")
    foreground: Literal["residual", "mask"] = "residual"


RECIPES = {
    "default": NearestNeighborRecipe(),
    "librosa": NearestNeighborRecipe(
        features="magnitude",
        neighbors="librosa",
        neighbor_count=None,
        margin_background=2,
        margin_foreground=10,
        power=2,
        highpass_hz=0,
        foreground="mask",
    ),
}
