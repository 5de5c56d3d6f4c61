"""Writing the messages of finished recordings to the event outputs."""

import contextlib
import hashlib
import json
import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics

from ...storage import (
    GCS_SCHEME,
    OutputTree,
    Storage,
    StorageError,
    UnusableStorageError,
    scheme_of,
    scratch_names,
)
from ...transforms.klio.message import parse_message
from ...transforms.records import Failure
from ..job.event_config import (
    AvroEventOutput,
    BigQueryEventOutput,
    CustomEventOutput,
    EventOutput,
    FileEventOutput,
    PubSubEventOutput,
)
from .compression import compressed, kind_of
from .counting import WRITTEN, CountMessages, namespace_written
from .outputs import AVRO_SCHEMA, folder_of, written

ROWS_A_REQUEST = 500
REQUEST_LIMIT_S = 60
FAULTS_OF_ROWS = (400, 413)
FAULTS_OF_SERVICE = ("backendError", "internalError", "timeout")
# Avro wants one that is in no record; the same in each run gives the same bytes.
SYNC_MARKER = hashlib.sha256(b"beamsplitter").digest()[:16]


class WriteEvents(beam.PTransform):
    """Bytes of finished messages to each output; gives the failures, for the dead letters.

    What goes to an output is counted as `kmsg-write`, in the namespace of Klio's step for it.
    Outputs with `skip_klio_write` are left out. `prepare_outputs` comes before.

    Parameters
    ----------
    outputs
        the event outputs of the job
    storage
        where files are written
    """

    def __init__(self, outputs: Sequence[EventOutput], storage: Storage) -> None:
        super().__init__()
        self.outputs = tuple(outputs)
        self.storage = storage

    def expand(self, messages: beam.PCollection) -> beam.PCollection:
        """Messages to failures."""
        # None of its own: a Flatten of nothing has no window.
        failures = [messages | "NoFailure" >> beam.FlatMap(lambda _: ()).with_output_types(Failure)]
        for index, output in enumerate(written(self.outputs)):
            label = f"Write-{index}-{output.type}"
            if isinstance(output, CustomEventOutput):
                continue
            counted = messages | f"Count-{index}" >> CountMessages(
                namespace_written(output.type), WRITTEN
            )
            if isinstance(output, FileEventOutput | AvroEventOutput):
                counted | label >> WriteShards(output, self.storage)
            elif isinstance(output, PubSubEventOutput):
                counted | label >> beam.io.WriteToPubSub(output.topic)
            elif isinstance(output, BigQueryEventOutput):
                failures.append(counted | label >> WriteRows(output))
        return failures | beam.Flatten()


# Files --------------------------------------------------------------------------------------------


class WriteShards(beam.PTransform):
    """The elements of messages to files; same elements, same bytes.

    An element is always in the same shard, and a shard's elements are in order. A shard is held in
    memory while it is written, at about 100 bytes an element. Each file is there as a whole or not
    at all, also when it holds nothing.
    """

    def __init__(self, output: FileEventOutput | AvroEventOutput, storage: Storage) -> None:
        super().__init__()
        self.output = output
        self.storage = storage

    def expand(self, messages: beam.PCollection) -> beam.PCollection:
        """Nothing worth having comes out."""
        count = len(self.output.paths)
        no_element = [(shard, b"") for shard in range(count)]
        shards = messages.pipeline | "Shards" >> beam.Create(no_element)
        elements = messages | "Elements" >> beam.Map(_element_by_shard, count).with_output_types(
            tuple[int, bytes]
        )
        return (
            (elements, shards)
            | beam.Flatten()
            | beam.GroupByKey()
            | "Write" >> beam.ParDo(_WriteShard(self.output, self.storage))
        )


class _WriteShard(beam.DoFn):
    """A shard's number and elements to its file."""

    def __init__(self, output: FileEventOutput | AvroEventOutput, storage: Storage) -> None:
        self.output = output
        self.storage = storage

    def process(self, numbered: tuple[int, Iterable[bytes]]) -> None:
        shard, elements = numbered
        path, content = self.output.paths[shard], sorted(filter(None, elements))
        tree = OutputTree(folder_of(path), self.storage)
        with tree.writing(os.path.basename(path)) as file:
            if isinstance(self.output, AvroEventOutput):
                _write_avro(file, content, self.output)
            else:
                kind = kind_of(path, self.output.compression_type)
                file.writelines(compressed(_lines(content, self.output), kind))
        if not scheme_of(path):
            # Others may have scratch files in this folder, which are left alone.
            with contextlib.suppress(OSError):
                os.removedirs(tree.path(*scratch_names()))
        elif path.startswith(GCS_SCHEME) and isinstance(self.output, AvroEventOutput):
            # Not needed for most jobs, and slow to import.
            from ...storage.gcs import GcsFiles

            GcsFiles(self.storage.access).set_content_type(path, self.output.mime_type)


def _element_by_shard(message: bytes, count: int) -> tuple[int, bytes]:
    element = parse_message(message).data.element
    return zlib.crc32(element) % count, element


