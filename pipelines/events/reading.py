"""Reading the elements of event inputs that are no recordings themselves, one by one.

An element is text; what is no UTF-8 is in it as `os.fsdecode` gives it. A job reads its inputs
where it is started, and on workers.
"""

import base64
import datetime
import glob
import itertools
import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ...storage import Storage, StorageError, UnusableStorageError, scheme_of
from ..job.event_config import AvroEvents, BigQueryEvents, FileEvents, GlobEvents
from .compression import DamagedFileError, decompressed, kind_of
from .listing import MAGIC, InputError, is_pattern, root_of

if TYPE_CHECKING:
    from google.cloud import bigquery

ELEMENT = "element"
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
ROWS_A_PAGE = 10_000


def require_readable(each: FileEvents | BigQueryEvents | AvroEvents, storage: Storage) -> None:
    """Find out before a job starts whether its events are there, unless `validate` is false.

    Raises
    ------
    InputError
        they are not, or columns are missing, or a query is wrong
    StorageError
        they may not be read
    UnusableStorageError
        they can't be reached
    """
    if isinstance(each, FileEvents):
        storage.stat(files_matching(each.location, storage)[0])
    elif each.validate_ and isinstance(each, AvroEvents):
        storage.stat(avro_files_of(each, storage)[0])
    elif each.validate_ and isinstance(each, BigQueryEvents):
        _require_rows(each)


# Files --------------------------------------------------------------------------------------------


def files_matching(pattern: str, storage: Storage) -> list[str]:
    """The files that a path or glob pattern names, here or on `gs://`, in order of name.

    Raises
    ------
    InputError
        there is none
    StorageError
        a pattern's folder can't be listed
    """
    if not is_pattern(pattern, storage):
        return [pattern]
    if scheme_of(pattern):
        root = root_of(GlobEvents(type="glob", location=pattern))
        beginning = re.split(MAGIC, root.pattern[0], maxsplit=1)[0]
        names = storage.list_names(root.path, beginning=beginning)
        paths = [f"{root.path}/{name}" for name in names if root.name_of(f"{root.path}/{name}")]
    else:
        matches = glob.glob(pattern, recursive=True)
        paths = sorted(path for path in matches if os.path.isfile(path))
    if not paths:
        raise InputError(f"{pattern}: no file matches")
    return paths


def lines_of(each: FileEvents, storage: Storage) -> Iterator[str]:
    """The lines of files, but for blank ones and the header, as they stand there.

    Line ends, also those of Windows, and a byte order mark are no part of a line.

    Raises
    ------
    InputError
        no file matches, or one is damaged
    StorageError
        a file is not there, or may not be read
    UnusableStorageError
        it can't be reached
    """
    for path in files_matching(each.location, storage):
        for line in itertools.islice(_lines(path, each, storage), each.skip_header_lines, None):
            line = line.removesuffix(b"\r")
            if line.strip():
                yield os.fsdecode(line)


def _lines(path: str, each: FileEvents, storage: Storage) -> Iterator[bytes]:
    kind = kind_of(path, each.compression_type)
    try:
        with storage.reading(path) as file:
            yield from _split(decompressed(file, kind))
    except DamagedFileError as error:
        raise InputError(
            f"{path}: {error}: write it again, or set the compression_type of these events"
        ) from error


