"""Which excerpts of which tracks a training sees, and in which order: five ways, by name.

Four are those of the notebook "The Art of Audio Track Sampling" (ISMIR 2018 tutorial on music
separation), of which none loses an excerpt here; the fifth is for disks. What goes around are
tracks and ranges, never samples. Orders follow from seed and epoch alone, so that a training can be
resumed anywhere; of several processes (ranks), each has batches of its own.
"""

import copy
import functools
import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np

if TYPE_CHECKING:
    import pescador

Strategy = Literal["random", "exhaustive", "round_robin", "chain", "shards"]
OPEN_TRACKS = 16


@dataclass(frozen=True)
class TrackLength:
    """How long a track is.

    Attributes
    ----------
    name
        of the track
    samples
        per channel
    sample_rate
        Hz
    """

    name: str
    samples: int
    sample_rate: int


@dataclass(frozen=True)
class Excerpt:
    """A range of a track, in samples at the track's own rate."""

    track: str
    start_sample: int
    samples: int


Batch = list[Excerpt]


class ExcerptGrid:
    """All excerpts of tracks that begin a hop apart, up to the last one that fits.

    Parameters
    ----------
    tracks
        their lengths; order matters
    excerpt_s
        length of an excerpt in seconds
    hop_s
        seconds from one excerpt to the next; None: the length of one

    Raises
    ------
    ValueError
        a length is not above 0, two tracks share a name, or no track is as long as an excerpt
    """

    def __init__(
        self, tracks: Sequence[TrackLength], *, excerpt_s: float, hop_s: float | None = None
    ) -> None:
        hop_s = excerpt_s if hop_s is None else hop_s
        if not (excerpt_s > 0 and hop_s > 0):
            raise ValueError(
                f"excerpts and hops last longer than 0 s: they are {excerpt_s:g} and {hop_s:g} s"
            )
        if len({track.name for track in tracks}) < len(tracks):
            raise ValueError("two tracks have one name")
        self.tracks = tuple(tracks)
        rates = np.array([track.sample_rate for track in tracks], np.int64)
        self._samples = np.maximum(1, np.rint(excerpt_s * rates)).astype(np.int64)
        self._hops = np.maximum(1, np.rint(hop_s * rates)).astype(np.int64)
        rest = np.array([track.samples for track in tracks], np.int64) - self._samples
        self._last_starts = rest
        self.counts = np.where(rest < 0, 0, rest // self._hops + 1)
        self._ends = np.cumsum(self.counts)
        if not self.count:
            longest_s = max((each.samples / each.sample_rate for each in tracks), default=0)
            raise ValueError(
                f"none of {len(tracks)} tracks is as long as an excerpt of {excerpt_s:g} s: the "
                f"longest has {longest_s:.2f} s"
            )

    @property
    def count(self) -> int:
        """How many excerpts there are."""
        return int(self.counts.sum())

    @property
    def short_tracks(self) -> tuple[str, ...]:
        """The tracks that are shorter than an excerpt: none of them is seen."""
        return tuple(self.tracks[index].name for index in np.flatnonzero(self._last_starts < 0))

    def of(self, names: Collection[str]) -> Self:
        """The excerpts of some of the tracks.

        Raises
        ------
        ValueError
            there are none
        """
        chosen = [index for index, track in enumerate(self.tracks) if track.name in names]
        made = copy.copy(self)
        made._choose(chosen)
        if not made.count:
            raise ValueError(f"none of {len(chosen)} tracks has an excerpt")
        return made

    def _choose(self, chosen: list[int]) -> None:
        self.tracks = tuple(self.tracks[index] for index in chosen)
        self._samples, self._hops = self._samples[chosen], self._hops[chosen]
        self._last_starts, self.counts = self._last_starts[chosen], self.counts[chosen]
        self._ends = np.cumsum(self.counts)

    def excerpt(self, number: int) -> Excerpt:
        """One of all excerpts, by its number from 0: in the order of tracks, then of time."""
        track = int(np.searchsorted(self._ends, number, side="right"))
        return self.of_track(track, number - int(self._ends[track] - self.counts[track]))

    def of_track(self, track: int, number: int) -> Excerpt:
        """One of the excerpts of a track, by its number from 0."""
        return self._at(track, number * int(self._hops[track]))

    def anywhere(self, track: int, generator: np.random.Generator) -> Excerpt:
        """An excerpt that begins at any sample of a track that has excerpts."""
        return self._at(track, int(generator.integers(self._last_starts[track], endpoint=True)))

    def _at(self, track: int, start_sample: int) -> Excerpt:
        return Excerpt(self.tracks[track].name, start_sample, int(self._samples[track]))


class KeptExcerpts(ExcerptGrid):
    """The excerpts of a grid that were kept, as those in shards are, of which silence is left out.

    "random" draws of them, too: there are no others.

    Parameters
    ----------
    tracks, excerpt_s, hop_s
        of the grid
    starts
        by track in their order: the samples that its kept excerpts begin at, int64, ascending

    Raises
    ------
    ValueError
        none was kept
    """

    def __init__(
        self,
        tracks: Sequence[TrackLength],
        *,
        excerpt_s: float,
        hop_s: float,
        starts: Sequence[np.ndarray],
    ) -> None:
        super().__init__(tracks, excerpt_s=excerpt_s, hop_s=hop_s)
        self._starts = starts
        self.counts = np.array([len(each) for each in starts], np.int64)
        self._ends = np.cumsum(self.counts)
        if not self.count:
            raise ValueError(f"of {len(tracks)} tracks no excerpt was kept")

    def _choose(self, chosen: list[int]) -> None:
        super()._choose(chosen)
        self._starts = [self._starts[index] for index in chosen]

    def of_track(self, track: int, number: int) -> Excerpt:
        """One of the kept excerpts of a track, by its number from 0."""
        return self._at(track, int(self._starts[track][number]))

    def anywhere(self, track: int, generator: np.random.Generator) -> Excerpt:
        """One of the kept excerpts of a track that has some."""
        return self.of_track(track, int(generator.integers(self.counts[track])))


# The ways to go through them ----------------------------------------------------------------------


def random_batches(
    grid: ExcerptGrid, *, batch_size: int, seed: int, epoch: int, first: int
) -> Iterator[Batch]:
    """Any track, and any start in it, each time anew: tracks and excerpts with replacement.

    An epoch has as many batches as one of all excerpts.
    """
    tracks = np.flatnonzero(grid.counts)
    for number in range(first, -(-grid.count // batch_size)):
        # One for each batch: those before it need not be drawn again.
        generator = np.random.default_rng([seed, epoch, number])
        yield [grid.anywhere(int(generator.choice(tracks)), generator) for _ in range(batch_size)]


def exhaustive_batches(
    grid: ExcerptGrid, *, batch_size: int, seed: int, epoch: int, first: int
) -> Iterator[Batch]:
    """Each excerpt once, in an order that differs from epoch to epoch.

    The last batch has what is left.
    """
    order = np.random.default_rng([seed, epoch]).permutation(grid.count)
    for start in range(first * batch_size, grid.count, batch_size):
        yield [grid.excerpt(int(number)) for number in order[start : start + batch_size]]


def round_robin_batches(
    grid: ExcerptGrid, *, batch_size: int, seed: int, epoch: int, first: int
) -> Iterator[Batch]:
    """Each excerpt once, and the tracks of a batch are distinct.

    Drawn at random, but so that there are as few batches as this allows: as many as the longest
    track has excerpts, or as full batches need. Where fewer tracks are left than a batch has
    places, batches are smaller.
    """
    generator = np.random.default_rng([seed, epoch])
    orders = [generator.permutation(int(count)) for count in grid.counts]
    left = grid.counts.copy()
    total = max(int(left.max()), -(-grid.count // batch_size))
    for number in range(total):
        # A track with as many excerpts as there are batches is in each of them; of the others those
        # with more excerpts are the likelier (Gumbel's way to draw without replacement).
        with np.errstate(divide="ignore"):
            keys = np.log(left) + generator.gumbel(size=len(left))
        keys[left == total - number] = np.inf
        places = min(batch_size, int(np.count_nonzero(left)))
        chosen = np.argsort(-keys, kind="stable")[:places]
        left[chosen] -= 1
        if number >= first:
            yield [grid.of_track(int(track), int(orders[track][left[track]])) for track in chosen]


def chain_batches(
    grid: ExcerptGrid, *, batch_size: int, seed: int, epoch: int, first: int
) -> Iterator[Batch]:
    """Each excerpt once, track by track, in the same order always: for validation."""
    for start in range(first * batch_size, grid.count, batch_size):
        stop = min(start + batch_size, grid.count)
        yield [grid.excerpt(number) for number in range(start, stop)]


def shard_batches(
    grid: ExcerptGrid, *, batch_size: int, seed: int, epoch: int, first: int
) -> Iterator[Batch]:
    """Each excerpt once, and each track from its beginning to its end, as a disk likes it.

    `OPEN_TRACKS` of them are gone through at once: the next excerpt is that of any of them, those
    with more left the likelier. When one ends another is begun, in an order that differs from epoch
    to epoch.
    """
    generator = np.random.default_rng([seed, epoch])
    waiting = [int(track) for track in generator.permutation(np.flatnonzero(grid.counts))]
    opened: list[int] = []
    given: dict[int, int] = {}
    for number in range(-(-grid.count // batch_size)):
        batch: list[tuple[int, int]] = []
        while len(batch) < batch_size and (opened or waiting):
            while waiting and len(opened) < OPEN_TRACKS:
                opened.append(waiting.pop())
            left = np.cumsum([grid.counts[track] - given.get(track, 0) for track in opened])
            track = opened[int(np.searchsorted(left, generator.integers(left[-1]), side="right"))]
            batch.append((track, given.get(track, 0)))
            given[track] = given.get(track, 0) + 1
            if given[track] == grid.counts[track]:
                opened.remove(track)
        if number >= first:
            yield [grid.of_track(*each) for each in batch]


STRATEGIES: dict[Strategy, Callable[..., Iterator[Batch]]] = {
    "random": random_batches,
    "exhaustive": exhaustive_batches,
    "round_robin": round_robin_batches,
    "chain": chain_batches,
    "shards": shard_batches,
}


class ExcerptSampler:
    """The batches of one process, epoch by epoch.

    Parameters
    ----------
    grid
        the excerpts
    strategy
        "random": tracks and excerpts with replacement; "exhaustive": each excerpt once;
        "round_robin": each excerpt once, distinct tracks in each batch; "chain": each once, always
        in the order of the tracks; "shards": each once, some tracks at a time, each of them in
        order
    batch_size
        excerpts in a batch
    seed
        of the orders
    rank, ranks
        the number of this process, and how many there are: each has every so many-th batch. All
        have the same number: where the batches do not suffice, the first ones are seen again

    Raises
    ------
    ValueError
        there is no such strategy, rank or batch size
    """

    def __init__(
        self,
        grid: ExcerptGrid,
        strategy: Strategy,
        *,
        batch_size: int,
        seed: int = 0,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        if strategy not in STRATEGIES:
            raise ValueError(f"strategy is one of {', '.join(STRATEGIES)}, not {strategy!r}")
        if batch_size < 1:
            raise ValueError(f"batch_size is at least 1, not {batch_size}")
        if not 0 <= rank < ranks:
            raise ValueError(f"rank is from 0 to {ranks - 1}, not {rank}")
        self.grid = grid
        self.strategy = strategy
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.ranks = ranks

    @property
    def batches_of_all(self) -> int:
        """How many different batches an epoch has, of all ranks together."""
        full = -(-self.grid.count // self.batch_size)
        return max(full, int(self.grid.counts.max())) if self.strategy == "round_robin" else full

    def __len__(self) -> int:
        """How many batches this process has in an epoch."""
        return -(-self.batches_of_all // self.ranks)

    def batches(self, epoch: int, *, first: int = 0) -> Iterator[Batch]:
        """The batches of an epoch.

        Parameters
        ----------
        epoch
            from 0
        first
            the number of the first batch wanted, of those of this process: to go on in the middle
        """
        options = {"batch_size": self.batch_size, "seed": self.seed, "epoch": epoch}
        draw = functools.partial(STRATEGIES[self.strategy], self.grid, **options)
        start = self.rank + first * self.ranks
        last = self.rank + (len(self) - 1) * self.ranks
        yield from itertools.islice(draw(first=start), 0, None, self.ranks)
        if last >= self.batches_of_all and first < len(self):
            yield next(draw(first=last % self.batches_of_all))


def pescador_streamer(
    batches: Callable[[], Iterable[Batch]], load: Callable[[Batch], Mapping[str, Any]]
) -> "pescador.Streamer":
    """A pescador `Streamer` of batches, for those who have one in their code already.

    Parameters
    ----------
    batches
        gives the batches of an epoch, each time it is called, such as
        `functools.partial(sampler.batches, 0)`
    load
        what pescador hands on of a batch: arrays by name

    Raises
    ------
    ModuleNotFoundError
        pescador is not installed
    """
    import pescador

    def stream() -> Iterator[Mapping[str, Any]]:
        for batch in batches():
            yield load(batch)

    return pescador.Streamer(stream)
