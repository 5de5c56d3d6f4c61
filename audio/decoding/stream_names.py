"""Names of the audio streams of a file that holds several: a song with its stems, or a film."""

from collections.abc import Iterator
from typing import Any, BinaryIO

from .mp4_index import stem_names

MIXTURE = "mixture"
# MUSDB18's files name them nowhere.
MUSDB18 = (MIXTURE, "drums", "bass", "other", "vocals")


def names_of_streams(container: Any, file: BinaryIO) -> tuple[str, ...]:
    """Names, all different, in lower case; none where there is one stream at most.

    By what Native Instruments' Stems note of the streams behind the mixture, else by the titles
    of all; five streams of an mp4 without either are those of MUSDB18.
    """
    streams = container.streams.audio
    if len(streams) < 2:
        return ()
    for found in _candidates(container, file):
        names = tuple(" ".join(name.split()).lower() for name in found)
        if len(names) == len(streams) and all(names) and len({*names}) == len(names):
            return names
    return tuple(f"stream {number}" for number in range(1, len(streams) + 1))


def _candidates(container: Any, file: BinaryIO) -> Iterator[tuple[str, ...]]:
    is_mp4 = "mp4" in container.format.name.split(",")
    if is_mp4:
        yield MIXTURE, *stem_names(file)
    said = [stream.metadata for stream in container.streams.audio]
    for key in ("title", "name", "handler_name"):
        yield tuple(metadata.get(key, "") for metadata in said)
    if is_mp4:
        yield MUSDB18
