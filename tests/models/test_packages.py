"""Model packages: made as audacitorch does, run as Audacity does; hostile ones are refused."""

import contextlib
import itertools
import json
import pickle
import re
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from facts import assert_names
from hypothesis import given
from hypothesis import strategies as st
from model_packages import (
    METADATA,
    RATE,
    Halves,
    Loudness,
    MidSide,
    SpectralHalves,
    Twice,
    Volume,
    export,
    write_labeler,
    write_package,
)
from torch._export.serde import schema, serialize

from beamsplitter.models.packages.exported import ExportedModel, load_exported
from beamsplitter.models.packages.metadata import problems, read_metadata
from beamsplitter.models.packages.shape_limits import ShapeLimits
from beamsplitter.models.separators.base import ModelError
from beamsplitter.models.separators.labeler import Labeler
from beamsplitter.models.separators.labelling import label_part
from beamsplitter.models.separators.mixing import Position, separate_part
from beamsplitter.models.separators.model_package import (
    PackageSeparator,
    describe,
    load,
    stem_names,
)
from beamsplitter.models.separators.plain_runner import DeviceOptions
from beamsplitter.models.separators.server import runner_of

OPTIONS = {"block_seconds": 2.0, "context_seconds": 0.1}
DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")),
]
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit")


def separator_of(address, **options):
    (member,) = load(address, {**OPTIONS, **options})
    assert set(member.weights.values()) == {1.0}
    return member.separator


def noise(channels, samples, seed=0):
    generator = np.random.default_rng(seed)
    return (0.3 * generator.standard_normal((channels, samples))).astype(np.float32)


def separate(address, mixture, **options):
    members = load(address, {**OPTIONS, **options})
    whole = Position(0, mixture.shape[1], 0, mixture.shape[1])
    stems = members[0].separator.stems
    run = runner_of(members, DeviceOptions(device="cpu"))
    return separate_part(mixture, RATE, members, run, position=whole, stems=stems)


@pytest.fixture(scope="module")
def exported_halves(tmp_path_factory):
    """A sound exported model, from which the hostile ones are made."""
    path = tmp_path_factory.mktemp("exported") / "model.pt2"
    export(path, SpectralHalves(), torch.randn(1, 4000))
    return path


# --- what packages give


def test_volume_model_of_the_readme(tmp_path):
    package = write_package(tmp_path / "booster-net", Volume(), sample_rate=48000)
    description = describe(package, {})
    assert description.stems == ("boosted",)
    assert description.effect == "stems"
    assert description.sample_rates == (48000,)
    separator = load(package, {})[0].separator
    assert isinstance(separator, PackageSeparator)
    assert (separator.sample_rate, separator.channels) == (48000, 1)
    assert separator.block_samples == 30 * 48000
    assert separator.context_samples == 24000
    assert description.context_s == 30
    block = noise(1, 4000)
    np.testing.assert_array_equal(separator.separate(block, 48000), block[None] * 2)


