"""Packages that are exported: what they give is what their separators give."""

import dataclasses
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from demucs_models import tiny_demucs, tiny_hdemucs, tiny_htdemucs
from facts import assert_names
from model_packages import Loudness, Volume, write_package
from separators_to_export import RATE
from toy_training import write_network

import beamsplitter
from beamsplitter.models.export.exporting import Exported, export_separator
from beamsplitter.models.export.package_words import Words
from beamsplitter.models.export.scripting import scripted
from beamsplitter.models.export.separator_model import model_of
from beamsplitter.models.export.torch_export import save_exported
from beamsplitter.models.networks.by_settings import make_model
from beamsplitter.models.networks.open_unmix import OpenUnmix, Targets
from beamsplitter.models.packages.metadata import problems
from beamsplitter.models.packages.torchscript import load_torchscript
from beamsplitter.models.packages.trained import read_network, save_trained
from beamsplitter.models.separators.base import ModelError
from beamsplitter.models.separators.by_name import SeparatorName, describe
from beamsplitter.models.separators.demucs import DemucsSeparator
from beamsplitter.models.separators.open_unmix import MUSIC, SPEECH, OpenUnmixSeparator

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit")

SMALL = {"num_hidden_channels": 1, "targets": ["vocals", "drums"]}
NETWORKS: dict[str, dict[str, Any]] = {
    "BandNet": {"num_hidden_channels": None, "hidden_size": 8, "num_bands": 8},
    "SpectrogramNetSimple": {"mask_act_fn": "softmax", "leak_factor": 0.1},
    "SpectrogramNetLSTM": {"hidden_size": 8, "normalize_input": True, "normalize_output": True},
    "SpectrogramNetVAE": {"hidden_size": 8, "input_axis": 0, "mask_act_fn": "hardtanh"},
}
TOLERANCE = 1e-5


def trained(folder: Path, **changes: Any) -> str:
    """A folder as a training leaves it, with weights as they were drawn."""
    write_network(folder, **{**SMALL, **changes})
    torch.manual_seed(0)
    save_trained(folder, make_model(read_network(folder, "toy")).eval())
    return str(folder)


def mixture(channels: int, samples: int) -> np.ndarray:
    generator = np.random.default_rng(samples)
    return (0.1 * generator.standard_normal((channels, samples))).astype(np.float32)


def export(separator: str, folder: Path, **given: Any) -> Exported:
    options = given.pop("options", {})
    return export_separator(SeparatorName.of(separator, options), folder, **given)


def require_same(separator: str, package: Path, channels: int, samples: int) -> None:
    given = mixture(channels, samples)
    expected, found = (
        beamsplitter.separate(given, sample_rate=RATE, separator=each)
        for each in (separator, str(package))
    )
    assert [*found] == [*expected]
    for stem in expected:
        np.testing.assert_allclose(found[stem], expected[stem], rtol=0, atol=TOLERANCE)
    # They don't agree by being nothing.
    assert max(np.abs(each).max() for each in found.values()) > 0.01


# --- what was trained here


