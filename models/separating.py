"""Separating one recording in memory, or one file, without Beam: `beamsplitter.separate`."""

import functools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..audio.errors import AudioError, TooShortAudioError
from ..audio.parts import Part, join_parts
from ..audio.progress import piece_of
from .separators.base import RESIDUAL, Description
from .separators.by_name import SeparatorName, describe, require_installed
from .separators.mixing import (
    STATISTICS_BLOCK_S,
    MixingOptions,
    Position,
    Statistics,
    StreamingStatistics,
    plan_parts_for,
    separate_part,
)
from .separators.plain_runner import DeviceOptions
from .separators.server import Models, open_models

MOST_CHANNELS = 32
LONGEST_PART_S = 300.0
LOADED_AT_ONCE = 2
Progress = Callable[[float, float], None]


class Stems(dict[str, np.ndarray]):
    """Stems by name: float32 `(channels, samples)`, or `(samples,)` where the mixture was.

    Attributes
    ----------
    sample_rate
        Hz
    """

    def __init__(self, stems: Mapping[str, np.ndarray], sample_rate: int) -> None:
        super().__init__(stems)
        self.sample_rate = sample_rate


def separate(
    samples: "np.ndarray | str | os.PathLike[str]",
    *,
    sample_rate: int | None = None,
    separator: str = "nn-filter",
    options: Mapping[str, Any] | None = None,
    stems: Sequence[str] | None = None,
    device: str = "auto",
    part_seconds: float = LONGEST_PART_S,
    progress: Progress | None = None,
) -> Stems:
    """Split a recording into stems, as `beamsplitter separate` does, of any length.

    Parameters
    ----------
    samples
        float `(channels, samples)` or `(samples,)` in [-1, 1], or the path of an audio file
    sample_rate
        Hz; of arrays. Files know theirs
    separator
        `nn-filter`, `hpss`, `demucs:NAME`, `umx:NAME`, the folder or address of a model
        package, or `module:Class`
    options
        those of the separator
    stems
        names of those that are wanted; default all, with `residual` where they leave any of the
        mixture
    device
        of models: `auto`, `cpu`, `cuda`, `cuda:N`, `mps`
    part_seconds
        longest part that is worked on at once; the samples are those of the command with
        the same number
    progress
        is told seconds of audio that are done, and those that there are, now and then: a
        part counts as far as it is done

    Returns
    -------
    Stems by name, with the shape of the mixture and its rate as `sample_rate`

    Raises
    ------
    ValueError
        the samples are no such array, or the options or stems are not the separator's
    AudioError
        the file can't be decoded, the recording is too short for the separator, or the
        separator can't be had (`ModelError`)

    Examples
    --------
    >>> import numpy as np
    >>> import beamsplitter
    >>> rng = np.random.default_rng(0)
    >>> stems = beamsplitter.separate(rng.uniform(-0.5, 0.5, (2, 22050)), sample_rate=22050)
    >>> sorted(stems), stems["background"].shape
    (['background', 'foreground'], (2, 22050))
    """
    separators = (SeparatorName.of(separator, options or {}),)
    require_installed(separator)
    description = describe(separators)
    wanted = wanted_of(description, stems, separator)
    if isinstance(samples, np.ndarray):
        mixture, rate = _checked(samples, sample_rate)
    else:
        mixture, rate = _read(samples)
    if mixture.shape[-1] < max(1, description.minimum_s * rate):
        raise TooShortAudioError(
            f"{mixture.shape[-1] / rate:.3f} s is too short for {separator}, which needs "
            f"{description.minimum_s:g} s"
        )
    made = _whole(
        separated_blocks(
            lambda start, stop: mixture[:, start:stop],
            description,
            models_of(separators, device),
            samples=mixture.shape[-1],
            channels=len(mixture),
            sample_rate=rate,
            stems=wanted,
            part_seconds=part_seconds,
            progress=progress,
        )
    )
    if isinstance(samples, np.ndarray) and samples.ndim == 1:
        made = {stem: each[0] for stem, each in made.items()}
    return Stems(made, rate)


def wanted_of(
    description: Description, stems: Sequence[str] | None, separator: str
) -> tuple[str, ...]:
    """The stems to make.

    Raises
    ------
    ValueError
        the separator gives labels, or does not give one of them
    """
    if description.effect != "stems":
        raise ValueError(f"{separator}: gives labels, no stems: use the command")
    known = (*description.stems, RESIDUAL)
    for stem in stems or ():
        if stem not in known:
            raise ValueError(f"{stem!r} is no stem of {separator}, which gives {', '.join(known)}")
    return tuple(dict.fromkeys(stems)) if stems else description.all_stems


