"""Running a stream on this machine: events in micro-batches, acknowledged after publishing.

Beam's own local reader of Pub/Sub acknowledges messages before they are worked on, so the launcher
takes them itself. Waiting events are dealt to slots, each a process that runs the job's graph on a
few events and ends. Only when it has ended well are its messages acknowledged: then each of their
recordings is published, was so before, was passed through, or has its dead letter.
"""

import collections
import contextlib
import queue
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from google.api_core.exceptions import GoogleAPIError
from google.cloud.pubsub_v1 import SubscriberClient

from ..events.elements import place_of
from ..job.job_config import JobConfig
from ..local.launch import LaunchError, hang_text
from ..outcomes.run_state import CRASHED
from ..outcomes.stream_totals import Health, StreamTotals
from ..outcomes.summary import summary_json
from ..outcomes.unusable import FAILED_EXIT_CODE, UNUSABLE_EXIT_CODE
from .batches import Batch, Engine, Told, batch_identity
from .subscriptions import (
    CLOSE_S,
    FINAL_ERRORS,
    Arrived,
    Closed,
    Closing,
    DeadLetterTopic,
    Event,
    Subscription,
    connect,
    event_of,
)

POLL_S = 0.1
HEALTH_EVERY_S = 10.0
SUMMARY_EVERY_S = 60.0
# So many events a batch that it takes about this long: to begin one costs a quarter of a second.
BATCH_S = 2.5
MAX_BATCH = 32
# Enough that no slot waits for messages to come.
HELD_PER_SLOT = 2 * MAX_BATCH
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0
REOPEN_S = 5.0

Show = Callable[[StreamTotals, dict[str, Any] | None], None]


def run_stream(job: JobConfig, *, workers: int, show: Show) -> StreamTotals:
    """Run a streaming job until SIGTERM or SIGINT; a second one ends it at once.

    Parameters
    ----------
    workers
        micro-batches at once
    show
        called with the totals and each new line of progress

    Raises
    ------
    InputError
        a subscription or topic is not there, no credentials, Pub/Sub can't be reached
    LaunchError
        the engine could not begin, or Pub/Sub refuses to go on
    StorageError
        the output folder can't be written
    """
    temporary = tempfile.TemporaryDirectory(prefix="beamsplitter-", ignore_cleanup_errors=True)
    scratch = job.output_tree.owned_scratch()
    with scratch, temporary as folder, _signals() as signals:
        stream = Stream(job, Path(folder), workers=workers, show=show, signals=signals)
        try:
            stream.run()
        finally:
            stream.close()
    show(stream.totals, {"event": "summary", **stream.summary()})
    return stream.totals


