"""From the name of a separator in a job file to what it is, and to its models."""

import difflib
import functools
import importlib
import importlib.util
import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from .base import (
    Description,
    Member,
    ModelError,
    Separator,
    TorchSeparator,
    UnknownNameError,
    alone,
)

if TYPE_CHECKING:
    from ..model_cache import Progress
    from ..model_registry import ModelEntry

# The module of a kind offers `describe(name, options)` and `load(name, options)`; importing it is
# cheap, so that reading a job file is.
KINDS = {
    "nn-filter": "recipes",
    "hpss": "harmonic_percussive",
    "none": "nothing",
    "demucs": "demucs",
    "umx": "open_unmix",
}
PACKAGES = "model_package"
# What loads a kind, where that is not what describes it: compiled kernels take a while to load.
LOADERS = {"recipes": "nearest_neighbors"}
# Kinds that need more of Python than this package itself: its extra, and the modules of that.
EXTRAS = {
    "demucs": ("demucs", ("torch", "demucs", "safetensors")),
    "umx": ("models", ("torch",)),
    PACKAGES: ("models", ("torch", "safetensors")),
}
PYTHON_CLASS = re.compile(r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")


@dataclass(frozen=True)
class SeparatorName:
    """One separator of a job: its name, its options as JSON, and its say in an ensemble.

    Parameters
    ----------
    options_json
        the options, as JSON with sorted keys
    weight
        of all its stems
    """

    name: str
    options_json: str = "{}"
    weight: float = 1.0

    @classmethod
    def of(cls, name: str, options: Mapping[str, Any], weight: float = 1.0) -> "SeparatorName":
        """A separator with options as plain values."""
        return cls(name, json.dumps(dict(options), sort_keys=True), weight)

    @property
    def options(self) -> dict[str, Any]:
        """The separator's own options."""
        return dict(json.loads(self.options_json))


@functools.cache
def describe(separators: tuple[SeparatorName, ...]) -> Description:
    """What is known of a separator, or of an ensemble of several, before it is loaded.

    Raises
    ------
    ModelError
        there is none of this name, or its files can't be had
    ValueError
        an option does not fit it
    """
    found = [_kind(each.name).describe(each) for each in separators]
    if len(found) == 1:
        return found[0]
    for each, description in zip(separators, found, strict=True):
        if description.effect != "stems":
            raise ModelError(f"{each.name}: gives labels, which can't be part of an ensemble")
    digests = [description.sha256 for description in found]
    resolved = [
        [each.name, description.resolved_options, each.weight]
        for each, description in zip(separators, found, strict=True)
    ]
    return Description(
        stems=tuple(dict.fromkeys(stem for each in found for stem in each.stems)),
        sample_rates=tuple(dict.fromkeys(rate for each in found for rate in each.sample_rates)),
        context_s=max(each.context_s for each in found),
        minimum_s=max(each.minimum_s for each in found),
        sums_to_mixture=_sum_to_mixture(found),
        normalizes=any(each.normalizes for each in found),
        uses_device=any(each.uses_device for each in found),
        sha256="+".join(filter(None, digests)) or None,
        resolved_options=json.dumps(resolved),
    )


def _sum_to_mixture(members: list[Description]) -> bool:
    """Whether the stems of an ensemble leave nothing.

    Means of the same stems sum to the mixture where those of each member do. Where members split it
    into other stems, those of one that sum to the mixture leave nothing for a residual.
    """
    sums = [each.sums_to_mixture for each in members]
    same = len({frozenset(each.stems) for each in members}) == 1
    return all(sums) if same else any(sums)


def load(separators: tuple[SeparatorName, ...]) -> tuple[Member, ...]:
    """Load the models of a separator, or of an ensemble.

    Raises
    ------
    ModelError
        the model can't be found or loaded
    """
    return tuple(
        Member(
            member.separator,
            {stem: each.weight * weight for stem, weight in member.weights.items()},
        )
        for each in separators
        for member in _kind(each.name).load(each)
    )


def is_package(name: str) -> bool:
    """Whether a separator is a model package."""
    return name.partition(":")[0] not in KINDS and not PYTHON_CLASS.match(name)


def is_elsewhere(name: str) -> bool:
    """Whether the files that say what a separator gives have to be fetched: of some packages."""
    if not is_package(name) or os.path.exists(name):
        return False
    return "://" in name or _entry_of(name) is not None


def fetch(
    separators: tuple[SeparatorName, ...], on_progress: "Progress | None" = None
) -> tuple[SeparatorName, ...]:
    """Fetch the files of separators into the cache of this machine.

    Parameters
    ----------
    on_progress
        is told of downloads

    Returns
    -------
    The same separators, packages by the folders of their files: a process that knows fewer schemes
    of addresses can load them

    Raises
    ------
    ModelError
        files can't be had
    """
    return tuple(replace(each, name=_fetched(each.name, on_progress)) for each in separators)


def missing(separators: tuple[SeparatorName, ...]) -> list[str]:
    """Those known by a registry whose files are not in the cache of this machine."""
    entries = [entry for each in separators if (entry := _entry_of(each.name))]
    if not entries:
        return []
    from ..model_cache import ModelCache

    return [entry.name for entry in entries if not ModelCache().has(entry)]


def require_installed(name: str) -> None:
    """Refuse a separator that needs an extra of this package which is not installed.

    Raises
    ------
    ModelError
        it is not
    """
    is_there = is_package(name) and ("://" in name or os.path.exists(name))
    kind = PACKAGES if is_there else name.partition(":")[0]
    extra, modules = EXTRAS.get(kind, ("", ()))
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise ModelError(
                f"{name}: needs {module}, which is not installed: pip install "
                f"'beamsplitter[{extra}]'"
            )


def require_usable(
    separators: tuple[SeparatorName, ...], device: str = "auto", *, load_packages: bool = False
) -> None:
    """Refuse what can't be run on this machine. Nothing is fetched that `describe` does not fetch.

    Parameters
    ----------
    device
        where it is to run
    load_packages
        load model packages, too, which takes seconds

    Raises
    ------
    ModelError
        a part of the installation, or the device, is not there, or the model file of a
        package can't be read
    """
    for each in separators:
        require_installed(each.name)
    description = describe(separators)
    if description.uses_device and device not in ("auto", "cpu"):
        # torch takes seconds to import.
        from .device_runner import find_device

        find_device(device)
    for each in filter(lambda each: is_package(each.name), separators):
        from .model_package import require_model_file

        require_model_file(package_address(each.name))
        if load_packages:
            load((each,))


def _fetched(name: str, on_progress: "Progress | None") -> str:
    if is_package(name):
        from .model_package import fetch_package

        return str(fetch_package(package_address(name, on_progress)))
    if entry := _entry_of(name):
        from ..model_cache import ModelCache

        ModelCache(on_progress).fetch(entry)
    return name


def _entry_of(name: str) -> "ModelEntry | None":
    """The entry of a registry that a separator is; None for most."""
    if name in KINDS or os.path.exists(name):
        return None
    from ..model_registry import list_entries

    return next((entry for entry in list_entries() if entry.name == name), None)


@dataclass(frozen=True)
class _Kind:
    describe: Callable[[SeparatorName], Description]
    load: Callable[[SeparatorName], tuple[Member, ...]]


def _kind(name: str) -> _Kind:
    kind, _, rest = name.partition(":")
    if kind in KINDS:
        return _of_module(KINDS[kind], rest)
    if PYTHON_CLASS.match(name):
        return _Kind(
            lambda each: _describe_class(_python_class(name), each.options),
            lambda each: alone(_construct(_python_class(name), each.options)),
        )
    return _of_module(PACKAGES, package_address(name))


def package_address(name: str, on_progress: "Progress | None" = None) -> str:
    """The folder or address of a model package, which a registry may know by a name.

    Parameters
    ----------
    on_progress
        is told of downloads

    Raises
    ------
    ModelError
        there is none
    """
    if "://" in name or os.path.exists(name):
        return name
    if "/" in name:
        raise ModelError(f"{name}: there is no such folder: a model package was expected there")
    if entry := _entry_of(name):
        from ..model_cache import ModelCache

        return str(ModelCache(on_progress).fetch(entry))
    from ..model_registry import list_entries

    known = [*KINDS, *(each.name for each in list_entries())]
    near = difflib.get_close_matches(name, known, 2)
    advice = f"did you mean {' or '.join(near)}? " if near else ""
    raise UnknownNameError(
        f"{name}: no separator has this name: {advice}there are nn-filter, hpss, none, "
        "demucs:NAME and umx:NAME (`beamsplitter models list` shows the names), "
        "the folder or address of a model package, and module:Class"
    )


def _of_module(module_name: str, rest: str) -> _Kind:
    def module(name: str) -> Any:
        return importlib.import_module(f".{name}", __package__)

    return _Kind(
        lambda each: module(module_name).describe(rest, each.options),
        lambda each: module(LOADERS.get(module_name, module_name)).load(rest, each.options),
    )


def _python_class(name: str) -> type[Separator]:
    module_name, _, class_name = name.partition(":")
    try:
        found = getattr(importlib.import_module(module_name), class_name, None)
    except ImportError as error:
        if error.name == "torch":
            raise ModelError(
                f"{name}: needs torch, which is not installed: pip install 'beamsplitter[models]'"
            ) from error
        raise ModelError(
            f"separator {name!r}: {error}; it is neither one of {', '.join(KINDS)}, nor a module "
            "that Python finds: install it, or put its folder on PYTHONPATH"
        ) from error
    if not (isinstance(found, type) and issubclass(found, Separator)):
        raise ModelError(f"separator {name!r}: {class_name} is no Separator of {module_name}")
    return found


def _construct(separator: type[Separator], options: Mapping[str, Any]) -> Separator:
    try:
        return separator(**options)
    # It is anyone's code.
    except Exception as error:
        if isinstance(error, ModelError):
            raise
        raise ValueError(f"options of {separator.__name__}: {error!r}") from error


def _describe_class(separator: type[Separator], options: Mapping[str, Any]) -> Description:
    made = _construct(separator, options)
    rates = () if made.sample_rate is None else (made.sample_rate,)
    context_s = Description.context_s
    if made.longest_block_samples is not None and made.sample_rate is not None:
        context_s = made.longest_block_samples / made.sample_rate
    return Description(
        stems=made.stems,
        sample_rates=rates,
        context_s=context_s,
        normalizes=made.normalizes,
        uses_device=isinstance(made, TorchSeparator),
        resolved_options=json.dumps(options, sort_keys=True),
    )
