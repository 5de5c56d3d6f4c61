"""The U-Nets: layers as their first authors had them, without the faults that those had."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from beamsplitter.models.networks.by_settings import make_model
from beamsplitter.models.networks.mask_model import MaskEstimate, MaskModel
from beamsplitter.models.networks.settings import MaskActivation, network_settings
from beamsplitter.models.networks.spectrogram_net import (
    MASK_ACTIVATIONS,
    RecurrentBottleneck,
    Up,
)

NAMES = ("SpectrogramNetSimple", "SpectrogramNetLSTM", "SpectrogramNetVAE")
RECURRENT = NAMES[1:]
# 64 frames, 33 bins: 2 and 1 of them in the bottleneck.
SMALL: Mapping[str, object] = {
    "targets": ("vocals",),
    "sample_rate": 8000,
    "sample_length": 0.25,
    "num_fft": 64,
    "window_size": 64,
    "hop_length": 32,
    "num_hidden_channels": 2,
}
SMALL_LSTM = {"hidden_size": 8, "recurrent_depth": 2}
EXCERPT = 2000
# What each block of the first authors' default network has.
DOWNS = [4_848, 23_232, 92_544, 369_408, 1_476_096]
UPS = [5_638_400, 1_410_176, 352_832, 88_352, 22_160]
SOFT_CONVOLUTION = 19
BOTTLENECKS = {
    "SpectrogramNetSimple": 5_901_312,
    "SpectrogramNetLSTM": 75_546_624 + 6_296_576,
    "SpectrogramNetVAE": 75_546_624 + 6_296_576 + 2 * 4_196_352,
}
# All of theirs, without norms, and what of it took no part.
TOTALS = {
    "SpectrogramNetSimple": 15_380_405,
    "SpectrogramNetLSTM": 97_223_605,
    "SpectrogramNetVAE": 105_616_309,
}
UNUSED_BOTTLENECK = 5_901_312
FROZEN_NORM = 1_026


def made_model(name: str, seed: int = 0, **options: object) -> MaskModel:
    torch.manual_seed(seed)
    size = SMALL_LSTM if name in RECURRENT else {}
    return make_model(network_settings({"model_type": name, **SMALL, **size, **options}))


def default_model(name: str, **options: object) -> MaskModel:
    """Without the memory of its weights."""
    with torch.device("meta"):
        return make_model(network_settings({"model_type": name, "targets": ["vocals"], **options}))


def drawn(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def estimate_of(model: MaskModel, waveforms: Tensor) -> MaskEstimate:
    estimate: MaskEstimate = model.network(model.spectrograms(waveforms))
    return estimate


def count(module: Any) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def network_of(model: MaskModel) -> Any:
    return model.network


@pytest.mark.parametrize("name", NAMES)
def test_layers_have_as_many_parameters_as_their_models(name: str) -> None:
    network = network_of(default_model(name))
    assert [count(down) for down in network.downs] == DOWNS
    assert [count(up) for up in network.ups] == UPS
    assert count(network.soft_conv) == SOFT_CONVOLUTION
    assert count(network.bottleneck) == BOTTLENECKS[name]


@pytest.mark.parametrize("name", NAMES)
def test_totals_differ_by_what_took_no_part(name: str) -> None:
    """Bugs: LSTM and VAE kept a bottleneck that nothing used, and a norm that was off stayed."""
    unused = FROZEN_NORM + (UNUSED_BOTTLENECK if name in RECURRENT else 0)
    assert count(default_model(name)) == TOTALS[name] - unused


def test_input_norm_has_parameters_for_bins_alone() -> None:
    """Those of theirs were for each frame, too, which allows one length only."""
    network = network_of(
        default_model("SpectrogramNetSimple", normalize_input=True, normalize_output=True)
    )
    assert count(network.input_norm) == 2 * 513
    assert count(network.output_norm) == FROZEN_NORM


@pytest.mark.parametrize("name", NAMES)
def test_shapes_between_layers_are_those_of_their_models(name: str) -> None:
    shapes: list[tuple[int, ...]] = []
    network = network_of(default_model(name)).eval()
    for layer in (*network.downs, *network.ups):
        layer.register_forward_hook(lambda _, __, output: shapes.append(tuple(output.shape[1:])))
    with torch.device("meta"):
        masks = network(torch.empty(1, 1, 513, 260, dtype=torch.complex64)).masks
    skips = [(16, 513, 260), (32, 256, 130), (64, 128, 65), (128, 64, 32), (256, 32, 16)]
    assert shapes == [*skips, *reversed(skips)]
    assert masks.shape == (1, 1, 1, 513, 260)


@pytest.mark.parametrize("has_norms", [False, True])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("SpectrogramNetSimple", {}),
        ("SpectrogramNetSimple", {"leak_factor": 0.2, "mask_act_fn": "softmax"}),
        ("SpectrogramNetSimple", {"mask_act_fn": "prelu"}),
        ("SpectrogramNetLSTM", {"input_axis": 0}),
        ("SpectrogramNetLSTM", {"input_axis": 1, "recurrent_depth": 1}),
        ("SpectrogramNetVAE", {"input_axis": 1}),
    ],
)
def test_every_parameter_learns(name: str, options: Any, has_norms: bool) -> None:
    """Bug: a bottleneck without gradients, which DDP refuses."""
    norms = {"normalize_input": has_norms, "normalize_output": has_norms}
    # Bins for two steps over frequency: one alone has no use for what an LSTM remembers.
    model = made_model(name, targets=("vocals", "drums"), num_fft=160, **norms, **options)
    # More than an excerpt, and no whole number of them.
    model(drawn(2, 1, EXCERPT + 900)).square().sum().backward()
    before_norms = bias_names_before_batch_norms(model)
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name
        # A batch norm takes away what a bias adds.
        assert parameter_name in before_norms or parameter.grad.abs().sum() > 0, parameter_name


def bias_names_before_batch_norms(model: MaskModel) -> set[str]:
    names = {f"network.ups.{index}.up_convolution.bias" for index in range(5)}
    return names | {"network.soft_conv.0.bias"}


@pytest.mark.parametrize(
    ("name", "axis"),
    [
        ("SpectrogramNetSimple", {}),
        *((name, {"input_axis": input_axis}) for name in RECURRENT for input_axis in (0, 1)),
    ],
)
@pytest.mark.parametrize(
    ("rate", "length"),
    [(22_050, 2.0), (22_050, 5.0), (44_100, 1), (44_100, 5.0), (48_000, 0.01), (48_000, 2.0)],
)
def test_any_length_and_rate(name: str, axis: Any, rate: int, length: float) -> None:
    """Bug: up-convolutions padded for one size: 2 s, 5 s, and other rates crashed."""
    sizes = {"num_fft": 1024, "window_size": 1024, "hop_length": 512}
    model = made_model(
        name, sample_rate=rate, sample_length=3.0, num_hidden_channels=1, **sizes, **axis
    ).eval()
    samples = 1 if length == 1 else round(length * rate)
    with torch.no_grad():
        targets = model(drawn(1, 1, samples))
    assert targets.shape == (1, 1, 1, samples)
    assert targets.isfinite().all()


@pytest.mark.parametrize("num_fft", [16, 30, 2048])
@pytest.mark.parametrize("name", NAMES)
def test_any_size_of_spectra(name: str, num_fft: int) -> None:
    sizes = {"num_fft": num_fft, "window_size": num_fft, "hop_length": num_fft // 2}
    model = made_model(name, **sizes).eval()
    with torch.no_grad():
        assert model(drawn(1, 1, EXCERPT)).shape == (1, 1, 1, EXCERPT)


@pytest.mark.parametrize("name", NAMES)
def test_two_channels_and_several_targets(name: str) -> None:
    """Bug: stereo mixtures did not fit their stems."""
    model = made_model(name, num_channels=2, targets=("bass", "drums", "vocals")).eval()
    waveforms = drawn(2, 2, EXCERPT)
    with torch.no_grad():
        masks = estimate_of(model, waveforms).masks
        targets = model(waveforms)
    assert masks.shape == (2, 3, 2, 33, 64)
    assert masks.min() >= 0 and masks.max() <= 1
    assert targets.shape == (2, 3, 2, EXCERPT)
    assert not torch.equal(targets[:, :, 0], targets[:, :, 1])


@pytest.mark.parametrize("input_axis", [0, 1])
@pytest.mark.parametrize("name", RECURRENT)
def test_an_item_does_not_depend_on_others(name: str, input_axis: int) -> None:
    """Bug: an LSTM that took the batch for time."""
    model = made_model(name, input_axis=input_axis).eval()
    waveforms = drawn(3, 1, EXCERPT)
    other = torch.cat([waveforms[:1], 10 * waveforms[1:]])
    with torch.no_grad():
        alone = model(waveforms[:1])
        torch.testing.assert_close(model(waveforms)[:1], alone)
        torch.testing.assert_close(model(other)[:1], alone)


def test_frames_of_an_excerpt_depend_on_one_another() -> None:
    """Over time, all frames; over frequency, those of one window."""
    for input_axis, is_same in ((0, False), (1, True)):
        model = made_model("SpectrogramNetLSTM", input_axis=input_axis)
        bottleneck = network_of(model).bottleneck.eval()
        features = drawn(1, 32, 1, 4)
        changed = features.clone()
        changed[..., 2:] = 0
        with torch.no_grad():
            first = bottleneck(features).features[..., :2]
            assert torch.allclose(first, bottleneck(changed).features[..., :2]) == is_same


@pytest.mark.parametrize("input_axis", [0, 1])
@pytest.mark.parametrize("frames", [1, 2, 5])
def test_folding_is_undone(input_axis: int, frames: int) -> None:
    model = made_model("SpectrogramNetLSTM", input_axis=input_axis, num_fft=160)
    bottleneck = network_of(model).bottleneck
    assert isinstance(bottleneck, RecurrentBottleneck)
    features = drawn(2, 32, 2, frames)
    sequences = bottleneck.fold(features).unflatten(-1, (32, bottleneck.width))
    twice = torch.cat([sequences, -sequences], dim=-2).flatten(-2)
    assert torch.equal(bottleneck.unfold(twice, features), torch.cat([features, -features], 1))


@pytest.mark.parametrize("name", NAMES)
def test_evaluation_is_deterministic_and_training_is_not(name: str) -> None:
    """Bug: `eval` did nothing, so that separation ran with dropout, and norms of its batch."""
    model = made_model(name)
    waveforms = drawn(2, 1, EXCERPT)
    with torch.no_grad():
        assert not torch.equal(model(waveforms), model(waveforms))
        model.eval()
        before = {key: value.clone() for key, value in model.state_dict().items()}
        assert torch.equal(model(waveforms), model(waveforms))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_latent_variables_are_drawn_in_training_only() -> None:
    """Bug: noise in evaluation too, and on a GPU wherever there was one."""
    model = made_model("SpectrogramNetVAE", dropout_p=0.0, recurrent_depth=1)
    waveforms = drawn(2, 1, EXCERPT)
    with torch.no_grad():
        one, other = (estimate_of(model, waveforms) for _ in range(2))
        assert not torch.equal(one.masks, other.masks)
        assert one.mean is not None and other.mean is not None
        assert torch.equal(one.mean, other.mean)
        model.eval()
        with torch.random.fork_rng():
            before = torch.random.get_rng_state()
            estimate = estimate_of(model, waveforms)
            assert torch.equal(torch.random.get_rng_state(), before)
    assert estimate.mean is not None and estimate.deviation is not None
    assert estimate.mean.shape == estimate.deviation.shape == (2, 1, 64)
    assert (estimate.deviation > 0).all()


@pytest.mark.parametrize("name", NAMES[:2])
def test_without_dropout_training_draws_nothing(name: str) -> None:
    model = made_model(name, dropout_p=0.0, **({"recurrent_depth": 1} if "LSTM" in name else {}))
    waveforms = drawn(2, 1, EXCERPT)
    with torch.no_grad():
        assert torch.equal(model(waveforms), model(waveforms))


@pytest.mark.parametrize("dropout_p", [0.0, 0.1])
def test_all_layers_on_the_way_up_drop_as_configured(dropout_p: float) -> None:
    """Bug: the last two dropped 0.4, whatever was asked for."""
    network = network_of(made_model("SpectrogramNetLSTM", dropout_p=dropout_p))
    ups = [module for module in network.modules() if isinstance(module, Up)]
    assert [up.dropout.p for up in ups] == [dropout_p] * 5


@pytest.mark.parametrize("name", RECURRENT)
@pytest.mark.parametrize("hidden_size", [8, 500])
def test_the_hidden_size_is_the_one_asked_for(name: str, hidden_size: int) -> None:
    """Bug: a smaller one was computed, and not used."""
    network = network_of(made_model(name, hidden_size=hidden_size))
    assert network.bottleneck.lstm.hidden_size == hidden_size


def test_softmax_is_over_the_targets_and_the_rest() -> None:
    """Bug: over no dimension in particular: a mono mask was 1 everywhere."""
    waveforms = drawn(2, 1, EXCERPT)
    with torch.no_grad():
        one, sigmoid = (
            estimate_of(made_model("SpectrogramNetSimple", mask_act_fn=name).eval(), waveforms)
            for name in ("softmax", "sigmoid")
        )
        two = estimate_of(
            made_model(
                "SpectrogramNetSimple", mask_act_fn="softmax", targets=("bass", "drums")
            ).eval(),
            waveforms,
        )
    torch.testing.assert_close(one.masks, sigmoid.masks)
    assert one.masks.std() > 0
    sums = two.masks.sum(dim=1)
    assert sums.max() < 1 and sums.min() > 0


@pytest.mark.parametrize("name", MaskActivation.__args__)  # type: ignore[attr-defined]
def test_masks_lie_between_0_and_1(name: str) -> None:
    model = made_model("SpectrogramNetSimple", mask_act_fn=name)
    masks = estimate_of(model, drawn(2, 1, EXCERPT)).masks
    assert masks.min() >= 0 and masks.max() <= 1 and masks.std() > 0


def test_each_mask_activation_is_known() -> None:
    assert set(MASK_ACTIVATIONS) == set(MaskActivation.__args__)  # type: ignore[attr-defined]


@pytest.mark.parametrize("level", [0.0, 1e-30, 1e-9])
@pytest.mark.parametrize("is_training", [False, True])
@pytest.mark.parametrize("has_norms", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_silence(name: str, has_norms: bool, is_training: bool, level: float) -> None:
    """An input of level 0, or nearly so, gives finite masks, and gradients, also of the input."""
    model = made_model(name, normalize_input=has_norms, normalize_output=has_norms)
    model.train(is_training)
    waveforms = (level * drawn(2, 1, EXCERPT)).requires_grad_()
    estimate = estimate_of(model, waveforms)
    assert all(part is None or part.isfinite().all() for part in estimate)
    separated = model(waveforms)
    assert separated.abs().max() <= 10 * level
    loss = separated.sum() + sum(part.square().sum() for part in estimate if part is not None)
    loss.backward()
    assert waveforms.grad is not None and waveforms.grad.isfinite().all()
    for parameter in model.parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_silent_items_teach_nothing(name: str) -> None:
    """Beside others, which teach as they would with any item of no weight."""
    gradients = []
    for weight in (1.0, 0.0):
        model = made_model(name, dropout_p=0.0)
        waveforms = torch.cat([drawn(1, 1, EXCERPT), torch.zeros(1, 1, EXCERPT)])
        torch.manual_seed(2)
        masks = estimate_of(model, waveforms).masks
        (masks * torch.tensor([1.0, weight]).reshape(2, 1, 1, 1, 1)).sum().backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    torch.testing.assert_close(gradients[0], gradients[1])
    assert any(gradient is not None and gradient.any() for gradient in gradients[0])


@pytest.mark.parametrize("name", NAMES)
def test_misspelt_options_are_refused(name: str) -> None:
    """Bug: a constructor that swallowed what it did not know."""
    with pytest.raises(ValueError, match="num_hiden_channels"):
        made_model(name, num_hiden_channels=8)


def test_options_of_other_networks_are_refused() -> None:
    with pytest.raises(ValueError, match="hidden_size"):
        made_model("SpectrogramNetSimple", hidden_size=8)


@pytest.mark.parametrize("name", NAMES)
def test_a_model_can_be_exported(name: str) -> None:
    model = made_model(name, normalize_input=True, normalize_output=True).eval()
    waveforms = drawn(2, 1, EXCERPT)
    with torch.no_grad():
        exported = torch.export.export(model, (waveforms,)).module()
        torch.testing.assert_close(exported(waveforms), model(waveforms))


@pytest.mark.parametrize("name", NAMES)
def test_weights_travel_in_safetensors(name: str, tmp_path: Any) -> None:
    model, other = (made_model(name, seed=seed).eval() for seed in (0, 1))
    waveforms = drawn(1, 1, EXCERPT)
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    with torch.no_grad():
        assert not torch.equal(other(waveforms), model(waveforms))
        other.load_state_dict(load_file(tmp_path / "weights.safetensors"))
        assert torch.equal(other(waveforms), model(waveforms))


@pytest.mark.parametrize("name", NAMES)
def test_one_seed_makes_one_network(name: str) -> None:
    first, same, other = (made_model(name, seed=seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(first[key], same[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)


@pytest.mark.parametrize("name", NAMES)
def test_it_learns_to_leave_out_a_tone(name: str) -> None:
    """A few steps are enough to tell a low tone from a high one, on phases not heard before."""
    model = made_model(name, num_hidden_channels=4)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    times = torch.arange(EXCERPT) / 8000

    def tones(frequency: float, phases: Tensor) -> Tensor:
        return torch.sin(2 * torch.pi * (frequency * times + phases[:, None, None]))

    def loss_of(seed: int) -> Tensor:
        low = tones(500, torch.rand(4, generator=torch.Generator().manual_seed(seed)))
        high = tones(2000, torch.rand(4, generator=torch.Generator().manual_seed(seed + 1)))
        return nn.functional.mse_loss(model(low + high)[:, 0], low)

    for step in range(30):
        optimizer.zero_grad()
        loss_of(2 * step).backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        # An even mask of one half leaves 0.25 of both tones' powers of 0.5.
        assert loss_of(1000) < 0.1
