"""Checks of an output tree."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

FILES_OF_RUN = {"failures.jsonl", "run.json", "index.html"}
PAGE_FOLDER = "report"


def assert_whole(out: Path) -> None:
    """Every manifest tells the truth, and there is no file that no manifest names."""
    named = {out / name for name in FILES_OF_RUN}
    for manifest in manifests(out):
        named.add(manifest)
        named.update(_checked_files(manifest))
    strays = [
        path
        for path in out.rglob("*")
        if not path.is_dir() and path not in named and path.parent != out / PAGE_FOLDER
    ]
    assert not strays
    empty = [path for path in out.rglob("*") if path.is_dir() and not os.listdir(path)]
    assert not empty


def _checked_files(manifest: Path) -> list[Path]:
    files = []
    for receipt in read_json(manifest)["files"]:
        data = (manifest.parent / receipt["name"]).read_bytes()
        assert len(data) == receipt["size_bytes"]
        assert hashlib.sha256(data).hexdigest() == receipt["sha256"]
        files.append(manifest.parent / receipt["name"])
    assert files
    return files


def manifests(out: Path) -> list[Path]:
    """All manifests of a tree."""
    # Not rglob: it fails when a scratch folder vanishes under it.
    return sorted(
        Path(folder, "manifest.json")
        for folder, _, names in os.walk(out)
        if "manifest.json" in names
    )


def read_json(path: Path) -> Any:
    """The content of a JSON file."""
    return json.loads(path.read_text("utf-8"))
