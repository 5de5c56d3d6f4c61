"""What was trained here is a package as any other: by name, in parts, safe to load."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from conftest import Command, made_signal
from result_checks import manifests, read_json
from storage_server import StorageServer
from toy_training import RATE, noise, tone, write_network

import beamsplitter
from beamsplitter.models.networks.by_settings import make_model
from beamsplitter.models.packages.metadata import problems
from beamsplitter.models.packages.trained import load_trained, read_network, save_trained
from beamsplitter.models.separators.base import ModelError
from beamsplitter.models.separators.by_name import SeparatorName, describe, load, require_usable


def trained(folder: Path, **changes: Any) -> Path:
    """A folder as a training leaves it, with weights as they were drawn."""
    write_network(folder, **changes)
    torch.manual_seed(0)
    model = make_model(read_network(folder, "toy")).eval()
    save_trained(folder, model)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return trained(tmp_path / "net", targets=["vocals", "drums"])


def mixture(seconds: float, channels: int = 1) -> np.ndarray:
    return tone(seconds, 300, channels=channels) + noise(seconds, 1, channels=channels)


def test_it_separates_as_its_network_does(folder: Path) -> None:
    samples = mixture(0.5)
    stems = beamsplitter.separate(samples, sample_rate=RATE, separator=str(folder))
    with torch.inference_mode():
        expected = load_trained(folder, "toy")(torch.from_numpy(samples)[None])[0].numpy()
    assert sorted(stems) == ["drums", "residual", "vocals"]
    # The last quarter of a block is shared with the next.
    for index, name in enumerate(("vocals", "drums")):
        np.testing.assert_allclose(stems[name][:, :3000], expected[index, :, :3000], atol=1e-6)
    np.testing.assert_allclose(sum(stems.values()), samples, atol=1e-6)


@pytest.mark.parametrize("samples", [1, 63, 2000, 4000, 4001, 30011])
@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("num_channels", [1, 2])
def test_any_length_and_channels(
    tmp_path: Path, num_channels: int, channels: int, samples: int
) -> None:
    folder = trained(tmp_path / "net", num_channels=num_channels)
    given = mixture(4, channels)[:, :samples]
    stems = beamsplitter.separate(given, sample_rate=RATE, separator=str(folder))
    assert stems["vocals"].shape == given.shape
    assert np.isfinite(stems["vocals"]).all()


def test_a_network_for_mono_treats_channels_alike(folder: Path) -> None:
    samples = mixture(2, 2)
    both = beamsplitter.separate(samples, sample_rate=RATE, separator=str(folder))
    for channel in range(2):
        one = beamsplitter.separate(samples[channel], sample_rate=RATE, separator=str(folder))
        np.testing.assert_allclose(both["vocals"][channel], one["vocals"], atol=1e-5)


def test_channels_stay_apart(tmp_path: Path) -> None:
    """Auralflow put one behind the other."""
    folder = trained(tmp_path / "net", num_channels=2)
    samples = mixture(2, 2)
    samples[1] = 0
    stems = beamsplitter.separate(samples, sample_rate=RATE, separator=str(folder))
    assert stems["vocals"][0].any()
    assert not stems["vocals"][1].any()


def test_files_of_integers_have_full_scale_1(folder: Path, tmp_path: Path) -> None:
    """Auralflow's estimates of them were in the thousands."""
    samples = mixture(1)
    path = tmp_path / "song.wav"
    soundfile.write(path, samples.T, RATE, subtype="PCM_16")
    stems = beamsplitter.separate(path, separator=str(folder))
    expected = beamsplitter.separate(samples, sample_rate=RATE, separator=str(folder))
    np.testing.assert_allclose(stems["vocals"], expected["vocals"], atol=1e-3)


def test_parts_make_the_whole(folder: Path) -> None:
    samples = mixture(20)
    whole, parts = (
        beamsplitter.separate(
            samples, sample_rate=RATE, separator=str(folder), part_seconds=seconds
        )
        for seconds in (300, 7)
    )
    np.testing.assert_allclose(parts["vocals"], whole["vocals"], atol=1e-5)


def test_silence_is_silence(folder: Path) -> None:
    stems = beamsplitter.separate(np.zeros(9000, "f4"), sample_rate=RATE, separator=str(folder))
    assert not any(stem.any() for stem in stems.values())


