"""Packages of classifiers give what the classifiers give, of what audio.features gives."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from facts import assert_names
from model_packages import Loudness, write_package
from toy_classifiers import RATE, TOY_FEATURES

from beamsplitter.audio.features.extraction import features_of
from beamsplitter.audio.features.settings import FeatureSettings, LogMelSettings, feature_settings
from beamsplitter.errors import BeamsplitterError
from beamsplitter.models.classifiers.settings import EncoderSettings
from beamsplitter.models.classifiers.trained_classifier import (
    ClassifierDescription,
    load_classifier,
    make_classifier,
    save_classifier,
)
from beamsplitter.models.export.classifier_export import TOLERANCE, export_classifier
from beamsplitter.models.packages.torchscript import load_torchscript
from beamsplitter.models.separators.base import Label, ModelError
from beamsplitter.models.separators.labeler import Labeler
from beamsplitter.models.separators.labelling import label_part
from beamsplitter.models.separators.model_package import describe

LABELS = ("bird", "cat", "dog")
EXCERPT_S = 0.7


def write_classifier(
    folder: Path,
    *,
    features: FeatureSettings = TOY_FEATURES,
    multi_label: bool = False,
    excerpt_s: float = EXCERPT_S,
    **network: Any,
) -> Path:
    """With random weights, which tell excerpts apart."""
    folder.mkdir(parents=True)
    description = ClassifierDescription(
        labels=LABELS,
        multi_label=multi_label,
        features=features.model_dump(mode="json"),
        signal="mixture",
        bins=6,
        excerpt_s=excerpt_s,
        network=EncoderSettings(hidden_size=8, **network),
    )
    torch.manual_seed(1)
    model = make_classifier(description)
    model.mean.fill_(-40)
    model.deviation.fill_(10)
    for name, parameter in model.named_parameters():
        if name.startswith("head"):
            torch.nn.init.normal_(parameter, std=2)
    save_classifier(folder, model, description)
    return folder


def song(samples: int, seed: int = 0, channels: int = 2) -> np.ndarray:
    """Noise whose level and colour waver."""
    chance = np.random.default_rng(seed)
    noise = chance.standard_normal((channels, samples))
    time_s = np.arange(samples) / RATE
    made = 10 ** np.sin(5 * time_s) * 0.02 * noise + 0.05 * np.sin(600 * time_s * (1 + time_s))
    return made.astype(np.float32)


def expected_probabilities(folder: Path, signal: np.ndarray, *, multi_label: bool) -> np.ndarray:
    """Of the excerpts of a signal, by NumPy's features and the classifier: `(excerpts, labels)`."""
    model, samples = load_classifier(folder), round(EXCERPT_S * RATE)
    rows = []
    for start in range(0, signal.shape[1], samples):
        (features,) = features_of(signal[:, start : start + samples], RATE, TOY_FEATURES)
        frames = torch.from_numpy(features.T.copy())[None]
        with torch.inference_mode():
            logits = model(frames, torch.tensor([frames.shape[1]]))[0]
        rows.append(torch.sigmoid(logits) if multi_label else torch.softmax(logits, dim=0))
    return torch.stack(rows).numpy()


