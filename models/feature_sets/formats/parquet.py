"""Shards as Parquet: a row a sample, with columns of its key, its facts and each array.

An array is a struct of `data` and `shape`, as Arrow's canonical `arrow.variable_shape_tensor` is
stored. Nothing is compressed, so that it is read quickly.
"""

from typing import Any, BinaryIO

import numpy as np
import pyarrow
from pyarrow import parquet

from ..errors import FeatureSetError
from ..json_text import json_bytes
from ..samples import Sample
from .escaping import in_utf8

GROUP_BYTES = 8 << 20
"""Of arrays in a row group: what is held while writing, and what is read at once. Larger ones are
read more slowly, as they do not stay in the processor's caches."""


class ParquetWriter:
    """Writes samples as rows.

    Parameters
    ----------
    file
        empty; it is left open
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._writer: parquet.ParquetWriter | None = None
        self._samples: list[Sample] = []
        self._size_bytes = 0

    def write(self, sample: Sample) -> dict[str, None]:
        """Append a sample; its arrays lie in no range of bytes."""
        self._samples.append(sample)
        self._size_bytes += sum(array.nbytes for array in sample.arrays.values())
        if self._size_bytes >= GROUP_BYTES:
            self._write_group()
        return dict.fromkeys(sample.arrays)

    def _write_group(self) -> parquet.ParquetWriter:
        if self._writer is None:
            schema = _schema(self._samples[0] if self._samples else Sample("none", {}, {}))
            self._writer = parquet.ParquetWriter(
                self._file,
                schema,
                compression="none",
                use_dictionary=False,
                write_statistics=False,
            )
        if self._samples:
            self._writer.write_table(_table(self._samples, self._writer.schema))
        self._samples = []
        self._size_bytes = 0
        return self._writer

    def close(self) -> None:
        """Write what the file ends with."""
        self._write_group().close()


def _schema(sample: Sample) -> pyarrow.Schema:
    columns = [pyarrow.field("key", pyarrow.string(), nullable=False)]
    columns += [
        pyarrow.field(name, pyarrow.scalar(_plain(fact)).type)
        for name, fact in sample.facts.items()
    ]
    for name, array in sample.arrays.items():
        values = pyarrow.list_(pyarrow.field("item", pyarrow.float32(), nullable=False))
        lengths = pyarrow.list_(
            pyarrow.field("item", pyarrow.int32(), nullable=False), list_size=array.ndim
        )
        columns.append(
            pyarrow.field(
                name,
                pyarrow.struct(
                    [
                        pyarrow.field("data", values, nullable=False),
                        pyarrow.field("shape", lengths, nullable=False),
                    ]
                ),
                nullable=False,
            )
        )
    return pyarrow.schema(columns)


def _table(samples: list[Sample], schema: pyarrow.Schema) -> pyarrow.Table:
    columns: list[pyarrow.Array] = [pyarrow.array([in_utf8(sample.key) for sample in samples])]
    first = samples[0]
    for name in first.facts:
        facts = [_plain(sample.facts[name]) for sample in samples]
        try:
            columns.append(pyarrow.array(facts, schema.field(name).type))
        except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError) as error:
            raise FeatureSetError(f"{name}: is of another type in some samples: {error}") from error
    for name in first.arrays:
        columns.append(_tensors([sample.arrays[name] for sample in samples], schema.field(name)))
    return pyarrow.Table.from_arrays(columns, schema=schema)


def _tensors(arrays: list[np.ndarray], field: pyarrow.Field) -> pyarrow.Array:
    """A column of arrays of the same number of axes."""
    values, lengths = (field.type.field(name).type for name in ("data", "shape"))
    ends = np.cumsum([0, *(array.size for array in arrays)])
    if ends[-1] > np.iinfo(np.int32).max:
        raise FeatureSetError(
            f"{field.name}: is too large for a row of Parquet: take shorter excerpts or another "
            "format"
        )
    flat = np.concatenate([array.reshape(-1) for array in arrays])
    shapes = np.array([array.shape for array in arrays], np.int32).reshape(-1)
    return pyarrow.StructArray.from_arrays(
        [
            pyarrow.ListArray.from_arrays(ends.astype(np.int32), flat, type=values),
            pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(shapes), type=lengths),
        ],
        fields=[*field.type],
    )


def _plain(fact: Any) -> Any:
    """A fact as a column has it: a text or a number, or else JSON."""
    if isinstance(fact, str):
        return in_utf8(fact)
    return fact if isinstance(fact, bool | int | float) else json_bytes(fact).decode()
