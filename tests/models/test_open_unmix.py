"""Open-Unmix against its own package, on small networks with random weights."""

import os
import subprocess
import sys
import types

import numpy as np
import pytest
import torch

from beamsplitter.models import model_cache
from beamsplitter.models.networks.open_unmix import OpenUnmix, Targets
from beamsplitter.models.separators.base import ModelError, alone
from beamsplitter.models.separators.mixing import Position, separate_part
from beamsplitter.models.separators.open_unmix import (
    LAYOUTS,
    Layout,
    OpenUnmixOptions,
    OpenUnmixSeparator,
    describe,
    load,
    load_folder,
)
from beamsplitter.models.separators.plain_runner import DeviceOptions
from beamsplitter.models.separators.server import runner_of

STEREO = Layout(("vocals", "drums", "bass", "other"), 44100, 2, 256, 64)
MONO = Layout(("speech", "noise"), 16000, 1, 128, 64)


@pytest.fixture(scope="module")
def upstream():
    """`openunmix.model`. The package imports torchaudio, whose libraries need a GPU's torch."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "torchaudio", types.ModuleType("torchaudio"))
        import openunmix.model

        yield openunmix.model


def made_network(layout, seed):
    """Weights and statistics as training leaves them: none is 0 or 1."""
    torch.manual_seed(seed)
    bins = layout.n_fft // 2 + 1
    network = OpenUnmix(
        channels=layout.channels, bins=bins, used_bins=bins * 3 // 4, hidden_size=16
    )
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if tensor.dtype == torch.float32 and tensor.dim() == 1:
                tensor.copy_(torch.rand_like(tensor) + ("mean" not in name) * 0.5)
    return network.eval()


def made_networks(layout):
    return {stem: made_network(layout, seed) for seed, stem in enumerate(layout.stems)}


def made_separator(layout, iterations=1):
    return OpenUnmixSeparator("umxhq", layout, Targets(made_networks(layout)), iterations)


def made_blocks(layout, batch=1, samples=12345, seed=0):
    """Noise with some tones: float32 `(batch, channels, samples)`."""
    generator = np.random.default_rng(seed)
    time_s = np.arange(samples) / layout.sample_rate
    tones = np.sin(2 * np.pi * generator.uniform(100, 3000, (batch, layout.channels, 1)) * time_s)
    noise = generator.standard_normal((batch, layout.channels, samples))
    return torch.from_numpy((0.3 * tones + 0.1 * noise).astype(np.float32))


def upstream_separator(upstream, layout, iterations):
    networks = {}
    for stem, ours in made_networks(layout).items():
        networks[stem] = upstream.OpenUnmix(
            nb_bins=ours.bins, nb_channels=ours.channels, hidden_size=16, max_bin=ours.used_bins
        )
        networks[stem].load_state_dict(ours.state_dict())
    separator = upstream.Separator(
        networks,
        niter=iterations,
        n_fft=layout.n_fft,
        n_hop=layout.hop_length,
        nb_channels=layout.channels,
        sample_rate=layout.sample_rate,
    )
    return separator.eval()


@pytest.mark.parametrize("layout", [STEREO, MONO], ids=["stereo", "mono"])
@pytest.mark.parametrize("iterations", [0, 1, 2])
@torch.inference_mode()
def test_equals_open_unmix(upstream, layout, iterations):
    # More frames than a window of the Wiener filter has, and no whole number of hops.
    blocks = made_blocks(layout, batch=2, samples=400 * layout.hop_length + 17)
    ours = made_separator(layout, iterations).forward(blocks)
    theirs = upstream_separator(upstream, layout, iterations)(blocks)
    assert ours.shape == (2, len(layout.stems), layout.channels, blocks.shape[-1])
    assert 0.01 < theirs.abs().max() < 100
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


@torch.inference_mode()
def test_items_of_a_batch_do_not_mix():
    blocks = made_blocks(STEREO, batch=2)
    separator = made_separator(STEREO)
    alone = torch.cat([separator.forward(block[None]) for block in blocks])
    torch.testing.assert_close(separator.forward(blocks), alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("samples", [5000, 64 * 100])
@torch.inference_mode()
def test_stems_sum_to_the_mixture(samples):
    blocks = made_blocks(STEREO, samples=samples)
    total = made_separator(STEREO).forward(blocks).sum(dim=1)
    torch.testing.assert_close(total, blocks, rtol=0, atol=1e-3)
    unfiltered = made_separator(STEREO, iterations=0).forward(blocks).sum(dim=1)
    assert (unfiltered - blocks).abs().max() > 0.1


@pytest.mark.parametrize("iterations", [0, 1])
@torch.inference_mode()
def test_silence_and_channels_alike_are_no_trouble(iterations):
    blocks = made_blocks(STEREO)[:, :1].expand(-1, 2, -1).clone()
    blocks[..., 4000:9000] = 0
    separator = made_separator(STEREO, iterations)
    assert separator.forward(blocks).isfinite().all()
    assert separator.forward(torch.zeros_like(blocks)).abs().max() == 0


@torch.inference_mode()
def test_bfloat16_is_near():
    blocks = made_blocks(STEREO)
    expected = made_separator(STEREO).forward(blocks)
    with torch.autocast("cpu", torch.bfloat16):
        found = made_separator(STEREO).forward(blocks)
    assert found.dtype == torch.float32
    assert (found - expected).norm() < 0.05 * expected.norm()


@pytest.mark.parametrize("name", LAYOUTS)
def test_blocks_are_what_is_declared(name):
    layout = LAYOUTS[name]
    description = describe(name, {})
    separator = OpenUnmixSeparator(name, layout, Targets(made_networks(MONO)), 1)
    assert description.stems == layout.stems
    assert description.sample_rates == (layout.sample_rate,) == (separator.sample_rate,)
    kept = separator.block_samples - 2 * separator.context_samples
    stride = int(kept * (1 - separator.overlap))
    for samples in (separator.block_samples, separator.context_samples, stride):
        assert samples % layout.hop_length == 0
    assert 20 < separator.block_samples / layout.sample_rate < 30
    assert 2 < separator.context_samples / layout.sample_rate < 3
    # A part that needs the last sample of a block needs all of it.
    assert description.context_s * layout.sample_rate == pytest.approx(separator.block_samples)


def test_describing_needs_no_torch():
    code = (
        "import sys\n"
        "from beamsplitter.models.separators.open_unmix import describe\n"
        "describe('umxl', {'wiener_iterations': 0})\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_names_and_options_are_checked():
    with pytest.raises(ModelError, match=r"umx:umxq: .*umx, umxhq, umxl, umxse"):
        describe("umxq", {})
    with pytest.raises(ModelError, match=r"umx:\.\./umx"):
        load("../umx", {})
    with pytest.raises(ValueError, match=r"wiener_iterations: .*0"):
        describe("umxl", {"wiener_iterations": -1})
    with pytest.raises(ValueError, match="the options are: wiener_iterations"):
        load("umxl", {"niter": 1})
    assert describe("umxl", {}).resolved_options == '{"wiener_iterations":1}'
    assert describe("umxl", {}).sha256 != describe("umxhq", {}).sha256


def write_weights(folder, layout, *, legacy=False):
    """As they are published: with what the first release kept in its networks."""
    for stem, network in made_networks(layout).items():
        state = network.state_dict()
        if legacy:
            state["sample_rate"] = torch.tensor(layout.sample_rate)
            state["stft.window"] = state["transform.0.window"] = torch.hann_window(layout.n_fft)
        torch.save(
            state,
            folder / f"{stem}-0123abcd.pth",
            _use_new_zipfile_serialization=not legacy,
        )
    return folder


@pytest.mark.parametrize("legacy", [False, True])
@torch.inference_mode()
def test_weights_are_read(tmp_path, legacy):
    folder = write_weights(tmp_path, STEREO, legacy=legacy)
    (member,) = load_folder("umxhq", STEREO, folder, OpenUnmixOptions())
    assert member.separator.name == "umx:umxhq"
    assert member.weights == dict.fromkeys(STEREO.stems, 1.0)
    assert not member.separator.module.training
    blocks = made_blocks(STEREO)
    expected = made_separator(STEREO).forward(blocks)
    assert torch.equal(member.separator.forward(blocks), expected)


@torch.inference_mode()
def test_without_a_filter_each_stem_runs_on_its_own(tmp_path):
    write_weights(tmp_path, STEREO)
    members = load_folder("umxhq", STEREO, tmp_path, OpenUnmixOptions(wiener_iterations=0))
    assert [dict(member.weights) for member in members] == [{stem: 1.0} for stem in STEREO.stems]
    blocks = made_blocks(STEREO)
    alone = torch.cat([member.separator.forward(blocks) for member in members], dim=1)
    together = made_separator(STEREO, iterations=0).forward(blocks)
    torch.testing.assert_close(alone, together, rtol=0, atol=1e-6)


@torch.inference_mode()
def test_blocks_give_what_the_whole_gives(tmp_path):
    """A random LSTM forgets within the context, so that all of the difference would be ours."""
    write_weights(tmp_path, STEREO)
    members = load_folder("umxhq", STEREO, tmp_path, OpenUnmixOptions(wiener_iterations=0))
    separator = members[0].separator
    blocks = made_blocks(STEREO, samples=4 * separator.block_samples + 999)
    expected = made_separator(STEREO, iterations=0).forward(blocks)[0]
    ran = []
    runner = runner_of(members, DeviceOptions(device="cpu"))

    def run(member_index, *arguments):
        ran.append(member_index)
        return runner(member_index, *arguments)

    total = blocks.shape[-1]
    found = separate_part(
        blocks[0].numpy(),
        STEREO.sample_rate,
        members,
        run,
        position=Position(0, total, 0, total),
        stems=("drums", "other"),
    )
    assert set(ran) == {1, 3}
    for stem, index in (("drums", 1), ("other", 3)):
        ours = torch.from_numpy(found[stem])
        torch.testing.assert_close(ours, expected[index], rtol=0, atol=1e-5)


@pytest.mark.parametrize("samples", [1, 100, 129, 5000, 630 * 64])
@pytest.mark.parametrize("iterations", [0, 1])
@torch.inference_mode()
def test_a_recording_that_fits_into_the_first_block_is_separated_as_a_whole(
    upstream, iterations, samples
):
    members = alone(made_separator(STEREO, iterations))
    blocks = made_blocks(STEREO, samples=samples)
    found = separate_part(
        blocks[0].numpy(),
        STEREO.sample_rate,
        members,
        runner_of(members, DeviceOptions(device="cpu")),
        position=Position(0, samples, 0, samples),
        stems=STEREO.stems,
    )
    ours = torch.from_numpy(np.stack([found[stem] for stem in STEREO.stems]))
    assert ours.shape == (4, 2, samples)
    assert ours.isfinite().all()
    # Shorter ones can't be mirrored: open-unmix fails.
    if samples > STEREO.n_fft // 2:
        theirs = upstream_separator(upstream, STEREO, iterations)(blocks)[0]
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_the_cache_gives_the_files(tmp_path, monkeypatch):
    wanted = []

    def fetch(self, entry):
        wanted.append(entry.name)
        return write_weights(tmp_path, LAYOUTS["umxse"])

    monkeypatch.setattr(model_cache.ModelCache, "fetch", fetch)
    (member,) = load("umxse", {"wiener_iterations": 3})
    assert wanted == ["umx:umxse"]
    assert member.separator.stems == ("speech", "noise")
    assert member.separator.wiener_iterations == 3


def changed_state(**changes):
    state = made_network(STEREO, 0).state_dict()
    state.update(changes)
    return {name: tensor for name, tensor in state.items() if tensor is not None}


class Malicious:
    """Unpickling it runs a command."""

    def __reduce__(self):
        return os.system, ("touch ran-from-weights",)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "EOFError"),
        (b"<html>not found</html>", "UnpicklingError"),
        ([1, 2], "TypeError"),
        (changed_state(**{"bn1.running_var": None}), "bn1.running_var"),
        (changed_state(input_mean=None), "input_mean"),
        (changed_state(extra=torch.zeros(1)), "extra"),
        (changed_state(**{"fc2.weight": torch.zeros(3, 3)}), "fc2.weight"),
        ({"input_mean": 3}, "AttributeError"),
        (made_network(MONO, 0).state_dict(), "1 channels and 65 bins"),
        (Malicious(), "UnpicklingError"),
    ],
)
def test_bad_weights_are_refused(tmp_path, monkeypatch, content, said):
    monkeypatch.chdir(tmp_path)
    folder = write_weights(tmp_path, STEREO)
    path = folder / "bass-0123abcd.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(ModelError) as caught:
        load_folder("umxhq", STEREO, folder, OpenUnmixOptions())
    assert str(caught.value).startswith(str(path))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran-from-weights").exists()


def test_a_truncated_file_is_refused(tmp_path):
    path = write_weights(tmp_path, STEREO) / "bass-0123abcd.pth"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ModelError, match=r"bass-0123abcd\.pth: "):
        load_folder("umxhq", STEREO, tmp_path, OpenUnmixOptions())


def test_each_stem_has_one_file(tmp_path):
    write_weights(tmp_path, STEREO)
    (tmp_path / "vocals-11111111.pth").touch()
    with pytest.raises(ModelError, match=r"vocals….pth .* vocals-0123abcd.pth, vocals-1"):
        load_folder("umxhq", STEREO, tmp_path, OpenUnmixOptions())
    (tmp_path / "vocals-11111111.pth").unlink()
    (tmp_path / "bass-0123abcd.pth").unlink()
    with pytest.raises(ModelError, match=r"bass….pth .*none"):
        load_folder("umxhq", STEREO, tmp_path, OpenUnmixOptions())
