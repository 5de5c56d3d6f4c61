"""CoGroupByKey of records, which cross it in their own coder's bytes."""

from collections.abc import Iterable
from typing import Any

import apache_beam as beam

Keyed = tuple[bytes, bytes]


class CoGroupRecords(beam.PTransform):
    """Keyed records of several branches, met by key: `(key, {branch: [records], …})`.

    Beam's CoGroupByKey loses the types of the values, and would pickle them.

    Parameters
    ----------
    windowing
        put on each branch before they meet, where it is given
    """

    def __init__(self, windowing: beam.PTransform | None = None) -> None:
        super().__init__()
        self.windowing = windowing

    def expand(self, branches: Any) -> beam.PCollection:
        """A dict of PCollections of `(bytes, record)`, whose type hints name the records."""
        coders = {
            name: beam.coders.registry.get_coder(_record_type_of(branch))
            for name, branch in branches.items()
        }
        encoded = {
            name: branch
            | f"Encode-{name}" >> beam.Map(_encoded, coders[name]).with_output_types(Keyed)
            for name, branch in branches.items()
        }
        if self.windowing is not None:
            encoded = {
                name: branch | f"Window-{name}" >> self.windowing
                for name, branch in encoded.items()
            }
        return encoded | beam.CoGroupByKey() | "Decode" >> beam.Map(_decoded, coders)


def _record_type_of(branch: beam.PCollection) -> type:
    _, record_type = branch.element_type.tuple_types
    return record_type


def _encoded(keyed: tuple[bytes, Any], coder: beam.coders.Coder) -> Keyed:
    key, record = keyed
    return key, coder.encode(record)


def _decoded(
    group: tuple[bytes, dict[str, Iterable[bytes]]], coders: dict[str, beam.coders.Coder]
) -> tuple[bytes, dict[str, list[Any]]]:
    key, branches = group
    return key, {
        name: [coders[name].decode(encoded) for encoded in branch]
        for name, branch in branches.items()
    }
