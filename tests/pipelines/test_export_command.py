"""`beamsplitter export`: from a training to a package that jobs run."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import Command
from toy_training import RATE, noise, tone, train, write_dataset, write_network

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


def read(path: Path) -> np.ndarray:
    return soundfile.read(path, dtype="float32", always_2d=True)[0].T


def test_a_job_with_the_package_gives_what_the_trained_network_gives(
    folder: Path, tmp_path: Path, command: Command
) -> None:
    music = tmp_path / "music"
    music.mkdir()
    # A block has 40,000 samples: one more, fewer, and primes.
    for samples in (40001, 1999, PRIME, 100003):
        seconds = samples / RATE
        both = (tone(seconds, 300, channels=2) + noise(seconds, 1, channels=2)).T
        soundfile.write(music / f"{samples}.wav", both, RATE, subtype="FLOAT")
    package = tmp_path / "package"
    done = command("export", folder, "--to", package, "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
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
