"""Beamsplitter: splits recordings into stems and draws their spectrograms, on Apache Beam."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .audio.nn_filter import nn_filter
    from .models.separating import Stems, separate
    from .pipelines.separate_files import FileResult, separate_files

__version__ = "0.1.0"
__all__ = ["FileResult", "Stems", "nn_filter", "separate", "separate_files"]

_MODULES = {
    "nn_filter": ".audio.nn_filter",
    "Stems": ".models.separating",
    "separate": ".models.separating",
    "FileResult": ".pipelines.separate_files",
    "separate_files": ".pipelines.separate_files",
}


def __getattr__(name: str) -> Any:
    """What is asked for is imported then: some of it takes seconds."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name], __name__), name)


def __dir__() -> list[str]:
    """What there is, imported or not."""
    return [*globals(), *__all__]
