"""Encoding: what is read back is what `quantize` says, and the bytes never change."""

import dataclasses
import importlib.util
import io
import math
import os
import tempfile
import tracemalloc
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile as sf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from beamsplitter.audio.decoding.audio_reader import AudioInfo, probe, read_audio
from beamsplitter.audio.encoding import StemWriter, quantize
from beamsplitter.audio.errors import UnsupportedFormatError
from beamsplitter.audio.extensions import has_lossy_extension
from beamsplitter.audio.stem_format import BIT_RATES_KBPS, SAMPLE_RATES, StemFormat, choose_format

_SPEC = importlib.util.spec_from_file_location(
    "audio_files", Path(__file__).parents[1] / "audio_files.py"
)
assert _SPEC is not None and _SPEC.loader is not None
files = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(files)

FLOATS = StemFormat(container="wav", bit_depth=32, is_float=True)
LOSSLESS = [
    StemFormat(container="flac", bit_depth=16),
    StemFormat(container="flac", bit_depth=24),
    StemFormat(container="wav", bit_depth=16),
    StemFormat(container="wav", bit_depth=24),
    StemFormat(container="wav", bit_depth=32),
    FLOATS,
]
LOSSY = [
    StemFormat(container="ogg", quality=6),
    StemFormat(container="mp3", bit_rate_kbps=320),
    StemFormat(container="m4a", bit_rate_kbps=256),
    StemFormat(container="opus", bit_rate_kbps=160),
]


def label(stem_format: StemFormat) -> str:
    return f"{stem_format.container}{stem_format.bit_depth}{'f' * stem_format.is_float}"


def encode(
    samples: np.ndarray, rate: int, stem_format: StemFormat, *, block: int = 100_000
) -> tuple[bytes, StemWriter]:
    file = io.BytesIO()
    stem_format = dataclasses.replace(stem_format, sample_rate=rate, channels=len(samples))
    with StemWriter(file, stem_format=stem_format) as writer:
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
    rounded, clipped = quantize(samples, StemFormat(container="wav", bit_depth=bits))
    assert clipped == 2 and rounded.dtype == np.float32
    expected = np.array([[0, step, -1, 1 - step, -1, 0.25]], np.float32)
    np.testing.assert_array_equal(rounded, expected)


def test_float_stems_are_neither_rounded_nor_clipped() -> None:
    samples = np.array([[3.5, -7.25, 1e-30]], np.float32)
    stem, writer = encode(samples, 44100, FLOATS)
    np.testing.assert_array_equal(read_audio(stem, name="x"), samples)
    assert writer.clipped == 0


@pytest.mark.parametrize("stem_format", LOSSLESS + LOSSY, ids=label)
def test_names_tell_which_formats_are_lossy(stem_format):
    assert has_lossy_extension(f"folder.mp3/stem{stem_format.extension.upper()}") == (
        stem_format in LOSSY
    )


@pytest.mark.parametrize("stem_format", LOSSY, ids=label)
def test_lossy_formats_clip_and_count(stem_format: StemFormat) -> None:
    samples = np.array([[0.5, 1.5, -2.0, 1.0]], np.float32)
    clipped_samples, clipped = quantize(samples, stem_format)
    np.testing.assert_array_equal(clipped_samples, [[0.5, 1.0, -1.0, 1.0]])
    assert clipped == 2


@pytest.mark.parametrize("stem_format", LOSSLESS + LOSSY, ids=label)
def test_same_samples_same_bytes(stem_format: StemFormat) -> None:
    song = files.chirp(seconds=2.0)
    first, _ = encode(song, 48000, stem_format)
    assert first == encode(song, 48000, stem_format, block=4321)[0] or stem_format in LOSSY
    assert first == encode(song, 48000, stem_format)[0]


