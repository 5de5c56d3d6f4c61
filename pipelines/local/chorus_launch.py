"""Choruses of recordings on this machine, and the files that tell of them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal

import numpy as np

from ...audio.decoding.audio_reader import AudioInfo, probe, read_audio
from ...audio.encoding import StemWriter
from ...audio.errors import AudioError
from ...audio.stem_format import choose_format
from ...storage import OutputTree, Storage, StorageError, UnusableStorageError
from ..outcomes.run_state import CRASHED
from .processes import in_processes

NAME = "chorus"
JSON, LABELS = f"{NAME}.json", f"{NAME}.txt"
# Samples of all channels together that are decoded at once.
BLOCK_SAMPLES = 1 << 23
# Slow, and needed in the processes alone. What librosa imports when it is first used stands apart.
IMPORTS = (__name__, "beamsplitter.audio.chorus", "librosa.filters", "librosa.util.utils")
CutFormat = Literal["flac", "wav"]


@dataclass(frozen=True)
class ChorusTask:
    """A recording to find the choruses of.

    Attributes
    ----------
    element
        what it is called
    uri
        where it lies
    clip_s
        seconds of an excerpt, and of the shortest section
    tree, folder
        where its files go; without a tree nothing is written
    cut_format
        write the excerpt, too, in this format
    """

    element: str
    uri: str
    storage: Storage
    clip_s: float
    tree: OutputTree | None = None
    folder: str = ""
    cut_format: CutFormat | None = None


@dataclass(frozen=True)
class FoundChoruses:
    """What came of a recording: the content of its `chorus.json`, or why there is none."""

    element: str
    content: dict[str, Any] | None = None
    failure: str | None = None


def find_in_files(
    tasks: Sequence[ChorusTask],
    *,
    workers: int,
    show: Callable[[FoundChoruses], None] = lambda _: None,
) -> list[FoundChoruses]:
    """Find the choruses of recordings, in processes; in the order of the tasks.

    A recording that takes its process down is tried once more, alone.

    Parameters
    ----------
    show
        is told of each recording that is through

    Raises
    ------
    UnusableStorageError
        the results can't be written, nor could any
    KeyboardInterrupt
        after the processes are gone
    """
    found: dict[str, FoundChoruses] = {}
    for task, result in in_processes(find_in_file, tasks, workers=workers, imports=IMPORTS):
        found[task.element] = result or FoundChoruses(task.element, failure=CRASHED)
        show(found[task.element])
    return [found[task.element] for task in tasks]


def find_in_file(task: ChorusTask) -> FoundChoruses:
    """Find the choruses of a recording, which is decoded block by block, and write its files.

    What is wrong with the recording is told in what is given back.

    Raises
    ------
    UnusableStorageError
        the results can't be written, nor could any
    """
    try:
        with task.storage.reading(task.uri) as file:
            info = probe(file, name=task.element)
            content = _content_of(task, file, info)
            if task.tree:
                _write(content, task, task.tree)
                if task.cut_format:
                    _write_excerpt(content, task, task.tree, file, info)
    except UnusableStorageError:
        raise
    except (AudioError, StorageError) as error:
        message = str(error).removeprefix(f"{task.element}: ").removeprefix(f"{task.uri}: ")
        return FoundChoruses(task.element, failure=message)
    except Exception as error:
        return FoundChoruses(task.element, failure=f"{type(error).__name__}: {error}")
    return FoundChoruses(task.element, content)


def _content_of(task: ChorusTask, file: BinaryIO, info: AudioInfo) -> dict[str, Any]:
    """What `chorus.json` says, times in seconds."""
    # Slow to import, and not needed where only results are shown.
    from ...audio.chorus import find_choruses

    found = find_choruses(_blocks(task, file, info), info.sample_rate, clip_s=task.clip_s)
    return {
        "recording": task.element,
        "duration_s": round(found.duration_s, 6),
        "clip_s": task.clip_s,
        "excerpt_start_s": round(found.excerpt_start_s, 6),
        "excerpt_stop_s": round(found.excerpt_stop_s, 6),
        "reason": found.reason,
        "sections": [
            {
                "start_s": round(each.start_s, 6),
                "length_s": round(each.length_s, 6),
                "repeats_s": [round(repeat_s, 6) for repeat_s in each.repeats_s],
                "score": each.score,
            }
            for each in found.sections
        ],
    }


def _blocks(task: ChorusTask, file: BinaryIO, info: AudioInfo) -> Iterator[np.ndarray]:
    block_samples = max(1, BLOCK_SAMPLES // info.channels)
    for start in range(0, info.frames, block_samples):
        frames = min(block_samples, info.frames - start)
        yield read_audio(file, name=task.element, start_sample=start, frames=frames, info=info)


def _write(content: dict[str, Any], task: ChorusTask, tree: OutputTree) -> None:
    tree.write_json(content, task.folder, JSON)
    tree.write(label_track(content).encode(), task.folder, LABELS)


def label_track(content: dict[str, Any]) -> str:
    """The excerpt, and each occurrence of each section, as a label track that Audacity imports."""
    labels = [(content["excerpt_start_s"], content["excerpt_stop_s"], "excerpt")]
    for rank, section in enumerate(content["sections"], 1):
        for start_s in (section["start_s"], *section["repeats_s"]):
            stop_s = min(start_s + section["length_s"], content["duration_s"])
            labels.append((start_s, stop_s, f"section {rank}"))
    return "".join(f"{start:.6f}\t{stop:.6f}\t{text}\n" for start, stop, text in sorted(labels))


def _write_excerpt(
    content: dict[str, Any], task: ChorusTask, tree: OutputTree, file: BinaryIO, info: AudioInfo
) -> None:
    stem_format = choose_format(str(task.cut_format), info=info)
    start = round(content["excerpt_start_s"] * info.sample_rate)
    frames = min(round(task.clip_s * info.sample_rate), info.frames - start)
    samples = read_audio(file, name=task.element, start_sample=start, frames=frames, info=info)
    with (
        tree.writing(task.folder, NAME + stem_format.extension) as excerpt,
        StemWriter(excerpt, stem_format=stem_format) as writer,
    ):
        writer.write(samples)
