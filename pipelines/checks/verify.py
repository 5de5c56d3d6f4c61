"""Checks that all that a job names is there and may be used, before it costs time or money."""

import errno
import functools
import glob
import json
import os
import sys
from collections import defaultdict
from collections.abc import Iterator
from importlib.metadata import version

from google.auth.credentials import Credentials
from google.auth.exceptions import DefaultCredentialsError
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ...models.separators.by_name import SeparatorName, missing
from ...storage import GCS_SCHEME, WORK_FOLDER, StorageError, absolute, gcs, scheme_of
from ...storage.file_facts import HOW_TO_SIGN_IN, SCRATCH_DAYS
from ..job.event_config import BigQueryEventOutput, BigQueryEvents, PubSubEventOutput, PubSubEvents
from ..job.job_config import JobConfig
from ..job.resources import NamedPlace, places_of
from ..services.dataflow_jobs import DataflowError, credentials_of
from .cloud_checks import PUBLISHING, SUBSCRIBING, CloudChecks
from .findings import INCOMPLETE, Check, Finding, run_check

STYLES = {
    "ok": "green",
    "created": "green",
    "warning": "yellow",
    "missing": "bold red",
    "no access": "bold red",
    "refused": "bold red",
    "can't tell": "yellow",
}
PLAIN_WIDTH = 200
WHOSE_PERMISSIONS = "Permissions are those of this account, not those of the workers' account."
DECODERS = ("soundfile", "av")


def verify_job(job: JobConfig, *, create: bool = False) -> list[Finding]:
    """Check the resources of a job.

    Parameters
    ----------
    create
        make missing buckets, topics and subscriptions, and remove scratch files that are
        nobody's; nothing else is changed or deleted

    Raises
    ------
    JobFileError
        the job can't run on Dataflow, or behind a job server, as it stands
    DataflowError
        there are no credentials
    """
    try:
        return list(_findings(job, create))
    except DefaultCredentialsError as error:
        raise DataflowError(f"no Google credentials: {HOW_TO_SIGN_IN}") from error


def complete(findings: list[Finding]) -> bool:
    """Whether nothing is missing, as far as can be told."""
    return not any(each.status in INCOMPLETE for each in findings)


def print_findings(findings: list[Finding], *, log_format: str) -> None:
    """Print a table, or a JSON object a line."""
    if log_format == "json":
        for each in findings:
            print(json.dumps(vars(each), ensure_ascii=False))
        return
    console = Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH)
    table = Table(box=box.SIMPLE)
    for column in ("what", "name", "state"):
        table.add_column(column, overflow="fold")
    for each in findings:
        state = Text(each.status, style=STYLES[each.status])
        table.add_row(Text(each.kind), Text(each.name), state)
    console.print(table)
    # Below the table and in one line each, since there are commands to copy among them.
    for each in findings:
        if each.remark:
            console.print(Text(f"{each.name}: {each.remark}"), soft_wrap=True)
    if any(each.kind == "Dataflow" for each in findings):
        console.print(WHOSE_PERMISSIONS)


def _findings(job: JobConfig, create: bool) -> Iterator[Finding]:
    credentials = None
    if job.pipeline_options.runner == "DataflowRunner":
        from ..services.dataflow import dataflow_options

        dataflow_options(job)
        credentials = credentials_of(job.pipeline_options)
    if job.pipeline_options.runner == "PortableRunner":
        from ..services.portable import portable_options
        from .server_checks import server_findings

        portable_options(job)
        yield from server_findings(job)
    for kind, name, check in _checks(job, credentials, create):
        yield from run_check(kind, name, check)


def _checks(
    job: JobConfig, credentials: Credentials | None, create: bool
) -> Iterator[tuple[str, str, Check]]:
    checks = CloudChecks(job, credentials, create)
    buckets: dict[str, list[NamedPlace]] = defaultdict(list)
    for place in places_of(job):
        if place.location.startswith(GCS_SCHEME):
            buckets[gcs.split(place.location)[0]].append(place)
        elif scheme_of(place.location):
            yield place.use, place.location, functools.partial(_other_place, place)
        else:
            yield place.use, place.location, functools.partial(_local_place, place)
    for name, places in buckets.items():
        yield "bucket", f"{GCS_SCHEME}{name}", functools.partial(checks.bucket, name, places)
        # Events and recordings are often the same folder: one line is enough.
        for place in {(each.use, each.location): each for each in places}.values():
            if place.access == "read":
                yield place.use, place.location, functools.partial(checks.objects, place)
    for name in dict.fromkeys(each.location for each in job.job_config.data.outputs):
        if name.startswith(GCS_SCHEME):
            yield (
                "scratch files",
                name,
                functools.partial(_old_scratch, job, absolute(name), create),
            )
    yield from _event_checks(job, checks)
    if job.separation.runs_models:
        for separator in job.separation.separators:
            yield "separator", separator.name, functools.partial(_separator, separator)
    for labeler in job.labels.labelers:
        yield "labels", labeler.name, functools.partial(_separator, labeler)
    if credentials is None:
        yield "decoders", " ".join(DECODERS), _decoders
    else:
        yield from _dataflow_checks(job, credentials)


