"""What ends a run for a reason that is no recording's, and the exit codes of engines."""

import re

from ...models.separators.base import UnusableModelError
from ...storage import UnusableStorageError

FAILED_EXIT_CODE = 1  # of an engine: an exception
UNUSABLE_EXIT_CODE = 3  # of an engine: storage can't be used
SET_UP_EXIT_CODE = 4  # of an engine: a model can't be loaded

UNUSABLE = {UnusableStorageError: UNUSABLE_EXIT_CODE, UnusableModelError: SET_UP_EXIT_CODE}


def what_is_unusable(error: Exception) -> tuple[int, str] | None:
    """What a step said of storage or a model that can't be used, and the exit code for it; None if
    a run failed otherwise.
    """
    for kind, code in UNUSABLE.items():
        # The runner hands on the text of an error in a step only.
        said = re.findall(rf"{kind.__name__}: (.*?)(?: \[while running|$)", str(error), re.M)
        if isinstance(error, kind):
            return code, str(error)
        if said:
            return code, said[-1]
    return None
