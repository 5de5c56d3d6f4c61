"""The content of `run.json`."""

import datetime
from dataclasses import dataclass
from typing import Any

from ...transforms.plain import to_plain, utc_text
from ...transforms.versions import versions
from ..job.job_config import JobConfig

NAME = "run.json"
FORMAT = 2


@dataclass(frozen=True)
class RunFacts:
    """What a run did, with what.

    Attributes
    ----------
    recordings
        how many came to which end
    audio_s
        seconds of audio that were worked on
    began, ended
        as UTC in ISO 8601
    workers
        processes; None where a service has as many as it likes
    settings
        what made the files of each branch, in words
    digests
        of these settings
    job
        the job as it was written
    steps
        counters and distributions of the steps
    versions
        of the packages
    """

    format: int
    job_name: str
    recordings: dict[str, int]
    audio_s: float
    began: str
    ended: str
    wall_s: float
    workers: int | None
    settings: dict[str, dict[str, Any]]
    digests: dict[str, str]
    job: dict[str, Any]
    steps: dict[str, Any]
    versions: dict[str, str]


def summary_json(
    job: JobConfig,
    recordings: dict[str, int],
    metrics: dict[str, Any],
    *,
    audio_s: float,
    wall_s: float,
    workers: int | None,
) -> dict[str, Any]:
    """The content of the `run.json` of a run that ends now, after so many seconds."""
    ended = datetime.datetime.now(datetime.UTC)
    facts = RunFacts(
        format=FORMAT,
        recordings=recordings,
        audio_s=round(audio_s, 3),
        began=utc_text(ended - datetime.timedelta(seconds=wall_s)),
        ended=utc_text(ended),
        wall_s=round(wall_s, 3),
        workers=workers,
        steps=metrics,
        **facts_of_job(job),
    )
    return to_plain(facts)


def facts_of_job(job: JobConfig) -> dict[str, Any]:
    """What `run.json` says of a job, whatever comes of it."""
    return {
        "job_name": job.job_name,
        "settings": {
            branch: settings
            for branch, settings in job.settings.described().items()
            if branch in job.settings.branches
        },
        "digests": job.settings.digests(),
        "job": job.model_dump(mode="json", exclude_unset=True),
        "versions": versions(of_models=job.runs_models),
    }
