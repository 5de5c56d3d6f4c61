"""What sections of a job have in common."""

import os
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict


class Section(BaseModel):
    """A section of a job file: unknown keys are refused, nothing changes after loading."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, serialize_by_alias=True, allow_inf_nan=False
    )


# A model package may lie below the home folder.
ModelField = Annotated[str, AfterValidator(os.path.expanduser)]
