"""What processes tell of the step that they are in."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from beamsplitter.audio.decoding.audio_reader import AudioInfo
from beamsplitter.transforms import whereabouts
from beamsplitter.transforms.records import PendingRecording, Recording
from beamsplitter.transforms.whereabouts import at_step, read_whereabouts, tell_whereabouts

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
