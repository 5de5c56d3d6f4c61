"""From the bytes of an event to a settled Klio message: which messages a job processes.

A message names its recipients: anyone, or a list of jobs (`limited`). A job that published a
message to the job before it, because its own input was missing, stands in `trigger_children_of`;
when the message comes back to it, the recipients become anyone, so that the jobs after it go on.
Version 1 has no recipients but `downstream`, a list of jobs that is empty for any job.
"""

import datetime
import enum
import json
import logging
import os
from collections.abc import Iterable, Mapping
from typing import Any

from apache_beam.metrics import Metrics
from apache_beam.pvalue import TaggedOutput

from .klio_message import (
    KlioJob,
    KlioMessage,
    KlioMessageError,
    Version,
    new_message,
    parse_message,
)
from .steps import Step

PASS_THROUGH = "pass_through"
NOT_FOR_US = "not_for_us"
logger = logging.getLogger("beamsplitter")


class Decision(enum.Enum):
    """What a job does with a message."""

    PROCESS = "process"
    PING = "ping"
    OTHER_RECIPIENTS = "other recipients"
    NO_RECIPIENTS = "no recipients"


class AcceptMessages(Step):
    """Events to the settled bytes of the messages that this job processes.

    An event is the bytes of a message, or a `PubsubMessage`, whose attributes tell what kind of
    Cloud Storage notification it is. A settled message has its version, recipients and `force` as
    this job understands them, and this job in its audit log.

    Pings go, settled, to the output `pass_through`. Messages for other jobs go to the output
    `not_for_us` with their metadata untouched; so do messages about the objects of notifications
    that tell of anything but a new object.

    A message's own `ping` or `force` wins over the job's only if it is true: in Klio's format
    (proto3) a false flag can't be told from one that was never set.

    Parameters
    ----------
    job : bytes of the `KlioJob` that messages name this job by
    allow_non_klio_messages : take bytes that are no message for the element of one, and Cloud
        Storage notifications for events about the object
    ping : take every message for a ping
    force : have finished recordings done again
    """

    def __init__(
        self,
        job: bytes,
        *,
        allow_non_klio_messages: bool = False,
        ping: bool = False,
        force: bool = False,
    ) -> None:
        self.job = KlioJob.FromString(job)
        self.allow_non_klio_messages = allow_non_klio_messages
        self.ping = ping
        self.force = force

    def apply(self, record: Any) -> Iterable[Any]:
        """One event to the bytes of one message, tagged unless it is to be processed."""
        data, attributes = _data_and_attributes(record)
        notification = None
        if self.allow_non_klio_messages:
            notification = parse_notification(data, attributes)
        if notification is None:
            message = parse_message(data, allow_non_klio=self.allow_non_klio_messages)
        else:
            element, is_new = notification
            message = new_message(element)
            if not is_new:
                self._count("notification-skipped")
                return [TaggedOutput(NOT_FOR_US, message.SerializeToString())]
        return [self._route(message)]

    def _route(self, message: KlioMessage) -> Any:
        decision = decide(message, self.job, ping=self.ping)
        if decision in (Decision.OTHER_RECIPIENTS, Decision.NO_RECIPIENTS):
            self._count("kmsg-drop-not-recipient")
            if decision is Decision.NO_RECIPIENTS:
                logger.warning(
                    "%s: dropped, the message says of no job that it shall process it",
                    os.fsdecode(message.data.element),
                )
            return TaggedOutput(NOT_FOR_US, message.SerializeToString())
        now = datetime.datetime.now(datetime.UTC)
        settled = settle(message, self.job, force=self.force, now=now).SerializeToString()
        if decision is Decision.PING:
            self._count("kmsg-skip-ping")
            return TaggedOutput(PASS_THROUGH, settled)
        if not message.data.element:
            raise KlioMessageError("The message has no element: it doesn't say what to work on.")
        self._count("kmsg-process-ping")
        return settled

    def _count(self, name: str) -> None:
        Metrics.counter(type(self).__name__, name).inc()

    def identify(self, record: Any) -> dict[str, Any]:
        """The element of a message, or the beginning of what is none."""
        data, _ = _data_and_attributes(record)
        try:
            return {"element": os.fsdecode(parse_message(data).data.element)}
        except KlioMessageError:
            return {"element": bytes(data[:200]).decode(errors="backslashreplace")}


