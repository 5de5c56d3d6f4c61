"""The typed sections of a job that the steps read."""

import hashlib
import json
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ..models.separators.recipes import RECIPES, STEMS, NearestNeighborRecipe

# Part of every digest: raise it when the same settings begin to give other samples or pictures.
RESULTS_VERSION = 1
MIXTURE_PLOT = "spectrogram"
BIT_DEPTHS = {"flac": ("16", "24"), "wav": ("16", "24", "32", "32f"), "ogg": (), "mp3": ()}


class Section(BaseModel):
    """A section of a job file: unknown keys are refused, nothing changes after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, serialize_by_alias=True)


class SeparationSettings(Section):
    """How recordings are separated, and which range of them."""

    separator: Literal["nn-filter"] = "nn-filter"
    recipe: Literal["default", "librosa"] = "default"
    options: dict[str, object] = Field(
        default_factory=dict, description="numbers of the recipe to change"
    )
    part_seconds: float = Field(300.0, ge=10, le=3600)
    start_s: float = Field(0.0, ge=0)
    duration_s: float | None = Field(None, gt=0)

    @field_validator("options")
    @classmethod
    def _options_fit_the_recipe(cls, options: dict[str, object]) -> dict[str, object]:
        try:
            NearestNeighborRecipe.model_validate(options)
        except ValidationError as error:
            problems = (f"{each['loc'][0]}: {each['msg']}" for each in error.errors())
            fields = ", ".join(NearestNeighborRecipe.model_fields)
            raise ValueError(f"{'; '.join(problems)} (the numbers are {fields})") from None
        return options

    def resolved_recipe(self) -> NearestNeighborRecipe:
        """The named recipe with the changed numbers."""
        named = RECIPES[self.recipe].model_dump()
        return NearestNeighborRecipe.model_validate({**named, **self.options})

    @property
    def stem_names(self) -> tuple[str, ...]:
        """The names of the separator's stems."""
        return STEMS


class StemSettings(Section):
    """Which stems are written, under which names, in which format."""

    format: Literal["flac", "wav", "ogg", "mp3"] = "flac"
    bit_depth: Literal["source", "16", "24", "32", "32f"] = "source"
    select: tuple[str, ...] | None = Field(None, description="stems to write; default all")
    rename: dict[str, str] = Field(default_factory=dict)
    tags: bool = Field(True, description="carry title, artist, album, track and cover over")

    @field_validator("bit_depth", mode="before")
    @classmethod
    def _numbers_are_fine(cls, value: object) -> object:
        return str(value) if isinstance(value, int) else value

    @field_validator("rename")
    @classmethod
    def _names_are_file_names(cls, rename: dict[str, str]) -> dict[str, str]:
        for name in rename.values():
            if not name or name.startswith(".") or set(name) & set('/\\:*?"<>|\0\n'):
                raise ValueError(f"{name!r} can't be a file name")
            if name in (MIXTURE_PLOT, "manifest"):
                raise ValueError(f"{name!r} is taken by a file of the job itself")
        return rename

    @model_validator(mode="after")
    def _format_has_this_bit_depth(self) -> "StemSettings":
        depths = ("source", *BIT_DEPTHS[self.format])
        if self.bit_depth not in depths:
            raise ValueError(
                f"{self.format} can't have bit_depth {self.bit_depth}: use {', '.join(depths)}"
            )
        return self

    def name_of(self, stem: str) -> str:
        """The stem's name in the output tree."""
        return self.rename.get(stem, stem)


class PlotSettings(Section):
    """The spectrogram plots."""

    enabled: bool = True
    range_db: float = Field(80.0, gt=0, le=200)


class StorageSettings(Section):
    """How buckets are used."""

    user_project: str | None = Field(
        None, description="pays for requests to buckets whose owner doesn't"
    )
    kms_key: str | None = Field(
        None,
        pattern=r"^projects/[^/]+/locations/[^/]+/keyRings/[^/]+/cryptoKeys/[^/]+$",
        description="encrypts what is written; default: the bucket's own key",
    )


class SplitSettings(Section):
    """All that decides what a recording's files hold."""

    separation: SeparationSettings = SeparationSettings()
    stems: StemSettings = StemSettings()
    plots: PlotSettings = PlotSettings()

    @model_validator(mode="after")
    def _stems_exist(self) -> "SplitSettings":
        known = self.separation.stem_names
        for stem in [*(self.stems.select or ()), *self.stems.rename]:
            if stem not in known:
                raise ValueError(
                    f"stems: {stem!r} is no stem of {self.separation.separator}, "
                    f"which gives {', '.join(known)}"
                )
        names = [self.stems.name_of(stem) for stem in self.wanted_stems]
        if len(set(names)) < len(names):
            raise ValueError(f"stems: two stems would share a name: {', '.join(names)}")
        return self

    @property
    def wanted_stems(self) -> tuple[str, ...]:
        """The stems to write, in the separator's order."""
        selected = self.stems.select
        return tuple(
            stem for stem in self.separation.stem_names if selected is None or stem in selected
        )

    @property
    def branches(self) -> tuple[str, ...]:
        """The branches of the job, in the order of the graph."""
        return ("stems", "plots") if self.plots.enabled else ("stems",)

    def digests(self) -> dict[str, str]:
        """A digest of each branch's settings; a branch is done again when its digest changes."""
        separation = self.separation.model_dump(mode="json", exclude={"recipe", "options"})
        separation["recipe"] = self.separation.resolved_recipe().model_dump(mode="json")
        stems = _digest([RESULTS_VERSION, separation, self.stems.model_dump(mode="json")])
        return {
            "stems": stems,
            "plots": _digest([stems, self.plots.model_dump(mode="json")]),
        }


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
