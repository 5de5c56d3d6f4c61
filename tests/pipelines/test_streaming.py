"""Streams on one machine: no event is lost, whatever dies, and none is worked on twice at once."""

import contextlib
import json
import os
import queue
import random
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from bigquery_server import BigQueryServer
from conftest import Command, result_files
from facts import assert_names
from google.api_core import exceptions
from google.cloud.pubsub_v1 import PublisherClient, SubscriberClient
from google.cloud.pubsub_v1.subscriber.message import Message
from google.pubsub_v1 import types
from model_packages import Halves, write_package
from pubsub_server import PubSubServer, serving
from result_checks import read_json
from separators import Ending
from started_commands import have_ended, started
from storage_server import Fault, StorageServer
from warm_command import HOOK

from beamsplitter.pipelines.events.elements import Place
from beamsplitter.pipelines.events.pubsub import PubSubError
from beamsplitter.pipelines.job.job_config import parse_job
from beamsplitter.pipelines.outcomes.run_state import CRASHED
from beamsplitter.pipelines.stream.subscriptions import (
    DeadLetterTopic,
    Event,
    Subscription,
    connect,
    event_of,
)
from beamsplitter.transforms.klio.message import new_message, parse_message

WriteAudio = Callable[..., Path]
LIMIT_S = 120
LETHAL = """
import os, signal
from beamsplitter.audio.decoding import audio_reader

read_audio = audio_reader.read_audio

def read_or_die(source, *, name, **options):
    if name.startswith("lethal"):
        os.kill(os.getpid(), signal.SIGKILL)
    return read_audio(source, name=name, **options)

audio_reader.read_audio = read_or_die
"""
SLOW = """
import time
from beamsplitter.audio.decoding import audio_reader

read_audio = audio_reader.read_audio

def read_late(source, *, name, **options):
    time.sleep(15 if name.startswith("slow") else 0)
    return read_audio(source, name=name, **options)

audio_reader.read_audio = read_late
"""
# The least that Pub/Sub has.
LEASE_S = 10
# What a test waits for that waits for a lease, for a line of health, or for a server that is away.
QUICK = f"""
from beamsplitter.pipelines.stream import streaming, subscriptions

subscriptions.LEASE_S = {LEASE_S}
subscriptions.SET_UP_S = 2
streaming.HEALTH_EVERY_S = 1
"""
IMPATIENT = """
from beamsplitter.storage import gcs

gcs.RETRY = gcs.RETRY.with_timeout(0.2)
"""


@dataclass
class Job:
    """A streaming job on folders of a test: its file, and where its events and results are."""

    folder: Path
    server: PubSubServer
    topic: str
    subscription: str

    @property
    def out(self) -> Path:
        return self.folder / "out"

    def plain(self, **changes: Any) -> dict[str, Any]:
        return {
            "job_name": "live",
            "pipeline_options": {"runner": "DirectRunner", "streaming": True},
            "job_config": {
                "events": {"inputs": [{"type": "pubsub", "subscription": self.subscription}]},
                "data": {
                    "inputs": [{"type": "file", "location": str(self.folder / "in")}],
                    "outputs": [{"type": "file", "location": str(self.out)}],
                },
            },
            "plots": {"enabled": False},
            **changes,
        }

    def write(self, **changes: Any) -> Path:
        """Write the job file."""
        path = self.folder / "job.yaml"
        path.write_text(json.dumps(self.plain(**changes)))
        return path

    def publish(self, *elements: str) -> None:
        messages = [
            types.PubsubMessage(data=new_message(element).SerializeToString())
            for element in elements
        ]
        self.server.publisher.publish(topic=self.topic, messages=messages)

    def published(self) -> set[str]:
        """Folders of the finished recordings."""
        return {path.parent.name for path in self.out.glob("*/manifest.json")}

    def batch(self, command: Command, **changes: Any) -> dict[str, bytes]:
        """What a batch job makes of the same recordings."""
        inputs = [{"type": "folder", "location": str(self.folder / "in")}]
        options = {"runner": "DirectRunner", "streaming": False}
        plain = self.plain(pipeline_options=options, **changes)
        plain["job_config"]["events"]["inputs"] = inputs
        plain["job_config"]["data"]["outputs"][0]["location"] = str(self.folder / "batch")
        path = self.folder / "batch.yaml"
        path.write_text(json.dumps(plain))
        run = command("run", path, "--workers", 2)
        assert run.returncode == 0, run.stderr
        return recordings_of(self.folder / "batch")


