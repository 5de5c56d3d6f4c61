"""The Wiener filter against Open-Unmix's own, and what any such filter has to hold."""

import sys
import types

import pytest
import torch

from beamsplitter.models.separators.wiener import wiener


@pytest.fixture(scope="module")
def filtering():
    """`openunmix.filtering`. The package imports torchaudio, whose libraries need a GPU's torch."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "torchaudio", types.ModuleType("torchaudio"))
        import openunmix.filtering

        yield openunmix.filtering


def made_mixture(*shape, gain=1.0, seed=0):
    """Bins of many levels, as music has them: complex64."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(*shape, dtype=torch.complex64, generator=generator)
    return gain * noise * torch.logspace(1, -3, shape[-2])[:, None]


def made_magnitudes(mixture, sources, seed=1):
    generator = torch.Generator().manual_seed(seed)
    shape = (*mixture.shape[:-3], sources, *mixture.shape[-3:])
    return torch.rand(shape, generator=generator) * mixture.abs().unsqueeze(-4)


def as_open_unmix(filtering, magnitudes, mixture, iterations):
    """Its function on our layout, in double precision, as its documentation recommends."""
    spectrograms = magnitudes.permute(3, 2, 1, 0).double().contiguous()
    pairs = torch.view_as_real(mixture.permute(2, 1, 0).to(torch.complex128).contiguous())
    # It writes into its input.
    found = filtering.wiener(spectrograms, pairs.clone(), iterations)
    return torch.view_as_complex(found.permute(4, 2, 1, 0, 3).contiguous())


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("iterations", [0, 1, 2, 5])
@pytest.mark.parametrize("gain", [0.01, 1, 100])
def test_equals_open_unmix(filtering, channels, iterations, gain):
    mixture = made_mixture(channels, 33, 40, gain=gain)
    magnitudes = made_magnitudes(mixture, 4)
    ours = wiener(magnitudes, mixture, iterations=iterations)
    theirs = as_open_unmix(filtering, magnitudes, mixture, iterations)
    assert ours.dtype == torch.complex64
    # What single precision resolves of the loudest bin: the input itself is rounded to it.
    assert (ours - theirs).abs().max() < 1e-6 * mixture.abs().max()


@pytest.mark.parametrize("iterations", [1, 2])
def test_two_channels_alike_are_no_trouble(filtering, iterations):
    mixture = made_mixture(1, 33, 40).expand(2, -1, -1).contiguous()
    magnitudes = made_magnitudes(mixture[:1], 4).expand(-1, 2, -1, -1).contiguous()
    ours = wiener(magnitudes, mixture, iterations=iterations)
    theirs = as_open_unmix(filtering, magnitudes, mixture, iterations)
    assert (ours - theirs).abs().max() < 1e-6 * mixture.abs().max()
    torch.testing.assert_close(ours[:, 0], ours[:, 1], rtol=1e-4, atol=1e-6)


def test_windows_are_filtered_on_their_own():
    mixture = made_mixture(2, 9, 70)
    magnitudes = made_magnitudes(mixture, 3)
    whole = wiener(magnitudes, mixture, iterations=2, window_frames=30)
    for window in (slice(0, 30), slice(30, 60), slice(60, 70)):
        alone = wiener(magnitudes[..., window], mixture[..., window], iterations=2)
        torch.testing.assert_close(whole[..., window], alone, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(whole, wiener(magnitudes, mixture, iterations=2), rtol=1e-3)


def test_items_of_a_batch_are_filtered_on_their_own():
    mixture = torch.stack([made_mixture(2, 9, 20), made_mixture(2, 9, 20, gain=100, seed=7)])
    magnitudes = made_magnitudes(mixture, 3)
    # As a network gives them: frames outermost in memory.
    strided = magnitudes.permute(4, 0, 1, 2, 3).contiguous().permute(1, 2, 3, 4, 0)
    both = wiener(strided, mixture, iterations=1)
    for index in range(2):
        alone = wiener(magnitudes[index], mixture[index], iterations=1)
        torch.testing.assert_close(both[index], alone, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 2])
def test_sources_sum_to_the_mixture(channels):
    mixture = made_mixture(channels, 33, 40, gain=10)
    magnitudes = made_magnitudes(mixture, 4)
    assert (magnitudes.sum(dim=0) - mixture.abs()).norm() > 0.5 * mixture.norm()
    refined = wiener(magnitudes, mixture, iterations=1).sum(dim=0)
    assert (refined - mixture).norm() < 1e-3 * mixture.norm()


def test_sources_on_different_sides_are_told_apart():
    """What magnitudes get wrong, the directions of the sources put right."""
    left, right = made_mixture(1, 17, 100), made_mixture(1, 17, 100, seed=3)
    sources = torch.stack([torch.cat([left, 0.1 * left]), torch.cat([0.1 * right, right])])
    mixture = sources.sum(dim=0)
    magnitudes = sources.abs() + 0.2 * mixture.abs()
    errors = [
        (wiener(magnitudes, mixture, iterations=count) - sources).norm().item() for count in (0, 1)
    ]
    assert errors[1] < 0.7 * errors[0]


@pytest.mark.parametrize("level", [0.0, 1e-30, 1e-12])
def test_silence_stays_silent(level):
    mixture = made_mixture(2, 9, 20, gain=level)
    found = wiener(made_magnitudes(mixture, 4), mixture, iterations=2)
    assert torch.isfinite(torch.view_as_real(found)).all()
    assert found.abs().max() <= 10 * level


def test_a_single_source_is_refused():
    mixture = made_mixture(2, 9, 20)
    with pytest.raises(ValueError, match="two sources"):
        wiener(made_magnitudes(mixture, 1), mixture, iterations=1)
