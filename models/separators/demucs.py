"""Demucs: its released networks, run by the demucs package.

Défossez, "Hybrid spectrogram and waveform source separation", MDX 2021; Rouard, Massa and Défossez,
"Hybrid transformers for music source separation", ICASSP 2023. Equals `demucs.apply.apply_model`.
"""

import importlib
import inspect
import json
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import BaseModel, ConfigDict

from .base import Description, Member, ModelError, TorchSeparator
from .blocks import BlockLengths
from .options import parse_options

if TYPE_CHECKING:
    import torch

SAMPLE_RATE = 44100
CLASSES = ("demucs.demucs.Demucs", "demucs.hdemucs.HDemucs", "demucs.htdemucs.HTDemucs")
STEMS = ("drums", "bass", "other", "vocals")


class DemucsOptions(BaseModel):
    """What a job may change: nothing."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True)
class Release:
    """What is known of a released bag of networks: its stems, and its longest block in seconds."""

    stems: tuple[str, ...] = STEMS
    block_s: float = 7.8


# The bags of MDX have networks on samples alone, which add 0.04 s to their 44 s: strides must fit.
RELEASES = {
    "htdemucs": Release(),
    "htdemucs_ft": Release(),
    "htdemucs_6s": Release((*STEMS, "guitar", "piano")),
    "hdemucs_mmi": Release(block_s=44),
    "mdx": Release(block_s=44.1),
    "mdx_extra": Release(block_s=44.1),
}


def describe(name: str, options: Mapping[str, object]) -> Description:
    """What is known of the separator.

    Raises
    ------
    ModelError
        there is none of this name
    ValueError
        an option is unknown
    """
    from ..model_registry import find_entry

    release = _release(name)
    parsed = parse_options(DemucsOptions, options)
    return Description(
        release.stems,
        sample_rates=(SAMPLE_RATE,),
        context_s=release.block_s,
        normalizes=True,
        uses_device=True,
        sha256="+".join(file.sha256 for file in find_entry(f"demucs:{name}").files),
        resolved_options=parsed.model_dump_json(),
    )


def load(name: str, options: Mapping[str, object]) -> tuple[Member, ...]:
    """The networks of a bag, each with its weights; one without a say in a stem is not used for it.

    Raises
    ------
    ModelError
        its files can't be had, or hold something else
    """
    from ..model_cache import ModelCache
    from ..model_registry import find_entry

    _release(name)
    parse_options(DemucsOptions, options)
    return load_folder(name, ModelCache().fetch(find_entry(f"demucs:{name}")))


def load_folder(name: str, folder: Path) -> tuple[Member, ...]:
    """The networks of a bag whose files lie in a folder: `SIGNATURE.safetensors`, or `….th`.

    Raises
    ------
    ModelError
        a file is missing, or holds something else, or the demucs package is not installed
    """
    release = _release(name)
    try:
        import demucs
    except ImportError as error:
        raise ModelError(
            f"demucs:{name}: needs the demucs package: pip install 'beamsplitter[demucs]'"
        ) from error

    bag = yaml.safe_load((Path(demucs.__file__).parent / "remote" / f"{name}.yaml").read_text())
    signatures: list[str] = bag["models"]
    ones = [[1.0] * len(release.stems)] * len(signatures)
    members = []
    for signature, weights in zip(signatures, bag.get("weights", ones), strict=True):
        path = _file_of(signature, folder)
        separator = DemucsSeparator(name, load_network(path), bag.get("segment"))
        if (separator.stems, separator.sample_rate) != (release.stems, SAMPLE_RATE):
            raise ModelError(
                f"{path}: is made for {', '.join(separator.stems)} at {separator.sample_rate} Hz, "
                f"and {name} is for {', '.join(release.stems)} at {SAMPLE_RATE} Hz: fetch it anew"
            )
        say = {
            stem: weight for stem, weight in zip(release.stems, weights, strict=True) if weight > 0
        }
        members.append(Member(separator, say))
    return tuple(members)


class DemucsSeparator(TorchSeparator):
    """One network of a bag.

    Parameters
    ----------
    name
        of the bag
    module
        a Demucs, HDemucs or HTDemucs
    segment_s
        how much it separates at once, if not what it says itself; a transformer always
        keeps to the length that it was trained on
    """

    normalizes = True
    channels: int

    def __init__(
        self, name: str, module: "torch.nn.Module", segment_s: float | None = None
    ) -> None:
        from demucs.demucs import Demucs
        from demucs.hdemucs import HDemucs
        from demucs.htdemucs import HTDemucs

        from .demucs_speed import checked_speed_up

        super().__init__(checked_speed_up(module.eval(), f"demucs:{name}"))
        network: Any = module
        self.name = f"demucs:{name}"
        self.stems = tuple(network.sources)
        self.sample_rate = network.samplerate
        self.channels = network.audio_channels
        if segment_s is None or isinstance(module, HTDemucs):
            segment_s = network.segment
        self.block_samples = int(segment_s * self.sample_rate)
        if isinstance(module, HDemucs):
            self.block_lengths = BlockLengths()
        elif isinstance(module, Demucs):
            least = network.valid_length(1)
            self.block_lengths = BlockLengths(least, network.valid_length(least + 1) - least)


def load_network(path: Path) -> "torch.nn.Module":
    """Load one network of demucs, without running what its file may contain.

    Parameters
    ----------
    path
        `….th` as `demucs.states.serialize_model` makes it, or `….safetensors` as
        `demucs.hf.load_safetensors_model` reads it

    Raises
    ------
    ModelError
        the file holds something else, or a network that does not fit its weights
    """
    read = _read_safetensors if path.suffix == ".safetensors" else _read_th
    try:
        class_name, args, kwargs, state = read(path)
        return _build(class_name, args, kwargs, state)
    except OSError:
        raise
    except Exception as error:
        # What is wrong with a file shows in many ways: in the archive, the pickle, the network.
        reason = str(error).strip().splitlines() or [""]
        raise ModelError(
            f"{path}: is no network of demucs: {type(error).__name__}: {reason[0]}; fetch it "
            "anew, or export it with demucs' own tools"
        ) from error


def _build(
    class_name: str, args: list[Any], kwargs: dict[str, Any], state: dict[str, Any]
) -> "torch.nn.Module":
    if class_name not in CLASSES:
        raise ValueError(f"{class_name} is none of {', '.join(CLASSES)}")
    if "__quantized" in state:
        raise ValueError("its weights are quantised, which needs the package diffq")
    module_name, _, name = class_name.rpartition(".")
    network = getattr(importlib.import_module(module_name), name)
    # Older releases have parameters that later versions of demucs dropped.
    known = inspect.signature(network).parameters
    module: torch.nn.Module = network(
        *args, **{key: value for key, value in kwargs.items() if key in known}
    )
    module.load_state_dict(state)
    return module


def _read_th(path: Path) -> tuple[str, list[Any], dict[str, Any], dict[str, Any]]:
    import torch

    # Stands for the class in the file, so that the pickle can't make one.
    classes: dict[type, str] = {type("NamedClass", (), {}): name for name in CLASSES}
    numbers = ("scalar", "dtype", "dtypes.Float64DType", "dtypes.Float32DType")
    allowed: list[Any] = [
        Fraction,
        *classes.items(),
        *(
            (_IgnoredNumber, f"{module}.{name}")
            for module in ("numpy", "numpy.core.multiarray", "numpy._core.multiarray")
            for name in numbers
        ),
    ]
    with torch.serialization.safe_globals(allowed):
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            # Torch's message goes on to advise running what the file contains.
            found = re.search(r"GLOBAL (\S+)", str(error))
            raise ValueError(
                f"holds more than a network: {found[1]}" if found else "is damaged"
            ) from error
    return classes[content["klass"]], content["args"], content["kwargs"], content["state"]


class _IgnoredNumber:
    """Takes the place of the NumPy numbers among the metrics that training left in the file."""

    def __init__(self, *arguments: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


def _read_safetensors(path: Path) -> tuple[str, list[Any], dict[str, Any], dict[str, Any]]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        if "structure" in metadata:
            raise ValueError("its weights are quantised, which needs the package diffq")
        state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    args = json.loads(metadata["args"], object_hook=_fraction)
    kwargs = json.loads(metadata["kwargs"], object_hook=_fraction)
    return metadata["klass"], args, kwargs, state


def _fraction(value: dict[str, Any]) -> Any:
    if value.get("_type") == "fraction":
        return Fraction(value["numerator"], value["denominator"])
    return value


def _file_of(signature: str, folder: Path) -> Path:
    found = [
        *folder.glob(f"{signature}.safetensors"),
        *folder.glob(f"{signature}.th"),
        *folder.glob(f"{signature}-*.th"),
    ]
    if not found:
        raise ModelError(
            f"{folder}: has neither {signature}.safetensors nor {signature}-….th: fetch the model "
            "anew"
        )
    return found[0]


def _release(name: str) -> Release:
    if name.endswith("_q"):
        raise ModelError(
            f"demucs:{name}: its weights are quantised, which needs the package diffq: use "
            f"demucs:{name.removesuffix('_q')}, the same networks in full"
        )
    if name not in RELEASES:
        raise ModelError(f"demucs:{name}: there is no such model: use one of {', '.join(RELEASES)}")
    return RELEASES[name]
