"""Demucs as a separator: against the demucs package itself, and files that are no networks."""

import builtins
import functools
import io
import json
import os
import random
import subprocess
import sys
import zipfile
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from audio_files import recording
from demucs.apply import TensorChunk, apply_model
from demucs.hf import load_safetensors_model
from demucs.pretrained import REMOTE_ROOT
from demucs.states import load_model
from demucs_models import (
    STEMS,
    tiny_demucs,
    tiny_hdemucs,
    tiny_htdemucs,
    write_safetensors,
    write_th,
)

from beamsplitter.models.separators import demucs as separators
from beamsplitter.models.separators.base import ModelError, alone
from beamsplitter.models.separators.demucs import DemucsSeparator, load_folder, load_network
from beamsplitter.models.separators.mixing import MixingOptions, Position, separate_part
from beamsplitter.models.separators.plain_runner import DeviceOptions
from beamsplitter.models.separators.server import runner_of

HTDEMUCS = "955717e8"
FT = ("f7e0c4bc", "d12395a8", "92cfc3b6", "04573f0d")
MAKERS = {"htdemucs": tiny_htdemucs, "hdemucs": tiny_hdemucs, "demucs": tiny_demucs}
# What demucs adds to this block is an odd number of samples.
ODD = {"demucs, odd": lambda: tiny_demucs(segment=Fraction(44101, 44100))}
KINDS = MAKERS | ODD


@functools.cache
def network_of(kind):
    return KINDS[kind]()


@functools.cache
def separator_of(kind):
    return DemucsSeparator("x", KINDS[kind]())


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def noise(batch, samples, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 2, samples, generator=generator)


def same_state(module, other):
    ours, theirs = module.state_dict(), other.state_dict()
    assert ours.keys() == theirs.keys()
    return all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("kept", [44100, 20001])
def test_a_block_equals_apply_model(kind, kept):
    """In the middle of a recording, where a network that needs more takes real audio around."""
    separator = separator_of(kind)
    mixture = noise(1, 3 * 44100)
    start = 30000
    chunk = TensorChunk(mixture, start, kept)
    expected = apply_model(network_of(kind), chunk, shifts=0, split=False)
    lengths = separator.block_lengths
    samples = lengths.fitting(kept) if lengths else separator.block_samples
    before = (samples - kept) // 2
    with torch.inference_mode():
        block = mixture[..., start - before : start - before + samples]
        given = separator.forward(torch.cat([noise(1, samples, seed=2), block]))
    assert given.shape == (2, 4, 2, samples)
    torch.testing.assert_close(given[1:, ..., before : before + kept], expected, rtol=0, atol=1e-5)
    assert expected.abs().max() > 0.01


@pytest.mark.parametrize(
    "network",
    [
        tiny_demucs(),
        tiny_demucs(resample=False),
        tiny_demucs(depth=3, kernel_size=6, stride=2),
        tiny_hdemucs(),
    ],
)
def test_blocks_have_the_lengths_that_demucs_calls_valid(network):
    lengths = DemucsSeparator("x", network).block_lengths
    valid_length = getattr(network, "valid_length", lambda samples: samples)
    for samples in [*range(1, 3000), *range(43000, 43300)]:
        assert lengths.fitting(samples) == valid_length(samples)


