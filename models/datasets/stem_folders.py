"""Folders of tracks with their stems, as MUSDB18-HQ and Auralflow have them.

    FOLDER/train/<track>/mixture.wav  vocals.wav  bass.flac …
    FOLDER/val/…   FOLDER/test/…
    FOLDER/train/<track>.stem.mp4

Any format that is decoded here will do. A track without a mixture has the sum of its stems for one.
A `.stem.mp4`, as MUSDB18 has them, is a track in one file: the mixture, and a stream for each stem.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Generic, TypeVar

import numpy as np

from ...audio.decoding.audio_reader import AudioInfo, probe, read_audio, stream_names
from ...audio.decoding.stream_names import MIXTURE
from ...audio.errors import AudioError
from ...audio.extensions import STEM_FILE_EXTENSIONS, is_audio_name
from ...errors import BeamsplitterError

SPLITS = ("train", "val", "valid", "test")
MOST_NAMED = 5


class DatasetError(BeamsplitterError):
    """A folder that is no dataset of stems; the message says what is wrong and what to do."""


class ExcerptError(DatasetError):
    """An excerpt that can't be read; the message names its file.

    A `DataLoader` makes those of its worker processes anew, with the whole traceback for a message:
    only what the error itself said is kept of that.
    """

    exit_code = 1

    def __init__(self, message: str) -> None:
        super().__init__(message.rpartition(f"{type(self).__name__}: ")[2].strip())


File = TypeVar("File")
Other = TypeVar("Other")


@dataclass(frozen=True)
class StemFile:
    """Where a stem or a mixture lies.

    Attributes
    ----------
    path
        of its file, here or elsewhere
    stream
        which of the file's audio streams it is; the first is 0
    """

    path: str
    stream: int = 0


@dataclass(frozen=True)
class StemTrack:
    """The files of a track.

    Attributes
    ----------
    name
        its folder below that of the dataset, or its file without the extension
    stems
        their files, by name
    mixture
        its file; None: the sum of the stems
    """

    name: str
    stems: dict[str, StemFile]
    mixture: StemFile | None = None

    def needed_for(self, targets: Sequence[str]) -> "NeededFiles[StemFile]":
        """The files that excerpts with these targets are made of; each target is there."""
        others = [file for name, file in self.stems.items() if name not in targets]
        return NeededFiles(
            targets=tuple(self.stems[name] for name in targets),
            mixture=self.mixture,
            others=() if self.mixture is not None else tuple(others),
        )


@dataclass(frozen=True)
class NeededFiles(Generic[File]):
    """The files that excerpts of a track are made of.

    Attributes
    ----------
    targets
        one for each
    mixture
        that which the targets are taken out of; None: `others` are added up
    others
        of the stems that are no targets
    """

    targets: tuple[File, ...]
    mixture: File | None
    others: tuple[File, ...]

    @property
    def all(self) -> tuple[File, ...]:
        """Each of them once."""
        return (*self.targets, *(() if self.mixture is None else (self.mixture,)), *self.others)

    def converted(self, convert: Callable[[File], Other]) -> "NeededFiles[Other]":
        """The same of something else for each file."""
        return NeededFiles(
            targets=tuple(map(convert, self.targets)),
            mixture=None if self.mixture is None else convert(self.mixture),
            others=tuple(map(convert, self.others)),
        )

    def rows(self, read: Callable[[File], np.ndarray]) -> np.ndarray:
        """Samples of the targets, and of the rest: together they are the mixture.

        Parameters
        ----------
        read
            gives float32 `(channels, samples)` of a file, the same shape of each

        Returns
        -------
        np.ndarray, shape (targets + 1, channels, samples), float32
        """
        targets = [read(file) for file in self.targets]
        if self.mixture is not None:
            rest = read(self.mixture) - sum(targets)
        else:
            rest = sum((read(file) for file in self.others), np.zeros_like(targets[0]))
        return np.stack([*targets, rest])


def require_distinct(targets: Sequence[str]) -> None:
    """Raise DatasetError unless there is a target, and each is named once."""
    if not targets or len(set(targets)) < len(targets):
        raise DatasetError(
            f"the targets are {', '.join(targets) or 'none'}: name one stem at least, and each once"
        )


def require_targets(tracks: Sequence[StemTrack], targets: Sequence[str]) -> None:
    """Raise DatasetError unless each track has each target."""
    lacking = [track for track in tracks if not {*targets} <= {*track.stems}]
    if lacking:
        told = "; ".join(_what_it_has(track) for track in lacking[:MOST_NAMED])
        more = f"; and {len(lacking) - MOST_NAMED} more" if len(lacking) > MOST_NAMED else ""
        raise DatasetError(
            f"{len(lacking)} of {len(tracks)} tracks lack some of {', '.join(targets)}: "
            f"{told}{more}. Name stems that all tracks have, or take these tracks away"
        )


def _what_it_has(track: StemTrack) -> str:
    return f"{track.name} has {', '.join(sorted(track.stems)) or 'a mixture only'}"


def find_tracks(folder: Path) -> list[StemTrack]:
    """The tracks of a dataset, or of one of its splits, in order of name.

    A track is a folder that holds sound files, or a `.stem.mp4`; hidden ones are passed over.

    Raises
    ------
    DatasetError
        there is no such folder, it holds no track, two have one name, or two files of one do
    """
    if not folder.is_dir():
        raise DatasetError(f"{folder}: is no folder: name the one that the tracks lie in")
    folders = sorted({folder, *(each for each in folder.rglob("*") if each.is_dir())})
    files = (file for each in folders for file in sorted(each.iterdir()) if file.is_file())
    names = [str(file.relative_to(folder)) for file in files]
    return group_tracks(names, str(folder), lambda path: Path(path).open("rb"))


def group_tracks(
    names: Iterable[str], where: str, open_file: Callable[[str], AbstractContextManager[BinaryIO]]
) -> list[StemTrack]:
    """The tracks that files belong to, in order of name; hidden ones are passed over.

    Parameters
    ----------
    names
        paths of files below the dataset, with slashes
    where
        the path of the dataset
    open_file
        opens a file for reading, by its path: of a `.stem.mp4`, the header tells the stems

    Raises
    ------
    DatasetError
        there is no track, two have one name, or two files of one do
    """
    folders: dict[str, dict[str, str]] = {}
    tracks: dict[str, StemTrack] = {}
    for name in filter(is_audio_name, names):
        path = os.path.join(where, name)
        if name.lower().endswith(STEM_FILE_EXTENSIONS):
            track = _track_in_one_file(name, path, open_file)
            _require_other_name(track, tracks, where)
            tracks[track.name] = track
            continue
        folder, file = os.path.split(name)
        stems = folders.setdefault(folder or ".", {})
        stem = os.path.splitext(file)[0]
        if stem in stems:
            raise DatasetError(
                f"{os.path.join(where, folder)}: {os.path.basename(stems[stem])} and {file} are "
                f"both called {stem}: take one away"
            )
        stems[stem] = path
    for folder, stems in folders.items():
        files = {stem: StemFile(path) for stem, path in stems.items()}
        mixture = files.pop(MIXTURE, None)
        track = StemTrack(folder, files, mixture)
        _require_other_name(track, tracks, where)
        tracks[folder] = track
    if not tracks:
        raise DatasetError(
            f"{where}: holds no tracks: a track is a folder with a sound file for each stem, such "
            f"as {SPLITS[0]}/song/vocals.wav, or a file {SPLITS[0]}/song{STEM_FILE_EXTENSIONS[0]}"
        )
    return [tracks[name] for name in sorted(tracks)]


def _track_in_one_file(
    name: str, path: str, open_file: Callable[[str], AbstractContextManager[BinaryIO]]
) -> StemTrack:
    try:
        with open_file(path) as file:
            streams = stream_names(file, name=path)
    except (AudioError, OSError):
        streams = ()  # told by those who read the mixture
    stems = {stream: StemFile(path, number) for number, stream in enumerate(streams) if number}
    return StemTrack(os.path.splitext(os.path.splitext(name)[0])[0], stems, StemFile(path))


def _require_other_name(track: StemTrack, tracks: dict[str, StemTrack], where: str) -> None:
    if track.name in tracks:
        raise DatasetError(
            f"{where}: two tracks are called {track.name}, of which a {STEM_FILE_EXTENSIONS[0]} is "
            "one: take one away"
        )


def probe_file(file: StemFile) -> AudioInfo:
    """What a stem is; AudioError if it can't be decoded."""
    with open(file.path, "rb") as opened:
        return probe(opened, name=file.path, stream=file.stream)


def blocks_of(
    files: Sequence[StemFile], infos: Sequence[AudioInfo], block_samples: int
) -> Iterator[list[np.ndarray]]:
    """Blocks of files side by side, up to the end of the shortest.

    Yields
    ------
    A list of float32 `(channels, samples)`, one a file
    """
    total = min(info.frames for info in infos)
    for start in range(0, total, block_samples):
        frames = min(block_samples, total - start)
        blocks = []
        for file, info in zip(files, infos, strict=True):
            with open(file.path, "rb") as opened:
                options = {"start_sample": start, "frames": frames}
                blocks.append(read_audio(opened, name=file.path, info=info, **options))
        yield blocks
