"""Which messages a job processes, and what it makes of an event before it does."""

import datetime
import json
import logging
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.io.gcp.pubsub import PubsubMessage
from apache_beam.pvalue import TaggedOutput
from apache_beam.testing.util import assert_that, equal_to
from facts import assert_names

from beamsplitter.transforms.accepting import (
    NOT_FOR_US,
    PASS_THROUGH,
    AcceptMessages,
    Decision,
    decide,
    is_listed,
    parse_notification,
    settle,
)
from beamsplitter.transforms.klio.message import (
    KlioJob,
    KlioMessage,
    KlioMessageError,
    new_message,
    parse_message,
)
from beamsplitter.transforms.steps import FAILURES, run_step

JOB = KlioJob(job_name="my-job", gcp_project="my-project")
OTHER = KlioJob(job_name="other-job", gcp_project="my-project")
SAME_NAME = KlioJob(job_name="my-job", gcp_project="other-project")
NOW = datetime.datetime(2024, 5, 6, 7, 8, 9, tzinfo=datetime.UTC)


def field(number: int, content: bytes) -> bytes:
    """A length-delimited protobuf field, by hand."""
    return bytes([number << 3 | 2, len(content)]) + content


def flag(number: int, value: int = 1) -> bytes:
    return bytes([number << 3, value])


# As `klio message publish` writes them: metadata, data, version.
JOB_BYTES = field(1, b"my-job") + field(2, b"my-project")
PUBLISHED_TOP_DOWN = field(1, field(6, field(1, b""))) + field(2, field(3, b"x")) + flag(3, 2)
PUBLISHED_BOTTOM_UP = (
    field(1, field(6, field(2, field(1, JOB_BYTES)))) + field(2, field(3, b"x")) + flag(3, 2)
)
PUBLISHED_V1_TOP_DOWN = field(1, b"") + field(2, field(1, b"x")) + flag(3, 1)
PUBLISHED_V1_BOTTOM_UP = field(1, field(1, JOB_BYTES)) + field(2, field(1, b"x")) + flag(3, 1)
PUBLISHED_FORCE_PING = (
    field(1, flag(4) + flag(5) + field(6, field(1, b""))) + field(2, field(3, b"x")) + flag(3, 2)
)


def version_1(*downstream: KlioJob) -> KlioMessage:
    message = new_message("x", version=1)
    message.metadata.downstream.extend(downstream)
    return message


def triggered(*recipients: KlioJob, by: KlioJob) -> KlioMessage:
    message = new_message("x", recipients=recipients)
    message.metadata.intended_recipients.limited.trigger_children_of.CopyFrom(by)
    return message


def flagged(*, force: bool = False, ping: bool = False) -> KlioMessage:
    message = new_message("x")
    message.metadata.force, message.metadata.ping = force, ping
    return message


class TestDecide:
    @pytest.mark.parametrize(
        ("message", "expected"),
        [
            (new_message("x"), Decision.PROCESS),
            (new_message("x", recipients=[OTHER, JOB]), Decision.PROCESS),
            (new_message("x", recipients=[OTHER]), Decision.OTHER_RECIPIENTS),
            (new_message("x", recipients=[SAME_NAME]), Decision.OTHER_RECIPIENTS),
            (new_message("x", recipients=[]), Decision.OTHER_RECIPIENTS),
            (triggered(OTHER, by=JOB), Decision.OTHER_RECIPIENTS),
            (version_1(), Decision.PROCESS),
            (version_1(OTHER, JOB), Decision.PROCESS),
            (version_1(OTHER), Decision.OTHER_RECIPIENTS),
        ],
    )
    def test_recipients(self, message: KlioMessage, expected: Decision) -> None:
        before = message.SerializeToString()
        assert decide(message, JOB) == expected
        assert message.SerializeToString() == before

    def test_nobody_is_meant_where_recipients_are_unset(self) -> None:
        assert decide(KlioMessage(version=2), JOB) == Decision.NO_RECIPIENTS

    @pytest.mark.parametrize(
        "encoded",
        [
            PUBLISHED_TOP_DOWN,
            PUBLISHED_BOTTOM_UP,
            PUBLISHED_V1_TOP_DOWN,
            PUBLISHED_V1_BOTTOM_UP,
            PUBLISHED_BOTTOM_UP[:-2],  # without version
        ],
    )
    def test_understands_what_klio_message_publish_sends(self, encoded: bytes) -> None:
        message = parse_message(encoded)
        assert decide(message, JOB) == Decision.PROCESS
        assert message.data.element == b"x"

    def test_ping(self) -> None:
        published = parse_message(PUBLISHED_FORCE_PING)
        assert published.metadata.force
        assert decide(published, JOB) == Decision.PING
        assert decide(flagged(ping=True), JOB) == Decision.PING
        assert decide(flagged(ping=False), JOB) == Decision.PROCESS
        assert decide(flagged(ping=False), JOB, ping=True) == Decision.PING
        assert decide(version_1(), JOB, ping=True) == Decision.PING

    def test_a_ping_for_another_job_is_not_passed_on(self) -> None:
        message = new_message("x", recipients=[OTHER])
        assert decide(message, JOB, ping=True) == Decision.OTHER_RECIPIENTS

    def test_inputs_of_a_job_do_not_matter(self) -> None:
        listed = KlioJob(job_name="my-job", gcp_project="my-project")
        listed.inputs.add(topic="topic")
        assert is_listed(JOB, [listed])


