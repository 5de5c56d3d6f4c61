"""Whether the servers of a job for a Beam job server answer."""

from collections.abc import Iterator

from ..job.job_config import JobConfig
from ..services.portable import answers
from .findings import Finding


def server_findings(job: JobConfig) -> Iterator[Finding]:
    """Whether the job server answers, and the worker pool, as far as it can be seen from here."""
    settings = job.pipeline_options
    endpoint = settings.job_endpoint or ""
    if answers(endpoint):
        yield Finding("job server", endpoint, "ok")
    else:
        yield Finding("job server", endpoint, "missing", "nothing answers there: start it")
    if settings.environment_type == "EXTERNAL" and isinstance(settings.environment_config, str):
        pool = settings.environment_config
        remark = "" if answers(pool) else "does not answer here; the runner must reach it"
        yield Finding("worker pool", pool, "warning" if remark else "ok", remark)
