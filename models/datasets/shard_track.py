"""The signals of one track out of its shard: what was cut, put together again."""

import bisect
import functools
import tarfile
from collections.abc import Callable

import numpy as np

from .shards import ShardRecord, ShardSettings, rows_of
from .stem_folders import ExcerptError

# Those of the range that all signals of a track are read of before the next.
KEPT_EXCERPTS = 32


class ShardTrack:
    """A track as `beamsplitter prepare` has cut it.

    It ends with its last excerpt. Where no excerpt was kept it is silent: `prepare` leaves out
    those whose mixture is.

    Parameters
    ----------
    settings, record
        of the index
    read_bytes
        `read_bytes(start, stop)` gives bytes of the tar
    name
        of the tar in messages

    Attributes
    ----------
    sample_rate, channels
        of the signals
    frames
        their samples
    """

    def __init__(
        self,
        settings: ShardSettings,
        record: ShardRecord,
        read_bytes: Callable[[int, int], bytes],
        *,
        name: str,
    ) -> None:
        self.sample_rate = settings.sample_rate
        self.channels = settings.channels
        self._starts = record.starts
        self._excerpt_samples = round(settings.excerpt_s * settings.sample_rate)
        self.frames = record.starts[-1] + self._excerpt_samples if record.starts else 0
        self._record = record
        self._read_bytes = read_bytes
        self._name = name
        self._rows = functools.lru_cache(KEPT_EXCERPTS)(self._excerpt)

    def read(self, row: int, start_sample: int, stop_sample: int) -> np.ndarray:
        """A range of one of its signals, float32 `(channels, samples)`.

        Parameters
        ----------
        row
            0: the first target …; the last is the rest of the mixture

        Raises
        ------
        ExcerptError
            the shard can't be read
        """
        samples = np.zeros((self.channels, stop_sample - start_sample), np.float32)
        first = max(0, bisect.bisect_right(self._starts, start_sample) - 1)
        for begin in self._starts[first : bisect.bisect_left(self._starts, stop_sample)]:
            start = max(start_sample, begin)
            stop = min(stop_sample, begin + self._excerpt_samples)
            if start < stop:
                found = self._rows(begin)[row, :, start - begin : stop - begin]
                samples[:, start - start_sample : stop - start_sample] = found
        return samples

    def _excerpt(self, start_sample: int) -> np.ndarray:
        try:
            data = self._read_bytes(*self._record.bytes_of(start_sample))
            return rows_of(data, name=self._name)
        except (tarfile.TarError, ValueError, KeyError) as error:
            raise ExcerptError(
                f"{self._name}: can't be read: {error}: run `beamsplitter prepare` again"
            ) from error
