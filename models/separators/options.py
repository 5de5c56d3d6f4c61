"""The options that a job file gives to a separator."""

from collections.abc import Mapping
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from ...validation import problems_of

Options = TypeVar("Options", bound=BaseModel)


def parse_options(model: type[Options], options: Mapping[str, object]) -> Options:
    """The options of a separator.

    Raises
    ------
    ValueError
        one is unknown or out of range; the message names those that there are
    """
    try:
        return model.model_validate(dict(options))
    except ValidationError as error:
        problems = "; ".join(problems_of(error))
        known = ", ".join(model.model_fields) or "none"
        raise ValueError(f"{problems} (the options are: {known})") from None
