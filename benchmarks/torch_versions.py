"""Files of torch.export between versions of torch: what one wrote, read by each other.

    python benchmarks/torch_versions.py PYTHON…

Each PYTHON is of an environment with beamsplitter and some version of torch, made by

    python3.11 -m venv torch-2.9
    torch-2.9/bin/pip install --editable '.[models]' torch==2.9.1

All of them and this one write the same small models, and read what all of them wrote. Told is how
far apart the samples are, at most, from those that the model gave where it was written, or why it
could not be written or read.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

    from beamsplitter.models.export.separator_model import SeparatorModel

SAMPLES = 4000
NETWORK = {"sample_rate": 8000, "sample_length": SAMPLES / 8000, "targets": ["vocals", "drums"]}
SPECTRUM = {"num_fft": 256, "window_size": 256, "hop_length": 64}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pythons", nargs="+", metavar="PYTHON")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        pythons = [sys.executable, *arguments.pythons]
        for role in ("write", "read"):
            for python in pythons:
                subprocess.run([python, "-W", "ignore", __file__, role, folder], check=True)


def write(folder: Path) -> None:
    """What this version of torch writes: models, and what they give for some input."""
    import torch

    from beamsplitter.models.export.torch_export import save_exported
    from beamsplitter.models.separators.base import ModelError

    for name, model in _models():
        place = folder / torch.__version__ / name
        place.mkdir(parents=True, exist_ok=True)
        # Of a recurrent network each step is written.
        samples = SAMPLES // 5 if name == "BandNet" else SAMPLES
        try:
            fixed = save_exported(model, samples, place / "model.pt2", name)
        except ModelError as error:
            (place / "model.pt2").unlink(missing_ok=True)
            print(f"{torch.__version__} can't write {error}")
            continue
        for length in (samples,) if fixed else (samples, samples // 3, 2 * samples + 1):
            waveform = torch.randn(model.channels, length)
            with torch.inference_mode():
                np.savez(place / f"{length}.npz", waveform=waveform, expected=model(waveform))


def read(folder: Path) -> None:
    """What this version of torch makes of what all of them wrote."""
    import torch

    from beamsplitter.models.packages.exported import load_exported
    from beamsplitter.models.separators.base import ModelError

    for place in sorted({path.parents[1] for path in folder.glob("*/*/model.pt2")}):
        print(f"{torch.__version__} reads {place.name}:")
        for path in sorted(place.glob("*/model.pt2")):
            try:
                model = load_exported(path, path.parent.name)
                difference, samples = _difference(model, path.parent)
                print(f"  {path.parent.name}: {difference:.1e} apart, on {samples} samples")
            except ModelError as error:
                print(f"  {error}")


def _difference(model: "torch.nn.Module", examples: Path) -> tuple[float, str]:
    """The largest, and the lengths on which it was looked for."""
    import torch

    differences = {}
    for path in examples.glob("*.npz"):
        with np.load(path) as arrays, torch.inference_mode():
            found = model(torch.from_numpy(arrays["waveform"])).numpy()
            differences[int(path.stem)] = float(np.abs(found - arrays["expected"]).max())
    return max(differences.values()), ", ".join(map(str, sorted(differences)))


def _models() -> Iterator[tuple[str, "SeparatorModel"]]:
    """Names and models: for any length, for one length as they look at it, and recurrent."""
    import torch

    from beamsplitter.models.export.separator_model import SeparatorModel
    from beamsplitter.models.networks.by_settings import make_model
    from beamsplitter.models.networks.settings import network_settings

    torch.manual_seed(0)
    low = torch.nn.Conv1d(1, 8, 31, padding="same")
    convolutions = torch.nn.Sequential(low, torch.nn.Tanh(), torch.nn.Conv1d(8, 2, 31, padding=15))
    stems = torch.nn.Sequential(convolutions, torch.nn.Unflatten(1, (2, 1)))
    yield "convolutions", SeparatorModel(stems, channels=1, normalizes=True)
    for name, sizes in (
        ("SpectrogramNetSimple", {"num_hidden_channels": 2}),
        ("BandNet", {"hidden_size": 8, "num_bands": 8}),
    ):
        settings = network_settings({"model_type": name, **NETWORK, **SPECTRUM, **sizes})
        yield name, SeparatorModel(make_model(settings), channels=1, normalizes=False)


if __name__ == "__main__":
    if sys.argv[1:2] in (["write"], ["read"]):
        {"write": write, "read": read}[sys.argv[1]](Path(sys.argv[2]))
    else:
        main()