@pytest.mark.parametrize(
    "network",
    [
        {"encoder": "lstm", "bidirectional": True},
        {"encoder": "gru", "pooling": "last"},
        {"encoder": "cnn", "pooling": "attention"},
        {"encoder": "transformer"},
    ],
    ids=lambda network: network["encoder"],
)
@pytest.mark.parametrize("multi_label", [False, True])
def test_a_package_is_the_classifier(
    tmp_path: Path, network: dict[str, Any], multi_label: bool
) -> None:
    folder = write_classifier(tmp_path / "net", multi_label=multi_label, **network)
    done = export_classifier(folder, tmp_path / "package")
    assert done.files == {"torchscript": "model.pt"}
    assert done.difference < TOLERANCE
    assert done.unreadable == []
    package = str(tmp_path / "package")
    assert (describe(package, {}).effect, describe(package, {}).sample_rates) == ("labels", (RATE,))
    # Two blocks, and a part of one that ends within an excerpt.
    signal = song(round(70.3 * RATE))
    found = Labeler(package, {}).labels_of(signal)
    expected = expected_probabilities(folder, signal, multi_label=multi_label)
    # The last excerpt is filled up with zeros.
    whole = len(expected) - 1
    by_excerpt: dict[int, dict[str, Label]] = {}
    for label in found:
        by_excerpt.setdefault(round(label.start_s / EXCERPT_S), {})[label.text] = label
    seen = set()
    for number, row in enumerate(expected[:whole]):
        given = by_excerpt.get(number, {})
        if multi_label:
            wanted = {text for text, p in zip(LABELS, row, strict=True) if p >= 0.5}
        else:
            wanted = {LABELS[int(row.argmax())]}
        assert {*given} == wanted, number
        seen |= wanted
        for text, label in given.items():
            assert label.start_s == pytest.approx(number * EXCERPT_S, abs=1e-5)
            assert label.end_s == pytest.approx((number + 1) * EXCERPT_S, abs=1e-5)
            assert label.confidence == pytest.approx(row[LABELS.index(text)], abs=TOLERANCE)
    assert len(seen) > 1
    assert max(label.end_s for label in found) <= signal.shape[1] / RATE + 1e-6


def test_audacity_is_given_the_same_labels_and_can_read_them(tmp_path: Path) -> None:
    """It calls forward, on blocks of any length."""
    package = tmp_path / "package"
    done = export_classifier(write_classifier(tmp_path / "net"), package)
    assert done.unreadable == []
    module = load_torchscript(package / "model.pt", "package")
    for samples in (3, 2048, round(EXCERPT_S * RATE) * 2 + 1):
        waveform = torch.from_numpy(song(samples))
        with torch.inference_mode():
            labels, times = module(waveform)
            *same, confidences = module.labels_with_confidences(waveform)
        assert torch.equal(labels, same[0])
        assert torch.equal(times, same[1])
        assert float(times[-1, 1]) == pytest.approx(samples / RATE)
        assert confidences.shape == labels.shape


def test_the_mean_of_channels_is_heard(tmp_path: Path) -> None:
    """As in features: the sum, which Audacity has for models of one channel, is 6 dB louder."""
    package = tmp_path / "package"
    export_classifier(write_classifier(tmp_path / "net"), package)
    labeler = Labeler(str(package), {})
    mono = song(5 * RATE, channels=1)
    twice = labeler.labels_of(np.concatenate([mono, mono]))
    once = labeler.labels_of(mono)
    assert [each.text for each in once] == [each.text for each in twice]
    np.testing.assert_allclose(
        [each.confidence for each in once], [each.confidence for each in twice], atol=1e-5
    )


def test_parts_have_labels_with_their_confidences(tmp_path: Path) -> None:
    package = tmp_path / "package"
    export_classifier(write_classifier(tmp_path / "net"), package)
    labeler = Labeler(str(package), {"block_seconds": EXCERPT_S})
    signal = song(6 * RATE)
    total = signal.shape[1]

    def part(start: int, stop: int) -> list[Label]:
        def read(first: int, last: int) -> np.ndarray:
            return signal[:, first:last]

        model, run = labeler.model, labeler.run
        return label_part(read, RATE, model, run, total_samples=total, core=(start, stop))

    whole = part(0, total)
    assert part(0, 3 * RATE) + part(3 * RATE, total) == whole
    assert all(each.confidence is not None and each.confidence > 1 / 3 for each in whole)


