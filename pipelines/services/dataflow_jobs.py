"""Jobs on Dataflow that were submitted before: found by name, waited for, stopped."""

import contextlib
import logging
import re
import time
from collections.abc import Iterator
from typing import Any

import google.auth
import requests
from google.api_core import exceptions as api_exceptions
from google.api_core.retry import Retry
from google.auth.credentials import AnonymousCredentials, Credentials
from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError
from google.auth.transport.requests import Request
from google.cloud import dataflow_v1beta3 as api

from ...errors import BeamsplitterError
from ...storage.file_facts import HOW_TO_SIGN_IN
from ..job.job_config import JobConfig, JobFileError, PipelineSettings
from ..outcomes.step_metrics import sum_of

CLOUD_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
REQUEST_TIMEOUT_S = 60.0
UNREACHABLE_TIMEOUT_S = 600.0
RUNNING_TIMEOUT_S = 600.0
POLL_S = 10.0
REQUEST = re.compile(r"^(\d{3} )?(GET|HEAD|POST|PUT|PATCH|DELETE) https?://\S+: ")
State = api.JobState
ENDED_WELL = {State.JOB_STATE_DONE, State.JOB_STATE_DRAINED, State.JOB_STATE_UPDATED}
ENDED = {*ENDED_WELL, State.JOB_STATE_FAILED, State.JOB_STATE_CANCELLED, State.JOB_STATE_STOPPED}


class DataflowError(BeamsplitterError, RuntimeError):
    """Dataflow, the storage or the credentials refuse, or a job failed."""


class NoSuchJobError(DataflowError):
    """No job of the name is active."""

    exit_code = 1


class JobFailedError(DataflowError):
    """A job failed, or was cancelled."""

    exit_code = 1


def _default_region() -> str | None:
    # Beam takes a second to import.
    from apache_beam.runners.dataflow.dataflow_runner import DataflowRunner

    region: str | None = DataflowRunner().get_default_gcp_region()
    return region


