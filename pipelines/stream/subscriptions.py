"""The Pub/Sub side of a stream on one machine: subscriptions, their messages, dead letters.

The client library keeps the messages that are held leased, so that Pub/Sub gives them to nobody
else, and holds no more of them than it is told.
"""

import concurrent.futures
import os
import posixpath
import queue
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from google.api_core import exceptions
from google.cloud.pubsub_v1 import PublisherClient, SubscriberClient, types
from google.cloud.pubsub_v1.subscriber.message import Message
from google.cloud.pubsub_v1.subscriber.scheduler import Scheduler
from google.pubsub_v1 import PublisherClient as GrpcPublisherClient

from ...storage import scheme_of
from ...transforms.klio.message import KlioMessageError, parse_message
from ...transforms.notifications import parse_notification
from ..events.elements import InputError, Place, place_of
from ..events.pubsub import PubSubError, explained
from ..job.event_config import DELETED_TOPIC, PubSubEvents
from ..job.job_config import JobConfig

# Messages of a process that was killed come back after this time.
LEASE_S = 15
LONGEST_WORK_S = 7 * 24 * 3600
HELD_BYTES = 64 << 20
SET_UP_S = 10
PUBLISH_S = 10
CLOSE_S = 10
ATTRIBUTE_BYTES = 1024
ATTRIBUTES = 100
SHOWN_BYTES = 200
LONGEST_ID = 255
# A stream that ends with one of these would do so again.
FINAL_ERRORS = (
    exceptions.InvalidArgument,
    exceptions.NotFound,
    exceptions.PermissionDenied,
    exceptions.Unauthenticated,
)


@dataclass(eq=False)
class Event:
    """A message that is held, and what is known of it.

    Attributes
    ----------
    element
        what the job's steps call it
    names
        all that progress and dead letters may call it
    key
        the recording that it is about; two events of one key are never worked on at once
    crashes
        how many processes have ended while they worked on it
    reason
        why it is tried again
    step
        the step that the last of them was in, if known
    is_finished
        told as finished by a batch that crashed afterwards
    """

    message: Message
    subscription: "Subscription"
    element: str
    names: frozenset[str]
    key: str
    crashes: int = 0
    reason: str = ""
    step: str | None = None
    is_finished: bool = False

    @property
    def age_s(self) -> float:
        """Seconds since it was published."""
        return max(0.0, (datetime.now(UTC) - self.message.publish_time).total_seconds())

    def is_given_up(self, max_tries: int) -> bool:
        """Whether it was tried often enough, here or (as far as Pub/Sub counts) elsewhere.

        It is tried here at least once: it may have been given back for no fault of its own.
        """
        elsewhere = (self.message.delivery_attempt or 1) - 1
        return self.crashes > 0 and self.crashes + elsewhere >= max_tries


def event_of(message: Message, subscription: "Subscription", job: JobConfig, place: Place) -> Event:
    """Find out what a message is about, as the steps of the graph will."""
    data, attributes = message.data, dict(message.attributes)
    foreign = job.job_config.allow_non_klio_messages
    beginning = bytes(data[:SHOWN_BYTES]).decode(errors="backslashreplace")
    try:
        notification = parse_notification(data, attributes) if foreign else None
        if notification:
            element = notification[0]
        else:
            element = os.fsdecode(parse_message(data, allow_non_klio=foreign).data.element)
    except KlioMessageError:
        return Event(message, subscription, beginning, frozenset((beginning,)), beginning)
    if not element:
        return Event(message, subscription, "", frozenset((beginning, "")), "")
    if scheme_of(element):
        below, key = element.removeprefix(f"{place.location}/"), element
    else:
        below, key = element, os.path.join(place.location, element + place.suffix)
    if not scheme_of(key):
        key = posixpath.normpath(key)
    return Event(message, subscription, below, frozenset((element, below, beginning)), key)


@dataclass(frozen=True)
class Arrived:
    """A message came."""

    message: Message
    subscription: "Subscription"


@dataclass(frozen=True)
class Closing:
    """No more messages come; those that are held are leased until the subscription is let go."""

    subscription: "Subscription"


@dataclass(frozen=True)
class Closed:
    """A subscription has ended; with an error unless it was told to."""

    subscription: "Subscription"
    error: BaseException | None


class Subscription(Scheduler):
    """A subscription's messages, put into an inbox as they come.

    To the client library it is what runs callbacks. It asks this to end when it closes, and keeps
    messages leased, acknowledges them and gives them back until that has returned.

    Parameters
    ----------
    path
        `projects/…/subscriptions/…`
    inbox
        takes `Arrived`, `Closing` and `Closed`
    max_messages
        how many may be held
    """

    def __init__(self, path: str, inbox: "queue.SimpleQueue[Any]", *, max_messages: int) -> None:
        self.path = path
        self.inbox = inbox
        self.max_messages = max_messages
        self.requests: queue.Queue[Any] = queue.Queue()
        self.is_closing = threading.Event()
        self.let_go = threading.Event()
        self.future: Any = None

    def open(self, client: SubscriberClient) -> None:
        """Begin to take messages."""
        self.future = client.subscribe(
            self.path,
            callback=_never_called,
            flow_control=types.FlowControl(
                max_bytes=HELD_BYTES,
                max_messages=self.max_messages,
                max_lease_duration=LONGEST_WORK_S,
                min_duration_per_lease_extension=LEASE_S,
                max_duration_per_lease_extension=LEASE_S,
            ),
            scheduler=self,
        )
        self.future.add_done_callback(
            lambda future: self.inbox.put(Closed(self, future.exception()))
        )

    def close(self) -> None:
        """Take no more messages. `Closing` comes when none can come any more."""
        self.future.cancel()

    def wait(self) -> None:
        """Wait until what was acknowledged and given back is told to Pub/Sub."""
        self.let_go.set()
        try:
            self.future.result(timeout=CLOSE_S)
        except (exceptions.GoogleAPIError, concurrent.futures.TimeoutError):
            return  # What it did not hear of, it will deliver again.

    @property
    def queue(self) -> "queue.Queue[Any]":
        """Where the library collects what messages ask for."""
        return self.requests

    def schedule(self, callback: Callable[..., Any], *args: Any, **_: Any) -> None:
        """Called by the library for each message."""
        self.inbox.put(Arrived(args[0], self))

    def shutdown(self, await_msg_callbacks: bool = False) -> list[Message]:
        """Called by the library when no message comes any more; returns when it is let go."""
        self.inbox.put(Closing(self))
        self.is_closing.set()
        self.let_go.wait()
        return []


