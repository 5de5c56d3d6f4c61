"""A Pub/Sub server on loopback: Google's emulator, or one of our own where that is missing.

Both pass `test_pubsub_server.py`, so that no machine goes without tests of Pub/Sub.
"""

import collections
import itertools
import shutil
import socket
import subprocess
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import grpc
from google.iam.v1 import iam_policy_pb2
from google.protobuf.empty_pb2 import Empty
from google.pubsub_v1 import PublisherClient, SubscriberClient, types
from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport

PROJECT = "test-project"
START_LIMIT_S = 60
RECEIVE_LIMIT_S = 60
EMPTY_PULL_S = 0.2
NO_LIMIT = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))
SDK_FOLDERS = (
    "/usr/lib/google-cloud-sdk",
    "/usr/share/google-cloud-sdk",
    "/opt/google-cloud-sdk",
    "/opt/homebrew/share/google-cloud-sdk",
    "~/google-cloud-sdk",
)
# Ends the program when standard input is closed, as it is when this process dies in any way.
ENDS_WITH_STDIN = '"$@" & read -r _; kill -9 $!; wait'


@dataclass
class PubSubServer:
    """A running server: `address` is for PUBSUB_EMULATOR_HOST."""

    address: str
    project: str = PROJECT

    @cached_property
    def publisher(self) -> PublisherClient:
        """A client without batching."""
        return PublisherClient(transport=PublisherGrpcTransport(channel=self._channel))

    @cached_property
    def subscriber(self) -> SubscriberClient:
        """A client that pulls when asked, and leaves deadlines alone."""
        return SubscriberClient(transport=SubscriberGrpcTransport(channel=self._channel))

    @cached_property
    def _channel(self) -> grpc.Channel:
        return grpc.insecure_channel(self.address, options=NO_LIMIT)

    def topic(self) -> str:
        """Make a topic with a new name; gives its full name."""
        name = f"projects/{self.project}/topics/topic-{uuid.uuid4().hex}"
        return self.publisher.create_topic(name=name).name

    def subscription(self, topic: str, *, ack_deadline_s: int = 10) -> str:
        """Make a subscription of a topic, with a new name; gives its full name."""
        name = f"projects/{self.project}/subscriptions/subscription-{uuid.uuid4().hex}"
        request = types.Subscription(name=name, topic=topic, ack_deadline_seconds=ack_deadline_s)
        return self.subscriber.create_subscription(request).name

    def publish(self, topic: str, data: bytes, **attributes: str) -> str:
        """Publish one message; gives its id."""
        message = types.PubsubMessage(data=data, attributes=attributes)
        return self.publisher.publish(topic=topic, messages=[message]).message_ids[0]

    def receive(self, subscription: str, count: int = 1) -> list[types.ReceivedMessage]:
        """Wait for so many messages; they are held, and not acknowledged."""
        received: list[types.ReceivedMessage] = []
        until_s = time.monotonic() + RECEIVE_LIMIT_S
        while len(received) < count:
            assert time.monotonic() < until_s, f"{len(received)} of {count} messages came"
            request = types.PullRequest(subscription=subscription, max_messages=count)
            answer = self.subscriber.pull(request, timeout=RECEIVE_LIMIT_S)
            received += answer.received_messages
        return received

    def pull_all(self, subscription: str) -> list[types.PubsubMessage]:
        """All messages that wait now, acknowledged. Those that others hold are not among them."""
        messages = []
        while received := self._pull(subscription):
            ids = [each.ack_id for each in received]
            self.subscriber.acknowledge(subscription=subscription, ack_ids=ids)
            messages += [each.message for each in received]
        return messages

    def is_empty(self, subscription: str) -> bool:
        """Whether no message waits now. Those that others hold do not count."""
        received = self._pull(subscription)
        if received:
            self.subscriber.modify_ack_deadline(
                subscription=subscription,
                ack_ids=[each.ack_id for each in received],
                ack_deadline_seconds=0,
            )
        return not received

    def _pull(self, subscription: str) -> list[types.ReceivedMessage]:
        request = types.PullRequest(
            subscription=subscription, max_messages=1000, return_immediately=True
        )
        with warnings.catch_warnings():
            # Deprecated as it is wasteful; here it is what is asked for.
            warnings.simplefilter("ignore", DeprecationWarning)
            return list(self.subscriber.pull(request).received_messages)


