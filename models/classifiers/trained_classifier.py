"""The files of a trained classifier: what it is of, and its weights."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ...audio.features.settings import FeatureSettings, feature_settings
from ...validation import problems_of
from ..documents import write_json, write_whole
from .errors import ClassifierError
from .settings import EncoderSettings

if TYPE_CHECKING:
    from .sequence_classifier import SequenceClassifier

CLASSIFIER_FILE = "classifier.json"
WEIGHTS_FILE = "classifier.safetensors"
MAXIMUM_BYTES = 2**22


class ClassifierDescription(BaseModel):
    """What a classifier takes and gives: the content of `classifier.json`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: int = 1
    labels: tuple[str, ...] = Field(min_length=2)
    # Whether an excerpt may have several labels: probabilities then are of each by itself.
    multi_label: bool
    # Of audio.features: a kind, and its parameters.
    features: dict[str, Any]
    signal: str = Field(description="mixture, or a stem")
    bins: int = Field(ge=1)
    # The median of those that it was trained on, seconds.
    excerpt_s: float = Field(gt=0)
    network: EncoderSettings

    @property
    def feature_settings(self) -> FeatureSettings:
        """What is computed of a signal; ValueError if it is none of the kinds."""
        return feature_settings(self.features)


def is_classifier(folder: Path) -> bool:
    """Whether a folder is of a trained classifier."""
    return (folder / CLASSIFIER_FILE).is_file()


def read_description(folder: Path) -> ClassifierDescription:
    """What the classifier of a folder is of.

    Raises
    ------
    ClassifierError
        its `classifier.json` is not there, or wrong
    """
    path = folder / CLASSIFIER_FILE
    try:
        if path.stat().st_size > MAXIMUM_BYTES:
            raise ClassifierError(f"{path}: is no description of a classifier")
        made = ClassifierDescription.model_validate(json.loads(path.read_text("utf-8")))
        made.feature_settings  # noqa: B018 (raises)
        return made
    except FileNotFoundError:
        raise ClassifierError(
            f"{folder}: holds no {CLASSIFIER_FILE}: `beamsplitter train-classifier` makes one"
        ) from None
    except OSError as error:
        raise ClassifierError(f"{path}: can't be read: {error.strerror}") from error
    except ValidationError as error:
        raise ClassifierError(f"{path}: {'; '.join(problems_of(error))}") from error
    except ValueError as error:
        raise ClassifierError(f"{path}: {error}") from error


def make_classifier(description: ClassifierDescription) -> "SequenceClassifier":
    """The network of a description, with random weights; it normalises by 0 and 1."""
    import torch

    from .sequence_classifier import SequenceClassifier

    bins = description.bins
    return SequenceClassifier(
        description.network, bins, len(description.labels), torch.zeros(bins), torch.ones(bins)
    )


def load_classifier(folder: Path) -> "SequenceClassifier":
    """The network of a folder with its weights, ready to be used.

    Raises
    ------
    ClassifierError
        its files are not there, or don't fit together
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    model = make_classifier(read_description(folder))
    path = folder / WEIGHTS_FILE
    try:
        model.load_state_dict(load_file(path))
    except FileNotFoundError:
        raise ClassifierError(f"{folder}: holds no {WEIGHTS_FILE}: it is not trained yet") from None
    except SafetensorError as error:
        raise ClassifierError(f"{path}: is not whole: {error}") from error
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise ClassifierError(
            f"{path}: is not of the network in {CLASSIFIER_FILE}: {reason}"
        ) from error
    return model.eval()


def save_classifier(
    folder: Path, model: "SequenceClassifier", description: ClassifierDescription
) -> None:
    """Write weights and description, each whole or not at all."""
    from safetensors.torch import save

    weights = {name: each.detach().cpu().contiguous() for name, each in model.state_dict().items()}
    write_whole(folder / WEIGHTS_FILE, save(weights))
    write_json(folder / CLASSIFIER_FILE, description.model_dump(mode="json"))
