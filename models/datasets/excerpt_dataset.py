"""Excerpts for PyTorch's `DataLoader`."""

import numpy as np
from torch.utils.data import Dataset

from .excerpts import Excerpt
from .sources import StemSource


class ExcerptDataset(Dataset[np.ndarray]):
    """The excerpts of a source, asked for by what a sampler gives.

    `DataLoader(ExcerptDataset(source), batch_sampler=[*sampler.batches(epoch)])` gives tensors
    float32 `(batch, targets + 1, channels, samples)`.
    """

    def __init__(self, source: StemSource) -> None:
        self.source = source

    def __getitem__(self, excerpt: Excerpt) -> np.ndarray:
        """Samples of an excerpt: float32 `(targets + 1, channels, samples)`."""
        return self.source.read(excerpt)
