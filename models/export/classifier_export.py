"""From a trained classifier to a package that annotates recordings."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...audio.features.extraction import features_of
from ..classifiers.sequence_classifier import SequenceClassifier
from ..classifiers.torch_features import torch_features
from ..classifiers.trained_classifier import (
    ClassifierDescription,
    load_classifier,
    read_description,
)
from ..documents import write_json
from ..packages.metadata import FILE_NAME
from ..separators.base import ModelError
from ..separators.labeler import Labeler
from .classifier_model import ClassifierModel
from .exporting import Exported, put_there
from .older_torch import older_torch_complaints
from .package_folder import FORMAT_FILES, Format, require_free
from .package_tools import validate_metadata
from .package_words import LONG, SHORT, Words
from .scripting import save_torchscript, scripted

# Blocks of so many seconds at most, as jobs and Audacity take them, unless an excerpt is longer.
USUAL_BLOCK_S = 30.0
LONGEST_BLOCK_S = 600.0
# Of probabilities: levels of features agree to 1e-3 dB.
TOLERANCE = 1e-3


def export_classifier(
    source: Path,
    folder: Path,
    formats: Sequence[Format] | None = None,
    words: Words | None = None,
    *,
    licence: str | None = None,
    replace: bool = False,
) -> Exported:
    """Write the package of a trained classifier.

    Parameters
    ----------
    source
        folder of the classifier
    folder, formats, words, licence, replace
        as of `exporting.export_separator`; the format is TorchScript

    Raises
    ------
    ModelError, ClassifierError
        the classifier can't be loaded; its features can't be computed in torch; not all readers
        would accept its metadata; the package gives something else than the classifier; or the
        folder holds files that would be overwritten, or read in place of those of the package
    OSError
        it can't be written
    """
    done = Exported(folder)
    if formats and "torch-export" in formats:
        reason = f"{source}: a file of torch.export has no place for how sure labels are"
        if "torchscript" not in formats:
            raise ModelError(f"{reason}: export it as torchscript")
        done.left_out["torch-export"] = reason
    require_free(folder, ("torchscript",), replace=replace)
    description = read_description(source)
    classifier = load_classifier(source)
    model = _model_of(classifier, description, source)
    metadata = _metadata_of(model, description, words or Words())
    is_valid, message = validate_metadata(metadata)
    if not is_valid:
        raise ModelError(f"{source}: {FILE_NAME} would be wrong: {message}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as scratch:
        package = Path(scratch) / "package"
        package.mkdir()
        path = package / FORMAT_FILES["torchscript"]
        save_torchscript(scripted(model, str(source)), path)
        write_json(package / FILE_NAME, metadata)
        done.files["torchscript"] = path.name
        done.unreadable = older_torch_complaints(path)
        done.difference = _largest_difference(package, classifier, description, model)
        if not done.difference <= TOLERANCE:
            raise ModelError(
                f"{source}: its package gives other probabilities, by {done.difference:.1e}: "
                "nothing was written"
            )
        put_there(package, metadata, done, licence=licence)
    return done


def _model_of(
    classifier: SequenceClassifier, description: ClassifierDescription, source: Path
) -> ClassifierModel:
    features = torch_features(description.feature_settings)
    sample_rate = description.feature_settings.sample_rate
    assert sample_rate is not None
    if description.excerpt_s > LONGEST_BLOCK_S:
        raise ModelError(
            f"{source}: was trained on excerpts of {description.excerpt_s:g} s, and a package is "
            f"given {LONGEST_BLOCK_S:g} s at most: train it on shorter ones"
        )
    return ClassifierModel(
        classifier,
        features,
        excerpt_samples=max(1, round(description.excerpt_s * sample_rate)),
        sample_rate=sample_rate,
        multi_label=description.multi_label,
    )


def _metadata_of(
    model: ClassifierModel, description: ClassifierDescription, words: Words
) -> dict[str, Any]:
    labels = ", ".join(description.labels)
    excerpts = max(1, int(USUAL_BLOCK_S * model.sample_rate) // model.excerpt_samples)
    heard = "" if description.signal == "mixture" else f" of {description.signal}"
    return {
        "name": "Classifier",
        "author": "",
        "short_description": f"Tells {labels}"[:SHORT],
        "long_description": (
            f"Trained by beamsplitter: says of each {description.excerpt_s:g} s{heard} whether "
            f"they are {labels}."
        )[:LONG],
        "domain_tags": ["music"],
        "tags": ["classification"],
        **words.given,
        "effect_type": "waveform-to-labels",
        # It takes the mean of the channels, as its features do; else it would be given the sum.
        "multichannel": True,
        "labels": list(description.labels),
        "sample_rate": model.sample_rate,
        "beamsplitter": {
            "block_seconds": excerpts * model.excerpt_samples / model.sample_rate,
        },
    }


def _largest_difference(
    package: Path,
    classifier: SequenceClassifier,
    description: ClassifierDescription,
    model: ClassifierModel,
) -> float:
    """The largest of any probability between the package, as jobs run it, and the classifier.

    A label that is not given counts by how much its probability is above those that are.
    """
    labeler = Labeler(str(package), {})
    excerpt = model.excerpt_samples
    # More than a block of whole excerpts, two channels that differ, and levels that do.
    samples = (labeler.model.block_samples or 0) + excerpt
    noise = np.random.default_rng(0).standard_normal((2, samples))
    waveform = (0.1 * noise * np.geomspace(1e-3, 1, samples)).astype(np.float32)
    found = labeler.labels_of(waveform)
    differences = [0.0]
    for start in range(0, samples, excerpt):
        expected = _probabilities(waveform[:, start : start + excerpt], classifier, description)
        middle_s = (start + excerpt / 2) / model.sample_rate
        given = {
            label.text: label.confidence or 0.0
            for label in found
            if label.start_s < middle_s < label.end_s
        }
        differences += [abs(given[text] - expected[text]) for text in given]
        limit = model.threshold if model.multi_label else max(given.values(), default=-1.0)
        differences += [expected[text] - limit for text in expected.keys() - given.keys()]
    return max(differences)


def _probabilities(
    excerpt: np.ndarray, classifier: SequenceClassifier, description: ClassifierDescription
) -> dict[str, float]:
    settings = description.feature_settings
    assert settings.sample_rate is not None
    (features,) = features_of(excerpt, settings.sample_rate, settings)
    frames = torch.from_numpy(np.ascontiguousarray(features.T))[None]
    with torch.inference_mode():
        logits = classifier(frames, torch.tensor([frames.shape[1]]))[0]
        found = torch.sigmoid(logits) if description.multi_label else torch.softmax(logits, dim=0)
    return dict(zip(description.labels, found.tolist(), strict=True))
