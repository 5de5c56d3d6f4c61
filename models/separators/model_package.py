"""Model packages: any third-party model that is packed for Audacity.

A package is a folder with `metadata.json` and `model.pt` (TorchScript), or `model.pt2`
(torch.export) beside it, which goes first where it takes blocks of the length that is asked for.
Its model is given one block at a time, `(channels, samples)`. What was trained here has
`model.json` and `model.safetensors` instead, see `packages.trained`.
"""

import functools
import hashlib
import logging
import re
import unicodedata
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from ..packages.exported_archive import can_take_samples
from ..packages.metadata import FILE_NAME, PackageMetadata, read_metadata
from ..packages.trained import (
    NETWORK_FILE,
    WEIGHTS_FILE,
    is_safetensors,
    load_trained,
    read_network,
)
from .base import RESIDUAL, Description, Member, ModelError, TorchSeparator, alone
from .blocks import BlockLengths
from .labelling import LABELS, row_of
from .options import parse_options
from .trained import Trained, trained_options

if TYPE_CHECKING:
    import torch

logger = logging.getLogger("beamsplitter")

MODEL_FILES = (WEIGHTS_FILE, "model.pt2", "model.pt")
# What the job itself writes beside the stems.
TAKEN_NAMES = {"manifest", "spectrogram", RESIDUAL}
LONGEST_NAME = 80
DEFAULT_CONTEXT_S = 0.5
# The shortest input that the tools of audacitorch try a model with.
SHORTEST_BLOCK = 2048
# How far a label may reach over the end of its block: models pad their last frame.
OVERHANG_S = 1.0


