"""The JSON Schemas of what users write and read."""

from typing import Any

from pydantic import TypeAdapter

from ...transforms.manifest import Manifest
from ..job.job_config import JobConfig
from ..outcomes.summary import RunFacts

KINDS: dict[str, type] = {"job": JobConfig, "manifest": Manifest, "run": RunFacts}


def schema_of(name: str) -> dict[str, Any]:
    """The schema of `job` files, `manifest.json` or `run.json`."""
    schema = TypeAdapter(KINDS[name]).json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
