"""Counting the messages that come in and go out, by the names that Klio has for it."""

from collections.abc import Iterable
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics

from ..job.event_config import EventInput

READ = "kmsg-read"
WRITTEN = "kmsg-write"
READ_EVENTS = "ReadEvents"
# The ends of the names of Klio's own steps for events.
KLIO_NAMES = {
    "file": "Text",
    "bq": "BigQuery",
    "bigquery": "BigQuery",
    "avro": "Avro",
    "pubsub": "PubSub",
}


def namespace_read(type: str) -> str:
    """Where what an input of this type gives is counted: as Klio's step, if it has such inputs."""
    return f"KlioReadFrom{KLIO_NAMES[type]}" if type in KLIO_NAMES else READ_EVENTS


def common_namespace_read(inputs: Iterable[EventInput]) -> str:
    """Where elements are counted of which it is not known any more which input gave them."""
    namespaces = {namespace_read(each.type) for each in inputs}
    return namespaces.pop() if len(namespaces) == 1 else READ_EVENTS


def namespace_written(type: str) -> str:
    """Where what goes to an output of this type is counted: as Klio's step."""
    return f"KlioWriteTo{KLIO_NAMES[type]}"


class CountMessages(beam.PTransform):
    """Hands messages on as they are, and counts them.

    Parameters
    ----------
    namespace, name
        of the counter
    """

    def __init__(self, namespace: str, name: str) -> None:
        super().__init__()
        self.namespace = namespace
        self.name = name

    def expand(self, messages: beam.PCollection) -> beam.PCollection:
        """The same messages."""
        return messages | beam.FlatMap(self._counted).with_output_types(messages.element_type)

    def _counted(self, message: Any) -> Iterable[Any]:
        Metrics.counter(self.namespace, self.name).inc()
        return (message,)
