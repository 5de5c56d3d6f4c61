"""Shards: what is in them is what is in the folders that they were made of."""

import io
import itertools
import json
import math
import os
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import webdataset
from hypothesis import given, settings
from hypothesis import strategies as st
from stem_mp4 import write_stem_mp4
from storage_server import BUCKET, StorageServer
from torch.utils.data import DataLoader

from beamsplitter.models.datasets.excerpt_dataset import ExcerptDataset
from beamsplitter.models.datasets.excerpts import STRATEGIES, Excerpt, ExcerptSampler
from beamsplitter.models.datasets.shards import (
    INDEX,
    REST,
    ShardIndex,
    ShardSettings,
    ShardWriter,
    rows_of,
)
from beamsplitter.models.datasets.sources import open_source
from beamsplitter.models.datasets.stem_excerpts import FolderSource
from beamsplitter.models.datasets.stem_folders import DatasetError, ExcerptError, StemTrack
from beamsplitter.storage import OutputTree, Storage
from beamsplitter.transforms import shards as steps
from beamsplitter.transforms.coders import RecordCoder
from beamsplitter.transforms.shards import WriteShard, write_index
from beamsplitter.transforms.stem_tracks import list_stem_tracks

RATE = 8000
WriteAudio = Callable[..., Path]
Options = dict[str, Any]
CHOSEN: Options = {"targets": ("vocals", "bass"), "sample_rate": RATE, "channels": 2}


def signal_of(seconds: float, seed: int, rate: int = RATE) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return (0.1 * generator.standard_normal((2, round(seconds * rate)))).astype(np.float32)


@pytest.fixture
def data(write_audio: WriteAudio, tmp_path: Path) -> Path:
    """Tracks of several formats and rates; one is short, one partly silent, one all silent."""
    for index, (extension, rate) in enumerate([("wav", RATE), ("flac", 11025), ("ogg", RATE)]):
        for offset, stem in enumerate(("vocals", "bass", "drums")):
            samples = signal_of(7 + index, 10 * index + offset, rate)
            path = f"data/train/song {index}.x/{stem}.{extension}"
            write_audio(path, samples=samples, sample_rate=rate)
    silent = np.zeros((2, 7 * RATE), np.float32)
    partly = signal_of(7, 77)
    partly[:, 2 * RATE : 4 * RATE] = 0
    for stem in ("vocals", "bass", "drums"):
        has_sound = stem == "drums"
        write_audio("data/train/short/" + f"{stem}.wav", samples=silent[:, :RATE], sample_rate=RATE)
        write_audio("data/train/silent/" + f"{stem}.wav", samples=silent, sample_rate=RATE)
        part = partly if has_sound else silent
        write_audio("data/train/partly/" + f"{stem}.wav", samples=part, sample_rate=RATE)
        write_audio("data/val/ü/" + f"{stem}.wav", samples=signal_of(5, 3), sample_rate=RATE)
    return tmp_path / "data"


def prepared(data: Path, out: Path, **changes: Any) -> ShardSettings:
    """Make shards of a folder, without an engine."""
    chosen = ShardSettings(**{**CHOSEN, "excerpt_s": 2.0, "hop_s": 1.0} | changes)
    tree = OutputTree(str(out))
    step = WriteShard(chosen, tree)
    records = [
        record for track in list_stem_tracks(str(data), Storage()) for record in step.apply(track)
    ]
    write_index(records[::-1], chosen, tree)
    return chosen


def index_of(out: Path) -> ShardIndex:
    return ShardIndex.parse((out / INDEX).read_text().splitlines())


def test_shards_give_the_excerpts_of_the_folder_but_for_the_silent_ones(
    data: Path, tmp_path: Path
) -> None:
    prepared(data, tmp_path / "out")
    folder = open_source(data / "train", **CHOSEN)
    shards = open_source(tmp_path / "out" / "train", **CHOSEN)
    assert isinstance(folder, FolderSource)
    assert not isinstance(shards, FolderSource)
    assert shards.tracks == folder.tracks

    every = folder.grid(excerpt_s=2, hop_s=1)
    kept = shards.grid(excerpt_s=2)
    assert kept.short_tracks == every.short_tracks == ("short",)
    all_excerpts = {every.excerpt(number) for number in range(every.count)}
    excerpts = [kept.excerpt(number) for number in range(kept.count)]
    silent = {Excerpt("silent", start * RATE, 2 * RATE) for start in range(6)}
    assert all_excerpts - {*excerpts} == silent | {Excerpt("partly", 2 * RATE, 2 * RATE)}
    assert len({*excerpts}) == len(excerpts)
    for excerpt in excerpts:
        difference = shards.read(excerpt) - folder.read(excerpt)
        assert np.abs(difference).max() < 1e-6
    # Vocals and bass are silent in this one: it is learnt from, too.
    assert Excerpt("partly", 0, 2 * RATE) in excerpts

    counts = json.loads((tmp_path / "out" / INDEX).read_text().splitlines()[0])["counts"]
    assert counts["tracks"] == 7
    assert counts["short_tracks"] == 1
    assert counts["silent_excerpts"] == 7
    assert counts["excerpts"] == len(excerpts) + 4  # of val
    assert counts["size_bytes"] == sum(
        path.stat().st_size for path in (tmp_path / "out").rglob("*.tar")
    )


