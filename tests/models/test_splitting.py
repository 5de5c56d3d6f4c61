"""Sides of a split: no leak, all labels on each, the same by the same seed."""

from collections import Counter
from typing import Any

import pytest
from facts import assert_names
from hypothesis import given, settings
from hypothesis import strategies as st

from beamsplitter.models.classifiers.errors import ClassifierError
from beamsplitter.models.classifiers.label_table import SPLITS, LabelledRecording, Split
from beamsplitter.models.classifiers.splitting import Sides, require_no_leak, split_recordings


def made(
    number: int, *labels: str, group: object = None, split: Split | None = None
) -> LabelledRecording:
    return LabelledRecording(
        str(number), labels, f"group {number if group is None else group}", split
    )


def split(recordings: list[LabelledRecording], **changes: Any) -> Sides:
    values = {"validation_share": 0.2, "test_share": 0.2, "seed": 0, **changes}
    return split_recordings(recordings, **values)


def labels_of(recordings: list[LabelledRecording]) -> set[str]:
    return {label for each in recordings for label in each.labels}


@settings(deadline=None, max_examples=50)
@given(
    groups=st.dictionaries(
        st.sampled_from("abc"), st.lists(st.integers(1, 4), min_size=3, max_size=9), min_size=2
    ),
    seed=st.integers(0, 5),
)
def test_groups_are_on_one_side_and_labels_on_all(groups: dict[str, list[int]], seed: int) -> None:
    recordings = [
        made(1000 * place + 100 * number + index, label, group=f"{label}{number}")
        for place, (label, sizes) in enumerate(groups.items())
        for number, size in enumerate(sizes)
        for index in range(size)
    ]
    sides = split(recordings, seed=seed)
    assert Counter(each for side in sides.values() for each in side) == Counter(recordings)
    of_groups = [{each.kept_together for each in side} for side in sides.values()]
    assert sum(map(len, of_groups)) == len(set.union(*of_groups))
    for side in sides.values():
        assert labels_of(side) == {*groups}
    assert split(recordings, seed=seed) == sides


def test_shares_are_about_those_asked_for() -> None:
    recordings = [made(index, "ab"[index % 3 == 0]) for index in range(300)]
    sides = split(recordings, validation_share=0.1, test_share=0.25)
    assert {name: len(side) for name, side in sides.items()} == {
        "train": pytest.approx(195, abs=5),
        "validation": pytest.approx(30, abs=5),
        "test": pytest.approx(75, abs=5),
    }
    for side in sides.values():
        assert Counter(each.labels for each in side)[("b",)] / len(side) == pytest.approx(
            1 / 3, abs=0.05
        )


def test_the_seed_decides() -> None:
    recordings = [made(index, "ab"[index % 2]) for index in range(40)]
    drawn = {tuple(split(recordings, seed=seed)["test"]) for seed in range(5)}
    assert len(drawn) > 1


def test_several_labels() -> None:
    labels = [("a",), ("b",), ("a", "b"), ("a", "rare"), ("b",)]
    recordings = [made(index, *labels[index % 5]) for index in range(40)]
    for side in split(recordings).values():
        assert labels_of(side) == {"a", "b", "rare"}


def test_the_table_s_own_split_wins() -> None:
    recordings = [made(index, "ab"[index % 2], split=SPLITS[index // 2 % 3]) for index in range(12)]
    for seed in range(3):
        for name, side in split(recordings, seed=seed).items():
            assert {each.split for each in side} == {name}


@pytest.mark.parametrize(
    ("recordings", "facts"),
    [
        (
            [made(0, "a"), made(1, "a"), made(2, "a"), made(3, "b"), made(4, "b")],
            ("label b", "2 of the 3 groups", "column split"),
        ),
        (
            [made(0, "a", group="x", split="train"), made(1, "b", group="x", split="validation")],
            ("label b", "not in train"),
        ),
        (
            [
                made(0, "a", group="x", split="train"),
                made(1, "b", split="train"),
                made(2, "a", group="x", split="test"),
                made(3, "b", split="validation"),
            ],
            ("group x", "train and in test"),
        ),
        ([made(0, "a", split="train"), made(1, "b", split="test")], ("validation",)),
        (
            # All that have both stand together in two groups.
            [made(index, "a", "b", group=index % 2) for index in range(4)]
            + [made(10 + index, "a", group=index % 2) for index in range(4)]
            + [made(20, "b", group=7), made(21, "a", group=8), made(22, "c", group=0)]
            + [made(23, "c", group=1), made(24, "c", group=8)],
            ("column split",),
        ),
    ],
)
def test_what_can_t_be_split_is_told(
    recordings: list[LabelledRecording], facts: tuple[str, ...]
) -> None:
    with pytest.raises(ClassifierError) as told:
        split(recordings)
    assert_names(str(told.value), *facts)


def test_a_leak_is_refused() -> None:
    same = made(0, "a")
    with pytest.raises(ClassifierError, match=r"recording 0 is in train and in test"):
        require_no_leak({"train": [same], "validation": [], "test": [same]})
    others = [made(index, "a", group="g") for index in (1, 2)]
    with pytest.raises(ClassifierError, match=r"group g is in train and in validation"):
        require_no_leak({"train": others[:1], "validation": others[1:], "test": []})
