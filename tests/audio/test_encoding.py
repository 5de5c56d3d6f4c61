"""Encoding: what is read back is what `quantize` says, and the bytes never change."""

import importlib.util
import io
import math
import tempfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from beamsplitter.audio.decoding.audio_reader import AudioInfo, probe, read_audio
from beamsplitter.audio.encoding import StemFormat, StemWriter, choose_format, quantize
from beamsplitter.audio.errors import UnsupportedFormatError

_SPEC = importlib.util.spec_from_file_location(
    "audio_files", Path(__file__).parents[1] / "audio_files.py"
)
assert _SPEC is not None and _SPEC.loader is not None
files = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(files)

LOSSLESS = [
    StemFormat("flac", 16),
    StemFormat("flac", 24),
    StemFormat("wav", 16),
    StemFormat("wav", 24),
    StemFormat("wav", 32),
    StemFormat("wav", 32, is_float=True),
]
LOSSY = [StemFormat("ogg", None), StemFormat("mp3", None)]


def label(stem_format: StemFormat) -> str:
    return f"{stem_format.container}{stem_format.bit_depth}{'f' * stem_format.is_float}"


def encode(
    samples: np.ndarray, rate: int, stem_format: StemFormat, *, block: int = 100_000
) -> tuple[bytes, StemWriter]:
    file = io.BytesIO()
    with StemWriter(
        file, stem_format=stem_format, sample_rate=rate, channels=len(samples)
    ) as writer:
        for first in range(0, samples.shape[1], block):
            writer.write(samples[:, first : first + block])
    assert not file.closed
    return file.getvalue(), writer


@pytest.mark.parametrize("rate,channels", [(44100, 2), (8000, 1), (192000, 2), (48000, 8)])
@pytest.mark.parametrize("stem_format", LOSSLESS, ids=label)
def test_lossless_stems_read_back_as_quantized(
    stem_format: StemFormat, rate: int, channels: int
) -> None:
    song = files.chirp(seconds=1.1, rate=rate, channels=channels) * 3
    expected, clipped = quantize(song, stem_format)
    stem, writer = encode(song, rate, stem_format, block=777)
    assert (writer.frames, writer.clipped) == (song.shape[1], clipped)
    np.testing.assert_array_equal(read_audio(stem, name="x"), expected)
    by_soundfile, _ = sf.read(io.BytesIO(stem), dtype="float32", always_2d=True)
    np.testing.assert_array_equal(by_soundfile.T, expected)
    info = probe(stem, name="x")
    assert (info.sample_rate, info.channels, info.frames) == (rate, *song.shape)
    assert (info.bit_depth, info.is_float) == (stem_format.bit_depth, stem_format.is_float)


@settings(max_examples=60, deadline=None)
@given(
    samples=hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 3), st.integers(1, 40)),
        elements=st.floats(-1.5, 1.5, width=32),
    ),
    stem_format=st.sampled_from(LOSSLESS),
)
def test_any_samples_read_back_as_quantized(samples: np.ndarray, stem_format: StemFormat) -> None:
    expected, clipped = quantize(samples, stem_format)
    stem, writer = encode(samples, 44100, stem_format)
    np.testing.assert_array_equal(read_audio(stem, name="x"), expected)
    assert writer.clipped == clipped
    again, none_clipped = quantize(expected, stem_format)
    if stem_format.bit_depth != 32:  # 2^31 - 1 rounds to 1.0, no float32 lies between
        np.testing.assert_array_equal(again, expected)
        assert none_clipped == 0


@pytest.mark.parametrize("bits", [16, 24, 32])
def test_quantize_rounds_and_clips(bits: int) -> None:
    step = 2.0 ** (1 - bits)
    samples = np.array([[0.4 * step, 0.6 * step, -1.0, 1.5, -1.5, 0.25]], np.float32)
    rounded, clipped = quantize(samples, StemFormat("wav", bits))
    assert clipped == 2 and rounded.dtype == np.float32
    expected = np.array([[0, step, -1, 1 - step, -1, 0.25]], np.float32)
    np.testing.assert_array_equal(rounded, expected)


