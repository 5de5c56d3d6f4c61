"""What is found out, and made, before a job starts, so that its events can be written at its end.

No Beam here: the launcher calls this.
"""

import io
import os
from typing import TYPE_CHECKING, Any

from ...storage import OutputTree, absolute, scheme_of
from ..job.event_config import (
    AvroEventOutput,
    BigQueryEventOutput,
    EventOutput,
    FileEventOutput,
    PubSubEventOutput,
)
from ..job.job_config import JobConfig
from .listing import InputError

if TYPE_CHECKING:
    from google.cloud import bigquery

TOPIC_LIMIT_S = 60
# Klio's own.
AVRO_SCHEMA = {
    "namespace": "klio.avro",
    "type": "record",
    "name": "KlioMessage",
    "fields": [{"name": "element", "type": "bytes"}],
}
PAYLOAD_SCHEMA: list[dict[str, Any]] = [
    {"name": "element", "type": "STRING", "mode": "REQUIRED"},
    {"name": "folder", "type": "STRING", "mode": "NULLABLE"},
    {"name": "duration_s", "type": "FLOAT", "mode": "NULLABLE"},
    {"name": "skipped", "type": "BOOLEAN", "mode": "NULLABLE"},
    {
        "name": "files",
        "type": "RECORD",
        "mode": "REPEATED",
        "fields": [
            {"name": "name", "type": "STRING", "mode": "REQUIRED"},
            {"name": "branch", "type": "STRING", "mode": "NULLABLE"},
            {"name": "stem", "type": "STRING", "mode": "NULLABLE"},
            {"name": "sha256", "type": "STRING", "mode": "NULLABLE"},
            {"name": "crc32c", "type": "STRING", "mode": "NULLABLE"},
            {"name": "size_bytes", "type": "INTEGER", "mode": "NULLABLE"},
            {"name": "frames", "type": "INTEGER", "mode": "NULLABLE"},
            {"name": "duration_s", "type": "FLOAT", "mode": "NULLABLE"},
            {"name": "clipped_samples", "type": "INTEGER", "mode": "NULLABLE"},
            {"name": "sample_rate", "type": "INTEGER", "mode": "NULLABLE"},
            {"name": "channels", "type": "INTEGER", "mode": "NULLABLE"},
            {"name": "gain_db", "type": "FLOAT", "mode": "NULLABLE"},
            {
                "name": "scores",
                "type": "RECORD",
                "mode": "REPEATED",
                "fields": [
                    {"name": "stem", "type": "STRING", "mode": "REQUIRED"},
                    {"name": "measure", "type": "STRING", "mode": "REQUIRED"},
                    {"name": "track", "type": "FLOAT", "mode": "NULLABLE"},
                    {"name": "frames", "type": "FLOAT", "mode": "NULLABLE"},
                    {"name": "track_improvement", "type": "FLOAT", "mode": "NULLABLE"},
                    {"name": "frames_improvement", "type": "FLOAT", "mode": "NULLABLE"},
                    {"name": "count", "type": "INTEGER", "mode": "NULLABLE"},
                    {"name": "undefined", "type": "INTEGER", "mode": "NULLABLE"},
                ],
            },
            {"name": "references", "type": "STRING", "mode": "NULLABLE"},
            {
                "name": "labels",
                "type": "RECORD",
                "mode": "REPEATED",
                "fields": [
                    {"name": "label", "type": "STRING", "mode": "REQUIRED"},
                    {"name": "share", "type": "FLOAT", "mode": "NULLABLE"},
                    {"name": "longest_s", "type": "FLOAT", "mode": "NULLABLE"},
                    {"name": "confidence", "type": "FLOAT", "mode": "NULLABLE"},
                ],
            },
            {
                "name": "levels",
                "type": "RECORD",
                "mode": "REPEATED",
                "fields": [
                    {"name": "signal", "type": "STRING", "mode": "REQUIRED"},
                    {"name": "rms_db", "type": "FLOAT", "mode": "NULLABLE"},
                    {"name": "peak_db", "type": "FLOAT", "mode": "NULLABLE"},
                ],
            },
        ],
    },
]


def prepare_outputs(job: JobConfig) -> None:
    """Make sure that a job's events can be written; make and empty tables as the job file says.

    Call it once before a run, and not for a dry run: it changes tables and removes files.

    Raises
    ------
    InputError
        a table, topic or codec is not there, or a table is not empty or does not fit
    StorageError
        an output may not be written
    UnusableStorageError
        it can't be reached
    """
    for output in written(job.job_config.events.outputs):
        if isinstance(output, AvroEventOutput):
            _require_codec(output)
        if isinstance(output, FileEventOutput | AvroEventOutput):
            tree = OutputTree(folder_of(output.paths[0]), job.file_storage)
            tree.require_writable()
            _remove_other_shards(output, tree)
        elif isinstance(output, BigQueryEventOutput):
            # A stream goes on with the table that it began, as an updated one does.
            goes_on = job.pipeline_options.streaming or bool(job.pipeline_options.update)
            _prepare_table(output, goes_on=goes_on)
        elif isinstance(output, PubSubEventOutput):
            _require_topic(output)


