"""Files of models that are read with a limit, and written whole or not at all."""

import json
import os
import threading
from pathlib import Path
from typing import Any

from .separators.base import ModelError

MAXIMUM_BYTES = 2**20


def read_document(path: Path, name: str) -> Any:
    """What a JSON file says.

    Parameters
    ----------
    name
        of the file in messages

    Raises
    ------
    ModelError
        it can't be read, is too large, or is no JSON
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAXIMUM_BYTES + 1)
        if len(content) > MAXIMUM_BYTES:
            raise ModelError(f"{name} is larger than {MAXIMUM_BYTES} bytes: no such document")
        # The mark at the start is what some editors write.
        return json.loads(content.decode("utf-8-sig"))
    except OSError as error:
        raise ModelError(f"{name} can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ModelError(f"{name} is not UTF-8 (byte {error.start})") from error
    except (json.JSONDecodeError, RecursionError) as error:
        raise ModelError(f"{name} is no JSON: {error}") from error


def write_json(path: Path, content: object) -> None:
    """Write a JSON file, whole or not at all."""
    write_whole(path, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())


def write_whole(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.part")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
