"""Figures of classifiers are scikit-learn's, and a baseline stands beside each."""

import io
import json
import warnings

import numpy as np
import pytest
from PIL import Image
from sklearn import metrics
from sklearn.dummy import DummyClassifier

from beamsplitter.models.classifiers.figures import (
    baseline_probabilities,
    figures_of,
    of_recordings,
)
from beamsplitter.models.classifiers.report import (
    SideResult,
    figure_rows,
    make_report,
    markdown_text,
    report_files,
)

LABELS = ("bird", "cat|dog", "$owl$")


def one_hot(places: np.ndarray, labels: int = 3) -> np.ndarray:
    return np.eye(labels)[places]


def drawn(count: int, seed: int, labels: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """The place of each true label, and probabilities that know of it."""
    chance = np.random.default_rng(seed)
    places = chance.choice(labels, count, p=[0.6, 0.3, 0.1])
    logits = chance.standard_normal((count, labels)) + one_hot(places)
    return places, np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


@pytest.mark.parametrize("seed", range(3))
def test_one_label_each(seed: int) -> None:
    places, probabilities = drawn(200, seed)
    found = probabilities.argmax(axis=1)
    figures = figures_of(one_hot(places), probabilities, multi_label=False)
    assert figures.count == 200
    assert figures.accuracy == pytest.approx(metrics.accuracy_score(places, found))
    assert figures.balanced_accuracy == pytest.approx(
        metrics.balanced_accuracy_score(places, found)
    )
    assert figures.auroc == pytest.approx(
        metrics.roc_auc_score(places, probabilities, multi_class="ovr", average="macro")
    )
    np.testing.assert_array_equal(figures.confusion, metrics.confusion_matrix(places, found))


@pytest.mark.parametrize("seed", range(3))
def test_several_labels(seed: int) -> None:
    chance = np.random.default_rng(seed)
    targets = (chance.random((100, 3)) < [0.5, 0.2, 0.7]).astype(float)
    probabilities = chance.random((100, 3)) * 0.7 + 0.3 * targets
    found = probabilities >= 0.5
    figures = figures_of(targets, probabilities, multi_label=True)
    assert figures.accuracy == pytest.approx(metrics.accuracy_score(targets, found))
    of_labels = [
        metrics.balanced_accuracy_score(targets[:, place], found[:, place]) for place in range(3)
    ]
    assert figures.balanced_accuracy == pytest.approx(np.mean(of_labels))
    assert figures.auroc == pytest.approx(metrics.roc_auc_score(targets, probabilities))
    for place, (tn, fp, fn, tp) in enumerate(figures.confusion):
        expected = metrics.confusion_matrix(targets[:, place], found[:, place])
        np.testing.assert_array_equal([[tn, fp], [fn, tp]], expected)


@pytest.mark.parametrize("multi_label", [False, True])
def test_the_baseline_is_that_of_scikit_learn(multi_label: bool) -> None:
    training, _ = drawn(50, 0)
    tested, _ = drawn(80, 1)
    dummy = DummyClassifier(strategy="prior").fit(np.zeros((50, 1)), training)
    probabilities = baseline_probabilities(one_hot(training), 80)
    np.testing.assert_allclose(probabilities, dummy.predict_proba(np.zeros((80, 1))))
    figures = figures_of(one_hot(tested), probabilities, multi_label=multi_label)
    assert figures.auroc == 0.5
    assert figures.balanced_accuracy == pytest.approx(0.5 if multi_label else 1 / 3)
    if not multi_label:
        assert figures.accuracy == pytest.approx(np.mean(tested == dummy.predict([[0]])[0]))


def test_labels_that_are_not_there_count_for_nothing() -> None:
    targets = one_hot(np.array([0, 0, 1, 1]))
    probabilities = np.array([[0.6, 0.3, 0.1], [0.2, 0.3, 0.5], [0.1, 0.8, 0.1], [0.2, 0.7, 0.1]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figures = figures_of(targets, probabilities, multi_label=False)
    assert figures.balanced_accuracy == 0.75
    assert (figures.labels[2].count, figures.labels[2].recall) == (0, None)
    assert figures.labels[2].auroc is None
    assert figures.auroc == pytest.approx(np.mean([each.auroc for each in figures.labels[:2]]))
    alone = figures_of(targets[:2], probabilities[:2], multi_label=False)
    assert alone.auroc is None


def test_labels_that_all_have_do_not_count_either() -> None:
    """Else what gives them always would be better than chance."""
    targets = np.array([[1, 1], [0, 1], [1, 1], [0, 1]], float)
    always = figures_of(targets, np.full((4, 2), 0.9), multi_label=True)
    assert always.balanced_accuracy == 0.5
    never = figures_of(targets, np.full((4, 2), 0.1), multi_label=True)
    assert never.balanced_accuracy == 0.5
    nothing_to_tell = figures_of(targets[::2], np.full((2, 2), 0.9), multi_label=True)
    assert nothing_to_tell.balanced_accuracy == 1


def test_recordings_are_the_mean_of_their_excerpts() -> None:
    targets = one_hot(np.array([0, 1, 0, 0]))
    probabilities = np.arange(12.0).reshape(4, 3)
    of_them, means = of_recordings(["a", "b", "a", "a"], targets, probabilities)
    np.testing.assert_array_equal(of_them, targets[:2])
    np.testing.assert_array_equal(means, [probabilities[[0, 2, 3]].mean(axis=0), probabilities[1]])


def side(count: int, seed: int, *, multi_label: bool) -> SideResult:
    places, probabilities = drawn(count, seed)
    targets = one_hot(places)
    if multi_label:
        targets[:, 0] = 1
    # Five excerpts of each recording, of one label.
    recordings = [f"{place}-{index // 5}" for index, place in enumerate(places)]
    return SideResult(recordings, targets, probabilities)


@pytest.mark.parametrize("multi_label", [False, True])
def test_a_report_has_a_baseline_beside_each_figure(multi_label: bool) -> None:
    results = {
        "validation": side(60, 1, multi_label=multi_label),
        "test": side(70, 2, multi_label=multi_label),
    }
    report = make_report(
        LABELS, side(50, 0, multi_label=multi_label), results, multi_label=multi_label
    )
    rows = [*figure_rows(report)]
    assert {row[:2] for row in rows} == {
        (name, unit) for name in results for unit in ("excerpts", "recordings")
    }
    for row in rows:
        if row[3] == "AUROC":
            assert row[5] == "0.500"
    files = dict(report_files(report))
    content = json.loads(files["report.json"])
    compared = content["sides"]["test"]["excerpts"]
    assert set(compared) == {"classifier", "baseline"}
    assert compared["classifier"]["count"] == 70
    text = files["report.md"].decode()
    assert text == markdown_text(report)
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert "cat\\|dog" in text
    assert len(tables) > 20
    pictures = [name for name in files if name.endswith(".png")]
    assert len(pictures) == 4
    for name in pictures:
        assert np.asarray(Image.open(io.BytesIO(files[name])).convert("L")).std() > 10


def test_a_side_without_excerpts_is_left_out() -> None:
    nothing = SideResult([], np.zeros((0, 3)), np.zeros((0, 3)))
    results = {"validation": side(60, 1, multi_label=False), "test": nothing}
    report = make_report(LABELS, side(50, 0, multi_label=False), results, multi_label=False)
    assert [*report.sides] == ["validation"]


def test_many_labels_make_no_huge_pictures() -> None:
    labels = [f"label {number}" for number in range(200)]
    result = SideResult([*map(str, range(200))], np.eye(200), np.full((200, 200), 1 / 200))
    report = make_report(labels, result, {"test": result}, multi_label=False)
    files = dict(report_files(report))
    assert set(files) == {"report.json", "report.md"}
    assert len(files["report.md"]) < 50_000
    confusion = json.loads(files["report.json"])["sides"]["test"]["excerpts"]["classifier"]
    assert np.sum(confusion["confusion"]) == 200
