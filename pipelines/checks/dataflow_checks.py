"""Checks of what a job needs on Dataflow: the service, quotas, the account and the image."""

import functools
import os
import platform
import re
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import requests
from google.api_core import exceptions as api_exceptions
from google.auth.credentials import AnonymousCredentials, Credentials
from google.auth.transport.requests import AuthorizedSession
from google.cloud import dataflow_v1beta3 as api

from ... import __version__
from ..job.job_config import JobConfig
from ..services.dataflow_jobs import DataflowJobs
from .cloud_checks import TIMEOUT_S
from .findings import Finding, Status

# gcloud, too, takes other endpoints from these variables.
ENDPOINTS = {
    "compute": "https://compute.googleapis.com/compute/v1/",
    "iam": "https://iam.googleapis.com/",
}
DOCKER_HUB = "registry-1.docker.io"
GOOGLE_REGISTRIES = ("pkg.dev", "gcr.io")
MANIFEST_TYPES = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
REGISTRY_ADVICE = {
    401: "the registry wants a password: workers read from Artifact Registry, or public images",
    403: "this account may not read it: it needs roles/artifactregistry.reader, as the workers do",
    404: "docs/containers.md says how to build and push it",
}
# What the Dockerfile writes into the image.
BEAM_LABEL = "org.apache.beam.version"
TITLE_LABEL = "org.opencontainers.image.title"
VERSION_LABEL = "org.opencontainers.image.version"
VERSION_TAG = re.compile(r"v?(\d+\.\d+\.\d+)(?:-.*)?")


