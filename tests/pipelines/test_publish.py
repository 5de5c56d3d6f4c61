"""Publishing events to a Pub/Sub server."""

import contextlib
import itertools
import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import Command
from facts import assert_names
from google.cloud import pubsub_v1
from pubsub_server import PubSubServer, serving
from typer.testing import CliRunner, Result

from beamsplitter.pipelines.command_line import app
from beamsplitter.pipelines.events import sending as publishing
from beamsplitter.pipelines.job.job_config import JobConfig, parse_job
from beamsplitter.transforms.klio.message import KlioJob, KlioMessage, parse_message

LIMIT_S = 60
THIS_JOB = KlioJob(job_name="my-job", gcp_project="my-project")


@pytest.fixture
def topic(pubsub: PubSubServer) -> str:
    """A new topic."""
    return pubsub.topic()


@pytest.fixture
def subscription(pubsub: PubSubServer, topic: str) -> str:
    """A subscription of the topic."""
    return pubsub.subscription(topic)


def plain_job(*inputs: dict[str, Any], streaming: bool = True) -> dict[str, Any]:
    return {
        "job_name": "my-job",
        "pipeline_options": {"project": "my-project", "streaming": streaming},
        "job_config": {"events": {"inputs": list(inputs)}},
    }


@pytest.fixture
def job_file(tmp_path: Path) -> Callable[..., Path]:
    """`job_file(topic=…, subscription=…)`: a job that reads them."""

    def write(**pubsub_input: str) -> Path:
        path = tmp_path / "job.yaml"
        path.write_text(yaml.safe_dump(plain_job({"type": "pubsub", **pubsub_input})))
        return path

    return write


