"""Work is dealt out evenly, and results have one place each."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from beamsplitter.audio.decoding.audio_reader import AudioInfo
from beamsplitter.audio.parts import plan_parts
from beamsplitter.transforms.planning import deal
from beamsplitter.transforms.records import PartReference, Recording


def reference(index: int, duration_s: float) -> PartReference:
    frames = round(duration_s * 44100)
    recording = Recording(
        element=f"{index}.wav",
        uri=f"/{index}.wav",
        folder=str(index),
        size_bytes=1,
        generation="",
        todo=("stems",),
        info=AudioInfo("wav", "pcm_16", 44100, 2, frames, 16, False),
        start_sample=0,
        total_samples=frames,
    )
    return PartReference(recording, plan_parts(frames, 44100, 2, part_seconds=300)[0])


@given(
    durations_s=st.lists(st.floats(0.5, 300), max_size=60),
    workers=st.integers(1, 8),
    seed=st.integers(0, 9),
)
@settings(deadline=None)
def test_every_part_is_dealt_once_in_an_order_that_is_always_the_same(
    durations_s: list[float], workers: int, seed: int
) -> None:
    parts = [reference(index, duration_s) for index, duration_s in enumerate(durations_s)]
    dealt = list(deal(parts, workers))
    shuffled = [parts[index] for index in np.random.default_rng(seed).permutation(len(parts))]
    assert list(deal(shuffled, workers)) == dealt
    assert sorted(part.recording.element for _, part in dealt) == sorted(
        part.recording.element for part in parts
    )
    first = [worker for worker, _ in dealt[:workers]]
    assert first == list(range(len(first)))


def test_unequal_files_are_dealt_within_a_few_percent() -> None:
    durations_s = np.random.default_rng(0).uniform(20, 240, 24)
    totals = [0.0, 0.0]
    for worker, part in deal([reference(i, d) for i, d in enumerate(durations_s)], 2):
        totals[worker] += part.recording.duration_s
    assert max(totals) / min(totals) < 1.03
