"""Tracks put together of their shards' excerpts."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beamsplitter.models.datasets.excerpts import Excerpt
from beamsplitter.models.datasets.shard_track import ShardTrack
from beamsplitter.models.datasets.shards import ShardRecord, ShardSettings, ShardWriter
from beamsplitter.models.datasets.stem_folders import ExcerptError

RATE, LENGTH = 1000, 400
TRACK = (np.random.default_rng(0).integers(-(2**22), 2**22, (2, 2, 3000)) / 2**23).astype(
    np.float32
)


def shard_of(starts: tuple[int, ...], *, hop: int) -> ShardTrack:
    """Of the track of three seconds, the excerpts that begin at these samples."""
    made = ShardSettings(("vocals",), RATE, 2, excerpt_s=LENGTH / RATE, hop_s=hop / RATE)
    file = io.BytesIO()
    writer = ShardWriter(file, made)
    for start in starts:
        writer.write(Excerpt("song", start, LENGTH), TRACK[:, :, start : start + LENGTH])
    writer.close()
    record = ShardRecord("song", 3000, "song.tar", starts=starts, offsets=tuple(writer.offsets))
    data = file.getvalue()
    return ShardTrack(made, record, lambda start, stop: data[start:stop], name="song.tar")


@settings(deadline=None, max_examples=25)
@given(
    kept=st.sets(st.integers(0, 5), min_size=1),
    hop=st.sampled_from([200, 400, 500]),
    start=st.integers(0, 2900),
    samples=st.integers(0, 1500),
    row=st.integers(0, 1),
)
def test_a_range_is_that_of_the_track_where_excerpts_were_kept(
    kept: set[int], hop: int, start: int, samples: int, row: int
) -> None:
    starts = tuple(hop * each for each in sorted(kept))
    track = shard_of(starts, hop=hop)
    expected = np.zeros_like(TRACK[row])
    for begin in starts:
        expected[:, begin : begin + LENGTH] = TRACK[row][:, begin : begin + LENGTH]
    assert track.frames == starts[-1] + LENGTH
    stop = min(start + samples, 3000)
    assert np.array_equal(track.read(row, start, stop), expected[:, start:stop])


def test_a_shard_that_is_none_is_told() -> None:
    track = shard_of((0,), hop=LENGTH)
    track._read_bytes = lambda start, stop: b"no tar"  # as of a file that was changed
    with pytest.raises(ExcerptError, match=r"song.tar: can't be read.*prepare"):
        track.read(0, 0, 10)