class DataflowJobs:
    """The jobs of one project and region.

    Parameters
    ----------
    settings
        name the project; without a region that of gcloud is taken

    Raises
    ------
    JobFileError
        project or region are missing
    DataflowError
        there are no credentials
    """

    def __init__(self, settings: PipelineSettings) -> None:
        if not settings.project:
            raise JobFileError("pipeline_options.project: name the Google Cloud project")
        region = settings.region or _default_region()
        if not region:
            raise JobFileError("pipeline_options.region: name the region of the job")
        self.project, self.region = settings.project, region
        options: dict[str, Any] = {"credentials": credentials_of(settings)}
        endpoint = (settings.dataflow_endpoint or "").rstrip("/")
        if endpoint:
            # As Beam's own client does it: a server on this machine talks REST.
            if "localhost" in endpoint:
                options["transport"] = "rest"
            else:
                endpoint = endpoint.removeprefix("https://")
            options["client_options"] = {"api_endpoint": endpoint}
        self.client = api.JobsV1Beta3Client(**options)
        self.messages_client = api.MessagesV1Beta3Client(**options)
        self.metrics_client = api.MetricsV1Beta3Client(**options)
        self.place = {"project_id": self.project, "location": self.region}

    def url(self, job_id: str) -> str:
        """The page of a job in the console."""
        return (
            f"https://console.cloud.google.com/dataflow/jobs/{self.region}/{job_id}"
            f"?project={self.project}"
        )

    def find(self, name: str) -> api.Job | None:
        """The active job of a name: one that has not ended. There is at most one."""
        request = api.ListJobsRequest(
            **self.place, name=name, filter=api.ListJobsRequest.Filter.ACTIVE
        )
        with explained():
            for job in self.client.list_jobs(request, timeout=REQUEST_TIMEOUT_S):
                if job.name == name and job.current_state not in ENDED:
                    return job
        return None

    def require(self, name: str) -> api.Job:
        """The active job of a name.

        Raises
        ------
        NoSuchJobError
            there is none
        DataflowError
            Dataflow can't be asked
        """
        job = self.find(name)
        if job is None:
            raise NoSuchJobError(
                f"no job named {name} is running in project {self.project}, region {self.region}"
            )
        return job

    def require_updatable(self, name: str) -> api.Job:
        """The running stream of a name.

        Raises
        ------
        NoSuchJobError
            there is none
        DataflowError
            it is no stream, or about to end
        """
        try:
            job = self.require(name)
        except NoSuchJobError as error:
            raise NoSuchJobError(f"{error}: submit it without --update") from error
        if job.type_ != api.JobType.JOB_TYPE_STREAMING:
            raise DataflowError(f"job {name} ({job.id}) is a batch job: only streams are updated")
        if job.current_state != State.JOB_STATE_RUNNING:
            raise DataflowError(
                f"job {name} ({job.id}) is {state_name(job.current_state)}: a job is updated while "
                "it is running"
            )
        return job

    def state(self, job_id: str) -> api.JobState:
        """The state of a job; asked for again while Dataflow is away."""
        request = api.GetJobRequest(**self.place, job_id=job_id)
        with explained():
            retry = Retry(timeout=UNREACHABLE_TIMEOUT_S)
            return self.client.get_job(
                request, retry=retry, timeout=REQUEST_TIMEOUT_S
            ).current_state

    def request_state(self, job_id: str, state: int) -> None:
        """Ask for a state: draining or cancelled."""
        request = api.UpdateJobRequest(
            **self.place, job_id=job_id, job=api.Job(requested_state=state)
        )
        with explained():
            self.client.update_job(request, timeout=REQUEST_TIMEOUT_S)

    def wait_until_running(self, job_id: str) -> None:
        """Wait until a job runs, or has done so.

        Raises
        ------
        DataflowError
            it failed, or does not run after ten minutes
        """
        deadline = time.monotonic() + RUNNING_TIMEOUT_S
        while (state := self.state(job_id)) not in {State.JOB_STATE_RUNNING, *ENDED}:
            if time.monotonic() > deadline:
                raise DataflowError(
                    f"the job is still {state_name(state)} after {RUNNING_TIMEOUT_S / 60:g} "
                    f"minutes; it goes on: {self.url(job_id)}"
                )
            time.sleep(POLL_S)
        if state != State.JOB_STATE_RUNNING:
            self._require_good_end(job_id, state)

    def metrics(self, job_id: str) -> dict[str, dict[str, Any]]:
        """Counters and distributions of a job, by step and name, as local runs give them."""
        request = api.GetJobMetricsRequest(**self.place, job_id=job_id)
        with explained():
            retry = Retry(timeout=UNREACHABLE_TIMEOUT_S)
            found = self.metrics_client.get_job_metrics(
                request, retry=retry, timeout=REQUEST_TIMEOUT_S
            )
        metrics: dict[str, dict[str, Any]] = {}
        for each in found.metrics:
            context = each.name.context
            # Distributions are told once more, as four numbers for the console.
            if (
                each.name.origin != "user"
                or context.get("tentative") == "true"
                or each.name.name.endswith(("_MIN", "_MAX", "_MEAN", "_COUNT"))
                or (each.scalar is None and each.distribution is None)
            ):
                continue
            value: Any = each.scalar
            if each.distribution is not None:
                told: Any = each.distribution
                value = {key: int(told[key]) for key in ("sum", "count", "min", "max")}
            else:
                value = int(value)
            step, name = metrics.setdefault(context.get("namespace", ""), {}), each.name.name
            # A step that is in the graph twice has one name.
            step[name] = sum_of(step[name], value) if name in step else value
        return metrics

    def wait(self, job_id: str) -> None:
        """Wait until a job is over.

        Raises
        ------
        JobFailedError
            it failed or was cancelled
        DataflowError
            Dataflow can't be asked
        """
        self._require_good_end(job_id, self.wait_for_end(job_id))

    def wait_for_end(self, job_id: str) -> api.JobState:
        """Wait until a job is over, whatever its end."""
        while (state := self.state(job_id)) not in ENDED:
            time.sleep(POLL_S)
        return state

    def _require_good_end(self, job_id: str, state: api.JobState) -> None:
        if state in ENDED_WELL:
            return
        if state == State.JOB_STATE_CANCELLED:
            raise JobFailedError("the job was cancelled")
        errors = "\n".join(self._errors(job_id))
        raise JobFailedError(f"the job failed: {errors or self.url(job_id)}")

    def _errors(self, job_id: str) -> list[str]:
        request = api.ListJobMessagesRequest(
            **self.place,
            job_id=job_id,
            minimum_importance=api.JobMessageImportance.JOB_MESSAGE_ERROR,
        )
        with explained():
            messages = list(
                self.messages_client.list_job_messages(request, timeout=REQUEST_TIMEOUT_S)
            )
        return [each.message_text for each in messages]