def test_shards_of_a_track_in_one_file(tmp_path: Path) -> None:
    stems = [signal_of(5, seed) for seed in range(4)]
    path = tmp_path / "data" / "train" / "song.stem.mp4"
    write_stem_mp4(path, [np.sum(stems, axis=0), *stems], RATE)
    (track,) = list_stem_tracks(str(tmp_path / "data"), Storage())
    assert RecordCoder(StemTrack).decode(RecordCoder(StemTrack).encode(track)) == track
    prepared(tmp_path / "data", tmp_path / "out")
    folder = open_source(tmp_path / "data" / "train", **CHOSEN)
    shards = open_source(tmp_path / "out" / "train", **CHOSEN)
    assert shards.tracks == folder.tracks
    for start in range(0, 4 * RATE, RATE):
        excerpt = Excerpt("song", start, 2 * RATE)
        assert np.abs(shards.read(excerpt) - folder.read(excerpt)).max() < 1e-6


def test_tracks_in_one_file_are_found_in_a_bucket(tmp_path: Path, gcs: StorageServer) -> None:
    data = tmp_path / "data"
    write_stem_mp4(
        data / "train" / "song.stem.mp4", [signal_of(5, seed) for seed in range(5)], RATE
    )
    gcs.upload(data, "data")
    found = [list_stem_tracks(place, Storage()) for place in (str(data), f"gs://{BUCKET}/data")]
    for (track,) in found:
        assert (track.name, [*track.stems]) == ("train/song", ["drums", "bass", "other", "vocals"])
    digests = []
    for place, (track,) in zip(("here", "there"), found, strict=True):
        tree = OutputTree(str(tmp_path / place))
        (record,) = WriteShard(ShardSettings(**CHOSEN, excerpt_s=2.0, hop_s=1.0), tree).apply(track)
        digests.append(record.sha256)
    assert digests[0] == digests[1]


def test_every_strategy_goes_through_shards_as_through_a_folder(data: Path, tmp_path: Path) -> None:
    """Where silence is kept, to the very same batches; "random" draws those of the grid."""
    prepared(data, tmp_path / "out", silence_dbfs=-math.inf)
    folder = open_source(data / "train", **CHOSEN).grid(excerpt_s=2, hop_s=1)
    shards = open_source(tmp_path / "out" / "train", **CHOSEN).grid(excerpt_s=2, hop_s=1)
    every = {folder.excerpt(number) for number in range(folder.count)}
    for strategy in STRATEGIES:
        of_folder, of_shards = (
            [*ExcerptSampler(grid, strategy, batch_size=3, seed=5).batches(2)]
            for grid in (folder, shards)
        )
        if strategy == "random":
            assert len(of_shards) == len(of_folder)
            assert {*itertools.chain.from_iterable(of_shards)} <= every
        else:
            assert of_shards == of_folder


def test_all_of_the_shards_and_one_of_their_splits_can_be_read(data: Path, tmp_path: Path) -> None:
    prepared(data, tmp_path / "out")
    all_of_them = open_source(tmp_path / "out", **CHOSEN)
    assert {track.name for track in all_of_them.tracks} == {
        track.name for track in open_source(data, **CHOSEN).tracks
    }
    val = open_source(tmp_path / "out" / "val", **CHOSEN)
    assert [track.name for track in val.tracks] == ["ü"]
    excerpt = Excerpt("ü", RATE, 2 * RATE)
    again = Excerpt("val/ü", RATE, 2 * RATE)
    assert np.array_equal(val.read(excerpt), all_of_them.read(again))
    with pytest.raises(DatasetError, match="has no tracks of test"):
        open_source(tmp_path / "out" / "test", **CHOSEN)


