"""The small steps for graphs of Klio messages."""

import datetime
import logging
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.pvalue import TaggedOutput
from apache_beam.testing.util import assert_that, equal_to
from facts import assert_names

from beamsplitter.transforms.accepting import Decision, decide, settle
from beamsplitter.transforms.klio.context import KlioContext, bind_context
from beamsplitter.transforms.klio.helpers import (
    KlioDebugMessage,
    KlioDrop,
    KlioMessageCounter,
    KlioTriggerUpstream,
    KlioUpdateAuditLog,
)
from beamsplitter.transforms.klio.message import KlioJob, KlioMessage, new_message, parse_message

JOB = KlioJob(job_name="my-job", gcp_project="my-project")
UPSTREAM = KlioJob(job_name="upstream-job", gcp_project="upstream-project")
OTHER = KlioJob(job_name="other-job", gcp_project="my-project")
CONTEXT = KlioContext(job=JOB)
NO_MESSAGE = b"\xff no message"


def process(step: beam.DoFn, message: KlioMessage) -> list[KlioMessage]:
    outputs = bind_context(step, CONTEXT).process(message.SerializeToString())
    return [parse_message(output) for output in outputs]


def trigger(message: KlioMessage, **options: Any) -> KlioMessage:
    step = KlioTriggerUpstream("upstream-job", "upstream-project", **options)
    [output] = process(step, message)
    return output


class TestTriggerUpstream:
    def test_bytes_are_those_of_klio(self) -> None:
        expected = KlioMessage(version=2)
        expected.data.element = b"x"
        limited = expected.metadata.intended_recipients.limited
        limited.recipients.extend([UPSTREAM, JOB])
        limited.trigger_children_of.CopyFrom(JOB)
        step = bind_context(KlioTriggerUpstream("upstream-job", "upstream-project"), CONTEXT)
        [output] = step.process(new_message("x").SerializeToString())
        assert output == expected.SerializeToString()

    def test_recipients_are_added_once(self) -> None:
        again = trigger(trigger(new_message("x", recipients=[OTHER, JOB])))
        limited = again.metadata.intended_recipients.limited
        assert list(limited.recipients) == [OTHER, JOB, UPSTREAM]

    def test_there_and_back(self) -> None:
        """The upstream job, this one and then the jobs after it process the message."""
        message = trigger(new_message("x"))
        now = datetime.datetime.now(datetime.UTC)
        assert decide(message, OTHER) == Decision.OTHER_RECIPIENTS
        for job in UPSTREAM, JOB, OTHER:
            assert decide(message, job) == Decision.PROCESS
            message = settle(message, job, force=False, now=now)

    def test_log(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG, "klio")
        trigger(new_message("x"), log_level=None)
        assert not caplog.records
        trigger(new_message("x"))
        trigger(new_message("x"), log_level="debug")
        trigger(new_message("x"), log_level=33)
        assert [record.levelno for record in caplog.records] == [logging.INFO, logging.DEBUG, 33]
        assert_names(caplog.records[0].getMessage(), "upstream-job", "b'x'")

    def test_version_1_has_no_recipients(self) -> None:
        message = new_message("x", version=1).SerializeToString()
        [dropped] = KlioTriggerUpstream("upstream-job", "upstream-project").process(message)
        assert (dropped.tag, dropped.value) == ("drop", message)

    def test_a_topic_is_no_project(self) -> None:
        """Klio's own step is given one in this place, and publishes itself."""
        with pytest.raises(ValueError, match=r"projects/p/topics/t.*WriteToPubSub"):
            KlioTriggerUpstream("upstream-job", "projects/p/topics/t")

    @pytest.mark.parametrize("level", ["LOUD", ""])
    def test_unknown_log_level(self, level: str) -> None:
        with pytest.raises(ValueError, match=r"log_level is one of .*INFO"):
            KlioTriggerUpstream("upstream-job", "upstream-project", log_level=level)
        with pytest.raises(ValueError, match=r"log_level is one of .*INFO"):
            KlioDebugMessage(log_level=level)


class TestUpdateAuditLog:
    def test_appends_the_job_and_keeps_the_rest(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG, "klio")
        message = new_message("x", payload="pay", recipients=[OTHER])
        message.metadata.force = message.metadata.ping = True
        message.metadata.job_audit_log.add(klio_job=OTHER)
        before = datetime.datetime.now(datetime.UTC)
        [output] = process(KlioUpdateAuditLog(), message)
        item = output.metadata.job_audit_log.pop()
        assert item.klio_job == JOB
        age = item.timestamp.ToDatetime(tzinfo=datetime.UTC) - before
        assert datetime.timedelta(0) <= age < datetime.timedelta(minutes=1)
        assert output == message
        [record] = caplog.records
        assert "my-project::other-job -> my-project::my-job (current job)" in record.getMessage()


