"""JSON as a script: what a page that was opened from a disk can read."""

import json
from typing import Any

REPORT = "report.js"  # of a recording, in its folder
# A script ends where its tag does, and these end lines of older scripts.
_CALL, _END = b"beamsplitter.receive(", b");\n"
_ESCAPES = {ord("<"): "\\u003c", 0x2028: "\\u2028", 0x2029: "\\u2029"}


def page_script(content: Any) -> bytes:
    """A script that hands JSON to the page of results."""
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=False)
    # Bytes of names that are no text are escaped, as JSON has them.
    return _CALL + text.translate(_ESCAPES).encode("utf-8", "backslashreplace") + _END


def parse_page_script(data: bytes) -> Any:
    """The JSON of such a script.

    Raises
    ------
    ValueError
        it is none
    """
    if not (data.startswith(_CALL) and data.endswith(_END)):
        raise ValueError("is no data of the page")
    return json.loads(data[len(_CALL) : -len(_END)])
