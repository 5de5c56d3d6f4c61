"""Splitting files, without a job file: the job of `beamsplitter separate`, and its function."""

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..audio.extensions import has_audio_extension
from ..storage import Storage, scheme_of
from ..transforms.label_settings import LABELS_JSON
from .events.elements import list_events
from .events.listing import InputError, is_pattern
from .job.job_config import JobConfig, change_value, parse_job
from .job.locations import expanded
from .local.cores import available_cores
from .local.launch import run_local
from .local.preparing import make_ready, require_ready
from .outcomes.run_state import RunState

AnyPath = str | os.PathLike[str]
# What the arguments fill of a job, as messages call it.
ARGUMENTS = {
    "job_config.events.inputs": "inputs",
    "job_config.data.outputs.0.location": "output",
    "separation": "separator, options",
    "separation.separator": "separator",
    "separation.options": "options",
    "separation.device": "device",
    "stems": "stems",
    "stems.format": "format",
    "stems.two_stems": "two_stems",
    "scores.references": "references",
}


@dataclass(frozen=True)
class FileResult:
    """What became of one recording.

    Attributes
    ----------
    element
        its path below the folder that all inputs have in common
    folder
        where its results lie; None if it failed
    stems, plots
        paths of the files by stem
    scores
        path of their scores, where they are held against true stems
    labels, features
        paths of its `labels.json` and of the file of its features, where the job makes them
    skipped
        it was finished before
    failures
        why it failed: dead letters, with `step`, `exception` and `message`
    """

    element: str
    folder: str | None = None
    stems: dict[str, str] = field(default_factory=dict)
    plots: dict[str, str] = field(default_factory=dict)
    scores: str | None = None
    labels: str | None = None
    features: str | None = None
    skipped: bool = False
    failures: tuple[dict[str, Any], ...] = ()


def separate_files(
    inputs: AnyPath | Sequence[AnyPath],
    output: AnyPath,
    *,
    separator: str = "nn-filter",
    options: Mapping[str, Any] | None = None,
    stems: Sequence[str] | None = None,
    two_stems: str | None = None,
    format: str = "flac",
    plots: bool = True,
    references: str | None = None,
    device: str = "auto",
    workers: int | None = None,
    force: bool = False,
    replace: bool = False,
    settings: Mapping[str, Any] | None = None,
    progress: Callable[[float, float], None] | None = None,
) -> list[FileResult]:
    """Split files into stems and draw their spectrograms: what `beamsplitter separate` does.

    What is finished is left alone, what fails costs itself alone.

    Parameters
    ----------
    inputs
        files, folders and glob patterns, here or on `gs://`
    output
        the folder of the results
    separator, options, stems, device
        see `separate`
    two_stems
        write this stem and the sum of all others, `no_…`
    format
        `flac`, `wav`, `ogg`, `mp3`, `m4a`, `opus`
    plots
        draw spectrograms
    references
        score the stems against true ones, which lie there: `{folder}`, that of the recording, or a
        path with `{recording}`, `{file}`: see docs/evaluating.md
    workers
        processes; default one for each core
    force
        do finished recordings again
    replace
        replace what other settings have made, which is left alone otherwise
    settings
        anything else that a job file can say, by dotted paths: `{"plots.range_db": 60}`,
        `{"stems.bit_rate_kbps": 192}`
    progress
        is told seconds of audio that are done, and those known of so far, when they change:
        what is being worked on counts as far as it is done

    Returns
    -------
    A result for each recording, in order of name

    Raises
    ------
    JobFileError, InputError
        an argument can't be used; a `ValueError`
    ModelError
        the separator can't be had; a `ValueError`
    OSError
        the results can't be written
    LaunchError
        the job could not go on; call it again to go on
    KeyboardInterrupt
        it was interrupted; call it again to go on
    """
    job = split_job(
        [inputs] if isinstance(inputs, str | os.PathLike) else inputs,
        output,
        force=force,
        replace=replace,
        separation={"separator": separator, "options": dict(options or {}), "device": device},
        stems={
            "format": format,
            "select": list(stems) if stems else None,
            "two_stems": two_stems,
        },
        plots={"enabled": plots},
        scores={"references": references},
        changes=[
            # A text is YAML, as on the command line.
            f"{path}={value if isinstance(value, str) else json.dumps(value)}"
            for path, value in (settings or {}).items()
        ],
        flags=ARGUMENTS,
    )
    require_ready(job)
    elements = list_events(job)
    make_ready(job)
    finished: dict[str, dict[str, Any]] = {}
    told = 0.0, 0.0

    def show(state: RunState, line: dict[str, Any] | None) -> None:
        if line and line["event"] == "finished":
            finished[line["element"]] = line
        nonlocal told
        seconds = state.worked_s, state.known_s
        if progress and seconds != told:
            told = seconds
            progress(*seconds)

    workers = min(workers or available_cores(), len(elements))
    state = run_local(job, elements, workers=workers, show=show)
    return [
        _result(element, finished.get(element), state.failures.get(element, []), job)
        for element in elements
    ]


