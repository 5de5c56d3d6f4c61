"""What jobs need of a Pub/Sub server, on each server that can be had here."""

import queue
from collections.abc import Callable, Iterator

import pytest
from google.api_core.exceptions import AlreadyExists, InvalidArgument, NotFound
from google.cloud import pubsub_v1
from google.pubsub_v1 import types
from pubsub_server import PubSubServer, available_servers, serving

LIMIT_S = 60
Messages = queue.Queue[pubsub_v1.subscriber.message.Message]
Subscribe = Callable[..., Messages]


@pytest.fixture(scope="module", params=available_servers())
def server(request: pytest.FixtureRequest) -> Iterator[PubSubServer]:
    """Each server in turn."""
    with serving(request.param) as started:
        yield started


def test_every_subscription_gets_every_message_once(server: PubSubServer) -> None:
    topic, other = server.topic(), server.topic()
    subscriptions = [server.subscription(topic), server.subscription(topic)]
    of_other = server.subscription(other)
    ids = [server.publish(topic, b"\xff%d" % index, number=str(index)) for index in range(3)]
    assert len(set(ids)) == 3
    for subscription in subscriptions:
        messages = server.pull_all(subscription)
        assert sorted(message.data for message in messages) == [b"\xff0", b"\xff1", b"\xff2"]
        assert sorted(message.attributes["number"] for message in messages) == ["0", "1", "2"]
        assert {message.message_id for message in messages} == set(ids)
        assert all(message.publish_time for message in messages)
        assert server.is_empty(subscription)
    assert server.is_empty(of_other)


def test_a_message_that_is_held_is_given_to_no_other(server: PubSubServer) -> None:
    topic = server.topic()
    subscription = server.subscription(topic)
    server.publish(topic, b"held")
    (held,) = server.receive(subscription)
    assert server.is_empty(subscription)
    server.subscriber.acknowledge(subscription=subscription, ack_ids=[held.ack_id])
    assert server.is_empty(subscription)


def test_looking_takes_nothing(server: PubSubServer) -> None:
    topic = server.topic()
    subscription = server.subscription(topic)
    server.publish(topic, b"there")
    assert not server.is_empty(subscription)
    (received,) = server.receive(subscription)
    assert received.message.data == b"there"


def test_a_message_that_is_refused_comes_again(server: PubSubServer) -> None:
    topic = server.topic()
    subscription = server.subscription(topic)
    server.publish(topic, b"refused")
    (first,) = server.receive(subscription)
    modify(server, subscription, first, 0)
    (second,) = server.receive(subscription)
    assert second.message == first.message
    assert second.ack_id != first.ack_id


def test_a_message_whose_deadline_passes_comes_again(server: PubSubServer) -> None:
    topic = server.topic()
    subscription = server.subscription(topic)
    server.publish(topic, b"late")
    (first,) = server.receive(subscription)
    modify(server, subscription, first, 1)
    (second,) = server.receive(subscription)
    assert second.message == first.message


def test_a_deadline_can_be_put_off(server: PubSubServer) -> None:
    topic = server.topic()
    subscription = server.subscription(topic)
    for data in (b"long", b"short"):
        server.publish(topic, data)
    held = {each.message.data: each for each in server.receive(subscription, 2)}
    modify(server, subscription, held[b"long"], 1)
    modify(server, subscription, held[b"short"], 2)
    modify(server, subscription, held[b"long"], 600)
    (again,) = server.receive(subscription)
    assert again.message.data == b"short"
    assert server.is_empty(subscription)


def modify(
    server: PubSubServer, subscription: str, received: types.ReceivedMessage, deadline_s: int
) -> None:
    server.subscriber.modify_ack_deadline(
        subscription=subscription,
        ack_ids=[received.ack_id],
        ack_deadline_seconds=deadline_s,
    )


@pytest.fixture
def subscribe(server: PubSubServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Subscribe]:
    """`subscribe(subscription, limit=…)`: messages as the client's streaming pull gives them."""
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", server.address)
    with pubsub_v1.SubscriberClient() as client:
        streams = []

        def start(subscription: str, *, limit: int = 1000) -> Messages:
            messages: Messages = queue.Queue()
            flow_control = pubsub_v1.types.FlowControl(max_messages=limit)
            streams.append(client.subscribe(subscription, messages.put, flow_control=flow_control))
            return messages

        yield start
        for stream in streams:
            stream.cancel()
            stream.result(timeout=LIMIT_S)


def test_a_stream_gives_messages_before_and_after_it_began(
    server: PubSubServer, subscribe: Subscribe
) -> None:
    topic = server.topic()
    subscription = server.subscription(topic)
    server.publish(topic, b"before")
    messages = subscribe(subscription)
    first = messages.get(timeout=LIMIT_S)
    server.publish(topic, b"after")
    second = messages.get(timeout=LIMIT_S)
    assert (first.data, second.data) == (b"before", b"after")
    for message in (first, second):
        message.ack_with_response().result(timeout=LIMIT_S)
    assert server.is_empty(subscription)


def test_a_stream_gives_a_refused_message_again(server: PubSubServer, subscribe: Subscribe) -> None:
    topic = server.topic()
    subscription = server.subscription(topic)
    messages = subscribe(subscription)
    server.publish(topic, b"refused")
    messages.get(timeout=LIMIT_S).nack()
    again = messages.get(timeout=LIMIT_S)
    assert again.data == b"refused"
    again.ack_with_response().result(timeout=LIMIT_S)


def test_a_stream_gives_no_more_than_are_wanted_at_once(
    server: PubSubServer, subscribe: Subscribe
) -> None:
    topic = server.topic()
    subscription = server.subscription(topic)
    for index in range(20):
        server.publish(topic, b"%d" % index)
    messages = subscribe(subscription, limit=3)
    seen = []
    for _ in range(20):
        assert messages.qsize() <= 3
        message = messages.get(timeout=LIMIT_S)
        seen.append(int(message.data))
        message.ack()
    assert sorted(seen) == list(range(20))


def test_mistakes_are_told(server: PubSubServer) -> None:
    topic = server.topic()
    subscription = server.subscription(topic)
    assert server.publisher.get_topic(topic=topic).name == topic
    assert server.subscriber.get_subscription(subscription=subscription).topic == topic
    with pytest.raises(NotFound):
        server.publish(f"{topic}-not-there", b"x")
    with pytest.raises(NotFound):
        server.subscription(f"{topic}-not-there")
    with pytest.raises(NotFound):
        server.pull_all(f"{subscription}-not-there")
    with pytest.raises(InvalidArgument):
        server.publish(topic, b"")
    with pytest.raises(AlreadyExists):
        server.publisher.create_topic(name=topic)


def test_what_is_listed_and_deleted(server: PubSubServer) -> None:
    topic = server.topic()
    subscription = server.subscription(topic)
    project = f"projects/{server.project}"
    topics = server.publisher.list_topics(project=project)
    subscriptions = server.subscriber.list_subscriptions(project=project)
    assert topic in {each.name for each in topics}
    assert (subscription, topic) in {(each.name, each.topic) for each in subscriptions}
    assert list(server.publisher.list_topic_subscriptions(topic=topic)) == [subscription]
    server.publisher.delete_topic(topic=topic)
    with pytest.raises(NotFound):
        server.publisher.get_topic(topic=topic)
    assert server.subscriber.get_subscription(subscription=subscription).topic != topic
    server.subscriber.delete_subscription(subscription=subscription)
    with pytest.raises(NotFound):
        server.subscriber.get_subscription(subscription=subscription)
