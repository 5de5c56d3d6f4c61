"""The labels of recordings, from a CSV file with a row for each label of each recording."""

import csv
import hashlib
import io
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, get_args

from .errors import ClassifierError
from .excerpts import Excerpt

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
REQUIRED = ("element", "label")
OPTIONAL = ("group", "split")
MAXIMUM_BYTES = 2**28


@dataclass(frozen=True)
class LabelledRecording:
    """What a table says of a recording.

    Attributes
    ----------
    recording
        as `Excerpt.recording`
    labels
        at least one, each once
    group
        recordings of one group are never on two sides of a split; "": it is by itself
    split
        the side that the table puts it on, if it has a column `split`
    """

    recording: str
    labels: tuple[str, ...]
    group: str
    split: Split | None

    @property
    def kept_together(self) -> str:
        """What is on one side of a split as a whole: its group, or this recording alone."""
        return f"group {self.group}" if self.group else f"recording {self.recording}"


@dataclass(frozen=True)
class LabelTable:
    """The labels of recordings.

    Attributes
    ----------
    recordings
        in the order of the table
    classes
        all labels, sorted
    unlabelled
        recordings of which the table says nothing
    missing
        elements of the table of which there is no recording
    sha256
        of the file
    """

    recordings: tuple[LabelledRecording, ...]
    classes: tuple[str, ...]
    unlabelled: tuple[str, ...]
    missing: tuple[str, ...]
    sha256: str

    @property
    def is_multi_label(self) -> bool:
        """Whether a recording may have several labels: whether one has."""
        return any(len(each.labels) > 1 for each in self.recordings)


@dataclass(frozen=True)
class _Row:
    line: int
    element: str
    label: str
    group: str
    split: str


def read_label_table(
    path: Path, excerpts: Iterable[Excerpt], *, allow_missing: bool = False
) -> LabelTable:
    """Read a table and find the recordings that its rows are of.

    `element` is that of a recording, the folder of its results, or the name of its file, with or
    without extension, where only one recording has it.

    Parameters
    ----------
    path
        CSV in UTF-8, with the header `element,label` and, if wished, `group` and `split`
    excerpts
        of all recordings that there are
    allow_missing
        leave out rows of recordings that there are not

    Raises
    ------
    ClassifierError
        it can't be read, a row is wrong or contradicts another, or there are no two labels
    """
    content = _content(path)
    recordings = {each.recording: each.element for each in excerpts}
    find = _Finder(recordings)
    rows: dict[str, list[_Row]] = defaultdict(list)
    missing: dict[str, None] = {}
    for row in _rows(content, path):
        found = find(row.element)
        if len(found) > 1:
            raise _wrong(
                path,
                row.line,
                f"{row.element} may be {' or '.join(found[:2])}: write out the one that is meant",
            )
        if found:
            rows[found[0]].append(row)
        elif allow_missing:
            missing[row.element] = None
        else:
            example = f", such as {next(iter(recordings.values()))}" if recordings else ""
            raise _wrong(
                path,
                row.line,
                f"there are no features of {row.element}: elements are those of the feature set"
                f"{example}; --allow-missing leaves such rows out",
            )
    labelled = tuple(_recording(name, of_it, path) for name, of_it in rows.items())
    classes = tuple(sorted({label for each in labelled for label in each.labels}))
    if len(classes) < 2:
        known = f"only {classes[0]}" if classes else "none"
        raise ClassifierError(
            f"{path}: two different labels at least are needed, and there is {known}: label more "
            "recordings"
        )
    return LabelTable(
        recordings=labelled,
        classes=classes,
        unlabelled=tuple(each for each in recordings if each not in rows),
        missing=tuple(missing),
        sha256=hashlib.sha256(content.encode()).hexdigest(),
    )