class DataflowChecks:
    """Checks with the credentials of whoever runs the command."""

    def __init__(self, job: JobConfig, credentials: Credentials) -> None:
        self.job, self.settings, self.credentials = job, job.pipeline_options, credentials
        self.jobs = DataflowJobs(job.pipeline_options)

    @functools.cached_property
    def session(self) -> requests.Session:
        """Requests to Google's services that no client is installed for."""
        if isinstance(self.credentials, AnonymousCredentials):
            return requests.Session()
        return AuthorizedSession(self.credentials)

    def service(self) -> Iterator[Finding]:
        """Dataflow answers, and no job of the name is in the way."""
        name, kind = self.job.job_name, "Dataflow"
        found = self.jobs.find(name)
        place = f"{self.jobs.project}, {self.jobs.region}"
        if found is None:
            yield Finding(kind, place, "ok", f"no job named {name} is running")
        elif found.type_ == api.JobType.JOB_TYPE_STREAMING and self.settings.streaming:
            remark = f"{name} ({found.id}) is running: `run --update` replaces it, `stop` drains it"
            yield Finding(kind, place, "ok" if self.settings.update else "warning", remark)
        else:
            remark = f"{name} ({found.id}) is running: a second job of this name is refused"
            yield Finding(kind, place, "warning", remark)

    def quotas(self) -> Iterator[Finding]:
        """What the region's quotas leave is enough for the most workers that there may be."""
        base = endpoint("compute") + f"projects/{self.jobs.project}"
        region = self._get(f"{base}/regions/{self.jobs.region}")
        free = _free(region.get("quotas", ()))
        workers = self.settings.max_num_workers
        yield from self._quota_of_cores(free, workers)
        if self.settings.use_public_ips is not False:
            yield _judged("IN_USE_ADDRESSES", free, workers, "an address for each worker")
        accelerator = _accelerator(
            self.settings.accelerator, self.settings.dataflow_service_options
        )
        if accelerator:
            gpu, count = accelerator
            needed = workers * count if workers else None
            yield _judged(gpu_metric(gpu), free, needed, f"{count} {gpu} a worker")
            everywhere = _free(self._get(base).get("quotas", ()))
            yield _judged("GPUS_ALL_REGIONS", everywhere, needed, "GPUs of the whole project")

    def _quota_of_cores(self, free: dict[str, float], workers: int | None) -> Iterator[Finding]:
        machine = self.settings.worker_machine_type
        cores = cores_of(machine) if machine else None
        if machine is None or cores is None:
            remark = "worker_machine_type does not say how many cores a worker has"
            yield Finding("quota", "CPUS", "can't tell", remark)
            return
        family = f"{machine.partition('-')[0].upper()}_CPUS"
        metric = family if family in free else "CPUS"
        needed = workers * cores if workers else None
        yield _judged(metric, free, needed, f"{cores} for each {machine}")

    def service_account(self, email: str) -> Iterator[Finding]:
        """The account of the workers is there, if it can be seen."""
        try:
            self._get(f"{endpoint('iam')}v1/projects/-/serviceAccounts/{email}")
        except api_exceptions.Forbidden:
            remark = "this account may not look at it; what it may do can't be told anyway"
            yield Finding("service account", email, "can't tell", remark)
            return
        yield Finding("service account", email, "ok", "of the workers; its roles can't be told")

    def image(self, image: str) -> Iterator[Finding]:
        """The image of the workers can be had, and is of the Python and Beam that submit."""
        registry, name, tag = parse_image(image)
        get = self._registry_getter(registry)
        manifest = get(f"{name}/manifests/{tag}").json()
        if "manifests" in manifest:
            digest = _for_workers(manifest["manifests"])
            manifest = get(f"{name}/manifests/{digest}").json()
        config = get(f"{name}/blobs/{manifest['config']['digest']}").json().get("config", {})
        held, source = _beamsplitter_in(config, tag)
        differences = list(_other_versions(config))
        if held is None:
            unknown = "neither a label nor the tag says which beamsplitter it holds"
            status: Status = "warning" if differences else "can't tell"
            yield Finding("image", image, status, "; ".join([*differences, unknown]))
            return
        if held != __version__:
            differences.append(
                f"holds beamsplitter {held}, as its {source} says, this is {__version__}: workers "
                "and command must be of one version: build it again"
            )
        if differences:
            yield Finding("image", image, "warning", "; ".join(differences))
        else:
            yield Finding("image", image, "ok", f"beamsplitter {held}, as its {source} says")

    def _get(self, url: str) -> Any:
        response = self.session.get(url, timeout=TIMEOUT_S)
        if not response.ok:
            raise api_exceptions.from_http_response(response)
        return response.json()

    def _registry_getter(self, registry: str) -> Any:
        headers = {"Accept": ", ".join(MANIFEST_TYPES)}
        # Google's credentials are for Google's registries only.
        if registry.endswith(GOOGLE_REGISTRIES) and self.credentials.token:
            headers["Authorization"] = f"Bearer {self.credentials.token}"
        scheme = "http" if registry.partition(":")[0] in ("localhost", "127.0.0.1") else "https"

        def get(path: str) -> requests.Response:
            url = f"{scheme}://{registry}/v2/{path}"
            response = requests.get(url, headers=headers, timeout=TIMEOUT_S)
            challenge = response.headers.get("WWW-Authenticate", "")
            if response.status_code == 401 and "Authorization" not in headers and challenge:
                headers["Authorization"] = f"Bearer {_public_token(challenge)}"
                response = requests.get(url, headers=headers, timeout=TIMEOUT_S)
            if not response.ok:
                advice = REGISTRY_ADVICE.get(response.status_code, "the registry does not answer")
                raise api_exceptions.from_http_status(response.status_code, advice)
            return response

        return get


def endpoint(service: str) -> str:
    """Address of one of Google's services."""
    variable = f"CLOUDSDK_API_ENDPOINT_OVERRIDES_{service.upper()}"
    return os.environ.get(variable) or ENDPOINTS[service]


def parse_image(image: str) -> tuple[str, str, str]:
    """Registry, name, and tag or digest of an image, with Docker's defaults."""
    name, _, digest = image.partition("@")
    first, slash, rest = name.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        registry, name = first, rest
    else:
        registry, name = DOCKER_HUB, name if slash else f"library/{name}"
    if registry in ("docker.io", "index.docker.io"):
        registry, name = DOCKER_HUB, name if "/" in name else f"library/{name}"
    name, _, tag = name.partition(":")
    return registry, name, digest or tag or "latest"