@pytest.mark.parametrize("how", ["script", "trace", "pt2"])
@pytest.mark.parametrize("device", DEVICES)
def test_a_batch_gives_what_the_model_gives_block_by_block(tmp_path, how, device):
    package = write_package(tmp_path, Halves(), how, labels=["low", "high"])
    separator = separator_of(package)
    separator.module.to(device)
    blocks = torch.from_numpy(np.stack([noise(1, 16000, seed) for seed in range(3)])).to(device)
    with torch.inference_mode():
        stems = separator.forward(blocks)
        reference = Halves().to(device)
        expected = torch.stack([reference(block)[:, None] for block in blocks])
    assert stems.shape == (3, 2, 1, 16000)
    torch.testing.assert_close(stems, expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(stems.sum(dim=1), blocks, atol=1e-6, rtol=0)


@pytest.mark.parametrize("device", DEVICES)
def test_an_exported_model_equals_the_module_that_torch_loads(exported_halves, device):
    model = load_exported(exported_halves, "toy").to(device)
    reference = torch.export.load(exported_halves).module()
    for samples in (2000, 4001, 12345):
        block = torch.from_numpy(noise(1, samples))
        ours = model(block.to(device)).cpu()
        assert ours.abs().max() > 0.1
        torch.testing.assert_close(ours, reference(block), atol=1e-5, rtol=0)


@pytest.mark.parametrize("changes", [{}, {"bias": False}])
def test_recurrent_models_are_exported_too(tmp_path, changes):
    class Recurrent(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = torch.nn.LSTM(8, 8, 2, batch_first=True, bidirectional=True, **changes)
            self.norm = torch.nn.BatchNorm1d(16)

        def forward(self, x):
            hidden, _ = self.lstm(x.reshape(1, -1, 8))
            return self.norm(hidden.transpose(1, 2))[0, :1].repeat_interleave(8, dim=1)

    torch.manual_seed(0)
    module = Recurrent().eval()
    path = tmp_path / "model.pt2"
    export(path, module, torch.randn(1, 80), dynamic=False)
    block = torch.from_numpy(noise(1, 80))
    with torch.inference_mode():
        torch.testing.assert_close(load_exported(path, "toy")(block), module(block))


def test_model_pt2_is_taken_where_both_are(tmp_path):
    package = write_package(tmp_path, Volume())
    only_script = describe(package, {}).sha256
    write_package(tmp_path, Halves(), "pt2", labels=["low", "high"])
    assert describe(package, {}).sha256 != only_script
    assert separator_of(package).separate(noise(1, 16000), RATE).shape == (2, 1, 16000)


def test_stereo_model_gives_one_stem_for_both_channels(tmp_path):
    package = write_package(tmp_path, MidSide(), multichannel=True, labels=["mid", "side"])
    separator = separator_of(package)
    assert separator.channels is None
    mono, stereo = noise(1, 4000), noise(2, 4000)
    np.testing.assert_allclose(separator.separate(mono, RATE)[0], mono, atol=1e-7)
    mid = stereo.mean(axis=0)
    expected = np.stack([[mid, mid], [mid - stereo[1]] * 2])
    np.testing.assert_allclose(separator.separate(stereo, RATE), expected, atol=1e-6)


def test_more_channels_are_taken_in_pairs(tmp_path):
    package = write_package(tmp_path, MidSide(), multichannel=True, labels=["mid", "side"])
    separator = separator_of(package)
    five = noise(5, 4000)
    stems = separator.separate(five, RATE)
    assert stems.shape == (2, 5, 4000)
    for pair in (slice(0, 2), slice(2, 4), slice(4, 5)):
        np.testing.assert_array_equal(stems[:, pair], separator.separate(five[pair], RATE))


def test_mono_model_keeps_the_channels_or_sums_them_as_audacity_does(tmp_path):
    package = write_package(tmp_path, Halves(), labels=["low", "high"])
    stereo = noise(2, 5 * RATE)
    apart = separate(package, stereo)
    for channel in range(2):
        alone = separate(package, stereo[channel : channel + 1])
        for stem in ("low", "high"):
            np.testing.assert_allclose(apart[stem][channel], alone[stem][0], atol=1e-6)
    summed = separate(package, stereo.sum(axis=0, keepdims=True))
    downmixed = separate(package, stereo, downmix=True)
    for stem in ("low", "high"):
        assert downmixed[stem].shape == stereo.shape
        for channel in range(2):
            np.testing.assert_allclose(downmixed[stem][channel], summed[stem][0], atol=1e-6)


def test_blocks_leave_no_seams(tmp_path):
    package = write_package(tmp_path, Halves(), labels=["low", "high"])
    mixture = noise(1, 7 * RATE + 123)
    stems = separate(package, mixture)
    with torch.inference_mode():
        expected = Halves()(torch.from_numpy(mixture)).numpy()
    np.testing.assert_allclose(np.concatenate([stems["low"], stems["high"]]), expected, atol=1e-6)


def test_stereo_export_takes_mono_twice(tmp_path):
    package = write_package(tmp_path, MidSide(), "pt2", multichannel=True, labels=["mid", "side"])
    assert separator_of(package).channels == 2
    mono = noise(1, 3 * RATE)
    stems = separate(package, mono)
    np.testing.assert_allclose(stems["mid"], mono, atol=1e-6)
    np.testing.assert_allclose(stems["side"], 0, atol=1e-6)
    stereo = noise(2, 3 * RATE)
    stems = separate(package, stereo)
    np.testing.assert_allclose(stems["mid"], [stereo.mean(axis=0)] * 2, atol=1e-6)


def test_a_model_may_change_its_input(tmp_path):
    class InPlace(torch.nn.Module):
        def forward(self, x: torch.Tensor):
            return x.mul_(2)

    block = noise(1, 4000)
    before = block.copy()
    stems = separator_of(write_package(tmp_path, InPlace())).separate(block, RATE)
    np.testing.assert_array_equal(block, before)
    np.testing.assert_array_equal(stems[0], before * 2)


def test_loading_warns_of_nothing(tmp_path):
    package = write_package(tmp_path, Volume())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(package, {})


def test_digest_is_that_of_the_files(tmp_path):
    first = write_package(tmp_path / "a", Volume())
    digest = describe(first, {}).sha256
    assert describe(first, {"block_seconds": 5}).sha256 == digest
    metadata = tmp_path / "a" / "metadata.json"
    metadata.write_text(metadata.read_text() + "\n")
    assert describe(first, {}).sha256 != digest


# --- labels


def part_of(labeler, samples, rate, core):
    read = reader_of(samples)
    total = samples.shape[1]
    return label_part(read, rate, labeler.model, labeler.run, total_samples=total, core=core)


def test_labels_lie_where_the_sound_is(tmp_path):
    package = write_package(
        tmp_path, Loudness(), labels=["quiet", "loud"], effect_type="waveform-to-labels"
    )
    description = describe(package, {})
    assert (description.effect, description.stems) == ("labels", ())
    labeler = Labeler(package, {"block_seconds": 2})
    samples = np.zeros((2, 5 * RATE), np.float32)
    samples[:, 3 * RATE : 4 * RATE] = 0.4  # summed, not averaged: 0.8
    labels = labeler.labels_of(samples)
    assert len(labels) == 50
    loud = [label for label in labels if label.text == "loud"]
    assert len(loud) == 10
    np.testing.assert_allclose(
        [label.start_s for label in loud], np.arange(3.0, 3.95, 0.1), atol=1e-6
    )
    assert labels == sorted(labels, key=lambda label: label.start_s)


def reader_of(samples: np.ndarray):
    return lambda start, stop: samples[:, start:stop]


@pytest.mark.parametrize("rate", [RATE, 2 * RATE])
def test_parts_have_the_labels_of_the_whole_which_end_with_the_recording(tmp_path, rate):
    package = write_package(
        tmp_path, Loudness(), labels=["quiet", "loud"], effect_type="waveform-to-labels"
    )
    labeler = Labeler(package, {"block_seconds": 1})
    samples = np.repeat(noise(1, 23 * rate + 1) > 0.4, 1, axis=1).astype(np.float32)
    samples[:, ::2] *= np.linspace(0, 2, samples[:, ::2].shape[1], dtype=np.float32)
    total = samples.shape[1]
    whole = part_of(labeler, samples, rate, (0, total))
    assert {label.text for label in whole} == {"quiet", "loud"}
    assert whole[-1].end_s == total / rate
    joined = []
    for start, stop in itertools.pairwise((0, 7 * rate + 3, 15 * rate, 15 * rate + 1, total)):
        joined += part_of(labeler, samples, rate, (start, stop))
    assert joined == whole


class SecondOfLoudness(torch.nn.Module):
    """Takes one second, neither more nor less, as a model that was traced on one may do."""

    def forward(self, x: torch.Tensor):
        power = x[0].reshape(10, 800).pow(2).mean(dim=1)
        start = torch.arange(10) * 0.1
        return (power > 0.1).long(), torch.stack([start, start + 0.1], dim=1)


@pytest.mark.parametrize("how", ["trace", "script"])
@pytest.mark.parametrize("seconds", [0.01, 0.25, 1, 3.25])
def test_the_last_block_is_a_whole_one_whose_labels_end_with_the_recording(tmp_path, how, seconds):
    labels = {"labels": ["quiet", "loud"], "effect_type": "waveform-to-labels"}
    labeler = Labeler(
        write_package(tmp_path, SecondOfLoudness(), how, RATE, **labels), {"block_seconds": 1}
    )
    samples = np.full((1, round(seconds * RATE)), 0.8, np.float32)
    found = labeler.labels_of(samples)
    starts = np.arange(0, seconds - 1e-6, 0.1)
    np.testing.assert_allclose([each.start_s for each in found], starts, atol=1e-6)
    ends = np.minimum(starts + 0.1, seconds)
    np.testing.assert_allclose([each.end_s for each in found], ends, atol=1e-6)
    assert found[-1].end_s <= seconds
    # The last label is of sound and of the zeros after it.
    assert {each.text for each in found[:-1]} <= {"loud"}
    total = samples.shape[1]
    part = part_of(labeler, samples, RATE, (0, total))
    assert part == found


def test_labels_of_the_block_before_end_with_the_recording_too(tmp_path):
    package = write_labeler(tmp_path, Fixed([0], [[0.5, 1.9]]))
    labeler = Labeler(package, {"block_seconds": 1})
    times = [(each.start_s, each.end_s) for each in labeler.labels_of(noise(1, RATE * 5 // 4))]
    np.testing.assert_allclose(times, [(0.5, 1.25)], atol=1e-6)
    (over_a_whole_block,) = labeler.labels_of(noise(1, RATE))
    assert over_a_whole_block.end_s == pytest.approx(1.9)


class SecondOfVolume(torch.nn.Module):
    """Takes one second, neither more nor less."""

    def forward(self, x: torch.Tensor):
        return (2 * x.reshape(10, 800)).reshape(1, 8000)


@pytest.mark.parametrize("samples", [1, 100, RATE - 1, RATE, 3 * RATE + 123])
def test_stems_of_a_model_that_takes_whole_blocks_only(tmp_path, samples):
    package = write_package(tmp_path, SecondOfVolume(), "trace", RATE, labels=["louder"])
    mixture = noise(1, samples)
    stems = separate(package, mixture, block_seconds=1)
    assert stems["louder"].shape == (1, samples)
    np.testing.assert_allclose(stems["louder"], 2 * mixture, atol=1e-6)


def test_silence_of_no_length_has_no_labels(tmp_path):
    package = write_labeler(tmp_path, Loudness())
    assert Labeler(package, {}).labels_of(np.zeros((1, 0), np.float32)) == []


def test_labels_may_be_probabilities(tmp_path):
    class Probabilities(torch.nn.Module):
        def forward(self, x: torch.Tensor):
            return torch.tensor([[0.1, 0.9], [0.8, 0.2]]), torch.tensor([[0.0, 0.1], [0.1, 0.2]])

    package = write_labeler(tmp_path, Probabilities())
    labels = Labeler(package, {}).labels_of(noise(1, 4000))
    assert [label.text for label in labels] == ["b", "a"]
    np.testing.assert_allclose([label.confidence for label in labels], [0.9, 0.8], rtol=1e-6)


def test_what_are_no_probabilities_are_no_confidences(tmp_path):
    class Scores(torch.nn.Module):
        def forward(self, x: torch.Tensor):
            return torch.tensor([[0.1, 9.0], [0.8, 0.2]]), torch.tensor([[0.0, 0.1], [0.1, 0.2]])

    labels = Labeler(write_labeler(tmp_path, Scores()), {}).labels_of(noise(1, 4000))
    assert [(label.text, label.confidence) for label in labels] == [("b", None), ("a", None)]


class Fixed(torch.nn.Module):
    """Gives the same labels and times, whatever it hears."""

    def __init__(self, classes, times):
        super().__init__()
        self.register_buffer("classes", torch.tensor(classes))
        self.register_buffer("times", torch.tensor(times))

    def forward(self, x: torch.Tensor):
        return self.classes, self.times


@pytest.mark.parametrize(
    ("classes", "times", "message"),
    [
        ([2], [[0.0, 0.1]], "none of the 2"),
        ([-1], [[0.0, 0.1]], "none of the 2"),
        ([0.5], [[0.0, 0.1]], "none of the 2"),
        ([0, 1], [[0.0, 0.1]], "2 labels"),
        ([0], [[0.2, 0.1]], "no stretch"),
        ([0], [[0.1, 0.1]], "no stretch"),
        ([0], [[-0.1, 0.1]], "no stretch"),
        ([0], [[0.0, 9.0]], "no stretch"),
        ([0], [[float("nan"), 0.1]], "no stretch"),
        ([0], [[0.0, 0.1, 0.2]], "times of shape"),
        ([[0, 1, 0]], [[0.0, 0.1]], "not \\(labels,\\)"),
        ([0j], [[0.0, 0.1]], "labels of complex64 and times of float32; .*int64"),
        ([0], [[0j, 0.1 + 0j]], "labels of int64 and times of complex64; .*seconds"),
    ],
)
def test_impossible_labels_are_refused(tmp_path, classes, times, message):
    package = write_labeler(tmp_path, Fixed(classes, times))
    labeler = Labeler(package, {"block_seconds": 1})
    with pytest.raises(ModelError, match=message) as raised:
        labeler.labels_of(noise(1, RATE))
    assert package in str(raised.value)


# --- packages that lie


class Row(torch.nn.Module):
    def forward(self, x: torch.Tensor):
        return x[0]


class Shorter(torch.nn.Module):
    def forward(self, x: torch.Tensor):
        return x[:, :-7]


class Pair(torch.nn.Module):
    def forward(self, x: torch.Tensor):
        return x, x


class Whole(torch.nn.Module):
    def forward(self, x: torch.Tensor):
        return x.long()


class Spectrum(torch.nn.Module):
    def forward(self, x: torch.Tensor):
        return torch.fft.fft(x)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Row(), "\\(4000,\\).*\\(stems, samples\\)"),
        (Shorter(), "turned 4000 samples into 3993"),
        (Pair(), "gave a tuple"),
        (Whole(), "\\(1, 4000\\) and int64; .*float32"),
        (Spectrum(), "\\(1, 4000\\) and complex64; .*float32"),
    ],
)
def test_wrong_outputs_are_refused(tmp_path, model, message):
    package = write_package(tmp_path, Volume())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(model).save(str(tmp_path / "model.pt"))
    separator = separator_of(package)
    with pytest.raises(ModelError, match=message) as raised:
        separator.separate(noise(1, 4000), RATE)
    assert package in str(raised.value)


def test_a_missing_stem_is_refused_and_a_superfluous_one_ignored(tmp_path):
    package = write_package(tmp_path, Halves(), labels=["low", "high", "middle"])
    with pytest.raises(ModelError, match=r"2 stems.* 3"):
        separator_of(package).separate(noise(1, 4000), RATE)
    one = separator_of(write_package(tmp_path, Halves(), labels=["low"]))
    assert one.separate(noise(1, 4000), RATE).shape == (1, 1, 4000)


def test_nan_is_refused(tmp_path):
    class Nan(torch.nn.Module):
        def forward(self, x: torch.Tensor):
            return x / (x - x)

    package = write_package(tmp_path, Nan())
    with pytest.raises(ModelError, match=re.escape(package)):
        separate(package, noise(1, 4000))


def test_a_failing_model_is_named_with_its_reason(tmp_path):
    class Picky(torch.nn.Module):
        def forward(self, x: torch.Tensor):
            assert x.shape[-1] == 5, "five samples only"
            return x

    package = write_package(tmp_path, Picky())
    with pytest.raises(ModelError, match=r"fails on \(1, 4000\).*five samples only") as raised:
        separator_of(package).separate(noise(1, 4000), RATE)
    assert package in str(raised.value)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_out_of_memory_stays_what_it_is(tmp_path):
    class Large(torch.nn.Module):
        def forward(self, x: torch.Tensor):
            return x + torch.zeros(1 << 44, device=x.device)[:1]

    separator = separator_of(write_package(tmp_path, Large()))
    with pytest.raises(torch.OutOfMemoryError):
        separator.forward(torch.zeros(1, 1, 4000, device="cuda"))


def test_a_fixed_length_is_told(package_folder):
    package = str(package_folder)
    export(package_folder / "model.pt2", Halves(), torch.randn(1, 12000), dynamic=False)
    with pytest.raises(ModelError, match=re.escape("block_seconds: 1.5 would fit")):
        load(package, {})
    separator = load(package, {"block_seconds": 1.5})[0].separator
    assert separator.context_samples == 3000
    assert separator.separate(noise(1, 12000), RATE).shape == (1, 1, 12000)
    with pytest.raises(ModelError, match=r"12000 on axis 1, not 4000"):
        separator.separate(noise(1, 4000), RATE)


def test_model_pt_is_taken_where_model_pt2_is_fixed_to_another_length(tmp_path, caplog):
    """Two models are told apart by how many rows they give."""
    package = write_package(tmp_path, Volume())
    only_script = describe(package, {}).sha256
    export(tmp_path / "model.pt2", Twice(), torch.randn(1, 12000), dynamic=False)
    block = torch.from_numpy(noise(1, 12000))
    for block_seconds, rows in ((1.5, 2), (2.0, 1)):
        options = {"block_seconds": block_seconds}
        caplog.clear()
        assert len(load(package, options)[0].separator.module(block)) == rows
        # What is told to be used is what is used.
        assert (describe(package, options).sha256 == only_script) == (rows == 1)
        assert ("model.pt2 takes no blocks of 2 s" in caplog.text) == (rows == 1)


def test_a_labeler_for_one_length_gives_way_too(tmp_path, caplog):
    facts = {"effect_type": "waveform-to-labels", "labels": ["quiet", "loud"]}
    package = write_package(tmp_path, Loudness(), **facts)
    export(tmp_path / "model.pt2", Loudness(), torch.randn(1, 12000), dynamic=False)
    loud = np.ones((1, 16000), np.float32)
    for block_seconds, told in ((1.5, False), (2.0, True)):
        caplog.clear()
        labels = Labeler(package, {"block_seconds": block_seconds}).labels_of(loud)
        assert {label.text for label in labels} == {"loud"}
        assert ("model.pt2 takes no blocks" in caplog.text) == told


@pytest.mark.parametrize("content", [b"PK", b""])
def test_a_broken_model_pt2_is_told_and_not_passed_over(tmp_path, content):
    package = write_package(tmp_path, Volume())
    (tmp_path / "model.pt2").write_bytes(content)
    with pytest.raises(ModelError, match=r"model\.pt2 is no model"):
        load(package, OPTIONS)


def test_a_stereo_model_for_any_length_stays_the_first(tmp_path, caplog):
    package = write_package(tmp_path, MidSide(), multichannel=True, labels=["mid", "side"])
    write_package(tmp_path, MidSide(), "pt2", multichannel=True, labels=["mid", "side"])
    separator = separator_of(package)
    assert isinstance(separator.module, ExportedModel)
    assert "model.pt2 takes" not in caplog.text


def test_a_mono_package_with_a_stereo_model_is_refused(tmp_path):
    package = write_package(tmp_path, MidSide(), "pt2", multichannel=True)
    metadata = {**METADATA, "multichannel": False}
    (tmp_path / "metadata.json").write_text(json.dumps(metadata))
    with pytest.raises(ModelError, match="1 channels"):
        load(package, {})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no JSON"),
        (b"{", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b" " * (2**20 + 1), "larger"),
        ('{"author": "Grün"}'.encode("latin-1"), "not UTF-8"),
        (b"[]", "must hold keys"),
        (b"{}", "effect_type: is required"),
        ({"sample_rate": 0}, "sample_rate: .*greater than 0"),
        ({"sample_rate": True}, "sample_rate: .*number"),
        ({"sample_rate": "48000"}, "sample_rate: .*number"),
        ({"sample_rate": 48000.5}, "sample_rate"),
        ({"sample_rate": float("nan")}, "sample_rate"),
        ({"sample_rate": 396000}, "sample_rate"),
        ({"labels": []}, "labels"),
        ({"labels": None}, "labels"),
        ({"labels": "vocals"}, "labels"),
        ({"labels": [1]}, "labels.0"),
        ({"effect_type": "waveform-to-midi"}, "effect_type: .*waveform-to-waveform"),
        ({"multichannel": 1}, "multichannel"),
    ],
)
def test_metadata_that_lies_is_refused(tmp_path, content, message):
    package = write_package(tmp_path, Volume())
    if isinstance(content, dict):
        content = json.dumps({**METADATA, **content}).encode()
    (tmp_path / "metadata.json").write_bytes(content)
    for call in (describe, load):
        with pytest.raises(ModelError, match=message) as raised:
            call(package, {})
        assert package in str(raised.value)


