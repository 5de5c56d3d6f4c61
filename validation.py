"""What pydantic found wrong, in words."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

KEYS_WANTED = ("model_type", "model_attributes_type", "dict_type")
SCALARS = (str, int, float)
LONGEST_SHOWN = 60


def problems_of(error: ValidationError) -> list[str]:
    """Each problem, behind the place that it is at, if it is at one."""
    return [
        ": ".join(filter(None, (".".join(map(str, each["loc"])), in_words(each))))
        for each in error.errors(include_url=False)
    ]


def in_words(problem: Mapping[str, Any]) -> str:
    """What is wrong at a place, as one of `ValidationError.errors` has it."""
    if problem["type"] == "extra_forbidden":
        return "unknown key"
    if problem["type"] == "missing":
        return "is required, and not there"
    if problem["type"] in KEYS_WANTED:
        return "must hold keys with values"
    message = str(problem["msg"]).removeprefix("Value error, ")
    wanted = message.removeprefix("Input should be ")
    if wanted == message:
        return message
    wanted, value = wanted.partition(", unable to")[0], problem["input"]
    shown = repr(value) if isinstance(value, SCALARS) else ""
    return f"must be {wanted}" + (f", not {shown}" if 0 < len(shown) <= LONGEST_SHOWN else "")