def recordings_of(out: Path) -> dict[str, bytes]:
    """All files of recordings."""
    files = result_files(out)
    return {
        name: data
        for name, data in files.items()
        if name != "failures.jsonl" and not name.startswith("failures/")
    }


@dataclass
class Run:
    """A stream that runs, and its log."""

    started: Any  # as of subprocess.Popen
    log: Path
    messages: Path
    temporary: Path

    def lines(self, event: str) -> list[dict[str, Any]]:
        """What was logged of a kind so far."""
        text = self.log.read_text()
        lines = [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
        return [line for line in lines if line["event"] == event]

    def wait_until(self, condition: Callable[[], object]) -> None:
        """Wait for something that is to come while it runs."""
        end_s = time.monotonic() + LIMIT_S
        while not condition():
            assert self.started.poll() is None, self.messages.read_text()
            assert time.monotonic() < end_s, "waited in vain"
            time.sleep(0.02)

    def wait(self) -> int:
        """Wait for its end; gives the exit code."""
        code = int(self.started.wait(LIMIT_S))
        assert not list(self.temporary.iterdir())
        return code

    def end(self) -> int:
        """Have it end; gives the exit code."""
        self.started.send_signal(signal.SIGTERM)
        return self.wait()

    def children(self, recursive: bool = False) -> list[psutil.Process]:
        """The processes that it has started."""
        return psutil.Process(self.started.pid).children(recursive=recursive)

    @property
    def template(self) -> psutil.Process:
        """The process that batches are forked from."""
        return self.children()[0]


Running = Callable[..., contextlib.AbstractContextManager[Run]]


@pytest.fixture
def running(command: Command) -> Running:
    """A stream in a process of its own, killed with its children if it still runs.

    Called with the job file, options of the command, and code that the process runs first; forked,
    or started `anew` as a user starts it.
    """

    @contextlib.contextmanager
    def running(
        job_file: Path, *options: object, hook: str | None = None, anew: bool = False
    ) -> Iterator[Run]:
        folder = job_file.parent
        number = len(list(folder.glob("log-*")))
        log, temporary = folder / f"log-{number}", folder / f"tmp-{number}"
        line = ("run", job_file, "--log-format", "json", *options)
        environment = {HOOK: hook} if hook else {}
        with (
            open(log, "wb") as out,
            started(command, temporary, *line, anew=anew, stdout=out, **environment) as run,
        ):
            yield Run(run.process, log, run.messages, temporary)

    return running


@pytest.fixture
def job(tmp_path: Path, pubsub: PubSubServer) -> Job:
    """A job with a subscription of its own."""
    topic = pubsub.topic()
    (tmp_path / "in").mkdir()
    return Job(tmp_path, pubsub, topic, pubsub.subscription(topic))


@pytest.fixture(scope="module")
def own_process() -> Iterator[PubSubServer]:
    """A server that sees at once that a client is gone.

    Google's emulator goes on to deliver to it, for up to a minute.
    """
    with serving("own") as server:
        yield server


@pytest.fixture
def quick_job(tmp_path: Path, own_process: PubSubServer, monkeypatch: pytest.MonkeyPatch) -> Job:
    """A job on that server."""
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", own_process.address)
    topic = own_process.topic()
    (tmp_path / "in").mkdir()
    # So long that what is not given back would not be seen again in a test.
    subscription = own_process.subscription(topic, ack_deadline_s=600)
    return Job(tmp_path, own_process, topic, subscription)


def counts(job: Job) -> dict[str, int]:
    """The counts of `run.json`."""
    recordings: dict[str, int] = read_json(job.out / "run.json")["recordings"]
    return recordings


def test_events_are_published_as_a_batch_would_and_acknowledged(
    job: Job, write_audio: WriteAudio, command: Command, running: Running
) -> None:
    for seed, name in enumerate("abc"):
        write_audio(f"in/{name}.wav", seed=seed)
    job.publish("a.wav", "b.wav")
    with running(job.write(), anew=True) as run:
        run.wait_until(lambda: job.published() == {"a", "b"})
        job.publish("c.wav")
        run.wait_until(lambda: job.published() == {"a", "b", "c"})
        assert run.end() == 0
    assert job.server.is_empty(job.subscription)
    assert counts(job)["finished"] == counts(job)["total"] == 3
    steps = read_json(job.out / "run.json")["steps"]
    assert steps["PublishTrack"]["out"] == 3
    assert steps["KlioReadFromPubSub"] == {"kmsg-read": 3}
    assert not (job.out / ".beamsplitter").exists()
    assert recordings_of(job.out) == job.batch(command)


def test_models_of_a_stream_give_what_they_give_in_a_batch(
    job: Job, write_audio: WriteAudio, command: Command, tmp_path: Path, running: Running
) -> None:
    package = write_package(tmp_path / "halves-net", Halves(), labels=["low", "high"])
    separation = {"separator": package, "device": "cpu"}
    for seed, name in enumerate("abc"):
        write_audio(f"in/{name}.wav", seed=seed, channels=2)
    job.publish("a.wav", "b.wav", "c.wav")
    with running(job.write(separation=separation), "--workers", 2) as run:
        run.wait_until(lambda: job.published() == {"a", "b", "c"})
        assert run.end() == 0
    assert counts(job)["finished"] == 3
    assert read_json(job.out / "run.json")["steps"]["RunInference"]["num_inferences"] == 3
    assert recordings_of(job.out) == job.batch(command, separation=separation)


def test_duplicates_are_never_worked_on_at_once(
    job: Job, write_audio: WriteAudio, running: Running
) -> None:
    write_audio("in/a.wav", seconds=10)
    job.publish(*["a.wav"] * 6, "./a.wav")
    with running(job.write(), "--workers", 3) as run:
        run.wait_until(lambda: len(run.lines("finished")) == 7)
        assert run.end() == 0
        work = run.lines("planned")
    assert len(work) == 1
    assert (counts(job)["finished"], counts(job)["skipped"]) == (1, 6)
    assert job.server.is_empty(job.subscription)


def test_a_recording_that_kills_its_process_is_given_up_and_the_rest_is_done(
    job: Job, write_audio: WriteAudio, running: Running
) -> None:
    for name in ("a", "b", "lethal", "y", "z"):
        write_audio(f"in/{name}.wav")
    dead_letters = job.server.subscription(topic := job.server.topic())
    job.publish("a.wav", "lethal.wav", "b.wav")
    streaming = {"dead_letter_topic": topic, "max_tries": 2}
    with running(job.write(streaming=streaming), hook=LETHAL) as run:
        run.wait_until(lambda: run.lines("failed"))
        job.publish("y.wav", "z.wav")
        run.wait_until(lambda: job.published() == {"a", "b", "y", "z"})
        assert run.end() == 1
        assert [line["tries"] for line in run.lines("crashed")] == [1, 2]
        assert {line["element"] for line in run.lines("crashed")} == {"lethal.wav"}
    assert (counts(job)["finished"], counts(job)["failed"], counts(job)["skipped"]) == (4, 1, 0)
    assert job.server.is_empty(job.subscription)
    [letter] = map(read_json, (job.out / "failures").iterdir())
    assert letter["exception"] == "GivenUpError"
    [message] = job.server.pull_all(dead_letters)
    assert message.data == new_message("lethal.wav").SerializeToString()
    assert message.attributes["beamsplitter_element"] == "lethal.wav"
    assert CRASHED in message.attributes["beamsplitter_message"]
    assert not (job.out / ".beamsplitter").exists()


def test_what_hangs_or_leaves_is_given_up_with_its_step_and_the_rest_is_done(
    job: Job, write_audio: WriteAudio, monkeypatch: pytest.MonkeyPatch, running: Running
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    for name, level in {"hangs": Ending.HANGS, "leaves": Ending.LEAVES}.items():
        write_audio(f"in/{name}.wav", samples=np.full((1, 8000), level, np.float32))
    for seed, name in enumerate("abz"):
        write_audio(f"in/{name}.wav", seed=seed)
    job.publish("hangs.wav", "a.wav", "leaves.wav", "b.wav")
    changes = {
        "separation": {"separator": "separators:Ending"},
        "limits": {"step_s": 5, "step_times_length": 0},
    }
    with running(job.write(**changes), "--workers", 1) as run:
        run.wait_until(lambda: len(run.lines("failed")) == 2)
        job.publish("z.wav")
        run.wait_until(lambda: job.published() == {"a", "b", "z"})
        assert run.end() == 1
        crashes = run.lines("crashed")
    tried = {
        name: [
            line["tries"] for line in crashes if line["element"] == name and line["hung"] is hung
        ]
        for name, hung in (("hangs.wav", True), ("leaves.wav", False))
    }
    # What hangs takes a slot for long, so it is tried twice only.
    assert tried == {"hangs.wav": [2, 3], "leaves.wav": [1, 2, 3]}
    assert len(crashes) == 5
    assert job.server.is_empty(job.subscription)
    letters = {
        letter["element"]: letter for letter in map(read_json, (job.out / "failures").iterdir())
    }
    assert {letter["step"] for letter in letters.values()} == {"RunInference"}
    assert_names(letters["hangs.wav"]["message"], "RunInference", "5 s")
    assert CRASHED in letters["leaves.wav"]["message"]


def test_a_launcher_that_is_killed_while_its_engine_begins_leaves_nothing(
    job: Job, running: Running
) -> None:
    with running(job.write()) as run:
        run.wait_until(run.children)
        run.started.kill()
        run.started.wait()
        end_s = time.monotonic() + LIMIT_S
        while list(run.temporary.iterdir()):
            assert time.monotonic() < end_s, "it left its folder"
            time.sleep(0.05)


def test_bad_messages_become_dead_letters_and_are_not_in_the_way(
    job: Job, write_audio: WriteAudio, running: Running
) -> None:
    write_audio("in/a.wav")
    dead_letters = job.server.subscription(topic := job.server.topic())
    job.server.publish(job.topic, b"\xff\xfe no message", timeout="of mine")
    job.publish("missing ü.wav", "a.wav")
    with running(job.write(streaming={"dead_letter_topic": topic})) as run:
        run.wait_until(lambda: len(run.lines("failed")) == 2 and job.published() == {"a"})
        assert run.end() == 1
    assert job.server.is_empty(job.subscription)
    assert len(list((job.out / "failures").iterdir())) == 2
    (summary,) = run.lines("summary")
    assert summary.items() >= {"recordings": read_json(job.out / "run.json")["recordings"]}.items()
    letters = {
        message.attributes["beamsplitter_exception"]: message
        for message in job.server.pull_all(dead_letters)
    }
    assert letters.keys() == {"KlioMessageError", "StorageError"}
    assert letters["KlioMessageError"].data == b"\xff\xfe no message"
    assert letters["KlioMessageError"].attributes["timeout"] == "of mine"
    assert letters["StorageError"].attributes["beamsplitter_element"] == "missing ü.wav"


def test_a_notification_and_a_path_of_one_recording_are_one_recording(
    job: Job, gcs: StorageServer, write_audio: WriteAudio, running: Running
) -> None:
    write_audio("music/a.wav")
    gcs.upload(job.folder / "music", "in")
    plain = job.plain()
    plain["job_config"]["allow_non_klio_messages"] = True
    plain["job_config"]["data"]["inputs"] = [
        {"type": "gcs", "location": "gs://music/in", "file_suffix": ".wav"}
    ]
    notification = {"eventType": "OBJECT_FINALIZE", "bucketId": "music", "objectId": "in/a.wav"}
    job.server.publish(job.topic, b"{}", **notification)
    job.server.publish(job.topic, b"a")
    with running(job.write(**plain), "--workers", 2) as run:
        run.wait_until(lambda: len(run.lines("finished")) == 2)
        assert run.end() == 0
    assert (counts(job)["finished"], counts(job)["skipped"]) == (1, 1)
    assert job.published() == {"a"}


def test_storage_that_is_away_is_waited_for(
    job: Job, gcs: StorageServer, write_audio: WriteAudio, running: Running
) -> None:
    write_audio("music/a.wav")
    gcs.upload(job.folder / "music", "in")
    gcs.faults.append(Fault("in/a.wav", 503, times=10**6))
    plain = job.plain()
    plain["job_config"]["data"]["inputs"][0] = {"type": "gcs", "location": "gs://music/in"}
    job.publish("a.wav")
    with running(job.write(**plain), hook=IMPATIENT + QUICK) as run:
        run.wait_until(lambda: any(line["health"]["trouble"] for line in run.lines("health")))
        health = run.lines("health")[-1]["health"]
        assert_names(health["trouble"], "storage", "a.wav")
        assert health["waiting"] == 1
        gcs.faults.clear()
        run.wait_until(lambda: job.published() == {"a"})
        assert run.end() == 0
        assert not run.lines("crashed")
    assert counts(job) == {**dict.fromkeys(counts(job), 0), "finished": 1, "total": 1}
    assert job.server.is_empty(job.subscription)


def test_a_recording_that_takes_longer_than_its_lease_is_delivered_once(
    quick_job: Job, write_audio: WriteAudio, running: Running
) -> None:
    job = quick_job
    write_audio("in/slow.wav")
    write_audio("in/quick.wav", seed=1)
    assert LEASE_S < 15
    job.publish("slow.wav")
    with running(job.write(), "--workers", 2, hook=SLOW + QUICK) as run:
        run.wait_until(lambda: run.lines("started"))
        job.publish("quick.wav")
        run.wait_until(lambda: job.published() == {"quick"})
        run.wait_until(lambda: job.published() == {"quick", "slow"})
        assert run.end() == 0
    assert counts(job)["finished"] == counts(job)["total"] == 2
    assert job.server.is_empty(job.subscription)


@pytest.mark.parametrize("grace_s", [0, 60])
def test_a_stream_that_is_told_to_end_gives_back_what_it_does_not_finish(
    quick_job: Job, write_audio: WriteAudio, grace_s: float, running: Running
) -> None:
    job = quick_job
    names = [f"{seed}" for seed in range(6)]
    for seed, name in enumerate(names):
        write_audio(f"in/{name}.wav", seconds=30, sample_rate=22050, seed=seed)
    job.publish(*(f"{name}.wav" for name in names))
    streaming = {"shutdown_grace_s": grace_s}
    with running(job.write(streaming=streaming), "--workers", 2) as run:
        run.wait_until(lambda: job.published())
        # At least one is being worked on: a new one was begun when the first was published.
        run.wait_until(lambda: len(run.lines("started")) > len(run.lines("finished")))
        family = run.children(recursive=True)
        assert run.end() == 0
    assert have_ended(family)
    backlog = [element_of(message.data) for message in job.server.pull_all(job.subscription)]
    assert len(backlog) == len(set(backlog))
    unfinished = {f"{name}.wav" for name in names if name not in job.published()}
    assert unfinished
    if grace_s:
        assert set(backlog) == unfinished
        assert counts(job)["finished"] == len(names) - len(unfinished)
    else:
        assert set(backlog) >= unfinished
        assert len(backlog) == len(names) - counts(job)["finished"]


def element_of(data: bytes) -> str:
    return type(new_message("")).FromString(data).data.element.decode()


def test_a_stream_that_ends_as_it_begins_gives_all_back(
    quick_job: Job, write_audio: WriteAudio, running: Running
) -> None:
    job = quick_job
    names = [f"{seed}.wav" for seed in range(4)]
    for seed, name in enumerate(names):
        write_audio(f"in/{name}", seconds=60, sample_rate=44100, seed=seed)
    job.publish(*names)
    with running(job.write(streaming={"shutdown_grace_s": 0}), "--workers", 1) as run:
        run.wait_until(lambda: run.lines("listening"))
        assert run.end() == 0
    backlog = [element_of(message.data) for message in job.server.pull_all(job.subscription)]
    assert sorted(backlog) == names


def test_a_second_signal_ends_the_stream_at_once(
    quick_job: Job, write_audio: WriteAudio, running: Running
) -> None:
    job = quick_job
    write_audio("in/a.wav", seconds=120, sample_rate=44100, channels=2)
    job.publish("a.wav")
    with running(job.write(streaming={"shutdown_grace_s": 600})) as run:
        run.wait_until(lambda: run.lines("started"))
        run.started.send_signal(signal.SIGINT)
        run.started.send_signal(signal.SIGTERM)
        assert run.wait() == 0
    assert not job.published()
    assert [element_of(each.data) for each in job.server.pull_all(job.subscription)] == ["a.wav"]


def test_a_topic_alone_is_given_a_subscription_that_stays(
    quick_job: Job, write_audio: WriteAudio, running: Running
) -> None:
    job = quick_job
    write_audio("in/a.wav")
    write_audio("in/b.wav")
    plain = job.plain(job_name="of mine, ü")
    plain["job_config"]["events"]["inputs"] = [{"type": "pubsub", "topic": job.topic}]
    with running(job.write(**plain)) as run:
        run.wait_until(lambda: run.lines("listening"))
        [own] = run.lines("listening")[0]["subscriptions"]
        job.publish("a.wav")
        run.wait_until(lambda: job.published() == {"a"})
        assert run.end() == 0
    job.publish("b.wav")
    with running(job.write(**plain)) as run:
        run.wait_until(lambda: job.published() == {"a", "b"})
        assert run.end() == 0
        assert run.lines("listening")[0]["subscriptions"] == [own]
    assert job.server.is_empty(own)


def test_mistakes_of_the_set_up_are_one_line(job: Job, command: Command) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        environment = {"PUBSUB_EMULATOR_HOST": address, HOOK: QUICK}
        away = command("run", job.write(), **environment)
    gone = command("run", job.write(streaming={"dead_letter_topic": f"{job.topic}-x"}))
    job.server.subscriber.delete_subscription(subscription=job.subscription)
    missing = command("run", job.write())
    for run, facts in (
        (away, ["Pub/Sub", "reached"]),
        (gone, [f"{job.topic}-x", "no such topic"]),
        (missing, [job.subscription, "no such subscription"]),
    ):
        assert run.returncode == 2
        assert_names(run.stderr, *facts)
        assert len(run.stderr.splitlines()) == 1, run.stderr


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (exceptions.InvalidArgument("Invalid name"), "Pub/Sub refuses it: Invalid name: correct"),
        (exceptions.FailedPrecondition("detached"), "Pub/Sub refuses it: detached: correct"),
        (exceptions.Unauthenticated("who?"), "may not be used: check the roles"),
        (exceptions.InternalServerError("oh"), "Pub/Sub can't be reached: oh; check the network"),
    ],
)
def test_what_pubsub_refuses_is_explained(
    error: Exception, said: str, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise error

    for client, call in (
        (SubscriberClient, "get_subscription"),
        (SubscriberClient, "create_subscription"),
        (PublisherClient, "get_topic"),
    ):
        monkeypatch.setattr(client, call, refuse)
    plain = job.plain()
    with pytest.raises(PubSubError) as told:
        connect(parse_job(plain, source="test"))
    assert str(told.value).startswith(f"{job.subscription}: {said}")
    plain["job_config"]["events"]["inputs"] = [{"type": "pubsub", "topic": job.topic}]
    with pytest.raises(PubSubError) as told:
        connect(parse_job(plain, source="test"))
    assert str(told.value).startswith(f"{job.topic}: {said}")
    with pytest.raises(PubSubError) as told:
        DeadLetterTopic(job.topic, "live")
    assert str(told.value).startswith(f"{job.topic}: {said}")


def test_nothing_is_lost_when_everything_is_killed_in_turn(
    quick_job: Job, write_audio: WriteAudio, command: Command, running: Running
) -> None:
    job = quick_job
    names = [f"{number:02d}" for number in range(50)]
    for number, name in enumerate(names):
        write_audio(f"in/{name}.wav", seconds=2.5, seed=number)
    expected = job.batch(command)
    events = [f"{name}.wav" for name in names for _ in range(5)]
    random.Random(1).shuffle(events)
    job.publish(*events)
    job_file = job.write()
    before: dict[str, bytes] = {}
    with running(job_file, "--workers", 2, hook=QUICK) as run:
        run.wait_until(lambda: len(job.published()) >= 8)
        family = run.children(recursive=True)
        run.started.kill()
        assert not psutil.wait_procs(family, timeout=LIMIT_S)[1]
        assert not list(run.temporary.iterdir())
    killed_s = time.monotonic()
    assert len(job.published()) < len(names)
    before |= finished_files(job)
    with running(job_file, "--workers", 2, hook=QUICK) as run:
        run.wait_until(lambda: len(job.published()) >= 20)
        run.template.kill()
        before |= finished_files(job)
        run.wait_until(lambda: len(job.published()) >= 30)
        run.wait_until(run.template.children)
        for child in run.template.children():
            child.kill()
        before |= finished_files(job)
        assert len(job.published()) < len(names)
        run.wait_until(lambda: len(job.published()) == len(names))
        # Those that the first launcher held come back when their leases have ended.
        run.wait_until(lambda: time.monotonic() > killed_s + LEASE_S + 3)
        seen = len(run.lines("health"))
        run.wait_until(lambda: any(map(is_idle, run.lines("health")[seen:])))
        assert run.end() == 0
        assert not run.lines("failed")
        assert run.lines("crashed")
    assert job.server.is_empty(job.subscription)
    assert recordings_of(job.out) == expected
    assert before.items() <= expected.items()
    assert not list((job.out).rglob("failures"))
    assert before


def is_idle(line: dict[str, Any]) -> bool:
    """Whether a line of health tells that all is done."""
    return not line["health"]["in_work"] and not line["health"]["waiting"]


def finished_files(job: Job) -> dict[str, bytes]:
    """The files of all recordings that are finished now."""
    folders = job.published()
    return {
        name: data
        for name, data in recordings_of(job.out).items()
        if os.path.dirname(name) in folders
    }


def test_the_set_up_of_a_stream_is_checked_with_the_job_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"streaming\.dead_letter_topic"):
        parse_job({"job_name": "x", "streaming": {"dead_letter_topic": "of mine"}}, source="test")