@pytest.mark.parametrize("change", [{"sample_rate": 48000.0}, {"domain_tags": None}, {"more": 1}])
def test_what_real_packages_have_is_read(tmp_path, change):
    path = tmp_path / "metadata.json"
    document = {**METADATA, **change}
    del document["tags"], document["short_description"]
    document["domains"] = document.pop("domain_tags")
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(document).encode())
    metadata = read_metadata(path, "toy")
    assert metadata.sample_rate == document["sample_rate"]
    assert isinstance(metadata.sample_rate, int)
    assert problems(document, strict=False) == []


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"tags": ["x" * 16]}, "tags.0"),
        ({"tags": ["a", "a"]}, "tags"),
        ({"tags": list("abcdef")}, "tags"),
        ({"tags": None}, "tags"),
        ({"short_description": "x" * 61}, "short_description"),
        ({"long_description": "x" * 281}, "long_description"),
        ({"domain_tags": ["noise"]}, "domain_tags.0"),
        ({"domain_tags": ["music"] * 5}, "domain_tags"),
        ({"sample_rate": 384001}, "sample_rate"),
        ({"sample_rate": 48000.0}, "sample_rate"),
        ({"sample_rate": 0}, "sample_rate"),
        ({"multichannel": "true"}, "multichannel"),
        ({"labels": []}, "labels"),
        ({"effect_type": "waveform-to-midi"}, "effect_type"),
    ],
)
def test_what_is_published_suits_every_reader(change, place):
    assert problems(METADATA) == []
    (problem,) = problems({**METADATA, **change})
    assert problem.startswith(f"{place}: ")


