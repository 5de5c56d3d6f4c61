"""What a check of a job's resources found."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import requests
from google.api_core import exceptions as api_exceptions
from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError

from ..services.dataflow_jobs import DataflowError, first_line

Status = Literal["ok", "created", "warning", "missing", "no access", "refused", "can't tell"]
INCOMPLETE: tuple[Status, ...] = ("missing", "no access", "refused")
Check = Callable[[], Iterable["Finding"]]


@dataclass(frozen=True)
class Finding:
    """One resource: what it is, its name, whether it is there, and what there is to do or know."""

    kind: str
    name: str
    status: Status
    remark: str = ""


def failed(kind: str, name: str, error: Exception) -> Finding:
    """The finding about a resource that an error came back for.

    Raises
    ------
    DefaultCredentialsError
        nobody is signed in
    """
    if isinstance(error, DefaultCredentialsError):
        raise error
    if isinstance(error, DataflowError) and isinstance(error.__cause__, Exception):
        error = error.__cause__
    if isinstance(error, api_exceptions.NotFound):
        return Finding(kind, name, "missing", first_line(error.message))
    if isinstance(error, api_exceptions.Forbidden | api_exceptions.Unauthorized):
        return Finding(kind, name, "no access", first_line(error.message))
    if isinstance(error, api_exceptions.BadRequest):
        return Finding(kind, name, "refused", f"{first_line(error.message)}: correct the job file")
    return Finding(kind, name, "can't tell", first_line(error))


def not_made(kind: str, name: str, error: Exception) -> Finding:
    """The finding about a missing resource that was to be made, and could not be."""
    return Finding(kind, name, "missing", f"can't be made: {first_line(error)}")


def lacking(kind: str, name: str, wanted: Iterable[str], granted: Iterable[str]) -> list[Finding]:
    """The finding about permissions that this account does not have, if there are some."""
    missing = sorted(set(wanted) - set(granted))
    if not missing:
        return []
    return [Finding(kind, name, "no access", f"this account lacks {', '.join(missing)}")]


def run_check(kind: str, name: str, check: Check) -> Iterator[Finding]:
    """The findings of a check; its errors are findings, too."""
    try:
        yield from check()
    except (
        api_exceptions.GoogleAPIError,
        GoogleAuthError,
        DataflowError,
        requests.RequestException,
        OSError,
    ) as error:
        yield failed(kind, name, error)