def test_a_short_block_in_the_middle_of_zeros_equals_apply_model():
    """A recording shorter than a block: demucs pads it on both sides, and so does the engine."""
    mixture = noise(1, 30000)
    expected = apply_model(network_of("htdemucs"), mixture, shifts=0, split=True)
    separator = separator_of("htdemucs")
    spare = separator.block_samples - 30000
    with torch.inference_mode():
        given = separator.forward(
            torch.nn.functional.pad(mixture, (spare // 2, spare - spare // 2))
        )
    kept = given[..., spare // 2 : spare // 2 + 30000]
    torch.testing.assert_close(kept, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", MAKERS)
def test_files_load_as_demucs_loads_them(kind, tmp_path):
    module = MAKERS[kind]()
    th = write_th(module, tmp_path, "aa")
    safetensors = write_safetensors(module, tmp_path, "aa")
    assert same_state(load_network(th), load_model(th))
    loaded = load_network(safetensors)
    assert same_state(loaded, load_safetensors_model(safetensors))
    assert same_state(loaded, module)
    assert type(loaded) is type(module)
    assert loaded._init_args_kwargs == module._init_args_kwargs


def test_a_published_file_names_numpy_as_it_was_then(tmp_path):
    """NumPy 1 pickled the metrics; the module that its scalars came from has another name today."""
    path = write_th(tiny_htdemucs(), tmp_path, HTDEMUCS)
    content = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(content, "w") as new:
        for item in old.infolist():
            data = old.read(item)
            if item.filename.endswith("data.pkl"):
                assert b"numpy._core.multiarray\nscalar" in data
                data = data.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
            new.writestr(item.filename, data)
    path.write_bytes(content.getvalue())
    assert same_state(load_network(path), tiny_htdemucs())


class Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.system, (f"touch {self.path}",))


class Compute:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (builtins.exec, (f"open({str(self.path)!r}, 'w')",))


@pytest.mark.parametrize("payload", [Touch, Compute])
@pytest.mark.parametrize("where", ["metrics", "state", "klass"])
def test_a_pickle_that_runs_something_is_refused_and_not_run(payload, where, tmp_path):
    sign = tmp_path / "touched"
    path = tmp_path / f"{HTDEMUCS}.th"
    args, kwargs = tiny_htdemucs()._init_args_kwargs
    content = {"klass": type(tiny_htdemucs()), "args": args, "kwargs": kwargs, "state": {}}
    torch.save({**content, where: payload(sign)}, path)
    with pytest.raises(
        ModelError, match=rf"{path}.*holds more than a network: (posix\.system|exec)"
    ):
        load_network(path)
    assert not sign.exists()
    # The pickle does run something where it is trusted.
    torch.load(path, weights_only=False)
    assert sign.exists()


def test_a_pickle_makes_no_network_by_itself(tmp_path, monkeypatch):
    """The class stands in the file; only its name is taken."""
    from demucs.htdemucs import HTDemucs

    class MakesOne:
        def __reduce__(self):
            return (HTDemucs, (STEMS,))

    path = tmp_path / "aa.th"
    torch.save({"klass": HTDemucs, "args": MakesOne(), "kwargs": {}, "state": {}}, path)
    made = []
    monkeypatch.setattr(HTDemucs, "__init__", lambda *arguments, **_: made.append(arguments))
    with pytest.raises(ModelError, match=f"{path}: "):
        load_network(path)
    assert not made


def damaged(path: Path, how: str) -> None:
    if how == "cut":
        path.write_bytes(path.read_bytes()[:2000])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "text":
        path.write_text("<html>not found</html>")


@pytest.mark.parametrize("how", ["cut", "empty", "text"])
@pytest.mark.parametrize("write", [write_th, write_safetensors])
def test_a_damaged_file_is_named(how, write, tmp_path):
    path = write(tiny_htdemucs(), tmp_path, "aa")
    damaged(path, how)
    with pytest.raises(ModelError, match=f"{path}: .*fetch"):
        load_network(path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"klass": "subprocess.Popen"}, "subprocess.Popen is none of demucs.demucs.Demucs"),
        ({"klass": "demucs.solver.Solver"}, "demucs.solver.Solver is none of"),
        ({"structure": "{}"}, "quantised"),
        ({"args": "["}, "is no network"),
        ({"kwargs": json.dumps({"sources": STEMS, "channels": 4})}, "is no network"),
    ],
)
def test_safetensors_name_only_networks_of_demucs(change, said, tmp_path):
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    path = write_safetensors(tiny_htdemucs(), tmp_path, "aa")
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    save_file(load_file(path), path, {**metadata, **change})
    with pytest.raises(ModelError, match=said):
        load_network(path)


