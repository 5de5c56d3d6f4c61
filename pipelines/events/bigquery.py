"""The client of BigQuery, and its errors as ones that name the table and say what to do."""

import contextlib
import errno
import functools
import os
from collections.abc import Iterator

from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery
from google.cloud.bigquery.retry import DEFAULT_RETRY

from ...storage import gcs
from ...storage.file_facts import StorageError
from ..job.event_config import BigQueryTable

RETRY = DEFAULT_RETRY.with_timeout(120)
NO_PROJECT = "no project is known: name the project in the job file, or in GOOGLE_CLOUD_PROJECT"
EMULATED_PROJECT = "test-project"


def client_of(each: BigQueryTable) -> bigquery.Client:
    """The client of this process for the project of a table or query.

    Raises
    ------
    StorageError
        there are no credentials, or no project
    """
    with explained(each):
        return client(each.project)


@functools.cache
def client(project: str | None) -> bigquery.Client:
    """The client of this process for a project, by default that of the credentials.

    Anonymous where BIGQUERY_EMULATOR_HOST names another server.
    """
    if os.environ.get("BIGQUERY_EMULATOR_HOST"):
        project = project or os.environ.get("GOOGLE_CLOUD_PROJECT", EMULATED_PROJECT)
        return bigquery.Client(project, AnonymousCredentials())
    try:
        return bigquery.Client(project)
    except OSError as error:
        raise StorageError(errno.EINVAL, NO_PROJECT, "BigQuery") from error


@contextlib.contextmanager
def explained(each: BigQueryTable) -> Iterator[None]:
    """Turn the client's errors into ones that name the table or query and say what to do."""
    with gcs.explained(f"BigQuery {each.location}", service="BigQuery"):
        yield


def reference_of(each: BigQueryTable) -> bigquery.TableReference:
    """The table that a job names."""
    project = each.project or client_of(each).project
    return bigquery.TableReference.from_string(f"{project}.{each.dataset}.{each.table}")
