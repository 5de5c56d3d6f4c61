"""Feature sets for PyTorch's `DataLoader`."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from .errors import FeatureSetError
from .index import FeatureSet, IndexEntry
from .shard_reading import Arrays, OpenShards

Item = dict[str, Any]


class FeatureDataset(Dataset[Item]):
    """The samples of a feature set in any order, each by its number.

    An item has `key`, `facts`, and of each array a tensor by its name, `log_mel/mixture`: float32
    or complex64, `(frames, bins)` or `(frames, channels, bins)`. For it a range of a shard is read,
    of Parquet a row group, so that other formats do better in random order.

    Parameters
    ----------
    features
        what `open_feature_set` gives
    arrays
        those that are wanted; None: all
    verify
        whether all that is read is held against the index's SHA-256

    Raises
    ------
    FeatureSetError
        there is no such array; as items are read, that a shard or its index is not whole
    StorageError
        as items are read: a shard or its index can't be read
    """

    def __init__(
        self, features: FeatureSet, *, arrays: Sequence[str] | None = None, verify: bool = False
    ) -> None:
        self.features = features
        self._shards = OpenShards(features, arrays, verify=verify)
        self._ends = np.cumsum([shard.samples for shard in features.index.shards], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, index: int) -> Item:
        if not 0 <= index < len(self):
            raise IndexError(f"{self.features.location}: has no sample {index} of {len(self)}")
        shard = int(np.searchsorted(self._ends, index, side="right"))
        row = index - int(self._ends[shard]) + self.features.index.shards[shard].samples
        return _item(*self._shards.read(shard, row))


class FeatureStream(IterableDataset[Item]):
    """The samples of a feature set, shard by shard, each read from its beginning to its end.

    Items are those of `FeatureDataset`. All processes that read, the workers of each rank's
    `DataLoader`, divide the samples among themselves: each gets a run of them, as long as the
    others' but for one sample, and together they get each sample once.

    Parameters
    ----------
    features
        what `open_feature_set` gives
    arrays
        those that are wanted; None: all
    shuffle_shards
        whether shards come in an order that differs from epoch to epoch
    shuffle_buffer
        how many samples are held to give one of them by chance; 0: in their order
    seed
        of both
    rank, world_size
        of this process among those that train together; None: torch.distributed's, where it is
        initialized by now, else 0 and 1
    verify
        whether all that is read is held against the index's SHA-256

    Raises
    ------
    FeatureSetError
        there is no such array; as items are read, that a shard or its index is not whole
    StorageError
        as items are read: a shard or its index can't be read
    ValueError
        there is no such rank
    """

    def __init__(
        self,
        features: FeatureSet,
        *,
        arrays: Sequence[str] | None = None,
        shuffle_shards: bool = False,
        shuffle_buffer: int = 0,
        seed: int = 0,
        rank: int | None = None,
        world_size: int | None = None,
        verify: bool = False,
    ) -> None:
        self.features = features
        self.shuffle_shards = shuffle_shards
        self.shuffle_buffer = shuffle_buffer
        self.seed = seed
        # Not known to the workers of a DataLoader.
        distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        self.rank = (torch.distributed.get_rank() if distributed else 0) if rank is None else rank
        self.world_size = world_size or (torch.distributed.get_world_size() if distributed else 1)
        if not 0 <= self.rank < self.world_size:
            raise ValueError(f"there is no rank {self.rank} of {self.world_size}")
        # Shared with workers that live longer than an epoch.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()
        self._shards = OpenShards(features, arrays, verify=verify)

    def set_epoch(self, epoch: int) -> None:
        """Have the next pass be in the order of an epoch."""
        self._epoch.fill_(epoch)

    def __iter__(self) -> Iterator[Item]:
        worker = get_worker_info()
        workers, number = (worker.num_workers, worker.id) if worker else (1, 0)
        readers, reader = self.world_size * workers, self.rank * workers + number
        samples = (
            _item(entry, arrays)
            for shard, rows in self._share_of(reader, readers)
            for entry, arrays in self._shards.stream(shard, rows)
        )
        if not self.shuffle_buffer:
            return samples
        generator = np.random.default_rng([self.seed, int(self._epoch), reader])
        return _shuffled(samples, self.shuffle_buffer, generator)

    def _share_of(self, reader: int, readers: int) -> Iterator[tuple[int, range]]:
        """The shards that a reader reads, and which samples of each."""
        files = self.features.index.shards
        order = np.arange(len(files))
        if self.shuffle_shards:
            np.random.default_rng([self.seed, int(self._epoch)]).shuffle(order)
        start, stop = (len(self.features) * each // readers for each in (reader, reader + 1))
        begin = 0
        for shard in order.tolist():
            count = files[shard].samples
            rows = range(max(0, start - begin), min(count, stop - begin))
            if rows:
                yield shard, rows
            begin += count


def _item(entry: IndexEntry, arrays: Arrays) -> Item:
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    return {"key": entry.key, "facts": entry.facts, **tensors}


def _shuffled(
    samples: Iterator[Item], count: int, generator: np.random.Generator
) -> Iterator[Item]:
    """Samples, each of them held until its place among so many others is drawn."""
    held: list[Item] = []
    for sample in samples:
        if len(held) < count:
            held.append(sample)
            continue
        place = int(generator.integers(count))
        chosen, held[place] = held[place], sample
        yield chosen
    generator.shuffle(held)
    yield from held


def padded_batch(items: Sequence[Item], *, padding: float = 0.0) -> Item:
    """Items of several lengths as one batch: what `DataLoader(collate_fn=…)` takes.

    Parameters
    ----------
    padding
        the value of frames that are not there

    Returns
    -------
    dict
        lists `key` and `facts`; of each array a tensor `(items, frames, …)`, with as many frames as
        the longest has; and in `frames`, by name, how many each has, int64 `(items,)`

    Raises
    ------
    FeatureSetError
        arrays differ in more than their frames
    """
    batch: Item = {
        "key": [item["key"] for item in items],
        "facts": [item["facts"] for item in items],
    }
    frames: dict[str, torch.Tensor] = {}
    for name in (name for name in items[0] if name not in batch):
        tensors = [item[name] for item in items]
        if len({tensor.shape[1:] for tensor in tensors}) > 1:
            shapes = ", ".join(sorted({str(tuple(tensor.shape[1:])) for tensor in tensors}))
            raise FeatureSetError(f"{name}: differs in more than its frames: {shapes}")
        batch[name] = torch.nn.utils.rnn.pad_sequence(
            tensors, batch_first=True, padding_value=padding
        )
        frames[name] = torch.tensor([len(tensor) for tensor in tensors])
    return {**batch, "frames": frames}