RATES_OF = {
    "ogg": (8000, 22050, 44100, 96000),
    "mp3": (8000, 16000, 22050, 44100, 48000),
    "m4a": (8000, 22050, 44100, 48000, 96000),
    "opus": (8000, 12000, 16000, 24000, 48000),
}
LENGTHS = (1, 2, 313, 1009, 1023, 1024, 1025, 16384, 16385, 50021)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize(
    "stem_format,rate",
    [(each, rate) for each in LOSSY for rate in RATES_OF[each.container]],
    ids=str,
)
def test_lossy_stems_are_exactly_as_long_and_in_place(
    stem_format: StemFormat, rate: int, channels: int
) -> None:
    source = info(rate=rate, channels=channels)
    stem_format = choose_format(stem_format.container, info=source)
    for frames in (*LENGTHS, rate + 1):
        song = files.chirp(seconds=frames / rate, rate=rate, channels=channels)
        stem, writer = encode(song, rate, stem_format, block=9973)
        found = probe(stem, name="x")
        assert (found.frames, found.sample_rate, found.channels) == (frames, rate, channels)
        samples = read_audio(stem, name="x")
        assert samples.shape == song.shape
        assert writer.frames == frames
        if frames >= rate:
            assert files.offset(samples[0], song[0]) == 0
            error = np.sqrt(np.mean((samples - song) ** 2) / np.mean(song**2))
            assert 20 * math.log10(error) < -6


def by_ffmpeg(stem: bytes) -> np.ndarray:
    """The samples as PyAV decodes them, with whatever it leaves at the end."""
    with av.open(io.BytesIO(stem)) as container:
        packed = av.AudioResampler(format="flt")
        frames = [
            made.to_ndarray().reshape(-1, made.layout.nb_channels).T
            for frame in container.decode(audio=0)
            for made in packed.resample(frame)
        ]
    return np.concatenate(frames, axis=1)


@pytest.mark.parametrize("channels", range(1, 9))
@pytest.mark.parametrize("stem_format", [LOSSLESS[0], LOSSLESS[-1], *LOSSY], ids=label)
def test_channels_belong_to_the_same_loudspeakers_for_all_decoders(
    stem_format: StemFormat, channels: int
) -> None:
    if stem_format.container == "mp3" and channels > 2:
        return
    time = np.arange(48000) / 48000
    tones = [300 + 200 * channel for channel in range(channels)]
    if channels > 5:
        tones[3] = 60  # of the LFE
    song = np.stack([0.2 * np.sin(2 * np.pi * tone * time) for tone in tones]).astype(np.float32)
    source = info(rate=48000, channels=channels)
    stem_format = choose_format(stem_format.container, info=source)
    stem, _ = encode(song, 48000, stem_format)
    for samples in (read_audio(stem, name="x"), by_ffmpeg(stem)):
        spectrum = np.abs(np.fft.rfft(samples[:, :48000]))
        np.testing.assert_allclose(spectrum.argmax(axis=1), tones, atol=2)


@pytest.mark.parametrize("stem_format", [*LOSSLESS, *LOSSY], ids=label)
def test_ffmpeg_decodes_the_same(stem_format: StemFormat) -> None:
    song = files.chirp(seconds=2.3, rate=48000)
    stem, _ = encode(song, 48000, stem_format)
    samples, other = read_audio(stem, name="x"), by_ffmpeg(stem)[:, : song.shape[1]]
    assert other.shape == samples.shape
    error = np.sqrt(np.mean((other - samples) ** 2))
    # There are two decoders of Opus, which round as they like.
    assert error < 1e-3 if stem_format.container == "opus" else error < 1e-6


@pytest.mark.parametrize("container", ["m4a", "opus", "wav"])
def test_nothing_of_the_time_is_written(container: str, monkeypatch: pytest.MonkeyPatch) -> None:
    song = files.chirp(seconds=0.2, rate=48000)
    source = info(rate=48000)
    stem, _ = encode(song, 48000, choose_format(container, info=source))
    with av.open(io.BytesIO(stem)) as opened:
        told = {**opened.metadata, **opened.streams.audio[0].metadata}
    assert not {"creation_time", "encoder", "date"} & {key.lower() for key in told}
    assert b"Lavf" not in stem and b"Lavc" not in stem
    if container == "m4a":
        header = stem.index(b"mvhd")
        assert stem[header + 8 : header + 16] == bytes(8)  # created, changed


