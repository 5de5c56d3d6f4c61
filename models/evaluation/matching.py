"""Which estimates are of which track: trees of this tool, of demucs, spleeter, open-unmix, others.

All of them have a folder a track, with a sound file a stem, at some depth:

    OUT/<track>/vocals.flac             this tool, spleeter, open-unmix
    OUT/<track>/mixture/vocals.flac     this tool, of a dataset's mixtures
    OUT/<model>/<track>/vocals.wav      demucs
"""

import itertools
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from ...audio.decoding.stream_names import MIXTURE
from ..datasets.shards import ShardIndex
from ..datasets.stem_folders import MOST_NAMED, DatasetError, StemFile, StemTrack

RESIDUAL = "residual"
WITHOUT = "no_"
# What tools call all but the vocals.
ACCOMPANIMENTS = ("accompaniment", "instrumental")


@dataclass(frozen=True)
class Reference:
    """A true stem: the sum of its files.

    Where the dataset is one of shards, a file is a track's tar, and its `stream` the row in it.
    """

    files: tuple[StemFile, ...]


@dataclass(frozen=True)
class EvaluationTrack:
    """A track that is to be scored, as one system has separated it.

    Attributes
    ----------
    system
        what is scored: a name for the folder of estimates, or of the separator
    name
        of the track
    references
        the true stems by name, all of them; together they are the mixture
    mixture
        its file; None: the sum of the references
    estimates
        files by the names of their references; empty: the separator makes them
    """

    system: str
    name: str
    references: dict[str, Reference]
    mixture: StemFile | None
    estimates: dict[str, StemFile]

    @property
    def element(self) -> str:
        """What dead letters call it."""
        return f"{self.system}/{self.name}"


@dataclass(frozen=True)
class Matched:
    """What was found to score.

    Attributes
    ----------
    system
        what is scored
    tracks
        in order of name
    missing
        names of tracks that have no estimates
    unknown
        folders of estimates that no track goes with
    ignored
        names of estimated stems that have no reference
    """

    system: str
    tracks: tuple[EvaluationTrack, ...]
    missing: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()


def references_for(stems: Mapping[str, StemFile], estimated: Iterable[str]) -> dict[str, Reference]:
    """The references of estimated stems, and one of what is left, so that all is the mixture.

    `no_X`, as demucs calls it, is all but X; `accompaniment` and `instrumental` are `no_vocals`; a
    `residual` is all that no other estimate is of. What has no reference is left out.

    Parameters
    ----------
    stems
        true stems of a track
    estimated
        names of estimates
    """
    names = sorted(set(estimated))
    made = {name: Reference((stems[name],)) for name in names if name in stems}
    for name in names:
        left = WITHOUT + "vocals" if name in ACCOMPANIMENTS else name
        but = left.removeprefix(WITHOUT)
        if name not in made and left.startswith(WITHOUT) and but in stems and len(stems) > 1:
            made[name] = Reference(tuple(file for stem, file in stems.items() if stem != but))
    covered = {file for reference in made.values() for file in reference.files}
    rest = tuple(file for file in stems.values() if file not in covered)
    if made and rest:
        made[RESIDUAL] = Reference(rest)
    return made


def match(
    system: str,
    tracks: Sequence[StemTrack],
    estimates: Sequence[StemTrack],
    *,
    names: Mapping[str, str] | None = None,
) -> Matched:
    """Find the estimates of each track.

    Parameters
    ----------
    system
        the name of what made the estimates
    tracks
        of a dataset
    estimates
        folders of sound files, as `stem_folders.group_tracks` finds them
    names
        of stems and of tracks, for tools that call them otherwise: theirs to those of the dataset

    Raises
    ------
    DatasetError
        two folders are of one track, or a folder may be of several
    """
    names = names or {}
    by_track = _folders_by_track(tracks, estimates, names)
    scored, ignored = [], set()
    for track in tracks:
        if track.name not in by_track:
            continue
        files = {names.get(stem, stem): each for stem, each in by_track[track.name].stems.items()}
        references = references_for(track.stems, files)
        known = {stem: file for stem, file in files.items() if stem in references}
        ignored |= {*files} - {*known}
        scored.append(EvaluationTrack(system, track.name, references, track.mixture, known))
    taken = {each.name for each in by_track.values()}
    return Matched(
        system,
        tracks=tuple(each for each in scored if each.estimates),
        missing=tuple(
            sorted({each.name for each in tracks} - {e.name for e in scored if e.estimates})
        ),
        unknown=tuple(each.name for each in estimates if each.name not in taken),
        ignored=tuple(sorted(ignored)),
    )


def separated_tracks(
    system: str,
    tracks: Sequence[StemTrack],
    stems: Sequence[str],
    *,
    names: Mapping[str, str] | None = None,
) -> Matched:
    """The tracks that a separator is to make estimates of.

    Parameters
    ----------
    system
        what the separator is called
    tracks
        of a dataset
    stems
        that it gives
    names
        of stems, for separators that call them otherwise: theirs to those of the dataset
    """
    names = names or {}
    stems = [names.get(stem, stem) for stem in stems]
    found, ignored = [], set()
    for track in tracks:
        references = references_for(track.stems, stems)
        ignored |= {*stems} - {*references}
        if {*stems} & {*references}:
            found.append(EvaluationTrack(system, track.name, references, track.mixture, {}))
    missing = {track.name for track in tracks} - {track.name for track in found}
    return Matched(
        system, tuple(found), missing=tuple(sorted(missing)), ignored=tuple(sorted(ignored))
    )


def shard_tracks(location: str, index: ShardIndex) -> list[StemTrack]:
    """The tracks of shards that hold anything, as `Reference` has their files.

    Parameters
    ----------
    location
        the folder of the shards
    """
    return [
        StemTrack(
            record.name,
            {
                stem: StemFile(f"{location}/{record.file}", row)
                for row, stem in enumerate(index.settings.rows)
            },
        )
        for record in index.records
        if record.file
    ]


def _folders_by_track(
    tracks: Sequence[StemTrack], estimates: Sequence[StemTrack], names: Mapping[str, str]
) -> dict[str, StemTrack]:
    by_last: dict[str, list[str]] = defaultdict(list)
    for track in tracks:
        by_last[PurePosixPath(track.name).name].append(track.name)
    found: dict[str, StemTrack] = {}
    for folder in estimates:
        path = _path_of_track(folder.name, names)
        fitting = _best(path, by_last[path.name])
        if len(fitting) > 1:
            raise DatasetError(
                f"{folder.name}: may be of {', '.join(fitting[:MOST_NAMED])}: give the references "
                "of one split, or names of the tracks"
            )
        for name in fitting:
            if name in found:
                raise DatasetError(
                    f"{found[name].name} and {folder.name} are both of {name}: name the folder "
                    "that holds the estimates of one model"
                )
            found[name] = folder
    return found


def _path_of_track(folder: str, names: Mapping[str, str]) -> PurePosixPath:
    """A folder of estimates as its track is called."""
    folder = names.get(folder, folder)
    path = PurePosixPath(folder)
    if path.name == MIXTURE and len(path.parts) > 1:
        path = path.parent
    base = names.get(path.name, path.name)
    return path.parent / os.path.splitext(base)[0] if base.endswith(".stem") else path.parent / base


def _best(path: PurePosixPath, candidates: Sequence[str]) -> list[str]:
    """Those that share most of the end of a path."""

    def shared(name: str) -> int:
        pairs = zip(reversed(path.parts), reversed(PurePosixPath(name).parts), strict=False)
        return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))

    most = max(map(shared, candidates), default=0)
    return [name for name in candidates if shared(name) == most]