def stop_job(job: JobConfig, *, mode: str | None = None, wait: bool = False) -> tuple[api.Job, str]:
    """Stop the active job of a job file's name.

    Parameters
    ----------
    mode
        "drain" (take no more events, finish those that are there) or "cancel"; by default a
        stream is drained, and a batch job cancelled
    wait
        until it is over

    Returns
    -------
    The job as it was found, and its state now, in words.

    Raises
    ------
    JobFileError
        the job does not run on Dataflow, or can't be stopped so
    NoSuchJobError
        no job of the name is active
    JobFailedError
        the job failed in the end
    DataflowError
        no credentials, no permission
    """
    if job.pipeline_options.runner == "PortableRunner":
        raise JobFileError(
            "pipeline_options.runner: stop the job with the tools of the runner behind its job "
            "server; one with LOOPBACK ends with its command, by Ctrl-C"
        )
    if job.pipeline_options.runner != "DataflowRunner":
        raise JobFileError(
            "pipeline_options.runner: the job runs on this machine: end its command with Ctrl-C"
        )
    jobs = DataflowJobs(job.pipeline_options)
    found = jobs.require(job.job_name)
    streaming = found.type_ == api.JobType.JOB_TYPE_STREAMING
    mode = mode or ("drain" if streaming else "cancel")
    if mode == "drain" and not streaming:
        raise JobFileError("--drain: a batch job can't be drained: leave it out, or say --cancel")
    wanted = State.JOB_STATE_DRAINING if mode == "drain" else State.JOB_STATE_CANCELLED
    stopping = {State.JOB_STATE_CANCELLING, wanted}
    if found.current_state not in stopping:
        jobs.request_state(found.id, wanted)
    if not wait:
        cancelling = mode == "cancel" or found.current_state == State.JOB_STATE_CANCELLING
        return found, "cancelling" if cancelling else "draining"
    end = jobs.wait_for_end(found.id)
    if end == State.JOB_STATE_FAILED:
        jobs.wait(found.id)
    return found, state_name(end)


def state_name(state: int) -> str:
    """A state in words: `running`, `draining`."""
    return State(state).name.removeprefix("JOB_STATE_").replace("_", " ").lower()


def credentials_of(settings: PipelineSettings) -> Credentials:
    """The credentials of this machine's user; anonymous where the job says `no_auth`.

    Raises
    ------
    DataflowError
        there are none, or they are no longer good
    """
    if settings.no_auth:
        return AnonymousCredentials()
    # What it warns of is what the error says.
    logging.getLogger("google.auth").setLevel(logging.ERROR)
    with explained():
        credentials, _ = google.auth.default(scopes=[CLOUD_SCOPE])
        if not credentials.valid:
            credentials.refresh(Request())
    return credentials


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Turn the errors of Google's clients into a line that says what to do.

    Raises
    ------
    DataflowError
        for each of them
    """
    try:
        yield
    except DataflowError:
        raise
    except DefaultCredentialsError as error:
        raise DataflowError(f"no Google credentials: {HOW_TO_SIGN_IN}") from error
    except GoogleAuthError as error:
        raise DataflowError(
            f"the Google credentials are refused: {first_line(error)}: run `gcloud auth "
            "application-default login` again"
        ) from error
    except (api_exceptions.Forbidden, api_exceptions.Unauthorized) as error:
        raise DataflowError(
            f"no permission: {first_line(error.message)}: docs/dataflow.md lists the roles that a "
            "submitter needs"
        ) from error
    except (api_exceptions.ServiceUnavailable, requests.ConnectionError) as error:
        raise DataflowError(f"Dataflow can't be reached: {first_line(error)}") from error
    except api_exceptions.GoogleAPICallError as error:
        raise DataflowError(f"refused by the service: {first_line(error.message)}") from error
    except (api_exceptions.GoogleAPIError, RuntimeError, OSError) as error:
        raise DataflowError(first_line(error)) from error


def first_line(error: object) -> str:
    """The first line of a message, without the request that was answered with it."""
    lines = str(error).strip().splitlines()
    return REQUEST.sub("", lines[0]) if lines else type(error).__name__
