"""The content of `run.json`."""

import platform
from importlib.metadata import version
from typing import Any

from ..job.job_config import JobConfig

REPORTED_PACKAGES = ("apache-beam", "av", "librosa", "numba", "numpy", "scipy", "soundfile")


def summary_json(
    job: JobConfig,
    recordings: dict[str, int],
    metrics: dict[str, Any],
    *,
    audio_s: float,
    wall_s: float,
    workers: int | None,
) -> dict[str, Any]:
    """The content of `run.json`. `workers` is None where a service has as many as it likes."""
    return {
        "job_name": job.job_name,
        "recordings": recordings,
        "audio_s": round(audio_s, 3),
        "wall_s": round(wall_s, 3),
        "workers": workers,
        "steps": metrics,
        "versions": {
            "beamsplitter": version("beamsplitter"),
            "python": platform.python_version(),
            **{package: version(package) for package in REPORTED_PACKAGES},
        },
        "digests": job.settings.digests(),
    }
