"""The graph on messages, in this process."""

from collections.abc import Iterable
from pathlib import Path

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from conftest import dead_letters

from beamsplitter.pipelines.events.elements import list_events
from beamsplitter.pipelines.events.sources import CreateEvents
from beamsplitter.pipelines.job.job_config import JobConfig
from beamsplitter.pipelines.run import build
from beamsplitter.storage import OutputTree
from beamsplitter.transforms.klio.message import KlioMessage, parse_message


def run_on_files(job: JobConfig) -> Path:
    """Run the graph on what the job lists; gives the output folder."""
    with beam.Pipeline(options=PipelineOptions([], runner="FnApiRunner")) as pipeline:
        build(job, pipeline | CreateEvents(list_events(job), "test"))
    return Path(job.output_location)


def finish(job: JobConfig) -> Path:
    """Run the graph on what the job lists, none of which fails; gives the output folder."""
    out = run_on_files(job)
    assert not dead_letters(out)
    return out


def run(job: JobConfig, messages: Iterable[KlioMessage]) -> list[KlioMessage]:
    """Run the graph on messages; gives those that go on."""
    path = Path(job.output_location).parent / "messages"
    path.write_text("")

    def note(message: bytes) -> None:
        with open(path, "a") as file:
            file.write(message.hex() + "\n")

    with beam.Pipeline(options=PipelineOptions([], runner="FnApiRunner")) as pipeline:
        encoded = [message.SerializeToString() for message in messages]
        built = build(job, pipeline | beam.Create(encoded), local_workers=1)
        built["messages"] | "Note" >> beam.Map(note)
    OutputTree(job.output_location).clear_scratch()
    return [parse_message(bytes.fromhex(line)) for line in path.read_text().splitlines()]
