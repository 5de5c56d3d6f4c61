"""A recording that ends its process costs itself, on runners that do failed work again."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Command, dead_letters
from repeated_graphs import RATE
from result_checks import assert_whole, manifests
from separators import Ending

from beamsplitter.pipelines.outcomes.run_state import CRASHED
from beamsplitter.storage import RUN_IDENTITY_VARIABLE, OutputTree, run_identity
from beamsplitter.transforms import attempts
from beamsplitter.transforms.attempts import new_attempts

WriteAudio = Callable[..., Path]
TESTS = str(Path(__file__).parents[1])
MOST_TRIES = 4  # of a bundle, before Dataflow fails a batch job
PROGRAM = """
import json, os, sys
sys.path.insert(0, sys.argv[1])
import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from beamsplitter.audio.decoding import audio_reader
from beamsplitter.pipelines.events.sources import CreateEvents
from beamsplitter.transforms import part_planning
from repeated_graphs import Scenario
from beamsplitter.pipelines.run import build

plain = json.loads(sys.argv[2])

def probe_or_end(source, *, name):
    if name == plain["ends_when_opened"]:
        os._exit(1)
    return audio_reader.probe(source, name=name)

part_planning.probe = probe_or_end
scenario = Scenario(separation=plain["separation"])
pipeline = beam.Pipeline(options=PipelineOptions([], runner="FnApiRunner"))
job = scenario.job(plain["music"], plain["out"])
build(job, pipeline | CreateEvents(plain["elements"]), attempts=plain["attempts"])
pipeline.run().wait_until_finish()
print("done")
"""


def run_once(
    command: Command, music: Path, out: Path, elements: tuple[str, ...], **plain: Any
) -> bool:
    """Run the graph in a process of its own, its work in one bundle; whether it came to its end."""
    plain |= {"music": str(music), "out": str(out), "elements": elements}
    plain = {"separation": {}, "ends_when_opened": None, **plain}
    line = [sys.executable, "-c", PROGRAM, TESTS, json.dumps(plain)]
    environment = {**os.environ, RUN_IDENTITY_VARIABLE: run_identity()}
    done = command.warm.run(line, environment, timeout_s=300)
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout.endswith("done\n")


@pytest.mark.parametrize(
    ("separator", "culprit"),
    [("separators:Ending", "b-leaves.wav"), ("nn-filter", "b-opened.wav")],
)
def test_what_ends_its_process_is_given_up_before_the_job_is(
    separator: str, culprit: str, tmp_path: Path, write_audio: WriteAudio, command: Command
) -> None:
    write_audio("in/a.wav", seconds=12, sample_rate=RATE)
    write_audio("in/c.wav", seconds=2, sample_rate=RATE)
    level = np.full((1, RATE), Ending.LEAVES, np.float32)
    write_audio("in/b-leaves.wav", sample_rate=RATE, samples=level)
    write_audio("in/b-opened.wav", seconds=2, sample_rate=RATE)
    elements, out = ("a.wav", culprit, "c.wav"), tmp_path / "out"
    plain = {"separation": {"separator": separator}, "ends_when_opened": "b-opened.wav"}
    folder = new_attempts()
    came_out = [run_once(command, tmp_path / "in", out, elements, attempts=folder, **plain)]
    while not came_out[-1] and len(came_out) < MOST_TRIES:
        came_out.append(run_once(command, tmp_path / "in", out, elements, attempts=folder, **plain))
    assert came_out == [False, False, True]
    (letter,) = dead_letters(out).values()
    assert (letter["element"], letter["step"]) == (culprit, "CountAttempts")
    assert letter["exception"] == "GivenUpError"
    assert CRASHED in letter["message"]
    assert [path.parent.name for path in manifests(out)] == ["a", "c"]
    # Nothing is noted of what came out; what was given up is not tried again in this run.
    assert len([*(out / folder).iterdir()]) == attempts.BEGUN_BEFORE_GIVING_UP
    assert run_once(command, tmp_path / "in", out, elements, attempts=folder, **plain)
    OutputTree(str(out)).clear_scratch()
    assert_whole(out)
