"""Small steps for graphs of Klio messages, as Klio has them: count, log, drop, call upstream.

    messages | beam.ParDo(KlioDebugMessage())
    not_found | beam.ParDo(KlioTriggerUpstream("upstream-job", "my-project")) | WriteToPubSub(topic)

Each takes and gives the bytes of messages. `bind_context` tells them the job. What can't be read
is handled as by `handle_klio`: logged as an error, counted (`kmsg-drop-error`), and handed to the
output tagged "drop" as it came. Counters are in the namespace of the class.
"""

import datetime
import logging
from collections.abc import Iterable, Iterator

import apache_beam as beam
from apache_beam.pvalue import TaggedOutput

from ..accepting import add_audit_item, is_listed
from .context import KlioContext
from .decorators import set_klio_context
from .message import KlioJob, KlioMessage, KlioMessageError, Version, parse_message

_SHOWN_PAYLOAD_BYTES = 100


class _MessageDoFn(beam.DoFn):
    """A step that sees whole messages, with their metadata."""

    _klio: KlioContext

    def apply(self, message: KlioMessage, encoded: bytes) -> Iterable[bytes]:
        """The work on one message: gives those that go on."""
        raise NotImplementedError

    @set_klio_context
    def process(self, encoded: bytes) -> Iterator[bytes]:
        """Beam's entry: `apply`, or the output "drop"."""
        context, name = self._klio, type(self).__name__
        try:
            message = parse_message(encoded, allow_non_klio=context.allow_non_klio_messages)
            outputs = list(self.apply(message, encoded))
        except Exception:
            context.metrics.counter("kmsg-drop-error", transform=name).inc()
            context.logger.exception("%s drops the message %r", name, encoded[:200])
            yield TaggedOutput("drop", encoded)
            return
        yield from outputs

    def _count(self, name: str) -> None:
        self._klio.metrics.counter(name, transform=type(self).__name__).inc()


class KlioMessageCounter(beam.DoFn):
    """Counts messages and hands them on unread.

    Parameters
    ----------
    suffix
        the counter is called `kmsg-<suffix>`.
    bind_transform
        the namespace of the counter.
    """

    _klio: KlioContext

    def __init__(self, suffix: str, bind_transform: str) -> None:
        self.suffix = suffix
        self.bind_transform = bind_transform

    @set_klio_context
    def process(self, encoded: bytes) -> Iterator[bytes]:
        """The same bytes."""
        self._klio.metrics.counter(f"kmsg-{self.suffix}", transform=self.bind_transform).inc()
        yield encoded


class KlioDrop(_MessageDoFn):
    """Ends the way of a message: logs it, counts `kmsg-drop`, gives nothing."""

    def apply(self, message: KlioMessage, encoded: bytes) -> Iterable[bytes]:
        """Nothing."""
        self._count("kmsg-drop")
        self._klio.logger.info("KlioDrop drops the message %r", message.data.element)
        return ()


class KlioDebugMessage(_MessageDoFn):
    """Logs messages, counts `kmsg-debug`, and hands them on unchanged.

    Parameters
    ----------
    prefix
        the log message begins with it.
    log_level
        name or number of a log level.

    Raises
    ------
    ValueError
        there is no such log level.
    """

    def __init__(self, prefix: str = "DEBUG: ", log_level: str | int = "INFO") -> None:
        self.prefix = prefix
        self.log_level = _log_level(log_level)

    def apply(self, message: KlioMessage, encoded: bytes) -> Iterable[bytes]:
        """The same bytes."""
        self._count("kmsg-debug")
        self._klio.logger.log(self.log_level, "%s%s", self.prefix, _readable(message))
        return (encoded,)


class KlioUpdateAuditLog(_MessageDoFn):
    """Puts this job and the time into the audit log of messages, and logs it at level DEBUG.

    `AcceptMessages` has done so already for what a job reads.
    """

    def apply(self, message: KlioMessage, encoded: bytes) -> Iterable[bytes]:
        """The message with one more item in its audit log."""
        add_audit_item(message, self._klio.job, now=datetime.datetime.now(datetime.UTC))
        jobs = [item.klio_job for item in message.metadata.job_audit_log]
        self._klio.logger.debug(
            "Audit log of %r: %s (current job)",
            message.data.element,
            " -> ".join(f"{job.gcp_project}::{job.job_name}" for job in jobs),
        )
        return (message.SerializeToString(),)


class KlioTriggerUpstream(_MessageDoFn):
    """Makes messages for the job before this one, whose output this job misses.

    The upstream job and this one become recipients, and this job `trigger_children_of`: when the
    upstream job is done and the message comes back, this job processes it and the jobs after it go
    on. Counts `kmsg-trigger-upstream`. A sink such as WriteToPubSub publishes the bytes.

    Parameters
    ----------
    upstream_job_name
        name of the upstream job.
    upstream_project
        its GCP project.
    log_level
        name or number of the level at which each message is logged; None for no log.

    Raises
    ------
    ValueError
        there is no such log level, or the project is a topic, as Klio has it there.
    """

    def __init__(
        self,
        upstream_job_name: str,
        upstream_project: str,
        log_level: str | int | None = "INFO",
    ) -> None:
        if "/" in upstream_project:
            raise ValueError(
                f"upstream_project is the id of a project, not {upstream_project!r}: a topic is "
                "given to the WriteToPubSub behind this step."
            )
        self.upstream_job = KlioJob(job_name=upstream_job_name, gcp_project=upstream_project)
        self.log_level = None if log_level is None else _log_level(log_level)

    def apply(self, message: KlioMessage, encoded: bytes) -> Iterable[bytes]:
        """The message for the upstream job."""
        if message.version != Version.V2:
            raise KlioMessageError("Only a message of version 2 can trigger an upstream job.")
        current_job = KlioJob(
            job_name=self._klio.job.job_name, gcp_project=self._klio.job.gcp_project
        )
        limited = message.metadata.intended_recipients.limited
        for job in (self.upstream_job, current_job):
            if not is_listed(job, limited.recipients):
                limited.recipients.append(job)
        limited.trigger_children_of.CopyFrom(current_job)
        self._count("kmsg-trigger-upstream")
        if self.log_level is not None:
            self._klio.logger.log(
                self.log_level,
                "Triggering upstream %s for %r",
                self.upstream_job.job_name,
                message.data.element,
            )
        return (message.SerializeToString(),)


def _log_level(level: str | int) -> int:
    if isinstance(level, int):
        return level
    levels = logging.getLevelNamesMapping()
    if level.upper() not in levels:
        raise ValueError(f"log_level is one of {', '.join(levels)}, or a number, not {level!r}.")
    return levels[level.upper()]


def _readable(message: KlioMessage) -> str:
    """The message as text, with the beginning of a long payload only."""
    size = len(message.data.payload)
    if size <= _SHOWN_PAYLOAD_BYTES:
        return str(message)
    shown = KlioMessage()
    shown.CopyFrom(message)
    shown.data.payload = message.data.payload[:_SHOWN_PAYLOAD_BYTES]
    return f"{shown}(payload of {size} bytes, cut)"