@pytest.mark.parametrize("container", BIT_RATES_KBPS)
@pytest.mark.parametrize("rate", [8000, 16000, 48000])
@pytest.mark.parametrize("channels", [1, 2])
def test_bit_rates_are_kept(container: str, rate: int, channels: int) -> None:
    source = info(rate=rate, channels=channels)
    song = np.random.default_rng(0).standard_normal((channels, 6 * rate)).astype(np.float32) / 8
    sizes = []
    for asked in (64, 128, 320):
        stem_format = choose_format(container, info=source, bit_rate_kbps=asked)
        kept = stem_format.bit_rate_kbps
        assert kept is not None and kept <= asked
        stem, _ = encode(song, rate, stem_format)
        sizes.append(len(stem))
        assert probe(stem, name="x").frames == song.shape[1]
        if container == "mp3":
            with av.open(io.BytesIO(stem)) as opened:
                assert opened.streams.audio[0].codec_context.sample_rate == rate
                assert opened.streams.audio[0].bit_rate == kept * 1000
        else:
            assert len(stem) * 8 / 6 / 1000 < 1.35 * kept + 6
    # Of 8 kHz the codecs have no more than the first.
    assert sizes[0] < sizes[1] or rate == 8000


def test_vorbis_quality() -> None:
    song = files.chirp(seconds=3.0)
    sizes = [
        len(encode(song, 44100, choose_format("ogg", info=info(), quality=quality))[0])
        for quality in (0, 3, 6, 10)
    ]
    assert sizes == sorted(sizes) and len(set(sizes)) == 4


def test_large_vorbis_blocks_do_not_crash() -> None:
    song = np.tile(files.chirp(seconds=3.0), (1, 10))
    stem, _ = encode(song, 44100, StemFormat(container="ogg"), block=song.shape[1])
    assert probe(stem, name="x").frames == song.shape[1]


def test_ogg_pages_have_right_checksums() -> None:
    stem, _ = encode(files.chirp(seconds=3.0), 44100, StemFormat(container="ogg"))
    import mutagen.ogg

    file = io.BytesIO(stem)
    pages = []
    while file.tell() < len(stem):
        begin = file.tell()
        page = mutagen.ogg.OggPage(file)
        assert page.write() == stem[begin : file.tell()]
        pages.append(page)
    assert len(pages) > 3 and len({page.serial for page in pages}) == 1


class EndsOfAFile(io.RawIOBase):
    """A file of any size that keeps its first bytes, as they were written last, and its size."""

    def __init__(self) -> None:
        self.head = bytearray(1 << 20)
        self.position = self.size = 0

    def write(self, data: Any) -> int:
        kept = bytes(data[: max(0, len(self.head) - self.position)])
        self.head[self.position : self.position + len(kept)] = kept
        self.position += len(data)
        self.size = max(self.size, self.position)
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self.position = offset + (0, self.position, self.size)[whence]
        return self.position

    def tell(self) -> int:
        return self.position

    def read(self, size: int = -1) -> bytes:
        return b""


def test_wav_of_4_gib_becomes_rf64(tmp_path: Path) -> None:
    stem_format = StemFormat(container="wav", bit_depth=32, channels=64)
    ends = EndsOfAFile()
    block = np.full((64, 1 << 14), 0.5, np.float32)
    with StemWriter(ends, stem_format=stem_format) as writer:  # type: ignore[arg-type]
        while writer.frames * 256 < 2**32 + 4000:
            writer.write(block)
    path = tmp_path / "long.wav"
    path.write_bytes(ends.head)
    os.truncate(path, ends.size)  # a sparse file: of the samples only the first are there
    with path.open("rb") as file:
        assert file.read(4) == b"RF64"
        assert probe(file, name="x").frames == sf.info(path).frames == writer.frames
        assert (read_audio(file, name="x", frames=100) == 0.5).all()


def test_small_wav_is_plain_riff() -> None:
    stem, _ = encode(files.chirp(seconds=0.1), 44100, StemFormat(container="wav", bit_depth=24))
    assert stem[:4] == b"RIFF"
    assert int.from_bytes(stem[4:8], "little") == len(stem) - 8


def test_stems_without_samples() -> None:
    stem, writer = encode(
        np.zeros((2, 0), np.float32), 44100, StemFormat(container="wav", bit_depth=16)
    )
    assert writer.frames == 0 and sf.info(io.BytesIO(stem)).frames == 0


@pytest.mark.parametrize("stem_format", LOSSLESS, ids=label)
def test_large_blocks_are_written_in_little_memory(stem_format: StemFormat) -> None:
    song = np.tile(files.chirp(seconds=3.0), (1, 10))
    with tempfile.TemporaryFile() as file:
        tracemalloc.start()
        try:
            with StemWriter(file, stem_format=stem_format) as writer:
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
    writer = StemWriter(io.BytesIO(), stem_format=StemFormat(container="wav", bit_depth=16))
    with pytest.raises(ValueError, match="shape"):
        writer.write(np.zeros((1, 5), np.float32))


