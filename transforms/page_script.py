"""JSON as a script: what a page that was opened from a disk can read."""

import json
from typing import Any

# A script ends where its tag does, and these end lines of older scripts.
_ESCAPES = {ord("<"): "\\u003c", 0x2028: "\\u2028", 0x2029: "\\u2029"}


def page_script(content: Any) -> bytes:
    """A script that hands JSON to the page of results."""
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return f"beamsplitter.receive({text.translate(_ESCAPES)});\n".encode("utf-8", "replace")
