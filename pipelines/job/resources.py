"""The folders and files that a job names, here or on `gs://`."""

import glob
from dataclasses import dataclass
from typing import Literal

from .event_config import (
    AvroEventOutput,
    AvroEvents,
    FileEventOutput,
    FileEvents,
    FolderEvents,
    GlobEvents,
    RecordingEvents,
)
from .job_config import JobConfig


@dataclass(frozen=True)
class NamedPlace:
    """A place, the key of the job file that names it, and what is done there.

    `kind` is what must be there: one file, a folder of files, or nothing yet.
    """

    key: str
    location: str
    use: str
    access: Literal["read", "write"]
    kind: Literal["file", "folder", "nothing"]


def places_of(job: JobConfig) -> list[NamedPlace]:
    """All places that a job's events, recordings, results and temporary files lie in."""
    events, data, settings = (
        job.job_config.events,
        job.job_config.data,
        job.pipeline_options,
    )
    places = []
    for index, each in enumerate(events.inputs):
        key = f"job_config.events.inputs.{index}.location"
        if isinstance(each, RecordingEvents):
            places.append(NamedPlace(key, each.location, "recording", "read", "file"))
        elif isinstance(each, FileEvents):
            is_pattern = glob.has_magic(each.location)
            places.append(
                NamedPlace(key, each.location, "events", "read", "folder" if is_pattern else "file")
            )
        elif isinstance(each, FolderEvents | GlobEvents):
            places.append(NamedPlace(key, each.location, "recordings", "read", "folder"))
        elif isinstance(each, AvroEvents):
            if not each.location:
                key = f"job_config.events.inputs.{index}.file_pattern"
            location = each.location or each.file_pattern
            places.append(NamedPlace(key, location, "events", "read", "folder"))
    for index, output in enumerate(events.outputs):
        if isinstance(output, FileEventOutput | AvroEventOutput):
            key = f"job_config.events.outputs.{index}.location"
            location = output.location
            if isinstance(output, AvroEventOutput) and not location:
                key = f"job_config.events.outputs.{index}.file_path_prefix"
                location = output.file_path_prefix
            places.append(NamedPlace(key, location, "events written", "write", "nothing"))
    if job.scores.root:
        places.append(
            NamedPlace("scores.references", job.scores.root, "true stems", "read", "folder")
        )
    for index, folder in enumerate(data.inputs):
        key = f"job_config.data.inputs.{index}.location"
        places.append(NamedPlace(key, folder.location, "recordings", "read", "folder"))
    for index, results in enumerate(data.outputs):
        key = f"job_config.data.outputs.{index}.location"
        places.append(NamedPlace(key, results.location, "results", "write", "nothing"))
    for name in ("temp_location", "staging_location"):
        location = getattr(settings, name)
        if location:
            key = f"pipeline_options.{name}"
            places.append(NamedPlace(key, location, "temporary files", "write", "nothing"))
    return places
