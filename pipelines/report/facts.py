"""What the page tells of a recording: of its manifest, and of the files that this names."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...models.feature_sets.recording_file import open_recording_file
from ...storage import OutputTree, StorageError
from ...transforms.label_settings import LABELS_JSON
from ...transforms.manifest import NAME as MANIFEST
from ...transforms.page_script import REPORT

Plain = Mapping[str, Any]


@dataclass(frozen=True)
class RecordingFacts:
    """What the page tells of a recording.

    Attributes
    ----------
    row
        of the table
    facts
        what is seen when it is opened
    """

    row: dict[str, Any]
    facts: dict[str, Any]


def facts_of(folder: str, tree: OutputTree) -> RecordingFacts | None:
    """Those of a folder of results; None if it has no manifest that can be read."""
    try:
        manifest = json.loads(tree.read(folder, MANIFEST))
        files = {file["name"]: file for file in manifest["files"]}
        row = {
            "folder": folder,
            "name": manifest["input"]["element"],
            "duration_s": manifest["input"]["duration_s"],
            "levels": {
                level["signal"]: level["rms_db"]
                for file in files.values()
                for level in file.get("levels", ())
            },
            "scores": _scores_in(files),
            "labels": [
                {"label": share["label"], "share": share["share"]}
                for file in files.values()
                for share in file.get("labels", ())
            ],
            "page": REPORT in files,
        }
        facts = {
            "manifest": manifest,
            "labels": _labels_of(folder, files, tree),
            "choruses": _choruses_of(folder, manifest, files, tree),
        }
    except (StorageError, ValueError, TypeError, LookupError, AttributeError):
        return None
    return RecordingFacts(row, facts)


def _scores_in(files: Plain) -> dict[str, dict[str, float]]:
    scores: dict[str, dict[str, float]] = {}
    for file in files.values():
        for score in file.get("scores", ()):
            value = score["frames"] if score["track"] is None else score["track"]
            if value is not None:
                scores.setdefault(score["stem"], {})[score["measure"]] = value
    return scores


def _labels_of(folder: str, files: Plain, tree: OutputTree) -> list[Any]:
    return list(json.loads(tree.read(folder, LABELS_JSON))) if LABELS_JSON in files else []


def _choruses_of(
    folder: str, manifest: Plain, files: Plain, tree: OutputTree
) -> list[dict[str, float]]:
    """The excerpts that features were taken of, where those are choruses."""
    made = manifest["branches"].get("features", {}).get("settings", {})
    if made.get("excerpts", {}).get("take") != "chorus":
        return []
    for name, file in files.items():
        if file["branch"] == "features" and not name.endswith(".png"):
            with tree.reading(folder, name) as opened:
                return list(open_recording_file(opened, name=name).metadata["excerpts"])
    return []
