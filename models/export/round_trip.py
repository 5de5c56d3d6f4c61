"""Whether a package gives what its separator gives."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ..separating import separate
from ..separators.base import ModelError, TorchSeparator
from ..separators.by_name import SeparatorName
from .separator_model import SeparatorModel

# As far apart as rounding takes them.
TOLERANCE = 1e-5


@dataclass(frozen=True)
class Separated:
    """A mixture float32 `(channels, samples)`, and its stems `(stems, channels, samples)`."""

    mixture: np.ndarray
    stems: np.ndarray


def separate_examples(
    name: SeparatorName, separator: TorchSeparator, channels: int
) -> list[Separated]:
    """What a separator makes, in the pipeline, of recordings of awkward lengths."""
    return [
        Separated(mixture, _separated(mixture, name.name, name, separator))
        for mixture in (_mixture(channels, samples) for samples in awkward_lengths(separator))
    ]


def awkward_lengths(separator: TorchSeparator) -> list[int]:
    """Samples: a prime below a block, one more than a block, a prime above two blocks.

    Where blocks are normalised, the pipeline does so by the whole recording, and a package, which
    knows no more, by the block: there they can agree on recordings of one block.
    """
    block = separator.block_samples
    if separator.normalizes:
        kept = block - 2 * separator.context_samples
        return [_prime_from(block // 2), int((1 - separator.overlap) * kept)]
    return [_prime_from(block // 2), block + 1, _prime_from(2 * block)]


def largest_difference(
    examples: Sequence[Separated], separator: TorchSeparator, package: Path
) -> float:
    """The largest difference of any sample, where the pipeline runs the package.

    Raises
    ------
    ModelError
        it fails, or differs by more than rounding does
    """
    differences = [0.0]
    for each in examples:
        found = _separated(each.mixture, str(package), SeparatorName(str(package)), separator)
        differences.append(_difference(found, each.stems))
        if not differences[-1] <= TOLERANCE:
            raise ModelError(
                f"{separator.name}: its package gives something else, by {differences[-1]:.1e} on "
                f"{each.mixture.shape[1]} samples: nothing was written"
            )
    return max(differences)


def require_same_rows(
    loaded: nn.Module, model: SeparatorModel, lengths: Sequence[int], name: str
) -> None:
    """Refuse a module that was read again and gives something else than what was written.

    Raises
    ------
    ModelError
        it does, on one of these lengths in samples
    """
    for samples in lengths:
        waveform = torch.from_numpy(_mixture(model.channels, samples))
        with torch.inference_mode():
            expected, found = model(waveform), loaded(waveform)
        if found.shape != expected.shape or not (found - expected).abs().max() <= TOLERANCE:
            raise ModelError(
                f"{name}: as it was written, it gives something else on {samples} samples"
            )


def _separated(
    mixture: np.ndarray, separator_name: str, name: SeparatorName, separator: TorchSeparator
) -> np.ndarray:
    stems = separate(
        mixture,
        sample_rate=separator.sample_rate,
        separator=separator_name,
        options=name.options,
        device="cpu",
    )
    return np.stack([*stems.values()][: len(separator.stems)])


def _mixture(channels: int, samples: int) -> np.ndarray:
    """Noise, and a tone over it."""
    noise = np.random.default_rng(samples).standard_normal((channels, samples))
    tone = np.sin(np.arange(samples) / 9)
    return (0.05 * noise + 0.2 * tone).astype(np.float32)


def _difference(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found - expected).max()) if found.shape == expected.shape else math.inf


def _prime_from(least: int) -> int:
    return next(
        number
        for number in itertools.count(max(2, least))
        if all(number % divisor for divisor in range(2, math.isqrt(number) + 1))
    )
