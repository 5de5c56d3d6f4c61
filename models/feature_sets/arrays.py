"""Arrays as they lie on disk: frames first, float32 or complex64, little endian, in C order.

`(frames, bins)` of mono features, `(frames, channels, bins)` of features of each channel. So they
are written as frames come, a range of time is one range of bytes, and a sequence model takes them
as they are.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from .errors import FeatureSetError

RecordingFormat = Literal["npz", "safetensors"]
ShardFormat = Literal["webdataset", "tfrecord", "parquet", "zarr"]
DTYPES = {"float32": np.dtype("<f4"), "complex64": np.dtype("<c8")}
FORMATS_OF = {
    "float32": ("npz", "safetensors", "webdataset", "tfrecord", "parquet", "zarr"),
    "complex64": ("npz", "safetensors", "webdataset", "tfrecord", "zarr"),
}
"""Which formats of files and shards hold arrays of a dtype."""
MOST_AXES = 8


def require_dtype(dtype: str, format: str) -> None:
    """Refuse arrays that a format can't hold.

    Raises
    ------
    FeatureSetError
        it is none of `FORMATS_OF[dtype]`
    """
    if dtype not in FORMATS_OF:
        raise FeatureSetError(f"arrays are float32 or complex64, not {dtype}")
    if format not in FORMATS_OF[dtype]:
        others = ", ".join(FORMATS_OF[dtype])
        raise FeatureSetError(
            f"{format} holds no {dtype}: take features that are real, such as magnitude and phase, "
            f"or one of {others}"
        )


@dataclass(frozen=True)
class ArrayForm:
    """Shape and dtype of an array on disk.

    Attributes
    ----------
    shape
        frames first
    dtype
        `float32` or `complex64`
    """

    shape: tuple[int, ...]
    dtype: str

    @classmethod
    def of(cls, array: np.ndarray) -> "ArrayForm":
        """That of an array."""
        return cls(array.shape, array.dtype.name)

    @classmethod
    def parse(cls, shape: Any, dtype: Any) -> "ArrayForm":
        """One that a file tells.

        Raises
        ------
        ValueError
            it is none
        """
        if not isinstance(shape, list | tuple) or not 1 <= len(shape) <= MOST_AXES:
            raise ValueError(f"{shape!r} is no shape")
        if not all(type(length) is int and length >= 0 for length in shape):
            raise ValueError(f"{shape!r} is no shape")
        if dtype not in DTYPES:
            raise ValueError(f"arrays are float32 or complex64, not {dtype!r}")
        return cls(tuple(shape), dtype)

    @property
    def size_bytes(self) -> int:
        """Of the values."""
        return math.prod(self.shape) * DTYPES[self.dtype].itemsize

    def empty(self) -> np.ndarray:
        """An array to read into."""
        return np.empty(self.shape, DTYPES[self.dtype])


@dataclass(frozen=True)
class ArrayEntry:
    """An array that is to be written as its frames come.

    Attributes
    ----------
    name
        `set/signal`, or `set/signal/00003`
    shape
        frames first: how many there will be
    dtype
        `float32` or `complex64`
    blocks
        gives the frames in order, `(frames of the block, …)`; called once
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    blocks: Callable[[], Iterable[np.ndarray]]

    @property
    def form(self) -> ArrayForm:
        """Shape and dtype."""
        return ArrayForm(self.shape, self.dtype)

    def pieces(self) -> Iterator[memoryview]:
        """The bytes of its blocks.

        Raises
        ------
        ValueError
            the blocks do not make up the array
        """
        frames, *others = self.shape
        found = 0
        for block in self.blocks():
            if list(block.shape[1:]) != others or block.dtype != DTYPES[self.dtype]:
                raise ValueError(
                    f"{self.name}: a block is {block.dtype} {block.shape}, the array "
                    f"{self.dtype} {self.shape}"
                )
            found += len(block)
            if found > frames:
                break
            yield raw_bytes(block)
        if found != frames:
            raise ValueError(f"{self.name}: its blocks have other than {frames} frames")


def raw_bytes(array: np.ndarray) -> memoryview:
    """The values of an array, little endian, in C order."""
    ordered = np.ascontiguousarray(array, DTYPES[array.dtype.name])
    return bytes_of(ordered)


def read_into(file: Any, array: np.ndarray) -> None:
    """Read the values of an array in C order; EOFError if a file ends early.

    Parameters
    ----------
    file
        buffered or not, with the method `readinto`
    """
    left = bytes_of(array)
    while left:
        count = file.readinto(left)
        if not count:
            raise EOFError("it ends early")
        left = left[count:]


def bytes_of(array: np.ndarray) -> memoryview:
    """The memory of an array in C order."""
    flat: Any = array.reshape(-1).view(np.uint8)
    return memoryview(flat)


def require_names(names: Sequence[str]) -> None:
    """Refuse names of arrays that not all formats can hold, and names that come twice.

    Raises
    ------
    FeatureSetError
        a name is not of two parts or more with slashes between, holds what can't be printed, or
        comes twice
    """
    for name in names:
        parts = name.split("/")
        if len(parts) < 2 or not name.isprintable() or {"", ".", ".."} & {*parts} or "\\" in name:
            raise FeatureSetError(f"{name!r} is no name of an array: it is like log_mel/vocals")
    if len({*names}) < len(names):
        raise FeatureSetError(f"a name comes twice in {', '.join(names)}")


class RecordingArrays:
    """The arrays in a recording's file.

    Attributes
    ----------
    name
        of the file in messages
    metadata
        what was written with them
    forms
        of the arrays, by name
    """

    def __init__(self, name: str, metadata: dict[str, Any], forms: Mapping[str, ArrayForm]) -> None:
        self.name = name
        self.metadata = metadata
        self.forms = forms

    @property
    def names(self) -> tuple[str, ...]:
        """Of the arrays, as they were written."""
        return tuple(self.forms)

    def read(self, name: str) -> np.ndarray:
        """An array, float32 or complex64, frames first.

        Raises
        ------
        KeyError
            there is none of this name
        FeatureSetError
            the file is not whole
        """
        raise NotImplementedError
