"""Losses: against other implementations, on silence, and as what they are for."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torchmetrics.functional.audio import (
    permutation_invariant_training,
    scale_invariant_signal_distortion_ratio,
)

from beamsplitter.models.training.losses import (
    best_permutation_loss,
    component_loss,
    component_weights,
    kl_divergence,
    l1_loss,
    l2_loss,
    mask_loss,
    multi_resolution_stft_loss,
    rmse_loss,
    si_sdr,
    si_sdr_loss,
)

SPECTRUM = (3, 2, 1, 33, 20)
SIGNAL = (3, 2, 1, 4000)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def magnitudes(seed: int) -> Tensor:
    return drawn(*SPECTRUM, seed=seed).abs()


SPECTRAL: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "component": component_loss,
    "mask l1": lambda mask, target, mixture: mask_loss(mask, target, mixture, construction="l1"),
    "mask l2": mask_loss,
    "l1": lambda mask, target, mixture: l1_loss(mask * mixture, target),
    "l2": lambda mask, target, mixture: l2_loss(mask * mixture, target),
    "rmse": lambda mask, target, mixture: rmse_loss(mask * mixture, target),
}
OF_SIGNALS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "si_sdr": si_sdr_loss,
    "multi-resolution STFT": multi_resolution_stft_loss,
    "l1": l1_loss,
}


@pytest.mark.parametrize("name", SPECTRAL)
@pytest.mark.parametrize("silent", ["target", "mixture and target", "mask", "all"])
def test_silence_has_a_finite_loss_and_gradient(name: str, silent: str) -> None:
    target = magnitudes(1) * ("target" not in silent and silent != "all")
    mixture = (target + magnitudes(2)) * ("mixture" not in silent and silent != "all")
    mask = torch.sigmoid(drawn(*SPECTRUM, seed=3)) * (silent not in ("mask", "all"))
    mask.requires_grad_()
    loss = SPECTRAL[name](mask, target, mixture)
    loss.backward()
    assert loss.isfinite()
    assert mask.grad is not None
    assert mask.grad.isfinite().all()


@pytest.mark.parametrize("name", OF_SIGNALS)
@pytest.mark.parametrize(("loud_estimate", "loud_target"), [(1, 0), (0, 1), (0, 0)])
def test_silent_signals_have_a_finite_loss_and_gradient(
    name: str, loud_estimate: int, loud_target: int
) -> None:
    """SI-SDR was NaN on a silent target, and a training with one of them at its end."""
    estimate = (loud_estimate * drawn(*SIGNAL)).requires_grad_()
    loss = OF_SIGNALS[name](estimate, loud_target * drawn(*SIGNAL, seed=1))
    loss.backward()
    assert loss.isfinite()
    assert estimate.grad is not None
    assert estimate.grad.isfinite().all()


def component_of_two(mask: Tensor, target: Tensor, mixture: Tensor) -> Tensor:
    """Without the third term, which wants some of the rest left, as it was."""
    return component_loss(mask, target, mixture, alpha=0.5, beta=0)


@pytest.mark.parametrize("name", SPECTRAL)
def test_the_ideal_mask_is_better_than_others(name: str) -> None:
    loss = component_of_two if name == "component" else SPECTRAL[name]
    target, rest = magnitudes(1), magnitudes(2)
    # In each bin either the one or the other: there is a mask without any fault.
    target = target * (target > rest)
    rest = rest * (target == 0)
    mixture = target + rest
    ideal = (target > 0).float()
    best = loss(ideal, target, mixture)
    for other in (torch.zeros_like(ideal), torch.ones_like(ideal), 0.5 * ideal, 1 - ideal):
        assert best < loss(other, target, mixture)


@pytest.mark.parametrize("name", OF_SIGNALS)
def test_the_target_itself_is_better_than_others(name: str) -> None:
    target = drawn(*SIGNAL)
    best = OF_SIGNALS[name](target, target)
    for other in (torch.zeros_like(target), target + 0.1 * drawn(*SIGNAL, seed=1), target.flip(-1)):
        assert best < OF_SIGNALS[name](other, target)


def test_si_sdr_equals_torchmetrics() -> None:
    target = drawn(*SIGNAL)
    for share in (0.01, 0.5, 3.0):
        estimate = 0.7 * target + share * drawn(*SIGNAL, seed=1)
        expected = scale_invariant_signal_distortion_ratio(estimate, target)
        torch.testing.assert_close(si_sdr(estimate, target), expected, atol=1e-3, rtol=1e-4)
    scaled = 5 * target + drawn(*SIGNAL, seed=2)
    torch.testing.assert_close(
        si_sdr(scaled, target), si_sdr(0.1 * scaled, target), atol=1e-3, rtol=1e-4
    )


def test_rmse_is_the_root_of_the_mean_square_of_each_item() -> None:
    """It was accepted by name, and raised NotImplementedError."""
    estimate, target = magnitudes(1), magnitudes(2)
    expected = [((a - b) ** 2).mean().sqrt() for a, b in zip(estimate, target, strict=True)]
    torch.testing.assert_close(rmse_loss(estimate, target), torch.stack(expected).mean())


def test_kl_divergence_equals_torch() -> None:
    mean, deviation = drawn(4, 8), drawn(4, 8, seed=1).exp()
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(normal(mean, deviation), normal(0.0, 1.0)).mean()
    torch.testing.assert_close(kl_divergence(mean, deviation), expected)
    assert kl_divergence(torch.zeros(3), torch.zeros(3)).isfinite()


@pytest.mark.parametrize(
    ("alpha", "beta"), [(0.2, 0.8), (0.0, 1.0), (2.0, 3.0), (0.2, 0.3), (0, 0)]
)
def test_what_is_kept_of_the_target_always_counts(alpha: float, beta: float) -> None:
    """By the usual weights it counted nothing, and a mask of zeros was the best."""
    weights = component_weights(alpha, beta)
    assert sum(weights) == pytest.approx(1)
    assert weights[0] > 0
    if alpha + beta < 1:
        assert weights == (pytest.approx(1 - alpha - beta), alpha, beta)
    else:
        assert weights[1] * beta == pytest.approx(weights[2] * alpha)
    with pytest.raises(ValueError, match="at least 0"):
        component_weights(-0.1, 0.2)


def test_component_loss_is_a_weighted_sum() -> None:
    mask, target = torch.sigmoid(drawn(*SPECTRUM)), magnitudes(1)
    mixture = target + magnitudes(2)
    rest = mixture - target
    kept = ((mask * target - target) ** 2).mean()
    left = ((mask * rest) ** 2).mean()
    unit = [
        each / (each**2).mean(dim=(-2, -1), keepdim=True).sqrt() for each in (mask * rest, rest)
    ]
    shape = ((unit[0] - unit[1]) ** 2).mean()
    torch.testing.assert_close(
        component_loss(mask, target, mixture, alpha=0.3, beta=0.2),
        0.5 * kept + 0.3 * left + 0.2 * shape,
        rtol=1e-4,
        atol=1e-6,
    )


def test_the_ideal_mask_is_between_0_and_1() -> None:
    target = magnitudes(1)
    louder = mask_loss(torch.ones(SPECTRUM), target, 0.5 * target)  # phases that cancel
    assert louder == 0


@pytest.mark.parametrize("seed", range(5))
def test_the_best_permutation_is_that_of_torchmetrics(seed: int) -> None:
    targets = drawn(4, 3, 1, 500, seed=seed)
    order = torch.randperm(3, generator=torch.Generator().manual_seed(seed))
    estimates = targets[:, order] + 0.3 * drawn(4, 3, 1, 500, seed=100 + seed)

    def mean_of_channels(estimate: Tensor, target: Tensor) -> Tensor:
        return scale_invariant_signal_distortion_ratio(estimate, target).mean(-1)

    expected, _ = permutation_invariant_training(
        estimates, targets, mean_of_channels, eval_func="max"
    )
    found = best_permutation_loss(si_sdr_loss, estimates, targets)
    torch.testing.assert_close(found, -expected.mean(), atol=1e-3, rtol=1e-3)
    assert found < si_sdr_loss(estimates, targets) or order.tolist() == [0, 1, 2]


def test_each_item_of_a_batch_has_a_best_permutation_of_its_own() -> None:
    targets = drawn(2, 2, 2, 300)  # stereo: the swap of estimate and target was wrong there
    estimates = torch.stack([targets[0], targets[1].flip(0)])
    assert best_permutation_loss(l1_loss, estimates, targets) == 0
    estimates.requires_grad_()
    best_permutation_loss(si_sdr_loss, estimates, targets).backward()
    assert estimates.grad is not None


def test_multi_resolution_stft_sees_all_batches_alike() -> None:
    estimate, target = drawn(3, 2, 8000), drawn(3, 2, 8000, seed=1)
    together = multi_resolution_stft_loss(estimate, target)
    alone = [
        multi_resolution_stft_loss(a[None], b[None]) for a, b in zip(estimate, target, strict=True)
    ]
    torch.testing.assert_close(together, torch.stack(alone).mean())


@pytest.mark.parametrize("loss", [*OF_SIGNALS.values()])
def test_a_few_steps_make_it_smaller(loss: Any) -> None:
    target = drawn(1, 1, 2000)
    estimate = (0.1 * drawn(1, 1, 2000, seed=1)).requires_grad_()
    optimizer = torch.optim.Adam([estimate], lr=0.05)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        value = loss(estimate, target)
        value.backward()
        optimizer.step()
        losses.append(value.item())
    assert losses[-1] < losses[0]