def message_with(data: bytes, *, delivery_attempt: int = 0, **attributes: str) -> Message:
    """A message as the client library hands it on."""
    plain = types.PubsubMessage(data=data, attributes=attributes, message_id="1")
    return Message(types.PubsubMessage.pb(plain), "ack-id", delivery_attempt, queue.Queue())


def identified(data: bytes, **attributes: str) -> tuple[str, str]:
    """Element and key of a message."""
    job = parse_job({"job_name": "x", "job_config": {"allow_non_klio_messages": True}}, source="")
    subscription = Subscription("of no account", queue.SimpleQueue(), max_messages=1)
    place = Place("gs://music/in", ".wav")
    event = event_of(message_with(data, **attributes), subscription, job, place)
    assert event.element in event.names
    return event.element, event.key


def test_all_ways_to_name_a_recording_have_one_key() -> None:
    key = "gs://music/in/a/b.wav"
    object_of = {"eventType": "OBJECT_FINALIZE", "bucketId": "music", "objectId": "in/a/b.wav"}
    assert identified(b"a/b") == ("a/b", key)
    assert identified(new_message("a/b").SerializeToString()) == ("a/b", key)
    assert identified(b"{}", **object_of) == ("a/b.wav", key)
    assert identified(b"gs://music/in/a/b.wav") == ("a/b.wav", key)
    assert identified(b"a/c")[1] != key