def _content(path: Path) -> str:
    try:
        if path.stat().st_size > MAXIMUM_BYTES:
            raise ClassifierError(f"{path}: is larger than {MAXIMUM_BYTES} bytes: no such table")
        # The mark at the start is what spreadsheets write.
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ClassifierError(
            f"{path}: is no UTF-8 (byte {error.start}): save it as CSV in UTF-8"
        ) from error
    except OSError as error:
        raise ClassifierError(f"{path}: can't be read: {error.strerror}") from error


def _rows(content: str, path: Path) -> Iterator[_Row]:
    reader = csv.reader(io.StringIO(content, newline=""), strict=True)
    try:
        header = [each.strip() for each in next(reader, [])]
        _require_header(header, path)
        for values in reader:
            # Spreadsheets write commas alone for rows without values.
            if not "".join(values).strip():
                continue
            if len(values) != len(header):
                raise _wrong(
                    path,
                    reader.line_num,
                    f"has {len(values)} columns, and the header {len(header)}: a value that "
                    'holds a comma stands in quotes, "a,b"',
                )
            row = dict(zip(header, map(str.strip, values), strict=True))
            for name in (*REQUIRED, "split"):
                if name in row and not row[name]:
                    raise _wrong(path, reader.line_num, f"{name} is empty: fill it in")
            if row.get("split", SPLITS[0]) not in SPLITS:
                raise _wrong(
                    path,
                    reader.line_num,
                    f"split is one of {', '.join(SPLITS)}, not {row['split']}",
                )
            yield _Row(
                reader.line_num,
                row["element"],
                row["label"],
                row.get("group", ""),
                row.get("split", ""),
            )
    except csv.Error as error:
        raise _wrong(path, reader.line_num, f"is no CSV: {error}") from error


def _require_header(header: list[str], path: Path) -> None:
    columns = {*REQUIRED, *OPTIONAL}
    if not {*REQUIRED} <= {*header}:
        told = f", not {','.join(header)}" if header else ""
        raise _wrong(
            path,
            1,
            f"the header is element,label and, if wished, group and split, with commas{told}",
        )
    if unknown := [each for each in header if each not in columns]:
        # A misspelt `group` would let recordings leak from one side to the other.
        raise _wrong(
            path, 1, f"there is no column {unknown[0] or '(empty)'}: take it out; there are "
            f"{', '.join((*REQUIRED, *OPTIONAL))}",
        )  # fmt: skip
    if len({*header}) < len(header):
        raise _wrong(path, 1, "a column is there twice")


class _Finder:
    """Finds recordings by what a table calls them: first by the whole name, last by parts of it."""

    def __init__(self, recordings: Mapping[str, str]) -> None:
        elements, folders, files, stems = (defaultdict[str, list[str]](list) for _ in range(4))
        for recording, element in recordings.items():
            file = PurePosixPath(element)
            elements[element].append(recording)
            folders[recording].append(recording)
            files[file.name].append(recording)
            stems[file.stem].append(recording)
        self._ways = elements, folders, files, stems

    def __call__(self, name: str) -> list[str]:
        return next((way[name] for way in self._ways if name in way), [])


def _recording(name: str, rows: list[_Row], path: Path) -> LabelledRecording:
    first = rows[0]
    labels: list[str] = []
    for row in rows:
        if row.label in labels:
            raise _wrong(
                path, row.line, f"{row.element} has the label {row.label} already, see above"
            )
        for what in OPTIONAL:
            if getattr(row, what) != getattr(first, what):
                raise _wrong(
                    path,
                    row.line,
                    f"{row.element} has the {what} {getattr(row, what) or '(none)'}, and "
                    f"{getattr(first, what) or '(none)'} in line {first.line}",
                )
        labels.append(row.label)
    split = next((each for each in SPLITS if each == first.split), None)
    return LabelledRecording(name, tuple(labels), first.group, split)


def _wrong(path: Path, line: int, what: str) -> ClassifierError:
    return ClassifierError(f"{path}, line {line}: {what}")