@contextlib.contextmanager
def _signals() -> Iterator[list[int]]:
    """The signals to end that have come."""
    come: list[int] = []
    previous = {
        number: signal.signal(number, lambda number, _: come.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield come
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class Stream:
    """The state of a running stream: what waits, what is worked on, and what came of it."""

    def __init__(
        self, job: JobConfig, folder: Path, *, workers: int, show: Show, signals: list[int]
    ) -> None:
        self.job = job
        self.place = place_of(job)
        self.tree = job.output_tree
        self.folder = folder
        self.workers = workers
        self.show = show
        self.signals = signals
        self.inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.totals = StreamTotals()
        self.waiting: collections.deque[Event] = collections.deque()
        self.running: dict[int, Batch] = {}
        self.numbers = 0
        """How many batches were begun."""
        self.engines = 0
        self.engine = self._new_engine()
        self.client: SubscriberClient | None = None
        self.dead_letter_topic: DeadLetterTopic | None = None
        self.paths: list[str] = []
        self.subscriptions: list[Subscription] = []
        self.reopen: dict[str, float] = {}
        """Paths of subscriptions that have ended, and when they are to be opened again."""
        self.recording_s = BATCH_S
        """Wall time of an event, as the last batches had it."""
        self.pause_s = 0.0
        self.paused_until = 0.0
        self.trouble = ""
        self.stopped_s: float | None = None
        """When it was told to end."""
        self.error: Exception | None = None
        self.started_s = time.monotonic()
        self.health_s = self.summary_s = self.started_s

    # Beginning and end.

    def run(self) -> None:
        """Run until told to end."""
        # The engine begins while Pub/Sub is asked.
        self.client, self.paths = connect(self.job)
        if self.job.streaming.dead_letter_topic:
            self.dead_letter_topic = DeadLetterTopic(
                self.job.streaming.dead_letter_topic, self.job.job_name
            )
        while not self.engine.is_ready and not self.signals:
            self._take_one()
        self.reopen = dict.fromkeys(self.paths, 0.0)
        self._reopen()
        self.show(self.totals, {"event": "listening", "subscriptions": self.paths})
        while self.stopped_s is None or self.running:
            self._take_one()
            self._follow()
            if self.stopped_s is None:
                self._reopen()
                self._start_batches()
            self._report()
            if self.signals and self.stopped_s is None:
                self.stop()
            if self._is_over_time():
                break
        if self.error is not None:
            raise self.error

    def stop(self) -> None:
        """Take no more messages; `Closing` has those that wait given back."""
        self.stopped_s = time.monotonic()
        for subscription in self.subscriptions:
            subscription.close()

    def close(self) -> None:
        """End what still runs, give back what is held, and write the summary."""
        self.engine.end()
        if self.stopped_s is None:
            self.stop()
        for subscription in self.subscriptions:
            subscription.is_closing.wait(CLOSE_S)
        self._give_back_inbox()
        for event in self._held():
            event.message.nack()
        for batch in self.running.values():
            batch.close()
        for subscription in self.subscriptions:
            subscription.wait()
        if self.client is not None:
            self.client.close()
        # Storage that can't be used now could not be before, as health told.
        with contextlib.suppress(OSError):
            if self.numbers:
                self._write_summary()

    def _is_over_time(self) -> bool:
        if self.stopped_s is None:
            return False
        grace_s = self.job.streaming.shutdown_grace_s
        return len(self.signals) > 1 or time.monotonic() > self.stopped_s + grace_s

    def _held(self) -> list[Event]:
        return [*self.waiting, *(event for each in self.running.values() for event in each.events)]

    def _give_back_inbox(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                message = self.inbox.get_nowait()
                if isinstance(message, Arrived):
                    message.message.nack()

    # What the threads of Pub/Sub and of the engine tell.

    def _take_one(self) -> None:
        """Wait for a moment for something to happen, and take all that did."""
        with contextlib.suppress(queue.Empty):
            self._take(self.inbox.get(timeout=POLL_S))
            while True:
                self._take(self.inbox.get_nowait())

    def _take(self, told: Arrived | Closing | Closed | Told) -> None:
        if isinstance(told, Arrived):
            self.waiting.append(event_of(told.message, told.subscription, self.job, self.place))
        elif isinstance(told, Closing):
            self._give_back_waiting(told.subscription)
        elif isinstance(told, Closed):
            self._closed(told)
        elif told.engine is not self.engine:
            return
        elif told.line is None:
            self._engine_ended()
        elif "ready" in told.line:
            self.engine.is_ready = True
        elif "code" in told.line:
            self._ended(self.running.pop(told.line["batch"]), told.line["code"])
        else:
            self.running[told.line["batch"]].process = told.line["process"]

    def _give_back_waiting(self, subscription: Subscription) -> None:
        for event in list(self.waiting):
            if event.subscription is subscription:
                self.waiting.remove(event)
                event.message.nack()
        # It may end once none of its events is worked on.
        if not any(event.subscription is subscription for event in self._held()):
            subscription.let_go.set()

    def _closed(self, told: Closed) -> None:
        self.subscriptions.remove(told.subscription)
        if self.stopped_s is not None:
            return
        if isinstance(told.error, FINAL_ERRORS):
            self.error = LaunchError(f"{told.subscription.path}: {told.error}")
            self.stop()
            return
        self.trouble = f"Pub/Sub is away: {told.error or 'it closed the stream'}"
        self.reopen[told.subscription.path] = time.monotonic() + REOPEN_S

    def _reopen(self) -> None:
        for path, due_s in list(self.reopen.items()):
            if time.monotonic() >= due_s:
                del self.reopen[path]
                share = -(-self.workers * HELD_PER_SLOT // len(self.paths))
                subscription = Subscription(path, self.inbox, max_messages=share)
                subscription.open(self.client)
                self.subscriptions.append(subscription)
                self.trouble = ""

    # Batches.

    def _start_batches(self) -> None:
        while (
            self.engine.is_ready
            and len(self.running) < self.workers
            and time.monotonic() >= self.paused_until
        ):
            events = self._next_events()
            if not events:
                return
            max_tries = self.job.streaming.max_tries
            given_up = {
                event.element: (event.reason, event.step)
                for event in events
                if event.is_given_up(max_tries)
            }
            self.numbers += 1
            self.running[self.numbers] = self.engine.start(self.numbers, events, given_up)

    def _next_events(self) -> list[Event]:
        """The events of the next batch, taken from those that wait.

        One that has crashed a process is alone; no two, here and in the other slots, are about the
        same recording.
        """
        free = self.workers - len(self.running)
        fair = -(-len(self.waiting) // free)
        size = max(1, min(MAX_BATCH, fair, int(BATCH_S / self.recording_s)))
        busy = {event.key for batch in self.running.values() for event in batch.events}
        taken: list[Event] = []
        for event in self.waiting:
            if event.key in busy or (event.crashes and taken):
                continue
            taken.append(event)
            busy.add(event.key)
            if len(taken) == size or event.crashes:
                break
        for event in taken:
            self.waiting.remove(event)
        return taken

    def _follow(self) -> None:
        for batch in self.running.values():
            self._show_progress(batch)
            batch.end_if_it_hangs()

    def _show_progress(self, batch: Batch) -> None:
        for line in batch.follow():
            # A failure is one when its dead letter is written: when the batch has ended well.
            if line["event"] != "failed":
                self.show(self.totals, line)

    def _ended(self, batch: Batch, code: int | None) -> None:
        """A batch's process has ended: acknowledge its messages, or try them again.

        `code` is None if it ended with the engine.
        """
        self._show_progress(batch)
        try:
            if code == 0 and batch.is_done:
                self._settle(batch)
            elif code == UNUSABLE_EXIT_CODE:
                self._pause(batch, f"storage can't be used: {_last_line(batch.log)}")
            else:
                self._try_again(batch, code)
        finally:
            batch.close()
        for subscription in self.subscriptions:
            if subscription.is_closing.is_set():
                self._give_back_waiting(subscription)

    def _settle(self, batch: Batch) -> None:
        failures = {element: lines[0] for element, lines in batch.state.failures.items()}
        if self.dead_letter_topic:
            try:
                for failure in failures.values():
                    for event in batch.events:
                        if failure["element"] in event.names:
                            self.dead_letter_topic.publish(event, failure)
            except GoogleAPIError as error:
                self._pause(batch, f"{self.dead_letter_topic.path}: {error}")
                return
        self.pause_s, self.trouble = 0.0, ""
        took_s = (time.monotonic() - batch.started_s) / len(batch.events)
        self.recording_s += (took_s - self.recording_s) / 2
        told_before = {name for event in batch.events if event.is_finished for name in event.names}
        self.totals.add(batch.state, batch.metrics, told_before=told_before)
        for failure in failures.values():
            self.show(self.totals, failure)
        for event in batch.events:
            event.message.ack()

    def _pause(self, batch: Batch, trouble: str) -> None:
        """Try a batch's events again later: what kept them is not their fault."""
        self.trouble = trouble
        self.waiting.extend(batch.events)
        self.pause_s = min(max(2 * self.pause_s, FIRST_PAUSE_S), LONGEST_PAUSE_S)
        self.paused_until = time.monotonic() + self.pause_s
        self._tell_health()

    def _try_again(self, batch: Batch, code: int | None) -> None:
        """Try the events of a batch again whose process crashed; the suspects one by one."""
        max_tries = self.job.streaming.max_tries
        if any(event.is_given_up(max_tries) for event in batch.events):
            self._pause(batch, f"a dead letter can't be written: {_last_line(batch.log)}")
            return
        told = batch.state.finished
        suspects = batch.suspects()
        for event in batch.events:
            event.is_finished = event.is_finished or bool(event.names & told)
        self.totals.add_finished(batch.state)
        for event, step in suspects:
            event.crashes += 1
            if batch.hang:
                # Each try takes a slot for long: one more, alone, is the last.
                event.crashes = max(event.crashes, max_tries - 1)
            event.step, event.reason = step, _reason(batch, code)
            line = {"event": "crashed", "element": event.element, "code": code, "step": step}
            tries = {"tries": event.crashes, "max_tries": max_tries}
            self.show(self.totals, {**line, "hung": batch.hang is not None, **tries})
        suspected = [event for event, _ in suspects]
        self.waiting.extend(event for event in batch.events if event not in suspected)
        self.waiting.extend(suspected)
        with contextlib.suppress(OSError):
            self.tree.clear_scratch(batch_identity(batch.number))

    def _engine_ended(self) -> None:
        """The process that batches are forked from is gone, and all batches with it."""
        if not self.engine.is_ready:
            raise self.engine.error()
        self.engine.end()
        batches, self.running = list(self.running.values()), {}
        for batch in batches:
            self._ended(batch, None)
        shutil.rmtree(self.engine.folder, ignore_errors=True)
        self.engine = self._new_engine()

    def _new_engine(self) -> Engine:
        self.engines += 1
        folder = self.folder / f"engine-{self.engines}"
        folder.mkdir()
        return Engine(self.job, folder, self.inbox, workers=self.workers)

    # What a person sees.

    def _report(self) -> None:
        now_s = time.monotonic()
        if now_s >= self.health_s + HEALTH_EVERY_S:
            self._tell_health()
        if now_s >= self.summary_s + SUMMARY_EVERY_S:
            with contextlib.suppress(OSError):
                self._write_summary()
            self.summary_s = now_s

    def _tell_health(self) -> None:
        self.health_s = time.monotonic()
        health = Health(
            **self.totals.counts,
            in_work=sum(len(batch.events) - batch.state.ended for batch in self.running.values()),
            waiting=len(self.waiting),
            oldest_waiting_s=max((event.age_s for event in self.waiting), default=0.0),
            trouble=self.trouble,
        )
        self.show(self.totals, {"event": "health", "health": health.as_json()})

    def summary(self) -> dict[str, Any]:
        """The content of `run.json`."""
        return summary_json(
            self.job,
            self.totals.counts,
            self.totals.metrics,
            audio_s=self.totals.audio_s,
            wall_s=time.monotonic() - self.started_s,
            workers=self.workers,
        )

    def _write_summary(self) -> None:
        self.tree.write_json(self.summary(), "run.json")


def _reason(batch: Batch, code: int | None) -> str:
    """Why an event that a batch's process was at when it ended is given up in the end."""
    if batch.hang:
        return hang_text(batch.hang)
    return f"the job failed: {_last_line(batch.log)}" if code == FAILED_EXIT_CODE else CRASHED


def _last_line(log: str) -> str:
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    return lines[-1] if lines else "the process ended without a word"