def _result(
    element: str,
    line: dict[str, Any] | None,
    failures: Sequence[dict[str, Any]],
    job: JobConfig,
) -> FileResult:
    if failures or line is None:
        return FileResult(element, failures=tuple(failures))
    folder = f"{job.output_location}/{line['folder']}"
    by_branch: dict[str, dict[str, str]] = {}
    paths = {name: f"{folder}/{name}" for _, _, name in line["files"]}
    for branch, stem, name in line["files"]:
        by_branch.setdefault(branch, {})[stem or os.path.splitext(name)[0]] = f"{folder}/{name}"
    return FileResult(
        element,
        folder,
        by_branch.get("stems", {}),
        by_branch.get("plots", {}),
        next(iter(by_branch.get("scores", {}).values()), None),
        paths.get(LABELS_JSON),
        paths.get(job.features.file_name),
        line["skipped"],
    )


def split_job(
    inputs: Iterable[AnyPath],
    output: AnyPath | None,
    *,
    force: bool = False,
    replace: bool = False,
    root: str | None = None,
    separation: Mapping[str, Any] | None = None,
    stems: Mapping[str, Any] | None = None,
    plots: Mapping[str, Any] | None = None,
    scores: Mapping[str, Any] | None = None,
    labels: Mapping[str, Any] | None = None,
    features: Mapping[str, Any] | None = None,
    report: Mapping[str, Any] | None = None,
    changes: Iterable[str] = (),
    flags: Mapping[str, str] | None = None,
) -> JobConfig:
    """The job of files, folders and patterns on this machine.

    Parameters
    ----------
    output
        the folder of the results; None: none are written
    root
        folder that holds all inputs: recordings are called by their paths below it
    separation, stems, plots, scores, labels, features, report
        sections of the job
    changes
        `dotted.path=value` each
    flags
        what places of a job are called in messages

    Raises
    ------
    JobFileError
        something does not fit
    InputError
        an input lies where none can
    """
    changes = list(changes)
    storage = _storage_of(changes)
    try:
        events = [_event_input(expanded(_filled(os.fspath(each))), storage) for each in inputs]
    except ValueError as error:
        raise InputError(str(error)) from error
    data: dict[str, Any] = {}
    if output is not None:
        location = _filled(os.fspath(output))
        data["outputs"] = [
            {"type": "file", "location": location, "force": force, "replace": replace}
        ]
    if root is not None:
        data["inputs"] = [{"type": "file", "location": _filled(root)}]
    plain: dict[str, Any] = {
        "job_name": "separate",
        "pipeline_options": {"runner": "DirectRunner", "streaming": False},
        "job_config": {
            "events": {"inputs": events},
            "data": data,
        },
        "separation": dict(separation or {}),
        "stems": dict(stems or {}),
        "plots": dict(plots or {}),
        "scores": dict(scores or {}),
        "labels": dict(labels or {}),
        "features": dict(features or {}),
        "report": dict(report or {}),
    }
    for each in changes:
        change_value(plain, each)
    # What is written as a path of a job file is called so.
    names = {
        place: flag
        for place, flag in (flags or {}).items()
        if not any(each.startswith(place) for each in changes)
    }
    return parse_job(plain, source="", flags=names)


def _filled(path: str) -> str:
    """A path with the environment variables that it names, unless there is one of this name."""
    return path if os.path.lexists(path) else os.path.expandvars(path)


def _storage_of(changes: Iterable[str]) -> Storage:
    """What files are read through: there is no job before it is known which inputs are patterns."""
    plain: dict[str, Any] = {}
    for each in changes:
        if each.startswith(("storage.", "storage=")):
            change_value(plain, each)
    return parse_job({"job_name": "separate", **plain}, source="").file_storage


def _event_input(path: str, storage: Storage) -> dict[str, str]:
    # A name may hold brackets: what is there is meant first.
    if is_pattern(path, storage):
        kind = "glob"
    elif scheme_of(path):
        kind = "recording" if has_audio_extension(path) else "folder"
    else:
        kind = "folder" if os.path.isdir(path) else "recording"
    return {"type": kind, "location": path}
