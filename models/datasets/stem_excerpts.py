"""Excerpts of folders of tracks: read when they are asked for, and no more than is asked for."""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...audio.channels import as_many, can_become
from ...audio.decoding.audio_reader import AudioInfo, read_audio
from ...audio.errors import AudioError
from ...audio.resampling import resampled_range, rounded_length
from .excerpts import Excerpt, ExcerptGrid, TrackLength
from .stem_folders import (
    DatasetError,
    ExcerptError,
    NeededFiles,
    StemFile,
    find_tracks,
    probe_file,
    require_distinct,
    require_targets,
)

PROBING_THREADS = 8


@dataclass(frozen=True)
class ProbedFile:
    """A file whose header was read."""

    path: str
    info: AudioInfo


class FolderSource:
    """Excerpts of the tracks of a folder.

    Files are opened for each excerpt anew: that costs 0.4 ms of the 4 ms that three seconds of
    stereo flac take, and lets processes that load be forked.

    Parameters
    ----------
    folder
        of the tracks of one split; see `stem_folders`
    targets
        the stems that are to be learnt
    sample_rate
        Hz; files with another one are resampled
    channels
        1: the mean of a file's channels; more: as the file has, or copies of its only one

    Raises
    ------
    DatasetError
        there are no tracks, one lacks a target, or has a file that can't be decoded, or with
        channels that can't become those wanted
    """

    def __init__(
        self, folder: Path, *, targets: Sequence[str], sample_rate: int, channels: int
    ) -> None:
        self.targets = tuple(targets)
        self.sample_rate = sample_rate
        self.channels = channels
        require_distinct(self.targets)
        found = find_tracks(folder)
        require_targets(found, self.targets)
        with ThreadPoolExecutor(PROBING_THREADS) as threads:
            needed = threads.map(self._probed, (each.needed_for(self.targets) for each in found))
            self._needed = {track.name: files for track, files in zip(found, needed, strict=True)}
        self.tracks = tuple(
            TrackLength(name, self._length_of(files), sample_rate)
            for name, files in self._needed.items()
        )

    def _length_of(self, files: NeededFiles[ProbedFile]) -> int:
        return shared_length((file.info for file in files.all), self.sample_rate)

    def _probed(self, files: NeededFiles[StemFile]) -> NeededFiles[ProbedFile]:
        return files.converted(self._probed_file)

    def _probed_file(self, file: StemFile) -> ProbedFile:
        try:
            info = probe_file(file)
        except (AudioError, OSError) as error:
            raise DatasetError(f"{error}; `beamsplitter dataset check` finds all such") from error
        require_channels(info, self.channels, file.path)
        return ProbedFile(file.path, info)

    def grid(self, *, excerpt_s: float, hop_s: float | None = None) -> ExcerptGrid:
        """All excerpts that begin a hop apart; by default one begins where another ends.

        Parameters
        ----------
        excerpt_s, hop_s
            seconds

        Raises
        ------
        DatasetError
            no track is as long as an excerpt, or lengths are not above 0
        """
        try:
            return ExcerptGrid(self.tracks, excerpt_s=excerpt_s, hop_s=hop_s)
        except ValueError as error:
            raise DatasetError(str(error)) from error

    def read(self, excerpt: Excerpt) -> np.ndarray:
        """The targets of an excerpt, and the rest, which together are the mixture.

        The rest is what the targets leave of the file `mixture`; where there is none, the sum of
        the other stems.

        Returns
        -------
        np.ndarray, shape (targets + 1, channels, samples), float32

        Raises
        ------
        ExcerptError
            a file can't be read (any more)
        """

        def read_stem(file: ProbedFile) -> np.ndarray:
            return self._read_stem(file, excerpt.start_sample, excerpt.samples)

        return self._needed[excerpt.track].rows(read_stem)

    def _read_stem(self, file: ProbedFile, start_sample: int, samples: int) -> np.ndarray:
        try:
            with open(file.path, "rb") as opened:

                def read(start: int, stop: int) -> np.ndarray:
                    options = {"start_sample": start, "frames": stop - start}
                    block = read_audio(opened, name=file.path, info=file.info, **options)
                    return as_many(block, self.channels)

                return resampled_range(
                    read,
                    samples=file.info.frames,
                    sample_rate=file.info.sample_rate,
                    rate=self.sample_rate,
                    start_sample=start_sample,
                    stop_sample=start_sample + samples,
                )
        except (AudioError, OSError) as error:
            raise ExcerptError(str(error)) from error


def shared_length(infos: Iterable[AudioInfo], sample_rate: int) -> int:
    """Samples at a rate that all files of a track have."""
    return min(rounded_length(info.frames, info.sample_rate, sample_rate) for info in infos)


def require_channels(info: AudioInfo, channels: int, name: str) -> None:
    """Raise DatasetError unless a file's channels can become those wanted."""
    if not can_become(info.channels, channels):
        raise DatasetError(
            f"{name}: has {info.channels} channels, of which {channels} can't be made: train with "
            f"1 channel or {info.channels}, or convert the file"
        )
