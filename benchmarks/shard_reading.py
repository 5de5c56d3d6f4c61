"""How quickly is a feature set read, one after the other and at random? One process, one thread.

    python benchmarks/shard_reading.py [--seconds 3 30] [--megabytes 400] [--runs 3]

MB of arrays per second of CPU time, out of the page cache, so that no disk is measured: of each
format by `FeatureStream` and by `FeatureDataset` in random order; of the same tars by webdataset's
own reader, which decodes to NumPy's arrays, and of the same samples as `.npz` files by `np.load`.
Samples have levels in 128 mel bands and 84 bins of a constant-Q transform, each of two signals.
Of Parquet few samples are read at random: for each a row group is read. Trust the ratios, not the
megabytes.
"""

# ruff: noqa: E402
import os

# Libraries read these once, when they are imported.
for _variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ[_variable] = "1"

import argparse
import hashlib
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import webdataset

from beamsplitter.models.feature_sets.arrays import ShardFormat
from beamsplitter.models.feature_sets.index import (
    EXTENSIONS,
    INDEX,
    FeatureSet,
    FeatureSetIndex,
    ShardFile,
    index_lines,
    open_feature_set,
    shard_index_name,
    shard_name,
)
from beamsplitter.models.feature_sets.samples import Sample
from beamsplitter.models.feature_sets.shard_writing import write_shard
from beamsplitter.models.feature_sets.torch_dataset import FeatureDataset, FeatureStream

FRAMES_PER_S = 22050 / 512
BINS = {"log_mel": 128, "cqt": 84}
SIGNALS = ("mixture", "vocals")
SHARDS = 4
Item = dict[str, Any]


def made_samples(count: int, seconds: float, seed: int) -> Iterator[Sample]:
    """Samples of noise, as large as features are."""
    generator = np.random.default_rng(seed)
    frames = round(seconds * FRAMES_PER_S)
    for index in range(count):
        arrays = {
            f"{name}/{signal}": generator.standard_normal((frames, bins), np.float32)
            for name, bins in BINS.items()
            for signal in SIGNALS
        }
        yield Sample(f"album {seed}/{index:05d}", {"index": index}, arrays)


def write_set(folder: Path, format: ShardFormat, count: int, seconds: float) -> FeatureSet:
    """A feature set of so many samples."""
    folder.mkdir()
    shards = []
    for number in range(SHARDS):
        path = folder / shard_name(number, SHARDS, format)
        with path.open("w+b") as file:
            entries = write_shard(made_samples(count // SHARDS, seconds, number), file, format)
        data = path.read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        shards.append(ShardFile(path.name, len(entries), len(data), digest))
        (folder / shard_index_name(number, SHARDS)).write_bytes(index_lines(entries))
    index = FeatureSetIndex(format, {name: {} for name in BINS}, SIGNALS, {}, tuple(shards))
    (folder / INDEX).write_bytes(index.to_json())
    return open_feature_set(str(folder))


def write_npz(folder: Path, count: int, seconds: float) -> list[Path]:
    """The same samples as files."""
    folder.mkdir()
    paths = []
    for number in range(SHARDS):
        for sample in made_samples(count // SHARDS, seconds, number):
            paths.append(folder / f"{len(paths)}.npz")
            np.savez(paths[-1], **sample.arrays)  # type: ignore[arg-type]
    return paths


def in_random_order(features: FeatureSet) -> Iterator[Item]:
    """All samples; of Parquet some."""
    dataset = FeatureDataset(features)
    order = np.random.default_rng(0).permutation(len(dataset))
    few = 40 if features.index.shard_format == "parquet" else None
    return (dataset[index] for index in order[:few].tolist())


def by_webdataset(folder: Path) -> Iterator[Item]:
    shards = sorted(map(str, folder.glob("*.tar")))
    return iter(webdataset.WebDataset(shards, shardshuffle=False).decode())


def by_numpy(paths: list[Path]) -> Iterator[Item]:
    for path in np.random.default_rng(0).permutation(np.array(paths, object)):
        with np.load(path) as archive:
            yield {name: archive[name] for name in archive.files}


def megabytes_per_s(items: Iterable[Item]) -> float:
    """Of arrays, per second of CPU time."""
    size_bytes = 0
    started = time.process_time()
    for item in items:
        arrays = (each for each in item.values() if isinstance(each, np.ndarray | torch.Tensor))
        size_bytes += sum(array.nbytes for array in arrays)
    return size_bytes / 1e6 / (time.process_time() - started)


def measure(work: Path, seconds: float, megabytes: int, runs: int) -> None:
    """Print MB/s of all ways to read, round by round."""
    sample_bytes = round(seconds * FRAMES_PER_S) * sum(BINS.values()) * len(SIGNALS) * 4
    count = megabytes * 10**6 // sample_bytes // SHARDS * SHARDS
    print(f"{count} samples of {seconds:g} s, {sample_bytes / 1e3:.0f} kB each")
    ways: dict[str, Callable[[], Iterable[Item]]] = {}
    for format in EXTENSIONS:
        features = write_set(work / format, format, count, seconds)
        ways[f"{format}, in order"] = lambda features=features: FeatureStream(features)
        ways[f"{format}, random"] = lambda features=features: in_random_order(features)
    paths = write_npz(work / "npz", count, seconds)
    ways["webdataset's reader, in order"] = lambda: by_webdataset(work / "webdataset")
    ways["np.load of .npz files, random"] = lambda: by_numpy(paths)
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(runs):
        for name, way in ways.items():
            found[name].append(megabytes_per_s(way()))
    for name, rates in found.items():
        print(f"  {name:32}", *(f"{rate:7.0f}" for rate in rates), " MB/s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, nargs="+", default=[3, 30])
    parser.add_argument("--megabytes", type=int, default=400)
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for seconds in arguments.seconds:
        with tempfile.TemporaryDirectory() as work:
            measure(Path(work), seconds, arguments.megabytes, arguments.runs)


if __name__ == "__main__":
    main()
