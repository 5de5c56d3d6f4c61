"""Where the graph gets its events from: the inputs of the job, or a list made before."""

import os
from collections.abc import Iterable, Iterator, Sequence

import apache_beam as beam
from apache_beam.metrics import Metrics

from ...transforms.klio.message import new_message
from ..job.event_config import EventInput, PubSubEvents
from ..job.job_config import JobConfig
from .counting import READ, READ_EVENTS, CountMessages, namespace_read
from .elements import NamesInTree, elements_of, inputs_to_read, require_one_folder
from .listing import RecordingInput


class CreateEvents(beam.PTransform):
    """Elements that were listed before, as the bytes of a `KlioMessage` each.

    Parameters
    ----------
    namespace
        where they are counted, as `kmsg-read`
    """

    def __init__(self, elements: Iterable[str], namespace: str = READ_EVENTS) -> None:
        super().__init__()
        self.elements = [os.fsencode(element) for element in elements]
        self.namespace = namespace

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection:
        """Elements to messages."""
        elements = pipeline | beam.Create(self.elements)
        return elements | CountMessages(self.namespace, READ) | ToMessages()


class ReadEvents(beam.PTransform):
    """The events of a job's inputs, read where the graph runs, as the bytes of a message each.

    No process holds more of them than a page of a listing. What each input gives is counted as
    `kmsg-read`, see `namespace_read`. What is named more than once, by a list or by several inputs,
    is taken once.
    """

    def __init__(self, job: JobConfig) -> None:
        super().__init__()
        self.job = job

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection:
        """Events to messages, or to `PubsubMessage`s."""
        inputs = inputs_to_read(self.job)
        if self.job.pipeline_options.streaming:
            streams = [
                pipeline
                | f"Stream-{index}" >> _pubsub(each)
                | f"Count-{index}" >> CountMessages(namespace_read(each.type), READ)
                for index, each in enumerate(inputs)
                if isinstance(each, PubSubEvents)
            ]
            return streams | beam.Flatten() if len(streams) > 1 else streams[0]
        elements = (
            pipeline
            | "Inputs" >> beam.Create(range(len(inputs)))
            | "List" >> beam.ParDo(_ListInput(self.job, inputs)).with_output_types(bytes)
        )
        if len(inputs) > 1 and not self.job.job_config.data.inputs:
            elements |= "Once" >> _OneFolderEach(self.job)
        elif len(inputs) > 1 or not isinstance(inputs[0], RecordingInput):
            elements |= "Once" >> beam.Distinct()
        else:
            elements |= "Spread" >> beam.Reshuffle()
        return elements | ToMessages()


class _ListInput(beam.DoFn):
    """The number of an event input to its elements."""

    def __init__(self, job: JobConfig, inputs: Sequence[EventInput]) -> None:
        self.job = job
        self.inputs = inputs

    def process(self, index: int) -> Iterator[bytes]:
        count = Metrics.counter(namespace_read(self.inputs[index].type), READ)
        for element in elements_of(self.inputs[index], self.job):
            count.inc()
            yield os.fsencode(element)


class _OneFolderEach(beam.PTransform):
    """Each element once; an error for recordings whose results would share a folder."""

    def __init__(self, job: JobConfig) -> None:
        super().__init__()
        self.names = NamesInTree(job)

    def expand(self, elements: beam.PCollection) -> beam.PCollection:
        """The same elements."""
        return (
            elements
            | beam.Map(self._named).with_output_types(tuple[bytes, bytes])
            | beam.GroupByKey()
            | beam.FlatMapTuple(self._once).with_output_types(bytes)
        )

    def _named(self, element: bytes) -> tuple[bytes, bytes]:
        return os.fsencode(self.names.name_of(os.fsdecode(element))), element

    def _once(self, name: bytes, elements: Iterable[bytes]) -> Iterator[bytes]:
        once = sorted({*elements})
        require_one_folder(os.fsdecode(name), map(os.fsdecode, once))
        yield from once


def _pubsub(each: PubSubEvents) -> beam.PTransform:
    topic = None if each.subscription else each.topic
    # The attributes tell what kind of storage notification a message is.
    return beam.io.ReadFromPubSub(topic, each.subscription, with_attributes=True)


class ToMessages(beam.PTransform):
    """The bytes of elements to the bytes of messages."""

    def expand(self, elements: beam.PCollection) -> beam.PCollection:
        """One message an element."""
        return elements | beam.Map(
            lambda element: new_message(element).SerializeToString()
        ).with_output_types(bytes)
