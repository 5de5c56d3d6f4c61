"""Files with several audio streams: each is read as if it were alone, and has a name."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from audio_files import chirp, wav_bytes
from stem_mp4 import decoded_alone, note_stems, write_stem_mp4

from beamsplitter.audio.decoding.audio_reader import AudioInfo, probe, read_audio, stream_names
from beamsplitter.audio.errors import UndecodableAudioError

RATE = 44100
MUSDB18 = ("mixture", "drums", "bass", "other", "vocals")
STEMS_NOTE = {"version": 1, "stems": [{"name": name} for name in ("Kick ", "BASS", "Pad", "Vox")]}
Make = Callable[..., Path]


def songs(count: int, *, seconds: float = 1.5, step: int = 0) -> list[np.ndarray]:
    """Different ones of 16 bits, each `step` samples longer than that before."""
    made = [
        chirp(seconds=(round(seconds * RATE) + 7 + step * number) / RATE, seed=number)
        for number in range(count)
    ]
    levels = [0.5 + 0.1 * number for number in range(count)]
    return [
        np.round(level * song * 2**15) / 2**15 for level, song in zip(levels, made, strict=True)
    ]


def read_stream(path: Path, stream: int) -> tuple[AudioInfo, np.ndarray]:
    with path.open("rb") as file:
        info = probe(file, name=path.name, stream=stream)
        samples = read_audio(file, name=path.name, info=info)
        middle = info.frames // 2
        part = read_audio(file, name=path.name, info=info, start_sample=middle, frames=999)
    assert samples.shape == (info.channels, info.frames)
    np.testing.assert_array_equal(part, samples[:, middle : middle + 999])
    return info, samples


@pytest.mark.parametrize("arguments", [(), ("-movflags", "+faststart")])
@pytest.mark.parametrize("step", [0, 777])
def test_each_aac_stream_is_as_if_alone(
    step: int, arguments: tuple[str, ...], tmp_path: Path
) -> None:
    sources = songs(5, step=step)
    path = write_stem_mp4(tmp_path / "song.stem.mp4", sources, RATE, arguments=arguments)
    for number, source in enumerate(sources):
        info, samples = read_stream(path, number)
        assert (info.frames, info.codec, info.streams) == (source.shape[1], "aac", MUSDB18)
        alone = decoded_alone(path, number, 2)[:, : info.frames]
        assert alone.shape == samples.shape
        assert np.abs(samples - alone).max() < 1e-5
        # And it is this one that is most like its source.
        errors = [
            np.abs(samples[:, : sources[0].shape[1]] - other[:, : sources[0].shape[1]]).mean()
            for other in sources
        ]
        assert np.argmin(errors) == number


@pytest.mark.parametrize("codec", ["alac", "flac"])
def test_each_lossless_stream_is_its_source(codec: str, tmp_path: Path) -> None:
    sources = songs(5, step=300)
    path = write_stem_mp4(tmp_path / "song.stem.mp4", sources, RATE, codec=codec)
    for number, source in enumerate(sources):
        info, samples = read_stream(path, number)
        assert (info.codec, info.bit_depth, info.streams) == (codec, 16, MUSDB18)
        np.testing.assert_array_equal(samples, source)


def test_streams_may_differ_in_rate_and_channels(tmp_path: Path) -> None:
    arguments = ("-ar:a:1", "22050", "-ac:a:1", "1")
    path = write_stem_mp4(tmp_path / "a.mp4", songs(2), RATE, codec="alac", arguments=arguments)
    first, second = (read_stream(path, number)[0] for number in (0, 1))
    assert (first.sample_rate, first.channels) == (RATE, 2)
    assert (second.sample_rate, second.channels) == (RATE // 2, 1)


def test_without_a_number_the_first_is_read(tmp_path: Path) -> None:
    sources = songs(3)
    path = write_stem_mp4(tmp_path / "a.mp4", sources, RATE, codec="alac")
    with path.open("rb") as file:
        samples = read_audio(file, name="a")
    np.testing.assert_array_equal(samples, sources[0])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """`made(5)`: a file with so many streams."""

    def make(count: int, name: str = "song.mp4", titles: tuple[str, ...] = ()) -> Path:
        path = tmp_path_factory.mktemp("streams") / name
        codec = "flac" if name.endswith(".mka") else "aac"
        return write_stem_mp4(path, songs(count, seconds=0.1), RATE, codec=codec, titles=titles)

    return make


def names_of(path: Path) -> tuple[str, ...]:
    with path.open("rb") as file:
        names = stream_names(file, name=path.name)
        assert names == probe(file, name=path.name).streams
    return names


def test_names_are_those_of_the_stems_note(made: Make) -> None:
    path = made(5, titles=("a", "b", "c", "d", "e"))
    note_stems(path, STEMS_NOTE)
    assert names_of(path) == ("mixture", "kick", "bass", "pad", "vox")


@pytest.mark.parametrize(
    "note",
    [
        {"stems": [{"name": "drums"}] * 3},
        {"stems": [{"name": "drums"}] * 4},
        {"stems": [{"name": ""}, {"name": "a"}, {"name": "b"}, {"name": "c"}]},
        {"stems": "none"},
        {"stems": [1, 2, 3, 4]},
        {},
        b"\xff\xfe no JSON",
        b"[]",
    ],
)
def test_a_note_that_does_not_fit_is_passed_over(note: dict[str, object], made: Make) -> None:
    path = made(5)
    note_stems(path, note)
    assert names_of(path) == MUSDB18


@pytest.mark.parametrize("name", ["song.mp4", "song.mka"])
def test_names_are_titles(name: str, made: Make) -> None:
    assert names_of(made(2, name, ("Band", "My  Voice"))) == ("band", "my voice")


def test_names_are_numbers_where_there_are_none(made: Make) -> None:
    assert names_of(made(5, "song.mka")) == tuple(f"stream {number}" for number in range(1, 6))
    assert names_of(made(2, titles=("same", "same"))) == ("stream 1", "stream 2")


def test_one_stream_has_no_name(made: Make) -> None:
    assert names_of(made(1, titles=("Song",))) == ()
    assert stream_names(wav_bytes(songs(1)[0], RATE), name="a.wav") == ()


def test_a_stream_that_is_not_there(made: Make) -> None:
    for source, held in ((made(2).read_bytes(), 2), (wav_bytes(songs(1)[0], RATE), 1)):
        with pytest.raises(UndecodableAudioError, match=f"x: holds {held} .*stream 3 was"):
            probe(source, name="x", stream=2)
        # As of a file that another one has taken the place of.
        info = dataclasses.replace(probe(source, name="x"), stream=2)
        with pytest.raises(UndecodableAudioError, match=f"x: holds {held} .*stream 3 was"):
            read_audio(source, name="x", info=info)