@pytest.mark.parametrize(
    "missing",
    ["short_description", "long_description", "domain_tags", "tags", "effect_type",
     "multichannel", "labels", "sample_rate"],
)  # fmt: skip
def test_what_is_published_is_complete(missing):
    document = {key: value for key, value in METADATA.items() if key != missing}
    assert problems(document) == [f"{missing}: is required, and not there"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"blocks": 3}, "blocks: .*the options are: block_seconds, context_seconds, downmix"),
        ({"block_seconds": 0}, "block_seconds"),
        ({"block_seconds": 1, "context_seconds": 0.4}, "at most a quarter"),
    ],
)
def test_wrong_options_are_told(tmp_path, options, message):
    package = write_package(tmp_path, Volume())
    for call in (describe, load):
        with pytest.raises(ValueError, match=message):
            call(package, options)


# --- names of stems


def test_names_of_stems():
    labels = ["vocals", "Vocals", "a/b", "", "..", "manifest", "residual", "con", "drums 2 ", "é\n"]
    assert stem_names(labels) == (
        "vocals", "Vocals-2", "a-b", "stem-4", "stem-5", "manifest-2", "residual-2", "con-",
        "drums 2", "é-",
    )  # fmt: skip


@given(st.lists(st.text() | st.sampled_from(["a", "A", "a-2", "a/", "/a", "manifest", "x" * 99])))
def test_names_of_stems_are_safe_and_different(labels):
    names = stem_names(labels)
    assert len({name.casefold() for name in names}) == len(labels)
    for name in names:
        assert name
        assert name == name.strip(" .")
        assert not set(name) & set('/\\:*?"<>|\0\n')
        assert name.casefold() not in ("manifest", "spectrogram", "residual")
        assert len(name.encode()) < 255 + 100
        name.encode()
    assert stem_names(names) == names