def available_servers() -> list[str]:
    """Names of the servers that this machine can run, the best first."""
    return ["emulator", "own"] if emulator_jar() and shutil.which("java") else ["own"]


@contextmanager
def serving(name: str | None = None) -> Iterator[PubSubServer]:
    """Run a server: the best there is, or one of `available_servers()`."""
    with {"emulator": _emulator, "own": _own}[name or available_servers()[0]]() as address:
        server = PubSubServer(address)
        grpc.channel_ready_future(server._channel).result(timeout=START_LIMIT_S)
        try:
            yield server
        finally:
            server._channel.close()


def emulator_jar() -> Path | None:
    """Google's emulator, in a Google Cloud SDK."""
    gcloud = shutil.which("gcloud")
    folders = [Path(gcloud).resolve().parents[1]] if gcloud else []
    folders += [Path(folder).expanduser() for folder in SDK_FOLDERS]
    for folder in folders:
        jars = (folder / "platform/pubsub-emulator/lib").glob("cloud-pubsub-emulator-*-all.jar")
        for jar in sorted(jars, reverse=True):
            return jar
    return None


@contextmanager
def _emulator() -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    java = ["java", "-jar", str(emulator_jar()), "--host=127.0.0.1", f"--port={port}"]
    process = subprocess.Popen(
        ["sh", "-c", ENDS_WITH_STDIN, "sh", *java],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # an interrupt is for pytest, which then ends the server
    )
    assert process.stdin
    try:
        yield f"127.0.0.1:{port}"
    finally:
        process.stdin.close()
        process.wait(timeout=START_LIMIT_S)


@contextmanager
def _own() -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(max_workers=64), options=NO_LIMIT)
    server.add_generic_rpc_handlers(_OwnServer().handlers())
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(grace=0).wait()


@dataclass
class _Lease:
    message: types.PubsubMessage
    ends_s: float


@dataclass
class _Queue:
    """A subscription with its messages."""

    config: types.Subscription
    waiting: collections.deque[types.PubsubMessage] = field(default_factory=collections.deque)
    leases: dict[str, _Lease] = field(default_factory=dict)

    def take(self, limit: int, lease_s: float = 0.0) -> list[types.ReceivedMessage]:
        """Lease messages, those too whose lease has ended."""
        now_s = time.monotonic()
        self.end_leases([id for id, lease in self.leases.items() if lease.ends_s <= now_s])
        taken = []
        while self.waiting and len(taken) < limit:
            ack_id, message = uuid.uuid4().hex, self.waiting.popleft()
            ends_s = now_s + (lease_s or self.config.ack_deadline_seconds)
            self.leases[ack_id] = _Lease(message, ends_s)
            taken.append(types.ReceivedMessage(ack_id=ack_id, message=message))
        return taken

    def acknowledge(self, ack_ids: Iterable[str]) -> None:
        """Forget messages; ids whose lease has ended are nothing."""
        for ack_id in ack_ids:
            self.leases.pop(ack_id, None)

    def extend(self, ack_id: str, deadline_s: float) -> None:
        """Let a lease end so many seconds from now; 0: at once."""
        if ack_id in self.leases:
            self.leases[ack_id].ends_s = time.monotonic() + deadline_s

    def end_leases(self, ack_ids: list[str]) -> None:
        """Let messages be delivered again, before all others."""
        ended = [self.leases.pop(ack_id) for ack_id in ack_ids if ack_id in self.leases]
        self.waiting.extendleft(lease.message for lease in reversed(ended))

    @property
    def next_end_s(self) -> float | None:
        """Seconds until the next lease ends."""
        ends_s = min((lease.ends_s for lease in self.leases.values()), default=None)
        return None if ends_s is None else max(0.0, ends_s - time.monotonic())


