"""Beamsplitter: splits recordings into stems and draws their spectrograms, on Apache Beam."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from . import transforms as transforms
    from .audio.nn_filter import nn_filter as nn_filter
    from .errors import BeamsplitterError as BeamsplitterError
    from .models.separating import Stems as Stems
    from .models.separating import separate as separate
    from .pipelines.separate_files import FileResult as FileResult
    from .pipelines.separate_files import separate_files as separate_files

__version__ = "0.1.0"

# What is asked for is imported then: some of it takes seconds.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["transforms"],
    submod_attrs={
        "audio.nn_filter": ["nn_filter"],
        "errors": ["BeamsplitterError"],
        "models.separating": ["Stems", "separate"],
        "pipelines.separate_files": ["FileResult", "separate_files"],
    },
)
