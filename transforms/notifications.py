"""Cloud Storage notifications: which object a Pub/Sub message is about, and what happened to it."""

import json
from collections.abc import Mapping
from typing import Any

from .klio.message import KlioMessageError


def parse_notification(data: bytes, attributes: Mapping[str, str]) -> tuple[str, bool] | None:
    """The URI of a Cloud Storage notification's object, and whether the object is new.

    The attributes say what happened. Where they are lost, the object resource in the data counts
    as that of a new object unless it says when it was deleted. A new object whose name ends with
    "/" stands for a folder and does not count as new.

    Returns
    -------
    None if it is no notification.

    Raises
    ------
    KlioMessageError
        the object resource doesn't name its bucket and object
    """
    bucket: Any
    name: Any
    if {"eventType", "bucketId", "objectId"} <= attributes.keys():
        bucket, name = attributes["bucketId"], attributes["objectId"]
        is_new = attributes["eventType"] == "OBJECT_FINALIZE"
    else:
        resource = _object_resource(data)
        if resource is None:
            return None
        bucket, name = resource.get("bucket"), resource.get("name")
        is_new = "timeDeleted" not in resource
    if not (isinstance(bucket, str) and isinstance(name, str) and bucket and name):
        raise KlioMessageError(f"A Cloud Storage notification without bucket and name: {data!r}")
    return f"gs://{bucket}/{name}", is_new and not name.endswith("/")


def _object_resource(data: bytes) -> dict[str, Any] | None:
    if not data.lstrip().startswith(b"{"):
        return None
    try:
        resource = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return resource if resource.get("kind") == "storage#object" else None
