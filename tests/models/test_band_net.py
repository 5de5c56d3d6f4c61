"""The compact network: what it takes, what it leaves alone, and that it learns."""

import itertools
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from beamsplitter.models.networks.band_net import BandFeatures, BandNet, band_edges
from beamsplitter.models.networks.mask_model import MaskModel
from beamsplitter.models.networks.settings import BandNetSettings, network_settings
from beamsplitter.models.training.losses import si_sdr

DOCS = Path(__file__).parents[2] / "docs" / "compact-network.md"
SMALL = {
    "targets": ("speech",),
    "num_fft": 256,
    "window_size": 256,
    "hop_length": 64,
    "num_bands": 16,
    "hidden_size": 16,
}


def made_model(**values: object) -> MaskModel:
    torch.manual_seed(0)
    made = BandNetSettings.model_validate({**SMALL, **values})
    return MaskModel(made, BandNet(made))


def noise(*shape: int, seed: int = 1) -> Tensor:
    return 0.1 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("bins", [9, 65, 257, 1025])
@pytest.mark.parametrize("sample_rate", [8000, 16000, 44100, 192_000])
def test_bands_cover_each_bin_once_and_widen(bins: int, sample_rate: int) -> None:
    for bands in {1, 2, min(bins, 24), bins - 1, bins}:
        edges = band_edges(bins, bands, sample_rate)
        widths = [stop - start for start, stop in itertools.pairwise(edges)]
        assert edges[0] == 0
        assert len(widths) == bands
        assert sum(widths) == bins
        assert min(widths) >= 1
    widths = [b - a for a, b in itertools.pairwise(band_edges(1025, 32, sample_rate))]
    assert widths[-1] > 4 * widths[0]


def test_bands_are_linear_layers_side_by_side() -> None:
    edges = band_edges(65, 8, 16000)
    bands = BandFeatures(edges, 2, 3)
    spectra = noise(2, 5, 65, 2)
    described = bands(spectra)
    for band, (start, stop) in enumerate(itertools.pairwise(edges)):
        weight = bands.weight[band, : 2 * (stop - start)]
        expected = spectra[:, :, start:stop].flatten(2) @ weight + bands.bias[band]
        torch.testing.assert_close(described[:, :, band], expected)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("targets", [("speech",), ("speech", "music", "noise")])
def test_masks_of_all_targets_and_channels_lie_between_0_and_1(
    channels: int, targets: tuple[str, ...]
) -> None:
    model = made_model(num_channels=channels, targets=targets)
    waveforms = noise(2, channels, 3000)
    spectrograms = model.spectrograms(waveforms)
    masks = model.network(spectrograms).masks
    assert masks.shape == (2, len(targets), *spectrograms.shape[1:])
    assert masks.min() > 0
    assert masks.max() < 1
    assert masks.std() > 0.01
    assert model(waveforms).shape == (2, len(targets), channels, 3000)


@pytest.mark.parametrize(
    "values",
    [
        {"sample_rate": 8000, "num_fft": 16, "window_size": 16, "hop_length": 4},
        {"sample_rate": 44100, "num_fft": 1024, "window_size": 600, "hop_length": 300},
        {"num_bands": 1},
        {"num_bands": 1000},
        {"hidden_size": 2, "recurrent_depth": 1, "band_features": 1},
    ],
)
def test_every_size_of_spectrum_and_layers_will_do(values: dict[str, int]) -> None:
    estimate = made_model(**values)(noise(1, 1, 5000))
    assert estimate.shape == (1, 1, 1, 5000)
    assert estimate.isfinite().all()


