"""Sets of features from the options of a command line."""

from collections.abc import Mapping, Sequence
from typing import Any

from ...audio.features.settings import KINDS
from ..job.job_config import JobFileError


def sets_of(kinds: Sequence[str], options: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The section `features.sets` of a job: each kind with those of the options that it uses.

    Raises
    ------
    JobFileError
        there is no such kind, or none of them uses an option
    """
    for kind in kinds:
        if kind not in KINDS:
            raise JobFileError(f"--kind: is one of {', '.join(KINDS)}, not {kind!r}")
    used = {kind: KINDS[kind].model_fields.keys() - {"kind"} for kind in kinds}
    for name in options:
        if not any(name in names for names in used.values()):
            known = ", ".join(dict.fromkeys(
                each for kind in kinds for each in KINDS[kind].model_fields if each != "kind"
            ))  # fmt: skip
            raise JobFileError(f"--option: {' and '.join(kinds)}: no {name!r}; there are {known}")
    return {
        kind: {name: value for name, value in options.items() if name in used[kind]}
        for kind in kinds
    }