# --- hostile and broken files


class Payload:
    """Unpickling it makes a file."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return Path.touch, (self.trace,)


def edited(source, target, edit):
    """A copy of an archive; `edit(name, content)` gives an entry's new content."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for entry in old.infolist():
            name = entry.filename.split("/", 1)[1]
            new.writestr(entry, edit(name, old.read(entry)))


def edited_json(source, target, name, change):
    """A copy of an archive with one of its documents changed in place."""

    def edit(entry, content):
        if entry != name:
            return content
        document = json.loads(content)
        change(document)
        return json.dumps(document)

    edited(source, target, edit)


@pytest.mark.parametrize("entry", ["data.pkl", "constants.pkl"])
def test_torchscript_with_a_pickled_program_runs_none_of_it(tmp_path, entry):
    package = write_package(tmp_path / "package", Halves(), labels=["low", "high"])
    trace = tmp_path / "trace"
    payload = pickle.dumps(Payload(trace), protocol=2)
    pickle.loads(payload)
    assert trace.exists()  # so it would have been noticed
    trace.unlink()
    model = tmp_path / "package" / "model.pt"
    sound = tmp_path / "sound.pt"
    model.rename(sound)
    edited(sound, model, lambda name, content: payload if name == entry else content)
    with pytest.raises(ModelError, match="no TorchScript model"):
        load(package, {})
    assert not trace.exists()