class PackageOptions(BaseModel):
    """`separation.options` of a job file for a package."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    block_seconds: float = Field(30.0, ge=0.1, le=600, description="what the model is given")
    context_seconds: float | None = Field(
        None,
        ge=0,
        description="dropped at either end of a block; default 0.5, or a quarter of a short block",
    )
    downmix: bool = Field(
        False, description="sum the channels, as Audacity does for a model of one channel"
    )

    @model_validator(mode="after")
    def _something_is_left_of_a_block(self) -> "PackageOptions":
        if 4 * (self.context_seconds or 0) > self.block_seconds:
            raise ValueError("context_seconds can be at most a quarter of block_seconds")
        return self

    @property
    def context_s(self) -> float:
        """What is dropped at either end of a block."""
        if self.context_seconds is None:
            return min(DEFAULT_CONTEXT_S, self.block_seconds / 4)
        return self.context_seconds


def package_options(options: Mapping[str, object], metadata: PackageMetadata) -> PackageOptions:
    """What is given, over what suits the separator that the package was made of, if it was.

    Raises
    ------
    ValueError
        an option is wrong
    """
    fitting: dict[str, object] = {}
    if metadata.beamsplitter and "block_seconds" not in options:
        fitting = metadata.beamsplitter.model_dump(include={"block_seconds", "context_seconds"})
    return parse_options(PackageOptions, {**fitting, **options})


def describe(address: str, options: Mapping[str, object]) -> Description:
    """What a package says of itself.

    Parameters
    ----------
    address
        a folder, or its address at gs:// or https://
    options
        see `PackageOptions`; of what was trained here, `trained_options`

    Raises
    ------
    ModelError
        no such package, or its metadata is wrong
    ValueError
        an option is
    """
    folder = fetch_package(address)
    if (folder / WEIGHTS_FILE).is_file():
        return _describe_trained(folder, address, options)
    metadata = read_metadata(folder / FILE_NAME, address)
    settings = package_options(options, metadata)
    gives_stems = metadata.effect_type == "waveform-to-waveform"
    return Description(
        stems=stem_names(metadata.stems) if gives_stems else (),
        effect="stems" if gives_stems else "labels",
        sample_rates=(metadata.sample_rate,),
        context_s=settings.block_seconds,
        uses_device=True,
        resolved_options=settings.model_dump_json(),
        sha256=_sha256_of(
            folder / FILE_NAME, _fitting_model_file(folder, address, metadata, settings)
        ),
    )


def _describe_trained(folder: Path, address: str, options: Mapping[str, object]) -> Description:
    network = read_network(folder, address)
    settings = trained_options(options, network)
    files = (FILE_NAME, NETWORK_FILE, WEIGHTS_FILE)
    return Description(
        stems=stem_names(network.targets),
        sample_rates=(network.sample_rate,),
        context_s=settings.block_seconds,
        uses_device=True,
        resolved_options=settings.model_dump_json(),
        sha256=_sha256_of(*(folder / name for name in files)),
    )


def load(address: str, options: Mapping[str, object]) -> tuple[Member, ...]:
    """Load a package; its code is checked, and nothing is unpickled by Python.

    Parameters
    ----------
    address, options
        as of `describe`

    Raises
    ------
    ModelError
        no such package, or its model can't be loaded
    ValueError
        an option is wrong
    """
    folder = fetch_package(address)
    if (folder / WEIGHTS_FILE).is_file():
        model = load_trained(folder, address)
        fitting = trained_options(options, model.settings)
        stems = stem_names(model.settings.targets)
        return alone(Trained(address, model, fitting, stems))
    metadata, settings, module = _load_model(address, options)
    if metadata.effect_type == "waveform-to-labels":
        return alone(PackageLabeler(address, metadata, module, settings))
    return alone(PackageSeparator(address, metadata, module, settings))


class PackageSeparator(TorchSeparator):
    """A package whose model turns a waveform into waveforms.

    Row i of its output is the stem of label i, the same for all channels that it was made of; rows
    without a label are ignored. A model for one channel gets each channel on its own, a model for
    several gets one or two, and more channels in pairs. Of a separator for several channels that
    was exported here, each stem has a row for each of them.

    Parameters
    ----------
    address
        of the package, its name in messages
    metadata
        of the package
    module
        its model
    settings
        how it is used
    """

    def __init__(
        self,
        address: str,
        metadata: PackageMetadata,
        module: "torch.nn.Module",
        settings: PackageOptions,
    ) -> None:
        super().__init__(module)
        self.name = address
        self.stems = stem_names(metadata.stems)
        self.sample_rate = metadata.sample_rate
        self.block_samples = _block_samples(metadata, settings)
        self.context_samples = round(settings.context_s * metadata.sample_rate)
        self._downmixes = settings.downmix and not metadata.multichannel
        self._rows_of_stem = len(metadata.labels) // len(metadata.stems)
        self._group = 2 if metadata.multichannel else 1
        self.channels = None if metadata.multichannel or self._downmixes else 1
        if original := metadata.beamsplitter:
            self.overlap = original.overlap
            self.block_lengths = original.block_lengths and BlockLengths(*original.block_lengths)
        if self._rows_of_stem > 1:
            self._group = self.channels = self._rows_of_stem
        self._require_fitting_blocks()

    def _require_fitting_blocks(self) -> None:
        """Refuse blocks that an exported model, which may be fixed to a length, can't take."""
        from ..packages.exported import ExportedModel

        if not isinstance(self.module, ExportedModel):
            return
        limits = self.module.limits
        if self.channels is None and self._group == 2 and limits.complaint((1, self.block_samples)):
            self.channels = 2
        complaint = limits.complaint((self.channels or 1, self.block_samples))
        if complaint is None:
            return
        length = limits.fixed[-1]
        advice = f"; block_seconds: {length / self.sample_rate!r} would fit" if length else ""
        raise ModelError(
            f"{self.name}: its model can't take blocks of {self.channels or 1} channels and "
            f"{self.block_samples} samples: {complaint}{advice}"
        )

    def forward(self, blocks: "torch.Tensor") -> "torch.Tensor":
        """Separate a batch, block by block, as the model has no batch axis.

        Raises
        ------
        ModelError
            the model fails, or gives other shapes than it should
        """
        import torch

        if self._downmixes:
            blocks = blocks.sum(dim=1, keepdim=True)
        stems = [
            torch.stack([self._rows(block) for block in group]).expand(-1, -1, group.shape[1], -1)
            for group in blocks.split(self._group, dim=1)
        ]
        return torch.cat(stems, dim=2)

    def _rows(self, block: "torch.Tensor") -> "torch.Tensor":
        """The stems of a block `(channels, samples)`: `(stems, 1 or channels, samples)`."""
        rows = _run(self.module, block, self.name)
        if not _is_tensor(rows, axes=2):
            raise ModelError(f"{self.name}: its model gave {_kind_of(rows)}, not (stems, samples)")
        if not rows.is_floating_point():
            raise ModelError(
                f"{self.name}: its model gave {_kind_of(rows)} and {_dtype_of(rows)}; stems are "
                "waveforms of float32, or another real floating-point type, with 1 as full scale: "
                "convert them in the model, and export it again"
            )
        named = len(self.stems) * self._rows_of_stem
        if rows.shape[0] < named:
            raise ModelError(
                f"{self.name}: its model gave {rows.shape[0]} stems, and its metadata names "
                f"{named}: {', '.join(self.stems)}"
            )
        if rows.shape[1] != block.shape[1]:
            raise ModelError(
                f"{self.name}: its model turned {block.shape[1]} samples into {rows.shape[1]}; "
                "a separator has to keep the length"
            )
        return rows[:named].unflatten(0, (len(self.stems), -1)).float()


