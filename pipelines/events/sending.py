"""Publishing events: a Klio message for each element, to the topic that a job reads."""

import contextlib
import dataclasses
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, BinaryIO

from google.api_core import exceptions as api_exceptions
from google.api_core.retry import Retry, if_exception_type
from google.cloud import pubsub_v1
from google.cloud.pubsub_v1.publisher.exceptions import MessageTooLargeError

from ...transforms.klio.message import KlioJob, new_message
from ..job.event_config import DELETED_TOPIC, PubSubEvents
from ..job.job_config import JobConfig, JobFileError
from .listing import InputError
from .pubsub import PubSubError, explained, reason_of

OUTSTANDING_LIMIT = 2000
FIRST_ANSWER_LIMIT_S = 10.0
RETRY_LIMIT_S = 60.0
SHOWN_CHARACTERS = 200


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of the elements.

    Parameters
    ----------
    published, failed
        numbers of elements
    wall_s
        seconds that it took
    stopped
        why those after the last one that was sent were not tried; None if all were
    interrupted
        whether the user stopped it
    last_number
        number of the last element that was sent, 0 if there was none
    """

    published: int
    failed: int
    wall_s: float
    stopped: str | None
    interrupted: bool
    last_number: int


@contextlib.contextmanager
def opened_elements(
    elements: Sequence[str], from_file: str | None
) -> Iterator[Iterator[tuple[int, bytes]]]:
    """The elements of a command line, or else of a file (`-`: standard input), with numbers.

    Raises
    ------
    InputError
        there are none, or both, or the file can't be read
    """
    if (from_file is None) == (not elements):
        raise InputError("name either elements, or a file of them with --from-file")
    if "" in elements:
        raise InputError("an element is empty: leave it out")
    if from_file is None:
        yield enumerate(map(os.fsencode, elements), 1)
    elif from_file == "-":
        yield numbered_lines(sys.stdin.buffer)
    else:
        try:
            file = open(from_file, "rb")  # noqa: SIM115
        except OSError as error:
            raise InputError(f"{from_file}: can't be read: {error.strerror}") from error
        with file:
            yield numbered_lines(file)


def numbered_lines(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """The lines of a file that are not blank, without their ends, with their numbers from 1."""
    for number, line in enumerate(file, 1):
        element = line.removesuffix(b"\n").removesuffix(b"\r")
        if element.strip():
            yield number, element


def topic_of(job: JobConfig) -> str:
    """The topic of a job's first Pub/Sub input; the server is asked where the job names none.

    Raises
    ------
    JobFileError
        the job has no Pub/Sub input
    PubSubError
        the topic of the subscription can't be found out
    """
    inputs = (each for each in job.job_config.events.inputs if isinstance(each, PubSubEvents))
    first = next(inputs, None)
    if first is None:
        raise JobFileError(
            "job_config.events.inputs: there is no input of type pubsub, so no topic to publish to"
        )
    if first.topic:
        return first.topic
    with explained(first.location), pubsub_v1.SubscriberClient() as client:
        found = client.get_subscription(subscription=first.location, **_first_call())
        topic: str = found.topic
    if topic == DELETED_TOPIC:
        raise PubSubError(f"{first.location}: its topic was deleted: make both anew")
    return topic


def publish(
    job: JobConfig,
    elements: Iterable[tuple[int, bytes]],
    *,
    top_down: bool = False,
    force: bool = False,
    ping: bool = False,
    on_failure: Callable[[bytes, str], None],
) -> Outcome:
    """Publish a message for each element. An interrupt too ends it with an outcome.

    No more than `OUTSTANDING_LIMIT` messages wait for their answer at once. The first one goes
    alone and with little patience, so that mistakes are told soon.

    Parameters
    ----------
    elements
        with a number each, which grows
    top_down
        let any job process the messages, not this one alone
    force, ping
        do it again although it is done; pass it through and do nothing
    on_failure
        called with each element that could not be published, and the reason

    Raises
    ------
    JobFileError
        the job has no Pub/Sub input
    PubSubError
        nothing can be published
    """
    started = time.monotonic()
    topic = topic_of(job)
    this_job = KlioJob(job_name=job.job_name, gcp_project=job.pipeline_options.project)
    with explained(topic):
        options = pubsub_v1.types.PublisherOptions(retry=_retry(RETRY_LIMIT_S))
        client = pubsub_v1.PublisherClient(publisher_options=options)
    sender = _Sender(client, topic, on_failure)
    last_number, stopped, interrupted = 0, None, False
    try:
        for number, element in elements:
            message = new_message(element, recipients=None if top_down else [this_job])
            message.metadata.force, message.metadata.ping = force, ping
            if not sender.send(element, message.SerializeToString()):
                break
            last_number = number
    except KeyboardInterrupt:
        stopped, interrupted = "interrupted", True
    except OSError as error:
        stopped = f"no more elements can be read: {error}"
    client.stop()
    sender.wait()
    if sender.stopped and not sender.published:
        raise PubSubError(sender.stopped)
    return Outcome(
        published=sender.published,
        failed=sender.failed,
        wall_s=time.monotonic() - started,
        stopped=stopped or sender.stopped,
        interrupted=interrupted,
        last_number=last_number,
    )


def print_failure(element: bytes, reason: str, *, log_format: str) -> None:
    """Tell that an element could not be published."""
    name = os.fsdecode(element)
    if log_format == "json":
        _print_json({"event": "failed", "element": name, "message": reason})
        return
    shown = name if len(name) <= SHOWN_CHARACTERS else f"{name[:SHOWN_CHARACTERS]}…"
    print(f"failed {shown}: {reason}", file=sys.stderr)


def print_outcome(outcome: Outcome, *, unit: str, log_format: str) -> None:
    """The closing lines; `unit` is what the numbers of the elements count."""
    if log_format == "json":
        _print_json({"event": "published", **dataclasses.asdict(outcome)})
        return
    counts = f"{outcome.published} published, {outcome.failed} failed"
    rate = outcome.published / outcome.wall_s
    print(f"{counts} in {outcome.wall_s:.1f} s, {rate:.0f} a second", file=sys.stderr)
    if outcome.stopped:
        print(f"stopped: {outcome.stopped}", file=sys.stderr)
        print(f"nothing after {unit} {outcome.last_number} was sent", file=sys.stderr)


def _print_json(line: dict[str, object]) -> None:
    print(json.dumps({"time": round(time.time(), 3), **line}), flush=True)


class _Sender:
    """Sends messages and counts what becomes of them. The client answers in threads of its own."""

    def __init__(
        self,
        client: pubsub_v1.PublisherClient,
        topic: str,
        on_failure: Callable[[bytes, str], None],
    ) -> None:
        self.client, self.topic, self.on_failure = client, topic, on_failure
        self.changed = threading.Condition()
        self.outstanding = self.published = self.failed = 0
        self.stopped: str | None = None

    def send(self, element: bytes, message: bytes) -> bool:
        """Send a message as soon as there is room; gives False if there is no use in it."""
        with self.changed:
            self.changed.wait_for(lambda: self.outstanding < self._limit)
            if self.stopped:
                return False
            self.outstanding += 1
        options = {} if self.published else _first_call()
        try:
            future = self.client.publish(self.topic, message, **options)
        except MessageTooLargeError as error:
            self._settle(element, error)
        else:
            future.add_done_callback(lambda done: self._settle(element, done.exception()))
        return True

    def wait(self) -> None:
        """Wait for all answers."""
        with self.changed:
            self.changed.wait_for(lambda: not self.outstanding)

    @property
    def _limit(self) -> int:
        return OUTSTANDING_LIMIT if self.published else 1

    def _settle(self, element: bytes, error: Exception | None) -> None:
        with self.changed:
            self.outstanding -= 1
            self.changed.notify_all()
            if error is None:
                self.published += 1
                return
            reason = reason_of(self.topic, error)
            # Whatever else is wrong would meet all other elements too.
            if not isinstance(error, MessageTooLargeError):
                self.stopped = self.stopped or reason
                if not self.published:
                    return
            self.failed += 1
            self.on_failure(element, reason)


def _first_call() -> dict[str, Any]:
    return {"retry": _retry(FIRST_ANSWER_LIMIT_S), "timeout": FIRST_ANSWER_LIMIT_S}


def _retry(timeout_s: float) -> Retry:
    transient = if_exception_type(
        api_exceptions.ServerError,
        api_exceptions.TooManyRequests,
        api_exceptions.Aborted,
        api_exceptions.Cancelled,
    )
    return Retry(predicate=transient, timeout=timeout_s)
