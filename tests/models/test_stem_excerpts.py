"""Excerpts of folders of stems: those of the whole files, decoded and resampled."""

import os
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr
from audio_files import chirp, encode_mp3
from hypothesis import given, settings
from hypothesis import strategies as st
from stem_mp4 import write_stem_mp4
from torch.utils.data import DataLoader

from beamsplitter.audio.decoding import audio_reader
from beamsplitter.audio.decoding.audio_reader import read_audio
from beamsplitter.audio.resampling import resampled_range, rounded_length
from beamsplitter.models.datasets import stem_excerpts
from beamsplitter.models.datasets.excerpt_dataset import ExcerptDataset
from beamsplitter.models.datasets.excerpts import (
    Excerpt,
    ExcerptGrid,
    ExcerptSampler,
    TrackLength,
)
from beamsplitter.models.datasets.sources import StemSource, open_source
from beamsplitter.models.datasets.stem_folders import DatasetError, ExcerptError

RATE = 16000
Write = Callable[..., Path]


@pytest.fixture
def write_stem(tmp_path: Path) -> Write:
    """`write_stem("song/vocals.wav", seed=1)`: 4 s of stereo noise and sweeps at 16 kHz."""

    def write(
        name: str,
        *,
        seconds: float = 4.0,
        rate: int = RATE,
        channels: int = 2,
        seed: int = 0,
        subtype: str | None = None,
    ) -> Path:
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        samples = 0.3 * chirp(seconds=seconds, rate=rate, channels=channels, seed=seed)
        if path.suffix == ".mp3":
            path.write_bytes(encode_mp3(samples, rate))
        else:
            soundfile.write(path, samples.T, rate, subtype=subtype)
        return path

    return write


def source_of(folder: Path, **options: Any) -> StemSource:
    chosen: dict[str, Any] = {"targets": ["vocals"], "sample_rate": RATE, "channels": 2}
    return open_source(folder / "data", **chosen | options)


def whole(path: Path, *, rate: int = RATE, channels: int = 2) -> np.ndarray:
    """All of a file, decoded at once, and resampled by soxr."""
    with path.open("rb") as file:
        info = audio_reader.probe(file, name=str(path))
        samples = read_audio(file, name=str(path))
    if channels == 1:
        samples = samples.mean(axis=0, keepdims=True)
    if len(samples) < channels:
        samples = np.concatenate([samples] * channels)
    if rate != info.sample_rate:
        samples = soxr.resample(samples.T, info.sample_rate, rate, quality="VHQ").T
    return samples