class TestSettle:
    def test_audit_log(self) -> None:
        message = new_message("x")
        message.metadata.job_audit_log.add(klio_job=OTHER)
        settled = settle(message, JOB, force=False, now=NOW)
        earlier, item = settled.metadata.job_audit_log
        assert earlier.klio_job == OTHER
        assert item.klio_job == JOB
        assert item.timestamp.ToDatetime(tzinfo=datetime.UTC) == NOW
        assert len(message.metadata.job_audit_log) == 1

    def test_the_rest_stays(self) -> None:
        message = new_message("x", payload="pay", recipients=[JOB, OTHER])
        settled = settle(message, JOB, force=False, now=NOW)
        del settled.metadata.job_audit_log[:]
        assert settled == message
        assert settled.SerializeToString() == message.SerializeToString()

    def test_jobs_after_the_one_that_triggered_go_on(self) -> None:
        settled = settle(triggered(OTHER, JOB, by=JOB), JOB, force=False, now=NOW)
        assert settled.metadata.intended_recipients.WhichOneof("recipients") == "anyone"

    @pytest.mark.parametrize("by", [OTHER, SAME_NAME])
    def test_recipients_stay_on_the_way_to_the_job_that_triggered(self, by: KlioJob) -> None:
        message = triggered(by, JOB, by=by)
        settled = settle(message, JOB, force=False, now=NOW)
        assert settled.metadata.intended_recipients == message.metadata.intended_recipients

    def test_an_unnamed_job_does_not_stand_in_an_unset_field(self) -> None:
        unnamed = KlioJob()
        settled = settle(new_message("x", recipients=[unnamed]), unnamed, force=False, now=NOW)
        assert settled.metadata.intended_recipients.HasField("limited")

    @pytest.mark.parametrize("of_message", [False, True])
    @pytest.mark.parametrize("of_job", [False, True])
    def test_force_of_message_or_job(self, of_message: bool, of_job: bool) -> None:
        settled = settle(flagged(force=of_message), JOB, force=of_job, now=NOW)
        assert settled.metadata.force == (of_message or of_job)


OBJECT = {"kind": "storage#object", "bucket": "songs", "name": "new/ä #1.wav", "size": "9"}
OBJECT_URI = "gs://songs/new/ä #1.wav"
ATTRIBUTES = {
    "notificationConfig": "projects/_/buckets/songs/notificationConfigs/1",
    "eventType": "OBJECT_FINALIZE",
    "payloadFormat": "JSON_API_V1",
    "bucketId": "songs",
    "objectId": "new/ä #1.wav",
    "objectGeneration": "7",
}


def resource(**changes: object) -> bytes:
    return json.dumps({**OBJECT, **changes}, indent=2).encode()


