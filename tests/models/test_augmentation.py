"""Augmentation: stems change places and signs, and mixtures stay their sum."""

from typing import Any

import pytest
import torch

from beamsplitter.models.training.augmentation import augment
from beamsplitter.models.training.settings import TrainerSettings

NONE = {
    "remix": 0,
    "even_levels": False,
    "gain_db": 0,
    "swap_channels": 0,
    "flip_polarity": 0,
    "soft_clip": 0,
}
STEMS = torch.randn(8, 3, 2, 100, generator=torch.Generator().manual_seed(1))


def augmented(
    stems: torch.Tensor = STEMS, *, seed: int = 0, **changes: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    settings = TrainerSettings(**{**NONE, **changes})
    return augment(stems, settings, torch.Generator().manual_seed(seed))


def test_nothing_changes_without() -> None:
    mixtures, stems = augmented()
    assert torch.equal(stems, STEMS)
    assert torch.equal(mixtures, STEMS.sum(dim=1))


def test_mixtures_are_the_sum_of_the_stems() -> None:
    mixtures, stems = augmented(remix=1, gain_db=6, swap_channels=0.5, flip_polarity=0.5)
    assert torch.equal(mixtures, stems.sum(dim=1))
    assert not torch.equal(stems, STEMS)


def test_the_same_numbers_give_the_same_and_others_others() -> None:
    options = {"remix": 0.5, "gain_db": 6, "swap_channels": 0.5, "flip_polarity": 0.5}
    first, again, other = (augmented(seed=seed, **options)[1] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_stems_of_different_tracks_meet_and_none_is_lost() -> None:
    _, stems = augmented(remix=1)
    origins = [
        [
            next(i for i in range(8) if torch.equal(stems[item, row], STEMS[i, row]))
            for item in range(8)
        ]
        for row in range(3)
    ]
    assert all(sorted(each) == list(range(8)) for each in origins)
    assert sum(len({each[item] for each in origins}) > 1 for item in range(8)) >= 4


def test_a_share_is_left_as_it_is() -> None:
    stems = torch.randn(400, 2, 1, 4, generator=torch.Generator().manual_seed(1))
    _, made = augmented(stems, remix=0.25)
    same = (made == stems).all(dim=(1, 2, 3)).double().mean()
    assert 0.7 < same < 0.8


def test_gains_stay_in_their_range() -> None:
    stems = torch.ones(500, 2, 1, 4)
    _, made = augmented(stems, gain_db=6)
    decibels = 20 * made[:, :, 0, 0].log10()
    assert decibels.abs().max() <= 6.001
    assert decibels.min() < -5
    assert decibels.max() > 5
    # One gain for a stem, others for others.
    assert (made == made[..., :1]).all()
    assert not torch.allclose(made[:, 0], made[:, 1])


def test_stems_come_to_one_level_and_silence_does_not() -> None:
    stems = STEMS * torch.logspace(-2, 0, 8)[:, None, None, None]
    stems[0, 0] = 1e-5 * STEMS[0, 0]
    _, made = augmented(stems, even_levels=True)
    levels = made.square().mean(dim=(-2, -1)).sqrt()
    assert torch.equal(made[0, 0], stems[0, 0])
    levels[0, 0] = 0.1
    torch.testing.assert_close(levels, torch.full((8, 3), 0.1))


@pytest.mark.parametrize("option", ["swap_channels", "flip_polarity"])
def test_channels_and_polarity_change_in_a_share(option: str) -> None:
    stems = torch.randn(500, 2, 2, 4, generator=torch.Generator().manual_seed(1))
    changed = stems.flip(2) if option == "swap_channels" else -stems
    _, made = augmented(stems, **{option: 0.3})
    is_same = (made == stems).all(dim=(2, 3))
    is_changed = (made == changed).all(dim=(2, 3))
    assert (is_same ^ is_changed).all()
    assert 0.25 < is_changed.double().mean() < 0.35


def test_mono_has_no_channels_to_swap() -> None:
    stems = STEMS[:, :, :1]
    assert torch.equal(augmented(stems, swap_channels=1)[1], stems)


def test_clipped_mixtures_are_bent_and_their_stems_are_not() -> None:
    mixtures, stems = augmented(soft_clip=1)
    assert torch.equal(stems, STEMS)
    plain = STEMS.sum(dim=1)
    assert (mixtures.abs() <= plain.abs() + 1e-6).all()
    assert (mixtures.sign() == plain.sign()).all()
    # It is a curve: louder samples lose more.
    loss = mixtures.abs() / plain.abs().clamp(min=1e-3)
    loud, quiet = plain.abs() > 2, plain.abs() < 0.2
    assert loss[loud].mean() < loss[quiet].mean()


def test_silence_stays_silence() -> None:
    mixtures, stems = augmented(torch.zeros(2, 2, 1, 10), remix=1, gain_db=6, soft_clip=1)
    assert not mixtures.any()
    assert not stems.any()
