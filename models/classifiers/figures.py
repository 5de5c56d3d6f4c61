"""How good probabilities of labels are, beside those that have heard nothing."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# From which probability on an excerpt has a label, where it may have several.
THRESHOLD = 0.5


@dataclass(frozen=True)
class LabelFigures:
    """How well one label is found.

    Attributes
    ----------
    count
        how many have it
    recall
        the share of these that were given it; None if there are none
    auroc
        the area under the receiver operating characteristic, of this label against the others;
        None if all have it, or none
    """

    count: int
    recall: float | None
    auroc: float | None


@dataclass(frozen=True)
class Figures:
    """How good probabilities are.

    Attributes
    ----------
    count
        excerpts, or recordings
    accuracy
        share of those whose label, or all of whose labels, were found
    balanced_accuracy
        mean recall of the labels that are there; of several labels at once the mean of the recalls
        of having and of not having it, over labels that some have and some have not. What has heard
        nothing gets 1 / labels, or 0.5
    auroc
        mean over labels; what has heard nothing gets 0.5. None if it is defined for none
    confusion
        of one label each: `confusion[true][found]`, counts. Of several labels at once a row for
        each label: `[rightly not found, found wrongly, missed, found]`
    labels
        the figures of each
    """

    count: int
    accuracy: float
    balanced_accuracy: float
    auroc: float | None
    confusion: list[list[int]]
    labels: list[LabelFigures]


def figures_of(targets: np.ndarray, probabilities: np.ndarray, *, multi_label: bool) -> Figures:
    """How good probabilities are.

    Parameters
    ----------
    targets
        `(count, labels)`, 1 where one has a label and 0 where not
    probabilities
        float `(count, labels)`
    multi_label
        whether several labels may be right at once

    Raises
    ------
    ValueError
        there is nothing
    """
    from sklearn.metrics import confusion_matrix, multilabel_confusion_matrix

    if not len(targets):
        raise ValueError("there is nothing to be good at")
    has = targets.astype(bool)
    found = found_labels(probabilities, multi_label=multi_label)
    labels = [
        LabelFigures(
            int(has[:, place].sum()),
            _mean(found[has[:, place], place]),
            _auroc(has[:, place], probabilities[:, place]),
        )
        for place in range(targets.shape[1])
    ]
    confusion = (
        multilabel_confusion_matrix(has, found).reshape(-1, 4)
        if multi_label
        else confusion_matrix(
            has.argmax(axis=1), found.argmax(axis=1), labels=range(targets.shape[1])
        )
    )
    areas = [each.auroc for each in labels if each.auroc is not None]
    return Figures(
        count=len(targets),
        accuracy=float((has == found).all(axis=1).mean()),
        balanced_accuracy=balanced_accuracy(targets, probabilities, multi_label=multi_label),
        auroc=float(np.mean(areas)) if areas else None,
        confusion=confusion.tolist(),
        labels=labels,
    )


def balanced_accuracy(
    targets: np.ndarray, probabilities: np.ndarray, *, multi_label: bool
) -> float:
    """See `Figures`; arguments as of `figures_of`."""
    has = targets.astype(bool)
    found = found_labels(probabilities, multi_label=multi_label)
    if multi_label:
        told = [place for place, column in enumerate(has.T) if 0 < column.sum() < len(has)]
        # Where nothing can be told apart, what is found is all that there is to judge by.
        has, found = (
            np.concatenate([each, ~each], axis=1)
            for each in ((has[:, told], found[:, told]) if told else (has, found))
        )
    recalls = [_mean(found[column, place]) for place, column in enumerate(has.T)]
    return float(np.mean([each for each in recalls if each is not None]))


def found_labels(probabilities: np.ndarray, *, multi_label: bool) -> np.ndarray:
    """Which labels are given: bool `(count, labels)`."""
    if multi_label:
        return np.asarray(probabilities >= THRESHOLD)
    places = np.arange(probabilities.shape[1])
    return np.asarray(probabilities.argmax(axis=1)[:, np.newaxis] == places)


def baseline_probabilities(training_targets: np.ndarray, count: int) -> np.ndarray:
    """Those of a classifier that knows how frequent labels are in training, and nothing else.

    It gives the most frequent label, or each that more than half have: float `(count, labels)`.
    """
    return np.tile(training_targets.astype(float).mean(axis=0), (count, 1))


def of_recordings(
    recordings: Sequence[str], targets: np.ndarray, probabilities: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Targets and mean probabilities of recordings, of those of their excerpts.

    Parameters
    ----------
    recordings
        which one each excerpt is of
    targets, probabilities
        `(excerpts, labels)`

    Returns
    -------
    Both `(recordings, labels)`, in the order in which recordings come
    """
    places: dict[str, list[int]] = {}
    for place, recording in enumerate(recordings):
        places.setdefault(recording, []).append(place)
    return (
        np.stack([targets[each[0]] for each in places.values()]),
        np.stack([probabilities[each].mean(axis=0) for each in places.values()]),
    )


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None


def _auroc(has: np.ndarray, scores: np.ndarray) -> float | None:
    from sklearn.metrics import roc_auc_score

    if has.all() or not has.any():
        return None
    area = float(roc_auc_score(has, scores))
    return area if math.isfinite(area) else None
