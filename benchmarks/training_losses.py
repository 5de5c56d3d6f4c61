"""Whether each loss of each network falls on held-out excerpts, in so many steps.

    python benchmarks/training_losses.py --data FOLDER [--steps 200]

FOLDER holds tracks, such as those in `train` of `benchmarks/training_demo.py data`: a fifth of them
is held out. The networks are smaller than by default, so that it ends within the hour on a CPU.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import torch

from beamsplitter.models.networks.settings import SETTINGS, NetworkSettings
from beamsplitter.models.training.fitting import plan_training, run_training
from beamsplitter.models.training.objective import estimates_of, loss_of
from beamsplitter.models.training.separator_training import SeparatorTraining
from beamsplitter.models.training.settings import TrainerSettings

SMALLER: dict[str, Any] = {
    "sample_rate": 16000,
    "sample_length": 0.5,
    "num_fft": 512,
    "window_size": 512,
    "hop_length": 256,
}
SMALLER_NETS: dict[str, Any] = {
    "num_hidden_channels": 2,
    "recurrent_depth": 1,
    "hidden_size": 32,
    "dropout_p": 0.1,
}
HELD_OUT = 32


def criteria() -> list[str]:
    """All losses."""
    return list(TrainerSettings.model_fields["criterion"].annotation.__args__)  # type: ignore[union-attr]


def held_out_loss(training: SeparatorTraining, batch: torch.Tensor) -> float:
    """Of excerpts that are not trained on."""
    model = training.model.eval()
    with torch.inference_mode():
        estimates = estimates_of(model, batch.sum(dim=1))
        return float(loss_of(model, training.settings, estimates, batch[:, :-1]))


def measure(
    network: NetworkSettings, criterion: str, data: Path, steps: int
) -> tuple[float, float]:
    """Held-out loss before and after."""
    values = {
        "criterion": criterion,
        "batch_size": 8,
        "max_samples": 8 * steps,
        "max_epochs": 1,
        "lr": 1e-3,
        "lr_lstm": 1e-3,
        "sampling": "random",
        "num_workers": 1,
        "tensorboard": False,
        "remix": 1.0,
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "model.json").write_text(network.model_dump_json())
        plan = plan_training(folder, data, json.loads(json.dumps(values)))
        grid = plan.data.validation_grid
        numbers = range(0, grid.count, max(1, grid.count // HELD_OUT))
        rows = [plan.data.validation_source.read(grid.excerpt(number)) for number in numbers]
        batch = torch.stack([torch.from_numpy(each) for each in rows])
        before = held_out_loss(plan.training, batch)
        run_training(plan, lambda state: None)
        return before, held_out_loss(plan.training, batch)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--target", default="speech")
    options = parser.parse_args()
    print(f"{'network':22} {'loss':22} {'before':>10} {'after':>10}")
    for name, settings in SETTINGS.items():
        sizes = {key: each for key, each in SMALLER_NETS.items() if key in settings.model_fields}
        own = SMALLER | sizes if sizes else {}
        network = settings.model_validate({"targets": [options.target], **own})
        for criterion in criteria():
            if criterion == "kl_div" and name != "SpectrogramNetVAE":
                continue
            before, after = measure(network, criterion, options.data, options.steps)
            falls = "" if after < before else "   does not fall"
            print(f"{name:22} {criterion:22} {before:10.4g} {after:10.4g}{falls}", flush=True)


if __name__ == "__main__":
    main()