def written(outputs: list[EventOutput] | tuple[EventOutput, ...]) -> list[EventOutput]:
    """The outputs that the job itself writes."""
    return [output for output in outputs if not output.skip_klio_write]


def folder_of(path: str) -> str:
    """The folder that a file lies in."""
    return absolute(os.path.dirname(path))


# Files --------------------------------------------------------------------------------------------


def _require_codec(output: AvroEventOutput) -> None:
    import fastavro

    try:
        fastavro.writer(io.BytesIO(), AVRO_SCHEMA, [{"element": b""}], codec=output.codec)
    except ValueError as error:
        raise InputError(f"{output.prefix}: {error}") from error


def _remove_other_shards(output: FileEventOutput | AvroEventOutput, tree: OutputTree) -> None:
    """Remove what an earlier run wrote with another number of shards: readers would take both."""
    beginning = os.path.basename(output.prefix)
    if scheme_of(tree.location):
        names = list(tree.storage.list_names(tree.location, beginning=beginning))
    else:
        names = os.listdir(tree.location)
    ours = {os.path.basename(path) for path in output.paths}
    for name in names:
        path = os.path.join(os.path.dirname(output.prefix), name)
        if name not in ours and output.any_path.fullmatch(path):
            tree.remove(name)


# BigQuery -----------------------------------------------------------------------------------------


def _prepare_table(output: BigQueryEventOutput, *, goes_on: bool) -> None:
    from google.api_core.exceptions import NotFound

    from .bigquery import RETRY, client_of, explained, reference_of

    client, reference = client_of(output), reference_of(output)
    with explained(output):
        try:
            table = client.get_table(reference, retry=RETRY)
        except NotFound:
            _make_table(output)
            return
    place = f"BigQuery {output.location}"
    if table.table_type != "TABLE":
        raise InputError(f"{place}: is a {table.table_type.lower()}: rows can be added to tables")
    _require_columns(output, table.schema)
    if output.write_disposition == "WRITE_APPEND" or goes_on:
        return
    # Rows of the last minutes are not counted yet.
    buffered = table.streaming_buffer is not None
    if output.write_disposition == "WRITE_EMPTY" and (table.num_rows or buffered):
        raise InputError(
            f"{place}: has rows, and write_disposition is WRITE_EMPTY: set it to WRITE_APPEND to "
            "add rows, or to WRITE_TRUNCATE to replace them"
        )
    if buffered:
        raise InputError(
            f"{place}: has rows that were added in the last hour or so, which BigQuery can't "
            "remove yet: wait, set write_disposition to WRITE_APPEND, or name another table"
        )
    if table.num_rows:
        with explained(output):
            client.query_and_wait(f"DELETE FROM `{reference}` WHERE TRUE", retry=RETRY)


def _make_table(output: BigQueryEventOutput) -> None:
    from google.api_core.exceptions import NotFound
    from google.cloud import bigquery

    from .bigquery import RETRY, client_of, explained, reference_of

    place = f"BigQuery {output.location}"
    if output.create_disposition == "CREATE_NEVER":
        raise InputError(
            f"{place}: there is no such table, and create_disposition is CREATE_NEVER: make it, or "
            "set CREATE_IF_NEEDED"
        )
    plain = output.schema_["fields"] if output.schema_ else PAYLOAD_SCHEMA
    schema = [bigquery.SchemaField.from_api_repr(_in_capitals(field)) for field in plain]
    _require_columns(output, schema)
    with explained(output):
        try:
            table = bigquery.Table(reference_of(output), schema=schema)
            client_of(output).create_table(table, exists_ok=True, retry=RETRY)
        except NotFound as error:
            raise InputError(
                f"{place}: there is no such dataset: make it, or correct project or dataset"
            ) from error


def _in_capitals(field: dict[str, Any]) -> dict[str, Any]:
    changed = {"mode": "NULLABLE", **field}
    for key in ("type", "mode"):
        changed[key] = str(changed[key]).upper()
    if "fields" in field:
        changed["fields"] = [_in_capitals(each) for each in field["fields"]]
    return changed


def _require_columns(output: BigQueryEventOutput, schema: list["bigquery.SchemaField"]) -> None:
    """Refuse a table that no row could be added to, or empty rows only."""
    known = [field["name"] for field in PAYLOAD_SCHEMA]
    unknown = [field.name for field in schema if field.name.lower() not in known]
    required = [
        field.name for field in schema if field.name in unknown and field.mode == "REQUIRED"
    ]
    if len(unknown) == len(schema):
        complaint = f"has none of the columns {', '.join(known)}"
    elif required:
        complaint = f"demands values for {', '.join(required)}; there are {', '.join(known)}"
    else:
        return
    raise InputError(f"BigQuery {output.location}: {complaint}: change its schema")


# Pub/Sub ------------------------------------------------------------------------------------------


def _require_topic(output: PubSubEventOutput) -> None:
    from google.api_core import exceptions as api_exceptions
    from google.cloud import pubsub_v1

    from .pubsub import explained

    try:
        with (
            explained(output.topic, but=(api_exceptions.PermissionDenied,)),
            pubsub_v1.PublisherClient() as client,
        ):
            client.get_topic(topic=output.topic, timeout=TOPIC_LIMIT_S)
    except api_exceptions.PermissionDenied:
        # Who may publish need not be allowed to look.
        return
