"""Options of commands that are written NAME=value."""

from collections.abc import Iterable
from typing import Any

import yaml

from ..job.job_config import JobFileError


def pair(text: str, flag: str) -> tuple[str, str]:
    """Name and value.

    Raises
    ------
    JobFileError
        there is no `=`
    """
    name, separator, value = text.partition("=")
    if not separator:
        raise JobFileError(f"{flag} {text}: write it as NAME=value")
    return name, value


def separator_options(pairs: Iterable[str]) -> dict[str, Any]:
    """The options of a separator: values are read as YAML has them.

    Raises
    ------
    JobFileError
        one is no NAME=value, or no YAML
    """
    try:
        return {
            name: yaml.safe_load(value)
            for name, value in (pair(each, "--option") for each in pairs)
        }
    except yaml.YAMLError as error:
        raise JobFileError(f"--option: the value is no YAML: {error}") from error
