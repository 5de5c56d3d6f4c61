"""A song with its stems in one file: its mixture is separated, and this is said."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from audio_files import chirp
from conftest import Command, made_signal
from stem_mp4 import write_stem_mp4

import beamsplitter

RATE = 16000
STEMS = [0.2 * chirp(seconds=1.0, rate=RATE, seed=number) for number in range(4)]
MIXTURE = np.sum(STEMS, axis=0)


@pytest.fixture
def song(tmp_path: Path) -> Path:
    path = tmp_path / "music" / "Artist - Title.stem.mp4"
    return write_stem_mp4(path, [MIXTURE, *STEMS], RATE, codec="alac")


def test_the_mixture_is_taken_and_this_is_said(
    song: Path, tmp_path: Path, command: Command
) -> None:
    out = tmp_path / "out"
    # Another recording of a name that is nearly the same, with one stream.
    other = song.with_name("Artist - Title.wav")
    soundfile.write(other, made_signal(1.0, RATE, 2).T, RATE)
    done = command("separate", song.parent, "-o", out, "--no-plots")
    assert done.returncode == 0, done.stderr
    assert "1 with several audio streams: took the first, mixture" in done.stdout + done.stderr
    folder = out / "Artist - Title.stem"
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["input"]["streams"] == ["mixture", "drums", "bass", "other", "vocals"]
    assert manifest["input"]["container"] == "m4a"
    stems = [soundfile.read(path, always_2d=True)[0] for path in folder.glob("*.flac")]
    assert len(stems) == 2
    np.testing.assert_allclose(np.sum(stems, axis=0).T, MIXTURE, atol=2 / 2**15)
    in_memory = beamsplitter.separate(song)
    np.testing.assert_allclose(sum(in_memory.values()), MIXTURE, atol=2 / 2**15)
    plain = json.loads((out / "Artist - Title" / "manifest.json").read_text())
    assert plain["input"]["streams"] == []


def test_nothing_is_said_of_files_with_one_stream(tmp_path: Path, command: Command) -> None:
    path = tmp_path / "song.wav"
    soundfile.write(path, made_signal(1.0, RATE, 1).T, RATE)
    done = command("separate", path, "-o", tmp_path / "out", "--no-plots")
    assert done.returncode == 0, done.stderr
    assert "streams" not in done.stdout + done.stderr
