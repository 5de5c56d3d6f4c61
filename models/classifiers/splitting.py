"""Which recordings a classifier is trained on, validated by and tested on.

Recordings of one group are on one side, so that no figure is one of what was heard in training.
"""

import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from .errors import ClassifierError
from .label_table import SPLITS, LabelledRecording, Split

Sides = dict[Split, list[LabelledRecording]]


def split_recordings(
    recordings: Sequence[LabelledRecording],
    *,
    validation_share: float,
    test_share: float,
    seed: int,
) -> Sides:
    """Put each recording on a side: that of its table, or one that is drawn by a seed.

    Drawn are whole groups, with about the same shares of labels on all sides, and all labels on
    each of them. Where a label has few groups, the sides are larger than asked for.

    Parameters
    ----------
    validation_share, test_share
        of the recordings

    Raises
    ------
    ClassifierError
        a label has too few groups; or the table puts a group on two sides, leaves one to train on
        or to validate by empty, or has a label that is not in training
    """
    if any(each.split for each in recordings):
        sides: Sides = {
            name: [each for each in recordings if each.split == name] for name in SPLITS
        }
        _require_whole(sides, recordings)
    else:
        _require_groups(recordings)
        rest, test = _drawn(recordings, test_share, seed)
        training, validation = _drawn(rest, validation_share / (1 - test_share), seed)
        sides = {"train": training, "validation": validation, "test": test}
    require_no_leak(sides)
    return sides


def require_no_leak(sides: Mapping[Split, Iterable[LabelledRecording]]) -> None:
    """Refuse sides that share a recording or a group.

    Raises
    ------
    ClassifierError
        two of them do
    """
    side_of: dict[str, Split] = {}
    for side, recordings in sides.items():
        for each in recordings:
            for name in (f"recording {each.recording}", each.kept_together):
                if side_of.setdefault(name, side) != side:
                    raise ClassifierError(
                        f"{name} is in {side_of[name]} and in {side}: figures would be of what was "
                        "heard in training: put all of a group on one side, in the column split"
                    )


def _require_whole(sides: Sides, recordings: Iterable[LabelledRecording]) -> None:
    for side in ("train", "validation"):
        if not sides[side]:
            raise ClassifierError(f"column split: nothing is in {side}: put recordings there")
    labels = {label for each in recordings for label in each.labels}
    if untaught := labels - _labels_of(sides["train"]):
        raise ClassifierError(
            f"column split: the label {min(untaught)} is not in train, and so can't be learned"
        )


def _require_groups(recordings: Iterable[LabelledRecording]) -> None:
    groups = _groups_of_labels(recordings)
    label = min(groups, key=lambda each: (len(groups[each]), each))
    if len(groups[label]) < len(SPLITS):
        raise ClassifierError(
            f"the label {label} has {len(groups[label])} of the {len(SPLITS)} groups of recordings "
            "that it takes to train, to validate and to test: add recordings, or put them on sides "
            "yourself, in the column split"
        )


def _drawn(
    recordings: Sequence[LabelledRecording], share: float, seed: int
) -> tuple[list[LabelledRecording], list[LabelledRecording]]:
    """What stays, and what is drawn: about a share, with all labels on both sides."""
    labels = _labels_of(recordings)
    fewest = min(map(len, _groups_of_labels(recordings).values()))
    for folds in range(max(2, min(round(1 / share), fewest)), 1, -1):
        for kept, drawn in _folds(recordings, folds, seed):
            if _labels_of(kept) == labels == _labels_of(drawn):
                return kept, drawn
    raise ClassifierError(
        "recordings with several labels, or groups, hang together so that no split has all labels "
        "on each side: put them on sides yourself, in the column split"
    )


def _folds(
    recordings: Sequence[LabelledRecording], folds: int, seed: int
) -> Iterator[tuple[list[LabelledRecording], list[LabelledRecording]]]:
    from sklearn.model_selection import StratifiedGroupKFold

    counts = Counter(label for each in recordings for label in each.labels)
    # Of several labels the rarest one: the others are spread well in any case.
    labels = [min(each.labels, key=lambda label: (counts[label], label)) for each in recordings]
    groups = [each.kept_together for each in recordings]
    with warnings.catch_warnings():
        # A label with fewer recordings than folds: whether each side has it is looked at here.
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
        if max(Counter(labels).values()) < folds:
            return
        for kept, drawn in splitter.split(np.zeros(len(labels)), labels, groups):
            yield [recordings[index] for index in kept], [recordings[index] for index in drawn]


def _groups_of_labels(recordings: Iterable[LabelledRecording]) -> dict[str, set[str]]:
    groups: dict[str, set[str]] = defaultdict(set)
    for each in recordings:
        for label in each.labels:
            groups[label].add(each.kept_together)
    return groups


def _labels_of(recordings: Iterable[LabelledRecording]) -> set[str]:
    return {label for each in recordings for label in each.labels}
