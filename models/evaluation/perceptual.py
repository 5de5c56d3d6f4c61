"""How speech sounds to listeners, by models of them: PESQ and STOI, of packages of these names.

Both were made for utterances of some seconds, so a track is scored in segments of about 10 s, and
has the mean of theirs. Frames of a second have no score. Higher is better.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from ...audio.resampling import resampled
from .errors import EvaluationError
from .framing import FloatArray

SEGMENT_S = 10
WIDE_BAND_RATE = 16000


def pesq_of(estimate: FloatArray, reference: FloatArray, sample_rate: int) -> float:
    """Perceptual evaluation of speech quality, wide band at 16 kHz: MOS-LQO of 1.0 to 4.6.

    ITU-T P.862.2. Signals of other rates are resampled.

    Parameters
    ----------
    estimate, reference
        float `(samples,)`
    sample_rate : Hz

    Returns
    -------
    nan where no speech is found in one of them, or there is less than a quarter of a second
    """
    from pesq import BufferTooShortError, NoUtterancesError, pesq

    if sample_rate != WIDE_BAND_RATE:
        estimate, reference = (
            np.concatenate(
                list(resampled([each[np.newaxis].astype(np.float32)], sample_rate, WIDE_BAND_RATE)),
                axis=1,
            )[0]
            for each in (estimate, reference)
        )
    try:
        return float(pesq(WIDE_BAND_RATE, reference, estimate, "wb"))
    except (BufferTooShortError, NoUtterancesError, ValueError):
        # ValueError where its model comes to nan, of an estimate in which nothing can be heard.
        return float("nan")


def stoi_of(estimate: FloatArray, reference: FloatArray, sample_rate: int) -> float:
    """Short-time objective intelligibility, of at most 1.

    Taal, Hendriks, Heusdens and Jensen, "An algorithm for intelligibility prediction of
    time-frequency weighted noisy speech", IEEE TASLP 19(7), 2011.

    Parameters
    ----------
    estimate, reference
        float `(samples,)`
    sample_rate : Hz

    Returns
    -------
    nan where, but for pauses, there is less than half a second
    """
    from pystoi import stoi

    with warnings.catch_warnings():
        warnings.filterwarnings("error", "Not enough STFT frames", RuntimeWarning)
        try:
            return float(stoi(reference, estimate, sample_rate))
        except RuntimeWarning:
            return float("nan")


# The package that each needs.
PACKAGES = {"pesq": "pesq", "stoi": "pystoi"}
SCORES: dict[str, Callable[[FloatArray, FloatArray, int], float]] = {
    "pesq": pesq_of,
    "stoi": stoi_of,
}


def require_installed(measures: Iterable[str]) -> None:
    """Make sure that the packages are there which some of these measures need.

    Raises
    ------
    EvaluationError
        one is not
    """
    for measure in measures:
        package = PACKAGES.get(measure)
        if package and importlib.util.find_spec(package) is None:
            raise EvaluationError(
                f"the measure {measure} needs {package}, which is not installed: pip install "
                "'beamsplitter[perceptual]'"
            )


class PerceptualScore:
    """Takes a track block by block, and scores each segment once it is there.

    Parameters
    ----------
    measure
        `pesq` or `stoi`
    pairs
        of a reference and an estimate each: their indices among the signals
    sample_rate : Hz
    samples
        of the track
    """

    def __init__(
        self, measure: str, pairs: Sequence[tuple[int, int]], *, sample_rate: int, samples: int
    ) -> None:
        self._score = SCORES[measure]
        self._pairs = pairs
        self._sample_rate = sample_rate
        # Of nearly one length, so that the last is not too short for a score.
        count = max(1, round(samples / (SEGMENT_S * sample_rate)))
        edges = [index * samples // count for index in range(count + 1)]
        self._lengths = list(np.diff(edges))
        self._waiting: FloatArray | None = None
        self._scores: list[list[float]] = []

    def add(self, signals: FloatArray) -> None:
        """Take the next block: float64 `(signals, channels, samples)`."""
        if self._waiting is not None:
            signals = np.concatenate([self._waiting, signals], axis=-1)
        while self._lengths and signals.shape[-1] >= self._lengths[0]:
            length = self._lengths.pop(0)
            segment, signals = signals[..., :length], signals[..., length:]
            self._scores.append(
                [
                    self._of_pair(segment[reference], segment[estimate])
                    for reference, estimate in self._pairs
                ]
            )
        self._waiting = signals

    def finished(self) -> FloatArray:
        """`(pairs,)`: the means over the segments that have a score; nan where none has."""
        scores = np.array(self._scores)
        defined = np.isfinite(scores)
        count = defined.sum(axis=0)
        total = np.where(defined, scores, 0).sum(axis=0)
        return np.where(count > 0, total / np.maximum(count, 1), np.nan)

    def _of_pair(self, reference: FloatArray, estimate: FloatArray) -> float:
        """The mean over the channels in which the reference sounds, as that of `si_sdr`."""
        sounding = np.flatnonzero(reference.any(axis=-1))
        if not len(sounding) or not estimate[sounding].any(axis=-1).all():
            return float("nan")
        return float(
            np.mean([self._score(estimate[i], reference[i], self._sample_rate) for i in sounding])
        )
