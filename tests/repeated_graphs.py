"""Small jobs on small recordings, to be run by an engine that repeats, and what is made of them."""

import dataclasses
import functools
import os
import pickle
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
import soundfile
from apache_beam.options.pipeline_options import PipelineOptions
from conftest import made_signal
from repeating_engine import StreamOf

from beamsplitter.audio import drawing
from beamsplitter.models.evaluation import results
from beamsplitter.pipelines.job.job_config import JobConfig, parse_job
from beamsplitter.pipelines.run import build
from beamsplitter.storage import OutputTree
from beamsplitter.transforms.attempts import new_attempts
from beamsplitter.transforms.klio.message import new_message, parse_message

RATE = 1000
LONG, SHORT, GONE, BROKEN = "long.wav", "a/short.wav", "gone.wav", "broken.wav"
MUSIC = (LONG, SHORT, GONE, BROKEN)
TRUTH, NET = "truth", "net"
LOUD_IN_PART, LOUD = "loud-in-part.wav", "loud.wav"


def write(path: Path, seconds: float, seed: int, *, clicks_s: tuple[float, ...] = ()) -> None:
    """Write a recording, with the loudest of clicks at some times."""
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = made_signal(seconds, RATE, 1, seed)
    samples[:, [round(time_s * RATE) for time_s in clicks_s]] = 1
    soundfile.write(path, samples.T, RATE)


@dataclasses.dataclass(frozen=True)
class Scenario:
    """What is run: sections of the job, of which kind, and what was run before it."""

    separation: dict[str, Any] = dataclasses.field(default_factory=dict)
    stems: dict[str, Any] = dataclasses.field(default_factory=dict)
    plots: bool = False
    scores: bool = False
    labels: bool = False
    features: dict[str, Any] = dataclasses.field(default_factory=dict)
    report: bool = False
    join: str = "parts"
    is_stream: bool = False
    before: "Scenario | None" = None
    elements: tuple[str, ...] = MUSIC

    def job(self, folder: Path | str, out: Path | str) -> JobConfig:
        scores = {
            "references": f"{folder}/{TRUTH}/{{recording}}",
            "names": {"foreground": "vocals", "background": "no_vocals"},
            "measures": ["si_sdr", "usdr"],
        }
        labels = {"model": f"{folder}/{NET}", "options": {"block_seconds": 6}}
        kind = "gcs" if str(out).startswith("gs://") else "file"
        return parse_job(
            {
                "job_name": "repeated",
                "pipeline_options": {"runner": "DirectRunner", "streaming": self.is_stream},
                "job_config": {
                    "data": {
                        "inputs": [{"type": kind, "location": str(folder)}],
                        "outputs": [{"type": kind, "location": str(out), "replace": True}],
                    }
                },
                "join": self.join,
                "separation": {"part_seconds": 10, **self.separation},
                "stems": {"format": "wav", **self.stems},
                "plots": {"enabled": self.plots, "width": 320, "height": 190},
                "scores": scores if self.scores else {},
                "labels": labels if self.labels else {},
                "features": self.features,
                "report": {"enabled": self.report, "audio": False},
            },
            source="test",
        )


def graph_of(
    scenario: Scenario, music: Path | str, out: Path | str
) -> tuple[beam.Pipeline, dict[str, beam.PCollection]]:
    pipeline = beam.Pipeline(options=PipelineOptions([], runner="FnApiRunner"))
    messages = [new_message(element).SerializeToString() for element in scenario.elements]
    source = StreamOf(messages) if scenario.is_stream else beam.Create(messages)
    built = build(scenario.job(music, out), pipeline | source, attempts=new_attempts())
    return pipeline, built


def clear(out: Path | str) -> None:
    OutputTree(str(out)).clear_scratch()


def all_answered(elements: tuple[str, ...], results: dict[str, list[Any]]) -> bool:
    """Whether each event is answered, by a message or a dead letter, and no other."""
    messages = (parse_message(message) for message in results["messages"])
    answers = Counter(os.fsdecode(message.data.element) for message in messages)
    answers.update(failure.element for failure in results["failures"])
    return answers.keys() == {*elements} and answers >= Counter(elements)


def draw_once_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture that was drawn is drawn no second time: it is by far what takes longest."""
    for module, name in ((drawing, "draw_spectrogram"), (results, "distributions_png")):
        monkeypatch.setattr(module, name, _once(getattr(module, name)))


def _once(draw: Callable[..., Any]) -> Callable[..., Any]:
    drawn: dict[bytes, Any] = {}

    @functools.wraps(draw)
    def draw_once(*arguments: Any, **options: Any) -> Any:
        key = pickle.dumps((arguments, options))
        if key not in drawn:
            drawn[key] = draw(*arguments, **options)
        return drawn[key]

    return draw_once
