"""The excerpts of a training, batch by batch."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
from torch.utils.data import DataLoader

from ..datasets.excerpt_dataset import ExcerptDataset
from ..datasets.excerpts import Batch, Excerpt, ExcerptGrid, ExcerptSampler, TrackLength
from ..datasets.sources import StemSource, open_source
from ..datasets.stem_folders import DatasetError
from ..networks.settings import NetworkSettings
from .separator_training import SeparatorTraining
from .settings import TrainerSettings

TRAINING_FOLDER = "train"
VALIDATION_FOLDERS = ("val", "valid")


class EpochBatches:
    """Excerpts of the batches of an epoch, from where the training is.

    Parameters
    ----------
    sampler
        of the excerpts
    most
        batches in an epoch
    position
        says which epoch it is, from 0, and how many of its batches are done
    """

    def __init__(
        self, sampler: ExcerptSampler, most: int, position: Callable[[], tuple[int, int]]
    ) -> None:
        self._sampler = sampler
        self._length = min(len(sampler), most)
        self._position = position

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Batch]:
        epoch, first = self._position()
        left = self._sampler.batches(epoch, first=first)
        yield from itertools.islice(left, self._length - first)


class ExcerptData(pl.LightningDataModule):
    """Excerpts to train on, and to validate by.

    Parameters
    ----------
    folder
        with `train`, and `val` or `valid`; or one of tracks or shards, of which some are kept apart
        to validate by
    network
        what it takes
    settings
        of the training

    Raises
    ------
    DatasetError
        there are not enough tracks, or they are not as the network needs them
    """

    def __init__(self, folder: Path, network: NetworkSettings, settings: TrainerSettings) -> None:
        super().__init__()
        self.settings = settings
        self.network = network
        training = folder / TRAINING_FOLDER
        self.training_source = self._source(training if training.is_dir() else folder)
        validation = _validation_folder(folder) if training.is_dir() else None
        if validation is None:
            self.validation_source = self.training_source
            kept, apart = self._split(self.training_source.tracks)
        else:
            self.validation_source = self._source(validation)
            kept, apart = self.training_source.tracks, self.validation_source.tracks
        if settings.max_tracks is not None:
            kept = _some(kept, settings.max_tracks, settings.seed)
        self.training_grid = self._grid(self.training_source, kept, settings.hop_length_s)
        self.validation_grid = self._grid(self.validation_source, apart, None)
        self.validation_excerpts = spread(self.validation_grid, settings.max_samples)

    def _source(self, folder: Path) -> StemSource:
        return open_source(
            folder,
            targets=self.network.targets,
            sample_rate=self.network.sample_rate,
            channels=self.network.num_channels,
        )

    def _split(
        self, tracks: Sequence[TrackLength]
    ) -> tuple[Sequence[TrackLength], Sequence[TrackLength]]:
        if len(tracks) < 2:
            raise DatasetError(
                "there is one track, and one to validate by is needed beside it: add tracks, or "
                f"put them into {TRAINING_FOLDER} and {VALIDATION_FOLDERS[0]}"
            )
        count = max(1, round(self.settings.val_split * len(tracks)))
        apart = set(_some(tracks, count, self.settings.seed))
        return [each for each in tracks if each not in apart], [
            each for each in tracks if each in apart
        ]

    def _grid(
        self, source: StemSource, tracks: Sequence[TrackLength], hop_s: float | None
    ) -> ExcerptGrid:
        grid = source.grid(excerpt_s=self.network.sample_length, hop_s=hop_s)
        try:
            return grid.of({track.name for track in tracks})
        except ValueError as error:
            raise DatasetError(str(error)) from error

    def train_dataloader(self) -> "DataLoader[np.ndarray]":
        """The batches of a training epoch."""
        trainer = self._trainer
        settings = self.settings
        sampler = ExcerptSampler(
            self.training_grid,
            settings.sampling,
            batch_size=settings.batch_size,
            seed=settings.seed,
            rank=trainer.global_rank,
            ranks=trainer.world_size,
        )
        most = -(-settings.max_samples // (settings.batch_size * trainer.world_size))
        training = trainer.lightning_module
        assert isinstance(training, SeparatorTraining)
        batches = EpochBatches(sampler, most, lambda: training.position)
        return self._loader(self.training_source, batches)

    def val_dataloader(self) -> "DataLoader[np.ndarray]":
        """The batches of a validation, always the same, from all over its tracks."""
        rank, ranks = self._trainer.global_rank, self._trainer.world_size
        own, size = self.validation_excerpts[rank::ranks], self.settings.batch_size
        batches = [own[start : start + size] for start in range(0, len(own), size)]
        return self._loader(self.validation_source, batches)

    @property
    def _trainer(self) -> pl.Trainer:
        assert self.trainer is not None
        return self.trainer

    def _loader(
        self, source: StemSource, batches: "EpochBatches | list[Batch]"
    ) -> "DataLoader[np.ndarray]":
        workers = self.settings.num_workers
        return DataLoader(
            ExcerptDataset(source),
            batch_sampler=batches,
            num_workers=workers,
            persistent_workers=self.settings.persistent_workers and workers > 0,
            pin_memory=self.settings.pin_memory,
            prefetch_factor=self.settings.pre_fetch if workers else None,
        )


def spread(grid: ExcerptGrid, most: int) -> list[Excerpt]:
    """So many of the excerpts at most, from all over the tracks."""
    numbers = np.linspace(0, grid.count - 1, min(grid.count, most)).round()
    return [grid.excerpt(int(number)) for number in numbers]


def _validation_folder(folder: Path) -> Path | None:
    return next((folder / name for name in VALIDATION_FOLDERS if (folder / name).is_dir()), None)


def _some(tracks: Sequence[TrackLength], count: int, seed: int) -> list[TrackLength]:
    """So many of the tracks, drawn by a seed, in their order."""
    chosen = np.random.default_rng(seed).permutation(len(tracks))[:count]
    return [tracks[index] for index in sorted(chosen)]
