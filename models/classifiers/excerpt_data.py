"""Excerpts with their labels: batches of a training, and what frames are normalised by."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from .errors import ClassifierError
from .excerpts import Excerpt, ExcerptSource
from .label_table import LabelTable, Split
from .settings import ClassifierSettings
from .splitting import Sides


class Batch(NamedTuple):
    """Excerpts side by side, the shorter ones filled up with zeros.

    Attributes
    ----------
    frames
        float32 `(batch, frames, bins)`
    lengths
        int64 `(batch,)`: frames of each
    targets
        float32 `(batch, labels)`: 1 where it has a label
    """

    frames: Tensor
    lengths: Tensor
    targets: Tensor

    @classmethod
    def of(cls, excerpts: Sequence[tuple[Tensor, Tensor]]) -> "Batch":
        """Of frames and targets of each."""
        frames, targets = zip(*excerpts, strict=True)
        padded = torch.nn.utils.rnn.pad_sequence([*frames], batch_first=True)
        return cls(padded, torch.tensor([*map(len, frames)]), torch.stack(targets))


@dataclass(frozen=True)
class Side:
    """The excerpts on one side of a split.

    Attributes
    ----------
    places
        of each in the source
    recordings
        of each
    targets
        float32 `(excerpts, labels)`
    """

    places: list[int]
    recordings: list[str]
    targets: np.ndarray


def side_of(excerpts: Sequence[Excerpt], sides: Sides, name: Split, classes: Sequence[str]) -> Side:
    """All excerpts of the recordings on a side."""
    labels = {each.recording: each.labels for each in sides[name]}
    places = [place for place, each in enumerate(excerpts) if each.recording in labels]
    recordings = [excerpts[place].recording for place in places]
    targets = np.zeros((len(places), len(classes)), np.float32)
    number = {label: place for place, label in enumerate(classes)}
    for row, recording in zip(targets, recordings, strict=True):
        row[[number[label] for label in labels[recording]]] = 1
    return Side(places, recordings, targets)


class ExcerptDataset(Dataset[tuple[Tensor, Tensor]]):
    """Frames and targets of the excerpts of a side.

    Parameters
    ----------
    source
        of the frames
    side
        which excerpts
    bins
        that a frame has
    """

    def __init__(self, source: ExcerptSource, side: Side, bins: int) -> None:
        self._source = source
        self._side = side
        self._bins = bins

    def __len__(self) -> int:
        return len(self._side.places)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Float32 `(frames, bins)` and `(labels,)`; ClassifierError if they are no such frames."""
        frames = checked_frames(self._source, self._side.places[index])
        if frames.shape[1] != self._bins:
            raise ClassifierError(
                f"{_told(self._source, self._side.places[index])} has frames of {frames.shape[1]} "
                f"bins, and others of {self._bins}: take features of one number of channels"
            )
        return torch.from_numpy(frames), torch.from_numpy(self._side.targets[index])


def checked_frames(source: ExcerptSource, place: int) -> np.ndarray:
    """The frames of an excerpt, those of several channels side by side.

    Returns
    -------
    float32 `(frames, bins)`

    Raises
    ------
    ClassifierError
        there are none, or they are no finite real numbers
    """
    frames = source.frames(place)
    told = _told(source, place)
    if np.iscomplexobj(frames):
        raise ClassifierError(f"{told}: is complex: take features of real numbers")
    if frames.ndim < 2 or not frames.size:
        raise ClassifierError(f"{told}: has no frames: {frames.shape}")
    if not np.isfinite(frames).all():
        raise ClassifierError(f"{told}: holds what is no number: make its features anew")
    return np.ascontiguousarray(frames.reshape(len(frames), -1), np.float32)


def _told(source: ExcerptSource, place: int) -> str:
    excerpt = source.excerpts[place]
    return f"{source.name}: {excerpt.element} at {excerpt.start_s:g} s"


def mean_and_deviation(frames: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Those of each bin, over all frames; where a bin is always the same the deviation is 1.

    Parameters
    ----------
    frames
        float32 `(frames, bins)` each

    Returns
    -------
    Both float32 `(bins,)`
    """
    count, mean, squares = 0, np.zeros(1), np.zeros(1)
    for each in frames:
        block = each.astype(np.float64)
        # Sums of blocks put together as Chan has it, so that nothing cancels out.
        more, of_block = len(block), block.mean(axis=0)
        distance = of_block - mean
        squares = squares + ((block - of_block) ** 2).sum(axis=0)
        squares = squares + distance**2 * (count * more / (count + more))
        mean = mean + distance * (more / (count + more))
        count += more
    deviation = np.sqrt(squares / count)
    still = deviation <= 1e-7 * np.abs(mean)  # of float32 no more is left
    return mean.astype(np.float32), np.where(still, 1, deviation).astype(np.float32)


class EpochOrder(Sampler[int]):
    """The excerpts of an epoch in an order that seed and epoch decide on."""

    def __init__(self, count: int, seed: int, epoch: Callable[[], int]) -> None:
        self._count = count
        self._seed = seed
        self._epoch = epoch

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[int]:
        generator = np.random.default_rng((self._seed, self._epoch()))
        return iter(generator.permutation(self._count).tolist())


class ClassifierData(pl.LightningDataModule):
    """The excerpts of all sides.

    Parameters
    ----------
    source
        of the frames
    table
        their labels
    sides
        of the recordings
    settings
        of the training
    """

    def __init__(
        self,
        source: ExcerptSource,
        table: LabelTable,
        sides: Sides,
        settings: ClassifierSettings,
    ) -> None:
        super().__init__()
        self.source = source
        self.table = table
        self.recordings = sides
        self.sides: dict[Split, Side] = {
            name: side_of(source.excerpts, sides, name, table.classes) for name in sides
        }
        self.bins = checked_frames(source, self.sides["train"].places[0]).shape[1]
        self._settings = settings
        # How many epochs of the training are done; set by it.
        self.epoch: Callable[[], int] = lambda: 0

    def normalisation(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and deviation of the training's frames, float32 `(bins,)`: one pass over them."""
        dataset = self._dataset("train")
        return mean_and_deviation(dataset[index][0].numpy() for index in range(len(dataset)))

    def train_dataloader(self) -> "DataLoader[tuple[Tensor, Tensor]]":
        """The batches of a training epoch."""
        dataset = self._dataset("train")
        order = EpochOrder(len(dataset), self._settings.seed, lambda: self.epoch())
        return self._loader(dataset, order)

    def val_dataloader(self) -> "DataLoader[tuple[Tensor, Tensor]]":
        """The batches of a validation."""
        return self.batches_of("validation")

    def batches_of(self, side: Split) -> "DataLoader[tuple[Tensor, Tensor]]":
        """All excerpts of a side in their order."""
        return self._loader(self._dataset(side), None)

    def _dataset(self, side: Split) -> ExcerptDataset:
        return ExcerptDataset(self.source, self.sides[side], self.bins)

    def _loader(
        self, dataset: ExcerptDataset, order: EpochOrder | None
    ) -> "DataLoader[tuple[Tensor, Tensor]]":
        workers = self._settings.num_workers
        return DataLoader(
            dataset,
            batch_size=self._settings.batch_size,
            sampler=order,
            collate_fn=Batch.of,
            num_workers=workers,
            persistent_workers=workers > 0,
        )
