"""`beamsplitter export`: from a training to a package that jobs run."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from conftest import Command
from toy_training import RATE, noise, tone, train, write_dataset, write_network

from beamsplitter.models.packages.trained import load_trained

PRIME = 20011


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A separator that was trained for two epochs."""
    root = tmp_path_factory.mktemp("trained")
    network = write_network(
        root / "net",
        model_type="BandNet",
        num_hidden_channels=None,
        hidden_size=8,
        num_bands=8,
    )
    train(network, write_dataset(root / "data"))
    return network


@pytest.fixture(scope="module")
def package(folder: Path, command: Command) -> Path:
    """What is exported of it, with what was told of that in `told.json` beside it."""
    package = folder.parent / "package"
    done = command("export", folder, "--to", package, "--json")
    assert done.returncode == 0, done.stderr
    (folder.parent / "told.json").write_text(done.stdout)
    return package


def read(path: Path) -> np.ndarray:
    return soundfile.read(path, dtype="float32", always_2d=True)[0].T


def test_a_job_with_the_package_gives_what_the_trained_network_gives(
    folder: Path, package: Path, tmp_path: Path, command: Command
) -> None:
    music = tmp_path / "music"
    music.mkdir()
    # A block has 40,000 samples: one more, fewer, and primes.
    for samples in (40001, 1999, PRIME, 100003):
        seconds = samples / RATE
        both = (tone(seconds, 300, channels=2) + noise(seconds, 1, channels=2)).T
        soundfile.write(music / f"{samples}.wav", both, RATE, subtype="FLOAT")
    facts = json.loads((package.parent / "told.json").read_text())
    assert facts["files"] == {"torchscript": "model.pt"}
    assert facts["difference"] <= 1e-5
    assert facts["unreadable_for_torch_1_9"] == []
    assert "recurrent" in facts["left_out"]["torch-export"]
    outs = tmp_path / "of-network", tmp_path / "of-package"
    for separator, out in zip((folder, package), outs, strict=True):
        wav = ("--format", "wav", "--bit-depth", "32f", "--no-plots")
        done = command("separate", music, "-o", out, "--separator", separator, *wav)
        assert done.returncode == 0, done.stderr
    for path in sorted(music.iterdir()):
        for stem in ("vocals", "residual"):
            expected, found = (read(out / path.stem / f"{stem}.wav") for out in outs)
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
            assert np.abs(found).max() > 0.01


def test_the_package_is_worth_what_the_trained_network_is_worth(
    folder: Path, package: Path, tmp_path: Path, command: Command
) -> None:
    systems = ("--separator", f"network={folder}", "--separator", f"package={package}")
    done = command("evaluate", folder.parent / "data", *systems, "-o", tmp_path / "scores")
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "scores" / "scores.json").read_text())
    compared = [each["comparison"] for each in content["side_by_side"]]
    assert len(compared) == 2 * 2 * 7  # of vocals and of the residual, tracks and frames
    for each in compared:
        assert each["tracks"] > 1
        assert abs(each["median_difference"]) < 1e-2


def as_audacity_runs(
    package: Path, samples: np.ndarray, block_samples: int
) -> dict[str, np.ndarray]:
    """What Audacity makes of float32 `(channels, samples)` at the rate of the package.

    Its reader, `audacity/audacity` on GitHub: channels are added up where `multichannel` is false,
    blocks do not overlap, and row i of the output is called by `labels[i]`.
    """
    metadata = json.loads((package / "metadata.json").read_text())
    model = torch.jit.load(str(package / "model.pt"))
    given = samples if metadata["multichannel"] else samples.sum(axis=0, keepdims=True)
    with torch.no_grad():
        rows = [
            model(torch.from_numpy(np.ascontiguousarray(given[:, start : start + block_samples])))
            for start in range(0, given.shape[1], block_samples)
        ]
    return dict(zip(metadata["labels"], torch.cat(rows, dim=1).numpy(), strict=True))


def test_audacity_hears_what_the_trained_network_gives(folder: Path, package: Path) -> None:
    """Of each of its blocks, however long they are."""
    block_samples = 20000
    seconds = (2 * block_samples + 4093) / RATE
    music = (tone(seconds, 300, channels=2) + noise(seconds, 1, channels=2)).astype(np.float32)
    found = as_audacity_runs(package, music, block_samples)
    network = load_trained(folder, "net").eval()
    blocks = torch.from_numpy(music.sum(axis=0)).split(block_samples)
    with torch.inference_mode():
        expected = torch.cat([network(block[None, None])[0, 0, 0] for block in blocks])
    assert [*found] == ["vocals"]
    np.testing.assert_allclose(found["vocals"], expected.numpy(), rtol=0, atol=1e-5)


def test_what_it_does_is_told(folder: Path, tmp_path: Path, command: Command) -> None:
    package = tmp_path / "package"
    words = ("--name", "Toy", "--tags", "voice, toy", "--domain", "speech", "--license", "mit")
    done = command("export", folder, "--to", package, *words)
    assert done.returncode == 0, done.stderr
    assert f"{package}: model.pt" in done.stdout
    assert "left out" in done.stderr
    metadata = json.loads((package / "metadata.json").read_text())
    assert metadata["name"] == "Toy"
    assert metadata["tags"] == ["voice", "toy"]
    assert metadata["domain_tags"] == ["speech"]
    shown = command("models", "show", package)
    assert shown.returncode == 0, shown.stderr
    assert "vocals" in shown.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("hpss", "--to", "package"), "hpss: is a method without a network"),
        (("no:Such", "--to", "package"), "No module named 'no'"),
        (("./none", "--to", "package"), "there is no such folder"),
        (("hpss", "--to", "gs://bucket/package"), "name a folder on this machine"),
        (("hpss", "--to", "package", "--option", "margin"), "write it as NAME=value"),
        (("hpss", "--to", "package", "--option", "margins=1"), "margins"),
    ],
)
def test_mistakes_are_a_line(
    tmp_path: Path, command: Command, arguments: tuple[str, ...], message: str
) -> None:
    placed = [str(tmp_path / each) if each == "package" else each for each in arguments]
    done = command("export", *placed)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "package").exists()