class PackageLabeler(TorchSeparator):
    """A package whose model turns a waveform into labels: see `labelling`.

    Parameters
    ----------
    address
        of the package, its name in messages
    metadata
        of the package
    module
        its model
    settings
        how it is used
    """

    stems = (LABELS,)
    overlap = 0.0

    def __init__(
        self,
        address: str,
        metadata: PackageMetadata,
        module: "torch.nn.Module",
        settings: PackageOptions,
    ) -> None:
        super().__init__(module)
        self.name = address
        self.labels = tuple(metadata.labels)
        self.sample_rate = metadata.sample_rate
        self.channels = None if metadata.multichannel else 1
        self.block_samples = _block_samples(metadata, settings)

    def forward(self, blocks: "torch.Tensor") -> "torch.Tensor":
        """Annotate a batch, block by block, as the model has no batch axis.

        Returns
        -------
        `(batch, 1, 1, samples)`: rows of `labelling.row_of`

        Raises
        ------
        ModelError
            the model fails, or gives what can't be labels of the block
        """
        import torch

        rows = [self._row_of(block) for block in blocks]
        return torch.stack(rows)[:, None, None]

    def _row_of(self, block: "torch.Tensor") -> "torch.Tensor":
        import torch

        module: Any = self.module
        is_sure = getattr(module, "gives_confidences", False)
        output = _run(module.labels_with_confidences if is_sure else module, block, self.name)
        found = self._checked(output, block.shape[1] / self.sample_rate, parts=3 if is_sure else 2)
        row = row_of(*found, samples=block.shape[1], name=self.name)
        return torch.from_numpy(row).to(block.device)

    def _checked(
        self, output: Any, block_s: float, *, parts: int
    ) -> tuple[list[int], list[float | None], list[list[float]]]:
        """Indices of labels, how sure they are, and their times from the start of the block."""
        if not isinstance(output, tuple | list) or len(output) != parts:
            raise ModelError(
                f"{self.name}: its model gave {_kind_of(output)}, not labels and times"
                f"{' and confidences' * (parts > 2)}"
            )
        classes, times, *told = output
        confidences: list[float | None] | None = None
        # The README of audacitorch tells of probabilities, its code and Audacity of indices.
        if _is_tensor(classes, axes=2) and classes.shape[1] == len(self.labels):
            confidences = _confidences(classes)
            classes = classes.argmax(dim=1)
        if not _is_tensor(classes, axes=1) or not _is_tensor(times, axes=2):
            raise ModelError(
                f"{self.name}: its model gave {_kind_of(classes)} as labels and {_kind_of(times)} "
                "as times, not (labels,) and (labels, 2)"
            )
        if classes.is_complex() or times.is_complex():
            raise ModelError(
                f"{self.name}: its model gave labels of {_dtype_of(classes)} and times of "
                f"{_dtype_of(times)}; labels are whole numbers (int64), and times seconds (float32)"
            )
        indices, times_s = classes.double().cpu().numpy(), times.double().cpu().numpy()
        if times_s.shape != (len(indices), 2):
            raise ModelError(
                f"{self.name}: its model gave {len(indices)} labels and times of shape "
                f"{times_s.shape}"
            )
        if not np.isin(indices, np.arange(len(self.labels))).all():
            raise ModelError(
                f"{self.name}: its model gave a label that is none of the {len(self.labels)} of "
                "its metadata"
            )
        starts_s, ends_s = times_s.T
        fine = (starts_s >= 0) & (starts_s < ends_s) & (starts_s <= block_s)
        if not (fine & (ends_s <= block_s + OVERHANG_S)).all():
            raise ModelError(
                f"{self.name}: its model gave times that are no stretch of its block of "
                f"{block_s:g} s"
            )
        if told:
            confidences = self._told_confidences(told[0], len(indices))
        confidences = confidences or [None] * len(indices)
        return indices.astype(int).tolist(), confidences, times_s.tolist()

    def _told_confidences(self, told: Any, count: int) -> list[float | None]:
        """Those that a model tells beside labels and times."""
        if not _is_tensor(told, axes=1) or not told.is_floating_point():
            raise ModelError(
                f"{self.name}: its model gave {_kind_of(told)} as confidences, not (labels,)"
            )
        values = told.double().cpu().numpy()
        if len(values) != count or not ((values >= 0) & (values <= 1)).all():
            raise ModelError(
                f"{self.name}: its model gave confidences that are no {count} numbers from 0 to 1"
            )
        return [float(value) for value in values]