def _never_called(_: Message) -> None:
    raise NotImplementedError


def connect(job: JobConfig) -> tuple[SubscriberClient, list[str]]:
    """A client, and the paths of the subscriptions of a job's inputs, which are there.

    Raises
    ------
    InputError
        an input is none of Pub/Sub
    PubSubError
        one is not there, there are no credentials, or Pub/Sub can't be reached
    """
    place_of(job)
    with explained("Pub/Sub"):
        client = SubscriberClient()
    paths = []
    for each in job.job_config.events.inputs:
        if not isinstance(each, PubSubEvents):
            raise InputError(f"events of type {each.type} are no stream that can be read here")
        if each.subscription:
            _require_subscription(client, each.subscription)
        paths.append(each.subscription or _own_subscription(client, each.topic or "", job))
    if not paths:
        raise InputError("the job has no event input: name one below job_config.events.inputs")
    return client, list(dict.fromkeys(paths))


def _require_subscription(client: SubscriberClient, path: str) -> None:
    try:
        with explained(path, but=(exceptions.PermissionDenied,)):
            found = client.get_subscription(subscription=path, retry=None, timeout=SET_UP_S)
    except exceptions.PermissionDenied:
        return  # To read from it is another permission than to look at it.
    if found.topic == DELETED_TOPIC:
        raise PubSubError(f"{path}: its topic was deleted: no event will come from it")


def _own_subscription(client: SubscriberClient, topic: str, job: JobConfig) -> str:
    """The subscription that a job makes itself where it is given a topic only."""
    _, project, _, name = topic.split("/")
    id = re.sub(r"[^\w.~+%-]", "-", f"beamsplitter-{job.job_name}-{name}", flags=re.ASCII)
    path = f"projects/{project}/subscriptions/{id[:LONGEST_ID]}"
    try:
        with explained(topic, but=(exceptions.AlreadyExists, exceptions.PermissionDenied)):
            client.create_subscription(
                name=path,
                topic=topic,
                ack_deadline_seconds=LEASE_S,
                retry=None,
                timeout=SET_UP_S,
            )
    except exceptions.AlreadyExists:
        _require_subscription(client, path)
    except exceptions.PermissionDenied as error:
        raise PubSubError(
            f"{topic}: a subscription to it may not be made: {error.message}; make one, and name "
            "it as the input's subscription"
        ) from error
    return path


class DeadLetterTopic:
    """The topic that messages are published to whose recordings failed.

    Raises
    ------
    PubSubError
        see `connect`
    """

    def __init__(self, path: str, job_name: str) -> None:
        self.path = path
        self.job_name = job_name
        with explained("Pub/Sub"):
            self.client = PublisherClient()
        try:
            with explained(path, but=(exceptions.PermissionDenied,)):
                self.client.get_topic(topic=path, retry=None, timeout=SET_UP_S)
        except exceptions.PermissionDenied:
            return  # To publish is another permission than to look at it.

    def publish(self, event: Event, failure: dict[str, Any]) -> None:
        """Publish the message of an event again, with attributes that say why it failed.

        Raises
        ------
        google.api_core.exceptions.GoogleAPIError
            it did not arrive
        """
        why = {
            "beamsplitter_job": self.job_name,
            "beamsplitter_element": failure["element"],
            "beamsplitter_step": failure["step"],
            "beamsplitter_exception": failure["exception"],
            "beamsplitter_message": failure["message"],
            "beamsplitter_message_id": event.message.message_id,
        }
        own = dict(list(event.message.attributes.items())[: ATTRIBUTES - len(why)])
        attributes = {**own, **{name: _shortened(text) for name, text in why.items()}}
        try:
            self._publish(event.message.data, attributes)
        except exceptions.InvalidArgument:
            # The message was as long as one may be. It can be found by its id and element.
            self._publish(b"", attributes)

    def _publish(self, data: bytes, attributes: dict[str, str]) -> None:
        message = types.PubsubMessage(data=data, attributes=attributes)
        # That of the base class: this class's takes attributes as keywords, beside its own.
        GrpcPublisherClient.publish(
            self.client, topic=self.path, messages=[message], retry=None, timeout=PUBLISH_S
        )


def _shortened(text: str) -> str:
    """What of a text fits into an attribute."""
    encoded = text.encode("utf-8", "backslashreplace")[:ATTRIBUTE_BYTES]
    return encoded.decode("utf-8", "ignore")
