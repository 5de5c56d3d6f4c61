"""What processes tell of the step that they are in."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from beamsplitter.audio.decoding.audio_reader import AudioInfo
from beamsplitter.transforms import whereabouts
from beamsplitter.transforms.records import PendingRecording, Recording
from beamsplitter.transforms.whereabouts import (
    at_step,
    read_whereabouts,
    tell_share,
    tell_whereabouts,
)

STEPS_OF_A_PART = (
    "LoadAudio",
    "GetSTFT",
    "GetMagnitude",
    "FilterNearestNeighbors",
    "GetSoftMask",
    "InverseSTFT",
    "EncodeStems",
    "GetSpec",
    "SpecToPlot",
)
PENDING: dict[str, Any] = {
    "element": "a.wav",
    "uri": "/in/a.wav",
    "folder": "a",
    "size_bytes": 352_800,
    "generation": "1",
    "todo": ("stems",),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(whereabouts, "_teller", whereabouts._Teller())
    tell_whereabouts(tmp_path)
    yield tmp_path


def test_a_step_is_told_while_it_lasts_and_each_time_as_another(folder: Path) -> None:
    told = []
    for name in ("of a long name, whose rest must not show", "short"):
        with at_step("LoadAudio", name, None):
            [(process, line)] = read_whereabouts(folder)
            assert line is not None
            told.append((process, line["step"], line["element"], line["count"]))
        assert list(read_whereabouts(folder)) == [(os.getpid(), None)]
    assert told == [
        (os.getpid(), "LoadAudio", "of a long name, whose rest must not show", 1),
        (os.getpid(), "LoadAudio", "short", 2),
    ]


def test_a_share_rises_within_what_the_step_is_of_a_part(folder: Path) -> None:
    start, stop = whereabouts.SHARES_OF_STEPS["FilterNearestNeighbors"]
    told = []
    with at_step("FilterNearestNeighbors", "a.wav", None):
        for share in (0.0, 0.5, 0.25, 0.5001, 1.0, 2.0):
            tell_share(share)
            [(_, line)] = read_whereabouts(folder)
            assert line is not None and line["count"] == 1
            told.append(line["share"])
    middle = pytest.approx((start + stop) / 2, abs=1e-4)
    assert told == [start, middle, middle, middle, stop, stop]
    tell_share(0.5)  # between steps
    assert list(read_whereabouts(folder)) == [(os.getpid(), None)]


def test_steps_go_on_where_those_before_them_end() -> None:
    shares = list(whereabouts.SHARES_OF_STEPS.values())
    assert all(0 <= start < stop <= 1 for start, stop in shares)
    chain = [whereabouts.SHARES_OF_STEPS[step] for step in STEPS_OF_A_PART]
    assert [start for start, _ in chain] == [0.0, *(stop for _, stop in chain[:-1])]
    assert chain[-1][1] == 1


def test_where_nobody_watches_a_share_is_told_to_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whereabouts, "_teller", whereabouts._Teller())
    monkeypatch.chdir(tmp_path)
    with at_step("LoadAudio", "a.wav", None):
        tell_share(0.5)
    assert not list(tmp_path.iterdir())


def test_a_forked_process_tells_of_itself_alone(folder: Path) -> None:
    with at_step("LoadAudio", "parent", None):
        child = os.fork()
        if not child:
            with at_step("GetSTFT", "child", None):
                os._exit(0)
        os.waitpid(child, 0)
        told = {process: line and line["element"] for process, line in read_whereabouts(folder)}
    assert told == {os.getpid(): "parent", child: "child"}


def test_the_length_is_that_of_the_header_or_before_it_is_read_of_the_size() -> None:
    pending = PendingRecording(**PENDING)
    info = AudioInfo.__new__(AudioInfo)
    object.__setattr__(info, "sample_rate", 8000)
    recording = Recording(**PENDING, info=info, start_sample=0, total_samples=40_000)
    assert whereabouts.length_of(pending) == 2
    assert whereabouts.length_of(recording) == 5
    assert whereabouts.length_of((b"a.wav", {"failures": [], "stems": []})) == 0