class Saves(torch.nn.Module):
    def __init__(self, path: str):
        super().__init__()
        self.path = path

    def forward(self, x: torch.Tensor):
        if x.shape[0] > 1:
            torch.save(x, self.path)
        return x


class Reads(torch.nn.Module):
    def __init__(self, path: str):
        super().__init__()
        self.path = path

    def forward(self, x: torch.Tensor):
        return x + torch.from_file(self.path, False, 1)


class SavesWhenLoaded(torch.nn.Module):
    def __init__(self, path: str):
        super().__init__()
        self.path = path
        self.training = False

    @torch.jit.export
    def __getstate__(self):
        return self.path, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[str, bool]):
        self.path = state[0]
        self.training = state[1]
        torch.save(torch.zeros(1), self.path)

    def forward(self, x: torch.Tensor):
        return x


@pytest.mark.parametrize(
    ("model", "message"),
    [(Saves, "aten::save"), (Reads, "aten::from_file"), (SavesWhenLoaded, "__setstate__")],
)
def test_torchscript_that_uses_files_is_refused(tmp_path, model, message):
    trace = tmp_path / "trace"
    package = write_package(tmp_path / "package", Volume())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(model(str(trace))).save(str(tmp_path / "package" / "model.pt"))
    with pytest.raises(ModelError, match=message):
        load(package, {})
    assert not trace.exists()


