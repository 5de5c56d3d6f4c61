"""Parts of a long recording: planning them, and joining what was made of them.

The cores of the parts tile the recording. Each part is decoded with real neighbouring audio
(context) on both sides, gives its stems for its core and half a cross-fade beyond it, and the
stems of neighbours are cross-faded over the border.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from .errors import TooShortAudioError

# A part's memory grows with channels times samples: 300 s of stereo at 44.1 kHz is the most.
PART_CHANNEL_SAMPLES = 300 * 44100 * 2
CONTEXT_S = 5.0
# Half of it is also the context of the plots at the border, which is half their window.
CROSS_FADE_S = 0.2
JOIN_BLOCK_SAMPLES = 1 << 18


@dataclass(frozen=True)
class Part:
    """Where one part lies in its recording. All fields but the first two are samples.

    `start_sample` to `stop_sample` is the core, `context_start_sample` to `context_stop_sample`
    what is decoded, and `stem_start_sample` to `stem_stop_sample` what its stems cover.
    """

    index: int
    count: int
    start_sample: int
    stop_sample: int
    context_start_sample: int
    context_stop_sample: int
    stem_start_sample: int
    stem_stop_sample: int

    @classmethod
    def whole(cls, total_samples: int) -> "Part":
        """A whole recording of so many samples."""
        return cls(0, 1, *(0, total_samples) * 3)

    @property
    def is_whole(self) -> bool:
        """Whether this part is the whole recording."""
        return self.count == 1


def excerpt_range(
    total_samples: int, sample_rate: int, start_s: float, duration_s: float | None
) -> tuple[int, int]:
    """Where an excerpt of a recording begins, and how long it is, in samples.

    Parameters
    ----------
    start_s, duration_s
        seconds; a duration of None, or one that is longer, means up to the recording's end

    Raises
    ------
    TooShortAudioError
        the recording ends before it begins
    """
    start_sample = round(start_s * sample_rate)
    rest_samples = total_samples - start_sample
    if rest_samples <= 0:
        raise TooShortAudioError(
            f"ends after {total_samples / sample_rate:.3f} s, before the excerpt begins: it starts "
            f"at {start_s:g} s"
        )
    if duration_s is None:
        return start_sample, rest_samples
    return start_sample, min(rest_samples, round(duration_s * sample_rate))


def plan_parts(
    total_samples: int,
    sample_rate: int,
    channels: int,
    *,
    part_seconds: float,
    context_samples: int | None = None,
    alignment_samples: int = 1,
) -> list[Part]:
    """Cut a recording into equal parts of at most `part_seconds`, fewer for many channels.

    Parameters
    ----------
    total_samples
        frames of the recording, at least 1
    sample_rate
        Hz
    channels
        number of channels
    part_seconds
        longest core of a part, in seconds
    context_samples
        real audio on either side of a part; default `CONTEXT_S`
    alignment_samples
        what is decoded of a part begins at a multiple of this

    Returns
    -------
    Parts in order; their cores tile `[0, total_samples)`. One part where the recording fits.
    """
    longest = min(round(part_seconds * sample_rate), PART_CHANNEL_SAMPLES // channels)
    count = -(-total_samples // longest)
    borders = [index * total_samples // count for index in range(count + 1)]
    context = round(CONTEXT_S * sample_rate) if context_samples is None else context_samples
    half_fade = round(CROSS_FADE_S * sample_rate / 2)
    return [
        Part(
            index=index,
            count=count,
            start_sample=start,
            stop_sample=stop,
            context_start_sample=max(0, start - context) // alignment_samples * alignment_samples,
            context_stop_sample=min(total_samples, stop + context),
            stem_start_sample=max(0, start - half_fade),
            stem_stop_sample=min(total_samples, stop + half_fade),
        )
        for index, (start, stop) in enumerate(itertools.pairwise(borders))
    ]


def cut_to_stem_range(samples: np.ndarray, part: Part) -> np.ndarray:
    """The samples of a part's stem range out of `(…, context samples)` of that part."""
    start = part.stem_start_sample - part.context_start_sample
    return samples[..., start : start + part.stem_stop_sample - part.stem_start_sample]


def join_parts(
    parts: Sequence[Part], read: Callable[[Part, int, int], np.ndarray]
) -> Iterator[np.ndarray]:
    """Join the parts' stems, cross-faded, in blocks of at most `JOIN_BLOCK_SAMPLES`.

    Parameters
    ----------
    parts
        all parts of one recording, in order
    read
        `read(part, start_sample, stop_sample)` gives float32 `(channels, samples)` of that
        part's stem; the positions are samples of the recording, inside the part's stem range

    Yields
    ------
    float32 `(channels, samples)` blocks that together are exactly the recording's length.
    """
    for part, following in zip(parts, [*parts[1:], None], strict=True):
        start = parts[part.index - 1].stem_stop_sample if part.index else 0
        stop = following.stem_start_sample if following else part.stop_sample
        for block_start in range(start, stop, JOIN_BLOCK_SAMPLES):
            yield read(part, block_start, min(block_start + JOIN_BLOCK_SAMPLES, stop))
        if following:
            fade_start, fade_stop = following.stem_start_sample, part.stem_stop_sample
            yield _cross_fade(
                read(part, fade_start, fade_stop), read(following, fade_start, fade_stop)
            )


def _cross_fade(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    samples = before.shape[-1]
    rise = ((np.arange(samples) + 0.5) / samples).astype(np.float32)
    # before + rise * (after - before) keeps equal inputs bit for bit.
    return before + rise * (after - before)
