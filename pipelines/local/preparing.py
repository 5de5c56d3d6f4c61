"""What must be there before a job begins on this machine."""

from collections.abc import Callable

from ...models.separators.by_name import fetch, require_usable
from ..events.outputs import prepare_outputs
from ..job.job_config import JobConfig


def require_ready(job: JobConfig, *, load_packages: bool = False) -> None:
    """Find out whether a job fits this machine; nothing is made yet.

    Parameters
    ----------
    load_packages
        try model packages, too, by loading them

    Raises
    ------
    JobFileError
        the job does not fit its models
    ModelError
        a model can't be had, or not run here
    """
    job.resolve()
    for models in job.models:
        require_usable(models, job.separation.device, load_packages=load_packages)


def make_ready(
    job: JobConfig, on_progress: Callable[[str, int, int | None], None] | None = None
) -> None:
    """Make sure that results can be written, and fetch the models.

    Parameters
    ----------
    on_progress
        see `fetch`

    Raises
    ------
    StorageError
        the results can't be written
    InputError
        an output of events can't be used
    ModelError
        a model can't be fetched
    """
    job.output_tree.require_writable()
    prepare_outputs(job)
    for models in job.models:
        fetch(models, on_progress)
