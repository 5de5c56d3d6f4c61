"""The true stems that those of a recording are held against. No Beam: launchers ask, too."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ..audio.extensions import STEM_FILE_EXTENSIONS
from ..models.datasets.stem_folders import DatasetError, StemFile, StemTrack, group_tracks
from ..models.evaluation.matching import Reference, references_for
from ..storage import Storage
from .settings import SplitSettings
from .stem_tracks import list_stem_tracks

PATTERN_OF_MIXTURES = "'DATASET/**/mixture.*'"


@dataclass(frozen=True)
class TrueStems:
    """The references of a recording's stems.

    Attributes
    ----------
    references
        by name, all of them; together they are the mixture
    names
        of those of the job's stems that have one, by what the job's settings call the stem
    """

    references: Mapping[str, Reference]
    names: Mapping[str, str]

    @property
    def files(self) -> list[StemFile]:
        """All files of the references, each once."""
        found = (file for each in self.references.values() for file in each.files)
        return list(dict.fromkeys(found))

    def digest(self, storage: Storage) -> str:
        """A digest of which files they are, and of their content as storage tells it."""
        told = [
            [name, file.path, file.stream, storage.stat(file.path).generation]
            for name, reference in self.references.items()
            for file in reference.files
        ]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]


def find_true_stems(uri: str, folder: str, settings: SplitSettings, storage: Storage) -> TrueStems:
    """The references of a recording's stems.

    Parameters
    ----------
    uri
        of the recording
    folder
        of its results in the output tree

    Raises
    ------
    DatasetError
        there are none, or none of a stem that the job writes
    StorageError
        they can't be listed
    """
    where = settings.scores.location_of(uri, folder)
    track = _track_at(where, uri, storage)
    wanted = _called(settings.wanted_stems, settings)
    references = references_for(track.stems, wanted.values())
    names = {stem: name for stem, name in wanted.items() if name in references}
    if not names:
        raise DatasetError(
            f"{where}: holds no true stem of {', '.join(wanted.values())}: it has "
            f"{', '.join(track.stems) or 'none at all'}. Correct scores.references, or say by "
            "scores.names what the stems are called there"
        )
    return TrueStems(references, names)


def _called(stems: Sequence[str], settings: SplitSettings) -> dict[str, str]:
    """What stems are called where their references lie."""
    written = {stem: settings.stems.name_of(stem) for stem in stems}
    return {stem: settings.scores.names.get(name, name) for stem, name in written.items()}


def _track_at(where: str, uri: str, storage: Storage) -> StemTrack:
    """The stems in a folder or a file; the recording itself is none."""
    if where.lower().endswith(STEM_FILE_EXTENSIONS):
        storage.stat(where)
        folder, name = os.path.split(where)
        (track,) = group_tracks([name], folder, storage.reading)
        return track
    try:
        tracks = {each.name: each for each in list_stem_tracks(where, storage)}
    except DatasetError as error:
        raise DatasetError(f"scores.references: {error}") from error
    if "." not in tracks:
        raise DatasetError(
            f"{where}: holds no true stems itself, only folders that do: correct scores.references"
        )
    track = tracks["."]
    stems = {name: file for name, file in track.stems.items() if file.path != uri}
    if track.mixture is not None and track.mixture.path != uri and len(stems) < len(track.stems):
        raise DatasetError(
            f"{uri}: is a true stem itself, of the mixture beside it: take mixtures alone for "
            f"recordings, such as {PATTERN_OF_MIXTURES}"
        )
    return replace(track, stems=stems)