def _lines(elements: Iterable[bytes], output: FileEventOutput) -> Iterator[bytes]:
    end = b"\n" if output.append_trailing_newlines else b""
    if output.header is not None:
        yield output.header.encode() + end
    for element in elements:
        yield element + end


def _write_avro(file: Any, elements: Iterable[bytes], output: AvroEventOutput) -> None:
    # Not needed for most jobs.
    import fastavro

    records = ({"element": element} for element in elements)
    fastavro.writer(file, AVRO_SCHEMA, records, codec=output.codec, sync_marker=SYNC_MARKER)


# BigQuery -----------------------------------------------------------------------------------------


class WriteRows(beam.PTransform):
    """The payloads of messages to rows of a table; gives a failure for each row that is refused.

    A row holds what the table has columns for. A row has an identity that is made of the message,
    by which BigQuery knows it for about a minute: a bundle that is repeated adds no row twice, nor
    does an event that comes again at once.
    """

    def __init__(self, output: BigQueryEventOutput) -> None:
        super().__init__()
        self.output = output

    def expand(self, messages: beam.PCollection) -> beam.PCollection:
        """Messages to failures."""
        return (
            messages
            | beam.BatchElements(min_batch_size=ROWS_A_REQUEST, max_batch_size=ROWS_A_REQUEST)
            | beam.ParDo(InsertRows(self.output)).with_output_types(Failure)
        )


class RowError(ValueError):
    """A message that makes no row, or a row that BigQuery refuses."""


class InsertRows(beam.DoFn):
    """Batches of messages to rows of a table; see `WriteRows`."""

    def __init__(self, output: BigQueryEventOutput) -> None:
        self.output = output

    def process(self, messages: list[bytes]) -> Iterator[Failure]:
        """Failures of a batch. Storage that is away fails the bundle, which the runner repeats."""
        rows, refused = [], []
        for message in messages:
            data = parse_message(message).data
            try:
                rows.append(_row_of(data.element, data.payload))
            except RowError as complaint:
                refused.append((data.element, complaint))
        if rows:
            refused += self._insert(rows)
        Metrics.counter("WriteRows", "out").inc(len(messages) - len(refused))
        Metrics.counter("WriteRows", "failures").inc(len(refused))
        for element, error in refused:
            yield Failure(
                element=os.fsdecode(element),
                step="WriteRows",
                exception=type(error).__name__,
                message=f"BigQuery {self.output.location}: {error}",
            )

    def _insert(self, rows: list["_Row"]) -> list[tuple[bytes, RowError]]:
        """Insert rows; gives the elements of those that were refused, and why."""
        from google.api_core.exceptions import GoogleAPICallError

        try:
            refused = self._request(rows)
        except StorageError as error:
            cause = error.__cause__
            if not isinstance(cause, GoogleAPICallError) or cause.code not in FAULTS_OF_ROWS:
                raise
            if len(rows) == 1:
                return [(rows[0].element, RowError(f"the row {error.strerror}"))]
            half = len(rows) // 2
            return self._insert(rows[:half]) + self._insert(rows[half:])
        return [(rows[index].element, RowError(reason)) for index, reason in refused.items()]

    def _request(self, rows: list["_Row"]) -> dict[int, str]:
        """Reasons by index of the rows that one request could not insert."""
        from .bigquery import RETRY, client_of, explained, reference_of

        client, reference = client_of(self.output), reference_of(self.output)
        with explained(self.output):
            refused = client.insert_rows_json(
                reference,
                [row.values for row in rows],
                row_ids=[row.identity for row in rows],
                skip_invalid_rows=True,
                ignore_unknown_values=True,
                retry=RETRY,
                timeout=REQUEST_LIMIT_S,
            )
        problems = [problem for each in refused for problem in each["errors"]]
        for problem in problems:
            if problem.get("reason") in FAULTS_OF_SERVICE:
                place = f"BigQuery {self.output.location}"
                raise UnusableStorageError(None, f"{problem.get('message')}", place)
        return {
            each["index"]: "the row was refused: " + "; ".join(map(_reason, each["errors"]))
            for each in refused
        }


def _reason(problem: dict[str, Any]) -> str:
    return ": ".join(filter(None, (problem.get("location"), problem.get("message"))))


@dataclass(frozen=True)
class _Row:
    """A row to insert: `values` by column, and the identity that BigQuery knows it by."""

    element: bytes
    values: dict[str, Any]
    identity: str


def _row_of(element: bytes, payload: bytes) -> _Row:
    values: Any = {"element": os.fsdecode(element)}
    if payload:
        try:
            values = json.loads(payload)
        except ValueError as error:
            raise RowError(f"the payload is no JSON: {error}") from error
    if not isinstance(values, dict):
        raise RowError("the payload is no JSON object, with a value for each column")
    try:
        json.dumps(values, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise RowError("a name in the row is no UTF-8, and BigQuery holds no other text") from error
    identity = hashlib.sha256(element + b"\0" + payload).hexdigest()[:32]
    return _Row(element, values, identity)