def info(
    *, bits: int | None = 16, is_float: bool = False, rate: int = 44100, channels: int = 2
) -> AudioInfo:
    return AudioInfo("wav", "pcm_16", rate, channels, 1000, bits, is_float)


@pytest.mark.parametrize(
    "container,depth,source,expected",
    [
        ("flac", None, info(bits=8), StemFormat(container="flac", bit_depth=16)),
        ("flac", None, info(bits=16), StemFormat(container="flac", bit_depth=16)),
        ("flac", "source", info(bits=None), StemFormat(container="flac", bit_depth=16)),
        ("flac", None, info(bits=24), StemFormat(container="flac", bit_depth=24)),
        ("flac", None, info(bits=32), StemFormat(container="flac", bit_depth=24)),
        ("flac", None, info(bits=32, is_float=True), StemFormat(container="flac", bit_depth=24)),
        ("flac", 24, info(), StemFormat(container="flac", bit_depth=24)),
        ("wav", None, info(bits=8), StemFormat(container="wav", bit_depth=16)),
        ("wav", None, info(bits=None), StemFormat(container="wav", bit_depth=16)),
        ("wav", None, info(bits=24), StemFormat(container="wav", bit_depth=24)),
        ("wav", None, info(bits=32), StemFormat(container="wav", bit_depth=32)),
        (
            "wav",
            None,
            info(bits=32, is_float=True),
            FLOATS,
        ),
        (
            "wav",
            None,
            info(bits=64, is_float=True),
            FLOATS,
        ),
        ("wav", "32f", info(), FLOATS),
        ("wav", "32", info(), StemFormat(container="wav", bit_depth=32)),
        ("wav", 16, info(bits=24), StemFormat(container="wav", bit_depth=16)),
        ("ogg", None, info(bits=24), StemFormat(container="ogg", quality=6)),
        ("mp3", "source", info(), StemFormat(container="mp3", bit_rate_kbps=320)),
        ("m4a", None, info(), StemFormat(container="m4a", bit_rate_kbps=256)),
        (
            "opus",
            None,
            info(rate=48000),
            StemFormat(container="opus", sample_rate=48000, bit_rate_kbps=160),
        ),
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
        ("mp3", None, info(channels=9), "2 channels.*use wav"),
        ("opus", None, info(channels=9), "8 channels.*use wav"),
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


@pytest.mark.parametrize("container", SAMPLE_RATES)
@pytest.mark.parametrize(
    "rate", [8000, 11025, 16000, 22050, 32000, 37800, 44100, 48000, 64000, 96000, 176400, 192000]
)
def test_rates_that_a_format_does_not_know_become_ones_that_it_does(
    container: str, rate: int
) -> None:
    chosen = choose_format(container, info=info(rate=rate))
    if rate in SAMPLE_RATES[container]:
        assert chosen.sample_rate == rate
    else:
        assert chosen.sample_rate in SAMPLE_RATES[container] and chosen.sample_rate >= 44100
    assert (
        chosen.sample_rate == rate
        or rate % chosen.sample_rate == 0
        or (chosen.sample_rate == 48000)
    )


@pytest.mark.parametrize(
    "container,options,match",
    [
        ("flac", {"bit_rate_kbps": 128}, "flac has no bit rate.*bit_depth"),
        ("wav", {"quality": 3}, "wav has no quality.*bit_depth"),
        ("ogg", {"bit_rate_kbps": 128}, "ogg has no bit rate.*set quality"),
        ("mp3", {"quality": 3}, "mp3 has no quality.*set bit_rate_kbps"),
        ("mp3", {"bit_rate_kbps": 200}, "use 32, 40, .*, 192, 224"),
        ("opus", {"bit_rate_kbps": 5}, "use 6 to 1024"),
        ("ogg", {"quality": 11}, "0 to 10"),
        ("opus", {"sample_rate": 44100}, "use one of 8000, 12000, 16000, 24000, 48000"),
        ("mp3", {"sample_rate": 96000}, "use one of .*48000"),
    ],
)
def test_options_that_a_format_has_not_are_refused(
    container: str, options: dict[str, Any], match: str
) -> None:
    with pytest.raises(UnsupportedFormatError, match=match):
        choose_format(container, info=info(), **options)
