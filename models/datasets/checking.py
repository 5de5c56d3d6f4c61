"""What is wrong with a dataset of stems: found before a training learns it."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from ...audio.decoding.audio_reader import AudioInfo
from ...audio.decoding.stream_names import MIXTURE
from ...audio.errors import AudioError
from .stem_folders import StemFile, StemTrack, blocks_of, probe_file

BLOCK_S = 30
SILENT_DBFS = -80.0
# Rounding to 16 bits leaves less than -60 dB of loud stems; a lossy codec leaves some of each.
MOST_REST_DB = -30.0
MOST_REST_OF_LOSSY_DB = -10.0


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a track.

    Attributes
    ----------
    kind
        "undecodable", "missing", "silent", "short", "length", "sample_rate", "channels" or "sum"
    stem
        the stem, or "mixture", that it is about; None: all of the track
    message
        in words
    """

    kind: str
    stem: str | None
    message: str


@dataclass(frozen=True)
class TrackReport:
    """What was found of a track.

    Attributes
    ----------
    duration_s
        of its longest file that could be read
    rest_db
        level of what the stems leave of the mixture, below the mixture; None: not measured
    """

    name: str
    stems: tuple[str, ...]
    has_mixture: bool
    duration_s: float
    sample_rate: int | None
    rest_db: float | None = None
    problems: tuple[Problem, ...] = field(default=())


def check_tracks(
    tracks: Sequence[StemTrack],
    *,
    stems: Iterable[str] | None = None,
    minimum_s: float = 3.0,
    done: Callable[[TrackReport], None] = lambda _: None,
) -> list[TrackReport]:
    """Look for what is wrong with tracks: each file is decoded once, block by block.

    Parameters
    ----------
    stems
        those that each track is to have; None: those that most tracks have
    minimum_s
        seconds; a shorter track has no excerpt of this length
    done
        is told of each track
    """
    wanted = tuple(stems) if stems is not None else usual_stems(tracks)
    reports = []
    for track in tracks:
        reports.append(check_track(track, wanted, minimum_s=minimum_s))
        done(reports[-1])
    return reports


def usual_stems(tracks: Sequence[StemTrack]) -> tuple[str, ...]:
    """The stems that more than half of the tracks have, in order of name."""
    counts = Counter(stem for track in tracks for stem in track.stems)
    return tuple(sorted(stem for stem, count in counts.items() if 2 * count > len(tracks)))


def check_track(track: StemTrack, wanted: Sequence[str], *, minimum_s: float) -> TrackReport:
    """Look for what is wrong with one track."""
    problems = [
        Problem("missing", stem, f"has no {stem}") for stem in wanted if stem not in track.stems
    ]
    files = {**track.stems, **({MIXTURE: track.mixture} if track.mixture else {})}
    infos: dict[str, AudioInfo] = {}
    for name, file in files.items():
        try:
            infos[name] = probe_file(file)
        except AudioError as error:
            problems.append(Problem("undecodable", name, str(error)))
    problems += _unequal(infos)
    duration_s = max((info.duration_s for info in infos.values()), default=0.0)
    if infos and duration_s < minimum_s:
        told = f"lasts {duration_s:.2f} s, less than {minimum_s:g} s"
        problems.append(Problem("short", None, told))
    rest_db = None
    if infos and not any(problem.kind == "undecodable" for problem in problems):
        try:
            rest_db = _listen({name: files[name] for name in infos}, infos, problems)
        except AudioError as error:  # damage that no header shows
            problems.append(Problem("undecodable", None, str(error)))
    rates = Counter(info.sample_rate for info in infos.values())
    return TrackReport(
        name=track.name,
        stems=tuple(sorted(track.stems)),
        has_mixture=track.mixture is not None,
        duration_s=duration_s,
        sample_rate=rates.most_common(1)[0][0] if rates else None,
        rest_db=rest_db,
        problems=tuple(problems),
    )


def _unequal(infos: dict[str, AudioInfo]) -> list[Problem]:
    """Files of a track that are not as most of it."""
    problems = []
    for kind, value_of, unit in (
        ("sample_rate", lambda info: info.sample_rate, " Hz"),
        ("length", lambda info: info.frames, " samples"),
        ("channels", lambda info: info.channels, " channels"),
    ):
        values = {name: value_of(info) for name, info in infos.items()}
        usual = Counter(values.values()).most_common(1)[0][0] if values else None
        problems += [
            Problem(kind, name, f"{name} has {value}{unit}, others {usual}")
            for name, value in values.items()
            if value != usual
        ]
    return problems


def _listen(
    files: dict[str, StemFile], infos: dict[str, AudioInfo], problems: list[Problem]
) -> float | None:
    """Add what only samples show; gives the level of what the stems leave of the mixture."""
    peaks = dict.fromkeys(files, 0.0)
    energy = rest_energy = 0.0
    can_sum = MIXTURE in files and len(files) > 1
    can_sum &= not any(each.kind in ("sample_rate", "channels", "missing") for each in problems)
    names = list(files)
    ordered = [infos[name] for name in names]
    block_samples = BLOCK_S * max(info.sample_rate for info in ordered)
    for blocks in blocks_of(list(files.values()), ordered, block_samples):
        for name, block in zip(names, blocks, strict=True):
            peaks[name] = max(peaks[name], float(np.abs(block).max()))
        if can_sum:
            mixture = blocks[names.index(MIXTURE)].astype(np.float64)
            others = [block for name, block in zip(names, blocks, strict=True) if name != MIXTURE]
            energy += float(np.sum(mixture**2))
            rest_energy += float(np.sum((mixture - np.sum(others, axis=0, dtype=np.float64)) ** 2))
    for name, peak in peaks.items():
        if peak < 10 ** (SILENT_DBFS / 20):
            problems.append(Problem("silent", name, f"{name} is silent"))
    if not can_sum or not energy:
        return None
    rest_db = 10 * math.log10(max(rest_energy / energy, 1e-12))
    is_lossy = any(info.bit_depth is None and not info.is_float for info in ordered)
    if rest_db > (MOST_REST_OF_LOSSY_DB if is_lossy else MOST_REST_DB):
        told = f"the stems leave {rest_db:.1f} dB of the mixture: they do not sum to it"
        problems.append(Problem("sum", None, told))
    return rest_db
