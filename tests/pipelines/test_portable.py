"""The graph where nothing is shared: every element of every step is encoded, and decoded again.

Runners fuse steps as they like, or not at all. Here FnApiRunner fuses nothing, so each step gets
its elements through their coders, as from another machine.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.fn_api_runner import translations
from conftest import dead_letters, result_files
from model_packages import Loudness, write_labeler

from beamsplitter.pipelines.events.sources import ReadEvents
from beamsplitter.pipelines.job.job_config import JobConfig, parse_job
from beamsplitter.pipelines.run import build
from beamsplitter.storage import OutputTree
from beamsplitter.transforms.coders import TrackCoder

WriteAudio = Callable[..., Path]


def job_for(tmp_path: Path, **sections: Any) -> JobConfig:
    return parse_job(
        {
            "job_name": "portable",
            "pipeline_options": {"runner": "DirectRunner", "streaming": False},
            "job_config": {
                "events": {"inputs": [{"type": "folder", "location": str(tmp_path / "music")}]},
                "data": {"outputs": [{"type": "file", "location": str(tmp_path / "out")}]},
            },
            **sections,
        },
        source="test",
    )


def run(job: JobConfig) -> None:
    with beam.Pipeline(options=PipelineOptions([], runner="FnApiRunner")) as pipeline:
        build(job, pipeline | ReadEvents(job))
    OutputTree(job.output_location).clear_scratch()


@pytest.fixture
def music(write_audio: WriteAudio, tmp_path: Path) -> Path:
    """A recording of three parts, one of one part, and one that fails."""
    write_audio("music/long.wav", seconds=22, sample_rate=8000)
    write_audio("music/short.flac", seconds=3, sample_rate=8000, channels=2)
    (tmp_path / "music" / "broken.wav").write_bytes(b"RIFF, but nothing more")
    return tmp_path / "music"


BY_MODEL = {
    "part_seconds": 10,
    "separator": "separators:Smoothing",
    "options": {"block_samples": 5000, "context_samples": 40, "normalizes": True},
}


@pytest.mark.parametrize(
    ("join", "separation", "all_branches"),
    [
        ("parts", {"part_seconds": 10}, True),
        ("cogbk", {"duration_s": 4, "options": {"foreground": "mask"}}, False),
        ("parts", BY_MODEL, False),
    ],
    ids=["parts", "cogbk", "model"],
)
def test_the_results_do_not_depend_on_what_is_fused(
    join: str,
    separation: dict[str, Any],
    all_branches: bool,
    write_audio: WriteAudio,
    music: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    write_audio("truth/long/foreground.wav", seconds=22, sample_rate=8000)
    write_audio("truth/short/background.wav", seconds=3, sample_rate=8000, channels=2)
    sections: dict[str, Any] = {}
    if all_branches:
        sets = {"log_mel": {"n_fft": 512, "n_mels": 16}, "complex": {"n_fft": 64}}
        sections = {
            "scores": {"references": f"{tmp_path}/truth/{{recording}}"},
            "labels": {"model": write_labeler(tmp_path / "net", Loudness())},
            "features": {
                "sets": sets,
                "of": ["background", "mixture"],
                "excerpts": {"take": "every", "duration_s": 5},
                "shards": "tfrecord",
            },
            "report": {"enabled": True},
        }
    job = job_for(tmp_path, join=join, separation=separation, **sections)
    run(job)
    fused = result_files(tmp_path / "out")
    (tmp_path / "out").rename(tmp_path / "fused")

    encoded: list[int] = []
    encode = TrackCoder.encode

    def counted(self: TrackCoder, value: Any) -> bytes:
        data = encode(self, value)
        encoded.append(len(data))
        return data

    monkeypatch.setattr(translations.Stage, "can_fuse", lambda *_: False)
    monkeypatch.setattr(TrackCoder, "encode", counted)
    with caplog.at_level(logging.WARNING):
        run(job)
    assert len(encoded) > 20
    assert "fallback coder" not in caplog.text
    assert result_files(tmp_path / "out") == fused
    assert set(dead_letters(tmp_path / "out")) == {"broken.wav"}
    tables = ("scores.csv", "labels.csv", "features.json", "features-statistics.json")
    for name in (*tables, "index.html", "report/run.js", "report/rows-00000.js"):
        assert (tmp_path / "out" / name).exists() == all_branches