def test_the_defaults_have_as_many_weights_as_the_docs_say() -> None:
    made = network_settings({"model_type": "BandNet", "targets": ("speech",)})
    assert isinstance(made, BandNetSettings)
    count = sum(weight.numel() for weight in BandNet(made).parameters())
    hidden, features = made.hidden_size, made.num_bands * made.band_features
    edges = band_edges(made.bins, made.num_bands, made.sample_rate)
    widest = max(b - a for a, b in itertools.pairwise(edges))
    gru = made.recurrent_depth * 2 * 3 * (hidden // 2) * (hidden + hidden // 2 + 2)
    assert count == (
        (widest * features + features)
        + (features * hidden + hidden)
        + gru
        + (2 * hidden * hidden + hidden)
        + 2 * 2 * hidden
        + (hidden * made.bins + made.bins)
    )
    assert f"has {count:,} weights" in DOCS.read_text()


@settings(deadline=None, max_examples=30)
@given(samples=st.integers(1, 2000), channels=st.sampled_from([1, 2]))
def test_every_length_comes_out_as_long(samples: int, channels: int) -> None:
    estimate = made_model(num_channels=channels)(noise(1, channels, samples))
    assert estimate.shape == (1, 1, channels, samples)
    assert estimate.isfinite().all()


@pytest.mark.parametrize("gain_db", [-160, -60, 60])
def test_the_level_of_an_excerpt_does_not_matter(gain_db: float) -> None:
    model = made_model()
    gain = 10 ** (gain_db / 20)
    waveforms = noise(1, 1, 4000)
    torch.testing.assert_close(model(gain * waveforms) / gain, model(waveforms))


def test_silence_stays_silence_with_finite_gradients() -> None:
    model = made_model(num_channels=2)
    waveforms = torch.zeros(2, 2, 3000, requires_grad=True)
    estimate = model(waveforms)
    assert estimate.abs().max() == 0
    si_sdr(estimate, noise(2, 1, 2, 3000)).mean().backward()
    gradients = [weight.grad for weight in model.parameters()]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)
    assert waveforms.grad is not None
    assert waveforms.grad.isfinite().all()


def test_items_of_a_batch_do_not_know_each_other() -> None:
    """Recurrence ran over the items of a batch in Auralflow."""
    model = made_model()
    waveforms = noise(3, 1, 3000)
    alone = torch.cat([model(each[None]) for each in waveforms])
    torch.testing.assert_close(model(waveforms), alone)
    changed = torch.cat([waveforms[:1], 30 * noise(2, 1, 3000, seed=5)])
    torch.testing.assert_close(model(changed)[0], alone[0])


def test_it_does_the_same_in_training_and_evaluation_each_time() -> None:
    model = made_model()
    waveforms = noise(1, 1, 3000)
    in_training = model.train()(waveforms)
    assert torch.equal(model.eval()(waveforms), in_training)


def test_every_weight_learns() -> None:
    model = made_model(num_channels=2, targets=("speech", "music"))
    model(noise(2, 2, 3000)).square().mean().backward()
    for name, weight in model.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.abs().max() > 0, name


@pytest.mark.filterwarnings("ignore:The tensor attributes")  # of torch's own GRU
def test_an_exported_network_is_the_same() -> None:
    """For blocks of one length, as separators give them: GRUs are exported for one."""
    model = made_model(num_channels=2).eval()
    spectrograms = model.spectrograms(noise(1, 2, 4000))
    exported = torch.export.export(model.network, (spectrograms,)).module()
    for gain, seed in ((1, 1), (1e-3, 2), (0, 3)):
        other = model.spectrograms(gain * noise(1, 2, 4000, seed=seed))
        torch.testing.assert_close(exported(other).masks, model.network(other).masks)


def test_it_learns_to_tell_a_low_tone_from_a_high_one() -> None:
    model = made_model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    generator = torch.Generator().manual_seed(3)
    times = torch.arange(4000) / 16000
    scores = []
    for _ in range(40):
        low = torch.sin(2 * math.pi * (300 + 200 * torch.rand(4, 1, generator=generator)) * times)
        high = torch.sin(2 * math.pi * (2e3 + 3e3 * torch.rand(4, 1, generator=generator)) * times)
        estimate = model((low + high)[:, None])[:, 0, 0]
        score = si_sdr(estimate, low).mean()
        scores.append(score.item())
        optimizer.zero_grad()
        (-score).backward()
        optimizer.step()
    assert scores[-1] > scores[0] + 10