@pytest.mark.parametrize(
    ("network", "num_channels"),
    [
        ("BandNet", 2),
        ("SpectrogramNetSimple", 1),
        ("SpectrogramNetLSTM", 2),
        ("SpectrogramNetVAE", 1),
    ],
)
def test_a_package_is_the_network_that_was_trained(
    tmp_path: Path, network: str, num_channels: int
) -> None:
    separator = trained(
        tmp_path / "net", model_type=network, num_channels=num_channels, **NETWORKS[network]
    )
    done = export(separator, tmp_path / "package", formats=["torchscript"])
    assert done.files == {"torchscript": "model.pt"}
    assert done.unreadable == []
    assert done.difference <= TOLERANCE
    block = 40000 if network == "BandNet" else 4000
    # Below a block, a sample more than one, and primes.
    for samples in (63, 1999, block + 1, 4 * block // 3 + 8):
        require_same(separator, tmp_path / "package", 2, samples)


@pytest.mark.parametrize("is_of_ones_own", [False, True])
def test_torch_export_stands_beside_it(tmp_path: Path, is_of_ones_own: bool) -> None:
    """Of a U-Net, which halves its frames and looks at what is left, for one length."""
    separator = "separators_to_export:Smooth"
    if not is_of_ones_own:
        # Of two targets torch takes twice as long.
        separator = trained(tmp_path / "net", targets=["vocals"])
    done = export(separator, tmp_path / "package")
    assert done.files == {"torchscript": "model.pt", "torch-export": "model.pt2"}
    assert done.fixed_samples == (None if is_of_ones_own else 4000)
    assert not done.left_out
    (tmp_path / "package/model.pt").unlink()
    for samples in (1999, 4001):
        require_same(separator, tmp_path / "package", 1, samples)


def test_recurrent_layers_fix_what_torch_export_writes(tmp_path: Path) -> None:
    separator = trained(tmp_path / "net", model_type="BandNet", **NETWORKS["BandNet"])
    done = export(separator, tmp_path / "usual")
    assert [*done.files] == ["torchscript"]
    assert "recurrent" in done.left_out["torch-export"]
    short = {"block_seconds": 0.1}
    done = export(separator, tmp_path / "asked", formats=["torch-export"], options=short)
    assert done.files == {"torch-export": "model.pt2"}
    assert done.fixed_samples == RATE // 10
    assert done.unreadable is None
    with pytest.raises(ValueError, match=r"block_seconds: 0\.1 would fit"):
        beamsplitter.separate(
            mixture(1, 9001),
            sample_rate=RATE,
            separator=str(tmp_path / "asked"),
            options={"block_seconds": 1.0},
        )


def test_an_older_torch_writes_torchscript_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "__version__", type(torch.__version__)("2.8.0+cpu"))
    done = export("separators_to_export:Smooth", tmp_path / "package")
    assert done.files == {"torchscript": "model.pt"}
    assert_names(done.left_out["torch-export"], "2.8.0", "install torch 2.9")


def test_operators_of_a_newer_format_are_told(tmp_path: Path) -> None:
    done = export("separators_to_export:Newer", tmp_path / "package", formats=["torchscript"])
    assert done.difference <= TOLERANCE
    assert done.unreadable is not None
    assert any("of the file; 1.9 reads up to 6" in each for each in done.unreadable)
    assert "- audacity" not in (tmp_path / "package/README.md").read_text()


def test_a_package_says_what_the_separator_says(tmp_path: Path) -> None:
    separator = trained(tmp_path / "net", num_channels=2)
    path = tmp_path / "net/metadata.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "author": "A choir"}))
    words = Words(name="Choir", tags=["voice", "choir"], domain_tags=["speech", "music"])
    export(separator, tmp_path / "package", formats=["torchscript"], words=words, licence="mit")
    metadata = json.loads((tmp_path / "package/metadata.json").read_text())
    assert problems(metadata) == problems(metadata, strict=False) == []
    assert metadata["name"] == "Choir"
    assert metadata["author"] == "A choir"
    assert metadata["domain_tags"] == ["speech", "music"]
    assert metadata["multichannel"]
    assert metadata["labels"] == ["vocals left", "vocals right", "drums left", "drums right"]
    found, original = (
        describe((SeparatorName(each),)) for each in (str(tmp_path / "package"), separator)
    )
    assert found.stems == original.stems
    assert found.sample_rates == original.sample_rates
    assert found.context_s == original.context_s
    card = (tmp_path / "package/README.md").read_text().split("---\n")
    assert card[0] == ""
    front = yaml.safe_load(card[1])
    assert front["license"] == "mit"
    # By the first of them Audacity finds it.
    assert front["tags"] == ["audacity", "voice", "choir"]
    assert "# Choir" in card[2]


def test_audacity_may_hand_over_one_channel_or_two(tmp_path: Path) -> None:
    separator = trained(tmp_path / "net", num_channels=2)
    export(separator, tmp_path / "package", formats=["torchscript"])
    model = load_torchscript(tmp_path / "package/model.pt", "toy")
    for channels, samples in itertools.product((1, 2), (5, 63, 2049, 4001)):
        given = torch.from_numpy(mixture(channels, samples))
        assert model(given).shape == (4, samples)
    for wrong in (torch.zeros(9), torch.zeros(1, 1), torch.zeros(3, 100)):
        with pytest.raises((RuntimeError, torch.jit.Error)):
            model(wrong)


