"""From a part of a recording to its labels.

A model that gives labels runs as a separator does, on batches of blocks, in whichever process: its
labels of a block travel as a row of numbers, as long as the block.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from ...audio.progress import Progress, unheard
from ...audio.resampling import resampled_range, rounded_length
from .base import Label, ModelError, Separator
from .mixing import RunBlocks

LABELS = "labels"
# Of a label: which, from when to when, and how sure.
NUMBERS = 4
BLOCKS_AT_ONCE = 8


def label_part(
    read: Callable[[int, int], np.ndarray],
    sample_rate: int,
    labeler: Separator,
    run: RunBlocks,
    *,
    total_samples: int,
    core: tuple[int, int],
    progress: Progress = unheard,
) -> list[Label]:
    """Annotate one part of a recording.

    The blocks lie on one grid from the recording's start, and a part has those that begin in its
    core; so parts have the labels of the whole.

    Parameters
    ----------
    read
        gives float32 `(channels, samples)` of the recording from one of its samples up to another
    sample_rate
        Hz
    labeler, run
        the model, and what runs it on blocks
    total_samples
        length of the recording
    core
        first sample of the part's core, and the one after its last, in the recording
    progress
        is told how much is done, as a share that rises to 1

    Returns
    -------
    Labels in seconds from the recording's start, none of which reaches beyond its end

    Raises
    ------
    ModelError
        the model fails, or gives what can't be labels
    """
    rate, block = labeler.sample_rate or sample_rate, labeler.block_samples or 0
    first, stop = (-(-edge * rate // (block * sample_rate)) * block for edge in core)
    stop = min(stop, rounded_length(total_samples, sample_rate, rate))
    if first >= stop:
        return []
    mixture = resampled_range(
        read,
        samples=total_samples,
        sample_rate=sample_rate,
        rate=rate,
        start_sample=first,
        stop_sample=stop,
    )
    offset_s, end_s = first / rate, total_samples / sample_rate
    found = [
        replace(label, start_s=offset_s + label.start_s, end_s=offset_s + label.end_s)
        for label in labels_of(mixture, labeler, run, progress=progress)
    ]
    return _until(end_s, found)


def labels_of(
    samples: np.ndarray, labeler: Separator, run: RunBlocks, *, progress: Progress = unheard
) -> list[Label]:
    """Annotate a recording, in blocks that know nothing of each other, as Audacity does.

    Parameters
    ----------
    samples
        float32 `(channels, samples)` at the model's rate; a model for one channel gets the sum of
        the channels

    Returns
    -------
    Labels in the order of the blocks. Zeros make the last block a whole one where it is shorter,
    and labels then end with the recording; where it is not, as they may do in any block, they
    reach a little beyond its end if the model says so.

    Raises
    ------
    ModelError
        the model fails, or gives what can't be labels of the block
    """
    if labeler.channels is None and len(samples) > 2:
        raise ModelError(f"{labeler.name} labels mono and stereo, not {len(samples)} channels")
    if labeler.channels == 1:
        samples = samples.sum(axis=0, keepdims=True, dtype=np.float32)
    rate, length = labeler.sample_rate or 0, samples.shape[1]
    block = labeler.block_samples or length
    count = -(-length // block)
    batches = _batches_of(samples, block)
    rows = run(0, batches, rate, (0,), lambda done: progress(done / count))
    found = [
        label
        for index, row in enumerate(each[0, 0] for made in rows for each in made)
        for label in _labels_in(row, labeler.labels, index * block / rate)
    ]
    return _until(length / rate, found) if length % block else found


def _batches_of(samples: np.ndarray, block: int) -> Iterator[np.ndarray]:
    """Blocks, `(batch, channels, samples)`, the last one with zeros behind it."""
    length = samples.shape[1]
    for start in range(0, length, BLOCKS_AT_ONCE * block):
        batch = samples[:, start : start + BLOCKS_AT_ONCE * block]
        missing = -batch.shape[1] % block
        padded = np.pad(batch, ((0, 0), (0, missing)))
        yield np.ascontiguousarray(padded.reshape(len(samples), -1, block).swapaxes(0, 1))


def row_of(
    classes: Sequence[int],
    confidences: Sequence[float | None],
    times_s: Sequence[Sequence[float]],
    *,
    samples: int,
    name: str,
) -> np.ndarray:
    """Labels as numbers: how many, then of each its class, start, end and confidence.

    Returns
    -------
    np.ndarray, shape (samples,), float32

    Raises
    ------
    ModelError
        there are more than a block has room for
    """
    if 1 + NUMBERS * len(classes) > samples:
        raise ModelError(f"{name}: its model gave {len(classes)} labels of {samples} samples")
    row = np.zeros(samples, np.float32)
    row[0] = len(classes)
    numbers = row[1 : 1 + NUMBERS * len(classes)].reshape(-1, NUMBERS)
    for index, (each, confidence, (start_s, end_s)) in enumerate(
        zip(classes, confidences, times_s, strict=True)
    ):
        numbers[index] = each, start_s, end_s, np.nan if confidence is None else confidence
    return row


def _labels_in(row: np.ndarray, labels: Sequence[str], offset_s: float) -> Iterator[Label]:
    numbers = row[1 : 1 + NUMBERS * int(row[0])].astype(float).reshape(-1, NUMBERS)
    for index, start_s, end_s, confidence in numbers:
        sure = None if np.isnan(confidence) else float(confidence)
        yield Label(offset_s + float(start_s), offset_s + float(end_s), labels[int(index)], sure)


def _until(end_s: float, labels: Iterable[Label]) -> list[Label]:
    """Labels without what lies beyond the end of a recording."""
    return [
        replace(label, end_s=min(label.end_s, end_s)) for label in labels if label.start_s < end_s
    ]
