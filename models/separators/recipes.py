"""The numbers of the separation by nearest neighbours: what a job file may change.

Apart from the method itself, so that reading a job file does not load the compiled kernels.
"""

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from .base import Description
from .options import parse_options

STEMS = ("background", "foreground")
MINIMUM_S = 0.5


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


class NearestNeighborOptions(NearestNeighborRecipe):
    """A recipe by name, and the numbers of it to change."""

    recipe: Literal["default", "librosa"] = "default"


def recipe_of(options: Mapping[str, object]) -> NearestNeighborRecipe:
    """The named recipe with the changed numbers.

    Raises
    ------
    ValueError
        a number is unknown or out of range
    """
    parsed = parse_options(NearestNeighborOptions, options)
    changed = {name: getattr(parsed, name) for name in options if name != "recipe"}
    return RECIPES[parsed.recipe].model_copy(update=changed)


def describe(_name: str, options: Mapping[str, object]) -> Description:
    """What is known of the separator."""
    recipe = recipe_of(options)
    return Description(
        STEMS,
        minimum_s=MINIMUM_S,
        sums_to_mixture=recipe.foreground == "residual",
        resolved_options=recipe.model_dump_json(),
    )
