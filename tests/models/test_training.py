"""Training: it learns, keeps the best, ends when it should, and goes on where it was."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Command
from PIL import Image
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torchmetrics.functional.audio import scale_invariant_signal_distortion_ratio
from toy_training import (
    RATE,
    TOY_SETTINGS,
    losses,
    noise,
    tone,
    train,
    write_dataset,
    write_network,
    write_track,
)

from beamsplitter.models.datasets.stem_folders import DatasetError
from beamsplitter.models.networks.by_settings import make_model
from beamsplitter.models.networks.mask_model import MaskEstimate, MaskModel
from beamsplitter.models.networks.settings import network_settings
from beamsplitter.models.packages.trained import load_trained
from beamsplitter.models.training.excerpt_data import EpochBatches, ExcerptData
from beamsplitter.models.training.fitting import plan_training, run_training
from beamsplitter.models.training.keeping import CHECKPOINT_FILE
from beamsplitter.models.training.lightning_runs import Devices, TrainingError
from beamsplitter.models.training.losses import kl_divergence
from beamsplitter.models.training.objective import estimates_of, loss_of
from beamsplitter.models.training.separator_training import SeparatorTraining
from beamsplitter.models.training.settings import TrainerSettings, trainer_settings
from beamsplitter.models.training.telling import TrainingState

SMALL = {"num_fft": 128, "window_size": 128, "hop_length": 64}
RECURRENT = {"num_hidden_channels": 1, "recurrent_depth": 1, "hidden_size": 8}
NETWORKS: dict[str, dict[str, Any]] = {
    "SpectrogramNetSimple": {"num_hidden_channels": 1},
    "SpectrogramNetLSTM": RECURRENT,
    "SpectrogramNetVAE": RECURRENT,
    "BandNet": {"num_bands": 4, "band_features": 2, "hidden_size": 4, "recurrent_depth": 1},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_network(tmp_path / "net")


def toy_training(changes: dict[str, Any], **settings: Any) -> SeparatorTraining:
    name = changes.get("model_type", "SpectrogramNetSimple")
    toy = {"model_type": name, "targets": ["vocals"], "sample_rate": RATE, **NETWORKS[name]}
    network = network_settings({**toy, **SMALL, **changes})
    return SeparatorTraining(make_model(network), trainer_settings(network, settings))


def toy_folder(folder: Path, model_type: str) -> Path:
    changes = {"num_hidden_channels": None, "model_type": model_type, **NETWORKS[model_type]}
    return write_network(folder, **changes)


class Killed(Exception):
    """What ends a training in the middle."""


def killed_at(batches: int) -> Any:
    left = [batches]

    def tell(state: TrainingState) -> None:
        if state.finished is None:
            left[0] -= 1
            if not left[0]:
                raise Killed

    return tell


# It learns ----------------------------------------------------------------------------------------


def test_it_learns(folder: Path, data: Path) -> None:
    record = train(folder, data, max_epochs=6, lr=3e-3)
    first, last = losses(record)[0], losses(record)[-1]
    assert last[0] < first[0] - 2
    assert last[1] < first[1]
    # By a silent estimate SI-SDR is no better than 0 dB.
    assert record["best"]["si_sdr_db"]["vocals"] > 3


@pytest.mark.parametrize("epochs", [1, 3])
def test_there_are_as_many_epochs_as_asked_for(folder: Path, data: Path, epochs: int) -> None:
    """Auralflow's trainer ran one less, and none of one."""
    record = train(folder, data, max_epochs=epochs)
    assert [each["epoch"] for each in record["epochs"]] == list(range(1, epochs + 1))
    # Each epoch has each of 3 x 6 excerpts once, in batches of 4.
    assert [each["step"] for each in record["epochs"]] == [
        5 * each for each in range(1, epochs + 1)
    ]


def test_an_epoch_ends_after_as_many_excerpts_as_allowed(folder: Path, data: Path) -> None:
    record = train(folder, data, max_samples=8)
    assert [each["step"] for each in record["epochs"]] == [2, 4]


def test_the_best_weights_are_kept(folder: Path, data: Path) -> None:
    """Auralflow's were those of the last epoch."""
    record = train(folder, data, lr=0.3, max_epochs=6)
    validation = [each[1] for each in losses(record)]
    assert validation.index(min(validation)) < 5, "the last is the best: choose another lr"
    kept = loss_on_validation(folder, data)
    assert kept == pytest.approx(min(validation), abs=1e-4)
    assert record["best"]["validation_loss"] == min(validation)
    told = json.loads((folder / "training.json").read_text())
    assert told["best"] == record["best"]


