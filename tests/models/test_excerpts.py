"""Excerpts: none is lost, none comes twice, and orders follow from seed, epoch and rank."""

import functools
import itertools
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pescador
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beamsplitter.models.datasets.excerpts import (
    OPEN_TRACKS,
    STRATEGIES,
    Batch,
    Excerpt,
    ExcerptGrid,
    ExcerptSampler,
    KeptExcerpts,
    Strategy,
    TrackLength,
    pescador_streamer,
)

EACH_ONCE: tuple[Strategy, ...] = ("exhaustive", "round_robin", "chain", "shards")


def grid_of(lengths: list[int], *, excerpt: int = 6, hop: int = 3) -> ExcerptGrid:
    """Tracks at 1 Hz: a second is a sample."""
    tracks = [TrackLength(f"track {index}", length, 1) for index, length in enumerate(lengths)]
    return ExcerptGrid(tracks, excerpt_s=excerpt, hop_s=hop)


def all_of(lengths: list[int], *, excerpt: int = 6, hop: int = 3) -> list[Excerpt]:
    """Every excerpt that fits, written out."""
    return [
        Excerpt(f"track {index}", start, excerpt)
        for index, length in enumerate(lengths)
        for start in range(0, length, hop)
        if start + excerpt <= length
    ]


def epoch_of(sampler: ExcerptSampler, epoch: int = 0, **options: Any) -> list[Batch]:
    return list(sampler.batches(epoch, **options))


def seen(batches: list[Batch]) -> Counter[Excerpt]:
    return Counter(itertools.chain.from_iterable(batches))


lengths_with_excerpts = st.lists(st.integers(0, 40), min_size=1, max_size=8).filter(
    lambda lengths: max(lengths) >= 6
)


@given(lengths_with_excerpts, st.integers(1, 9), st.integers(1, 5))
def test_no_excerpt_is_lost_and_none_comes_twice(
    lengths: list[int], batch_size: int, hop: int
) -> None:
    expected = Counter(all_of(lengths, hop=hop))
    grid = grid_of(lengths, hop=hop)
    assert grid.count == expected.total()
    assert [grid.excerpt(number) for number in range(grid.count)] == all_of(lengths, hop=hop)
    for strategy in EACH_ONCE:
        sampler = ExcerptSampler(grid, strategy, batch_size=batch_size)
        batches = epoch_of(sampler)
        assert seen(batches) == expected
        assert len(batches) == len(sampler)
        assert max(map(len, batches)) <= batch_size


def test_the_last_excerpt_that_fits_is_one() -> None:
    """The notebook's range ends before it: 9 samples gave one excerpt of 6, and 6 gave none."""
    assert all_of([9, 6, 5, 10]) == [
        Excerpt("track 0", 0, 6),
        Excerpt("track 0", 3, 6),
        Excerpt("track 1", 0, 6),
        Excerpt("track 3", 0, 6),
        Excerpt("track 3", 3, 6),
    ]
    grid = grid_of([9, 6, 5, 10])
    assert grid.count == 5
    assert grid.short_tracks == ("track 2",)