def _data_and_attributes(record: Any) -> tuple[bytes, Mapping[str, str]]:
    if isinstance(record, bytes):
        return record, {}
    return record.data, record.attributes or {}


def decide(message: KlioMessage, job: KlioJob, *, ping: bool = False) -> Decision:
    """What `job` does with a message whose version is settled.

    Parameters
    ----------
    ping : take the message for a ping even if it is none
    """
    if message.version == Version.V2:
        decision = _decide_by_recipients(message, job)
    else:
        downstream = message.metadata.downstream
        is_meant = not downstream or is_listed(job, downstream)
        decision = Decision.PROCESS if is_meant else Decision.OTHER_RECIPIENTS
    if decision is Decision.PROCESS and (ping or message.metadata.ping):
        return Decision.PING
    return decision


def _decide_by_recipients(message: KlioMessage, job: KlioJob) -> Decision:
    intended = message.metadata.intended_recipients
    match intended.WhichOneof("recipients"):
        case None:
            return Decision.NO_RECIPIENTS
        case "limited" if not is_listed(job, intended.limited.recipients):
            return Decision.OTHER_RECIPIENTS
    return Decision.PROCESS


def is_listed(job: KlioJob, jobs: Iterable[KlioJob]) -> bool:
    """Whether a job of the same name and project is among `jobs`."""
    return any(
        each.job_name == job.job_name and each.gcp_project == job.gcp_project for each in jobs
    )


def settle(
    message: KlioMessage, job: KlioJob, *, force: bool, now: datetime.datetime
) -> KlioMessage:
    """A copy of a message that `job` accepts, as the steps of the job and the next jobs see it.

    Parameters
    ----------
    force : have finished recordings done again even if the message doesn't ask for it
    now : time of the audit log's new item
    """
    settled = KlioMessage()
    settled.CopyFrom(message)
    metadata = settled.metadata
    # Asking for `limited` would create it.
    if metadata.intended_recipients.HasField("limited"):
        limited = metadata.intended_recipients.limited
        if limited.HasField("trigger_children_of") and is_listed(
            job, [limited.trigger_children_of]
        ):
            metadata.intended_recipients.anyone.SetInParent()
    metadata.force = metadata.force or force
    add_audit_item(settled, job, now=now)
    return settled


def add_audit_item(message: KlioMessage, job: KlioJob, *, now: datetime.datetime) -> None:
    """Put a job at the end of a message's audit log, in place."""
    item = message.metadata.job_audit_log.add()
    item.timestamp.FromDatetime(now)
    item.klio_job.job_name = job.job_name
    item.klio_job.gcp_project = job.gcp_project


def parse_notification(data: bytes, attributes: Mapping[str, str]) -> tuple[str, bool] | None:
    """The URI of a Cloud Storage notification's object, and whether the object is new.

    The attributes say what happened. Where they are lost, the object resource in the data counts
    as that of a new object unless it says when it was deleted. A new object whose name ends with
    "/" stands for a folder and does not count as new.

    Returns
    -------
    None if it is no notification.

    Raises
    ------
    KlioMessageError : the object resource doesn't name its bucket and object
    """
    bucket: Any
    name: Any
    if {"eventType", "bucketId", "objectId"} <= attributes.keys():
        bucket, name = attributes["bucketId"], attributes["objectId"]
        is_new = attributes["eventType"] == "OBJECT_FINALIZE"
    else:
        resource = _object_resource(data)
        if resource is None:
            return None
        bucket, name = resource.get("bucket"), resource.get("name")
        is_new = "timeDeleted" not in resource
    if not (isinstance(bucket, str) and isinstance(name, str) and bucket and name):
        raise KlioMessageError(f"A Cloud Storage notification without bucket and name: {data!r}")
    return f"gs://{bucket}/{name}", is_new and not name.endswith("/")


def _object_resource(data: bytes) -> dict[str, Any] | None:
    if not data.lstrip().startswith(b"{"):
        return None
    try:
        resource = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return resource if resource.get("kind") == "storage#object" else None