def validation_batch(model: MaskModel, data: Path) -> torch.Tensor:
    source = ExcerptData(data, model.settings, TrainerSettings(**TOY_SETTINGS))
    rows = [source.validation_source.read(each) for each in source.validation_excerpts]
    return torch.from_numpy(np.stack(rows))


def loss_on_validation(folder: Path, data: Path) -> float:
    model = load_trained(folder, "kept")
    settings = TrainerSettings(**TOY_SETTINGS)
    batch = validation_batch(model, data)
    with torch.inference_mode():
        estimates = estimates_of(model, batch.sum(dim=1))
        return float(loss_of(model, settings, estimates, batch[:, :-1]))


def test_scores_are_those_of_torchmetrics(folder: Path, data: Path) -> None:
    """Auralflow's were zeros."""
    record = train(folder, data, max_epochs=1)
    model = load_trained(folder, "kept")
    batch = validation_batch(model, data)
    with torch.inference_mode():
        estimates = model(batch.sum(dim=1))
    expected = scale_invariant_signal_distortion_ratio(estimates, batch[:, :-1]).mean()
    assert record["best"]["si_sdr_db"]["vocals"] == pytest.approx(float(expected), abs=0.01)


def test_the_average_of_weights_is_what_is_judged_and_kept(
    folder: Path, tmp_path: Path, data: Path
) -> None:
    plain = train(folder, data)
    averaged_folder = write_network(tmp_path / "averaged")
    averaged = train(averaged_folder, data, ema_decay=0.9)
    # The weights that learn are the same ones.
    assert [each[0] for each in losses(averaged)] == [each[0] for each in losses(plain)]
    assert losses(averaged) != losses(plain)
    kept = loss_on_validation(averaged_folder, data)
    assert kept == pytest.approx(averaged["best"]["validation_loss"], abs=1e-4)


# It ends ------------------------------------------------------------------------------------------


def test_plateaus_lower_the_rate_and_end_it(folder: Path, data: Path) -> None:
    options = {"stop_patience": 2, "max_plateaus": 2, "min_delta": 1000.0, "max_epochs": 50}
    record = train(folder, data, **options)
    # The first epoch is better than none; then two and two are no better by as much as asked for.
    rates = [each["learning_rate"] for each in record["epochs"]]
    assert rates == pytest.approx([1e-3, 1e-3, 1e-3, 1e-4, 1e-4])


def test_a_cosine_ends_near_nothing(folder: Path, data: Path) -> None:
    record = train(folder, data, schedule="cosine", max_epochs=4)
    rates = [each["learning_rate"] for each in record["epochs"]]
    steps = np.array([4, 9, 14, 19])  # the last of each epoch, of 20
    np.testing.assert_allclose(rates, 5e-4 * (1 + np.cos(np.pi * steps / 20)), rtol=1e-6)


def test_the_rate_rises_at_first(folder: Path, data: Path) -> None:
    record = train(folder, data, warmup_steps=20, max_epochs=5)
    rates = [each["learning_rate"] for each in record["epochs"]]
    assert rates == pytest.approx([2.5e-4, 5e-4, 7.5e-4, 1e-3, 1e-3])


def test_minutes_end_it_with_a_validation(folder: Path, data: Path) -> None:
    record = train(folder, data, max_minutes=1e-4, max_epochs=1000)
    assert len(record["epochs"]) < 20
    assert np.isfinite(record["epochs"][-1]["validation_loss"])
    assert (folder / "model.safetensors").exists()


def test_a_loss_that_is_no_number_ends_it(folder: Path, data: Path) -> None:
    with pytest.raises(TrainingError, match=r"the loss was .*nan.*--lr"):
        train(folder, data, lr=1e30, max_epochs=30)


# It goes on ---------------------------------------------------------------------------------------

RANDOM = {"soft_clip": 0.5, "ema_decay": 0.9, "max_epochs": 3, "stop_patience": 1}