def test_parameters_that_demucs_dropped_are_left_out(tmp_path):
    module = tiny_htdemucs()
    args, kwargs = module._init_args_kwargs
    module._init_args_kwargs = (args, {**kwargs, "of_old": 1})
    assert same_state(load_network(write_th(module, tmp_path, "aa")), module)


def test_a_bag_of_fine_tuned_networks_runs_one_for_each_stem(tmp_path):
    for seed, signature in enumerate(FT):
        write_th(tiny_htdemucs(seed, t_layers=1), tmp_path, signature)
    members = load_folder("htdemucs_ft", tmp_path)
    assert [member.weights for member in members] == [{stem: 1.0} for stem in STEMS]
    for seed, member in enumerate(members):
        block = 0.1 * torch.randn(1, 2, 44100)
        with torch.inference_mode():
            expected = tiny_htdemucs(seed, t_layers=1)(block)
            torch.testing.assert_close(member.separator.forward(block), expected, rtol=0, atol=1e-5)
        assert member.separator.name == "demucs:htdemucs_ft"
        assert member.separator.stems == tuple(STEMS)
        assert member.separator.normalizes


def test_a_bag_with_weights_takes_them_and_its_segment(tmp_path):
    makers = (tiny_demucs, tiny_hdemucs, tiny_demucs, tiny_hdemucs)
    signatures = ("0d19c1c6", "7ecf8ec1", "c511e2ab", "7d865c68")
    for make, signature in zip(makers, signatures, strict=True):
        write_safetensors(make(), tmp_path, signature)
    members = load_folder("mdx", tmp_path)
    assert [set(member.weights) for member in members] == [
        {"drums", "bass"},
        {"bass"},
        {"drums", "other", "vocals"},
        {"drums", "other", "vocals"},
    ]
    assert [each.separator.block_samples for each in members] == [44 * 44100] * 4


def test_a_single_network_has_the_say_in_all_stems(tmp_path):
    write_th(tiny_htdemucs(), tmp_path, HTDEMUCS)
    (member,) = load_folder("htdemucs", tmp_path)
    assert member.weights == dict.fromkeys(STEMS, 1.0)
    assert (member.separator.block_samples, member.separator.overlap) == (44100, 0.25)


def test_a_transformer_keeps_its_length(tmp_path):
    separator = DemucsSeparator("x", tiny_htdemucs(segment=Fraction(3, 4)), segment_s=44)
    assert separator.block_samples == int(Fraction(3, 4) * 44100)


def test_a_network_for_other_stems_is_refused(tmp_path):
    write_th(tiny_htdemucs(sources=["voice", "rest"]), tmp_path, HTDEMUCS)
    with pytest.raises(ModelError, match=rf"{HTDEMUCS}.*voice, rest .*44100 Hz"):
        load_folder("htdemucs", tmp_path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ModelError, match=f"{tmp_path}: has neither {HTDEMUCS}.safetensors"):
        load_folder("htdemucs", tmp_path)


@pytest.mark.parametrize("name", separators.RELEASES)
def test_what_is_described_is_what_demucs_publishes(name):
    import yaml

    bag = yaml.safe_load((REMOTE_ROOT / f"{name}.yaml").read_text())
    description = separators.describe(name, {})
    weights = bag.get("weights", [[1.0] * len(description.stems)])
    assert all(len(row) == len(description.stems) for row in weights)
    assert description.sample_rates == (44100,)
    assert description.normalizes
    assert description.context_s >= bag.get("segment", 7.8)
    assert len(description.sha256.split("+")) == len(bag["models"])


@pytest.mark.parametrize(
    ("name", "said"),
    [("mdx_q", "quantised.*use demucs:mdx,"), ("nothing", "there is no such.*htdemucs_ft")],
)
def test_other_names_are_refused(name, said):
    with pytest.raises(ModelError, match=said):
        separators.describe(name, {})


def test_options_are_refused():
    with pytest.raises(ValueError, match="segment: "):
        separators.describe("htdemucs", {"segment": 5})