def test_a_recording_is_given_up_after_its_last_try_here_or_elsewhere() -> None:
    def is_given_up(crashes: int, delivery_attempt: int) -> bool:
        event = Event(
            message_with(b"a", delivery_attempt=delivery_attempt),
            Subscription("of no account", queue.SimpleQueue(), max_messages=1),
            *("a", frozenset("a"), "a"),
            crashes=crashes,
        )
        return event.is_given_up(3)

    assert [is_given_up(crashes, 0) for crashes in range(5)] == [False, False, False, True, True]
    assert [is_given_up(1, attempt) for attempt in (1, 2, 3)] == [False, False, True]
    assert not is_given_up(0, 100)


def test_a_stream_tells_of_what_it_has_finished(
    quick_job: Job, write_audio: WriteAudio, bigquery: BigQueryServer, running: Running
) -> None:
    job = quick_job
    finished = job.server.topic()
    told = job.server.subscription(finished)
    table = {"type": "bq", "table": bigquery.table("done", "element:STRING,duration_s:FLOAT")}
    plain = job.plain()
    plain["job_config"]["events"]["outputs"] = [{"type": "pubsub", "topic": finished}, table]
    write_audio("in/a.wav")
    write_audio("in/b.wav", seed=1)
    for number, name in enumerate("ab"):
        # The second one goes on with the table of the first.
        with running(job.write(**plain)) as run:
            job.publish(f"{name}.wav")
            run.wait_until(lambda number=number: len(bigquery.rows("done")) == number + 1)
            assert run.end() == 0
    payloads = [
        json.loads(parse_message(each.data).data.payload) for each in job.server.pull_all(told)
    ]
    assert {payload["folder"] for payload in payloads} == {str(job.out / "a"), str(job.out / "b")}
    assert sorted(row["element"] for row in bigquery.rows("done")) == ["a.wav", "b.wav"]


def test_the_job_file_for_a_stream_here_takes_what_publish_sends(
    job: Job, write_audio: WriteAudio, command: Command, running: Running
) -> None:
    for seed, name in enumerate("abc"):
        write_audio(f"in/{name}.wav", seed=seed)
    path = job.folder / "pubsub-local.yaml"
    shutil.copy(Path(__file__).parents[2] / "job-configs" / path.name, path)
    values = {
        "PROJECT": job.server.project,
        "TOPIC": job.topic.rpartition("/")[2],
        "SUBSCRIPTION": job.subscription.rpartition("/")[2],
        "INPUT": job.folder / "in",
        "OUTPUT": job.out,
    }
    templates = [option for name in values for option in ("-T", f"{name}={values[name]}")]
    for direction, name in (("--bottom-up", "a"), ("--top-down", "b")):
        sent = command("publish", path, *templates, direction, f"{name}.wav")
        assert sent.returncode == 0, sent.stderr
    job.server.publish(job.topic, b"c.wav")
    with running(path, *templates, "-O", "plots.enabled=false") as run:
        run.wait_until(lambda: job.published() == {"a", "b", "c"})
        assert run.end() == 0
    assert job.server.is_empty(job.subscription)