@pytest.mark.parametrize(
    ("network", "stops"), [("BandNet", (3, 10, 11)), ("SpectrogramNetVAE", (7,))]
)
def test_a_stopped_training_goes_on_as_if_it_had_not_been(
    tmp_path: Path, data: Path, network: str, stops: tuple[int, ...]
) -> None:
    """With dropout, augmentations, an average of weights and plateaus; in and between epochs."""
    whole = toy_folder(tmp_path / "whole", network)
    expected = train(whole, data, **RANDOM)
    for batches in stops:
        stopped = toy_folder(tmp_path / f"stopped at {batches}", network)
        with pytest.raises(Killed):
            train(stopped, data, tell=killed_at(batches), checkpoint_minutes=1e-9, **RANDOM)
        found = train(stopped, data, resume=True)
        assert losses(found) == losses(expected)
        for key in ("epoch", "step", "si_sdr_db", "learning_rate", "is_best"):
            kept, whole_ones = ([e[key] for e in each["epochs"]] for each in (found, expected))
            assert kept == whole_ones
        weights, others = (load_file(each / "model.safetensors") for each in (whole, stopped))
        assert all(torch.equal(weights[name], others[name]) for name in weights)


def test_a_killed_process_leaves_whole_files_and_is_taken_up(tmp_path: Path, data: Path) -> None:
    whole, killed = (write_network(tmp_path / name) for name in ("whole", "killed"))
    options = {"num_workers": 1, "max_epochs": 4}
    expected = train(whole, data, **options)
    script = (
        "import sys, json; sys.path.insert(0, sys.argv[1]); from pathlib import Path;"
        "import toy_training; toy_training.train(Path(sys.argv[2]), Path(sys.argv[3]),"
        "**json.loads(sys.argv[4]), tell=lambda state: print(state.epoch, flush=True))"
    )
    tests = Path(__file__).parents[1]
    arguments = [str(tests), str(killed), str(data), json.dumps(options)]
    with subprocess.Popen(
        [sys.executable, "-c", script, *arguments], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip() == "3":
                process.send_signal(signal.SIGKILL)
                break
    assert (killed / CHECKPOINT_FILE).exists()
    assert losses(train(killed, data, resume=True)) == losses(expected)


def test_it_can_be_trained_longer(folder: Path, tmp_path: Path, data: Path) -> None:
    train(folder, data, max_epochs=2)
    longer = train(folder, data, resume=True, max_epochs=3)
    expected = train(write_network(tmp_path / "whole"), data, max_epochs=3)
    assert losses(longer) == losses(expected)


def test_batches_may_change_between_epochs_and_not_within(
    folder: Path, tmp_path: Path, data: Path
) -> None:
    train(folder, data, max_epochs=1)
    record = train(folder, data, resume=True, max_epochs=3, batch_size=6)
    assert [each["step"] for each in record["epochs"]] == [5, 8, 11]
    stopped = write_network(tmp_path / "stopped")
    with pytest.raises(Killed):
        train(stopped, data, tell=killed_at(3), checkpoint_minutes=1e-9)
    with pytest.raises(TrainingError, match="an epoch of 5 batches, and there are 3 now"):
        train(stopped, data, resume=True, batch_size=6)
    assert len(train(stopped, data, resume=True)["epochs"]) == 2


def test_a_stop_in_a_validation_is_gone_on_from(tmp_path: Path, data: Path) -> None:
    whole, stopped = (write_network(tmp_path / name) for name in ("whole", "stopped"))
    expected = train(whole, data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SeparatorTraining, "validation_step", raising)
        with pytest.raises(Killed):
            train(stopped, data, checkpoint_minutes=1e-9)
    assert losses(train(stopped, data, resume=True)) == losses(expected)


def raising(*_arguments: Any) -> None:
    raise Killed


def test_data_that_changed_is_noticed(folder: Path, data: Path, tmp_path: Path) -> None:
    train(folder, data)
    other = write_dataset(tmp_path / "other", training=4)
    found = [plan_training(folder, each, {}, resume=True) for each in (data, other)]
    assert [plan.data_has_changed for plan in found] == [False, True]


def test_a_finished_training_is_not_begun_anew(folder: Path, data: Path) -> None:
    train(folder, data)
    weights = (folder / "model.safetensors").read_bytes()
    with pytest.raises(TrainingError, match="holds a training already: --resume"):
        train(folder, data)
    assert len(train(folder, data, resume=True)["epochs"]) == 2
    assert (folder / "model.safetensors").read_bytes() == weights


def test_a_checkpoint_that_is_none_is_told(folder: Path, data: Path) -> None:
    train(folder, data)
    (folder / CHECKPOINT_FILE).write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(TrainingError, match=r"checkpoint\.ckpt.*no whole checkpoint"):
        train(folder, data, resume=True)


def test_a_checkpoint_of_another_network_is_told(folder: Path, data: Path) -> None:
    train(folder, data)
    write_network(folder, num_hidden_channels=2)
    with pytest.raises(TrainingError, match="is of another network"):
        train(folder, data, resume=True)


@pytest.mark.parametrize(
    "devices", [Devices("abacus"), Devices("gpu"), Devices("cpu", "many"), Devices("cpu", "0")]
)
def test_devices_that_are_none_are_told(folder: Path, data: Path, devices: Devices) -> None:
    if devices.accelerator == "gpu" and torch.cuda.is_available():
        return
    with pytest.raises(TrainingError, match="--accelerator, --devices") as caught:
        train(folder, data, devices=devices)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_executes_nothing(folder: Path, data: Path, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return os.system, (f"touch {tmp_path / 'evil'}",)

    train(folder, data)
    torch.save({"state_dict": Evil()}, folder / CHECKPOINT_FILE)
    with pytest.raises(TrainingError, match="checkpoint"):
        train(folder, data, resume=True)
    assert not (tmp_path / "evil").exists()


def test_the_same_seed_gives_the_same_weights(tmp_path: Path, data: Path) -> None:
    records = [
        train(write_network(tmp_path / str(index)), data, seed=seed)
        for index, seed in enumerate((1, 1, 2))
    ]
    assert losses(records[0]) == losses(records[1]) != losses(records[2])


def test_reading_processes_change_nothing(tmp_path: Path, data: Path) -> None:
    records = [
        train(write_network(tmp_path / str(workers)), data, num_workers=workers)
        for workers in (0, 2)
    ]
    assert losses(records[0]) == losses(records[1])


# Optimisers ---------------------------------------------------------------------------------------


def test_recurrent_layers_have_a_rate_of_their_own() -> None:
    """Auralflow looked for them in the wrong place, and never used it."""
    training = toy_training({"model_type": "SpectrogramNetLSTM"}, lr=0.1, lr_lstm=1e-4)
    rates = {
        id(parameter): group["lr"]
        for group in training.configure_optimizers().param_groups
        for parameter in group["params"]
    }
    recurrent = {
        id(parameter)
        for module in training.model.modules()
        if isinstance(module, torch.nn.LSTM)
        for parameter in module.parameters()
    }
    assert recurrent
    assert all(rate == (1e-4 if each in recurrent else 0.1) for each, rate in rates.items())
    assert len(rates) == len(list(training.model.parameters()))


def test_gradients_are_clipped(folder: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    norms = []

    def watch(self: SeparatorTraining, *arguments: Any, **options: Any) -> None:
        original(self, *arguments, **options)
        grads = [each.grad for each in self.model.parameters() if each.grad is not None]
        norms.append(float(torch.nn.utils.get_total_norm(grads)))

    original = SeparatorTraining.optimizer_step
    monkeypatch.setattr(SeparatorTraining, "optimizer_step", watch)
    train(folder, data, max_epochs=1)
    assert max(norms) > 1e-3
    norms.clear()
    train(
        write_network(folder.parent / "b"), data, clip_grad=True, max_grad_norm=1e-3, max_epochs=1
    )
    assert norms
    assert max(norms) < 1.01e-3


def test_mixed_precision_reaches_the_network(
    folder: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Auralflow dropped the option."""
    seen: set[torch.dtype] = set()

    def watch(module: Any, arguments: Any, output: torch.Tensor) -> None:
        if isinstance(module, torch.nn.Conv2d):
            seen.add(output.dtype)

    handle = torch.nn.modules.module.register_module_forward_hook(watch)
    try:
        train(folder, data, use_amp=True, max_epochs=1)
        assert seen == {torch.bfloat16}
        seen.clear()
        train(write_network(folder.parent / "plain"), data, max_epochs=1)
        assert seen == {torch.float32}
    finally:
        handle.remove()


@pytest.mark.parametrize("model_type", NETWORKS)
def test_each_network_learns_in_16_bits(tmp_path: Path, data: Path, model_type: str) -> None:
    record = train(toy_folder(tmp_path / "net", model_type), data, use_amp=True, criterion="l1")
    assert np.isfinite(losses(record)).all()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_scaled_gradients_without_a_gpu_are_refused(folder: Path, data: Path) -> None:
    with pytest.raises(TrainingError, match="--scale-grad: is for float16 on a CUDA GPU"):
        train(folder, data, use_amp=True, scale_grad=True)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("scale_grad", [False, True])
def test_it_learns_on_a_gpu(folder: Path, data: Path, scale_grad: bool) -> None:
    record = train(folder, data, use_amp=True, scale_grad=scale_grad, max_epochs=6, lr=3e-3)
    assert losses(record)[-1][0] < losses(record)[0][0] - 2


def test_two_processes_share_the_excerpts(folder: Path, data: Path, command: Command) -> None:
    options = {**TOY_SETTINGS, "max_epochs": 2}
    arguments = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()
                 if name != "tensorboard"]  # fmt: skip
    where = ["--accelerator", "cpu", "--devices", "2", "--strategy", "ddp"]
    done = command("train", folder, data, *arguments, "--no-tensorboard", *where)
    assert done.returncode == 0, done.stderr
    record = json.loads((folder / "training.json").read_text())
    # 5 batches of 4: each has 3, of which one is seen twice.
    assert [each["step"] for each in record["epochs"]] == [3, 6]
    # One process tells.
    assert done.stderr.count("epoch 1: loss") == 1
    assert done.stdout.count("parameters;") == 1


def test_strategies_that_keep_what_they_find_are_refused(folder: Path, data: Path) -> None:
    with pytest.raises(TrainingError, match="--strategy: is one of auto, ddp"):
        train(folder, data, devices=Devices("cpu", "2", strategy="ddp_spawn"))


# Losses of networks -------------------------------------------------------------------------------

CRITERIA = list(TrainerSettings.model_fields["criterion"].annotation.__args__)


@pytest.mark.parametrize("signal_kind", ["sound", "silence", "a silent target"])
@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("model_type", NETWORKS)
def test_each_loss_of_each_network_is_finite(
    model_type: str, criterion: str, signal_kind: str
) -> None:
    if criterion == "kl_div" and model_type != "SpectrogramNetVAE":
        with pytest.raises(ValueError, match="kl_div is for SpectrogramNetVAE"):
            toy_training({"model_type": model_type}, criterion=criterion)
        return
    changes = {"num_channels": 2, "targets": ["vocals", "drums"]}
    training = toy_training({"model_type": model_type, **changes}, criterion=criterion)
    stems = torch.from_numpy(np.stack([tone(0.5, 300, channels=2), noise(0.5, 1, channels=2)]))
    stems = torch.stack([stems, stems.flip(0)])
    if signal_kind == "silence":
        stems = torch.zeros_like(stems)
    elif signal_kind == "a silent target":
        stems[:, 0] = 0
    estimates = estimates_of(training.model, stems.sum(dim=1))
    loss = loss_of(training.model, training.settings, estimates, stems)
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(each.grad).all() for each in training.model.parameters())


def test_divergence_is_part_of_every_loss_of_a_variational_network() -> None:
    """Auralflow's default had none."""
    training = toy_training({"model_type": "SpectrogramNetVAE"}, criterion="l1")
    estimates = estimates_of(training.model, torch.from_numpy(noise(0.5, 1))[None])
    targets = torch.from_numpy(noise(0.5, 1))[None, None]
    with torch.no_grad():
        loss = loss_of(training.model, training.settings, estimates, targets)
        plain = estimates._replace(network=MaskEstimate(estimates.network.masks))
        alone = loss_of(training.model, training.settings, plain, targets)
        _, mean, deviation = estimates.network
        assert mean is not None
        assert deviation is not None
        assert float(loss - alone) == pytest.approx(float(kl_divergence(mean, deviation)), rel=1e-3)
    assert float(loss - alone) > 1e-3


def test_sums_are_means_of_so_many() -> None:
    mixtures = torch.from_numpy(noise(0.5, 1))[None]
    training = toy_training({})
    estimates = estimates_of(training.model, mixtures)
    made = [
        float(loss_of(training.model, settings, estimates, mixtures[:, None]).detach())
        for settings in (
            TrainerSettings(criterion="l1", reduction=reduction) for reduction in ("mean", "sum")
        )
    ]
    assert made[1] == pytest.approx(made[0] * estimates.stems.numel(), rel=1e-5)


# Data ---------------------------------------------------------------------------------------------


def excerpt_data(folder: Path, **changes: Any) -> ExcerptData:
    network = network_settings(
        {
            "model_type": "SpectrogramNetSimple",
            "targets": ["vocals"],
            "sample_rate": RATE,
            **SMALL,
            "num_hidden_channels": 1,
            **({"sample_length": 0.5} | {k: v for k, v in changes.items() if k == "sample_length"}),
        }
    )
    changes.pop("sample_length", None)
    return ExcerptData(folder, network, TrainerSettings(**{**TOY_SETTINGS, **changes}))


def names(grid: Any) -> set[str]:
    return {track.name for track in grid.tracks}


def test_without_a_folder_for_it_tracks_are_kept_apart(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "data", training=10, validation=0, seconds=1)
    made = excerpt_data(folder)
    assert len(names(made.training_grid)) == 8
    assert len(names(made.validation_grid)) == 2
    assert not names(made.training_grid) & names(made.validation_grid)
    again, other = excerpt_data(folder), excerpt_data(folder, seed=5)
    assert names(made.validation_grid) == names(again.validation_grid)
    assert names(made.validation_grid) != names(other.validation_grid)


def test_as_many_tracks_as_asked_for(tmp_path: Path) -> None:
    """Auralflow loaded one more."""
    folder = write_dataset(tmp_path / "data", training=5, seconds=1)
    assert len(names(excerpt_data(folder, max_tracks=3).training_grid)) == 3


def test_a_track_as_long_as_an_excerpt_is_one(tmp_path: Path) -> None:
    """Auralflow could not draw from it."""
    folder = write_dataset(tmp_path / "data", seconds=0.5)
    assert excerpt_data(folder).training_grid.count == 3


def test_validation_is_of_all_tracks_and_has_a_bound(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "data", validation=4, seconds=3)
    made = excerpt_data(folder, max_samples=8)
    assert len({*made.validation_excerpts}) == 8
    assert {excerpt.track for excerpt in made.validation_excerpts} == names(made.validation_grid)
    assert len(excerpt_data(folder).validation_excerpts) == made.validation_grid.count == 24


def test_tracks_that_are_too_short_are_told(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "data")
    write_track(folder / "train" / "jingle", {"vocals": tone(0.2, 300), "drums": noise(0.2, 1)})
    assert excerpt_data(folder).training_grid.short_tracks == ("jingle",)
    with pytest.raises(DatasetError, match="as long as an excerpt"):
        excerpt_data(folder, sample_length=30)


def test_one_track_can_not_be_split(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "data", training=1, validation=0)
    with pytest.raises(DatasetError, match="there is one track"):
        excerpt_data(folder)


def test_no_state_of_numpy_is_touched(data: Path, folder: Path) -> None:
    """Auralflow seeded it for the whole process."""
    np.random.seed(3)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    train(folder, data, max_epochs=1)
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002


def test_an_epoch_goes_on_where_it_was(tmp_path: Path) -> None:
    from beamsplitter.models.datasets.excerpts import ExcerptSampler

    folder = write_dataset(tmp_path / "data")
    grid = excerpt_data(folder).training_grid
    sampler = ExcerptSampler(grid, "exhaustive", batch_size=4)
    whole = [*EpochBatches(sampler, 4, lambda: (2, 0))]
    assert whole == [*sampler.batches(2)][:4]
    assert [*EpochBatches(sampler, 4, lambda: (2, 3))] == whole[3:]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_file_that_breaks_is_named(folder: Path, tmp_path: Path, workers: int) -> None:
    data = write_dataset(tmp_path / "data")
    plan = plan_training(folder, data, {**TOY_SETTINGS, "num_workers": workers})
    broken = data / "train" / "song 1" / "vocals.wav"
    broken.write_bytes(broken.read_bytes()[:100])
    with pytest.raises(TrainingError) as caught:
        run_training(plan, lambda state: None)
    (line,) = str(caught.value).splitlines()
    assert "song 1/vocals.wav" in line
    assert "Traceback" not in line


# What is seen of it -------------------------------------------------------------------------------


def test_tensorboard_has_what_was_asked_for(folder: Path, data: Path) -> None:
    views = ("iter", "weights", "grad", "norm", "spec", "wave")
    options = {f"view_{name}": True for name in views}
    options |= {"play_estimate": True, "play_residual": True, "image_freq": 2}
    train(folder, data, tensorboard=True, **options)
    events = EventAccumulator(str(folder / "runs"), {"histograms": 0, "images": 0, "audio": 0})
    tags = events.Reload().Tags()
    weight = next(tag for tag in tags["histograms"] if not tag.endswith("_grad"))
    assert {"loss/iter", "loss/epoch/training", "loss/epoch/validation", "si_sdr_db/vocals"} <= {
        *tags["scalars"]
    }
    assert {f"norm/{weight}", f"norm/{weight}_grad"} <= {*tags["scalars"]}
    assert f"{weight}_grad" in tags["histograms"]
    assert {*tags["images"]} == {"spectrogram/vocals", "waveform/vocals"}
    assert {*tags["audio"]} == {
        f"vocals/{name}" for name in ("estimate", "true", "residual/estimate", "residual/true")
    }
    assert len(events.Scalars("loss/iter")) == 10
    # What was logged as gradients were weights in Auralflow.
    gradients, weights = (events.Histograms(f"{weight}{end}")[-1] for end in ("_grad", ""))
    assert gradients.histogram_value.sum != weights.histogram_value.sum


def test_nothing_is_logged_that_was_not_asked_for(folder: Path, data: Path) -> None:
    train(folder, data, tensorboard=True, view_epoch=False, image_freq=1)
    tags = EventAccumulator(str(folder / "runs")).Reload().Tags()
    assert not any(tags[kind] for kind in ("scalars", "images", "histograms", "audio"))


def test_pictures_without_tensorboard(tmp_path: Path, data: Path) -> None:
    folder = write_network(tmp_path / "net", targets=["vocals", "drums"])
    images = tmp_path / "images"
    train(folder, data, image_dir=str(images), image_freq=2, max_epochs=3)
    assert {str(path.relative_to(images)) for path in images.rglob("*.png")} == {
        f"{kind}/{name}_0002.png"
        for kind in ("spectrogram", "waveform")
        for name in ("vocals", "drums")
    }
    for path in images.rglob("*.png"):
        pixels = np.asarray(Image.open(path).convert("L"))
        assert pixels.std() > 10
    assert not (folder / "runs").exists()


def test_it_tells_how_far_it_is(folder: Path, data: Path) -> None:
    states: list[TrainingState] = []
    train(folder, data, tell=states.append)
    steps = [(state.epoch, state.batch) for state in states if not state.finished]
    assert steps == [(epoch, batch) for epoch in (1, 2) for batch in range(1, 6)]
    finished = [state.finished for state in states if state.finished]
    assert [record.epoch for record in finished] == [1, 2]
    assert states[-1].left_s == 0
    assert states[-2].excerpts_per_s > 0
    assert 0 <= states[-1].waited_share <= 1
    assert all(state.epochs == 2 and state.batches == 5 for state in states)


def test_waiting_for_data_is_seen(folder: Path, data: Path, monkeypatch: Any) -> None:
    from beamsplitter.models.datasets.excerpt_dataset import ExcerptDataset

    original = ExcerptDataset.__getitem__

    def slowly(self: Any, excerpt: Any) -> Any:
        time.sleep(0.05)
        return original(self, excerpt)

    monkeypatch.setattr(ExcerptDataset, "__getitem__", slowly)
    assert train(folder, data, max_epochs=1)["waited_share"] > 0.3


def test_the_record_says_what_it_was_trained_on(folder: Path, tmp_path: Path, data: Path) -> None:
    record = train(folder, data)
    assert record["data"]["training"]["tracks"] == 3
    assert record["data"]["training"]["excerpts"] == 18
    assert record["data"]["validation"]["duration_s"] == pytest.approx(3)
    other = write_dataset(tmp_path / "other", training=4)
    changed = train(write_network(tmp_path / "b"), other)
    same = train(write_network(tmp_path / "c"), data)
    digests = [each["data"]["training"]["sha256_of_lengths"] for each in (record, same, changed)]
    assert digests[0] == digests[1] != digests[2]