def test_float_stems_are_neither_rounded_nor_clipped() -> None:
    samples = np.array([[3.5, -7.25, 1e-30]], np.float32)
    stem, writer = encode(samples, 44100, StemFormat("wav", 32, is_float=True))
    np.testing.assert_array_equal(read_audio(stem, name="x"), samples)
    assert writer.clipped == 0


@pytest.mark.parametrize("stem_format", LOSSY, ids=label)
def test_lossy_formats_clip_and_count(stem_format: StemFormat) -> None:
    samples = np.array([[0.5, 1.5, -2.0, 1.0]], np.float32)
    clipped_samples, clipped = quantize(samples, stem_format)
    np.testing.assert_array_equal(clipped_samples, [[0.5, 1.0, -1.0, 1.0]])
    assert clipped == 2


@pytest.mark.parametrize("stem_format", LOSSLESS + LOSSY, ids=label)
def test_same_samples_same_bytes(stem_format: StemFormat) -> None:
    song = files.chirp(seconds=2.0)
    first, _ = encode(song, 44100, stem_format)
    assert first == encode(song, 44100, stem_format, block=4321)[0] or stem_format in LOSSY
    assert first == encode(song, 44100, stem_format)[0]


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100, 48000])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("stem_format", LOSSY, ids=label)
def test_lossy_stems_are_exactly_as_long_and_in_place(
    stem_format: StemFormat, rate: int, channels: int
) -> None:
    for frames in (rate * 2, rate * 2 + 1, rate + 577, 1500):
        song = files.chirp(seconds=frames / rate, rate=rate, channels=channels)
        stem, writer = encode(song, rate, stem_format)
        samples = read_audio(stem, name="x")
        assert samples.shape == song.shape
        assert writer.frames == frames
        if frames >= rate:
            size = 1 << (2 * frames).bit_length()
            spectrum = np.fft.rfft(samples[0], size) * np.conj(np.fft.rfft(song[0], size))
            assert np.argmax(np.fft.irfft(spectrum)) == 0
            error = np.sqrt(np.mean((samples - song) ** 2) / np.mean(song**2))
            assert 20 * math.log10(error) < -6


def test_large_vorbis_blocks_do_not_crash() -> None:
    song = np.tile(files.chirp(seconds=3.0), (1, 10))
    stem, _ = encode(song, 44100, StemFormat("ogg", None), block=song.shape[1])
    assert probe(stem, name="x").frames == song.shape[1]


def test_ogg_pages_have_right_checksums() -> None:
    stem, _ = encode(files.chirp(seconds=3.0), 44100, StemFormat("ogg", None))
    import mutagen.ogg

    file = io.BytesIO(stem)
    pages = []
    while file.tell() < len(stem):
        begin = file.tell()
        page = mutagen.ogg.OggPage(file)
        assert page.write() == stem[begin : file.tell()]
        pages.append(page)
    assert len(pages) > 3 and len({page.serial for page in pages}) == 1


def test_wav_of_4_gib_becomes_rf64() -> None:
    with tempfile.TemporaryFile() as file:
        stem_format = StemFormat("wav", 16)
        with StemWriter(file, stem_format=stem_format, sample_rate=44100, channels=2) as writer:
            writer.write(np.full((2, 100), 0.5, np.float32))
            size = 2**32 + 4000
            file.truncate(file.tell() - 400 + size)  # a sparse file, as if it all were written
            writer._encoder._bytes = size  # type: ignore[attr-defined]
        file.seek(0)
        assert file.read(4) == b"RF64"
        assert probe(file, name="x").frames == size // 4
        file.seek(0)
        assert sf.info(file).frames == size // 4
        samples = read_audio(file, name="x", frames=101)
        assert (samples[:, :100] == 0.5).all() and not samples[:, 100].any()


def test_small_wav_is_plain_riff() -> None:
    stem, _ = encode(files.chirp(seconds=0.1), 44100, StemFormat("wav", 24))
    assert stem[:4] == b"RIFF"
    assert int.from_bytes(stem[4:8], "little") == len(stem) - 8


