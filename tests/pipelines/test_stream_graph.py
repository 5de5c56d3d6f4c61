"""The graph on a stream: each recording is finished when it is done, not at the end of time."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.testing import test_stream
from apache_beam.transforms.window import TimestampedValue
from conftest import result_files

from beamsplitter.pipelines.events.sources import CreateEvents
from beamsplitter.pipelines.job.job_config import JobConfig, parse_job
from beamsplitter.pipelines.run import build
from beamsplitter.storage import OutputTree
from beamsplitter.transforms.klio.message import new_message
from beamsplitter.transforms.publishing import JoinParts

WriteAudio = Callable[..., Path]
DAY_S = 24 * 3600


def job_for(tmp_path: Path, *, streaming: bool = True) -> JobConfig:
    return parse_job(
        {
            "job_name": "stream",
            "pipeline_options": {"runner": "DirectRunner", "streaming": streaming},
            "job_config": {
                "data": {
                    "inputs": [{"type": "file", "location": str(tmp_path / "music")}],
                    "outputs": [{"type": "file", "location": str(tmp_path / "out")}],
                }
            },
            "separation": {"part_seconds": 10},
        },
        source="test",
    )


def event(element: str, *, time_s: float = 0) -> TimestampedValue:
    return TimestampedValue(new_message(element).SerializeToString(), time_s)


def run_stream(
    job: JobConfig, stream: test_stream.TestStream, progress_path: Path
) -> list[tuple[str, str]]:
    """Run the graph; gives what happened, and to which element, in order."""
    # The only local runner that knows streams.
    options = PipelineOptions([], runner="BundleBasedDirectRunner", streaming=True)
    with beam.Pipeline(options=options) as pipeline:
        messages = pipeline | stream
        build(job, messages, progress_path=str(progress_path))
    OutputTree(job.output_location).clear_scratch()
    lines = map(json.loads, progress_path.read_text().splitlines())
    return [(line["event"], line.get("element", "")) for line in lines]


def batch_files(tmp_path: Path, elements: list[str]) -> dict[str, bytes]:
    """What a batch makes of the same recordings."""
    job = job_for(tmp_path, streaming=False)
    with beam.Pipeline(options=PipelineOptions([], runner="FnApiRunner")) as pipeline:
        build(job, pipeline | CreateEvents(elements), local_workers=1)
    OutputTree(job.output_location).clear_scratch()
    files = result_files(tmp_path / "out")
    (tmp_path / "out").rename(tmp_path / "batch")
    return {name: data for name, data in files.items() if name != "failures.jsonl"}


@pytest.fixture
def music(write_audio: WriteAudio) -> list[str]:
    """A recording of three parts, and one of one part."""
    write_audio("music/long.wav", seconds=25, sample_rate=8000)
    write_audio("music/short.wav", seconds=3, sample_rate=8000, seed=1)
    return ["long.wav", "short.wav"]


def test_a_long_recording_is_finished_before_the_next_event(
    music: list[str], tmp_path: Path
) -> None:
    expected = batch_files(tmp_path, music)
    stream = (
        test_stream.TestStream()
        .add_elements([event("long.wav")])
        .add_elements([event("short.wav")])
    )
    happened = run_stream(job_for(tmp_path), stream, tmp_path / "progress")
    assert happened.index(("finished", "long.wav")) < happened.index(("opened", "short.wav"))
    assert result_files(tmp_path / "out") == expected


def test_an_event_that_is_weeks_late_is_done(music: list[str], tmp_path: Path) -> None:
    stream = (
        test_stream.TestStream()
        .add_elements([event("short.wav", time_s=31 * DAY_S)])
        .advance_watermark_to(31 * DAY_S)
        .add_elements([event("long.wav", time_s=0)])
    )
    happened = run_stream(job_for(tmp_path), stream, tmp_path / "progress")
    assert {element for what, element in happened if what == "finished"} == set(music)
    assert (tmp_path / "out" / "long" / "manifest.json").is_file()


def test_an_event_that_comes_twice_at_once_gives_the_same_once(
    music: list[str], tmp_path: Path
) -> None:
    expected = batch_files(tmp_path, ["long.wav"])
    stream = test_stream.TestStream().add_elements([event("long.wav"), event("long.wav")])
    happened = run_stream(job_for(tmp_path), stream, tmp_path / "progress")
    assert ("finished", "long.wav") in happened
    assert result_files(tmp_path / "out") == expected


def test_receipts_that_come_again_after_the_join_lose_nothing(
    music: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups: list[Any] = []
    apply = JoinParts.apply

    def noted(self: JoinParts, record: Any) -> Any:
        groups.append(record)
        return apply(self, record)

    monkeypatch.setattr(JoinParts, "apply", noted)
    job = job_for(tmp_path)
    run_stream(
        job, test_stream.TestStream().add_elements([event("long.wav")]), tmp_path / "progress"
    )
    files = result_files(tmp_path / "out")
    join = JoinParts(job.settings, job.output_tree, is_stream=True)
    (track,) = apply(join, groups[-1])
    assert {file.name for file in track.files} == set(os.listdir(tmp_path / "out" / "long")) - {
        "manifest.json"
    }
    assert result_files(tmp_path / "out") == files


def test_each_dead_letter_of_a_stream_has_a_file(music: list[str], tmp_path: Path) -> None:
    stream = (
        test_stream.TestStream()
        .add_elements([event("gone.wav")])
        .add_elements([event("short.wav")])
    )
    run_stream(job_for(tmp_path), stream, tmp_path / "progress")
    (path,) = (tmp_path / "out" / "failures").iterdir()
    letter = json.loads(path.read_text())
    assert letter["element"] == "gone.wav"
    assert "is not there" in letter["message"]
    assert (tmp_path / "out" / "short" / "manifest.json").is_file()
