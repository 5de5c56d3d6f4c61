"""What a person sees of a run: how far it is, and what went wrong."""

import io
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

import beamsplitter
from beamsplitter.pipelines.commands.progress import Bar, failure_text, shortened
from beamsplitter.pipelines.events.elements import list_events
from beamsplitter.pipelines.job.job_config import parse_job
from beamsplitter.pipelines.local import launch
from beamsplitter.pipelines.outcomes.run_state import RunState

WriteAudio = Callable[..., Path]
ROUNDING_S = 1e-6


def test_what_steers_a_terminal_is_shown_and_not_sent() -> None:
    line = {"element": "ä\n\x1b[2Jb\r", "message": "is not there"}
    assert failure_text(line).plain == r"failed ä\n\x1b[2Jb\r: is not there"


# Shares -------------------------------------------------------------------------------------------


def planned(element: str, part: int, duration_s: float) -> dict[str, Any]:
    return {"event": "planned", "element": element, "part_index": part, "duration_s": duration_s}


def finished(element: str) -> dict[str, Any]:
    return {"event": "finished", "element": element, "skipped": False, "clipped_samples": 0}


def at(element: str, part: int | None, share: float, step: str = "GetSTFT") -> dict[str, Any]:
    return {"step": step, "element": element, "part_index": part, "share": share}


RECORDINGS = st.dictionaries(
    st.sampled_from("abc"), st.lists(st.floats(0.5, 900), min_size=1, max_size=3), min_size=1
)
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["share", "share", "share", "part", "joining", "failed", "begin again"]),
        st.sampled_from("abc"),
        st.integers(0, 2),
        st.floats(0, 1),
    ),
    max_size=40,
)


@given(RECORDINGS, STEPS)
def test_seconds_only_rise_never_beyond_those_known_and_end_with_them(
    recordings: dict[str, list[float]], steps: list[tuple[str, str, int, float]]
) -> None:
    state = RunState(total=len(recordings))
    reached_s = known_s = 0.0

    def check() -> None:
        nonlocal reached_s, known_s
        assert reached_s - ROUNDING_S <= state.worked_s <= state.known_s + ROUNDING_S
        assert all(0 <= share <= 1 for share in state.joining.values())
        reached_s, known_s = state.worked_s, state.known_s

    def plan() -> None:
        for element, parts in recordings.items():
            for part, duration_s in enumerate(parts):
                if element not in state.finished:
                    state.take(planned(element, part, duration_s))
                    check()

    plan()
    for event, element, part, share in steps:
        if event == "share":
            state.see([None, at(element, part, share)])
        elif event == "joining":
            state.see([at(element, None, share, "JoinParts")])
        elif event == "begin again":
            state.begin_again()
            check()
            plan()
        elif element in recordings:
            state.take({"event": event, "element": element, "part_index": part})
        check()
    for element in recordings:
        state.take(finished(element))
        check()
    assert state.worked_s == pytest.approx(state.known_s)
    assert state.joining == {} or set(state.joining) - set(recordings)
    if not {"failed", "begin again"} & {event for event, *_ in steps}:
        total_s = sum(map(sum, recordings.values()))
        assert state.worked_s == pytest.approx(total_s) == pytest.approx(state.done_s)


def test_a_share_counts_as_seconds_of_its_part() -> None:
    state = RunState(total=1)
    for part in (0, 1):
        state.take(planned("a", part, 300.0))
    state.see([at("a", 0, 0.5), None, at("a", 1, 0.1), at("other", 0, 0.9), at("a", None, 0.9)])
    assert (state.worked_s, state.known_s) == (pytest.approx(180), 600)
    state.take({"event": "part", "element": "a", "part_index": 0})
    state.see([at("a", 0, 0.5)])
    assert state.worked_s == pytest.approx(330)


# The bar ------------------------------------------------------------------------------------------


def shown(state: RunState, *, width: int = 80, loading: str = "") -> str:
    """The line of a bar on a terminal of so many columns."""
    console = Console(width=width, force_terminal=True, color_system=None, file=io.StringIO())
    bar = Bar(console, loading=loading)
    bar(state, None)
    with console.capture() as capture:
        console.print(bar.progress.get_renderable())
    return capture.get().removesuffix("\n")


def test_before_anything_is_told_it_starts_or_loads() -> None:
    assert shown(RunState(total=1)).endswith("starting")
    assert shown(RunState(total=1), loading="demucs:htdemucs").endswith("loading demucs:htdemucs")
    state = RunState(total=1)
    state.take({"event": "opened", "element": "a", "process": 1})
    assert "loading" not in shown(state, loading="demucs:htdemucs")


