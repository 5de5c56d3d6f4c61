"""What a person sees of a run: a progress bar, or lines; and the closing summary."""

import itertools
import json
import re
import time
from collections import Counter
from collections.abc import Iterable
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task
from rich.text import Text

from ...storage import DEAD_LETTER_FOLDER, DEAD_LETTERS
from ...transforms.resuming import OtherResultsError
from ..outcomes.run_state import RunState
from ..outcomes.stream_totals import StreamTotals

MOST_REASONS = 5
BAR_WIDTH = 16
MOST_SHORTENED = 8
CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class JsonLog:
    """One JSON object a line on standard output for each thing that happens."""

    def __call__(self, state: object, line: dict[str, Any] | None) -> None:
        """Print a line of progress."""
        if line is not None:
            print(json.dumps({"time": round(time.time(), 3), **line}), flush=True)


class StreamLines:
    """Lines for a person about a stream: failures as they come, and how it does now and then."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.told = ""

    def __call__(self, state: object, line: dict[str, Any] | None) -> None:
        """Print what is worth it; health only when it has changed."""
        event = line["event"] if line else ""
        if line is None:
            return
        if event == "failed":
            self.console.print(failure_text(line))
        elif event == "crashed":
            self.console.print(crash_text(line))
        elif event == "listening":
            self.console.print(Text(f"listening to {', '.join(line['subscriptions'])}"))
        elif event == "health" and health_line(line["health"]) != self.told:
            self.told = health_line(line["health"])
            self.console.print(Text(self.told))


class Bar:
    """A live progress bar on a terminal; elsewhere only failures, as they come.

    Parameters
    ----------
    loading
        names of the models that are loaded at the start; empty if there are none
    """

    def __init__(self, console: Console, *, loading: str = "") -> None:
        self.console = console
        self.loading = loading
        self.started = time.monotonic()
        self.progress = Progress(
            _PlainColumn("recordings"),
            BarColumn(BAR_WIDTH),
            _PlainColumn("text"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self.task = self.progress.add_task("", total=None, recordings="", text="")

    def __enter__(self) -> "Bar":
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def __call__(self, state: RunState, line: dict[str, Any] | None) -> None:
        """Show the state; print a failure or a crash when it comes."""
        if line is None:
            recordings = f"{state.ended}/{state.total} recordings"
            room = self.console.width - len(recordings) - BAR_WIDTH - len("  ")
            self.progress.update(
                self.task,
                total=state.known_s or None,
                completed=state.worked_s,
                recordings=recordings,
                text=self._text(state, room),
            )
        elif line["event"] == "failed" and not _is_left_alone(line):
            self.console.print(failure_text(line))
        elif line["event"] == "crashed":
            self.console.print(crash_text(line))

    def _text(self, state: RunState, room: int) -> str:
        """What is going on, in so many columns if it can be told in them."""
        if not state.has_begun:
            return shortened(f"loading {self.loading}" if self.loading else "starting", room)
        if state.joining:
            name, share = next(iter(state.joining.items()))
            end = f" {share:.0%}"
            name = shortened(printable(name), room - len(f"joining {end}"))
            return f"joining {name}{end}"
        speed = state.worked_s / (time.monotonic() - self.started)
        pace = f", {speed:.1f}x real time" if speed else ""
        seconds = f"{clock(state.worked_s)} of {clock(state.known_s)}"
        failed = f", {len(state.failures)} failed" if state.failures else ""
        left = f", {clock((state.known_s - state.worked_s) / speed)} left" if speed else ""
        texts = (
            f"{seconds} of audio{pace}{failed}{left}",
            f"{seconds}{pace}{failed}{left}",
            f"{seconds}{failed}{left}",
            f"{seconds}{left}",
        )
        return next((text for text in texts if len(text) <= room), seconds)


class _PlainColumn(ProgressColumn):
    """A field of the task, as it is."""

    def __init__(self, field: str) -> None:
        super().__init__()
        self.field = field

    def render(self, task: Task) -> Text:
        return Text(task.fields[self.field], no_wrap=True)


def failure_text(line: dict[str, Any]) -> Text:
    """A dead letter for a person to read."""
    message = line["message"]
    element = line["element"]
    text = message if element in message else f"{element}: {message}"
    return Text.assemble(("failed ", "bold red"), printable(text))


def crash_text(line: dict[str, Any]) -> Text:
    """A recording that took its process down, or hung in it, for a person to read."""
    tries, max_tries = line["tries"], line["max_tries"]
    what = "it hung" if line["hung"] else "its process ended"
    where = f" in step {line['step']}" if line["step"] else ""
    next_step = "will be tried again, alone" if tries < max_tries else "is given up"
    text = f"{line['element']}: {what}{where}, try {tries} of {max_tries}; it {next_step}"
    return Text.assemble(("hung " if line["hung"] else "crashed ", "bold yellow"), printable(text))


def printable(text: str) -> str:
    """A text on one line: names come from others, and may hold what steers a terminal."""
    return CONTROLS.sub(lambda found: repr(found[0])[1:-1], text)


def shortened(text: str, room: int) -> str:
    """A text in so many columns, with its middle left out if it is longer."""
    if cell_len(text) <= room:
        return text
    room = max(room, MOST_SHORTENED)
    begin, end = "", ""
    # Wide characters take two columns.
    for first, last in zip(text, reversed(text), strict=True):
        if cell_len(begin + first + end) >= room:
            break
        begin += first
        if cell_len(begin + last + end) >= room:
            break
        end = last + end
    return f"{begin}…{end}"


def health_line(health: dict[str, Any]) -> str:
    """How a stream does."""
    oldest = f" (oldest {health['oldest_waiting_s']:.0f} s)" if health["waiting"] else ""
    trouble = f"; {health['trouble']}" if health["trouble"] else ""
    return (
        f"{health['finished']} finished, {health['skipped']} skipped, {health['failed']} failed; "
        f"{health['in_work']} in work, {health['waiting']} waiting{oldest}{trouble}"
    )


def print_stream_summary(console: Console, totals: StreamTotals, *, location: str) -> None:
    """The closing lines of a stream."""
    console.print(
        f"{totals.finished} finished, {totals.skipped} skipped, {totals.failed} failed; "
        f"{clock(totals.audio_s)} of audio",
        highlight=False,
    )
    if totals.passed:
        console.print(f"{totals.passed} passed through untouched", highlight=False)
    console.print(Text(f"results in {location}"))
    if totals.failed:
        console.print(Text(f"why some failed: {location}/{DEAD_LETTER_FOLDER}/"))


def counts_of_run(finished: int, skipped: int, failed: int) -> str:
    """How many recordings came out, in words."""
    return f"{finished} finished, {skipped} already done, {failed} failed"


def print_service_summary(
    console: Console, summary: dict[str, Any], *, location: str, is_stream: bool
) -> None:
    """The closing lines of a job that ran elsewhere, by the content of its `run.json`."""
    counts = summary["recordings"]
    console.print(
        counts_of_run(counts["finished"], counts["skipped"], counts["failed"])
        + f"; {clock(summary['audio_s'])} of audio in {clock(summary['wall_s'])}",
        highlight=False,
    )
    if counts["passed_through"]:
        console.print(f"{counts['passed_through']} passed through untouched", highlight=False)
    console.print(Text(f"results in {location}"))
    if counts["failed"]:
        letters = f"{DEAD_LETTER_FOLDER}/" if is_stream else DEAD_LETTERS
        console.print(Text(f"why some failed: {location}/{letters}"))


def print_summary(console: Console, state: RunState, *, wall_s: float, location: str) -> None:
    """The closing lines of a run."""
    speed = f", {state.done_s / wall_s:.1f}x real time" if state.done_s else ""
    skipped = len(state.skipped - state.finished)
    console.print(
        counts_of_run(len(state.finished), skipped, len(state.failures))
        + f"; {clock(state.done_s)} of audio in {clock(wall_s)}{speed}",
        highlight=False,
    )
    if state.passed:
        console.print(f"{len(state.passed)} passed through untouched", highlight=False)
    if state.clipped:
        console.print(
            f"{len(state.clipped)} with samples beyond full scale, clipped in the stems; "
            "--peaks rescale turns all stems down, --format wav --bit-depth 32f keeps them",
            highlight=False,
        )
    if state.first_streams:
        names = ", ".join(sorted({*state.first_streams.values()}))
        told = f"{len(state.first_streams)} with several audio streams: took the first, {names}"
        console.print(Text(printable(told)))
    console.print(Text(f"results in {location}"))
    failures = itertools.chain(*state.failures.values())
    print_left_alone(console, (line["message"] for line in failures if _is_left_alone(line)))
    if state.failures:
        console.print(Text(f"why some failed: {location}/{DEAD_LETTERS}"))


def _is_left_alone(line: dict[str, Any]) -> bool:
    """Whether a dead letter is of a recording whose results nobody asked to replace."""
    return bool(line["exception"] == OtherResultsError.__name__)


def print_left_alone(console: Console, messages: Iterable[str]) -> None:
    """How many recordings have results that would have been replaced, and of which settings.

    Parameters
    ----------
    messages
        of the `OtherResultsError` of each
    """
    reasons = Counter(messages)
    for reason, count in reasons.most_common(MOST_REASONS):
        console.print(Text(printable(f"{count} left as before: {reason}")))
    if len(reasons) > MOST_REASONS:
        console.print(Text(f"{len(reasons) - MOST_REASONS} more reasons of this kind"))


def clock(seconds: float) -> str:
    """Hours, if there are any, minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