# --- classes of one's own


@pytest.mark.parametrize("name", ["Smooth", "MidSide", "Stepped"])
def test_a_class_of_ones_own_becomes_a_package(tmp_path: Path, name: str) -> None:
    separator = f"separators_to_export:{name}"
    done = export(separator, tmp_path / "package")
    assert "torchscript" in done.files
    for samples in (63, 1999, 2001, 4507):
        require_same(separator, tmp_path / "package", 2, samples)


def test_options_of_a_class_are_kept(tmp_path: Path) -> None:
    name = "separators_to_export:Smooth"
    export(name, tmp_path / "package", formats=["torchscript"], options={"width": 3})
    given = mixture(1, 4507)
    expected = beamsplitter.separate(given, sample_rate=RATE, separator=name, options={"width": 3})
    found = beamsplitter.separate(given, sample_rate=RATE, separator=str(tmp_path / "package"))
    np.testing.assert_allclose(found["low"], expected["low"], rtol=0, atol=TOLERANCE)


def test_a_package_normalises_by_what_it_is_given(tmp_path: Path) -> None:
    """The pipeline does so by the recording: of one block they are the same."""
    separator = "separators_to_export:Normalized"
    export(separator, tmp_path / "package", formats=["torchscript"])
    require_same(separator, tmp_path / "package", 1, 1201)
    model = load_torchscript(tmp_path / "package/model.pt", "toy")
    given = torch.from_numpy(mixture(1, 1999))
    torch.testing.assert_close(model(8 * given + 0.1)[:1], 8 * model(given)[:1] + 0.1)


# --- what can't be exported


@pytest.mark.parametrize(
    ("separator", "message"),
    [
        ("hpss", "hpss: is a method without a network"),
        ("nn-filter", "nn-filter: is a method without a network"),
        ("separators_to_export:Mixing", "mixing: takes any number of channels.*`channels = 2`"),
        ("separators_to_export:MonoOnly", "smooth: fails on two channels.*`channels = 1`"),
        (
            "separators_to_export:Uncompilable",
            "TorchScript can't.*torch.export can't",
        ),
        ("separators_to_export:Changing", "changing: as it was written, it gives something else"),
        ("separators_to_export:Nothing", "Nothing is no Separator"),
        ("no-such-thing", "no separator has this name"),
        ("demucs:htdemucs", "TorchScript does not compile.*torch.export stops.*normalise each"),
        ("umx:umxhq", "TorchScript does not compile.*torch.export would fix it to one length"),
    ],
)
def test_what_cannot_be_exported_is_told_and_nothing_is_left(
    tmp_path: Path, separator: str, message: str
) -> None:
    formats = ["torchscript"] if "Changing" in separator else None
    with pytest.raises(ModelError, match=message) as caught:
        export(separator, tmp_path / "package", formats=formats)
    assert "\n" not in str(caught.value)
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("network", [tiny_htdemucs, tiny_hdemucs, tiny_demucs])
def test_demucs_does_not_compile(network: Callable[[], torch.nn.Module]) -> None:
    model = model_of(DemucsSeparator("tiny", network()))
    with pytest.raises(ModelError, match="TorchScript can't compile it"):
        scripted(model, "tiny")


@pytest.mark.parametrize("network", [tiny_htdemucs, tiny_hdemucs])
def test_torch_export_stops_at_a_check_of_demucs(
    tmp_path: Path, network: Callable[[], torch.nn.Module]
) -> None:
    separator = DemucsSeparator("tiny", network())
    with pytest.raises(ModelError, match=r"torch\.export can't export it: Could not guard on"):
        save_exported(model_of(separator), separator.block_samples, tmp_path / "model.pt2", "tiny")


def test_open_unmix_does_not_compile() -> None:
    network = OpenUnmix(channels=2, bins=2049, used_bins=9, hidden_size=4)
    targets = Targets({"vocals": network, "drums": network})
    model = model_of(OpenUnmixSeparator("tiny", MUSIC, targets, 1))
    with pytest.raises(ModelError, match="TorchScript can't compile it"):
        scripted(model, "tiny")