@pytest.mark.parametrize("targets", [("bass",), ("bass", "vocals"), ("vocals", "bass", "drums")])
def test_targets_may_be_some_of_those_that_were_prepared(
    data: Path, tmp_path: Path, targets: tuple[str, ...]
) -> None:
    """The others are counted to the rest; mono is the mean of what was prepared."""
    prepared(data, tmp_path / "out", targets=("drums", "vocals", "bass"))
    chosen = {**CHOSEN, "targets": targets}
    excerpt = Excerpt("song 1.x", RATE, 2 * RATE)
    for channels in (1, 2):
        chosen["channels"] = channels
        folder, shards = (
            open_source(tmp_path / each / "train", **chosen) for each in ("data", "out")
        )
        assert np.abs(shards.read(excerpt) - folder.read(excerpt)).max() < 1e-6


def test_loaders_take_shards(data: Path, tmp_path: Path) -> None:
    prepared(data, tmp_path / "out")
    source = open_source(tmp_path / "out" / "train", **CHOSEN)
    sampler = ExcerptSampler(source.grid(excerpt_s=2), "shards", batch_size=4)
    batches = [*sampler.batches(0)]
    loader = DataLoader(ExcerptDataset(source), batch_sampler=batches, num_workers=2)
    for excerpts, batch in zip(batches, loader, strict=True):
        assert tuple(batch.shape) == (len(excerpts), 3, 2, 2 * RATE)
        assert np.array_equal(batch[-1], source.read(excerpts[-1]))
    travelled = pickle.loads(pickle.dumps(source))
    assert np.array_equal(travelled.read(batches[0][0]), source.read(batches[0][0]))


def test_webdataset_reads_the_shards(data: Path, tmp_path: Path) -> None:
    prepared(data, tmp_path / "out")
    shards = sorted(str(path) for path in (tmp_path / "out" / "train").glob("*.tar"))
    assert shards
    source = open_source(tmp_path / "out" / "train", **CHOSEN)
    samples = [*webdataset.WebDataset(shards, shardshuffle=False)]
    seen = set()
    for sample in samples:
        facts = json.loads(sample["json"])
        excerpt = Excerpt(
            facts["track"].removeprefix("train/"), facts["start_sample"], facts["samples"]
        )
        rows = []
        for row, scale in zip(facts["rows"], facts["scales"], strict=True):
            samples_of_row, rate = soundfile.read(
                io.BytesIO(sample[f"{row}.flac"]), dtype="float32"
            )
            assert rate == facts["sample_rate"] == RATE
            rows.append(scale * samples_of_row.T)
        assert facts["rows"] == ["vocals", "bass", REST]
        assert np.array_equal(np.stack(rows), source.read(excerpt))
        seen.add(excerpt)
    kept = source.grid(excerpt_s=2)
    assert seen == {kept.excerpt(number) for number in range(kept.count)}
    assert len(samples) == kept.count


@pytest.mark.parametrize("name", [".", "a.b/c d", os.fsdecode(b"caf\xe9"), "x" * 120])
def test_tracks_may_have_any_name(tmp_path: Path, name: str) -> None:
    """Also that of the folder itself, and one that is no text."""
    folder = tmp_path / "data" / name
    folder.mkdir(parents=True)
    with (folder / "vocals.wav").open("wb") as file:
        soundfile.write(file, signal_of(5, 1).T, RATE, format="WAV")
    prepared(tmp_path / "data", tmp_path / "out", targets=("vocals",))
    chosen = {**CHOSEN, "targets": ("vocals",)}
    source = open_source(tmp_path / "out", **chosen)
    assert [track.name for track in source.tracks] == [name]
    excerpt = Excerpt(name, RATE, 2 * RATE)
    expected = open_source(tmp_path / "data", **chosen).read(excerpt)
    assert np.abs(source.read(excerpt) - expected).max() < 1e-6


SETTINGS = ShardSettings(
    targets=("vocals",), sample_rate=RATE, channels=1, excerpt_s=0.1, hop_s=0.1
)


def stored(rows: np.ndarray) -> np.ndarray:
    """Rows as a shard gives them back."""
    file = io.BytesIO()
    writer = ShardWriter(file, SETTINGS)
    writer.write(Excerpt("a", 0, rows.shape[-1]), rows)
    writer.close()
    return rows_of(file.getvalue()[: writer.offsets[-1]], name="a.tar")


@settings(deadline=None)
@given(st.sampled_from([16, 24]), st.integers(0, 4), st.integers(0, 2**32 - 1))
def test_integers_are_kept_as_they_are(bits: int, doublings: int, seed: int) -> None:
    """Also sums that leave full scale, as far as a float holds them."""
    generator = np.random.default_rng(seed)
    step = 2.0 ** -(min(bits, 23 - doublings) - 1)
    top = 2.0**doublings
    rows = generator.integers(-top / step, top / step, (2, 1, 50)) * np.float32(step)
    assert np.array_equal(stored(rows.astype(np.float32)), rows)


