"""JSON as it is written in feature sets."""

import json
from typing import Any


def json_bytes(content: Any) -> bytes:
    """Content as JSON in ASCII, on one line; ValueError for what has no JSON, such as infinity."""
    return json.dumps(content, allow_nan=False).encode()


def json_object(data: bytes) -> dict[str, Any]:
    """The object that JSON tells; ValueError if it is none."""
    content = json.loads(data)
    if not isinstance(content, dict):
        raise ValueError("its JSON is no object")
    return content