def test_a_package_tells_what_it_is(tmp_path: Path) -> None:
    package = tmp_path / "package"
    export_classifier(write_classifier(tmp_path / "net"), package, licence="mit")
    metadata = json.loads((package / "metadata.json").read_text())
    assert metadata["labels"] == [*LABELS]
    assert metadata["effect_type"] == "waveform-to-labels"
    block_s = metadata["beamsplitter"]["block_seconds"]
    assert block_s <= 30
    assert block_s / EXCERPT_S == pytest.approx(round(block_s / EXCERPT_S))
    card = (package / "README.md").read_text()
    assert_names(card, "audio-classification", "bird, cat, dog", "license: mit", "- audacity")


@pytest.mark.parametrize(
    ("changes", "fact"),
    [
        ({"features": feature_settings({"kind": "chroma", "sample_rate": RATE})}, "kind chroma"),
        ({"features": LogMelSettings(n_mels=6)}, "sample_rate"),
        ({"excerpt_s": 700.0}, "700 s"),
    ],
)
def test_what_can_t_be_a_package_is_told(
    tmp_path: Path, changes: dict[str, Any], fact: str
) -> None:
    folder = write_classifier(tmp_path / "net", **changes)
    with pytest.raises(BeamsplitterError, match=fact):
        export_classifier(folder, tmp_path / "package")
    assert not (tmp_path / "package").exists()


def test_formats_and_folders(tmp_path: Path) -> None:
    folder, package = write_classifier(tmp_path / "net"), tmp_path / "package"
    with pytest.raises(ModelError, match=r"torch\.export has no place"):
        export_classifier(folder, package, ["torch-export"])
    done = export_classifier(folder, package, ["torchscript", "torch-export"])
    assert "torch-export" in done.left_out
    with pytest.raises(ModelError, match="--replace"):
        export_classifier(folder, package)
    export_classifier(folder, package, replace=True)


# What other models tell of how sure they are ---------------------------------------------------


class Confident(torch.nn.Module):
    """Labels with any confidences."""

    def __init__(self, confidences: list[float]) -> None:
        super().__init__()
        self.register_buffer("confidences", torch.tensor(confidences))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        labels, times, _ = self.labels_with_confidences(x)
        return labels, times

    @torch.jit.export
    def labels_with_confidences(
        self, x: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return torch.tensor([1, 0]), torch.tensor([[0.0, 0.1], [0.1, 0.2]]), self.confidences


def labels_of(folder: Path, model: torch.nn.Module) -> list[Label]:
    package = write_package(folder, Loudness(), labels=["a", "b"], effect_type="waveform-to-labels")
    torch.jit.script(model).save(str(folder / "model.pt"))
    return Labeler(package, {}).labels_of(np.zeros((1, 4000), np.float32))


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_confidences_are_handed_on(tmp_path: Path) -> None:
    found = labels_of(tmp_path, Confident([0.25, 1.0]))
    assert [(each.text, each.confidence) for each in found] == [("b", 0.25), ("a", 1.0)]


@pytest.mark.filterwarnings("ignore:.*torch.jit")
@pytest.mark.parametrize("confidences", [[0.5], [0.5, 1.5], [-0.1, 0.5], [0.5, float("nan")]])
def test_impossible_confidences_are_refused(tmp_path: Path, confidences: list[float]) -> None:
    with pytest.raises(ModelError, match="confidences that are no 2 numbers from 0 to 1"):
        labels_of(tmp_path, Confident(confidences))


class Reads(Confident):
    """Would read a file, in the method that is not forward."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.tensor([1, 0]), torch.tensor([[0.0, 0.1], [0.1, 0.2]])

    @torch.jit.export
    def labels_with_confidences(
        self, x: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        read = torch.from_file("/etc/hostname", size=1, dtype=torch.uint8)
        return torch.tensor([1, 0]), torch.tensor([[0.0, 0.1], [0.1, 0.2]]), read


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_the_other_method_may_not_use_files_either(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="uses aten::from_file"):
        labels_of(tmp_path, Reads([0.5, 0.5]))
