"""Records survive their coders, bit for bit, and are never pickled."""

import dataclasses
import time
from typing import Any

import apache_beam as beam
import numpy as np
import pytest

from beamsplitter.audio.decoding.audio_reader import AudioInfo
from beamsplitter.audio.parts import Part
from beamsplitter.models.separators.base import Label
from beamsplitter.transforms.coders import RecordCoder, TrackCoder
from beamsplitter.transforms.plain import from_plain, to_plain
from beamsplitter.transforms.records import (
    Failure,
    FileReceipt,
    PartReceipt,
    PartReference,
    Receipt,
    Recording,
    Track,
)

FILE = FileReceipt("a.flac", "stems", "background", "00ff", "AAAAAA==", 12, 7, 0.5, 0)
RECORDING = Recording(
    element="b/å \udcff\n#.wav",
    uri="/in/x.wav",
    folder="b/x",
    size_bytes=3,
    generation="3-4",
    todo=("stems", "plots"),
    kept=(FILE,),
    stale=("old.ogg",),
    info=AudioInfo("wav", "pcm_16", 44100, 2, 1000, 16, False),
    start_sample=5,
    total_samples=900,
    scratch="scratch/x",
)
PART = Part(1, 3, 300, 600, 250, 650, 290, 610)
REFERENCE = PartReference(RECORDING, PART)
SMALL = [
    RECORDING,
    REFERENCE,
    PartReceipt(RECORDING, PART, "plots", (("mixture", "p/0.npy"),)),
    Receipt("x", "x", 1.5, (FILE, FILE), skipped=True),
    Failure("x", "LoadAudio", "EmptyAudioError", "no", part_index=2, generation="7"),
]


@pytest.mark.parametrize("record", SMALL, ids=lambda record: type(record).__name__)
def test_small_records_survive_their_coder(record: Any) -> None:
    coder = beam.coders.registry.get_coder(type(record))
    assert type(coder) is RecordCoder
    assert coder.decode(coder.encode(record)) == record
    assert coder.is_deterministic()


def test_tuples_with_records_use_their_coder() -> None:
    hint = beam.typehints.native_type_compatibility.convert_to_beam_type(tuple[bytes, Track])
    coder = beam.coders.registry.get_coder(hint)
    assert any(isinstance(part, TrackCoder) for part in coder.coders())


def test_unknown_keys_are_refused() -> None:
    with pytest.raises(TypeError):
        from_plain(FileReceipt, {**to_plain(FILE), "more": 1})


def full_track() -> Track:
    generator = np.random.default_rng(0)

    def array(*shape: int) -> np.ndarray:
        return generator.standard_normal(shape).astype(np.float32)

    return Track(
        REFERENCE,
        binary=b"\x00bytes",
        samples=array(2, 9),
        stft=(array(2, 3, 4) + 1j * array(2, 3, 4)).astype(np.complex64),
        magnitude=array(2, 3, 4).transpose(0, 2, 1),
        phase=array(1, 2, 2).astype(np.complex64),
        nearest=array(2, 3, 4),
        net=array(2, 3, 4),
        n_fft=2048,
        hop_length=512,
        plots={"mixture": b"\x89PNG", "": b""},
        masks={"background": array(2, 3, 4)},
        statistics=(0.25, 1.5),
        failure=Failure("a", "RunInference", "ModelError", "too large", traceback="line"),
        labels=(Label(0.5, 1.25, "loud"), Label(2.0, 3.0, "tab\there", 0.25)),
        stems={"background": array(2, 9), "foreground": array(2, 9)},
        powers={"mixture": array(3, 4)},
        source_sha256="ab",
        files=(FILE,),
        part_files=(("stems", "background", "p"),),
        begun_s=time.monotonic() - 2,
        work_before_s=3,
    )


@pytest.mark.parametrize("track", [full_track(), Track(REFERENCE), Track(REFERENCE, binary=b"")])
def test_tracks_survive_their_coder(track: Track) -> None:
    coder = beam.coders.registry.get_coder(Track)
    assert type(coder) is TrackCoder
    back = coder.decode(coder.encode(track))
    for field in dataclasses.fields(Track):
        if field.name not in ("begun_s", "work_before_s"):
            np.testing.assert_equal(getattr(back, field.name), getattr(track, field.name))
    assert back.work_s == pytest.approx(track.work_s, abs=1)


def test_every_field_of_a_track_is_encoded_somewhere() -> None:
    empty, full = Track(REFERENCE), full_track()
    for field in dataclasses.fields(Track):
        if field.name != "reference":
            assert repr(getattr(full, field.name)) != repr(getattr(empty, field.name))


def test_the_size_estimate_of_a_track_does_not_encode_it(monkeypatch: pytest.MonkeyPatch) -> None:
    coder = TrackCoder(Track)
    track = full_track()
    encoded = len(coder.encode(track))
    monkeypatch.setattr(TrackCoder, "encode", None)
    assert 0 < coder.estimate_size(track) < encoded
