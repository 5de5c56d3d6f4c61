"""Folders of tracks with their stems, as MUSDB18-HQ and Auralflow have them.

    FOLDER/train/<track>/mixture.wav  vocals.wav  bass.flac …
    FOLDER/val/…   FOLDER/test/…

Any format that is decoded here will do. A track without a mixture has the sum of its stems for one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...audio.decoding.audio_reader import AudioInfo, probe, read_audio
from ...audio.extensions import has_audio_extension
from ...errors import BeamsplitterError

MIXTURE = "mixture"
SPLITS = ("train", "val", "valid", "test")


class DatasetError(BeamsplitterError):
    """A folder that is no dataset of stems; the message says what is wrong and what to do."""


@dataclass(frozen=True)
class StemTrack:
    """The files of a track.

    Attributes
    ----------
    name
        its folder, below that of the dataset
    stems
        their files, by name
    mixture
        its file; None: the sum of the stems
    """

    name: str
    stems: dict[str, Path]
    mixture: Path | None = None


def find_tracks(folder: Path) -> list[StemTrack]:
    """The tracks of a dataset, or of one of its splits, in order of name.

    A track is a folder that holds sound files; hidden ones are passed over.

    Raises
    ------
    DatasetError
        there is no such folder, it holds no track, or two files of a track have one name
    """
    if not folder.is_dir():
        raise DatasetError(f"{folder}: is no folder: name the one that the tracks lie in")
    tracks = []
    for path in sorted({folder, *(each for each in folder.rglob("*") if each.is_dir())}):
        if any(part.startswith(".") for part in path.relative_to(folder).parts):
            continue
        files = _sound_files(path)
        if files:
            mixture = files.pop(MIXTURE, None)
            tracks.append(StemTrack(str(path.relative_to(folder)), files, mixture))
    if not tracks:
        raise DatasetError(
            f"{folder}: holds no tracks: a track is a folder with a sound file for each stem, such "
            f"as {SPLITS[0]}/song/vocals.wav"
        )
    return tracks


def _sound_files(folder: Path) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or not path.is_file() or not has_audio_extension(path.name):
            continue
        if path.stem in files:
            raise DatasetError(
                f"{folder}: {files[path.stem].name} and {path.name} are both called "
                f"{path.stem}: take one away"
            )
        files[path.stem] = path
    return files


def probe_file(path: Path) -> AudioInfo:
    """What a file is; AudioError if it can't be decoded."""
    with path.open("rb") as file:
        return probe(file, name=str(path))


def blocks_of(
    paths: Sequence[Path], infos: Sequence[AudioInfo], block_samples: int
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
        for path, info in zip(paths, infos, strict=True):
            with path.open("rb") as file:
                name = str(path)
                blocks.append(
                    read_audio(file, name=name, start_sample=start, frames=frames, info=info)
                )
        yield blocks