class TestParseNotification:
    def test_object_resource(self) -> None:
        assert parse_notification(resource(), {}) == (OBJECT_URI, True)

    def test_attributes_without_data(self) -> None:
        attributes = {**ATTRIBUTES, "payloadFormat": "NONE"}
        assert parse_notification(b"", attributes) == (OBJECT_URI, True)

    @pytest.mark.parametrize(
        "event_type", ["OBJECT_DELETE", "OBJECT_ARCHIVE", "OBJECT_METADATA_UPDATE"]
    )
    def test_other_kinds(self, event_type: str) -> None:
        attributes = {**ATTRIBUTES, "eventType": event_type}
        assert parse_notification(resource(), attributes) == (OBJECT_URI, False)

    def test_deleted_object_without_attributes(self) -> None:
        deleted = resource(timeDeleted="2024-05-06T07:08:09Z")
        assert parse_notification(deleted, {}) == (OBJECT_URI, False)

    def test_folder(self) -> None:
        assert parse_notification(resource(name="new/"), {}) == ("gs://songs/new/", False)

    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"song.wav",
            b"{song}.wav",
            b"\xff{",
            b"{\xff}",
            b'["storage#object"]',
            b'{"kind": "storage#bucket"}',
            b"{" * 100_000,
            PUBLISHED_TOP_DOWN,
        ],
    )
    def test_anything_else(self, data: bytes) -> None:
        assert parse_notification(data, {"eventType": "of someone else"}) is None

    @pytest.mark.parametrize("changes", [{"name": None}, {"bucket": ""}, {"name": ["a"]}])
    def test_without_a_name(self, changes: dict[str, object]) -> None:
        with pytest.raises(KlioMessageError, match="without bucket and name"):
            parse_notification(resource(**changes), {})


def step(**options: bool) -> AcceptMessages:
    return AcceptMessages(JOB.SerializeToString(), **options)


def output_of(event: object, **options: bool) -> tuple[str, Any]:
    """Tag and value of the only output of one event."""
    accept = step(**options)
    accept.has_dead_letters = True
    [output] = accept.process(event)
    if isinstance(output, TaggedOutput):
        return output.tag, output.value
    return "main", output


class TestEvents:
    @pytest.mark.parametrize("event", [PUBLISHED_TOP_DOWN, PubsubMessage(PUBLISHED_TOP_DOWN, None)])
    def test_message(self, event: object) -> None:
        tag, value = output_of(event)
        message = parse_message(value)
        [item] = message.metadata.job_audit_log
        age = datetime.datetime.now(datetime.UTC) - item.timestamp.ToDatetime(tzinfo=datetime.UTC)
        assert (tag, message.data.element, item.klio_job) == ("main", b"x", JOB)
        assert datetime.timedelta(0) <= age < datetime.timedelta(minutes=1)

    def test_messages_for_others_stay_as_they_are(self) -> None:
        message = new_message("x", recipients=[OTHER]).SerializeToString()
        assert output_of(message, force=True) == (NOT_FOR_US, message)

    def test_pings_are_settled(self) -> None:
        tag, value = output_of(PUBLISHED_FORCE_PING)
        metadata = parse_message(value).metadata
        assert tag == PASS_THROUGH
        assert metadata.ping
        assert len(metadata.job_audit_log) == 1
        assert output_of(PUBLISHED_TOP_DOWN, ping=True)[0] == PASS_THROUGH

    def test_force(self) -> None:
        forced = [PUBLISHED_TOP_DOWN, flagged(force=True).SerializeToString()]
        for event, of_job in zip(forced, (True, False), strict=True):
            _, value = output_of(event, force=of_job)
            assert parse_message(value).metadata.force

    def test_warns_where_recipients_are_unset(self, caplog: pytest.LogCaptureFixture) -> None:
        message = KlioMessage(version=2)
        message.data.element = b"songs/x.wav"
        assert output_of(message.SerializeToString())[0] == NOT_FOR_US
        [record] = caplog.records
        assert record.levelno == logging.WARNING
        assert "songs/x.wav" in record.getMessage()

    def test_text(self) -> None:
        tag, value = output_of("ä.wav".encode(), allow_non_klio_messages=True)
        message = parse_message(value)
        assert (tag, message.version, message.data.element) == ("main", 2, "ä.wav".encode())
        assert message.metadata.intended_recipients.HasField("anyone")

    @pytest.mark.parametrize(
        "event",
        [resource(), PubsubMessage(resource(), ATTRIBUTES), PubsubMessage(b"", ATTRIBUTES)],
    )
    def test_new_object(self, event: object) -> None:
        tag, value = output_of(event, allow_non_klio_messages=True)
        assert (tag, parse_message(value).data.element.decode()) == ("main", OBJECT_URI)
        assert output_of(event)[0] == FAILURES

    def test_deleted_object(self) -> None:
        event = PubsubMessage(resource(), {**ATTRIBUTES, "eventType": "OBJECT_DELETE"})
        tag, value = output_of(event, allow_non_klio_messages=True)
        assert (tag, parse_message(value).data.element.decode()) == (NOT_FOR_US, OBJECT_URI)


