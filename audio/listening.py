"""What a page of results plays and shows of a signal, piece by piece.

A browser that opens a page from a disk runs its scripts, and reads no other file. So what it is to
play comes in chunks of Ogg Opus, which a script can hold, with some of what is around each:
`decodeAudioData` gives them back exact to the sample.
"""

import io
import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import av
import matplotlib
import numpy as np
from PIL import Image

from .channels import fold_down, layout_of
from .pooling import SILENCE, plot_grid, pool_power
from .resampling import REACH_SAMPLES, resampled_range, rounded_length

SAMPLE_RATE = 48_000
"""Of what is played, Hz: Opus has no other that browsers keep."""
LEAD_S = 0.1
"""What is encoded of the signal around a chunk: decoders need a little to come into swing."""
PEAKS_PER_S = 100
COLUMNS_PER_S = 25
ROWS = 96
RANGE_DB = 80.0
WHOLE_COLUMNS = 1500
"""The most columns of pictures and peaks of a whole recording."""

_BIT_RATE = 48_000  # of a channel
_STEPS_PER_DB = 2
_LOWEST_DB = -120.0
_Read = Callable[[int, int], np.ndarray]


def reach_of(sample_rate: int) -> int:
    """How many samples `opus_of` and `levels_within` need of a signal on both sides of a chunk."""
    # Samples of both rates may coincide but once a second; columns of pictures are to be whole.
    columns = math.ceil((1 + LEAD_S + REACH_SAMPLES / sample_rate) * COLUMNS_PER_S)
    return math.ceil(columns * sample_rate / COLUMNS_PER_S)


def opus_of(read: _Read, *, samples: int, sample_rate: int, start_s: float, stop_s: float) -> bytes:
    """A range of a signal as Ogg Opus of 48 kHz, folded down to stereo where it has more channels.

    Parameters
    ----------
    read
        gives finite float32 `(channels, samples)` of the signal, from one of its samples up to
        another
    samples, sample_rate
        of the signal
    start_s, stop_s
        the range; what lies beyond the signal is left out

    Returns
    -------
    bytes
        Decoded they have as many samples as the range at 48 kHz, without delay.
    """
    total = rounded_length(samples, sample_rate, SAMPLE_RATE)
    start, stop = (min(max(0, round(each * SAMPLE_RATE)), total) for each in (start_s, stop_s))
    block = resampled_range(
        read,
        samples=samples,
        sample_rate=sample_rate,
        rate=SAMPLE_RATE,
        start_sample=start,
        stop_sample=stop,
        quality="HQ",
    )
    # libopus takes what is far above full scale for an error.
    block = np.clip(block, -1.0, 1.0)
    if len(block) > 2:
        block = fold_down(block) if len(block) <= 8 else block.mean(axis=0, keepdims=True)
    return _encoded(block)


def _encoded(block: np.ndarray) -> bytes:
    file, layout = io.BytesIO(), layout_of(len(block))
    # FFmpeg would give each stream of an Ogg file a number by chance.
    options = {"fflags": "+bitexact", "serial_offset": "1"}
    with av.open(file, "w", format="ogg", options=options) as container:
        # The least effort and the longest frames take half of the time of the default, at its size.
        stream: Any = container.add_stream(
            "libopus",
            rate=SAMPLE_RATE,
            layout=layout,
            options={"compression_level": "0", "frame_duration": "60", "flags": "+bitexact"},
        )
        stream.bit_rate = _BIT_RATE * len(block)
        interleaved = np.ascontiguousarray(block.T, np.float32).reshape(1, -1)
        frame: Any = av.AudioFrame.from_ndarray(interleaved, format="flt", layout=layout)
        frame.sample_rate, frame.pts = SAMPLE_RATE, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()


