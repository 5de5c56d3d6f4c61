"""Excerpts of a feature set on disk, or on `gs://`."""

import errno
import hashlib
from typing import TYPE_CHECKING

import numpy as np

from ...audio.features.settings import feature_settings
from ...errors import BeamsplitterError
from ...storage import StorageError
from ..feature_sets.index import INDEX, FeatureSet, open_feature_set
from .errors import ClassifierError
from .excerpts import Excerpt

if TYPE_CHECKING:
    from ..feature_sets.torch_dataset import FeatureDataset


class FeatureSetSource:
    """The excerpts of a feature set, with one feature of one signal: see `ExcerptSource`.

    Parameters
    ----------
    features
        what `open_feature_set` gives
    set_name
        of the set of features; None: there is one
    signal
        "mixture", or a stem; None: there is one, or the mixture

    Raises
    ------
    ClassifierError
        there is no such set or signal, or several to choose from, or its index is not whole
    StorageError
        it can't be read
    """

    def __init__(
        self, features: FeatureSet, *, set_name: str | None = None, signal: str | None = None
    ) -> None:
        index = features.index
        self.name = features.location
        if signal is None and "mixture" in index.signals:
            signal = "mixture"
        self.signal = _chosen(signal, index.signals, "--signal", self.name)
        chosen = _chosen(set_name, tuple(index.sets), "--set", self.name)
        self._array = f"{chosen}/{self.signal}"
        self._features = features
        self._dataset: FeatureDataset | None = None
        self.digest = hashlib.sha256(index.to_json()).hexdigest()
        try:
            self.settings = feature_settings(index.sets[chosen])
            self.excerpts = [
                Excerpt(
                    recording=entry.facts["folder"],
                    element=entry.facts["element"],
                    start_s=float(entry.facts["start_s"]),
                    duration_s=float(entry.facts["duration_s"]),
                )
                for entry in features.entries()
            ]
        except (ValueError, TypeError, LookupError) as error:
            raise ClassifierError(
                f"{self.name}: is no feature set of recordings ({error}): make the set again"
            ) from error

    def frames(self, index: int) -> np.ndarray:
        """Those of an excerpt: `(frames, bins)`, or `(frames, channels, bins)`.

        Raises
        ------
        ClassifierError
            they can't be read
        """
        from ..feature_sets.torch_dataset import FeatureDataset

        if self._dataset is None:
            self._dataset = FeatureDataset(self._features, arrays=[self._array])
        try:
            frames: np.ndarray = self._dataset[index][self._array].numpy()
        except BeamsplitterError as error:
            raise ClassifierError(str(error)) from error
        return frames


def open_source(
    location: str, *, set_name: str | None = None, signal: str | None = None
) -> FeatureSetSource:
    """The excerpts of a feature set by its folder; arguments and errors as of the class."""
    try:
        features = open_feature_set(location)
    except StorageError as error:
        if error.errno != errno.ENOENT:
            raise
        raise ClassifierError(
            f"{location}: is no feature set, which has {INDEX}: `beamsplitter spectrograms … "
            "--shards webdataset` makes one"
        ) from error
    return FeatureSetSource(features, set_name=set_name, signal=signal)


def _chosen(wanted: str | None, names: tuple[str, ...], flag: str, location: str) -> str:
    if wanted in names:
        return str(wanted)
    told = ", ".join(names)
    if wanted is not None:
        raise ClassifierError(f"{flag} {wanted}: {location} has {told}")
    if len(names) != 1:
        raise ClassifierError(f"{location}: has {told or 'nothing'}: choose one by {flag}")
    return names[0]
