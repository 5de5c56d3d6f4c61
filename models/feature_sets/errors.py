"""What is wrong with a feature set, and what its readers raise for content that is not whole."""

import contextlib
import errno
import struct
import tokenize
import zipfile
from collections.abc import Iterator

from ...errors import BeamsplitterError


class FeatureSetError(BeamsplitterError):
    """A feature set, or a file of one, that can't be written or is not whole."""


# Of the parsers below: of zip files, of headers in Python's syntax, of JSON, and of texts.
DAMAGED = (
    *(ValueError, TypeError, LookupError, AttributeError, OverflowError, RuntimeError),
    *(EOFError, MemoryError, struct.error, tokenize.TokenError, zipfile.BadZipFile),
)


@contextlib.contextmanager
def told(name: str, advice: str) -> Iterator[None]:
    """Turn what parsers raise for damaged content into an error that names the file.

    What storage raises passes through: that content may be whole.

    Raises
    ------
    FeatureSetError
        in place of what was raised
    """
    try:
        yield
    except DAMAGED as error:
        raise FeatureSetError(f"{name}: is not whole: {error}: {advice}") from error
    except OSError as error:
        # Arrow's, or a seek to where an offset in the content points; others are the storage's.
        if type(error) is not OSError or error.errno not in (None, errno.EINVAL):
            raise
        raise FeatureSetError(f"{name}: is not whole: {error}: {advice}") from error
