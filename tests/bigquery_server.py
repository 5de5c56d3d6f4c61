"""A server of BigQuery on loopback, for Google's own client; SQLite runs the queries.

It has projects, datasets and tables, rows by page, streamed rows with their identities and their
buffer, rows that are refused, and queries in both dialects as far as SQLite understands them.
"""

import base64
import binascii
import datetime
import json
import re
import sqlite3
import threading
import urllib.parse
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery
from storage_server import Fault

PROJECT = "test-project"
DATASET = "music"
ROOT = "/bigquery/v2"
SQL_TYPES = {"INTEGER": "INTEGER", "FLOAT": "REAL", "BOOLEAN": "INTEGER", "BYTES": "BLOB"}
Plain = dict[str, Any]


class RefusedError(Exception):
    """A request that is answered with an error."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status, self.reason = status, reason


@dataclass
class Table:
    """A table: its resource, and how many of its rows, by identity, are still in the buffer."""

    resource: Plain
    identities: set[str] = field(default_factory=set)
    buffered: int = 0

    @property
    def fields(self) -> list[Plain]:
        """The columns."""
        fields: list[Plain] = self.resource["schema"]["fields"]
        return fields


@dataclass
class BigQueryServer:
    """The server: `address` for BIGQUERY_EMULATOR_HOST, and the faults that are still to come.

    `configurations` are those of the queries that it was asked to run.
    """

    address: str
    faults: list[Fault] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    configurations: list[Plain] = field(default_factory=list)
    tables: dict[str, Table] = field(default_factory=dict)
    results: dict[str, tuple[list[Plain], list[Plain]]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """An empty dataset."""
        self.database = sqlite3.connect(":memory:", check_same_thread=False)
        for each in (self.faults, self.requests, self.configurations, self.tables, self.results):
            each.clear()

    def client(self) -> bigquery.Client:
        """A client of this server."""
        options = {"api_endpoint": self.address}
        return bigquery.Client(PROJECT, AnonymousCredentials(), client_options=options)

    def table(self, name: str, columns: str | list[Plain], rows: list[Plain] | None = None) -> str:
        """Make a table of the dataset with rows, as of old; gives its whole name.

        `columns` are `name:TYPE,name:TYPE`, or fields.
        """
        if isinstance(columns, str):
            pairs = (each.split(":") for each in columns.split(","))
            columns = [{"name": name, "type": kind} for name, kind in pairs]
        reference = {"projectId": PROJECT, "datasetId": DATASET, "tableId": name}
        self.make_table({"tableReference": reference, "schema": {"fields": columns}})
        table = self.tables[f"{PROJECT}.{DATASET}.{name}"]
        for row in rows or ():
            complaints = self.add_row(table, row, ignore_unknown=False)
            assert not complaints, complaints
        return f"{PROJECT}.{DATASET}.{name}"

    def rows(self, name: str) -> list[Plain]:
        """The rows of a table, as the client reads them."""
        client = self.client()
        table = client.get_table(f"{PROJECT}.{DATASET}.{name}")
        return [dict(row.items()) for row in client.list_rows(table)]

    def settle(self) -> None:
        """Let an hour pass: no row is in a buffer."""
        for table in self.tables.values():
            table.buffered = 0
            table.identities.clear()

    # Tables ---------------------------------------------------------------------------------------

    def make_table(self, resource: Plain) -> Plain:
        reference = resource["tableReference"]
        if reference["datasetId"] != DATASET:
            raise RefusedError(404, "notFound", f"Not found: Dataset {reference['datasetId']}")
        name = _name_of(reference)
        if name in self.tables:
            raise RefusedError(409, "duplicate", f"Already Exists: Table {name}")
        self.tables[name] = table = Table({"type": "TABLE", **resource})
        columns = ", ".join(
            f'"{each["name"]}" {SQL_TYPES.get(each["type"].upper(), "TEXT")}'
            for each in table.fields
        )
        self.database.execute(f'CREATE TABLE "{name}" ({columns})')
        return self.describe(name)

    def found(self, name: str) -> Table:
        if name not in self.tables:
            raise RefusedError(404, "notFound", f"Not found: Table {name}")
        return self.tables[name]

    def describe(self, name: str) -> Plain:
        table = self.found(name)
        ((count,),) = self.database.execute(f'SELECT count(*) FROM "{name}"')
        described = {**table.resource, "numRows": str(count - table.buffered)}
        if table.buffered:
            described["streamingBuffer"] = {"estimatedRows": str(table.buffered)}
        return described

    def delete_table(self, name: str) -> Plain:
        self.found(name)
        del self.tables[name]
        self.database.execute(f'DROP TABLE "{name}"')
        return {}

    def insert_all(self, name: str, body: Plain) -> Plain:
        table = self.found(name)
        ignore_unknown = body.get("ignoreUnknownValues", False)
        complaints = {
            index: found
            for index, row in enumerate(body["rows"])
            if (found := _complaints(row["json"], table.fields, ignore_unknown))
        }
        stopped = [{"reason": "stopped", "message": ""}]
        if complaints and not body.get("skipInvalidRows"):
            complaints = {
                index: complaints.get(index, stopped) for index in range(len(body["rows"]))
            }
        for index, row in enumerate(body["rows"]):
            if index not in complaints and row.get("insertId") not in table.identities:
                self.add_row(table, row["json"], ignore_unknown=ignore_unknown)
                table.buffered += 1
                table.identities.update(filter(None, [row.get("insertId")]))
        if not complaints:
            return {}
        return {
            "insertErrors": [{"index": index, "errors": each} for index, each in complaints.items()]
        }

    def add_row(self, table: Table, row: Plain, *, ignore_unknown: bool) -> list[Plain]:
        complaints = _complaints(row, table.fields, ignore_unknown)
        if not complaints:
            name = _name_of(table.resource["tableReference"])
            stored = [_stored(row.get(each["name"]), each) for each in table.fields]
            marks = ", ".join("?" * len(stored))
            self.database.execute(f'INSERT INTO "{name}" VALUES ({marks})', stored)
        return complaints

    def page_of_table(self, name: str, options: dict[str, str]) -> Plain:
        table = self.found(name)
        if table.resource["type"] != "TABLE":
            raise RefusedError(400, "invalid", f"Cannot list a table of type {table.resource}")
        wanted = options.get("selectedFields")
        by_name = {each["name"]: each for each in table.fields}
        # The service keeps the order of the table, whatever order is asked for.
        fields = [each for name, each in by_name.items() if not wanted or name in wanted.split(",")]
        columns = ", ".join(f'"{each["name"]}"' for each in fields)
        cursor = self.database.execute(f'SELECT {columns} FROM "{name}" ORDER BY rowid')
        return _page([_row(values, fields) for values in cursor], options, str(table.buffered))

    # Queries --------------------------------------------------------------------------------------

    def query(self, plain: Plain, *, dry_run: bool) -> str:
        self.configurations.append({**plain, "dryRun": dry_run})
        sql = self._translated(plain["query"], is_legacy=plain.get("useLegacySql", True))
        deleted = re.match(r'DELETE FROM "(.+?)"', sql)
        if deleted and self.found(deleted[1]).buffered:
            message = "DELETE statement would affect rows in the streaming buffer"
            raise RefusedError(400, "invalidQuery", message)
        try:
            cursor = self.database.execute(f"EXPLAIN {sql}" if dry_run else sql)
        except sqlite3.Error as error:
            raise RefusedError(400, "invalidQuery", str(error)) from error
        job = uuid.uuid4().hex
        names = [] if dry_run else [column[0] for column in cursor.description or ()]
        values = [] if dry_run else cursor.fetchall()
        known = {each["name"]: each for table in self.tables.values() for each in table.fields}
        fields = [
            known.get(name) or _guessed(name, [row[index] for row in values])
            for index, name in enumerate(names)
        ]
        self.results[job] = (fields, [_row(row, fields) for row in values])
        return job

    def _translated(self, sql: str, *, is_legacy: bool) -> str:
        pattern, foreign = (r"\[([^]]+)\]", "`") if is_legacy else (r"`([^`]*\.[^`]+)`", "[")
        if foreign in sql:
            raise RefusedError(400, "invalidQuery", f"Syntax error: Unexpected {foreign!r}")

        def whole(name: re.Match[str]) -> str:
            parts = re.split("[:.]", name[1])
            full = ".".join([PROJECT, *parts][-3:])
            view = self.found(full).resource.get("view")
            return f"({self._translated(view['query'], is_legacy=False)})" if view else f'"{full}"'

        return re.sub(pattern, whole, sql)

    def result(self, job: str, options: dict[str, str]) -> Plain:
        fields, rows = self.results[job]
        return {
            "jobComplete": True,
            "jobReference": {"projectId": PROJECT, "jobId": job},
            "schema": {"fields": fields},
            **_page(rows, options, None),
        }

    def take_fault(self, request: str) -> Fault | None:
        """The fault that a request is to meet."""
        for fault in self.faults:
            if fault.times and re.search(fault.pattern, request):
                fault.times -= 1
                return fault
        return None

    # Requests -------------------------------------------------------------------------------------

    def answer(self, method: str, path: str, options: dict[str, str], body: Plain) -> Plain:
        parts = path.removeprefix(f"{ROOT}/projects/").split("/")
        if parts[1] == "jobs" and method == "POST":
            configuration = body["configuration"]
            job = self.query(configuration["query"], dry_run=configuration.get("dryRun", False))
            return self.job(job, configuration)
        if parts[1] == "jobs":
            return self.job(parts[2], {"query": {}})
        if parts[1] == "queries" and method == "POST":
            return self.result(self.query(body, dry_run=False), {})
        if parts[1] == "queries":
            return self.result(parts[2], options)
        name = ".".join([parts[0], parts[2], *parts[4:5]])
        actions: dict[tuple[str, str], Any] = {
            ("POST", ""): lambda: self.make_table(body),
            ("GET", ""): lambda: self.describe(name),
            ("DELETE", ""): lambda: self.delete_table(name),
            ("GET", "data"): lambda: self.page_of_table(name, options),
            ("POST", "insertAll"): lambda: self.insert_all(name, body),
        }
        answer: Plain = actions[method, "/".join(parts[5:])]()
        return answer

    def job(self, job: str, configuration: Plain) -> Plain:
        return {
            "jobReference": {"projectId": PROJECT, "jobId": job, "location": "EU"},
            "status": {"state": "DONE"},
            "configuration": {"jobType": "QUERY", **configuration},
            "statistics": {"query": {"totalBytesProcessed": "0"}},
        }


def _name_of(reference: Plain) -> str:
    return ".".join(reference[key] for key in ("projectId", "datasetId", "tableId"))


def _page(rows: list[Plain], options: dict[str, str], buffered: str | None) -> Plain:
    start = int(options.get("pageToken") or options.get("startIndex") or 0)
    stop = start + int(options.get("maxResults", len(rows)))
    page: Plain = {"totalRows": str(len(rows)), "rows": rows[start:stop]}
    if stop < len(rows):
        page["pageToken"] = str(stop)
    return page


# Values -------------------------------------------------------------------------------------------


def _complaints(row: Plain, fields: list[Plain], ignore_unknown: bool) -> list[Plain]:
    found = []
    by_name = {each["name"]: each for each in fields}
    for name in row:
        if name not in by_name and not ignore_unknown:
            found.append((name, f"no such field: {name}."))
    for name, each in by_name.items():
        value, mode = row.get(name), each.get("mode", "NULLABLE")
        if mode == "REQUIRED" and value is None:
            found.append((name, f"Missing required field: {name}."))
        elif mode == "REPEATED" and not isinstance(value or [], list):
            found.append((name, "Array expected."))
        elif value is not None:
            for single in value if mode == "REPEATED" else [value]:
                try:
                    _stored(single, {**each, "mode": "NULLABLE"})
                except (ValueError, TypeError, binascii.Error):
                    kind = each["type"].lower()
                    found.append((name, f"Cannot convert value to {kind} (bad value): {single}"))
    return [
        {"reason": "invalid", "location": name, "message": message, "debugInfo": ""}
        for name, message in found
    ]


def _stored(value: Any, each: Plain) -> Any:
    """A value of JSON as SQLite stores it; raises ValueError or TypeError if it is none."""
    kind = each["type"].upper()
    if value is None:
        return None
    if each.get("mode") == "REPEATED":
        return json.dumps([_stored(single, {**each, "mode": "NULLABLE"}) for single in value])
    if kind == "RECORD":
        if not isinstance(value, dict):
            raise TypeError(value)
        inner = _complaints(value, each["fields"], ignore_unknown=True)
        if inner:
            raise ValueError(inner)
        return json.dumps(value)
    if kind == "INTEGER":
        return int(value)
    if kind == "FLOAT":
        return float(value)
    if kind == "BOOLEAN":
        if value not in (True, False):
            raise ValueError(value)
        return int(value)
    if kind == "BYTES":
        return base64.b64decode(value, validate=True)
    if not isinstance(value, str):
        raise TypeError(value)
    return value


def _sent(value: Any, each: Plain) -> Any:
    """A stored value as the service sends it."""
    kind = each["type"].upper()
    if each.get("mode") == "REPEATED":
        single = {**each, "mode": "NULLABLE"}
        # Within a record it is no text of its own.
        items = value if isinstance(value, list) else json.loads(value or "[]")
        return [{"v": _sent(item, single)} for item in items]
    if value is None:
        return None
    if kind == "RECORD":
        record = json.loads(value) if isinstance(value, str) else value
        return _row([record.get(inner["name"]) for inner in each["fields"]], each["fields"])
    if kind == "BOOLEAN":
        return "true" if value else "false"
    if kind == "BYTES":
        return base64.b64encode(value).decode()
    if kind == "TIMESTAMP":
        moment = datetime.datetime.fromisoformat(value)
        since = moment - datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
        return str(since // datetime.timedelta(microseconds=1))
    return str(value)


def _row(values: Any, fields: list[Plain]) -> Plain:
    return {"f": [{"v": _sent(value, each)} for value, each in zip(values, fields, strict=True)]}


def _guessed(name: str, values: list[Any]) -> Plain:
    kinds = {int: "INTEGER", float: "FLOAT", bytes: "BYTES"}
    kind = next((kinds.get(type(value), "STRING") for value in values if value is not None), None)
    return {"name": name, "type": kind or "STRING", "mode": "NULLABLE"}


# The server ---------------------------------------------------------------------------------------


@contextmanager
def serving() -> Iterator[BigQueryServer]:
    """Run a server."""
    web = _Web(("127.0.0.1", 0), _Handler)
    web.state = BigQueryServer(f"http://127.0.0.1:{web.server_address[1]}")
    threading.Thread(target=web.serve_forever, daemon=True).start()
    try:
        yield web.state
    finally:
        web.shutdown()


class _Web(ThreadingHTTPServer):
    daemon_threads = True
    state: BigQueryServer


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Web

    def log_message(self, *_: Any) -> None:
        pass

    def _handle(self) -> None:
        state = self.server.state
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        address = urllib.parse.urlsplit(self.path)
        path = urllib.parse.unquote(address.path)
        options = dict(urllib.parse.parse_qsl(address.query))
        with state.lock:
            request = f"{self.command} {path}?{urllib.parse.unquote(address.query)}"
            state.requests.append(request)
            fault = state.take_fault(request)
            if fault and isinstance(fault.kind, int):
                reason = "backendError" if fault.kind >= 500 else "invalid"
                self._answer(fault.kind, _error(fault.kind, reason, "not now"))
                return
            try:
                answer = state.answer(self.command, path, options, json.loads(body or "{}"))
                status = 200
            except RefusedError as error:
                answer, status = _error(error.status, error.reason, str(error)), error.status
            except Exception as error:  # not an answer that a client would repeat
                answer, status = _error(400, "brokenServer", repr(error)), 400
        if fault:  # a lost answer
            self.close_connection = True
            return
        self._answer(status, answer)

    do_GET = do_POST = do_DELETE = do_PATCH = _handle

    def _answer(self, status: int, plain: Plain) -> None:
        body = json.dumps(plain).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _error(status: int, reason: str, message: str) -> Plain:
    problem = {"reason": reason, "message": message}
    return {"error": {"code": status, "message": message, "errors": [problem]}}