def _split(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Lines without their ends; the last one is empty if the file ends as it should."""
    rest, is_first = b"", True
    for block in blocks:
        *lines, rest = (rest + block).split(b"\n")
        for line in lines:
            yield line.removeprefix(BYTE_ORDER_MARK) if is_first else line
            is_first = False
    yield rest.removeprefix(BYTE_ORDER_MARK) if is_first else rest


# Avro ---------------------------------------------------------------------------------------------


def avro_files_of(each: AvroEvents, storage: Storage) -> list[str]:
    """The files of an input: those that its pattern matches, or all of a folder.

    Raises
    ------
    InputError
        there is none
    StorageError
        they can't be listed
    """
    if glob.has_magic(each.pattern):
        return files_matching(each.pattern, storage)
    try:
        storage.stat(each.pattern)
    except StorageError:
        return files_matching(os.path.join(each.pattern, "*"), storage)
    return [each.pattern]


def avro_elements_of(each: AvroEvents, storage: Storage) -> Iterator[str]:
    """The elements of Avro files: the field `element`, text or bytes, or else the record as JSON.

    Raises
    ------
    InputError
        there is no file, or one is damaged or no Avro file
    StorageError
        a file may not be read
    UnusableStorageError
        it can't be reached
    """
    for path in avro_files_of(each, storage):
        for record in _records(path, storage):
            if isinstance(record, dict) and isinstance(record.get(ELEMENT), str | bytes):
                yield os.fsdecode(record[ELEMENT])
            else:
                yield _json(record)


def _records(path: str, storage: Storage) -> Iterator[Any]:
    # Not needed for most jobs.
    import fastavro

    count = 0
    try:
        with storage.reading(path) as file:
            for record in fastavro.reader(file):
                yield record
                count += 1
    except (StorageError, UnusableStorageError):
        raise
    except Exception as error:  # damage can raise nearly anything
        raise InputError(
            f"{path}: is no Avro file, or is damaged after {count} records: {error!r}"
        ) from error


# BigQuery -----------------------------------------------------------------------------------------


def rows_of(each: BigQueryEvents) -> Iterator[str]:
    """The rows of a table or query, page by page, in the order that BigQuery gives them.

    Where the events name one column, an element is that column's value: text and bytes
    as they are, other types as JSON. Everywhere else it is the row as a JSON object, with its
    columns in their order, as Klio writes it.

    In JSON values are as BigQuery exports them: numbers as numbers, but those of arbitrary
    precision (NUMERIC) as text, times as `2024-01-31 12:00:00 UTC`, dates and times without a zone
    in ISO 8601, bytes as base64, records as objects, repeated values as lists.

    Raises
    ------
    InputError
        the table or a column is not there, the query is wrong, or the value of the one
        column is NULL
    StorageError
        there are no credentials, or they don't suffice
    UnusableStorageError
        BigQuery can't be reached
    """
    from .bigquery import explained

    takes_value = each.columns is not None and len(each.columns) == 1
    rows = _rows(each)
    # The result of a query may have more.
    wanted = [field.name for field in _selected(each, rows.schema)]
    with explained(each):
        for number, row in enumerate(rows):
            if not takes_value:
                yield _json({name: row[name] for name in wanted})
                continue
            (name,) = wanted
            value = row[name]
            if value is None:
                raise InputError(
                    f"BigQuery {each.location}: row {number} of the result has no {name}: leave "
                    "out such rows with a query"
                )
            yield os.fsdecode(value) if isinstance(value, str | bytes) else _text(value)


def _rows(each: BigQueryEvents) -> Any:
    """An iterator over rows, with their `schema`."""
    from .bigquery import RETRY, client_of, explained

    client, query, is_standard = client_of(each), each.query, each.use_standard_sql
    if query is None:
        table = _table(each)
        fields = _selected(each, table.schema)
        if table.table_type == "TABLE":
            with explained(each):
                return client.list_rows(
                    table, selected_fields=fields, page_size=ROWS_A_PAGE, retry=RETRY
                )
        # Views can be queried only.
        names = ", ".join(f"`{field.name}`" for field in fields)
        query, is_standard = f"SELECT {names} FROM `{table.reference}`", True
    with explained(each):
        config = _query_config(each, is_standard=is_standard)
        job = client.query(query, config, retry=RETRY)
        return job.result(page_size=ROWS_A_PAGE)


def _query_config(each: BigQueryEvents, *, is_standard: bool) -> "bigquery.QueryJobConfig":
    from google.cloud import bigquery

    config = bigquery.QueryJobConfig(use_legacy_sql=not is_standard)
    if not is_standard:
        config.flatten_results = each.flatten_results
    if each.kms_key:
        config.destination_encryption_configuration = bigquery.EncryptionConfiguration(each.kms_key)
    return config


def _require_rows(each: BigQueryEvents) -> None:
    from .bigquery import RETRY, client_of, explained

    if each.query is None:
        _selected(each, _table(each).schema)
        return
    config = _query_config(each, is_standard=each.use_standard_sql)
    config.dry_run = True
    with explained(each):
        client_of(each).query(each.query, config, retry=RETRY)


def _table(each: BigQueryEvents) -> "bigquery.Table":
    from google.api_core.exceptions import NotFound

    from .bigquery import RETRY, client_of, explained, reference_of

    with explained(each):
        try:
            return client_of(each).get_table(reference_of(each), retry=RETRY)
        except NotFound as error:
            raise InputError(
                f"BigQuery {each.location}: there is no such table: correct project, dataset or "
                "table of the events"
            ) from error


def _selected(
    each: BigQueryEvents, schema: Sequence["bigquery.SchemaField"]
) -> list["bigquery.SchemaField"]:
    """The fields of the columns that are wanted, in their order in a table or result."""
    names = {field.name.lower() for field in schema}
    wanted = {name.lower() for name in each.columns or names}
    missing = sorted(wanted - names)
    if missing:
        raise InputError(
            f"BigQuery {each.location}: has no column {', '.join(missing)}; "
            f"its columns are {', '.join(field.name for field in schema)}"
        )
    return [field for field in schema if field.name.lower() in wanted]


# JSON ---------------------------------------------------------------------------------------------


def _json(record: Any) -> str:
    # Without options, as Klio has it: jobs of both give the same element.
    return json.dumps(_plain(record))


def _text(value: Any) -> str:
    plain = _plain(value)
    return plain if isinstance(plain, str) else _json(plain)


def _plain(value: Any) -> Any:
    """A value with nothing in it that JSON does not have."""
    if isinstance(value, dict):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, datetime.datetime) and value.tzinfo:
        utc = value.astimezone(datetime.UTC).replace(tzinfo=None)
        return f"{utc.isoformat(' ')} UTC"
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        return json.dumps(value)
    if value is None or isinstance(value, str | bool | int | float):
        return value
    return str(value)
