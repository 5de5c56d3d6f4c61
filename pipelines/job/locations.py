"""Paths as people write them in job files and on the command line."""

import os
import urllib.parse
import urllib.request
from typing import Annotated

from pydantic import AfterValidator

from ...storage import scheme_of


def expanded(path: str) -> str:
    """A path with its `~` filled in, or the path of a `file://` address.

    Raises
    ------
    ValueError
        it lies on the web
    """
    scheme = scheme_of(path).lower()
    if scheme in ("http://", "https://"):
        raise ValueError(
            f"{path}: recordings and results can't lie on the web: download what is there, or put "
            "it into a bucket, and name that"
        )
    if scheme == "file://":
        return urllib.request.url2pathname(urllib.parse.urlsplit(path).path)
    return path if scheme else os.path.expanduser(path)


Location = Annotated[str, AfterValidator(expanded)]