def stem_names(labels: Sequence[str]) -> tuple[str, ...]:
    """File names of stems, safe and all different, even where capitals don't count.

    Labels that are fine stay as they are.
    """
    names: list[str] = []
    taken = set(TAKEN_NAMES)
    for index, label in enumerate(labels):
        plain = _plain_name(label) or f"stem-{index + 1}"
        name, count = plain, 1
        while name.casefold() in taken:
            count += 1
            name = f"{plain}-{count}"
        taken.add(name.casefold())
        names.append(name)
    return tuple(names)


def _plain_name(label: str) -> str:
    text = unicodedata.normalize("NFC", label)
    text = "".join("-" if unicodedata.category(each)[0] in "CZ" and each != " " else each
                   for each in text)  # fmt: skip
    text = re.sub(r'[/\\:*?"<>|]', "-", text)[:LONGEST_NAME]
    # Names of devices on Windows.
    text = re.sub(r"(?i)^(con|prn|aux|nul|com\d|lpt\d)(?=$|\.)", r"\1-", text)
    return text.strip(" .")


def fetch_package(address: str) -> Path:
    """The folder of a package's files, fetched if it lies elsewhere.

    Raises
    ------
    ModelError
        its files can't be had
    """
    from ..model_cache import ModelCache

    here = Path(address)
    if (here / NETWORK_FILE).is_file() and not (here / FILE_NAME).exists():
        raise ModelError(f"{address}: is not trained yet: `beamsplitter train {address} DATA`")
    optional = (*MODEL_FILES, NETWORK_FILE)
    return ModelCache().fetch_folder(address, required=[FILE_NAME], optional=optional)


def _model_files_of(folder: Path, address: str) -> list[Path]:
    """Those that are there, that which goes first at first."""
    files = [folder / name for name in MODEL_FILES if (folder / name).is_file()]
    if not files:
        raise ModelError(f"{address} has no model: a package holds {' or '.join(MODEL_FILES)}")
    return files