def test_torch_export_would_fix_open_unmix_to_one_length(tmp_path: Path) -> None:
    # torch.export goes through the samples of a window one by one.
    release = dataclasses.replace(SPEECH, n_fft=64, hop_length=32)
    network = OpenUnmix(channels=1, bins=33, used_bins=9, hidden_size=4)
    targets = Targets({"speech": network, "noise": network})
    separator = OpenUnmixSeparator("tiny", release, targets, 1)
    samples = 6 * release.hop_length
    assert save_exported(model_of(separator), samples, tmp_path / "model.pt2", "tiny") == samples
    assert separator.block_lengths


def test_packages_are_none_to_export(tmp_path: Path) -> None:
    labels = {"effect_type": "waveform-to-labels", "labels": ["quiet", "loud"]}
    for model, changes in ((Volume(), {}), (Loudness(), labels)):
        package = write_package(tmp_path / type(model).__name__, model, **changes)
        with pytest.raises(ModelError, match="is a model package already"):
            export(package, tmp_path / "package")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (Words(short_description="a" * 61), "short_description"),
        (Words(tags=["a" * 16]), "tags"),
        (Words(tags=["a"] * 2), "twice"),
        (Words(domain_tags=["birds"]), "domain_tags"),
    ],
)
def test_words_that_a_reader_would_refuse_are_told(
    tmp_path: Path, words: Words, message: str
) -> None:
    with pytest.raises(ModelError, match=rf"metadata\.json would be wrong: .*{message}"):
        export("separators_to_export:Smooth", tmp_path / "package", words=words)
    assert [*tmp_path.iterdir()] == []


def test_what_is_there_is_replaced_only_when_asked_for(tmp_path: Path) -> None:
    package = tmp_path / "package"
    name, formats = "separators_to_export:Smooth", ["torchscript"]
    package.mkdir()
    (package / "LICENSE").write_text("mine")
    export(name, package, formats=formats)
    before = (package / "model.pt").read_bytes()
    with pytest.raises(ModelError, match=r"holds metadata\.json, README\.md, model\.pt.*--replace"):
        export(name, package, formats=formats)
    assert (package / "model.pt").read_bytes() == before
    export(name, package, formats=formats, options={"width": 3}, replace=True)
    assert (package / "model.pt").read_bytes() != before
    assert (package / "LICENSE").read_text() == "mine"


@pytest.mark.parametrize("other", ["model.pt2", "model.safetensors", "model.json"])
def test_a_model_that_would_be_read_in_its_place_is_not_removed(tmp_path: Path, other: str) -> None:
    (tmp_path / other).write_text("mine")
    with pytest.raises(ModelError, match=f"holds {other}, another model"):
        export("separators_to_export:Smooth", tmp_path, formats=["torchscript"], replace=True)
    assert (tmp_path / other).read_text() == "mine"
    assert len([*tmp_path.iterdir()]) == 1


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "package").write_text("mine")
    with pytest.raises(ModelError, match="is a file"):
        export("separators_to_export:Smooth", tmp_path / "package")


# --- what others may write into a package of ours


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stems": []}, "beamsplitter.stems"),
        ({"stems": ["a", "b", "c"]}, "no multiple of the stems"),
        ({"block_seconds": 1e9}, "beamsplitter.block_seconds"),
        ({"context_seconds": 1.0}, "at most a quarter"),
        ({"overlap": 1.0}, "beamsplitter.overlap"),
        ({"block_lengths": [0, 1]}, "beamsplitter.block_lengths"),
        ({"block_lengths": 7}, "beamsplitter.block_lengths"),
    ],
)
def test_metadata_that_lies_of_its_separator_is_refused(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    package = tmp_path / "package"
    export("separators_to_export:Smooth", package, formats=["torchscript"])
    metadata = json.loads((package / "metadata.json").read_text())
    metadata["beamsplitter"] |= change
    (package / "metadata.json").write_text(json.dumps(metadata))
    describe.cache_clear()
    with pytest.raises(ModelError, match=message) as caught:
        describe((SeparatorName(str(package)),))
    assert "metadata.json" in str(caught.value)
