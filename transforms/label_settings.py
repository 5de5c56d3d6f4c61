"""The section `labels` of a job: what annotates its recordings."""

import json
from typing import Any

from pydantic import Field, model_validator

from ..models.separators.base import Description, ModelError, UnknownNameError
from ..models.separators.by_name import SeparatorName, describe, is_elsewhere
from .section import ModelField, Section

LABELS_JSON, LABELS_TEXT = "labels.json", "labels.txt"


class LabelSettings(Section):
    """What of a recording is called what, by a model package that gives labels."""

    model: ModelField | None = Field(
        None,
        description="what says what is when: a model package that gives labels, its folder or "
        "address, or its name in a registry: see docs/models.md#labels",
    )
    options: dict[str, object] = Field(
        default_factory=dict,
        description="those of the package that are to be changed; device and batches are those of "
        "`separation`",
    )
    model_sha256: str | None = Field(
        None, description="refuse a model whose files have another digest"
    )
    uncertain: float | None = Field(
        None, ge=0, le=1, description="labels of less confidence are called `uncertain`"
    )

    @model_validator(mode="after")
    def _model_is_there(self) -> "LabelSettings":
        wanted = (self.options, self.model_sha256, self.uncertain is not None)
        if self.model is None and any(wanted):
            raise ValueError("model: name what gives labels")
        if self.model is not None and not is_elsewhere(self.model):
            self.require_model()
        return self

    def require_model(self) -> None:
        """Refuse a model that can't be had, gives stems, or is not that the job was written for.

        Raises
        ------
        ValueError
            it is
        """
        if self.model is None:
            return
        try:
            found = self.description
        except UnknownNameError as error:
            raise ValueError(
                f"{self.model}: no model has this name: name the folder or address of a model "
                "package that gives labels, or one that `beamsplitter models list` shows"
            ) from error
        except ModelError as error:
            raise ValueError(str(error)) from error
        if found.effect != "labels":
            raise ValueError(
                f"{self.model} gives stems, no labels: name it in separation.separator"
            )
        require_digest(self.model, found.sha256, self.model_sha256)

    @property
    def labelers(self) -> tuple[SeparatorName, ...]:
        """The package, if there is one."""
        return () if self.model is None else (SeparatorName.of(self.model, self.options),)

    @property
    def description(self) -> Description:
        """What is known of the package without loading it."""
        return describe(self.labelers)

    def described(self) -> dict[str, Any]:
        """What decides the labels."""
        found = self.description
        return {
            "model": self.model,
            "options": json.loads(found.resolved_options),
            "weights_sha256": found.sha256,
            "uncertain": self.uncertain,
        }


def require_digest(name: str, found: str | None, wanted: str | None) -> None:
    """Refuse a model whose files are not those that a job was written for.

    Raises
    ------
    ValueError
        they are not
    """
    if wanted is None or found == wanted:
        return
    if found is None:
        raise ValueError(f"model_sha256: {name} has no digest: leave the key out")
    raise ValueError(
        f"model_sha256: the digest of {name} is {found}, not {wanted}: it is another model than "
        "the job was written for"
    )