@functools.lru_cache(LOADED_AT_ONCE)
def models_of(separators: tuple[SeparatorName, ...], device: str) -> Models:
    """The models of a separator; the last two are kept."""
    return open_models(separators, DeviceOptions(device=device))


def _checked(samples: np.ndarray, sample_rate: int | None) -> tuple[np.ndarray, int]:
    if sample_rate is None:
        raise ValueError("sample_rate: say the rate of the samples in Hz")
    if sample_rate <= 0 or int(sample_rate) != sample_rate:
        raise ValueError(f"sample_rate: {sample_rate} is no whole number of Hz")
    if not np.issubdtype(samples.dtype, np.floating):
        raise ValueError(
            f"samples are {samples.dtype}: hand over floats in [-1, 1], such as "
            "samples / 32768 of 16-bit integers"
        )
    if samples.ndim not in (1, 2) or not samples.size:
        raise ValueError(f"samples have shape {samples.shape}: (channels, samples) is wanted")
    mixture = np.atleast_2d(samples)
    if len(mixture) > MOST_CHANNELS:
        raise ValueError(
            f"samples have shape {samples.shape}, which is {len(mixture)} channels: where it is "
            "(samples, channels), hand over samples.T"
        )
    if not np.isfinite(mixture).all():
        raise ValueError("samples hold NaN or infinity")
    return np.ascontiguousarray(mixture, np.float32), int(sample_rate)


def _read(path: "str | os.PathLike[str]") -> tuple[np.ndarray, int]:
    from ..audio.decoding.audio_reader import probe, read_audio
    from ..storage import Storage, StorageError

    name = os.fspath(path)
    try:
        with Storage().reading(os.path.expanduser(name)) as file:
            info = probe(file, name=name)
            mixture = read_audio(file, name=name, info=info)
    except StorageError as error:
        raise AudioError(str(error)) from error
    return mixture, info.sample_rate


def separated_blocks(
    read: Callable[[int, int], np.ndarray],
    description: Description,
    models: Models,
    *,
    samples: int,
    channels: int,
    sample_rate: int,
    stems: tuple[str, ...],
    part_seconds: float = LONGEST_PART_S,
    progress: Progress | None = None,
) -> Iterator[dict[str, np.ndarray]]:
    """Separate a recording part by part; no more than two parts are in memory.

    Parameters
    ----------
    read
        `read(start_sample, stop_sample)` gives float32 `(channels, samples)` of the mixture
    description, models
        of the separator
    samples, channels, sample_rate
        of the mixture
    stems
        those that are wanted
    part_seconds, progress
        as of `separate`

    Yields
    ------
    Blocks of the stems by name, float32 `(channels, samples)`; together they are `samples` long
    """
    parts = plan_parts_for(description, samples, sample_rate, channels, part_seconds=part_seconds)
    statistics = None
    if description.normalizes and len(parts) > 1:
        statistics = _statistics_of(read, samples, sample_rate, description)
    made: dict[int, dict[str, np.ndarray]] = {}

    def tell(done_s: float) -> None:
        if progress:
            progress(done_s, samples / sample_rate)

    def stems_of(part: Part) -> dict[str, np.ndarray]:
        if part.index not in made:
            made.pop(part.index - 2, None)
            made[part.index] = separate_part(
                read(part.context_start_sample, part.context_stop_sample),
                sample_rate,
                models.members,
                models.run,
                position=Position.of(part, samples),
                stems=stems,
                statistics=statistics,
                options=MixingOptions(),
                progress=piece_of(
                    tell, part.start_sample / sample_rate, part.stop_sample / sample_rate
                ),
            )
        return made[part.index]

    if len(parts) == 1:
        yield stems_of(parts[0])
        return

    def read_stem(stem: str, part: Part, start_sample: int, stop_sample: int) -> np.ndarray:
        begin = part.stem_start_sample
        return stems_of(part)[stem][:, start_sample - begin : stop_sample - begin]

    joined = [join_parts(parts, functools.partial(read_stem, stem)) for stem in stems]
    for blocks in zip(*joined, strict=True):
        yield dict(zip(stems, blocks, strict=True))


def _statistics_of(
    read: Callable[[int, int], np.ndarray], samples: int, rate: int, description: Description
) -> Statistics:
    statistics = StreamingStatistics(rate, (description.sample_rates or (rate,))[0])
    block = round(STATISTICS_BLOCK_S * rate)
    for start in range(0, samples, block):
        statistics.add(read(start, min(start + block, samples)))
    return statistics.result()


def _whole(blocks: Iterable[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    first, *others = blocks
    if not others:
        return first
    return {
        stem: np.concatenate([each[stem] for each in (first, *others)], axis=-1) for stem in first
    }
