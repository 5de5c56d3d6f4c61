"""From a part of a recording to its labels."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ...audio.resampling import resampled_range, rounded_length
from .base import Label
from .model_package import Labeler, until


def label_part(
    read: Callable[[int, int], np.ndarray],
    sample_rate: int,
    labeler: Labeler,
    *,
    total_samples: int,
    core: tuple[int, int],
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
    total_samples
        length of the recording
    core
        first sample of the part's core, and the one after its last, in the recording

    Returns
    -------
    Labels in seconds from the recording's start, none of which reaches beyond its end

    Raises
    ------
    ModelError
        the model fails, or gives what can't be labels
    """
    rate, block = labeler.sample_rate, labeler.block_samples
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
        for label in labeler.labels_of(mixture)
    ]
    return until(end_s, found)