def cores_of(machine: str) -> int | None:
    """Cores of a machine type, as far as its name says: `n2-standard-4`, `n2-custom-6-8192`."""
    found = re.search(r"custom-(\d+)-|-(\d+)(?:-lssd|-metal)?$", machine)
    return int(found[1] or found[2]) if found else None


def gpu_metric(gpu: str) -> str:
    """The quota of a type of GPU: `nvidia-tesla-t4` has NVIDIA_T4_GPUS."""
    return gpu.upper().replace("-TESLA", "").replace("-", "_") + "_GPUS"


def _accelerator(hint: str | None, services: list[str] | None) -> tuple[str, int] | None:
    """Type and count of a worker's GPU: of a resource hint, or of all workers."""
    prefix = "worker_accelerator="
    texts = [hint] if hint else []
    texts += [each.removeprefix(prefix) for each in services or () if each.startswith(prefix)]
    for text in texts:
        pairs = dict(part.partition(":")[::2] for part in text.split(";"))
        if "type" in pairs:
            return pairs["type"], int(pairs.get("count") or 1)
    return None


def _free(quotas: Any) -> dict[str, float]:
    return {each["metric"]: each["limit"] - each.get("usage", 0) for each in quotas}


def _judged(metric: str, free: dict[str, float], needed: int | None, what: str) -> Finding:
    if metric not in free:
        return Finding("quota", metric, "can't tell", "nothing is told of this quota")
    left = f"{free[metric]:g} left"
    if needed is None:
        remark = f"{what}; {left}; max_num_workers is not set, and bounds the bill"
        return Finding("quota", metric, "can't tell" if free[metric] else "missing", remark)
    if needed <= free[metric]:
        return Finding("quota", metric, "ok", f"{needed} needed at most ({what}), {left}")
    remark = f"{needed} needed at most ({what}), {left}: fewer workers will start, or none"
    return Finding("quota", metric, "warning" if free[metric] else "missing", remark)


def _public_token(challenge: str) -> str:
    """The token that anybody gets, from where the registry says."""
    fields = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
    realm = fields.pop("realm", "")
    if not realm.startswith("https://"):
        raise api_exceptions.Unauthorized(REGISTRY_ADVICE[401])
    response = requests.get(realm, params=fields, timeout=TIMEOUT_S)
    if not response.ok:
        raise api_exceptions.Unauthorized(REGISTRY_ADVICE[401])
    answer = response.json()
    return str(answer.get("token") or answer.get("access_token") or "")


def _for_workers(manifests: Any) -> str:
    """The image for Dataflow's machines, of one that is made for several."""
    for each in manifests:
        machine = each.get("platform", {})
        if (machine.get("os"), machine.get("architecture")) == ("linux", "amd64"):
            return str(each["digest"])
    raise api_exceptions.NotFound("there is none for linux/amd64")


def _beamsplitter_in(config: dict[str, Any], tag: str) -> tuple[str | None, str]:
    """The version of beamsplitter in an image, if it can be told, and what tells it."""
    labels = config.get("Labels") or {}
    # Images inherit labels: of another title, the version is that of another program.
    if labels.get(TITLE_LABEL) == "beamsplitter" and labels.get(VERSION_LABEL):
        return str(labels[VERSION_LABEL]), "label"
    found = VERSION_TAG.fullmatch(tag)
    return (found[1], "tag") if found else (None, "")


def _other_versions(config: dict[str, Any]) -> Iterator[str]:
    variables = dict(each.partition("=")[::2] for each in config.get("Env") or ())
    python = ".".join(variables.get("PYTHON_VERSION", "").split(".")[:2])
    ours = ".".join(platform.python_version_tuple()[:2])
    if python and python != ours:
        yield f"holds Python {python}, this is {ours}: workers can't load the job"
    beam = (config.get("Labels") or {}).get(BEAM_LABEL)
    if beam and beam != version("apache-beam"):
        yield f"holds Beam {beam}, this is {version('apache-beam')}: build it again"