def ranges_of(samples: int, length: int) -> list[int]:
    return [0, 1, samples // 3, samples - length - 1, samples - length]


def assert_excerpts_equal(
    source: StemSource, track: str, expected: Sequence[np.ndarray], *, within: float = 0.0
) -> None:
    """Excerpts at the start, amid and at the end of a track are slices of these whole rows."""
    (length,) = (each.samples for each in source.tracks if each.name == track)
    for start in ranges_of(length, 2 * source.sample_rate):
        stop = start + 2 * source.sample_rate
        rows = source.read(Excerpt(track, start, stop - start))
        assert rows.dtype == np.float32
        slices = np.stack([row[:, start:stop] for row in expected])
        assert rows.shape == slices.shape
        assert np.abs(rows - slices).max() <= within


@pytest.mark.parametrize("extension", ["wav", "flac", "ogg", "mp3"])
def test_excerpts_are_slices_of_the_decoded_files(
    write_stem: Write, tmp_path: Path, extension: str
) -> None:
    vocals = whole(write_stem(f"song/vocals.{extension}", seed=1))
    mixture = whole(write_stem(f"song/mixture.{extension}", seed=2))
    assert_excerpts_equal(source_of(tmp_path), "song", [vocals, mixture - vocals])


def test_without_a_mixture_the_rest_is_the_sum_of_the_other_stems(
    write_stem: Write, tmp_path: Path
) -> None:
    stems = {
        name: whole(write_stem(f"song/{name}.wav", seed=seed))
        for seed, name in enumerate(["vocals", "bass", "drums"])
    }
    rest = stems["bass"] + stems["drums"]
    assert_excerpts_equal(source_of(tmp_path), "song", [stems["vocals"], rest])
    every = source_of(tmp_path, targets=["drums", "vocals", "bass"])
    rows = [stems["drums"], stems["vocals"], stems["bass"], np.zeros_like(rest)]
    assert_excerpts_equal(every, "song", rows)


@pytest.mark.parametrize(
    ("rate", "wanted"),
    [(44100, RATE), (RATE, 44100), (48000, 44100), (44100, 22050), (8000, 48000), (44099, 44100)],
)
def test_other_rates_are_resampled_as_the_whole_file_is(
    write_stem: Write, tmp_path: Path, rate: int, wanted: int
) -> None:
    vocals = whole(write_stem("song/vocals.wav", rate=rate, seed=1), rate=wanted)
    rest = whole(write_stem("song/rest.flac", rate=rate, seed=2), rate=wanted)
    source = source_of(tmp_path, sample_rate=wanted)
    assert source.tracks == (TrackLength("song", rounded_length(4 * rate, rate, wanted), wanted),)
    assert_excerpts_equal(source, "song", [vocals, rest], within=1e-5)


def test_files_of_a_track_may_differ_in_rate_channels_and_length(
    write_stem: Write, tmp_path: Path
) -> None:
    """The shortest ends the track."""
    vocals = write_stem("song/vocals.wav", channels=1, seconds=3.5, seed=1)
    mixture = write_stem("song/mixture.flac", rate=44100, seed=2)
    source = source_of(tmp_path)
    assert source.tracks == (TrackLength("song", round(3.5 * RATE), RATE),)
    rows = whole(vocals), whole(mixture)[:, : round(3.5 * RATE)]
    assert_excerpts_equal(source, "song", [rows[0], rows[1] - rows[0]], within=1e-5)


def test_mono_is_the_mean_of_all_channels(write_stem: Write, tmp_path: Path) -> None:
    vocals = whole(write_stem("song/vocals.wav", seed=1), channels=1)
    rest = whole(write_stem("song/rest.wav", channels=3, seed=2), channels=1)
    assert_excerpts_equal(source_of(tmp_path, channels=1), "song", [vocals, rest], within=1e-7)


def test_channels_that_can_not_become_those_wanted_are_refused(
    write_stem: Write, tmp_path: Path
) -> None:
    write_stem("song/vocals.wav", channels=3)
    with pytest.raises(
        DatasetError, match=r"vocals\.wav: has 3 channels, of which 2 can't be made"
    ):
        source_of(tmp_path)


def test_tracks_without_a_target_are_named_with_what_they_have(
    write_stem: Write, tmp_path: Path
) -> None:
    write_stem("a/vocals.wav")
    write_stem("b/bass.wav")
    write_stem("b/drums.wav")
    write_stem("c/mixture.wav")
    with pytest.raises(DatasetError) as raised:
        source_of(tmp_path)
    assert "2 of 3 tracks lack some of vocals" in str(raised.value)
    assert "b has bass, drums; c has a mixture only" in str(raised.value)
    for targets in ([], ["vocals", "vocals"]):
        with pytest.raises(DatasetError, match="name one stem at least, and each once"):
            source_of(tmp_path, targets=targets)


def test_short_tracks_are_reported(write_stem: Write, tmp_path: Path) -> None:
    write_stem("long/vocals.wav")
    write_stem("short/vocals.wav", seconds=1.5)
    grid = ExcerptGrid(source_of(tmp_path).tracks, excerpt_s=2)
    assert grid.short_tracks == ("short",)
    assert grid.count == 2


def test_nothing_is_decoded_before_it_is_asked_for(
    write_stem: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nothing of the files that an excerpt does not need."""
    for extension in ("wav", "flac", "ogg", "mp3"):
        write_stem(f"{extension}/vocals.{extension}")
        write_stem(f"{extension}/mixture.{extension}")
        (tmp_path / "data" / extension / f"bass.{extension}").write_bytes(b"no sound at all")
    asked: list[tuple[str, int, int]] = []

    def watched(file: Any, *, name: str, start_sample: int, frames: int, **rest: Any) -> np.ndarray:
        asked.append((Path(name).name, start_sample, frames))
        return read_audio(file, name=name, start_sample=start_sample, frames=frames, **rest)

    monkeypatch.setattr(stem_excerpts, "read_audio", watched)
    source = source_of(tmp_path)
    assert not asked
    source.read(Excerpt("flac", RATE, RATE))
    assert asked == [("vocals.flac", RATE, RATE), ("mixture.flac", RATE, RATE)]


@pytest.mark.parametrize("codec", ["alac", "aac"])
def test_excerpts_of_a_track_in_one_file(codec: str, tmp_path: Path) -> None:
    stems = [0.1 * chirp(seconds=3.0, rate=RATE, seed=seed) for seed in range(4)]
    mixture = np.sum(stems, axis=0)
    path = tmp_path / "data" / "train" / "song.stem.mp4"
    write_stem_mp4(path, [mixture, *stems], RATE, codec=codec)
    options = {"targets": ("vocals", "bass"), "sample_rate": RATE, "channels": 2}
    source = open_source(tmp_path / "data", **options)
    assert source.tracks == (TrackLength("train/song", 3 * RATE, RATE),)
    read = source.read(Excerpt("train/song", RATE, RATE))
    wanted = np.stack([stems[3], stems[1], stems[0] + stems[2]])[:, :, RATE : 2 * RATE]
    error = np.abs(read - wanted).mean() / np.abs(wanted).mean()
    assert error < (1e-3 if codec == "alac" else 0.2)


def test_a_file_that_can_not_be_decoded_is_named(write_stem: Write, tmp_path: Path) -> None:
    write_stem("song/vocals.wav")
    write_stem("song/rest.wav").write_bytes(b"no sound at all")
    with pytest.raises(DatasetError, match=r"song/rest\.wav: not audio .*dataset check"):
        source_of(tmp_path)


def test_what_goes_wrong_in_a_worker_process_is_told_without_its_traceback(
    write_stem: Write, tmp_path: Path
) -> None:
    vocals = write_stem("song/vocals.flac")
    source = source_of(tmp_path)
    vocals.write_bytes(vocals.read_bytes()[:2000])
    loader = DataLoader(
        ExcerptDataset(source), batch_sampler=[[Excerpt("song", RATE, RATE)]], num_workers=1
    )
    with pytest.raises(ExcerptError, match=r"^\S*data/song/vocals\.flac: cut off, only") as raised:
        next(iter(loader))
    assert "Traceback" not in str(raised.value)
    vocals.unlink()
    with pytest.raises(ExcerptError, match=r"No such file .*vocals\.flac"):
        source.read(Excerpt("song", RATE, RATE))


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_of_a_sampler_come_as_tensors(
    write_stem: Write, tmp_path: Path, workers: int
) -> None:
    for index in range(3):
        write_stem(f"song {index}/vocals.flac", seed=index)
        write_stem(f"song {index}/rest.wav", seed=index + 10)
    source = source_of(tmp_path)
    sampler = ExcerptSampler(ExcerptGrid(source.tracks, excerpt_s=1), "exhaustive", batch_size=4)
    loader = DataLoader(
        ExcerptDataset(source), batch_sampler=[*sampler.batches(1, first=1)], num_workers=workers
    )
    batches = list(loader)
    assert [tuple(batch.shape) for batch in batches] == [(4, 2, 2, RATE)] * 2
    for batch, excerpts in zip(batches, sampler.batches(1, first=1), strict=True):
        assert np.array_equal(batch, np.stack([source.read(each) for each in excerpts]))


def test_a_source_travels_without_samples(write_stem: Write, tmp_path: Path) -> None:
    """It is told of files alone: a few hundred bytes a track, also of links to other folders."""
    write_stem("song/vocals.wav", seconds=20)
    for index in range(99):
        os.symlink(tmp_path / "data" / "song", tmp_path / "data" / f"link {index}")
    source = source_of(tmp_path)
    assert len(source.tracks) == 100
    travelled = pickle.dumps(source)
    assert len(travelled) < 100 * 500
    excerpt = Excerpt("link 98", 5, RATE)
    assert np.array_equal(pickle.loads(travelled).read(excerpt), source.read(excerpt))


@settings(deadline=None)
@given(
    st.sampled_from([(3, 2), (2, 3), (160, 147), (147, 160), (7, 1), (1, 7)]),
    st.integers(1, 9000),
    st.data(),
)
def test_a_range_is_that_of_the_whole_resampled_signal(
    rates: tuple[int, int], samples: int, data: st.DataObject
) -> None:
    signal = np.random.default_rng(samples).uniform(-1, 1, (2, samples)).astype(np.float32)
    expected = soxr.resample(signal.T, *rates, quality="VHQ").T
    length = rounded_length(samples, *rates)
    start = data.draw(st.integers(0, length - 1))
    stop = data.draw(st.integers(start + 1, length))
    got = resampled_range(
        lambda first, last: signal[:, first:last],
        samples=samples,
        sample_rate=rates[0],
        rate=rates[1],
        start_sample=start,
        stop_sample=stop,
    )
    assert got.shape == (2, stop - start)
    shared = expected[:, start:stop]  # soxr rounds half a sample at the end another way
    assert np.abs(got[:, : shared.shape[1]] - shared).max(initial=0) < 1e-5
