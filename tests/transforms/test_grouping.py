"""Records meet by key without being pickled."""

from typing import Any

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.testing.util import assert_that, equal_to

from beamsplitter.transforms import coders  # noqa: F401  (registers the coders)
from beamsplitter.transforms.grouping import CoGroupRecords
from beamsplitter.transforms.records import Failure, Receipt


class OnlyBytes(beam.PTransform):
    """Beam's CoGroupByKey, which pickles whatever is no primitive."""

    together = beam.CoGroupByKey

    def expand(self, branches: Any) -> beam.PCollection:
        def checked(keyed: tuple[Any, Any]) -> tuple[bytes, bytes]:
            key, value = keyed
            assert type(key) is bytes and type(value) is bytes
            return key, value

        return {
            name: branch | f"Check-{name}" >> beam.Map(checked) for name, branch in branches.items()
        } | self.together()


def test_records_meet_in_the_bytes_of_their_coders(monkeypatch: pytest.MonkeyPatch) -> None:
    def receipt(index: int) -> tuple[bytes, Receipt]:
        return b"a", Receipt(f"{index}.wav", "a", 1.0, ())

    def failure(_: int) -> tuple[bytes, Failure]:
        return b"b", Failure("b.wav", "LoadAudio", "EmptyAudioError", "no")

    monkeypatch.setattr(beam, "CoGroupByKey", OnlyBytes)
    with beam.Pipeline(options=PipelineOptions([], runner="FnApiRunner")) as pipeline:
        numbers = pipeline | beam.Create([0, 1])
        branches = {
            "stems": numbers
            | "Receipt" >> beam.Map(receipt).with_output_types(tuple[bytes, Receipt]),
            "failures": numbers
            | "Failure" >> beam.Map(failure).with_output_types(tuple[bytes, Failure]),
        }
        names = (
            branches
            | CoGroupRecords()
            | beam.Map(
                lambda group: (
                    group[0],
                    sorted(each.element for each in group[1]["stems"]),
                    [each.step for each in group[1]["failures"]],
                )
            )
        )
        expected = [(b"a", ["0.wav", "1.wav"], []), (b"b", [], ["LoadAudio"] * 2)]
        assert_that(names, equal_to(expected))