def publish(*arguments: object, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(app, ["publish", *map(str, arguments)], input=stdin)


def messages_in(pubsub: PubSubServer, subscription: str) -> list[KlioMessage]:
    return [parse_message(message.data) for message in pubsub.pull_all(subscription)]


def elements_in(pubsub: PubSubServer, subscription: str) -> list[bytes]:
    return sorted(message.data.element for message in messages_in(pubsub, subscription))


@pytest.mark.parametrize(
    ("options", "anyone", "force", "ping"),
    [
        ((), False, False, False),
        (("--bottom-up",), False, False, False),
        (("--top-down",), True, False, False),
        (("--force",), False, True, False),
        (("--ping", "--top-down"), True, False, True),
        (("--force", "--ping"), False, True, True),
    ],
)
def test_a_message_says_what_the_options_say(
    pubsub: PubSubServer,
    topic: str,
    subscription: str,
    job_file: Callable[..., Path],
    options: tuple[str, ...],
    anyone: bool,
    force: bool,
    ping: bool,
) -> None:
    result = publish(job_file(topic=topic), "a b.wav", *options)
    assert result.exit_code == 0, result.output
    (message,) = messages_in(pubsub, subscription)
    assert (message.version, message.data.element, message.data.payload) == (2, b"a b.wav", b"")
    assert (message.metadata.force, message.metadata.ping) == (force, ping)
    recipients = message.metadata.intended_recipients
    assert recipients.WhichOneof("recipients") == ("anyone" if anyone else "limited")
    assert list(recipients.limited.recipients) == ([] if anyone else [THIS_JOB])
    assert not recipients.limited.HasField("trigger_children_of")


def field(number: int, content: bytes) -> bytes:
    """A length-delimited protobuf field, by hand."""
    return bytes([number << 3 | 2, len(content)]) + content


def test_the_bytes_are_those_of_klio(
    pubsub: PubSubServer, topic: str, subscription: str, job_file: Callable[..., Path]
) -> None:
    element = "f\udcff.wav"  # a file's name that is no UTF-8
    assert publish(job_file(topic=topic), element, "--force").exit_code == 0
    assert publish(job_file(topic=topic), element, "--top-down", "--ping").exit_code == 0
    job = field(1, b"my-job") + field(2, b"my-project")
    limited, anyone = field(6, field(2, field(1, job))), field(6, field(1, b""))
    force, ping, version = b"\x20\x01", b"\x28\x01", b"\x18\x02"
    data = field(2, field(3, b"f\xff.wav"))
    assert {message.data for message in pubsub.pull_all(subscription)} == {
        field(1, force + limited) + data + version,
        field(1, ping + anyone) + data + version,
    }


NAMES = [b"caf\xc3\xa9 #1?.wav", b" leading", b"--force", b"\xff\xfe", b"a\tb", b"gs://b/\xf0"]


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_elements_of_a_file(
    pubsub: PubSubServer,
    topic: str,
    subscription: str,
    job_file: Callable[..., Path],
    tmp_path: Path,
    end: bytes,
) -> None:
    elements = tmp_path / "elements.txt"
    elements.write_bytes(end + (end + b"  " + end).join(NAMES))
    result = publish(job_file(topic=topic), "--from-file", elements)
    assert result.exit_code == 0, result.output
    assert elements_in(pubsub, subscription) == sorted(NAMES)
    assert result.stderr.startswith(f"{len(NAMES)} published, 0 failed")


def test_elements_of_the_command_line_and_of_standard_input(
    pubsub: PubSubServer,
    topic: str,
    subscription: str,
    job_file: Callable[..., Path],
    command: Command,
) -> None:
    job = job_file(topic=topic)
    line = [*command.line("publish", job, "--"), *NAMES]
    subprocess.run(line, check=True, timeout=LIMIT_S)
    assert elements_in(pubsub, subscription) == sorted(NAMES)
    line = command.line("publish", job, "--from-file", "-")
    subprocess.run(line, check=True, timeout=LIMIT_S, input=b"\n".join([*NAMES, b""]))
    assert elements_in(pubsub, subscription) == sorted(NAMES)


def test_many_elements_arrive_once_each(
    pubsub: PubSubServer,
    topic: str,
    subscription: str,
    job_file: Callable[..., Path],
    tmp_path: Path,
) -> None:
    names = [b"%04d.wav" % index for index in range(5000)]
    elements = tmp_path / "elements.txt"
    elements.write_bytes(b"\n".join(names))
    result = publish(job_file(topic=topic), "--from-file", elements, "--log-format", "json")
    assert result.exit_code == 0, result.output
    (line,) = map(json.loads, result.stdout.splitlines())
    assert line["event"] == "published"
    assert (line["published"], line["failed"], line["stopped"]) == (5000, 0, None)
    assert elements_in(pubsub, subscription) == names


def test_no_more_messages_wait_for_an_answer_than_allowed(
    topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishing, "OUTSTANDING_LIMIT", 20)
    futures: list[Any] = []
    unanswered: list[int] = []
    send = pubsub_v1.PublisherClient.publish

    def counted(*arguments: Any, **options: Any) -> Any:
        futures.append(send(*arguments, **options))
        unanswered.append(sum(not future.done() for future in futures))
        return futures[-1]

    monkeypatch.setattr(pubsub_v1.PublisherClient, "publish", counted)
    outcome = publish_directly(topic, ((number, b"x") for number in range(1, 501)))
    assert (outcome.published, outcome.failed) == (500, 0)
    assert 1 < max(unanswered) <= 20


def publish_directly(
    topic: str,
    elements: Iterator[tuple[int, bytes]],
    on_failure: Callable[[bytes, str], None] | None = None,
) -> publishing.Outcome:
    job = parse_job(plain_job({"type": "pubsub", "topic": topic}), source="job.yaml")
    assert isinstance(job, JobConfig)
    return publishing.publish(job, elements, on_failure=on_failure or pytest.fail)


def test_the_topic_of_a_subscription_is_found_out(
    pubsub: PubSubServer, subscription: str, job_file: Callable[..., Path]
) -> None:
    assert publish(job_file(subscription=subscription), "x").exit_code == 0
    assert elements_in(pubsub, subscription) == [b"x"]


def test_the_topic_goes_before_that_of_the_subscription(
    pubsub: PubSubServer, topic: str, subscription: str, job_file: Callable[..., Path]
) -> None:
    of_other = pubsub.subscription(pubsub.topic())
    assert publish(job_file(topic=topic, subscription=of_other), "x").exit_code == 0
    assert elements_in(pubsub, subscription) == [b"x"]
    assert pubsub.is_empty(of_other)


def test_the_first_pubsub_input_counts_as_overridden(
    pubsub: PubSubServer, topic: str, subscription: str, tmp_path: Path
) -> None:
    custom = {"type": "custom"}
    inputs = [{"type": "pubsub", "topic": name} for name in ("projects/others/topics/none", topic)]
    job = tmp_path / "job.yaml"
    job.write_text(yaml.safe_dump(plain_job(custom, *inputs)).replace(topic, "${TOPIC}"))
    override = f"job_config.events.inputs.1.topic={topic}"
    result = publish(job, "x", "-O", override, "-T", f"TOPIC={pubsub.topic()}")
    assert result.exit_code == 0, result.output
    assert elements_in(pubsub, subscription) == [b"x"]


def test_an_element_that_is_too_long_costs_only_itself(
    pubsub: PubSubServer,
    topic: str,
    subscription: str,
    job_file: Callable[..., Path],
    tmp_path: Path,
) -> None:
    elements = tmp_path / "elements.txt"
    elements.write_bytes(b"\n".join([b"x" * 10_000_001, b"a", b"y" * 10_000_001, b"b"]))
    arguments = (job_file(topic=topic), "--from-file", elements)
    result = publish(*arguments)
    assert result.exit_code == 1
    first, second, counts = result.stderr.splitlines()
    assert first.startswith("failed xxx") and second.startswith("failed yyy")
    assert "too long" in first and len(first) < 300
    assert counts.startswith("2 published, 2 failed in ")
    assert elements_in(pubsub, subscription) == [b"a", b"b"]

    lines = list(map(json.loads, publish(*arguments, "--log-format", "json").stdout.splitlines()))
    assert [line["event"] for line in lines] == ["failed", "failed", "published"]
    assert {line["element"][0] for line in lines[:2]} == {"x", "y"}


def refused(result: Result) -> str:
    """The one line of a call that was refused."""
    assert result.exit_code == 2, result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    return line


def test_what_is_not_there_is_named(
    pubsub: PubSubServer, topic: str, subscription: str, job_file: Callable[..., Path]
) -> None:
    assert f"{topic}-x: there is no such topic" in refused(
        publish(job_file(topic=f"{topic}-x"), "a", "b")
    )
    line = refused(publish(job_file(subscription=f"{subscription}-x"), "a"))
    assert f"{subscription}-x: there is no such subscription" in line
    pubsub.publisher.delete_topic(topic=topic)
    line = refused(publish(job_file(subscription=subscription), "a"))
    assert_names(line, f"{subscription}: ", "topic", "deleted")


def test_a_job_without_pubsub_can_not_be_published_to(tmp_path: Path) -> None:
    job = tmp_path / "job.yaml"
    folder = {"type": "folder", "location": str(tmp_path)}
    job.write_text(yaml.safe_dump(plain_job(folder, streaming=False)))
    assert_names(refused(publish(job, "a")), "input", "pubsub")


def test_mistakes_in_the_call(
    pubsub: PubSubServer,
    topic: str,
    subscription: str,
    job_file: Callable[..., Path],
    tmp_path: Path,
) -> None:
    job, none, empty = job_file(topic=topic), tmp_path / "none.txt", tmp_path / "empty.txt"
    empty.write_bytes(b"\n \r\n")
    assert "--from-file" in refused(publish(job))
    assert "--from-file" in refused(publish(job, "a", "--from-file", empty))
    assert "empty" in refused(publish(job, "a", ""))
    assert f"{none}: can't be read" in refused(publish(job, "--from-file", none))
    assert f"{tmp_path}: can't be read" in refused(publish(job, "--from-file", tmp_path))
    assert f"{empty}: holds no elements" in refused(publish(job, "--from-file", empty))
    assert "-: holds no elements" in refused(publish(job, "--from-file", "-", stdin=b""))
    assert pubsub.is_empty(subscription)


def test_no_credentials(
    job_file: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PUBSUB_EMULATOR_HOST", raising=False)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    for pubsub_input in (
        {"topic": "projects/project-1/topics/songs"},
        {"subscription": "projects/project-1/subscriptions/songs"},
    ):
        assert "gcloud auth" in refused(publish(job_file(**pubsub_input), "a"))


def test_pubsub_is_away(
    pubsub: PubSubServer,
    topic: str,
    subscription: str,
    job_file: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with serving("own") as server:
        monkeypatch.setenv("PUBSUB_EMULATOR_HOST", server.address)
    monkeypatch.setattr(publishing, "FIRST_ANSWER_LIMIT_S", 1.0)
    assert "can't be reached" in refused(publish(job_file(topic=topic), "a", "b"))
    assert "can't be reached" in refused(publish(job_file(subscription=subscription), "a"))


def test_what_was_published_is_told_when_pubsub_goes_away(
    job_file: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishing, "RETRY_LIMIT_S", 1.0)
    monkeypatch.setattr(publishing, "OUTSTANDING_LIMIT", 100)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    running = contextlib.ExitStack()

    def write_lines() -> None:
        with contextlib.suppress(BrokenPipeError), open(pipe, "wb", buffering=0) as file:
            for number in itertools.count(1):
                file.write(b"%01000d\n" % number)
                if number == 1000:  # most of them have left the pipe, which holds 64 KiB or so
                    running.close()

    with running:
        server = running.enter_context(serving("own"))
        monkeypatch.setenv("PUBSUB_EMULATOR_HOST", server.address)
        job = job_file(topic=server.topic())
        writer = threading.Thread(target=write_lines)
        writer.start()
        result = publish(job, "--from-file", pipe, "--log-format", "json")
        writer.join(LIMIT_S)
    assert result.exit_code == 2
    *failures, last = map(json.loads, result.stdout.splitlines())
    assert "can't be reached" in last["stopped"]
    assert last["published"] > 500
    assert last["published"] + last["failed"] == last["last_number"]
    assert len({failure["element"] for failure in failures}) == last["failed"] > 0
    assert all("can't be reached" in failure["message"] for failure in failures)


def test_what_was_published_is_told_after_an_interrupt(
    pubsub: PubSubServer,
    topic: str,
    subscription: str,
    job_file: Callable[..., Path],
    command: Command,
) -> None:
    with subprocess.Popen(
        command.line("publish", job_file(topic=topic), "--from-file", "-"),
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdin
        assert process.stderr
        process.stdin.write(b"a\n\nb\n")
        process.stdin.flush()
        pubsub.receive(subscription, 2)
        process.send_signal(signal.SIGINT)
        process.wait(LIMIT_S)
        counts, stopped, rest = process.stderr.read().decode().splitlines()
    assert process.returncode == 130
    assert counts.startswith("2 published, 0 failed")
    assert stopped == "stopped: interrupted"
    assert "line 3" in rest