def test_without_the_package_it_tells_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "demucs", None)
    assert separators.describe("htdemucs", {}).stems == separators.STEMS
    with pytest.raises(ModelError, match=r"pip install 'beamsplitter\[demucs\]'"):
        separators.load_folder("htdemucs", tmp_path)


def test_describing_imports_no_torch():
    code = (
        "import sys; from beamsplitter.models.separators.demucs import describe; "
        "describe('htdemucs', {}); sys.exit('torch' in sys.modules or 'demucs' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def separated(separator, mixture, options=None):
    members = alone(separator)
    return separate_part(
        mixture,
        44100,
        members,
        runner_of(members, DeviceOptions(device="cpu")),
        position=Position(0, mixture.shape[1], 0, mixture.shape[1]),
        stems=STEMS,
        options=options,
    )


def applied(module, mixture, **options):
    """What demucs' own command makes of a mixture."""
    mono = torch.from_numpy(mixture).mean(0)
    mean, deviation = mono.mean(), mono.std() + 1e-8
    normalised = (torch.from_numpy(mixture) - mean) / deviation
    with torch.inference_mode():
        stems = apply_model(module, normalised[None], **options)[0]
    return dict(zip(STEMS, (stems * deviation + mean).numpy(), strict=True))


def sound(samples):
    generator = np.random.default_rng(samples)
    return (0.3 * generator.standard_normal((2, samples)) + 0.05).astype(np.float32)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("samples", [1, 2, 1000, 33075, 33076, 44100, 66150, 101003])
def test_a_whole_recording_is_what_demucs_makes_of_it(kind, samples):
    mixture = sound(samples)
    made = separated(separator_of(kind), mixture)
    # The deviation of a single sample is none, which demucs divides by.
    expected = applied(network_of(kind), mixture, shifts=0) if samples > 1 else None
    for stem in STEMS:
        assert made[stem].shape == mixture.shape
        assert np.isfinite(made[stem]).all()
        if expected:
            np.testing.assert_allclose(made[stem], expected[stem], atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("samples", [10000, 80000])
def test_a_shift_is_that_of_demucs(kind, samples, monkeypatch):
    mixture = sound(samples)
    begins = -int(np.random.default_rng([3, 0, 0]).integers(22051))
    monkeypatch.setattr(random, "randint", lambda _least, most: most + begins)
    made = separated(separator_of(kind), mixture, MixingOptions(shifts=1, seed=3))
    for stem, expected in applied(network_of(kind), mixture, shifts=1).items():
        np.testing.assert_allclose(made[stem], expected, atol=1e-5)


@pytest.mark.parametrize("make", [tiny_hdemucs, tiny_htdemucs])
def test_seams_are_no_worse_than_what_lies_between_them(make):
    """SNR against a single pass: within 50 ms of seams at most 3 dB below the median elsewhere."""
    mixture, rate = soundfile.read(recording("fishin.ogg"), frames=6 * 44100, dtype="float32")
    mixture = np.ascontiguousarray(mixture.T)
    separator = DemucsSeparator("x", make())
    made = separated(separator, mixture)
    whole = make()
    whole.use_train_segment = False
    expected = applied(whole, mixture, shifts=0, split=False)
    reach, stride = rate // 20, int((1 - separator.overlap) * separator.block_samples)
    begins = range(0, mixture.shape[1], stride)
    seams = [edge for begin in begins for edge in (begin, begin + separator.block_samples)]

    def snr_db(place):
        where = slice(place - reach, place + reach)
        truth = np.stack([expected[stem][:, where] for stem in STEMS])
        error = np.stack([made[stem][:, where] for stem in STEMS]) - truth
        return 10 * np.log10(np.square(truth).sum() / np.square(error).sum())

    places = range(rate, 5 * rate, reach)
    elsewhere = [
        snr_db(place) for place in places if min(abs(place - seam) for seam in seams) > 2 * reach
    ]
    at_seams = [snr_db(seam) for seam in seams if rate < seam < 5 * rate]
    assert np.median(at_seams) > np.median(elsewhere) - 3
