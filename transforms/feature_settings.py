"""The section `features` of a job: which features are taken, of which signals and excerpts."""

import re
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from ..audio.features.settings import KINDS, AnyFeature, feature_settings
from ..models.feature_sets.arrays import RecordingFormat, ShardFormat, require_dtype
from ..models.feature_sets.errors import FeatureSetError
from .section import Section

MIXTURE = "mixture"
SET_NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]*$"


class ExcerptSettings(Section):
    """Of what of each recording features are taken."""

    take: Literal["whole", "range", "every", "chorus"] = Field(
        "whole",
        description="the `whole`; one `range` of it; `every`: excerpts at regular intervals; the "
        "`chorus`: see docs/choruses.md",
    )
    start_s: float = Field(0.0, ge=0, description="where the range or the first excerpt begins")
    duration_s: float | None = Field(
        None,
        gt=0,
        description="seconds of an excerpt, of a range; default of a range: up to the end",
    )
    hop_s: float | None = Field(
        None,
        gt=0,
        description="seconds from one excerpt of `every` to the next; default: `duration_s`",
    )

    @model_validator(mode="after")
    def _has_what_it_uses(self) -> "ExcerptSettings":
        if self.take in ("every", "chorus") and self.duration_s is None:
            raise ValueError(f"duration_s: take: {self.take} needs the duration of an excerpt")
        if self.take == "chorus":
            # What finds choruses takes a second to import.
            from ..audio.chorus import SHORTEST_CLIP_S

            if (self.duration_s or 0) < SHORTEST_CLIP_S:
                raise ValueError(f"duration_s: that of a chorus is at least {SHORTEST_CLIP_S:g}")
        for name, users in (
            ("start_s", ("range", "every")),
            ("duration_s", ("range", "every", "chorus")),
            ("hop_s", ("every",)),
        ):
            if getattr(self, name) and self.take not in users:
                raise ValueError(f"{name}: take: {self.take} does not use it")
        return self

    @property
    def is_indexed(self) -> bool:
        """Whether a recording may have several."""
        return self.take == "every"


class FeatureSetSettings(Section):
    """What is computed of each recording for those that learn from it."""

    sets: dict[str, AnyFeature] = Field(
        default_factory=dict,
        description="features to write, each by a name with its `kind` and parameters, such as "
        "`{mel: {n_mels: 64, hop_length: 200}}`: see docs/features.md. A set that is called as a "
        "kind need not tell it",
    )
    of: tuple[str, ...] = Field(
        (MIXTURE,),
        min_length=1,
        description="of which signals: `mixture`, and stems that the job writes, as their files "
        "hold them",
    )
    excerpts: ExcerptSettings = ExcerptSettings()
    format: RecordingFormat = Field("npz", description="of the file of a recording's features")
    plots: bool = Field(
        False,
        description="draw the waveform and the features of each signal, as `features.png`; not of "
        "`every`",
    )
    shards: ShardFormat | None = Field(
        None,
        description="pack the features of all recordings into shards, too: see "
        "docs/feature-sets.md",
    )
    shard_mb: float = Field(256.0, gt=0, le=100_000, description="about so large is a shard, in MB")

    @field_validator("sets", mode="before")
    @classmethod
    def _names_may_be_kinds(cls, sets: Any) -> Any:
        if not isinstance(sets, Mapping):
            return sets
        return {name: _settings_of(name, values) for name, values in sets.items()}

    @field_validator("sets")
    @classmethod
    def _names_are_plain(cls, sets: dict[str, AnyFeature]) -> dict[str, AnyFeature]:
        for name in sets:
            if not re.match(SET_NAME, name):
                raise ValueError(f"{name!r}: a set's name has letters, digits, - and _ only")
        return sets

    @model_validator(mode="after")
    def _sets_are_there(self) -> "FeatureSetSettings":
        for name in ("shards", "plots"):
            if getattr(self, name) and not self.sets:
                raise ValueError(f"sets: name features: there are none for {name}")
        return self

    @model_validator(mode="after")
    def _plots_are_few(self) -> "FeatureSetSettings":
        if self.plots and self.excerpts.is_indexed:
            raise ValueError("plots: take: every would give too many: leave plots out")
        return self

    @field_validator("of")
    @classmethod
    def _signals_stand_once(cls, of: tuple[str, ...]) -> tuple[str, ...]:
        if len({*of}) < len(of):
            raise ValueError(f"a signal stands twice: {', '.join(of)}")
        return of

    @model_validator(mode="after")
    def _formats_hold_the_sets(self) -> "FeatureSetSettings":
        for name, each in self.sets.items():
            dtype = "complex64" if each.kind == "complex" else "float32"
            for format in filter(None, (self.format, self.shards)):
                try:
                    require_dtype(dtype, format)
                except FeatureSetError as error:
                    raise ValueError(f"sets: {name}: {error}") from error
        return self

    @property
    def stems(self) -> tuple[str, ...]:
        """The stems among the signals."""
        return tuple(name for name in self.of if name != MIXTURE)

    @property
    def shard_bytes(self) -> int:
        """About so large is a shard."""
        return max(1, round(1e6 * self.shard_mb))

    def described(self) -> dict[str, Any]:
        """What decides the features: not how they are packed."""
        return self.model_dump(mode="json", exclude={"shards", "shard_mb"})

    @property
    def file_name(self) -> str:
        """Of a recording's features."""
        return f"features.{self.format}"


def _settings_of(name: str, values: Any) -> Any:
    values = {} if values is None else values
    if not isinstance(values, Mapping):
        return values
    try:
        return feature_settings({**({"kind": name} if name in KINDS else {}), **values})
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