@settings(deadline=None)
@given(st.floats(1e-6, 40.0), st.integers(0, 2**32 - 1))
def test_what_is_no_integer_is_rounded_to_24_bits_of_its_peak(peak: float, seed: int) -> None:
    rows = np.random.default_rng(seed).uniform(-peak, peak, (2, 1, 50)).astype(np.float32)
    assert np.abs(stored(rows) - rows).max() <= max(1.0, 2 * peak) * 2.0**-24


def test_silence_is_kept_as_silence() -> None:
    assert not stored(np.zeros((2, 1, 50), np.float32)).any()


def test_the_same_tracks_give_the_same_bytes_and_no_time_or_user(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However much is decoded at a time."""
    prepared(data, tmp_path / "out")
    monkeypatch.setattr(steps, "BLOCK_S", 1.0)
    prepared(data, tmp_path / "again")
    for first in (tmp_path / "out").rglob("*.tar"):
        again = tmp_path / "again" / first.relative_to(tmp_path / "out")
        assert first.read_bytes() == again.read_bytes()
        with tarfile.open(first) as tar:
            for member in tar:
                assert (member.mtime, member.uid, member.gid, member.uname) == (0, 0, 0, "")
    assert (tmp_path / "out" / INDEX).read_bytes() == (tmp_path / "again" / INDEX).read_bytes()


def test_the_digest_of_the_index_follows_what_is_in_the_shards(data: Path, tmp_path: Path) -> None:
    prepared(data, tmp_path / "out")
    digest = index_of(tmp_path / "out").digest
    prepared(data, tmp_path / "other", hop_s=0.5)
    assert index_of(tmp_path / "other").digest != digest
    vocals = data / "val" / "ü" / "vocals.wav"
    samples, rate = soundfile.read(vocals)
    soundfile.write(vocals, samples[::-1], rate)
    prepared(data, tmp_path / "out")
    assert index_of(tmp_path / "out").digest != digest


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"targets": ("vocals", "drums")}, "the shards have no drums, but vocals, bass"),
        ({"targets": ()}, "name one stem at least"),
        ({"sample_rate": 44100}, "the shards have 8000 Hz, not 44100"),
        ({"channels": 3}, "the shards have 2 channels, not 3"),
    ],
)
def test_shards_that_were_made_for_something_else_are_refused(
    data: Path, tmp_path: Path, changes: Options, message: str
) -> None:
    prepared(data, tmp_path / "out")
    with pytest.raises(DatasetError, match=message):
        open_source(tmp_path / "out", **{**CHOSEN, **changes})


@pytest.mark.parametrize("lengths", [{"excerpt_s": 3}, {"excerpt_s": 2, "hop_s": 2}])
def test_other_excerpts_than_those_prepared_are_refused(
    data: Path, tmp_path: Path, lengths: Options
) -> None:
    prepared(data, tmp_path / "out")
    with pytest.raises(DatasetError, match="have excerpts of 2 s every 1 s, not"):
        open_source(tmp_path / "out", **CHOSEN).grid(**lengths)


@pytest.mark.parametrize(
    "changes", [{"targets": ()}, {"targets": ("a", "a")}, {"excerpt_s": 0.0}, {"hop_s": np.nan}]
)
def test_settings_that_can_not_be_are_refused(changes: Options) -> None:
    with pytest.raises(DatasetError):
        ShardSettings(**{**CHOSEN, "excerpt_s": 2.0, "hop_s": 1.0} | changes)


def test_what_became_of_shards_is_told(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepared(data, out)
    tar = out / "val" / "ü.tar"
    whole = tar.read_bytes()
    source = open_source(out / "val", **CHOSEN)
    excerpt = Excerpt("ü", 0, 2 * RATE)

    tar.write_bytes(b"\0" * len(whole))
    with pytest.raises(ExcerptError, match=r"ü\.tar: can't be read: .*prepare"):
        open_source(out / "val", **CHOSEN).read(excerpt)
    tar.write_bytes(whole[:-1])
    with pytest.raises(DatasetError, match=r"ü\.tar: has \d+ bytes, not the \d+ of the index"):
        open_source(out / "val", **CHOSEN)
    tar.unlink()
    with pytest.raises(DatasetError, match=r"ü\.tar: No such file"):
        open_source(out / "val", **CHOSEN)
    with pytest.raises(ExcerptError, match=r"ü\.tar"):
        source.read(excerpt)
    with pytest.raises(ValueError, match="none was kept that begins at sample 1"):
        source.read(Excerpt("ü", 1, 2 * RATE))
    for damage in ("", "[]", "{}\n", '{"format": 99}'):
        (out / INDEX).write_text(damage)
        with pytest.raises(DatasetError, match="is no index of shards"):
            open_source(out, **CHOSEN)
