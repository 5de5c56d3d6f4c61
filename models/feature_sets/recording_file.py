"""The features of a recording in one file.

Arrays are called `set/signal`, or `set/signal/00003` where a recording has several excerpts. Their
metadata is an object of JSON:

    format          1
    element         the recording, as the job names it
    folder          its folder below the output's
    sets            the parameters of each set of features, by name
    signals         what features are of: "mixture", and stems
    excerpts        of what times: {"start_s": …, "duration_s": …} each
    indexed         whether arrays end with the number of an excerpt
    statistics      of the arrays
"""

from collections.abc import Iterable
from typing import Any, BinaryIO

from .arrays import ArrayEntry, RecordingArrays, RecordingFormat, require_dtype, require_names
from .formats.npz import MAGIC, NpzArrays, write_npz
from .formats.safetensors import SafetensorsArrays, write_safetensors

FORMAT = 1


def write_recording_file(
    file: BinaryIO,
    entries: Iterable[ArrayEntry],
    metadata: dict[str, Any],
    format: RecordingFormat,
) -> None:
    """Write arrays as their frames come: no more than a block is held.

    The same arrays and metadata give the same bytes.

    Parameters
    ----------
    file
        empty, seekable; it is left open
    entries
        the arrays; their blocks are asked for one array after the other
    metadata
        what JSON can tell

    Raises
    ------
    FeatureSetError
        a name is none, or comes twice
    ValueError
        blocks do not make up their array, or the metadata is no JSON
    """
    entries = [*entries]
    require_names([entry.name for entry in entries])
    for entry in entries:
        require_dtype(entry.dtype, format)
    if format == "npz":
        write_npz(file, entries, metadata)
    else:
        write_safetensors(file, entries, metadata)


def open_recording_file(file: BinaryIO, *, name: str) -> RecordingArrays:
    """The arrays of a file of either format, by its first bytes.

    What it says is held against its size first; nothing in it is run.

    Parameters
    ----------
    file
        open for random access while arrays are read
    name
        of the file in messages

    Raises
    ------
    FeatureSetError
        it is not whole, or no file of a recording's arrays
    """
    file.seek(0)
    kind = NpzArrays if file.read(len(MAGIC)) == MAGIC else SafetensorsArrays
    return kind(file, name)
