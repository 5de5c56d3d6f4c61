"""Choruses: the sections of a song that come again, and where an excerpt of the best one begins.

The method is that of pychorus 0.1 (V. Jayaram), which follows M. Goto, "A chorus-section detecting
method for musical audio signals" (ICASSP 2003). Each moment is compared with each other one by
their chroma. Where a section comes again after some time (lag), the moments of one row of the
matrix of lags and times are similar for as long as the section lasts. The rows are denoised, the
rows that are local maxima searched for long stretches (lines), and those lines come first that
most others cover, in the later or in the earlier occurrence.

Here no matrix is held: rows are made one after the other, of running sums, in memory that grows
with the length of the song alone. And unlike there, sections may end with the song, the first
occurrence is given, and there is a reason where nothing was found.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numba
import numpy as np

from .channels import as_many
from .chroma import HOP_S, PITCH_CLASSES, chroma_frames, hop_samples
from .compiling import compiled

Reason = Literal["too short", "silent", "nothing repeats"]

SMOOTHING_S = 2.5
# Rows have to hold more than one window.
SHORTEST_CLIP_S = 2 * SMOOTHING_S
# How far the weights reach that smooth along a row, in standard deviations.
REACH_OF_SMOOTHING = 4
# Where no section is found an excerpt begins here, as a part of the song.
FALLBACK = 0.4
MOST_CHANNELS = 32
# How similar the moments of a line are, above what is around them: less and less is asked for
# until there are enough lines.
_THRESHOLDS = tuple(0.15 * 0.95**step for step in range(8))
_ENOUGH_LINES = 8
# How far a line that covers another may fall short of it, as a part of the clip's length.
_MARGIN = 0.2
# A line whose occurrences lie so much in those of a section tells nothing new.
_TOLD = 0.8
_BLOCK_SAMPLES = 1 << 20


@dataclass(frozen=True)
class RepeatedSection:
    """A section of a song that comes again.

    Attributes
    ----------
    start_s
        seconds, where it is heard first
    length_s
        seconds
    repeats_s
        where it comes again, in order
    score
        how many other repetitions cover it: what sections are ranked by, before their length
    """

    start_s: float
    length_s: float
    repeats_s: tuple[float, ...]
    score: int


@dataclass(frozen=True)
class Choruses:
    """What of a song comes again.

    Attributes
    ----------
    duration_s, clip_s
        seconds: of the song, and of the excerpt that is wanted
    sections
        the best one first; none if there is a `reason`
    reason
        why there are none: the song is shorter than two clips, digital silence, or nothing
        repeats for as long as a clip
    """

    duration_s: float
    clip_s: float
    sections: tuple[RepeatedSection, ...] = ()
    reason: Reason | None = None

    @property
    def excerpt_start_s(self) -> float:
        """Where an excerpt begins: with the best section, else after 0.4 of the song.

        It is earlier where the excerpt would reach beyond the end, 0 in a song shorter than that.
        """
        wanted_s = self.sections[0].start_s if self.sections else FALLBACK * self.duration_s
        return max(0.0, min(wanted_s, self.duration_s - self.clip_s))

    @property
    def excerpt_stop_s(self) -> float:
        """Where it ends: `clip_s` later, or with the song."""
        return min(self.duration_s, self.excerpt_start_s + self.clip_s)


class _Line(NamedTuple):
    """Frames from `start` up to `stop` that are similar to those `lag` frames before them."""

    start: int
    stop: int
    lag: int


def find_choruses(
    samples: np.ndarray | Iterable[np.ndarray], sample_rate: int, *, clip_s: float = 15.0
) -> Choruses:
    """Find the sections of a song that come again, about as long as a clip or longer.

    Parameters
    ----------
    samples : np.ndarray or iterable of np.ndarray, float
        `(channels, samples)` or `(samples,)`, or blocks of them one after the other, so that
        memory does not grow with the samples: 30 minutes take tens of MB. Channels are averaged;
        the level does not matter.
    sample_rate : int
        Hz.
    clip_s : float
        Seconds: songs are alike for longer than this where there is a section; its ends, looked
        for after that, may make it shorter by up to `SMOOTHING_S` each. Occurrences are half a
        clip apart at least. Around 15 suits songs; at least 5.

    Returns
    -------
    Choruses
        Times are right to about a frame of the chroma, 0.19 s, where a section begins and ends
        clearly.

    Raises
    ------
    ValueError
        The samples are no such arrays, or hold NaN or infinity; the rate or the clip's length is
        out of range.
    """
    if sample_rate <= 0 or int(sample_rate) != sample_rate:
        raise ValueError(f"sample_rate: {sample_rate} is no whole number of Hz")
    if not SHORTEST_CLIP_S <= clip_s < float("inf"):
        raise ValueError(f"clip_s is at least {SHORTEST_CLIP_S:g} seconds, not {clip_s}")
    blocks = _cut(samples) if isinstance(samples, np.ndarray) else samples
    total = 0

    def mono() -> Iterator[np.ndarray]:
        nonlocal total
        for block in map(_to_mono, blocks):
            total += len(block)
            yield block

    pieces = list(chroma_frames(mono(), int(sample_rate)))
    duration_s = total / sample_rate
    if duration_s < 2 * clip_s:
        return Choruses(duration_s, clip_s, reason="too short")
    chroma = np.concatenate([*pieces, np.empty((0, PITCH_CLASSES), np.float32)])
    if not chroma.any():
        return Choruses(duration_s, clip_s, reason="silent")
    hop_s = hop_samples(sample_rate) / sample_rate
    clip_frames = clip_s / hop_s
    lines = _find_lines(chroma, clip_frames)
    sections = tuple(_sections(chroma, lines, clip_frames, hop_s))
    return Choruses(duration_s, clip_s, sections, None if sections else "nothing repeats")


def _cut(samples: np.ndarray) -> Iterator[np.ndarray]:
    _require_signal(samples)
    for start in range(0, samples.shape[-1], _BLOCK_SAMPLES):
        yield samples[..., start : start + _BLOCK_SAMPLES]


def _require_signal(block: np.ndarray) -> None:
    if block.ndim not in (1, 2) or len(np.atleast_2d(block)) > MOST_CHANNELS:
        raise ValueError(f"samples have shape {block.shape}: (channels, samples) is wanted")
    if not np.issubdtype(block.dtype, np.floating):
        raise ValueError(f"samples are {block.dtype}: hand over floats in [-1, 1]")


def _to_mono(block: np.ndarray) -> np.ndarray:
    _require_signal(block)
    mono = as_many(np.atleast_2d(block), 1)[0].astype(np.float32, copy=False)
    if not np.isfinite(mono).all():
        raise ValueError("samples hold NaN or infinity")
    return mono


# Rows of the time-lag matrix. That of a lag has a place for each frame that there is one `lag`
# frames after: it stands at the earlier of the two.


@compiled(numba.njit, nogil=True)
def _similarity(chroma: Any, lag: int) -> Any:
    """How similar frames are to those `lag` frames later: float64, in [0, 1]."""
    frames, classes = chroma.shape
    row = np.empty(max(0, frames - lag))
    for earlier in range(len(row)):
        square = 0.0
        for pitch_class in range(classes):
            difference = chroma[earlier, pitch_class] - chroma[earlier + lag, pitch_class]
            square += difference * difference
        row[earlier] = 1 - np.sqrt(square / classes)
    return row


def _denoised_rows(
    chroma: np.ndarray, *, first_lag: int, last_lag: int, width: int
) -> Iterator[np.ndarray]:
    """Rows in which little is left but repetitions; those of `first_lag` up to `last_lag`."""
    frames = len(chroma)
    lag = first_lag - width + 1
    rows = deque(_similarity(chroma, each) for each in range(lag, lag + width))
    # Sums over the rows of `width` lags from `lag` on: at the earlier frame, and at the later.
    by_earlier, by_later = np.zeros(frames), np.zeros(frames)
    for each, row in enumerate(rows, lag):
        by_earlier[: len(row)] += row
        by_later[each:] += row
    sums: deque[tuple[np.ndarray, np.ndarray]] = deque(maxlen=width)
    offsets = np.arange(-REACH_OF_SMOOTHING * width, REACH_OF_SMOOTHING * width + 1)
    weights = np.exp(-0.5 * (offsets / width) ** 2)
    weights /= weights.sum()
    while lag <= last_lag:
        row = rows.popleft()
        sums.append((by_earlier[: len(row)].copy(), by_later[lag:].copy()))
        if lag >= first_lag:
            # `sums[0]` are of the lags that end with this one, `sums[-1]` of those that begin so.
            suppressed = _suppressed(
                row, sums[0][0], sums[-1][0], sums[0][1][width - 1 :], sums[-1][1], width
            )
            yield _smoothed(suppressed, weights)
        by_earlier[: len(row)] -= row
        by_later[lag:] -= row
        following = _similarity(chroma, lag + width)
        by_earlier[: len(following)] += following
        by_later[frames - len(following) :] += following
        rows.append(following)
        lag += 1


@compiled(numba.njit, nogil=True)
def _suppressed(
    row: Any, earlier_back: Any, earlier_on: Any, later_back: Any, later_on: Any, width: int
) -> Any:
    """A row without what is similar across it.

    It is less the weakest of four means over `width` frames, back and on from the earlier and from
    the later frame, where the mean along it is above them all. Elsewhere it is less the strongest,
    so that held notes and beats, which are similar to everything around, vanish. Windows that
    reach beyond the ends of the song do not count.

    Parameters
    ----------
    earlier_back, earlier_on, later_back, later_on : np.ndarray, float64
        The sums of those windows; at least as long as the row.
    """
    length = len(row)
    total = np.zeros(length + 1)
    total[1:] = np.cumsum(row)
    suppressed = np.empty(length)
    for place in range(length):
        highest = max(earlier_back[place], later_back[place])
        lowest = min(earlier_back[place], later_back[place])
        along = 0.0
        if place + 1 >= width:
            along = total[place + 1] - total[place + 1 - width]
            highest = max(highest, later_on[place])
            lowest = min(lowest, later_on[place])
        if place + width <= length:
            along = max(along, total[place + width] - total[place])
            highest = max(highest, earlier_on[place])
            lowest = min(lowest, earlier_on[place])
        suppressed[place] = row[place] - (lowest if along > highest else highest) / width
    return suppressed


@compiled(numba.njit, nogil=True, fastmath=True)
def _smoothed(row: Any, weights: Any) -> Any:
    """A row in which each place is the weighted mean of those around it, and at least 0.

    Beyond its ends it goes on as its mirror image.
    """
    length, reach = len(row), len(weights) // 2
    padded = np.empty(length + 2 * reach)
    for place in range(len(padded)):
        mirrored = (place - reach) % (2 * length)
        padded[place] = row[min(mirrored, 2 * length - 1 - mirrored)]
    smoothed = np.zeros(length)
    for offset in range(len(weights)):
        weight = weights[offset]
        for place in range(length):
            smoothed[place] += weight * padded[place + offset]
    return np.maximum(smoothed, 0)


def _find_lines(chroma: np.ndarray, clip_frames: float) -> list[_Line]:
    """Lines that are longer than the clip, in rows that are more similar than their neighbours."""
    width = int(SMOOTHING_S / HOP_S)
    first_lag, last_lag = int(clip_frames), int(len(chroma) - clip_frames)
    denoised = _denoised_rows(chroma, first_lag=first_lag - 1, last_lag=last_lag + 1, width=width)
    kept: list[tuple[int, np.ndarray]] = []
    means: deque[float] = deque([np.inf, np.inf], maxlen=3)
    row = np.zeros(0)
    for lag, following in enumerate(denoised, first_lag - 1):
        means.append(float(following.mean()))
        if means[0] < means[1] > means[2] and _runs(row > _THRESHOLDS[-1], clip_frames):
            kept.append((lag - 1, row))
        row = following
    lines: list[_Line] = []
    for threshold in _THRESHOLDS:
        lines = [
            _Line(lag + start, lag + stop, lag)
            for lag, row in kept
            for start, stop in _runs(row > threshold, clip_frames)
        ]
        if len(lines) >= _ENOUGH_LINES:
            break
    return lines


def _runs(is_similar: np.ndarray, longer_than: float) -> list[tuple[int, int]]:
    """Where a row is true for more frames than this: from one up to another."""
    edges = np.flatnonzero(np.diff(np.pad(is_similar, 1).astype(np.int8)))
    return [
        (int(start), int(stop))
        for start, stop in edges.reshape(-1, 2)
        if stop - start > longer_than
    ]


def _sections(
    chroma: np.ndarray, lines: Sequence[_Line], clip_frames: float, hop_s: float
) -> Iterator[RepeatedSection]:
    """The sections that lines tell of, the best one first; each once, with all its occurrences."""
    if not lines:
        return
    starts, stops, lags = np.array(lines).T
    margin = _MARGIN * clip_frames

    def covering(line: _Line) -> tuple[np.ndarray, np.ndarray]:
        """Which lines cover its later occurrence, and which its earlier one."""
        is_other = np.abs(lags - line.lag) > clip_frames
        later = (starts < line.start + margin) & (stops > line.stop - margin)
        earlier = (starts - lags < line.start - line.lag + margin) & (
            stops - lags > line.stop - line.lag - margin
        )
        return later & is_other, earlier & is_other

    scores = {line: int(np.logical_or(*covering(line)).sum()) for line in lines}
    ranked = sorted(lines, key=lambda line: (-scores[line], line.start - line.stop, line))
    told: list[tuple[int, int]] = []
    for line in ranked:
        earlier_start, later_start = line.start - line.lag, line.start
        length = line.stop - line.start
        if _lies_in(earlier_start, length, told) and _lies_in(later_start, length, told):
            continue
        covers_later, covers_earlier = covering(line)
        start, stop = _refined(_similarity(chroma, line.lag), earlier_start, earlier_start + length)
        later = start + line.lag
        places = _apart(
            [start, later, *(later - lags[covers_later]), *(start + lags[covers_earlier])],
            clip_frames / 2,
        )
        told += [(place, place + stop - start) for place in places]
        yield RepeatedSection(
            start_s=places[0] * hop_s,
            length_s=(stop - start) * hop_s,
            repeats_s=tuple(place * hop_s for place in places[1:]),
            score=scores[line],
        )


def _lies_in(start: int, length: int, places: Iterable[tuple[int, int]]) -> bool:
    return any(
        min(start + length, last) - max(start, first) >= _TOLD * length for first, last in places
    )


def _apart(places: Iterable[int], distance: float) -> list[int]:
    """Places in order, without those that are nearer than this to the one before."""
    kept: list[int] = []
    for place in sorted({max(0, int(place)) for place in places}):
        if not kept or place - kept[-1] >= distance:
            kept.append(place)
    return kept


def _refined(row: np.ndarray, start: int, stop: int) -> tuple[int, int]:
    """Where a line begins and ends in its row before that was smoothed.

    At either end it is where similarities change from below the middle, between those of the line
    and those of the frames around it, to above.
    """
    reach = int(SMOOTHING_S / HOP_S)
    backwards = row[::-1]
    begins = _edge(row, start, stop, reach)
    ends = len(row) - _edge(backwards, len(row) - stop, len(row) - start, reach)
    return begins, ends


def _edge(row: np.ndarray, start: int, stop: int, reach: int) -> int:
    outside = row[max(0, start - 3 * reach) : max(0, start - reach)]
    # Where the line begins with the song, what is least similar elsewhere has to do.
    low = np.median(outside) if len(outside) >= reach else row.min()
    middle = (np.median(row[start:stop]) + low) / 2
    first = max(0, start - reach)
    above = np.cumsum(row[first : start + reach] - middle)
    return first + int(np.argmin([0.0, *above]))
