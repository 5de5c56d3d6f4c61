"""Tables of labels: what rows are of, and what is refused."""

from pathlib import Path

import pytest
from facts import assert_names

from beamsplitter.models.classifiers.errors import ClassifierError
from beamsplitter.models.classifiers.excerpts import Excerpt
from beamsplitter.models.classifiers.label_table import LabelTable, read_label_table

ELEMENTS = {
    "a/dog": "/music/a/dog.wav",
    "a/cat": "/music/a/cat.wav",
    "b/dog": "/music/b/dog.flac",
    "b/owl, 2": "/music/b/owl, 2.flac",
}
# Two of each, as recordings may have.
EXCERPTS = [
    Excerpt(folder, element, start_s, 1.0)
    for folder, element in ELEMENTS.items()
    for start_s in (0.0, 1.0)
]


def read(
    folder: Path, text: str, *, allow_missing: bool = False, encoding: str = "utf-8"
) -> LabelTable:
    path = folder / "labels.csv"
    path.write_bytes(text.encode(encoding))
    return read_label_table(path, EXCERPTS, allow_missing=allow_missing)


def labels_of(table: LabelTable) -> dict[str, tuple[str, ...]]:
    return {each.recording: each.labels for each in table.recordings}


@pytest.mark.parametrize(
    ("name", "recording"),
    [
        ("/music/b/dog.flac", "b/dog"),
        ("b/dog", "b/dog"),
        ("dog.flac", "b/dog"),
        ("cat", "a/cat"),
        ('"owl, 2"', "b/owl, 2"),
    ],
)
def test_recordings_are_found_by_element_folder_and_name(
    tmp_path: Path, name: str, recording: str
) -> None:
    table = read(tmp_path, f"element,label\n{name},x\n/music/a/dog.wav,y\n")
    assert labels_of(table) == {recording: ("x",), "a/dog": ("y",)}
    assert set(table.unlabelled) == {*ELEMENTS} - {recording, "a/dog"}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n"])
def test_what_spreadsheets_write_is_read(tmp_path: Path, encoding: str, end: str) -> None:
    lines = ["label , element", '"quoted ""x""",cat', "Füchse,a/dog"]
    table = read(tmp_path, end.join(lines), encoding=encoding)
    assert table.classes == ("Füchse", 'quoted "x"')
    assert not table.is_multi_label


def test_rows_without_values_are_none(tmp_path: Path) -> None:
    table = read(tmp_path, "element,label,group\n,,\ncat,x,\n \na/dog,y,\n , ,\n")
    assert labels_of(table) == {"a/cat": ("x",), "a/dog": ("y",)}


def test_several_rows_are_several_labels(tmp_path: Path) -> None:
    table = read(tmp_path, "element,label\ncat,x\ncat,y\na/dog,y\n")
    assert labels_of(table) == {"a/cat": ("x", "y"), "a/dog": ("y",)}
    assert table.is_multi_label


def test_groups_are_apart_from_recordings_of_their_name(tmp_path: Path) -> None:
    table = read(tmp_path, "element,label,group\ncat,x,b/dog\nb/dog,y,\na/dog,y,b/dog\n")
    groups = [each.kept_together for each in table.recordings]
    assert groups[0] == groups[2] != groups[1]


def test_missing_recordings_can_be_left_out(tmp_path: Path) -> None:
    table = read(tmp_path, "element,label\ncat,x\nemu,x\na/dog,y\n", allow_missing=True)
    assert table.missing == ("emu",)
    assert set(labels_of(table)) == {"a/cat", "a/dog"}


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        ("", ("line 1", "element,label")),
        ("id,viral\n1,yes\n", ("line 1", "element,label", "id,viral")),
        ("element;label\ncat;x\n", ("line 1", "commas")),
        ("element,label,gruop\ncat,x,y\n", ("line 1", "gruop", "group")),
        ("element,label,label\ncat,x,y\n", ("line 1", "twice")),
        ("element,label\ncat,x\nemu,y\n", ("line 3", "emu", "/music/a/dog.wav", "--allow-missing")),
        ("element,label\ncat,x\ndog,y\n", ("line 3", "a/dog or b/dog")),
        ("element,label\ncat,x\na/dog,\n", ("line 3", "label is empty")),
        ("element,label\ncat,x\n,y\n", ("line 3", "element is empty")),
        ("element,label\ncat,x\nowl, 2,y\n", ("line 3", "3 columns", "quotes")),
        ("element,label\ncat,x\n\n/music/a/cat.wav,x\n", ("line 4", "x already")),
        ("element,label,group\ncat,x,g\ncat,y,h\n", ("line 3", "group h", "g in line 2")),
        ("element,label,split\ncat,x,train\ncat,y,test\n", ("line 3", "split test", "line 2")),
        ("element,label,split\ncat,x,val\n", ("line 2", "train, validation, test", "val")),
        ("element,label,split\ncat,x,\n", ("line 2", "split is empty")),
        ('element,label\ncat,"x\n', ("line 2", "CSV")),
        ("element,label\ncat,x\nb/dog,x\n", ("two different labels", "only x")),
        ("element,label\n", ("two different labels", "none")),
    ],
)  # fmt: skip
def test_mistakes_are_told(tmp_path: Path, text: str, facts: tuple[str, ...]) -> None:
    with pytest.raises(ClassifierError) as told:
        read(tmp_path, text)
    assert_names(str(told.value), str(tmp_path / "labels.csv"), *facts)


def test_what_is_no_table_is_told(tmp_path: Path) -> None:
    with pytest.raises(ClassifierError, match="no UTF-8"):
        read(tmp_path, "element,label\ncat,x\n", encoding="utf-16")
    with pytest.raises(ClassifierError, match="can't be read"):
        read_label_table(tmp_path / "gone.csv", EXCERPTS)
