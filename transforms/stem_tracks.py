"""The tracks of a dataset, here or elsewhere. No Beam: launchers list them, too."""

from pathlib import Path

from ..models.datasets.stem_folders import StemTrack, find_tracks, group_tracks
from ..storage import Storage, scheme_of


def list_stem_tracks(location: str, storage: Storage) -> list[StemTrack]:
    """The tracks below a folder, here or elsewhere, in order of name.

    Raises
    ------
    DatasetError
        there is no such folder, it holds no tracks, two have one name, or two files of one do
    StorageError
        it can't be listed
    """
    if scheme_of(location):
        return group_tracks(storage.list_names(location), location, storage.reading)
    return find_tracks(Path(location))