class TestDebugMessage:
    def test_bytes_are_unchanged(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, "klio")
        message = KlioMessage()  # without version, which reading it settles
        message.data.element = b"song.wav"
        encoded = message.SerializeToString()
        assert list(KlioDebugMessage().process(encoded)) == [encoded]
        [record] = caplog.records
        assert record.getMessage().startswith("DEBUG: ")
        assert 'element: "song.wav"' in record.getMessage()

    def test_prefix_and_level(self, caplog: pytest.LogCaptureFixture) -> None:
        process(KlioDebugMessage("Look: ", log_level="WARNING"), new_message("x"))
        [record] = caplog.records
        assert record.levelno == logging.WARNING
        assert record.getMessage().startswith("Look: ")

    def test_long_payloads_are_cut(self, caplog: pytest.LogCaptureFixture) -> None:
        step = KlioDebugMessage(log_level="ERROR")
        [output] = process(step, new_message("x", payload=b"a" * 10**6))
        assert len(output.data.payload) == 10**6
        [record] = caplog.records
        assert len(record.getMessage()) < 500
        assert "1000000 bytes" in record.getMessage()


def test_drop_logs(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "klio")
    assert process(KlioDrop(), new_message("song.wav")) == []
    [record] = caplog.records
    assert "song.wav" in record.getMessage()


@pytest.mark.parametrize(
    "step",
    [
        KlioDebugMessage(),
        KlioDrop(),
        KlioTriggerUpstream("upstream-job", "upstream-project"),
        KlioUpdateAuditLog(),
    ],
    ids=lambda step: type(step).__name__,
)
def test_what_is_no_message_goes_to_drop(step: beam.DoFn) -> None:
    [output] = step.process(NO_MESSAGE)
    assert isinstance(output, TaggedOutput)
    assert (output.tag, output.value) == ("drop", NO_MESSAGE)
    config = {"job_config": {"allow_non_klio_messages": True}}
    bind_context(step, KlioContext(config=config))
    assert not any(isinstance(output, TaggedOutput) for output in step.process(NO_MESSAGE))


def test_a_counter_does_not_read_messages() -> None:
    assert list(KlioMessageCounter("seen", "Mine").process(NO_MESSAGE)) == [NO_MESSAGE]


def job_of_last_audit_item(message: bytes) -> str:
    return parse_message(message).metadata.job_audit_log[-1].klio_job.job_name


def test_in_a_pipeline() -> None:
    encoded = new_message("x").SerializeToString()
    pipeline = beam.Pipeline(runner="FnApiRunner")
    messages = pipeline | beam.Create([encoded, encoded])
    seen = (
        messages
        | beam.ParDo(KlioDebugMessage())
        | beam.ParDo(KlioMessageCounter("seen", "Mine"))
        | "Audit" >> beam.ParDo(KlioUpdateAuditLog())
        | beam.Map(job_of_last_audit_item)
    )
    assert_that(seen, equal_to(["my-job", "my-job"]), label="seen")
    triggered = messages | beam.ParDo(KlioTriggerUpstream("upstream-job", "upstream-project"))
    expected = trigger(new_message("x")).SerializeToString()
    assert_that(triggered, equal_to([expected, expected]), label="triggered")
    assert_that(messages | beam.ParDo(KlioDrop()), equal_to([]), label="nothing")
    unreadable = pipeline | "Unreadable" >> beam.Create([NO_MESSAGE])
    dropped = unreadable | "Audit none" >> beam.ParDo(KlioUpdateAuditLog()).with_outputs("drop")
    assert_that(dropped.drop, equal_to([NO_MESSAGE]), label="dropped")
    bind_context(pipeline, CONTEXT)
    result = pipeline.run()
    result.wait_until_finish()
    counted = {
        (each.key.metric.namespace, each.key.metric.name): each.committed
        for each in result.metrics().query()["counters"]
    }
    assert counted == {
        ("KlioDebugMessage", "kmsg-debug"): 2,
        ("Mine", "kmsg-seen"): 2,
        ("KlioTriggerUpstream", "kmsg-trigger-upstream"): 2,
        ("KlioDrop", "kmsg-drop"): 2,
        ("KlioUpdateAuditLog", "kmsg-drop-error"): 1,
    }
