"""Tools for packages of one's own, under the names that they have in audacitorch."""

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..documents import write_json
from ..packages.metadata import FILE_NAME, problems
from ..separators.base import ModelError
from .scripting import save_torchscript

MODEL_FILE = "model.pt"
SCHEMA_FILE = Path(__file__).with_name("metadata-schema.json")
# The shortest and nearly the longest that audacitorch draws; primes; powers of two and their
# neighbours; whole seconds, and a sample more.
EXAMPLE_SAMPLES = (2048, 2049, 4093, 22050, 44100, 44101, 65535, 65536, 104729, 395999)


def get_example_inputs(multichannel: bool = False) -> list[Tensor]:
    """Noise to try a model with, the same each time.

    Parameters
    ----------
    multichannel
        whether some have two channels; the others have one

    Returns
    -------
    Ten float32 `(channels, samples)`, of 2,048 to 396,000 samples
    """
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(1 + (multichannel and index % 2), samples, generator=generator)
        for index, samples in enumerate(EXAMPLE_SAMPLES)
    ]


def test_run(model: nn.Module, multichannel: bool = False) -> None:
    """Run a model on all example inputs.

    Raises
    ------
    ModelError
        it fails on one, or one of its checks does
    """
    for example in get_example_inputs(multichannel):
        try:
            with torch.inference_mode():
                model(example)
        # It is anyone's code.
        except Exception as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
            raise ModelError(f"the model fails on {tuple(example.shape)}: {reason}") from error


# pytest takes any function of such a name for a test.
test_run.__test__ = False  # type: ignore[attr-defined]


def validate_metadata(metadata: Mapping[str, Any]) -> tuple[bool, str]:
    """Whether all readers accept a metadata document: the schema of Audacity, and its C++.

    Returns
    -------
    True and "success! :)", or False and what is wrong
    """
    wrong = [*_against_schema(metadata), *problems(dict(metadata))]
    return not wrong, "; ".join(dict.fromkeys(wrong)) or "success! :)"


def save_model(model: torch.jit.ScriptModule, metadata: Mapping[str, Any], root: Path) -> None:
    """Write a package: `model.pt` and `metadata.json`, each whole or not at all.

    Parameters
    ----------
    model
        by `torch.jit.script` or `torch.jit.trace`
    root
        the folder, made if it is not there

    Raises
    ------
    ModelError
        the metadata is not accepted by all readers, or the model is no TorchScript
    """
    is_valid, message = validate_metadata(metadata)
    if not is_valid:
        raise ModelError(f"{root}: {FILE_NAME}: {message}")
    if not isinstance(model, torch.jit.ScriptModule):
        raise ModelError(f"{root}: the model is no TorchScript: torch.jit.script makes it one")
    root = Path(root)
    root.mkdir(parents=True, exist_ok=True)
    save_torchscript(model, root / MODEL_FILE)
    write_json(root / FILE_NAME, dict(metadata))


def _against_schema(metadata: Mapping[str, Any]) -> list[str]:
    return [
        f"{'.'.join(map(str, each.absolute_path)) or 'all of it'}: {each.message}"
        for each in _validator().iter_errors(dict(metadata))
    ]


@functools.cache
def _validator() -> Any:
    from jsonschema import Draft7Validator

    return Draft7Validator(json.loads(SCHEMA_FILE.read_text("utf-8")))
