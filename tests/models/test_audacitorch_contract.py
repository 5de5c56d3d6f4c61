"""What audacitorch promises, by its own tests, and by what was seen of its code and of Audacity."""

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft7Validator

from beamsplitter.models.export import package_tools
from beamsplitter.models.export.audio_models import WaveformToLabels, WaveformToWaveform
from beamsplitter.models.export.older_torch import older_torch_complaints
from beamsplitter.models.export.scripting import save_torchscript, scripted
from beamsplitter.models.packages.metadata import problems
from beamsplitter.models.packages.torchscript import load_torchscript
from beamsplitter.models.separators.base import ModelError

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")

METADATA = {
    "name": "Volume Booster",
    "author": "Someone",
    "sample_rate": 48000,
    "domain_tags": ["music", "speech", "environmental"],
    "short_description": "Use me to boost volume by 3dB :).",
    "long_description": "This description can be a max of 280 characters.",
    "tags": ["volume boost"],
    "labels": ["boosted"],
    "effect_type": "waveform-to-waveform",
    "multichannel": False,
}


class Twice(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2


class Booster(WaveformToWaveform):
    def do_forward_pass(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(x)


class FixedLabels(WaveformToLabels):
    """Without annotations, as the labeler of audacitorch's tests."""

    def do_forward_pass(self, x):  # type: ignore[no-untyped-def]
        start_s = torch.tensor([0, 0.5, 0.5, 2, 5, 2.8, 3.5, 2.5, 5.5])
        end_s = torch.tensor([1, 1.5, 1.25, 3, 7, 3.5, 4, 4, 6.5])
        return torch.tensor([0, 0, 1, 2, 0, 1, 2, 3, 0]), torch.stack([start_s, end_s], dim=1)


class GivenLabels(WaveformToLabels):
    """Gives what its model, a parameter list, has."""

    def do_forward_pass(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.model.labels, self.model.timestamps


class Holder(torch.nn.Module):
    def __init__(self, labels: torch.Tensor, timestamps: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("labels", labels)
        self.register_buffer("timestamps", timestamps)


class Given(WaveformToWaveform):
    """Gives its model's tensor, whatever it is asked."""

    def do_forward_pass(self, x: torch.Tensor) -> torch.Tensor:
        return self.model.labels


# --- its own four tests


def test_wav2wav() -> None:
    model = Booster(Twice())
    for x in package_tools.get_example_inputs():
        torch.testing.assert_close(model(x), 2 * x)


def test_wav2label() -> None:
    model = FixedLabels(torch.nn.Module())
    for x in package_tools.get_example_inputs():
        labels, timestamps = model(x)
        assert labels.shape == (9,)
        assert timestamps.shape == (9, 2)


def test_metadata() -> None:
    broken = {name: value for name, value in METADATA.items() if name != "short_description"}
    success, message = package_tools.validate_metadata(broken)
    assert not success
    assert "short_description" in message
    assert package_tools.validate_metadata(METADATA) == (True, "success! :)")


def test_save_model(tmp_path: Path) -> None:
    model = torch.jit.script(Booster(Twice()))
    package_tools.save_model(model, METADATA, tmp_path / "test_save_model")
    loaded = torch.jit.load(tmp_path / "test_save_model/model.pt")
    assert json.loads((tmp_path / "test_save_model/metadata.json").read_text()) == METADATA
    for x in package_tools.get_example_inputs():
        assert torch.allclose(loaded(x), model(x))


# --- the checks, which a script keeps


@pytest.mark.parametrize("shape", [(5,), (1, 2, 3), (1, 1), (2, 2), (3, 2), (0, 0), ()])
@pytest.mark.parametrize("how", ["eager", "scripted"])
def test_what_is_no_waveform_is_refused_on_both_sides(how: str, shape: tuple[int, ...]) -> None:
    takes: Any = Booster(torch.nn.Identity())
    gives: Any = Given(Holder(torch.zeros(shape), torch.zeros(0)))
    if how == "scripted":
        takes, gives = scripted(takes, "toy"), scripted(gives, "toy")
    for model, x in ((takes, torch.zeros(shape)), (gives, torch.zeros(1, 9))):
        with pytest.raises((AssertionError, torch.jit.Error), match="a waveform"):
            model(x)
    assert takes(torch.zeros(1, 2)).shape == (1, 2)


@pytest.mark.parametrize(
    ("labels", "timestamps", "message"),
    [
        ([[0.1, 0.9]], [[0, 1]], "labels have one axis"),
        ([0], [[1, 1]], "ends after its start"),
        ([0], [[2, 1]], "ends after its start"),
        ([0], [[-1, 1]], "at least 0"),
        ([0, 1], [[0, 1]], "its start and its end"),
        ([0], [[0, 1, 2]], "start and end in seconds"),
        ([0, 1], [0, 1], "start and end in seconds"),
    ],
)
@pytest.mark.parametrize("how", ["eager", "scripted"])
def test_what_are_no_labels_is_refused(
    how: str, labels: list[Any], timestamps: list[Any], message: str
) -> None:
    model: Any = GivenLabels(Holder(torch.tensor(labels), torch.tensor(timestamps).float()))
    if how == "scripted":
        model = scripted(model, "toy")
    with pytest.raises((AssertionError, torch.jit.Error), match=message):
        model(torch.zeros(1, 100))


@pytest.mark.parametrize("how", ["eager", "scripted"])
def test_there_may_be_no_labels(how: str) -> None:
    model: Any = GivenLabels(Holder(torch.zeros(0).long(), torch.zeros(0, 2)))
    if how == "scripted":
        model = scripted(model, "toy")
    labels, timestamps = model(torch.zeros(1, 100))
    assert labels.shape == (0,)
    assert timestamps.shape == (0, 2)


def test_what_is_not_there_yet_says_so() -> None:
    for base in (WaveformToWaveform, WaveformToLabels):
        with pytest.raises(NotImplementedError, match="implement me!"):
            base(torch.nn.Identity())(torch.zeros(1, 9))


def test_a_model_is_in_evaluation_with_all_around_it() -> None:
    """Audacitorch leaves the module around it in training."""
    model = Booster(torch.nn.Sequential(torch.nn.Dropout(0.5)))
    assert not any(module.training for module in model.modules())
    torch.testing.assert_close(model(torch.ones(1, 9)), torch.ones(1, 9))


# --- the tools


@pytest.mark.parametrize("multichannel", [False, True])
def test_example_inputs_are_those_of_audacitorch_and_the_same_each_time(multichannel: bool) -> None:
    examples = package_tools.get_example_inputs(multichannel)
    assert len(examples) == 10
    assert {len(x) for x in examples} == ({1, 2} if multichannel else {1})
    assert all(2048 <= x.shape[1] <= 396000 and x.dtype == torch.float32 for x in examples)
    for x, again in zip(examples, package_tools.get_example_inputs(multichannel), strict=True):
        assert torch.equal(x, again)


def test_a_test_run_tells_what_fails() -> None:
    class Short(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[:, :40000].reshape(1, 40000)

    package_tools.test_run(Booster(Twice()))
    with pytest.raises(ModelError, match=r"fails on \(1, 2048\)"):
        package_tools.test_run(Booster(Short()))
    with pytest.raises(ModelError, match=r"fails on \(2, 2049\)"):
        package_tools.test_run(Booster(torch.nn.Conv1d(1, 1, 1)), multichannel=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"short_description": "a" * 61}, "short_description"),
        ({"long_description": "a" * 281}, "long_description"),
        ({"domain_tags": ["birds"]}, "domain_tags"),
        # Those that the schema of Audacity lets pass, and its reader or its page do not.
        ({"tags": None}, "tags"),
        ({"tags": ["a" * 16]}, "tags"),
        ({"tags": ["a", "a"]}, "tags"),
        ({"labels": []}, "labels"),
        ({"sample_rate": 0}, "sample_rate"),
        ({"sample_rate": 384001}, "sample_rate"),
        ({"sample_rate": True}, "sample_rate"),
        ({"sample_rate": 48000.0}, "sample_rate"),
        ({"effect_type": "waveform-to-midi"}, "effect_type"),
        ({"multichannel": "no"}, "multichannel"),
    ],
)
def test_metadata_that_a_reader_refuses_is_refused(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    metadata = {name: value for name, value in (METADATA | change).items() if value is not None}
    success, told = package_tools.validate_metadata(metadata)
    assert not success
    assert message in told
    with pytest.raises(ModelError, match=message):
        package_tools.save_model(torch.jit.script(Booster(Twice())), metadata, tmp_path / "package")
    assert not (tmp_path / "package").exists()


ANYTHING = st.one_of(
    st.sampled_from([None, True, -1, 0, 1, 384_000, 384_001, 48000.0, "", "a" * 60, "a" * 61]),
    st.lists(st.sampled_from(["music", "speech", "a", "birds"]), max_size=6),
)


@given(st.dictionaries(st.sampled_from([*METADATA, "more"]), ANYTHING, max_size=4))
def test_what_we_accept_the_schema_of_audacity_accepts(change: dict[str, Any]) -> None:
    schema = json.loads(package_tools.SCHEMA_FILE.read_text())
    metadata = METADATA | change
    if not problems(metadata):
        Draft7Validator(schema).validate(metadata)


def test_a_module_that_is_no_torchscript_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no TorchScript: torch\.jit\.script"):
        package_tools.save_model(Booster(Twice()), METADATA, tmp_path)  # type: ignore[arg-type]


# --- TorchScript, and that of torch 1.9


class Odd(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + len(list(globals()))


def test_what_cannot_be_compiled_is_told_with_its_place() -> None:
    with pytest.raises(ModelError, match=r"toy: TorchScript can't compile it: .*line \d+.*globals"):
        scripted(Booster(Odd()), "toy")


class Padded(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.pad(x, [0, 1])[:, :-1]


class Windowed(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        window = torch.hann_window(64)
        spectrum = torch.stft(x, 64, window=window, center=False, return_complex=True)
        return x * spectrum.abs().sum()


class Volumes(torch.nn.Module):
    """Layers whose checks raise errors of a class."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = torch.nn.GRU(1, 1, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.gru(x[:, :, None])[0][:, :, 0]


@pytest.mark.parametrize(
    ("model", "complaints"),
    [
        (Twice(), []),
        (Volumes(), []),
        (Padded(), ["the operator pad"]),
        (Windowed(), ["the operator pad", "the operator stft with 9 operands, not 8"]),
    ],
)
def test_what_torch_1_9_cannot_read_is_told(
    tmp_path: Path, model: torch.nn.Module, complaints: list[str]
) -> None:
    save_torchscript(scripted(Booster(model), "toy"), tmp_path / "model.pt")
    assert older_torch_complaints(tmp_path / "model.pt") == complaints


def test_a_file_for_torch_1_9_is_the_same_model(tmp_path: Path) -> None:
    """It has no classes of exceptions, and no places of operators, which 1.9 ends on."""
    model = scripted(Booster(Volumes()), "toy")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save(tmp_path / "whole.pt")
    save_torchscript(model, tmp_path / "model.pt")
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["model.pt", "whole.pt"]
    whole, written = (
        torch._C.PyTorchFileReader(str(tmp_path / name)) for name in ("whole.pt", "model.pt")
    )
    assert written.get_record("version") == whole.get_record("version")
    names = set(written.get_all_records())
    assert not any(name.endswith(".debug_pkl") for name in names)
    assert any(b"RaiseException" in written.get_record(name) for name in names)
    assert not any(b'"builtins.' in written.get_record(name) for name in names)
    loaded = load_torchscript(tmp_path / "model.pt", "toy")
    for x in package_tools.get_example_inputs():
        torch.testing.assert_close(loaded(x[:, :4000]), model(x[:, :4000]), rtol=0, atol=0)
    with pytest.raises(torch.jit.Error, match="a waveform has two axes"):
        loaded(torch.zeros(9))
