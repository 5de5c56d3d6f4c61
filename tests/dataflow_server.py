"""As much of Google Cloud as submits, stops and checks jobs, on loopback.

Dataflow, Compute Engine, IAM, BigQuery, a registry of container images, and the buckets of Cloud
Storage without their objects, at one address.
"""

import base64
import json
import re
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

RUNNING, DONE, FAILED = "JOB_STATE_RUNNING", "JOB_STATE_DONE", "JOB_STATE_FAILED"
DRAINING, DRAINED = "JOB_STATE_DRAINING", "JOB_STATE_DRAINED"
CANCELLING, CANCELLED = "JOB_STATE_CANCELLING", "JOB_STATE_CANCELLED"
PENDING = "JOB_STATE_PENDING"
ENDED = {DONE, FAILED, DRAINED, CANCELLED}
STREAMING, BATCH = "JOB_TYPE_STREAMING", "JOB_TYPE_BATCH"
# The states that follow a request, by the number that clients write for a state.
FOLLOWING = {7: [DRAINING, DRAINED], 5: [CANCELLING, CANCELLED]}


class Refusal(Exception):
    """An answer with an error status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class CloudServer:
    """The server, what it was sent, and what it is to answer.

    `jobs` by id; `states` are those that a job will be in, one more each time that it is asked for.
    `refusals`: statuses and messages, by pattern of "METHOD /path". `outages`: the statuses of the
    next answers, whatever is asked.
    """

    address: str
    submitted: list[dict[str, Any]] = field(default_factory=list)
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    states: dict[str, list[str]] = field(default_factory=dict)
    first_states: list[str] = field(default_factory=lambda: [PENDING, RUNNING])
    messages: list[str] = field(default_factory=list)
    metrics: list[dict[str, Any]] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    authorizations: list[str] = field(default_factory=list)
    refusals: dict[str, tuple[int, str]] = field(default_factory=dict)
    outages: list[int] = field(default_factory=list)
    quotas: list[dict[str, Any]] = field(default_factory=list)
    project_quotas: list[dict[str, Any]] = field(default_factory=list)
    accounts: set[str] = field(default_factory=set)
    images: dict[str, dict[str, Any]] = field(default_factory=dict)
    datasets: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    buckets: dict[str, dict[str, Any]] = field(default_factory=dict)
    permissions: list[str] | None = None

    def add_job(self, name: str, *, type: str = STREAMING, state: str = RUNNING) -> str:
        """A job that was submitted before; gives its id."""
        job_id = f"2030-01-01_{len(self.jobs)}"
        self.jobs[job_id] = {"id": job_id, "name": name, "type": type, "currentState": state}
        self.states[job_id] = []
        return job_id

    def add_image(self, name: str, *, python: str, labels: dict[str, str]) -> str:
        """An image as the registry has it; gives what a job file calls it."""
        self.images[name] = {
            "config": {"Env": [f"PYTHON_VERSION={python}"], "Labels": labels},
        }
        return f"{self.address.removeprefix('http://')}/{name}"

    def add_metrics(self, counters: dict[tuple[str, str], int]) -> None:
        """Counters of a job, by step and name; each is told twice, as Dataflow does."""
        for (step, name), value in counters.items():
            for tentative in ({}, {"tentative": "true"}):
                context = {"namespace": step, "step": "s1", **tentative}
                told = {"origin": "user", "name": name, "context": context}
                self.metrics.append({"name": told, "scalar": value})

    def answer(self, method: str, path: str, query: dict[str, str], body: Any) -> Any:
        """The JSON of an answer."""
        if self.outages:
            raise Refusal(self.outages.pop(0), "try again later")
        for pattern, (status, message) in self.refusals.items():
            if re.search(pattern, f"{method} {path}"):
                raise Refusal(status, message)
        for pattern, handle in ROUTES.items():
            match = re.fullmatch(pattern, f"{method} {path}")
            if match:
                return handle(self, *match.groups(), query, body)
        raise Refusal(404, f"nothing at {path}")

    def _create_job(self, _query: Any, body: dict[str, Any]) -> dict[str, Any]:
        self.submitted.append(body)
        job_id = self.add_job(body["name"], state=self.first_states[0])
        self.jobs[job_id]["type"] = body["type"]
        self.states[job_id] = self.first_states[1:]
        return self.jobs[job_id]

    def _list_jobs(self, query: dict[str, str], _body: Any) -> dict[str, Any]:
        jobs = list(self.jobs.values())
        if query.get("filter") in ("3", "ACTIVE"):
            jobs = [job for job in jobs if job["currentState"] not in ENDED]
        if "name" in query:
            jobs = [job for job in jobs if job["name"] == query["name"]]
        return {"jobs": jobs}

    def _get_job(self, job_id: str, _query: Any, _body: Any) -> dict[str, Any]:
        if self.states[job_id]:
            self.jobs[job_id]["currentState"] = self.states[job_id].pop(0)
        return self.jobs[job_id]

    def _update_job(self, job_id: str, _query: Any, body: dict[str, Any]) -> dict[str, Any]:
        self.states[job_id] = list(FOLLOWING[body["requestedState"]])
        return self._get_job(job_id, {}, None)

    def _list_messages(self, _job_id: str, _query: Any, _body: Any) -> dict[str, Any]:
        return {"jobMessages": [{"messageText": text} for text in self.messages]}

    def _get_metrics(self, _job_id: str, _query: Any, _body: Any) -> dict[str, Any]:
        return {"metrics": self.metrics}

    def _region(self, region: str, _query: Any, _body: Any) -> dict[str, Any]:
        return {"name": region, "quotas": self.quotas}

    def _project(self, _query: Any, _body: Any) -> dict[str, Any]:
        return {"quotas": self.project_quotas}

    def _account(self, email: str, _query: Any, _body: Any) -> dict[str, Any]:
        if email not in self.accounts:
            raise Refusal(404, "Unknown service account")
        return {"email": email}

    def _manifest(self, name: str, tag: str, _query: Any, _body: Any) -> dict[str, Any]:
        if f"{name}:{tag}" not in self.images:
            raise Refusal(404, "manifest unknown")
        digest = base64.urlsafe_b64encode(f"{name}:{tag}".encode()).decode()
        return {"schemaVersion": 2, "config": {"digest": digest}, "layers": []}

    def _image_config(self, _name: str, digest: str, _query: Any, _body: Any) -> dict[str, Any]:
        return self.images[base64.urlsafe_b64decode(digest).decode()]

    def _dataset(self, dataset: str, _query: Any, _body: Any) -> dict[str, Any]:
        if dataset not in self.datasets:
            raise Refusal(404, f"Not found: Dataset {dataset}")
        return {"datasetReference": {"projectId": "my-project", "datasetId": dataset}}

    def _table(self, dataset: str, table: str, _query: Any, _body: Any) -> dict[str, Any]:
        self._dataset(dataset, {}, None)
        if table not in self.datasets[dataset]:
            raise Refusal(404, f"Not found: Table {table}")
        reference = {"projectId": "my-project", "datasetId": dataset, "tableId": table}
        return {"tableReference": reference, **self.datasets[dataset][table]}

    def _create_bucket(self, query: dict[str, str], body: dict[str, Any]) -> dict[str, Any]:
        kind = "region" if "-" in body["location"] else "multi-region"
        self.buckets[body["name"]] = {**body, "locationType": kind, "project": query["project"]}
        return self.buckets[body["name"]]

    def _bucket(self, name: str, _query: Any, _body: Any) -> dict[str, Any]:
        if name not in self.buckets:
            raise Refusal(404, "The specified bucket does not exist.")
        return self.buckets[name]

    def _objects(self, _name: str, _query: Any, _body: Any) -> dict[str, Any]:
        return {"items": []}

    def _permissions(self, _name: str, query: dict[str, Any], _body: Any) -> dict[str, Any]:
        asked = query["permissions"].split(",")
        granted = asked if self.permissions is None else self.permissions
        return {"permissions": sorted(set(asked) & set(granted))}


_JOBS = "/v1b3/projects/[^/]+/locations/[^/]+/jobs"
ROUTES: dict[str, Callable[..., Any]] = {
    f"POST {_JOBS}": CloudServer._create_job,
    f"GET {_JOBS}": CloudServer._list_jobs,
    f"GET {_JOBS}/([^/]+)": CloudServer._get_job,
    f"PUT {_JOBS}/([^/]+)": CloudServer._update_job,
    f"GET {_JOBS}/([^/]+)/messages": CloudServer._list_messages,
    f"GET {_JOBS}/([^/]+)/metrics": CloudServer._get_metrics,
    "GET /compute/v1/projects/[^/]+/regions/([^/]+)": CloudServer._region,
    "GET /compute/v1/projects/[^/]+": CloudServer._project,
    "GET /v1/projects/-/serviceAccounts/([^/]+)": CloudServer._account,
    "(?:GET|HEAD) /v2/(.+)/manifests/([^/]+)": CloudServer._manifest,
    "GET /v2/(.+)/blobs/([^/]+)": CloudServer._image_config,
    "POST /storage/v1/b": CloudServer._create_bucket,
    "GET /storage/v1/b/([^/]+)": CloudServer._bucket,
    "GET /storage/v1/b/([^/]+)/o": CloudServer._objects,
    "GET /storage/v1/b/([^/]+)/iam/testPermissions": CloudServer._permissions,
    "GET /bigquery/v2/projects/[^/]+/datasets/([^/]+)": CloudServer._dataset,
    "GET /bigquery/v2/projects/[^/]+/datasets/([^/]+)/tables/([^/]+)": CloudServer._table,
}


@contextmanager
def serving() -> Iterator[CloudServer]:
    """Run the server."""
    http = _Http(("127.0.0.1", 0), _Handler)
    # Beam takes this spelling alone for a server on this machine.
    server = CloudServer(f"http://localhost:{http.server_address[1]}")
    http.state = server  # type: ignore[attr-defined]
    thread = threading.Thread(target=http.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


class _Http(ThreadingHTTPServer):
    daemon_threads = True


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Any

    def log_message(self, *_arguments: Any) -> None:
        """Be quiet."""

    def _handle(self) -> None:
        state: CloudServer = self.server.state
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        address = urllib.parse.urlsplit(self.path)
        path = urllib.parse.unquote(address.path)
        query: dict[str, str] = {}
        for name, value in urllib.parse.parse_qsl(address.query):
            query[name] = f"{query[name]},{value}" if name in query else value
        state.requests.append(f"{self.command} {path}")
        state.authorizations.append(self.headers.get("Authorization", ""))
        try:
            status, answer = (
                200,
                state.answer(self.command, path, query, json.loads(content) if content else None),
            )
        except Refusal as refusal:
            status = refusal.status
            answer = {"error": {"code": status, "message": str(refusal)}}
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_POST = do_PUT = do_HEAD = _handle