def peaks_of(samples: np.ndarray, sample_rate: int) -> np.ndarray:
    """The least and the greatest value of all channels, `PEAKS_PER_S` times.

    Parameters
    ----------
    samples
        `(channels, n)`, at least one

    Returns
    -------
    np.ndarray, shape (columns, 2), int8
        127 is full scale, and what is above it, too.
    """
    columns = max(1, samples.shape[1] * PEAKS_PER_S // sample_rate)
    starts = np.minimum(np.arange(columns) * sample_rate // PEAKS_PER_S, samples.shape[1] - 1)
    lowest = np.minimum.reduceat(samples.min(axis=0), starts)
    highest = np.maximum.reduceat(samples.max(axis=0), starts)
    scaled = np.stack([np.floor(127 * lowest), np.ceil(127 * highest)], axis=1)
    return scaled.clip(-127, 127).astype(np.int8)


def merged_peaks(peaks: np.ndarray, columns: int) -> np.ndarray:
    """Peaks in fewer columns, `(columns, 2)`: as many as there are, at most."""
    starts = _merged_starts(len(peaks), columns)
    lowest = np.minimum.reduceat(peaks[:, 0], starts)
    return np.stack([lowest, np.maximum.reduceat(peaks[:, 1], starts)], axis=1)


def merged_levels(levels: np.ndarray, columns: int) -> np.ndarray:
    """The highest levels in fewer columns, `(rows, columns)`: as many as there are, at most."""
    return np.maximum.reduceat(levels, _merged_starts(levels.shape[1], columns), axis=1)


def _merged_starts(there: int, wanted: int) -> np.ndarray:
    wanted = min(there, wanted)
    return np.arange(wanted) * there // wanted


def levels_within(
    samples: np.ndarray, sample_rate: int, start_sample: int, stop_sample: int
) -> np.ndarray:
    """The levels of the pixels of a range's spectrogram, `COLUMNS_PER_S`.

    Parameters
    ----------
    samples
        `(channels, n)`: the range and what is around it

    Returns
    -------
    np.ndarray, shape (ROWS, columns), uint8
        Steps of half a dB above -120 dB re full scale: they wait in little memory.
    """
    total = samples.shape[1]
    columns = max(16, round(total * COLUMNS_PER_S / sample_rate))
    grid = plot_grid(total, sample_rate, columns=columns, rows=ROWS)
    # A frame beyond the range may be the only one of its first or last column.
    core = max(0, start_sample - grid.hop_length), min(total, stop_sample + grid.hop_length)
    power = pool_power(samples, grid, core=core)
    power = power[:, grid.column_of(start_sample) : grid.column_of(stop_sample - 1) + 1]
    levels = 10 * np.log10(np.fmax(power, np.float32(SILENCE)))
    return np.clip((levels - _LOWEST_DB) * _STEPS_PER_DB, 0, 255).astype(np.uint8)


def frequency_range(sample_rate: int) -> tuple[float, float]:
    """The lowest and the highest frequency of the pixels of a spectrogram, Hz, by octaves."""
    return plot_grid(1, sample_rate).fmin, sample_rate / 2


def highest_level_db(levels: np.ndarray) -> float:
    """The highest of `levels_within`, dB; 0 for silence."""
    highest = int(levels.max(initial=0))
    return highest / _STEPS_PER_DB + _LOWEST_DB if highest else 0.0


def picture_of(levels: np.ndarray, top_db: float) -> bytes:
    """A WebP picture of `levels_within`, a pixel each, the lowest row at the bottom."""
    top = (top_db - _LOWEST_DB) * _STEPS_PER_DB
    heat = (levels[::-1].astype(np.float32) - top) * (255 / (RANGE_DB * _STEPS_PER_DB)) + 255
    pixels = _colours()[np.clip(heat, 0, 255).astype(np.uint8)]
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="webp", quality=70, method=2)
    return file.getvalue()


@lru_cache(maxsize=1)
def _colours() -> np.ndarray:
    return matplotlib.colormaps["magma"](np.arange(256), bytes=True)[:, :3]