class TestDeadLetters:
    def test_no_message(self) -> None:
        tag, failure = output_of(b"song.wav\xff")
        assert tag == FAILURES
        assert (failure.element, failure.step) == ("song.wav\\xff", "AcceptMessages")
        assert failure.exception == "KlioMessageError"
        assert "allow_non_klio_messages" in failure.message

    def test_long_event(self) -> None:
        _, failure = output_of(b"a" * 100_000)
        assert len(failure.element) == 200
        assert len(failure.message) < 500

    @pytest.mark.parametrize("allow", [False, True])
    @pytest.mark.parametrize("event", [b"", new_message("").SerializeToString()])
    def test_no_element(self, event: bytes, allow: bool) -> None:
        tag, failure = output_of(event, allow_non_klio_messages=allow)
        assert (tag, failure.element) == (FAILURES, "")
        assert failure.traceback is None
        assert_names(failure.message, "no element", "beamsplitter publish")

    def test_no_element_of_a_ping(self) -> None:
        assert output_of(b"", ping=True)[0] == PASS_THROUGH

    def test_no_element_for_others(self) -> None:
        message = new_message("", recipients=[OTHER]).SerializeToString()
        assert output_of(message)[0] == NOT_FOR_US

    def test_notification_without_a_name(self) -> None:
        tag, failure = output_of(resource(name=None), allow_non_klio_messages=True)
        assert tag == FAILURES
        assert "storage#object" in failure.element


def element_of(message: bytes) -> str:
    return parse_message(message).data.element.decode()


def test_in_a_pipeline() -> None:
    pipeline = beam.Pipeline(runner="FnApiRunner")
    failures: list[beam.PCollection] = []
    ping = flagged(ping=True)
    ping.data.element = b"ping"
    events = [
        PUBLISHED_TOP_DOWN,
        PUBLISHED_BOTTOM_UP,
        new_message("others", recipients=[OTHER]).SerializeToString(),
        KlioMessage(version=2).SerializeToString(),
        ping.SerializeToString(),
        b"text",
        b"",
        resource(),
        resource(timeDeleted="2024-05-06T07:08:09Z"),
    ]
    outputs = run_step(
        pipeline | beam.Create(events),
        step(allow_non_klio_messages=True),
        bytes,
        failures,
        tags=(PASS_THROUGH, NOT_FOR_US),
    )
    for tag, expected in [
        ("main", ["x", "x", "text", OBJECT_URI]),
        (PASS_THROUGH, ["ping"]),
        (NOT_FOR_US, ["others", "", OBJECT_URI]),
    ]:
        found = outputs[tag] | f"element of {tag}" >> beam.Map(element_of)
        assert_that(found, equal_to(expected), label=tag)
    [failed] = failures
    assert_that(failed | beam.Map(lambda failure: failure.step), equal_to(["AcceptMessages"]))
    result = pipeline.run()
    result.wait_until_finish()
    found = result.metrics().query(beam.metrics.MetricsFilter().with_namespace("AcceptMessages"))
    assert {each.key.metric.name: each.committed for each in found["counters"]} == {
        "in": 9,
        "out": 8,
        "failures": 1,
        "kmsg-process-ping": 4,
        "kmsg-skip-ping": 1,
        "kmsg-drop-not-recipient": 2,
        "notification-skipped": 1,
    }