class _OwnServer:
    """The calls that a job makes, kept in memory. Unary calls run one at a time."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.topics: dict[str, types.Topic] = {}
        self.queues: dict[str, _Queue] = {}
        self.message_ids = itertools.count(1)

    def handlers(self) -> list[grpc.GenericRpcHandler]:
        """The services, for a gRPC server."""
        publisher = {
            "CreateTopic": self._unary(self.create_topic, types.Topic),
            "GetTopic": self._unary(self.get_topic, types.GetTopicRequest),
            "ListTopics": self._unary(self.list_topics, types.ListTopicsRequest),
            "ListTopicSubscriptions": self._unary(
                self.list_topic_subscriptions, types.ListTopicSubscriptionsRequest
            ),
            "DeleteTopic": self._unary(self.delete_topic, types.DeleteTopicRequest),
            "Publish": self._unary(self.publish, types.PublishRequest),
        }
        subscriber = {
            "CreateSubscription": self._unary(self.create_subscription, types.Subscription),
            "GetSubscription": self._unary(
                lambda request, context: self._queue(request, context).config,
                types.GetSubscriptionRequest,
            ),
            "ListSubscriptions": self._unary(
                self.list_subscriptions, types.ListSubscriptionsRequest
            ),
            "DeleteSubscription": self._unary(
                self.delete_subscription, types.DeleteSubscriptionRequest
            ),
            "Pull": self._unary(self.pull, types.PullRequest),
            "Acknowledge": self._unary(self.acknowledge, types.AcknowledgeRequest),
            "ModifyAckDeadline": self._unary(
                self.modify_ack_deadline, types.ModifyAckDeadlineRequest
            ),
            "StreamingPull": grpc.stream_stream_rpc_method_handler(
                self.streaming_pull,
                types.StreamingPullRequest.deserialize,
                types.StreamingPullResponse.serialize,
            ),
        }
        iam = {
            "TestIamPermissions": grpc.unary_unary_rpc_method_handler(
                lambda request, context: iam_policy_pb2.TestIamPermissionsResponse(
                    permissions=request.permissions
                ),
                iam_policy_pb2.TestIamPermissionsRequest.FromString,
                iam_policy_pb2.TestIamPermissionsResponse.SerializeToString,
            )
        }
        services = {
            "google.pubsub.v1.Publisher": publisher,
            "google.pubsub.v1.Subscriber": subscriber,
            "google.iam.v1.IAMPolicy": iam,
        }
        return [grpc.method_handlers_generic_handler(*each) for each in services.items()]

    def _unary(self, method: Callable[..., Any], request_type: Any) -> grpc.RpcMethodHandler:
        def handle(request: Any, context: grpc.ServicerContext) -> Any:
            with self.changed:
                answer = method(request, context)
                self.changed.notify_all()
                return answer

        def serialize(answer: Any) -> bytes:
            if isinstance(answer, Empty):
                return answer.SerializeToString()
            return bytes(type(answer).serialize(answer))

        return grpc.unary_unary_rpc_method_handler(handle, request_type.deserialize, serialize)

    def create_topic(self, topic: types.Topic, context: grpc.ServicerContext) -> types.Topic:
        if topic.name in self.topics:
            context.abort(grpc.StatusCode.ALREADY_EXISTS, f"{topic.name} exists")
        self.topics[topic.name] = topic
        return topic

    def get_topic(self, request: Any, context: grpc.ServicerContext) -> types.Topic:
        if request.topic not in self.topics:
            context.abort(grpc.StatusCode.NOT_FOUND, f"no topic {request.topic}")
        return self.topics[request.topic]

    def list_topics(
        self, request: types.ListTopicsRequest, _: grpc.ServicerContext
    ) -> types.ListTopicsResponse:
        prefix = f"{request.project}/"
        return types.ListTopicsResponse(
            topics=[topic for name, topic in self.topics.items() if name.startswith(prefix)]
        )

    def list_topic_subscriptions(
        self, request: types.ListTopicSubscriptionsRequest, context: grpc.ServicerContext
    ) -> types.ListTopicSubscriptionsResponse:
        topic = self.get_topic(request, context).name
        return types.ListTopicSubscriptionsResponse(
            subscriptions=[
                name for name, queue in self.queues.items() if queue.config.topic == topic
            ]
        )

    def delete_topic(self, request: Any, context: grpc.ServicerContext) -> Empty:
        topic = self.topics.pop(self.get_topic(request, context).name)
        for queue in self.queues.values():
            if queue.config.topic == topic.name:
                queue.config.topic = "_deleted-topic_"
        return Empty()

    def publish(
        self, request: types.PublishRequest, context: grpc.ServicerContext
    ) -> types.PublishResponse:
        topic, ids = self.get_topic(request, context).name, []
        for message in request.messages:
            if not message.data and not message.attributes:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, "a message is empty")
        for message in request.messages:
            message.message_id = str(next(self.message_ids))
            message.publish_time = datetime.now(UTC)
            ids.append(message.message_id)
            for queue in self.queues.values():
                if queue.config.topic == topic:
                    queue.waiting.append(message)
        return types.PublishResponse(message_ids=ids)

    def create_subscription(
        self, config: types.Subscription, context: grpc.ServicerContext
    ) -> types.Subscription:
        self.get_topic(config, context)
        if config.name in self.queues:
            context.abort(grpc.StatusCode.ALREADY_EXISTS, f"{config.name} exists")
        config.ack_deadline_seconds = config.ack_deadline_seconds or 10
        if not 10 <= config.ack_deadline_seconds <= 600:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "ack_deadline_seconds: 10 to 600")
        self.queues[config.name] = _Queue(config)
        return config

    def list_subscriptions(
        self, request: types.ListSubscriptionsRequest, _: grpc.ServicerContext
    ) -> types.ListSubscriptionsResponse:
        prefix = f"{request.project}/"
        return types.ListSubscriptionsResponse(
            subscriptions=[
                queue.config for name, queue in self.queues.items() if name.startswith(prefix)
            ]
        )

    def delete_subscription(self, request: Any, context: grpc.ServicerContext) -> Empty:
        del self.queues[self._queue(request, context).config.name]
        return Empty()

    def pull(self, request: types.PullRequest, context: grpc.ServicerContext) -> types.PullResponse:
        queue = self._queue(request, context)
        received = queue.take(request.max_messages)
        if not received and not request.return_immediately:
            self.changed.wait_for(lambda: queue.waiting, EMPTY_PULL_S)
            received = queue.take(request.max_messages)
        return types.PullResponse(received_messages=received)

    def acknowledge(
        self, request: types.AcknowledgeRequest, context: grpc.ServicerContext
    ) -> Empty:
        self._queue(request, context).acknowledge(request.ack_ids)
        return Empty()

    def modify_ack_deadline(
        self, request: types.ModifyAckDeadlineRequest, context: grpc.ServicerContext
    ) -> Empty:
        queue = self._queue(request, context)
        for ack_id in request.ack_ids:
            queue.extend(ack_id, request.ack_deadline_seconds)
        return Empty()

    def streaming_pull(
        self, requests: Iterator[types.StreamingPullRequest], context: grpc.ServicerContext
    ) -> Iterator[types.StreamingPullResponse]:
        first = next(requests)
        with self.changed:
            queue = self._queue(first, context)
        context.add_callback(self._wake)
        threading.Thread(target=self._follow, args=(requests, queue), daemon=True).start()
        limit = first.max_outstanding_messages or 1000
        outstanding: set[str] = set()
        while True:
            with self.changed:
                if not context.is_active() or first.subscription not in self.queues:
                    return
                outstanding &= queue.leases.keys()
                received = queue.take(limit - len(outstanding), first.stream_ack_deadline_seconds)
                outstanding |= {each.ack_id for each in received}
                if not received:
                    self.changed.wait(queue.next_end_s)
            if received:
                yield types.StreamingPullResponse(received_messages=received)

    def _follow(self, requests: Iterator[types.StreamingPullRequest], queue: _Queue) -> None:
        """Take in what comes up a stream after its first request."""
        with suppress(grpc.RpcError):
            for request in requests:
                deadlines_s = dict(
                    zip(
                        request.modify_deadline_ack_ids,
                        request.modify_deadline_seconds,
                        strict=True,
                    )
                )
                with self.changed:
                    queue.acknowledge(request.ack_ids)
                    for ack_id, deadline_s in deadlines_s.items():
                        queue.extend(ack_id, deadline_s)
                    self.changed.notify_all()

    def _wake(self) -> None:
        with self.changed:
            self.changed.notify_all()

    def _queue(self, request: Any, context: grpc.ServicerContext) -> _Queue:
        if request.subscription not in self.queues:
            context.abort(grpc.StatusCode.NOT_FOUND, f"no subscription {request.subscription}")
        return self.queues[request.subscription]