def _event_checks(job: JobConfig, checks: CloudChecks) -> Iterator[tuple[str, str, Check]]:
    events, partial = job.job_config.events, functools.partial
    for each in events.inputs:
        if isinstance(each, PubSubEvents):
            if each.topic:
                wanted = () if each.subscription else SUBSCRIBING
                yield "topic", each.topic, partial(checks.topic, each.topic, "events", wanted)
            if each.subscription:
                check = partial(checks.subscription, each.subscription, each.topic)
                yield "subscription", each.subscription, check
        elif isinstance(each, BigQueryEvents):
            yield "table", each.location, partial(checks.table_read, each)
    for topic, use in (
        (job.job_config.upstream and job.job_config.upstream.topic, "to the upstream job"),
        (job.streaming.dead_letter_topic, "failed messages"),
    ):
        if topic:
            yield "topic", topic, partial(checks.topic, topic, use, PUBLISHING)
    for output in events.outputs:
        if isinstance(output, PubSubEventOutput):
            check = partial(checks.topic, output.topic, "events written", PUBLISHING)
            yield "topic", output.topic, check
        elif isinstance(output, BigQueryEventOutput):
            yield "table", output.location, partial(checks.table_written, output)


def _dataflow_checks(job: JobConfig, credentials: Credentials) -> Iterator[tuple[str, str, Check]]:
    from .dataflow_checks import DataflowChecks

    checks, settings = DataflowChecks(job, credentials), job.pipeline_options
    yield "Dataflow", checks.jobs.project, checks.service
    if settings.sdk_container_image:
        image = settings.sdk_container_image
        yield "image", image, functools.partial(checks.image, image)
    if settings.service_account_email:
        email = settings.service_account_email
        yield "service account", email, functools.partial(checks.service_account, email)
    yield "quota", checks.jobs.region, checks.quotas


def _separator(separator: SeparatorName) -> Iterator[Finding]:
    """Whether its files are at hand; that it exists was found out when the job was read."""
    if not missing((separator,)):
        yield Finding("separator", separator.name, "ok")
        return
    remark = (
        "is not in the cache of this machine: where the job runs it is fetched before it begins"
    )
    yield Finding("separator", separator.name, "warning", remark)


def _old_scratch(job: JobConfig, location: str, create: bool) -> Iterator[Finding]:
    """Scratch files that runs which were killed have left on `gs://`."""
    files, work = gcs.GcsFiles(job.file_storage.access), f"{location}/{WORK_FOLDER}"
    try:
        old = files.old_scratch(work)
        for name in old if create else ():
            files.remove(f"{work}/{name}", work)
    except StorageError as error:
        # The check of the bucket tells of one that is not there.
        if error.errno != errno.ENOENT:
            raise
        return
    count = f"{len(old)} of runs that were killed, older than {SCRATCH_DAYS} days"
    if old and create:
        yield Finding("scratch files", work, "ok", f"removed {count}")
    elif old:
        remark = f"{count}: --create removes them, as the next run does"
        yield Finding("scratch files", work, "warning", remark)


def _other_place(place: NamedPlace) -> Iterator[Finding]:
    yield Finding(
        place.use, place.location, "can't tell", "only gs:// and this machine are checked"
    )


def _local_place(place: NamedPlace) -> Iterator[Finding]:
    path = absolute(place.location)
    if place.access == "write":
        yield _writable(place, path)
    elif glob.has_magic(path) and not os.path.lexists(path):
        found = bool(next(glob.iglob(path, recursive=True), None))
        remark = "" if found else f"{place.key}: nothing there fits"
        yield Finding(place.use, place.location, "ok" if found else "missing", remark)
    elif not os.path.exists(path):
        yield Finding(place.use, place.location, "missing", f"{place.key}: no such file or folder")
    elif not os.access(path, os.R_OK):
        yield Finding(place.use, place.location, "no access", "check its permissions")
    elif place.kind == "folder" and os.path.isdir(path) and not os.listdir(path):
        yield Finding(place.use, place.location, "warning", "holds nothing yet")
    else:
        yield Finding(place.use, place.location, "ok")


def _writable(place: NamedPlace, path: str) -> Finding:
    """Whether a folder, or the one that it will be made in, can be written to."""
    folder = path
    while not os.path.lexists(folder):
        folder = os.path.dirname(folder)
    if not os.path.isdir(folder):
        return Finding(place.use, place.location, "no access", f"{folder} is not a folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        remark = f"{folder} can't be written to: check its permissions"
        return Finding(place.use, place.location, "no access", remark)
    return Finding(place.use, place.location, "ok", "" if folder == path else "will be made")


def _decoders() -> Iterator[Finding]:
    import av
    import soundfile

    yield Finding("decoder", "soundfile", "ok", soundfile.__libsndfile_version__)
    yield Finding("decoder", "av", "ok", f"{version('av')}, FFmpeg {av.ffmpeg_version_info}")