def assert_torch_runs(path, trace):
    """That torch's own reader does what ours has to refuse, or to leave alone.

    Where this fails, torch has become safer: the reasons in `packages/exported.py` are to be
    thought over, and what torch does safely then is to be left to it.
    """
    with contextlib.suppress(Exception):
        torch.export.load(path).module()(torch.zeros(1, 4000))
    assert trace.exists()
    trace.unlink()


def refused(package_folder, message="never loaded|may not use|no model by torch"):
    with pytest.raises(ModelError, match=message) as raised:
        load(str(package_folder), OPTIONS)
    assert str(package_folder) in str(raised.value)


@pytest.fixture
def package_folder(tmp_path):
    """A folder that lacks only its model."""
    write_package(tmp_path / "package", Volume())
    (tmp_path / "package" / "model.pt").unlink()
    return tmp_path / "package"


def test_exported_sample_inputs_are_not_unpickled(tmp_path, package_folder, exported_halves):
    trace = tmp_path / "trace"
    payload = pickle.dumps(Payload(trace), protocol=2)
    edited(
        exported_halves,
        package_folder / "model.pt2",
        lambda name, content: payload if name.startswith("data/sample_inputs/") else content,
    )
    assert_torch_runs(package_folder / "model.pt2", trace)
    assert separator_of(str(package_folder)).separate(noise(1, 4000), RATE).shape == (1, 1, 4000)
    assert not trace.exists()


@pytest.mark.parametrize(("kind", "tensor"), [("weights", "weight"), ("constants", "tensor")])
def test_exported_tensors_are_not_unpickled(
    kind, tensor, tmp_path, package_folder, exported_halves
):
    trace = tmp_path / "trace"
    pickled = tmp_path / "pickled.pt2"

    def by_pickle(document):
        for payload in document["config"].values():
            payload["use_pickle"] = True

    edited_json(exported_halves, pickled, f"data/{kind}/model_{kind}_config.json", by_pickle)
    payload = pickle.dumps(Payload(trace), protocol=2)
    edited(
        pickled,
        package_folder / "model.pt2",
        lambda name, content: payload if name.startswith(f"data/{kind}/{tensor}") else content,
    )
    assert_torch_runs(package_folder / "model.pt2", trace)
    refused(package_folder, "never loaded")
    assert not trace.exists()


@pytest.mark.parametrize("path_name", ["opaque_obj_0", "custom_obj_0", "../../weight_0"])
def test_exported_objects_are_not_loaded(package_folder, exported_halves, path_name):
    def as_object(document):
        for payload in document["config"].values():
            payload["path_name"] = path_name

    edited_json(
        exported_halves,
        package_folder / "model.pt2",
        "data/constants/model_constants_config.json",
        as_object,
    )
    refused(package_folder, "never loaded")


def change_program(exported, package_folder, change):
    edited_json(exported, package_folder / "model.pt2", "models/model.json", change)


def nodes_of(program):
    return program["graph_module"]["graph"]["nodes"]


def test_expressions_of_an_exported_model_are_not_evaluated(
    tmp_path, package_folder, exported_halves
):
    trace = tmp_path / "trace"
    code = f"__import__('pathlib').Path({str(trace)!r}).touch()"

    def put_code(value):
        """Wherever the file holds text, but for what makes it a sound graph."""
        if isinstance(value, list):
            return [put_code(each) for each in value]
        if isinstance(value, dict):
            return {
                key: code
                if key in ("expr_str", "stack_trace", "nn_module_stack", "in_spec", "out_spec",
                           "torch_fn", "from_node")
                else put_code(each)
                for key, each in value.items()
            }  # fmt: skip
        return value

    def change(program):
        program["graph_module"] = put_code(program["graph_module"])

    change_program(exported_halves, package_folder, change)
    assert code in zipfile.ZipFile(package_folder / "model.pt2").read(
        "model/models/model.json"
    ).decode().replace("\\", "")
    assert_torch_runs(package_folder / "model.pt2", trace)
    separator_of(str(package_folder)).separate(noise(1, 4000), RATE)
    assert not trace.exists()


def test_torch_evaluates_the_expressions_of_a_graph_without_tensors(
    tmp_path, package_folder, exported_halves
):
    """So that torch can't be left the graph alone, either, with tensors that are read here."""
    trace = tmp_path / "trace"
    code = f"__import__('pathlib').Path({str(trace)!r}).touch()"

    def change(program):
        sizes = program["graph_module"]["graph"]["tensor_values"]["x"]["sizes"]
        sizes[1]["as_expr"]["expr_str"] = code

    change_program(exported_halves, package_folder, change)
    with zipfile.ZipFile(package_folder / "model.pt2") as archive:
        content = archive.read("model/models/model.json")
    program = serialize._bytes_to_dataclass(schema.ExportedProgram, content)
    with contextlib.suppress(Exception):
        serialize.ExportedProgramDeserializer().deserialize(program, {}, {}, b"")
    assert trace.exists()


def test_names_of_an_exported_model_do_not_become_code(tmp_path, package_folder, exported_halves):
    trace = tmp_path / "trace"
    name = f"x=__import__('pathlib').Path('{trace}').touch()"

    def change(program):
        text = json.dumps(program["graph_module"]).replace('"name": "x"', f'"name": "{name}"')
        program["graph_module"] = json.loads(text)
        values = program["graph_module"]["graph"]["tensor_values"]
        values[name] = values.pop("x")

    change_program(exported_halves, package_folder, change)
    assert_torch_runs(package_folder / "model.pt2", trace)
    separator_of(str(package_folder)).separate(noise(1, 4000), RATE)
    assert not trace.exists()