def test_a_job_takes_it_by_its_folder(folder: Path, tmp_path: Path, command: Command) -> None:

    (tmp_path / "music").mkdir()
    for index in range(2):
        samples = made_signal(3, 16000, 2, index)
        soundfile.write(tmp_path / f"music/{index}.wav", samples.T, 16000)
    done = command("separate", tmp_path / "music", "-o", tmp_path / "out", "--separator", folder)
    assert done.returncode == 0, done.stderr
    assert len(manifests(tmp_path / "out")) == 2
    for manifest in manifests(tmp_path / "out"):
        names = {receipt["name"] for receipt in read_json(manifest)["files"]}
        assert {"vocals.flac", "drums.flac", "residual.flac"} <= names


def test_it_can_lie_in_a_bucket(folder: Path, gcs: StorageServer) -> None:
    gcs.upload(folder, "models/net")
    address = f"gs://{gcs.bucket.name}/models/net"
    samples = mixture(1)
    expected = beamsplitter.separate(samples, sample_rate=RATE, separator=str(folder))
    found = beamsplitter.separate(samples, sample_rate=RATE, separator=address)
    np.testing.assert_array_equal(found["vocals"], expected["vocals"])


def test_its_metadata_suits_every_reader(folder: Path) -> None:
    metadata = json.loads((folder / "metadata.json").read_text())
    assert problems(metadata) == []
    assert metadata["labels"] == ["vocals", "drums"]
    assert metadata["sample_rate"] == RATE


def test_words_in_its_metadata_are_kept_and_facts_are_not(folder: Path) -> None:
    path = folder / "metadata.json"
    metadata = json.loads(path.read_text())
    path.write_text(json.dumps({**metadata, "author": "A choir", "sample_rate": 1}))
    save_trained(folder, load_trained(folder, "toy"))
    again = json.loads(path.read_text())
    assert again == {**metadata, "author": "A choir"}


def test_what_it_says_of_itself_depends_on_its_files(folder: Path, tmp_path: Path) -> None:
    found = describe((SeparatorName(str(folder)),))
    assert found.stems == ("vocals", "drums")
    assert found.sample_rates == (RATE,)
    assert json.loads(found.resolved_options) == {"block_seconds": 0.5, "context_seconds": 0.0}
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    assert describe((SeparatorName(str(other)),)).sha256 == found.sha256
    model = load_trained(other, "toy")
    with torch.no_grad():
        next(model.parameters()).add_(1)
    save_trained(other, model)
    describe.cache_clear()
    assert describe((SeparatorName(str(other)),)).sha256 != found.sha256


def test_blocks_can_be_longer_than_in_training(folder: Path) -> None:
    options = {"block_seconds": 2.0, "context_seconds": 0.25}
    (member,) = load((SeparatorName.of(str(folder), options),))
    assert member.separator.block_samples == 2 * RATE
    assert member.separator.context_samples == RATE // 4
    stems = beamsplitter.separate(
        mixture(5), sample_rate=RATE, separator=str(folder), options=options
    )
    assert stems["vocals"].shape == (1, 5 * RATE)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"downmix": True}, "downmix: unknown key"),
        ({"block_seconds": 1, "context_seconds": 0.5}, "at most a quarter"),
        ({"context_seconds": 0.2}, "at most a quarter"),
    ],
)
def test_wrong_options_are_told(folder: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        describe((SeparatorName.of(str(folder), options),))


def test_what_was_not_trained_yet_says_so(tmp_path: Path) -> None:
    folder = write_network(tmp_path / "net")
    with pytest.raises(ModelError, match=r"not trained yet.*beamsplitter train"):
        describe((SeparatorName(str(folder)),))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("model.safetensors", b"cut off", "is not a whole model file"),
        ("model.json", b"{", "model.json is no JSON"),
        ("model.json", b'{"model_type": "Magic"}', "'Magic' is no network"),
        ("model.json", b"[]", "is no network"),
    ],
)
def test_broken_files_are_told(folder: Path, name: str, content: bytes, message: str) -> None:
    (folder / name).write_bytes(content)
    with pytest.raises(ModelError, match=message) as caught:
        require_usable((SeparatorName(str(folder)),), load_packages=True)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_weights_of_another_network_are_told(folder: Path, tmp_path: Path) -> None:
    other = trained(tmp_path / "other", num_hidden_channels=2)
    shutil.copy(other / "model.safetensors", folder)
    with pytest.raises(
        ModelError, match=r"model\.safetensors is not of the network in model\.json"
    ):
        load((SeparatorName(str(folder)),))
