"""Jobs that do recordings of an output tree again, as its last run did them."""

import json
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from ...storage import OutputTree, StorageError
from ...transforms.roots import without_extension
from ..job.job_config import JobConfig, JobFileError, parse_job
from ..outcomes.summary import NAME as RUN_FACTS

# What of a job makes its results.
SECTIONS = (
    *("separation", "stems", "plots", "scores", "labels", "features", "report"),
    *("storage", "limits", "join"),
)


def jobs_again(
    output: OutputTree,
    recordings: Iterable[tuple[str, str]],
    *,
    force: bool,
    sections: dict[str, Any] | None = None,
) -> list[JobConfig]:
    """The jobs of some recordings: one for each folder that recordings lie below.

    Parameters
    ----------
    recordings
        whole path, and folder of the results, of each
    force
        do also what is finished
    sections
        of the job, in the place of those of the last run

    Raises
    ------
    JobFileError
        what the last run was can't be read, or can't be run here
    """
    by_place: dict[tuple[str, str], set[str]] = defaultdict(set)
    for recording, folder in recordings:
        by_place[place_of(recording, folder)].add(recording)
    return [
        job_again(output, root, suffix, paths, force=force, sections=sections)
        for (root, suffix), paths in sorted(by_place.items())
    ]


def job_again(
    output: OutputTree,
    root: str,
    suffix: str,
    recordings: Iterable[str],
    *,
    force: bool,
    sections: dict[str, Any] | None = None,
) -> JobConfig:
    """The job of some recordings that lie below one folder.

    Parameters
    ----------
    root, suffix
        the folder, and what events leave out of the names of its files
    recordings
        their whole paths
    force, sections
        as of `jobs_again`

    Raises
    ------
    JobFileError
        what the last run was can't be read, or can't be run here
    """
    written = _job_of_last_run(output)
    place = {"type": "file", "location": root, "file_suffix": suffix}
    results = {"type": "file", "location": output.location, "force": force}
    events = [{"type": "recording", "location": each} for each in sorted(recordings)]
    plain = {
        **{name: written[name] for name in SECTIONS if name in written},
        **(sections or {}),
        "job_name": "repair" if force else written["job_name"],
        "pipeline_options": {"runner": "DirectRunner", "streaming": False},
        "job_config": {
            "events": {"inputs": events},
            "data": {"inputs": [place], "outputs": [results]},
        },
    }
    return parse_job(plain, source=output.path(RUN_FACTS))


def _job_of_last_run(output: OutputTree) -> dict[str, Any]:
    try:
        return dict(json.loads(output.read(RUN_FACTS))["job"])
    except (StorageError, ValueError, KeyError, TypeError) as error:
        raise JobFileError(
            f"{output.path(RUN_FACTS)}: does not say which job made the results: run the job again "
            "with --force"
        ) from error


def place_of(recording: str, folder: str) -> tuple[str, str]:
    """The folder that a recording is called below, and the suffix of its event's element."""
    depth = folder.count("/") + 1
    parts = recording.split("/")
    name = "/".join(parts[-depth:])
    is_plain = folder in (name, without_extension(name))
    return "/".join(parts[:-depth]), "" if is_plain else name.removeprefix(folder)
