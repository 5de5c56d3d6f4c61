"""The files of a separator that was trained here: a model package with weights of our own networks.

Beside `metadata.json` there are `model.json`, which says what network it is, and
`model.safetensors`, its weights.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..documents import read_document, write_json, write_whole
from ..networks.settings import NetworkSettings, network_settings
from ..separators.base import ModelError
from .metadata import FILE_NAME

if TYPE_CHECKING:
    from ..networks.mask_model import MaskModel

NETWORK_FILE = "model.json"
WEIGHTS_FILE = "model.safetensors"


def read_network(folder: Path, name: str) -> NetworkSettings:
    """What network a folder is of.

    Parameters
    ----------
    name
        of the folder in messages

    Raises
    ------
    ModelError
        its `model.json` is not there, or wrong
    """
    path = folder / NETWORK_FILE
    if not path.exists():
        raise ModelError(
            f"{name}: holds no {NETWORK_FILE}: `beamsplitter config MODEL --save FOLDER` makes one"
        )
    values = read_document(path, f"{name}: {NETWORK_FILE}")
    try:
        return network_settings(values if isinstance(values, dict) else {})
    except ValueError as error:
        raise ModelError(f"{name}: {NETWORK_FILE}: {error}") from error


def load_trained(folder: Path, name: str) -> "MaskModel":
    """The network of a folder with its weights, ready to separate.

    Raises
    ------
    ModelError
        its files are not there, or don't fit together
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from ..networks.by_settings import make_model

    model = make_model(read_network(folder, name))
    try:
        model.load_state_dict(load_file(folder / WEIGHTS_FILE))
    except SafetensorError as error:
        raise ModelError(f"{name}: {WEIGHTS_FILE} is not whole: {error}") from error
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise ModelError(
            f"{name}: {WEIGHTS_FILE} is not of the network in {NETWORK_FILE}: {reason}"
        ) from error
    return model.eval()


def is_safetensors(path: Path) -> bool:
    """Whether a file of weights is whole, by its header and its length."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt"):
            return True
    except SafetensorError:
        return False


def save_trained(folder: Path, model: "MaskModel") -> None:
    """Write the weights of a network, and the metadata of its package, each whole or not at all.

    What a metadata document that is there says in words is kept.
    """
    from safetensors.torch import save

    weights = {
        name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()
    }
    write_whole(folder / WEIGHTS_FILE, save(weights))
    path = folder / FILE_NAME
    words = json.loads(path.read_text("utf-8")) if path.exists() else {}
    write_json(path, {**_words_of(model.settings), **words, **_facts_of(model.settings)})


def _words_of(settings: NetworkSettings) -> dict[str, Any]:
    targets = ", ".join(settings.targets)
    return {
        "name": settings.model_type,
        "author": "",
        "short_description": f"Takes {targets} out of a mixture"[:60],
        "long_description": f"{settings.model_type} ({settings.about}), trained by beamsplitter "
        f"for {targets}."[:280],
        "domain_tags": ["music"],
        "tags": ["separation"],
    }


def _facts_of(settings: NetworkSettings) -> dict[str, Any]:
    return {
        "effect_type": "waveform-to-waveform",
        "multichannel": settings.num_channels > 1,
        "labels": list(settings.targets),
        "sample_rate": settings.sample_rate,
    }
