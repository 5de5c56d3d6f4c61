"""From a part of a recording to its stems, by any separators: the same path for all of them.

Resampling, channels, blocks, normalisation, shifts, the weighted mean of an ensemble and the
residual are here, and nowhere else. All of it is linear and local but for the models themselves, so
parts of a recording give what the whole gives.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import soxr

from ...audio.parts import CROSS_FADE_S, Part, plan_parts
from ...audio.progress import Progress, piece_of, unheard
from .base import RESIDUAL, Description, Member, ModelError, Separator
from .blocks import Grid, cut_blocks, in_batches, kept_of, overlap_add, plan_blocks

# Beyond so many samples, at the lower of the two rates, soxr's filter is silent.
RESAMPLING_REACH_SAMPLES = 256
MAXIMUM_SHIFT_S = 0.5
# Statistics are summed up in blocks of this length, or they would be others in the last digits.
STATISTICS_BLOCK_S = 30.0
BLOCKS_AT_ONCE = 8


@dataclass(frozen=True)
class Position:
    """Where the samples of a part lie in their recording, in samples of the recording.

    `start_sample` is that of the first of them, `stem_start_sample` to `stem_stop_sample` the range
    that stems are wanted of.
    """

    start_sample: int
    total_samples: int
    stem_start_sample: int
    stem_stop_sample: int

    @classmethod
    def of(cls, part: Part, total_samples: int) -> "Position":
        """That of a part of a recording of so many samples."""
        return cls(
            start_sample=part.context_start_sample,
            total_samples=total_samples,
            stem_start_sample=part.stem_start_sample,
            stem_stop_sample=part.stem_stop_sample,
        )


@dataclass(frozen=True)
class Statistics:
    """Mean and standard deviation of the mean of all channels, over a whole recording."""

    mean: float
    deviation: float


@dataclass(frozen=True)
class MixingOptions:
    """How estimates are joined.

    Parameters
    ----------
    overlap
        share of blocks that neighbours have in common; None: as the separator has it
    shifts
        so many estimates, each with its grid of blocks shifted by up to 0.5 s, are averaged;
        0: one, not shifted
    seed
        of the shifts
    """

    overlap: float | None = None
    shifts: int = 0
    seed: int = 0


class RunBlocks(Protocol):
    """Runs the model of one member of an ensemble on batches of blocks."""

    def __call__(
        self,
        member_index: int,
        batches: Iterable[np.ndarray],
        sample_rate: int,
        stems: Sequence[int],
        progress: Progress = unheard,
        /,
    ) -> Iterator[np.ndarray]:
        """What the model makes of each batch, in order.

        Parameters
        ----------
        batches
            float32 `(blocks, channels, samples)` each
        sample_rate
            Hz
        stems
            indexes of the stems that are wanted
        progress
            is told how many blocks are done, and shares of one that takes long

        Yields
        ------
        float32 `(blocks, stems, channels, samples)`; one channel stands for all
        """
        ...


def separate_part(
    samples: np.ndarray,
    sample_rate: int,
    members: Sequence[Member],
    run: RunBlocks,
    *,
    position: Position,
    stems: Sequence[str],
    statistics: Statistics | None = None,
    options: MixingOptions | None = None,
    progress: Progress = unheard,
) -> dict[str, np.ndarray]:
    """Separate one part of a recording.

    Parameters
    ----------
    samples
        float32 `(channels, samples)` of the part with its context
    sample_rate
        Hz
    members
        the ensemble; each stem is the weighted mean of its members' estimates
    run
        runs the members' models
    stems
        the stems that are wanted; `residual` is the mixture less all others that are wanted, or
        less all that there are
    statistics
        of the whole recording; None if the part is the whole
    progress
        is told how much is done, as a share that rises to 1

    Returns
    -------
    float32 `(channels, stem_stop_sample - stem_start_sample)` by stem

    Raises
    ------
    ModelError
        no member gives a stem, or a model gives what is no finite number
    """
    options = options or MixingOptions()
    mixtures = _Mixtures(samples, sample_rate, statistics, is_kept=len(members) > 1)
    estimated = [stem for stem in stems if stem != RESIDUAL] or list(stem_names(members))
    sums: dict[str, np.ndarray] = {}
    weights = dict.fromkeys(estimated, 0.0)
    for index, member in enumerate(members):
        used = {
            stem: weight for stem in estimated if (weight := member.weights.get(stem, 0.0)) != 0
        }
        if not used:
            continue
        estimates = _estimate(
            mixtures,
            member.separator,
            index,
            run,
            position,
            used,
            options,
            piece_of(progress, index / len(members), (index + 1) / len(members)),
        )
        with np.errstate(invalid="ignore"):
            finite = np.isfinite(estimates.sum(dtype=np.float64))
        if not finite:
            raise ModelError(
                f"{member.separator.name}: gives numbers that are not finite (NaN or infinite)"
            )
        for estimate, (stem, weight) in zip(estimates, used.items(), strict=True):
            weights[stem] += weight
            if stem in sums:
                sums[stem] += np.float32(weight) * estimate
            else:
                sums[stem] = estimate if weight == 1 else np.float32(weight) * estimate
    for stem in estimated:
        if weights[stem] == 0:
            raise ModelError(f"no model of the ensemble gives the stem {stem!r}")
        if weights[stem] != 1:
            sums[stem] /= np.float32(weights[stem])
    if RESIDUAL in stems:
        rest = _stem_range(samples, position).copy()
        for stem in estimated:
            rest -= sums[stem]
        sums[RESIDUAL] = rest
    progress(1.0)
    return {stem: sums[stem] for stem in stems}


def stem_names(members: Sequence[Member]) -> tuple[str, ...]:
    """The stems of an ensemble, in the order in which its members name them."""
    return tuple(dict.fromkeys(stem for member in members for stem in member.weights))


def statistics_of(mixture: np.ndarray) -> Statistics:
    """Statistics of a whole mixture, float32 `(channels, samples)`."""
    statistics = StreamingStatistics(1, 1)
    statistics.add(mixture)
    return statistics.result()


class StreamingStatistics:
    """Statistics of a recording that comes block by block, as it is at another rate.

    The deviation is that of the sample, as `torch.std` has it.

    Parameters
    ----------
    sample_rate, rate
        Hz, from and to
    """

    def __init__(self, sample_rate: int, rate: int) -> None:
        self._resampler = None if rate == sample_rate else soxr.ResampleStream(sample_rate, rate, 1)
        self._count, self._sum, self._squares = 0, 0.0, 0.0

    def add(self, samples: np.ndarray) -> None:
        """The next block, float32 `(channels, samples)`."""
        mono = samples.mean(axis=0)
        self._add(self._resampler.resample_chunk(mono) if self._resampler else mono)

    def result(self) -> Statistics:
        """The statistics of all blocks; none may be added after."""
        if self._resampler:
            self._add(self._resampler.resample_chunk(np.zeros(0, np.float32), last=True))
        mean = self._sum / max(1, self._count)
        variance = max(0.0, self._squares - self._count * mean * mean) / max(1, self._count - 1)
        return Statistics(mean, math.sqrt(variance))

    def _add(self, mono: np.ndarray) -> None:
        wide = mono.astype(np.float64)
        self._count += wide.size
        self._sum += float(wide.sum())
        self._squares += float(wide @ wide)


def needed_context_samples(context_s: float, sample_rate: int, rates: Sequence[int]) -> int:
    """Samples of real audio that a part needs on either side of its core."""
    cross_fade = math.ceil(CROSS_FADE_S * sample_rate / 2)
    # Twice: into the model, and back.
    reach = max((2 * _reach(sample_rate, rate) for rate in rates), default=0)
    alignment = alignment_of(sample_rate, rates)
    return math.ceil(context_s * sample_rate) + cross_fade + reach + alignment


def plan_parts_for(
    description: Description,
    total_samples: int,
    sample_rate: int,
    channels: int,
    *,
    part_seconds: float,
) -> list[Part]:
    """Cut a recording into parts, as `plan_parts` does, with the context that a separator needs."""
    rates = description.sample_rates
    return plan_parts(
        total_samples,
        sample_rate,
        channels,
        part_seconds=part_seconds,
        context_samples=needed_context_samples(description.context_s, sample_rate, rates),
        alignment_samples=alignment_of(sample_rate, rates),
    )


def _reach(sample_rate: int, rate: int) -> int:
    """Samples of a recording beyond which resampling to a rate, or from it, does not see."""
    if rate == sample_rate:
        return 0
    return RESAMPLING_REACH_SAMPLES * max(1, -(-sample_rate // rate))


def alignment_of(sample_rate: int, rates: Sequence[int]) -> int:
    """A part begins at a multiple of this: there samples of all models' rates meet."""
    return math.lcm(1, *(sample_rate // math.gcd(sample_rate, rate) for rate in rates))


class _Mixtures:
    """A part as models take it: resampled and normalised once for all members of an ensemble.

    Parameters
    ----------
    samples
        float32 `(channels, samples)`
    sample_rate
        Hz
    statistics
        of the whole recording; None if the part is the whole
    is_kept
        another member may want the same
    """

    def __init__(
        self,
        samples: np.ndarray,
        sample_rate: int,
        statistics: Statistics | None,
        *,
        is_kept: bool,
    ) -> None:
        self.samples = samples
        self.sample_rate = sample_rate
        self.statistics = statistics
        self.is_kept = is_kept
        self._made: dict[tuple[int, bool], tuple[np.ndarray, Statistics]] = {}

    def at(self, rate: int, *, normalizes: bool) -> tuple[np.ndarray, Statistics]:
        """The mixture at a rate, and what was taken from it: mean and deviation, or 0 and 1."""
        key = rate, normalizes
        if key in self._made:
            return self._made[key]
        if normalizes:
            mixture, _ = self.at(rate, normalizes=False)
            found = self.statistics or statistics_of(mixture)
            found = Statistics(found.mean, found.deviation + 1e-8)
            made = (mixture - np.float32(found.mean)) / np.float32(found.deviation), found
        else:
            made = resample(self.samples, self.sample_rate, rate), Statistics(0.0, 1.0)
        if self.is_kept:
            self._made[key] = made
        return made


def _estimate(
    mixtures: _Mixtures,
    separator: Separator,
    member_index: int,
    run: RunBlocks,
    position: Position,
    stems: Mapping[str, float],
    options: MixingOptions,
    progress: Progress,
) -> np.ndarray:
    """One member's estimates: float32 `(stems, channels, samples of the stem range)`."""
    sample_rate = mixtures.sample_rate
    rate = separator.sample_rate or sample_rate
    mixture, taken = mixtures.at(rate, normalizes=separator.normalizes)
    at_rate = _RangeAtRate.of(position, sample_rate, rate)
    groups = to_groups(mixture, separator.channels)
    indexes = [separator.stems.index(stem) for stem in stems]

    shifts: list[int | None] = [None]
    if options.shifts and separator.block_samples is not None:
        shifts = [*range(options.shifts)]
    passes = len(groups) * len(shifts)
    pieces = (piece_of(progress, each / passes, (each + 1) / passes) for each in range(passes))

    def estimate_group(group: np.ndarray, shift: int | None) -> np.ndarray:
        origin = 0
        if shift is not None:
            longest = int(MAXIMUM_SHIFT_S * rate)
            origin = -int(
                np.random.default_rng([options.seed, member_index, shift]).integers(longest + 1)
            )
        return _run_grid(
            group,
            separator,
            member_index,
            run,
            rate,
            indexes,
            at_rate,
            origin,
            options,
            next(pieces),
        )

    joined = []
    for group in groups:
        total = estimate_group(group, shifts[0])
        for shift in shifts[1:]:
            total += estimate_group(group, shift)
        joined.append(total / np.float32(len(shifts)) if len(shifts) > 1 else total)
    estimates = from_groups(np.stack(joined), mixture.shape[0], groups.shape[1])
    if separator.normalizes:
        estimates *= np.float32(taken.deviation)
        estimates += np.float32(taken.mean)
    return at_rate.back(estimates, position, sample_rate, rate)


def _run_grid(
    mixture: np.ndarray,
    separator: Separator,
    member_index: int,
    run: RunBlocks,
    rate: int,
    stems: Sequence[int],
    at_rate: "_RangeAtRate",
    origin: int,
    options: MixingOptions,
    progress: Progress,
) -> np.ndarray:
    """`(channels, samples)` to `(stems, channels, samples of the range)`."""
    if separator.block_samples is None:
        ((whole,),) = run(member_index, [mixture[None]], rate, stems, progress)
        begin = at_rate.start_sample - at_rate.first_sample
        return whole[..., begin : begin + at_rate.stop_sample - at_rate.start_sample]
    overlap = separator.overlap if options.overlap is None else options.overlap
    grid = Grid(
        separator.block_samples,
        separator.context_samples,
        overlap,
        origin,
        separator.block_lengths,
    )
    start, stop = at_rate.start_sample, at_rate.stop_sample
    blocks = plan_blocks(grid, at_rate.total_samples, start_sample=start, stop_sample=stop)

    batches = list(in_batches(blocks, BLOCKS_AT_ONCE))
    cut = (cut_blocks(mixture, batch, start_sample=at_rate.first_sample) for batch in batches)

    def count(blocks_done: float) -> None:
        progress(blocks_done / len(blocks))

    outputs = (
        (block, kept_of(block, output))
        for batch, made in zip(batches, run(member_index, cut, rate, stems, count), strict=True)
        for block, output in zip(batch, made, strict=True)
    )
    return overlap_add(grid, outputs, start_sample=start, stop_sample=stop)


@dataclass(frozen=True)
class _RangeAtRate:
    """A `Position` at a model's rate: the range to estimate, wider by what resampling needs.

    `source_start_sample` is where that begins in the recording.
    """

    source_start_sample: int
    first_sample: int
    total_samples: int
    start_sample: int
    stop_sample: int

    @classmethod
    def of(cls, position: Position, sample_rate: int, rate: int) -> "_RangeAtRate":
        total = resampled_length(position.total_samples, sample_rate, rate)
        start, stop = _source_range(position, sample_rate, rate)
        return cls(
            source_start_sample=start,
            first_sample=position.start_sample * rate // sample_rate,
            total_samples=total,
            start_sample=start * rate // sample_rate,
            stop_sample=min(total, resampled_length(stop, sample_rate, rate)),
        )

    def back(
        self, estimates: np.ndarray, position: Position, sample_rate: int, rate: int
    ) -> np.ndarray:
        """Estimates of this range, at the model's rate, to the stem range of the recording."""
        if rate == sample_rate:
            return estimates
        begin = position.stem_start_sample - self.source_start_sample
        length = position.stem_stop_sample - position.stem_start_sample
        stems, channels = estimates.shape[:2]
        at_source = resample(estimates.reshape(stems * channels, -1), rate, sample_rate)
        cut = at_source[:, begin : begin + length]
        cut = np.pad(cut, ((0, 0), (0, length - cut.shape[-1])))
        return cut.reshape(stems, channels, length)


def _source_range(position: Position, sample_rate: int, rate: int) -> tuple[int, int]:
    """The stem range, with what resampling needs around it, beginning where both rates meet."""
    reach = _reach(sample_rate, rate)
    period = alignment_of(sample_rate, [rate])
    start = max(0, position.stem_start_sample - reach) // period * period
    return start, min(position.total_samples, position.stem_stop_sample + reach)


def resample(samples: np.ndarray, sample_rate: int, rate: int) -> np.ndarray:
    """Resample by soxr, high quality.

    Parameters
    ----------
    samples
        float32 `(channels, samples)`
    sample_rate, rate
        Hz, from and to

    Returns
    -------
    float32 `(channels, resampled_length)`
    """
    if rate == sample_rate:
        return samples
    resampled = soxr.resample(np.ascontiguousarray(samples.T), sample_rate, rate).T
    length = resampled_length(samples.shape[-1], sample_rate, rate)
    # soxr rounds to the nearest length.
    return np.ascontiguousarray(
        np.pad(resampled, ((0, 0), (0, max(0, length - resampled.shape[-1]))))[:, :length]
    )


def resampled_length(samples: int, sample_rate: int, rate: int) -> int:
    """Samples at another rate of a signal of so many samples, rounded up."""
    return -(-samples * rate // sample_rate)


def to_groups(mixture: np.ndarray, channels: int | None) -> np.ndarray:
    """Channels in groups of as many as a model takes; the last one is repeated where it lacks any.

    Parameters
    ----------
    mixture
        float32 `(channels, samples)`
    channels
        of the model; None: any number

    Returns
    -------
    float32 `(groups, channels of the model, samples)`: mono for a stereo model is the same on both
    sides, stereo for a mono model two groups, 5.1 for a stereo model three
    """
    if channels is None:
        return mixture[None]
    lacking = -mixture.shape[0] % channels
    full = np.concatenate([mixture, np.repeat(mixture[-1:], lacking, axis=0)])
    return full.reshape(-1, channels, mixture.shape[-1])


def from_groups(estimates: np.ndarray, channels: int, per_group: int) -> np.ndarray:
    """The inverse of `to_groups`; of a repeated channel the mean is taken.

    Parameters
    ----------
    estimates
        float32 `(groups, stems, per_group, samples)`; one channel stands for all of a group
    channels
        of the mixture
    per_group
        channels of a group

    Returns
    -------
    float32 `(stems, channels, samples)`
    """
    groups, stems, given, samples = estimates.shape
    if given < per_group:
        estimates = np.repeat(estimates, per_group, axis=2)
    flat = estimates.transpose(1, 0, 2, 3).reshape(stems, groups * per_group, samples)
    if groups * per_group == channels:
        return flat
    last = flat[:, channels - 1 :].mean(axis=1, keepdims=True)
    return np.concatenate([flat[:, : channels - 1], last], axis=1)


def _stem_range(samples: np.ndarray, position: Position) -> np.ndarray:
    begin = position.stem_start_sample - position.start_sample
    return samples[:, begin : begin + position.stem_stop_sample - position.stem_start_sample]
