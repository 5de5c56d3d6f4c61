"""From the bytes of an event to a settled Klio message: which messages a job processes.

A message names its recipients: anyone, or a list of jobs (`limited`). A job that published a
message to the job before it, because its own input was missing, stands in `trigger_children_of`;
when the message comes back to it, the recipients become anyone, so that the jobs after it go on.
Version 1 has no recipients but `downstream`, a list of jobs that is empty for any job.
"""

import datetime
import enum
import logging
import os
from collections.abc import Iterable, Mapping
from typing import Any

from apache_beam.pvalue import TaggedOutput

from ..audio.extensions import is_audio_name
from ..storage.file_facts import GCS_SCHEME
from .klio.message import (
    KlioJob,
    KlioMessage,
    KlioMessageError,
    Version,
    new_message,
    parse_message,
)
from .notifications import parse_notification
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
    that tell of anything but a new audio file: of pictures, manifests and hidden files, as those
    of folders are passed over when they are listed.

    A message's own `ping` or `force` wins over the job's only if it is true: in Klio's format
    (proto3) a false flag can't be told from one that was never set.

    Parameters
    ----------
    job
        bytes of the `KlioJob` that messages name this job by
    allow_non_klio_messages
        take bytes that are no message for the element of one, and Cloud
        Storage notifications for events about the object
    ping
        take every message for a ping
    force
        have finished recordings done again
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
            if not is_new or not is_audio_name(element.removeprefix(GCS_SCHEME)):
                self.count("notification-skipped")
                return [TaggedOutput(NOT_FOR_US, message.SerializeToString())]
        return [self._route(message)]

    def _route(self, message: KlioMessage) -> Any:
        decision = decide(message, self.job, ping=self.ping)
        if decision in (Decision.OTHER_RECIPIENTS, Decision.NO_RECIPIENTS):
            self.count("kmsg-drop-not-recipient")
            if decision is Decision.NO_RECIPIENTS:
                logger.warning(
                    "%s: dropped, the message says of no job that it shall process it",
                    os.fsdecode(message.data.element),
                )
            return TaggedOutput(NOT_FOR_US, message.SerializeToString())
        now = datetime.datetime.now(datetime.UTC)
        settled = settle(message, self.job, force=self.force, now=now).SerializeToString()
        if decision is Decision.PING:
            self.count("kmsg-skip-ping")
            return TaggedOutput(PASS_THROUGH, settled)
        if not message.data.element:
            raise KlioMessageError(
                "The message has no element: it doesn't say what to work on. Publish one that "
                "names a recording, as `beamsplitter publish` does."
            )
        self.count("kmsg-process-ping")
        return settled

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
    ping
        take the message for a ping even if it is none
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
    force
        have finished recordings done again even if the message doesn't ask for it
    now
        time of the audit log's new item
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