@pytest.mark.parametrize("width", [60, 80, 120])
def test_joining_shows_the_name_in_one_line(width: int) -> None:
    state = RunState(total=12)
    name = "a folder/of \x1b[2J names 名前/" + 9 * "long " + "end.flac"
    state.take({"event": "opened", "element": name, "process": 1})
    state.see([at(name, None, 0.25, "JoinParts")])
    line = shown(state, width=width)
    assert "joining a f" in line and line.endswith("flac 25%") and "\x1b" not in line
    assert cell_len(line) <= width
    state.take({"event": "failed", "element": name, "message": "no room"})
    assert "joining" not in shown(state)


@pytest.mark.parametrize("width", [80, 120])
def test_seconds_and_failures_fit_into_one_line(width: int) -> None:
    state = RunState(total=12_345)
    for number in range(12_000):
        state.take(planned(f"{number}", 0, 300.0))
    for number in range(6_000):
        state.take(finished(f"{number}"))
    state.take({"event": "failed", "element": "7000", "message": "no"})
    line = shown(state, width=width)
    assert cell_len(line) <= width
    assert line.startswith("6001/12345 recordings") and "500:00:00 of 999:55:00" in line
    assert " left" in line and (width == 80 or "1 failed" in line)


@given(st.text(), st.integers(8, 40))
def test_a_shortened_text_fits_and_keeps_its_ends(text: str, room: int) -> None:
    short = shortened(text, room)
    assert cell_len(short) <= room
    if short != text:
        begin, _, end = short.rpartition("…")
        assert text.startswith(begin) and text.endswith(end) and len(begin + end) < len(text)


# Runs ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("separation", "seconds", "rate"),
    [
        ({}, 60, 44100),
        ({"separator": "separators:Smoothing", "options": {"block_samples": 500}}, 120, 16000),
        ({"separator": "torch_separators:Toy", "options": {"block_samples": 500}}, 60, 16000),
    ],
)
def test_a_long_recording_is_seen_inside_its_parts_and_while_it_is_joined(
    separation: dict[str, Any],
    seconds: int,
    rate: int,
    write_audio: WriteAudio,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    monkeypatch.setattr(launch, "POLL_S", 0.002)
    write_audio("in/long.wav", seconds=seconds, sample_rate=rate, channels=2)
    job = parse_job(
        {
            "job_name": "watched",
            "pipeline_options": {"runner": "DirectRunner", "streaming": False},
            "job_config": {
                "events": {"inputs": [{"type": "folder", "location": f"{tmp_path}/in"}]},
                "data": {"outputs": [{"type": "file", "location": f"{tmp_path}/out"}]},
            },
            "separation": {**separation, "part_seconds": seconds / 3},
        },
        source="job",
    )
    worked_s, joined = [0.0], []

    def show(state: RunState, line: dict[str, Any] | None) -> None:
        assert worked_s[-1] - ROUNDING_S <= state.worked_s <= state.known_s + ROUNDING_S
        worked_s.append(state.worked_s)
        joined.extend(state.joining.items())

    state = launch.run_local(job, list_events(job), workers=1, show=show)
    assert state.counts["finished"] == 1
    assert worked_s[-1] == pytest.approx(seconds)
    # More than the steps that a part goes through.
    inside = Counter(int(3 * each / seconds) for each in {*worked_s} if each * 3 % seconds)
    assert all(inside[part] > 10 for part in (0, 1, 2)), inside
    shares = [share for name, share in joined]
    assert {name for name, _ in joined} == {"long.wav"}
    assert shares == sorted(shares) and any(0 < share < 1 for share in shares)
    assert state.joining == {}


def test_files_tell_the_seconds_that_are_worked_through(
    write_audio: WriteAudio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "POLL_S", 0.002)
    write_audio("in/long.wav", seconds=40, sample_rate=44100, channels=2)
    told: list[tuple[float, float]] = []
    beamsplitter.separate_files(
        tmp_path / "in",
        tmp_path / "out",
        workers=1,
        plots=False,
        settings={"separation.part_seconds": 20},
        progress=lambda *seconds: told.append(seconds),
    )
    done = [done_s for done_s, _ in told]
    assert done == sorted(done) and told[-1] == pytest.approx((40, 40))
    assert {0 < each < 20 for each in done} == {True, False}
    assert any(20 < each < 40 for each in done)


def test_json_lines_are_events_alone(write_audio: WriteAudio, tmp_path: Path, command: Any) -> None:
    write_audio("in/long.wav", seconds=30)
    done = command(
        *("separate", tmp_path / "in", "-o", tmp_path / "out", "--log-format", "json"),
        *("--part-seconds", 10),
    )
    assert done.returncode == 0, done.stderr
    events = [json.loads(line)["event"] for line in done.stdout.splitlines()]
    assert sorted(set(events)) == ["finished", "opened", "part", "planned", "started", "summary"]
    assert events.count("finished") == events.count("opened") == 1
    assert events.count("planned") == events.count("started") == 3
