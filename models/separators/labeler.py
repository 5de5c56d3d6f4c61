"""A model package that gives labels, on this machine and of arrays."""

from collections.abc import Mapping

import numpy as np

from .base import Label
from .by_name import SeparatorName, load
from .labelling import labels_of
from .plain_runner import DeviceOptions
from .server import runner_of


class Labeler:
    """Annotates recordings that are in memory.

    Parameters
    ----------
    package
        its folder or address
    options
        those of the package: see `model_package.PackageOptions`
    device
        where its model runs

    Raises
    ------
    ModelError
        no such package, its model can't be loaded, or the device is not there
    ValueError
        an option is wrong
    """

    def __init__(
        self, package: str, options: Mapping[str, object] | None = None, *, device: str = "cpu"
    ) -> None:
        members = load((SeparatorName.of(package, options or {}),))
        self.model = members[0].separator
        self.run = runner_of(members, DeviceOptions(device))

    def labels_of(self, samples: np.ndarray) -> list[Label]:
        """The labels of float32 `(channels, samples)` at the model's rate: see `labelling`."""
        return labels_of(samples, self.model, self.run)