def test_conditions_of_an_exported_model_are_not_run(tmp_path, package_folder, exported_halves):
    trace = tmp_path / "trace"

    def change(program):
        program["guards_code"] = [f"open({str(trace)!r}, 'w')"]

    change_program(exported_halves, package_folder, change)
    assert_torch_runs(package_folder / "model.pt2", trace)
    refused(package_folder, "can't be read")
    assert not trace.exists()


@pytest.mark.parametrize(
    "target",
    [
        "torch.ops.aten.from_file.default",
        "torch.os.system",
        "torch.serialization.load",
        "torch.ops.aten.__class__.mro",
        "torch.ops.aten.abs.__init__",
        "torch.ops.other.thing.default",
        "torch.ops.higher_order.cond",
        "_operator.methodcaller",
        "_operator.attrgetter",
        "math.factorial",
        "builtins.exec",
        "#namespace:thing",
    ],
)
def test_an_exported_model_may_only_calculate(package_folder, exported_halves, target):
    def change(program):
        nodes_of(program)[0]["target"] = target

    change_program(exported_halves, package_folder, change)
    refused(package_folder, re.escape(target))


@pytest.mark.parametrize(
    "change",
    [
        lambda program: program.update(schema_version={"major": 99, "minor": 0}),
        lambda program: program.pop("graph_module"),
        lambda program: nodes_of(program).clear(),
        lambda program: nodes_of(program)[0]["inputs"].clear(),
        lambda program: nodes_of(program)[0]["inputs"][0].update(arg={"as_operator": "os.system"}),
        lambda program: nodes_of(program)[0]["inputs"][0].update(arg={"as_tensor": {"name": "?"}}),
        lambda program: program["graph_module"]["signature"]["input_specs"].pop(),
        lambda program: program["graph_module"]["signature"]["output_specs"].append(
            {"buffer_mutation": {"arg": {"name": "x"}, "buffer_name": "window"}}
        ),
    ],
)
def test_a_damaged_program_is_refused(package_folder, exported_halves, change):
    change_program(exported_halves, package_folder, change)
    with pytest.raises(ModelError, match=re.escape(str(package_folder))):
        separator_of(str(package_folder)).separate(noise(1, 16000), RATE)


@pytest.mark.parametrize("name", ["model.pt", "model.pt2"])
@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "zip", "pickle"])
def test_broken_files_are_refused(tmp_path, package_folder, name, damage):
    how = "pt2" if name == "model.pt2" else "script"
    sound = Path(write_package(tmp_path / "sound", Halves(), how), name)
    broken = package_folder / name
    if damage == "truncated":
        broken.write_bytes(sound.read_bytes()[: sound.stat().st_size // 2])
    elif damage == "zip":
        with zipfile.ZipFile(broken, "w") as archive:
            archive.writestr("a/b", "c")
    elif damage == "pickle":
        torch.save({"weight": torch.zeros(3)}, broken)
    else:
        broken.write_text("" if damage == "empty" else "version https://git-lfs.github.com/spec/v1")
    refused(package_folder, "export it again")


def test_a_folder_without_a_model_or_metadata_is_refused(tmp_path, package_folder):
    for call in (describe, load):
        with pytest.raises(ModelError, match="has no model"):
            call(str(package_folder), {})
        with pytest.raises(ModelError, match=re.escape(str(tmp_path / "nowhere"))):
            call(str(tmp_path / "nowhere"), {})
    (package_folder / "metadata.json").unlink()
    with pytest.raises(ModelError, match=r"metadata\.json"):
        describe(str(package_folder), {})


# --- shapes that an exported model may be given


SYMBOL = {"as_expr": {"expr_str": "Symbol('s27', positive=True, integer=True)"}}


@pytest.mark.parametrize(
    ("guard", "length", "fine"),
    [
        ("L['x'].size()[1] > 256", 257, True),
        ("L['x'].size()[1] > 256", 256, False),
        ("(L['x'].size()[1] // 100) >= 2", 199, False),
        ("L['x'].size()[1] % 8 == 0 and not L['x'].size()[1] == 16", 24, True),
        ("L['x'].size()[1] % 8 == 0 and not L['x'].size()[1] == 16", 16, False),
        ("1 < Max(1, -3 + L['x'].size()[1]) <= 7", 10, True),
        ("1 < Max(1, -3 + L['x'].size()[1]) <= 7", 11, False),
    ],
)
def test_guards_are_followed(guard, length, fine):
    limits = ShapeLimits([{"as_int": 1}, SYMBOL], {}, [guard])
    assert (limits.complaint((1, length)) is None) == fine


def test_ranges_are_followed():
    ranges = {"s27": {"min_val": 10, "max_val": 20}}
    limits = ShapeLimits([{"as_int": 1}, SYMBOL], ranges, [])
    assert limits.fixed == (1, None)
    assert [limits.complaint((1, n)) is None for n in (9, 10, 20, 21)] == [False, True, True, False]
    assert_names(limits.complaint((2, 15)), "1 on axis 0", "2")
    assert_names(limits.complaint((15,)), "2 axes", "1")
