"""How quickly a training reads, against the plain loop that one writes first; and its memory.

The plain loop decodes whole tracks in the processes of PyTorch's `DataLoader`, and slices them.
Network, loss, batches, reading processes and the folder of flac tracks are the same for both.

    python benchmarks/training_speed.py speed      excerpts a second, and the share of waiting
    python benchmarks/training_speed.py first      time to the first batch, of 100 tracks of 4 min
    python benchmarks/training_speed.py memory     of trainings on 10, 100 and 1,000 tracks
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from measuring import AUDIO_DIR, PeakMemory, beamsplitter, long_signal
from torch.utils.data import DataLoader, Dataset

from beamsplitter.models.datasets.excerpt_dataset import ExcerptDataset
from beamsplitter.models.datasets.excerpts import ExcerptGrid, ExcerptSampler
from beamsplitter.models.datasets.sources import open_source
from beamsplitter.models.networks.by_settings import make_model
from beamsplitter.models.networks.settings import network_settings
from beamsplitter.models.training.fitting import plan_training, run_training
from beamsplitter.models.training.losses import si_sdr_loss
from beamsplitter.models.training.telling import TrainingState

RATE = 44100
TRACK_S = 240
EXCERPT_S = 3.0
BATCH = 8
WORKERS = 2
NETWORK = {
    "model_type": "SpectrogramNetSimple",
    "targets": ["vocals"],
    "num_hidden_channels": 2,
    "sample_length": EXCERPT_S,
    "sample_rate": RATE,
}


def write_tracks(folder: Path, count: int) -> None:
    """Tracks of 4 min in stereo: three that are written, and links to them."""
    signal = long_signal(AUDIO_DIR, RATE, 2)
    for index in range(count):
        track = folder / f"track {index:04d}"
        track.mkdir(parents=True)
        for stem, offset in (("vocals", 0), ("other", 60)):
            path = track / f"{stem}.flac"
            if index < 3:
                start = (offset + 17 * index) * RATE
                wanted = np.arange(start, start + TRACK_S * RATE) % signal.shape[1]
                soundfile.write(path, signal[:, wanted].T * 0.5, RATE, subtype="PCM_16")
            else:
                path.symlink_to(folder / f"track {index % 3:04d}" / path.name)


class WholeTracks(Dataset[torch.Tensor]):
    """What one writes first: decode a track, take a slice."""

    def __init__(self, folder: Path, excerpts: int) -> None:
        self.tracks = sorted(folder.iterdir())
        self.excerpts = excerpts

    def __len__(self) -> int:
        return self.excerpts

    def __getitem__(self, index: int) -> torch.Tensor:
        generator = np.random.default_rng(index)
        track = self.tracks[generator.integers(len(self.tracks))]
        stems = [
            soundfile.read(track / f"{stem}.flac", dtype="float32")[0].mean(axis=1)
            for stem in ("vocals", "other")
        ]
        start = generator.integers(min(map(len, stems)) - round(EXCERPT_S * RATE))
        stop = start + round(EXCERPT_S * RATE)
        return torch.stack([torch.from_numpy(stem[start:stop])[None] for stem in stems])


def plain_loop(folder: Path, steps: int) -> Iterator[float]:
    """Seconds at which each step was done."""
    model = make_model(network_settings(NETWORK)).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    loader = DataLoader(WholeTracks(folder, steps * BATCH), batch_size=BATCH, num_workers=WORKERS)
    started = time.monotonic()
    for batch in loader:
        loss = si_sdr_loss(model(batch.sum(dim=1)), batch[:, :-1])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield time.monotonic() - started


def our_loop(folder: Path, steps: int, work: Path) -> tuple[list[float], float]:
    """Seconds at which each step was done, and the share of waiting."""
    net = work / "net"
    net.mkdir()
    (net / "model.json").write_text(json.dumps(NETWORK))
    values: dict[str, Any] = {
        "batch_size": BATCH,
        "max_epochs": 1,
        "max_samples": steps * BATCH,
        "num_workers": WORKERS,
        "sampling": "random",
        "lr": 1e-3,
        "tensorboard": False,
    }
    done: list[float] = []
    started = time.monotonic()

    def tell(state: TrainingState) -> None:
        if state.finished is None:
            done.append(time.monotonic() - started)

    record = run_training(plan_training(net, folder, values), tell)
    return done, record["waited_share"]


def pace(done_s: list[float]) -> float:
    """Excerpts a second after the first step."""
    return BATCH * (len(done_s) - 1) / (done_s[-1] - done_s[0])


def measure_speed(folder: Path, work: Path, steps: int) -> None:
    """Print excerpts a second of both."""
    write_tracks(folder, 20)
    ours, waited = our_loop(folder, steps, work)
    theirs = list(plain_loop(folder, steps))
    print(f"ours         {pace(ours):6.1f} excerpts/s, {waited:.1%} of the time waiting for data")
    print(f"plain loop   {pace(theirs):6.1f} excerpts/s")
    print(f"ratio        {pace(ours) / pace(theirs):6.1f}")


def measure_first_batch(folder: Path, tracks: int) -> None:
    """Print seconds until the first batch is there."""
    write_tracks(folder, tracks)
    started = time.monotonic()
    source = open_source(folder, targets=["vocals"], sample_rate=RATE, channels=1)
    grid = ExcerptGrid(source.tracks, excerpt_s=EXCERPT_S)
    batches = ExcerptSampler(grid, "exhaustive", batch_size=BATCH).batches(0)
    next(iter(DataLoader(ExcerptDataset(source), batch_sampler=batches, num_workers=WORKERS)))
    ours = time.monotonic() - started
    theirs = next(plain_loop(folder, 1))
    print(f"first batch of {tracks} tracks: ours {ours:.2f} s, plain loop {theirs:.2f} s")
    print(f"all tracks decoded, as loops that keep them in memory do: {tracks} times "
          f"{theirs / BATCH * WORKERS:.2f} s")  # fmt: skip


def measure_memory(folder: Path, work: Path, counts: list[int], steps: int) -> None:
    """Print the most memory of all processes of a training together."""
    for count in counts:
        tracks = folder / str(count)
        write_tracks(tracks, count)
        net = work / f"net {count}"
        net.mkdir()
        (net / "model.json").write_text(json.dumps(NETWORK))
        options = (
            f"--batch-size={BATCH}",
            f"--max-samples={steps * BATCH}",
            "--max-epochs=1",
            "--no-tensorboard",
            f"--num-workers={WORKERS}",
            "--silent",
        )
        command = [*map(str, beamsplitter("train", net, tracks, *options))]
        process = subprocess.Popen(command)
        peak = PeakMemory(process.pid)
        peak.start()
        if process.wait():
            sys.exit("the training failed")
        peak.ended.set()
        peak.join()
        print(f"{count:5} tracks: {peak.total_mib:.0f} MiB", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["speed", "first", "memory"])
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--tracks", type=int, nargs="*", default=[10, 100, 1000])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        if options.what == "speed":
            measure_speed(work / "data", work, options.steps)
        elif options.what == "first":
            measure_first_batch(work / "data", 100)
        else:
            measure_memory(work / "data", work, options.tracks, options.steps)


if __name__ == "__main__":
    main()
