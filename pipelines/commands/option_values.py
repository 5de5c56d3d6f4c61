"""Options that are given as NAME=value."""

from collections.abc import Iterable
from typing import Any

import yaml

from ..job.job_config import JobFileError


def options_of(pairs: Iterable[str]) -> dict[str, Any]:
    """The values of `--option NAME=value`, each as YAML; JobFileError if one is none."""
    try:
        return {
            name: yaml.safe_load(value)
            for name, value in (pair_of(each, "--option") for each in pairs)
        }
    except yaml.YAMLError as error:
        raise JobFileError(f"--option: the value is no YAML: {error}") from error


def pair_of(text: str, flag: str) -> tuple[str, str]:
    """`NAME=value` in two; JobFileError, with the flag that it was given by, if it is not."""
    name, separator, value = text.partition("=")
    if not separator:
        raise JobFileError(f"{flag} {text}: write it as NAME=value")
    return name, value