def test_stems_without_samples() -> None:
    stem, writer = encode(np.zeros((2, 0), np.float32), 44100, StemFormat("wav", 16))
    assert writer.frames == 0 and sf.info(io.BytesIO(stem)).frames == 0


@pytest.mark.parametrize("stem_format", LOSSLESS, ids=label)
def test_large_blocks_are_written_in_little_memory(stem_format: StemFormat) -> None:
    song = np.tile(files.chirp(seconds=3.0), (1, 10))
    with tempfile.TemporaryFile() as file:
        tracemalloc.start()
        try:
            with StemWriter(file, stem_format=stem_format, sample_rate=44100, channels=2) as writer:
                writer.write(song)
            _, peak_of_writing = tracemalloc.get_traced_memory()
            tracemalloc.reset_peak()
            quantize(song, stem_format)
            _, peak_of_quantizing = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak_of_writing < 2 * 2**20
    assert peak_of_quantizing < song.nbytes + 2 * 2**20


def test_wrong_shapes_are_refused() -> None:
    writer = StemWriter(
        io.BytesIO(), stem_format=StemFormat("wav", 16), sample_rate=8000, channels=2
    )
    with pytest.raises(ValueError, match="shape"):
        writer.write(np.zeros((1, 5), np.float32))


def info(
    *, bits: int | None = 16, is_float: bool = False, rate: int = 44100, channels: int = 2
) -> AudioInfo:
    return AudioInfo("wav", "pcm_16", rate, channels, 1000, bits, is_float)


@pytest.mark.parametrize(
    "container,depth,source,expected",
    [
        ("flac", None, info(bits=8), StemFormat("flac", 16)),
        ("flac", None, info(bits=16), StemFormat("flac", 16)),
        ("flac", "source", info(bits=None), StemFormat("flac", 16)),
        ("flac", None, info(bits=24), StemFormat("flac", 24)),
        ("flac", None, info(bits=32), StemFormat("flac", 24)),
        ("flac", None, info(bits=32, is_float=True), StemFormat("flac", 24)),
        ("flac", 24, info(), StemFormat("flac", 24)),
        ("wav", None, info(bits=8), StemFormat("wav", 16)),
        ("wav", None, info(bits=None), StemFormat("wav", 16)),
        ("wav", None, info(bits=24), StemFormat("wav", 24)),
        ("wav", None, info(bits=32), StemFormat("wav", 32)),
        ("wav", None, info(bits=32, is_float=True), StemFormat("wav", 32, True)),
        ("wav", None, info(bits=64, is_float=True), StemFormat("wav", 32, True)),
        ("wav", "32f", info(), StemFormat("wav", 32, True)),
        ("wav", "32", info(), StemFormat("wav", 32)),
        ("wav", 16, info(bits=24), StemFormat("wav", 16)),
        ("ogg", None, info(bits=24), StemFormat("ogg", None)),
        ("mp3", "source", info(), StemFormat("mp3", None)),
    ],
)
def test_choose_format(
    container: str, depth: str | int | None, source: AudioInfo, expected: StemFormat
) -> None:
    chosen = choose_format(container, bit_depth=depth, info=source)
    assert chosen == expected and chosen.extension == f".{container}"


@pytest.mark.parametrize(
    "container,depth,source,match",
    [
        ("aac", None, info(), "use flac"),
        ("mp3", None, info(channels=3), "2 channels.*use flac"),
        ("mp3", None, info(rate=96000), "96; use flac"),
        ("flac", None, info(channels=9), "use wav"),
        ("flac", None, info(rate=700000), "use wav"),
        ("ogg", None, info(rate=384000), "use wav"),
        ("flac", 32, info(), "use 16, 24"),
        ("flac", "32f", info(), "use 16, 24"),
        ("wav", 20, info(), "use 16, 24, 32, 32f"),
        ("ogg", 16, info(), "no bit depth"),
    ],
)
def test_choose_format_refuses(
    container: str, depth: str | int | None, source: AudioInfo, match: str
) -> None:
    with pytest.raises(UnsupportedFormatError, match=match):
        choose_format(container, bit_depth=depth, info=source)
