"""Which receipts meet."""

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.testing.util import assert_that, equal_to

from beamsplitter.audio.decoding.audio_reader import AudioInfo
from beamsplitter.audio.parts import plan_parts
from beamsplitter.transforms import coders  # noqa: F401  (registers the coders)
from beamsplitter.transforms.receipts import receipts_by_recording
from beamsplitter.transforms.records import Failure, PartReceipt, Recording

FRAMES = 3 * 80000
PARTS = plan_parts(FRAMES, 8000, 1, part_seconds=10)


def receipt(generation: str, index: int) -> PartReceipt:
    recording = Recording(
        element="long.wav",
        uri="/long.wav",
        folder="long",
        size_bytes=1,
        generation=generation,
        todo=("stems",),
        info=AudioInfo("wav", "pcm_16", 8000, 1, FRAMES, 16, False),
        start_sample=0,
        total_samples=FRAMES,
    )
    return PartReceipt(recording, PARTS[index], "stems", ())


def test_parts_of_two_generations_never_meet() -> None:
    came = [("A", 0), ("A", 1), ("B", 0), ("A", 2)]
    failure = Failure(
        "long.wav", "LoadAudio", "EmptyAudioError", "no", part_index=1, generation="B"
    )
    with beam.Pipeline(options=PipelineOptions([], runner="FnApiRunner")) as pipeline:
        receipts = (
            pipeline
            | "Came" >> beam.Create(came)
            | beam.MapTuple(receipt).with_output_types(PartReceipt)
        )
        failures = pipeline | "Failed" >> beam.Create([failure]).with_output_types(Failure)
        groups = receipts_by_recording(receipts, [failures], ("stems",)) | beam.MapTuple(
            lambda _, group: (
                sorted((each.recording.generation, each.part.index) for each in group["stems"]),
                [each.generation for each in group["failures"]],
            )
        )
        expected = [([("A", 0), ("A", 1), ("A", 2)], []), ([("B", 0)], ["B"])]
        assert_that(groups, equal_to(expected))
