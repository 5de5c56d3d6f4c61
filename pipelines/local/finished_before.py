"""Whether all of a job is done already: found out without an engine, which starts in seconds."""

import time
from collections.abc import Sequence

from ...errors import BeamsplitterError
from ...transforms.records import Receipt
from ..events.elements import resumption_of
from ..job.job_config import JobConfig

# Where it takes longer, the engine is not what takes the time.
LOOK_S = 0.5


def receipts_if_finished(job: JobConfig, elements: Sequence[str]) -> list[Receipt] | None:
    """Receipts of all recordings, if all are finished; None if not, or if a look does not tell."""
    section = job.job_config
    if job.force or job.ping or section.events.outputs or section.upstream:
        return None
    resumption = resumption_of(job)
    receipts = []
    deadline = time.monotonic() + LOOK_S
    for element in elements:
        try:
            found = resumption.pending_or_receipt(element, force=False, renew=True)
        except (BeamsplitterError, OSError):
            return None  # The engine says of what it is a failure.
        if not isinstance(found, Receipt) or time.monotonic() > deadline:
            return None
        receipts.append(found)
    return receipts