def _fitting_model_file(
    folder: Path, address: str, metadata: PackageMetadata, settings: PackageOptions
) -> Path:
    """The file that goes first, or the next one where that is fixed to another length of blocks."""
    first, *others = _model_files_of(folder, address)
    samples = _block_samples(metadata, settings)
    if others and first.suffix == ".pt2" and not can_take_samples(first, samples):
        return others[0]
    return first


def _block_samples(metadata: PackageMetadata, settings: PackageOptions) -> int:
    samples = round(settings.block_seconds * metadata.sample_rate)
    gives_labels = metadata.effect_type == "waveform-to-labels"
    return max(SHORTEST_BLOCK, samples) if gives_labels else samples


def require_model_file(address: str) -> None:
    """Refuse a package with a model file that is cut off, or is something else, without loading it.

    Raises
    ------
    ModelError
        one is
    """
    for path in _model_files_of(fetch_package(address), address):
        is_whole = is_safetensors if path.suffix == ".safetensors" else zipfile.is_zipfile
        if not is_whole(path):
            raise ModelError(
                f"{address}: {path.name} is not a whole model file: export it again, or fetch it "
                "anew"
            )


def _load_model(
    address: str, options: Mapping[str, object]
) -> tuple[PackageMetadata, PackageOptions, "torch.nn.Module"]:
    folder = fetch_package(address)
    metadata = read_metadata(folder / FILE_NAME, address)
    settings = package_options(options, metadata)
    path = _fitting_model_file(folder, address, metadata, settings)
    if path.suffix == ".pt" and (folder / "model.pt2").is_file():
        logger.warning(
            "%s: model.pt2 takes no blocks of %g s, so that model.pt is used",
            address,
            settings.block_seconds,
        )
    if path.suffix == ".pt2":
        from ..packages.exported import load_exported

        return metadata, settings, load_exported(path, address)
    from ..packages.torchscript import load_torchscript

    return metadata, settings, load_torchscript(path, address)


def _sha256_of(*paths: Path) -> str:
    digests = []
    for path in paths:
        status = path.stat()
        digests.append(_sha256_of_file(path.resolve(), status.st_size, status.st_mtime_ns))
    return hashlib.sha256("".join(digests).encode()).hexdigest()


@functools.lru_cache(maxsize=64)
def _sha256_of_file(path: Path, size: int, mtime_ns: int) -> str:
    from ..model_cache import sha256_of

    return sha256_of(path)


def _run(module: Callable[..., Any], block: "torch.Tensor", package: str) -> Any:
    """Run a model, or a method of it, on a copy of a block, which it may change."""
    import torch

    try:
        return module(block.clone())
    except torch.OutOfMemoryError:
        raise
    # Whatever a third party's model fails with.
    except Exception as error:
        message = str(error).strip()
        # TorchScript makes its own error of every other.
        if "out of memory" in message:
            raise torch.OutOfMemoryError(message) from error
        reason = message.splitlines()[-1] if message else type(error).__name__
        raise ModelError(f"{package}: its model fails on {tuple(block.shape)}: {reason}") from error


def _is_tensor(value: Any, *, axes: int) -> bool:
    import torch

    return isinstance(value, torch.Tensor) and value.ndim == axes


def _confidences(scores: "torch.Tensor") -> list[float | None] | None:
    """Those of the likeliest classes, where a model gives probabilities, and not other numbers."""
    if not scores.is_floating_point() or not bool(((scores >= 0) & (scores <= 1)).all()):
        return None
    return [float(each) for each in scores.max(dim=1).values.double().cpu()]


def _dtype_of(tensor: "torch.Tensor") -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _kind_of(value: Any) -> str:
    shape = getattr(value, "shape", None)
    return f"a {type(value).__name__}" + (f" of shape {tuple(shape)}" if shape is not None else "")