@given(lengths_with_excerpts, st.integers(1, 9))
def test_round_robin_has_distinct_tracks_in_as_few_batches_as_that_allows(
    lengths: list[int], batch_size: int
) -> None:
    """The mux of pescador repeats tracks in a batch when fewer than a batch holds are left."""
    grid = grid_of(lengths)
    batches = epoch_of(ExcerptSampler(grid, "round_robin", batch_size=batch_size), epoch=3)
    for batch in batches:
        assert len({excerpt.track for excerpt in batch}) == len(batch)
    assert len(batches) == max(grid.counts.max(), -(-grid.count // batch_size))


@given(lengths_with_excerpts, st.sampled_from([*STRATEGIES]), st.integers(0, 30))
def test_an_epoch_goes_on_where_it_was_left(
    lengths: list[int], strategy: Strategy, first: int
) -> None:
    sampler = ExcerptSampler(grid_of(lengths), strategy, batch_size=3, seed=7)
    assert epoch_of(sampler, 2, first=first) == epoch_of(sampler, 2)[first:]


@given(lengths_with_excerpts, st.sampled_from(EACH_ONCE), st.integers(1, 5))
def test_ranks_share_the_batches(lengths: list[int], strategy: Strategy, ranks: int) -> None:
    grid = grid_of(lengths)
    alone = epoch_of(ExcerptSampler(grid, strategy, batch_size=2))
    samplers = [
        ExcerptSampler(grid, strategy, batch_size=2, rank=rank, ranks=ranks)
        for rank in range(ranks)
    ]
    shares = [epoch_of(sampler) for sampler in samplers]
    assert {len(share) for share in shares} == {len(samplers[0])}  # none waits for another
    together = [batch for turn in zip(*shares, strict=True) for batch in turn]
    assert together[: len(alone)] == alone
    again = itertools.cycle(alone)
    assert together == [next(again) for _ in together]
    for sampler, share in zip(samplers, shares, strict=True):
        assert epoch_of(sampler, first=1) == share[1:]


def test_orders_follow_from_seed_and_epoch_alone() -> None:
    """A seed that pescador is given makes each of its epochs the same."""
    grid = grid_of([40] * 8)
    for strategy in STRATEGIES:

        def drawn(seed: int, epoch: int, strategy: Strategy = strategy) -> list[Batch]:
            return epoch_of(ExcerptSampler(grid, strategy, batch_size=4, seed=seed), epoch)

        state = np.random.get_state()[1].copy()  # noqa: NPY002
        assert drawn(0, 0) == drawn(0, 0)
        assert (drawn(0, 0) == drawn(0, 1)) is (strategy == "chain")
        assert (drawn(0, 0) == drawn(1, 0)) is (strategy == "chain")
        np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002


def test_random_excerpts_begin_anywhere() -> None:
    grid = grid_of([5, 9, 6])
    sampler = ExcerptSampler(grid, "random", batch_size=1, seed=1)
    drawn = seen([batch for epoch in range(400) for batch in sampler.batches(epoch)])
    starts = {f"track {index}": range(stop) for index, stop in ((1, 4), (2, 1))}
    assert {*drawn} == {Excerpt(name, start, 6) for name in starts for start in starts[name]}
    # Tracks are equally likely, whatever their lengths.
    of_track = Counter(excerpt.track for excerpt in drawn.elements())
    assert abs(of_track["track 1"] - of_track["track 2"]) < 5 * np.sqrt(drawn.total())


# Against pescador, as the notebook has it ---------------------------------------------------------


def excerpts_of(track: int, length: int) -> Iterator[dict[str, Any]]:
    for start in range(0, length - 6 + 1, 3):  # with the excerpt that the notebook drops
        yield {"track": track, "start": start}


def streamers(lengths: list[int]) -> list[pescador.Streamer]:
    return [pescador.Streamer(excerpts_of, index, length) for index, length in enumerate(lengths)]


def from_pescador(mux: Any) -> list[Excerpt]:
    return [Excerpt(f"track {each['track']}", each["start"], 6) for each in mux.iterate()]


LENGTHS = [10, 21, 12, 6, 30, 15, 18, 9]


def test_chain_is_the_chain_of_pescador() -> None:
    expected = from_pescador(pescador.ChainMux(streamers(LENGTHS), mode="exhaustive"))
    batches = epoch_of(ExcerptSampler(grid_of(LENGTHS), "chain", batch_size=4))
    assert list(itertools.chain.from_iterable(batches)) == expected


def test_exhaustive_sees_what_the_mux_of_pescador_sees() -> None:
    streams = streamers(LENGTHS)
    mux = pescador.StochasticMux(streams, len(streams), rate=None, mode="exhaustive")
    batches = epoch_of(ExcerptSampler(grid_of(LENGTHS), "exhaustive", batch_size=4))
    assert seen(batches) == Counter(from_pescador(mux))


def test_round_robin_sees_what_the_mux_of_pescador_sees() -> None:
    lengths = [18] * 8
    drawn = from_pescador(pescador.RoundRobinMux(streamers(lengths), mode="exhaustive"))
    batches = epoch_of(ExcerptSampler(grid_of(lengths), "round_robin", batch_size=4))
    assert seen(batches) == Counter(drawn)
    theirs = [drawn[start : start + 4] for start in range(0, len(drawn), 4)]
    for batch in (*theirs, *batches):
        assert len({excerpt.track for excerpt in batch}) == 4


def test_a_pescador_streamer_gives_the_batches() -> None:
    sampler = ExcerptSampler(grid_of(LENGTHS), "exhaustive", batch_size=4, seed=3)
    streamer = pescador_streamer(
        functools.partial(sampler.batches, 5),
        lambda batch: {"start": np.array([excerpt.start_sample for excerpt in batch])},
    )
    for _ in range(2):  # it may be begun again
        starts = [each["start"].tolist() for each in streamer.iterate()]
        assert starts == [[each.start_sample for each in batch] for batch in sampler.batches(5)]


# Numbers ------------------------------------------------------------------------------------------


def test_seconds_are_those_of_each_track() -> None:
    tracks = [TrackLength("a", 44100, 44100), TrackLength("b", 48000, 48000)]
    grid = ExcerptGrid(tracks, excerpt_s=0.5, hop_s=0.25)
    assert [grid.excerpt(number) for number in range(grid.count)] == [
        *(Excerpt("a", start, 22050) for start in (0, 11025, 22050)),
        *(Excerpt("b", start, 24000) for start in (0, 12000, 24000)),
    ]


def test_a_million_excerpts_are_numbers_only() -> None:
    tracks = [TrackLength(str(index), 44100 * 3600, 44100) for index in range(1000)]
    grid = ExcerptGrid(tracks, excerpt_s=3)
    assert grid.count == 1_200_000
    sampler = ExcerptSampler(grid, "random", batch_size=32)
    assert len(next(sampler.batches(0, first=37_000))) == 32


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: grid_of([9], excerpt=0), "longer than 0 s"),
        (lambda: grid_of([9], hop=0), "longer than 0 s"),
        (lambda: grid_of([5, 4]), r"none of 2 tracks .* 6 s: the longest has 5\.00 s"),
        (lambda: grid_of([]), "none of 0 tracks"),
        (
            lambda: ExcerptGrid([TrackLength("a", 9, 1)] * 2, excerpt_s=6),
            "two tracks have one name",
        ),
        (lambda: ExcerptSampler(grid_of([9]), "robin", batch_size=1), "round_robin"),  # type: ignore[arg-type]
        (lambda: ExcerptSampler(grid_of([9]), "chain", batch_size=0), "at least 1"),
        (lambda: ExcerptSampler(grid_of([9]), "chain", batch_size=1, rank=1), "from 0 to 0"),
    ],
)
def test_numbers_that_mean_nothing_are_refused(make: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        make()


def test_shards_are_gone_through_in_order_some_at_a_time() -> None:
    """Whatever is drawn: no disk is asked to go back, and few files are in use at once."""
    lengths = [30 + index % 7 for index in range(5 * OPEN_TRACKS)]
    sampler = ExcerptSampler(grid_of(lengths), "shards", batch_size=4)
    orders = []
    for epoch in range(2):
        excerpts = [*itertools.chain.from_iterable(epoch_of(sampler, epoch))]
        seen_of: dict[str, list[int]] = {}
        for excerpt in excerpts:
            seen_of.setdefault(excerpt.track, []).append(excerpt.start_sample)
        assert all(starts == sorted(starts) for starts in seen_of.values())
        left = Counter({track: len(starts) for track, starts in seen_of.items()})
        begun: set[str] = set()
        most = 0
        for excerpt in excerpts:
            begun.add(excerpt.track)
            most = max(most, sum(left[track] > 0 for track in begun))
            left[excerpt.track] -= 1
        assert most == OPEN_TRACKS
        orders.append([excerpt.track for excerpt in excerpts])
        # Several tracks take turns.
        assert sum(first != second for first, second in itertools.pairwise(orders[-1])) > 200
    assert orders[0] != orders[1]


@given(st.data(), lengths_with_excerpts, st.integers(1, 4))
def test_of_kept_excerpts_no_other_is_given(
    data: st.DataObject, lengths: list[int], batch_size: int
) -> None:
    every = all_of(lengths)
    kept = data.draw(st.lists(st.sampled_from(every), min_size=1, unique=True))
    by_track: list[list[int]] = [[] for _ in lengths]
    for excerpt in sorted(kept, key=lambda each: each.start_sample):
        by_track[int(excerpt.track.split()[1])].append(excerpt.start_sample)
    whole = grid_of(lengths)
    starts = [np.array(each, np.int64) for each in by_track]
    grid = KeptExcerpts(whole.tracks, excerpt_s=6, hop_s=3, starts=starts)
    assert grid.short_tracks == whole.short_tracks
    for strategy in STRATEGIES:
        batches = epoch_of(ExcerptSampler(grid, strategy, batch_size=batch_size))
        if strategy in EACH_ONCE:
            assert seen(batches) == Counter(kept)
        else:
            assert {*seen(batches)} <= {*kept}


def test_that_no_excerpt_was_kept_is_an_error() -> None:
    tracks = [TrackLength("a", 9, 1)]
    with pytest.raises(ValueError, match="of 1 tracks no excerpt was kept"):
        KeptExcerpts(tracks, excerpt_s=6, hop_s=3, starts=[np.zeros(0, np.int64)])


def test_excerpts_of_some_tracks_are_those_they_had() -> None:
    samples = {"a": 95, "b": 40, "c": 9, "d": 60}
    lengths = [TrackLength(name, count, 10) for name, count in samples.items()]
    whole = ExcerptGrid(lengths, excerpt_s=1, hop_s=0.5)
    starts = [np.arange(0, 80, 20), np.array([10, 30]), np.array([], np.int64), np.array([0])]
    kept = KeptExcerpts(lengths, excerpt_s=1, hop_s=1, starts=starts)
    for grid in (whole, kept):
        some = grid.of({"a", "c", "d"})
        excerpts = [grid.excerpt(number) for number in range(grid.count)]
        found = [some.excerpt(number) for number in range(some.count)]
        assert found == [each for each in excerpts if each.track != "b"]
        assert some.short_tracks == ("c",)
        with pytest.raises(ValueError, match="none of 1 tracks has an excerpt"):
            grid.of({"c"})
