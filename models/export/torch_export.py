"""Modules by torch.export: for this program and others, not for Audacity."""

import contextlib
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

from ..packages.exported import load_exported
from ..separators.base import ModelError
from .round_trip import require_same_rows
from .separator_model import SeparatorModel

OLDEST_TORCH = "2.9"


def save_exported(model: SeparatorModel, samples: int, path: Path, name: str) -> int | None:
    """Write a module as the reader of packages can read it, for any length if that can be.

    Recurrent layers fix it, as torch.export writes each of their steps, and so does code that looks
    at the length.

    Parameters
    ----------
    samples
        that it is fixed to if it has to be
    name
        of the separator in messages

    Returns
    -------
    The samples that it is fixed to, if it is

    Raises
    ------
    ModelError
        torch can't export it, or is older than 2.9, or what it wrote is something else
    """
    if torch.__version__ < OLDEST_TORCH:
        raise ModelError(
            f"{name}: torch {torch.__version__} writes files of torch.export in an older format, "
            f"which is not read: install torch {OLDEST_TORCH} or newer"
        )
    # Torch fails in many ways on a length that it can't leave open, and so does what it made of it.
    if not is_recurrent(model):
        with contextlib.suppress(Exception):
            _save(model, samples, path, name, is_dynamic=True)
            return None
    try:
        _save(model, samples, path, name, is_dynamic=False)
    except ModelError:
        raise
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"{name}: torch.export can't export it: {reason}") from error
    return samples


def is_recurrent(model: nn.Module) -> bool:
    """Whether it has recurrent layers."""
    return any(isinstance(module, nn.RNNBase) for module in model.modules())


def _save(model: SeparatorModel, samples: int, path: Path, name: str, *, is_dynamic: bool) -> None:
    length = ({1: torch.export.Dim.DYNAMIC},) if is_dynamic else None
    example = torch.zeros(model.channels, samples)
    with _quiet(), torch.no_grad():
        program = torch.export.export(model, (example,), dynamic_shapes=length)
        torch.export.save(program, path)
    odd = (samples // 3, samples - 1, samples + 1, 2 * samples) if is_dynamic else ()
    require_same_rows(load_exported(path, name), model, (samples, *odd), name)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """What torch tells of lengths that it can't leave open is told by the caller."""
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
