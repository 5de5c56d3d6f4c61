"""Decoding: exact lengths, ranges, and what is refused."""

import importlib.util
import io
import os
import struct
import subprocess
import sys
import tempfile
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import mutagen.mp4
import numpy as np
import pytest
import soundfile as sf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from beamsplitter.audio.channels import VORBIS_ORDER
from beamsplitter.audio.decoding import ogg_pages
from beamsplitter.audio.decoding.audio_reader import AudioInfo, probe, read_audio
from beamsplitter.audio.errors import (
    AudioError,
    EmptyAudioError,
    NonFiniteAudioError,
    TruncatedAudioError,
    UndecodableAudioError,
)

_SPEC = importlib.util.spec_from_file_location(
    "audio_files", Path(__file__).parents[1] / "audio_files.py"
)
assert _SPEC is not None and _SPEC.loader is not None
files = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(files)

RATE = 44100
SONG = files.chirp(seconds=3.0)


def snd(container: str, subtype: str) -> Callable[[np.ndarray, int], bytes]:
    return lambda samples, rate: files.soundfile_bytes(
        samples, rate, container=container, subtype=subtype
    )


def libav(container: str, codec: str, sample_format: str) -> Callable[[np.ndarray, int], bytes]:
    return lambda samples, rate: files.libav_bytes(
        samples,
        rate,
        container=container,
        codec=codec,
        sample_format=sample_format,
        bit_rate=128000,
    )


# name: (builder, container, codec, bit depth, float, largest error)
EXACT = {
    "wav_8": (snd("WAV", "PCM_U8"), "wav", "pcm_8", 8, False, 2**-7),
    "wav_16": (snd("WAV", "PCM_16"), "wav", "pcm_16", 16, False, 2**-15),
    "wav_24": (snd("WAV", "PCM_24"), "wav", "pcm_24", 24, False, 2**-23),
    "wav_32": (snd("WAV", "PCM_32"), "wav", "pcm_32", 32, False, 2**-24),
    "wav_float": (snd("WAV", "FLOAT"), "wav", "float", 32, True, 0),
    "wav_double": (snd("WAV", "DOUBLE"), "wav", "double", 64, True, 0),
    "wav_extensible": (snd("WAVEX", "PCM_24"), "wav", "pcm_24", 24, False, 2**-23),
    "rf64": (snd("RF64", "PCM_16"), "wav", "pcm_16", 16, False, 2**-15),
    "w64": (snd("W64", "PCM_16"), "w64", "pcm_16", 16, False, 2**-15),
    "aiff_16": (snd("AIFF", "PCM_16"), "aiff", "pcm_16", 16, False, 2**-15),
    "aiff_24": (snd("AIFF", "PCM_24"), "aiff", "pcm_24", 24, False, 2**-23),
    "flac_16": (snd("FLAC", "PCM_16"), "flac", "flac", 16, False, 2**-15),
    "flac_24": (snd("FLAC", "PCM_24"), "flac", "flac", 24, False, 2**-23),
    "alac_16": (libav("ipod", "alac", "s16p"), "m4a", "alac", 16, False, 2**-15),
    "alac_24": (libav("ipod", "alac", "s32p"), "m4a", "alac", 24, False, 2**-23),
    "caf_alac": (libav("caf", "alac", "s16p"), "caf", "alac", 16, False, 2**-15),
    "mov": (libav("mov", "pcm_s24le", "s32"), "m4a", "pcm_s24le", 24, False, 2**-23),
    "mkv_flac": (libav("matroska", "flac", "s16"), "matroska", "flac", 16, False, 2**-15),
    "ogg": (snd("OGG", "VORBIS"), "ogg", "vorbis", None, False, None),
    "mp3_320": (
        lambda x, r: files.encode_mp3(x, r, level=0.0), "mp3", "mp3", None, False, None,
    ),
    "mp3_vbr": (
        lambda x, r: files.encode_mp3(x, r, mode="VARIABLE", level=0.7),
        "mp3", "mp3", None, False, None,
    ),
    "m4a": (files.encode_m4a, "m4a", "aac", None, False, None),
    "m4a_64": (
        lambda x, r: files.encode_m4a(x, r, bit_rate=64000), "m4a", "aac", None, False, None,
    ),
}  # fmt: skip
# Containers that do not say where the codec's padding begins: longer than what went in.
PADDED = {
    "adts": (libav("adts", "aac", "fltp"), "adts", "aac"),
    "wma": (libav("asf", "wmav2", "fltp"), "wma", "wmav2"),
    "mkv_aac": (libav("matroska", "aac", "fltp"), "matroska", "aac"),
    "ac3": (libav("ac3", "ac3", "fltp"), "ac3", "ac3"),
    "mp2": (libav("mp2", "mp2", "s16"), "mp2", "mp2"),
    "mpegts": (libav("mpegts", "aac", "fltp"), "mpegts", "aac"),
    "wav_mp3": (libav("wav", "libmp3lame", "fltp"), "wav", "mp3float"),
    "mp3_bare": (lambda x, r: files.without_xing(files.encode_mp3(x, r)), "mp3", "mp3"),
    "mp3_bare_vbr": (
        lambda x, r: files.without_xing(files.encode_mp3(x, r, mode="VARIABLE", level=0.9)),
        "mp3", "mp3",
    ),
}  # fmt: skip
_ENCODED: dict[str, bytes] = {}


def encoded(kind: str) -> bytes:
    if kind not in _ENCODED:
        if kind == "opus":
            _ENCODED[kind] = files.soundfile_bytes(SONG, 48000, container="OGG", subtype="OPUS")
        elif kind == "webm":
            build = libav("webm", "libopus", "flt")
            _ENCODED[kind] = build(SONG, 48000)
        else:
            _ENCODED[kind] = (EXACT.get(kind) or PADDED[kind])[0](SONG, RATE)
    return _ENCODED[kind]


@pytest.mark.parametrize("kind", EXACT)
def test_length_and_position_are_exact(kind: str) -> None:
    _, container, codec, bits, is_float, bound = EXACT[kind]
    info = probe(encoded(kind), name=kind)
    assert info == AudioInfo(container, codec, RATE, 2, SONG.shape[1], bits, is_float)
    assert info.duration_s == pytest.approx(3.0)
    samples = read_audio(encoded(kind), name=kind)
    assert samples.shape == SONG.shape and samples.dtype == np.float32
    assert samples.flags.c_contiguous
    assert [files.offset(*pair) for pair in zip(samples, SONG, strict=True)] == [0, 0]
    if bound is not None:
        assert np.abs(samples - SONG).max() <= bound
        if bits in (8, 16, 24) and not is_float:
            grid = samples * 2.0 ** (bits - 1)
            assert np.array_equal(grid, np.rint(grid))


@pytest.mark.parametrize("kind", PADDED)
def test_frames_are_what_decoding_yields(kind: str) -> None:
    _, container, codec = PADDED[kind]
    info = probe(encoded(kind), name=kind)
    assert (info.container, info.codec, info.bit_depth) == (container, codec, None)
    assert abs(info.frames - SONG.shape[1]) < 3000
    assert read_audio(encoded(kind), name=kind).shape == (2, info.frames)


@pytest.mark.parametrize("kind", ["opus", "webm"])
def test_opus_is_exact(kind: str) -> None:
    info = probe(encoded(kind), name=kind)
    assert (info.codec, info.sample_rate, info.frames) == ("opus", 48000, SONG.shape[1])
    samples = read_audio(encoded(kind), name=kind)
    assert [files.offset(*pair) for pair in zip(samples, SONG, strict=True)] == [0, 0]


@pytest.mark.parametrize("kind", [*EXACT, *PADDED, "opus", "webm"])
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_range_is_that_slice_bit_for_bit(kind: str, data: st.DataObject) -> None:
    file = encoded(kind)
    if kind not in _WHOLE:
        _WHOLE[kind] = read_audio(file, name=kind)
    whole = _WHOLE[kind]
    start = data.draw(st.integers(0, whole.shape[1]))
    count = data.draw(st.integers(0, min(30000, whole.shape[1] - start)))
    part = read_audio(file, name=kind, start_sample=start, frames=count)
    assert part.flags.c_contiguous
    np.testing.assert_array_equal(part, whole[:, start : start + count])


_WHOLE: dict[str, np.ndarray] = {}


def test_ranges_late_in_opus_converge() -> None:
    song = files.chirp(seconds=25, rate=16000, channels=1)
    file = files.soundfile_bytes(song, 16000, container="OGG", subtype="OPUS")
    whole = read_audio(file, name="x")
    for start in (161_000, 270_123, song.shape[1] - 500):
        part = read_audio(file, name="x", start_sample=start, frames=500)
        np.testing.assert_allclose(part, whole[:, start : start + 500], atol=0.003, rtol=0)


@pytest.mark.parametrize("name", files.RECORDING_NAMES)
def test_real_recordings(name: str) -> None:
    path = files.recording(name)
    whole, rate = sf.read(path, dtype="float32", always_2d=True)
    with path.open("rb") as file:
        info = probe(file, name=path.name)
        assert (info.sample_rate, info.frames, info.channels) == (rate, *whole.shape)
        np.testing.assert_array_equal(read_audio(file, name=path.name), whole.T)
        rng = np.random.default_rng(0)
        near_end = len(whole) - rng.integers(1, 20000, 12)
        for start in [0, 1, *rng.integers(0, len(whole), 12), *near_end]:
            count = min(3000, len(whole) - int(start))
            part = read_audio(
                file, name=path.name, start_sample=int(start), frames=count, info=info
            )
            np.testing.assert_array_equal(part, whole.T[:, start : start + count])
        assert not file.closed


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 24000, 32000, 48000])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("kind", ["mp3_vbr", "mp3_320", "m4a", "ogg", "alac_24", "flac_24"])
def test_lengths_at_other_rates(kind: str, rate: int, channels: int) -> None:
    song = files.chirp(seconds=1.3, rate=rate, channels=channels)
    file = EXACT[kind][0](song, rate)
    info = probe(file, name=kind)
    assert (info.sample_rate, info.channels, info.frames) == (rate, channels, song.shape[1])
    whole = read_audio(file, name=kind)
    assert files.offset(whole[0], song[0]) == 0
    for start in range(0, song.shape[1], 2111):
        part = read_audio(file, name=kind, start_sample=start, frames=min(50, len(song[0]) - start))
        np.testing.assert_array_equal(part, whole[:, start : start + 50])


@pytest.mark.parametrize("channels", range(1, 9))
@pytest.mark.parametrize("kind", ["wav_24", "flac_24", "aiff_16", "ogg", "alac_16", "m4a"])
def test_channels(kind: str, channels: int) -> None:
    song = files.chirp(seconds=0.5, rate=48000, channels=channels)
    samples = read_audio(EXACT[kind][0](song, 48000), name=kind)
    assert samples.shape == song.shape
    if kind == "ogg":  # written channel by channel in the order of Vorbis
        samples = samples[list(VORBIS_ORDER.get(channels, range(channels)))]
    lags = [files.offset(*pair) for pair in zip(samples, song, strict=True)]
    if kind == "m4a" and channels in (6, 8):
        lags.pop(3)  # the bass channel: AAC keeps its lowest tones only
    assert not any(lags)
    bound = EXACT[kind][5]
    assert bound is None or np.abs(samples - song).max() <= bound


@pytest.mark.parametrize("kind", ["wav_32", "flac_24", "alac_24", "aiff_24"])
def test_192_khz(kind: str) -> None:
    song = files.chirp(seconds=0.5, rate=192000)
    assert np.abs(read_audio(EXACT[kind][0](song, 192000), name=kind) - song).max() <= 2**-23


def test_full_scale_integers_are_divided_by_two_to_the_bits() -> None:
    file = io.BytesIO()
    sf.write(file, np.array([-32768, 32767, 0, 1], np.int16), RATE, format="WAV")
    expected = np.array([[-1, 32767 / 32768, 0, 1 / 32768]], np.float32)
    np.testing.assert_array_equal(read_audio(file.getvalue(), name="x"), expected)


def test_floats_are_left_untouched() -> None:
    loud = SONG * 40
    wav = files.wav_bytes(loud, RATE, subtype="FLOAT")
    np.testing.assert_array_equal(read_audio(wav, name="x"), loud)


@pytest.mark.parametrize("frames", [44100 * 3, 44100 * 3 - 1, 1024, 1, 5000])
@pytest.mark.parametrize("index_first", [False, True])
def test_m4a_has_exactly_the_frames_that_went_in(frames: int, index_first: bool) -> None:
    file = files.encode_m4a(SONG[:, :frames], RATE, index_first=index_first)
    assert probe(file, name="x").frames == frames
    assert read_audio(file, name="x").shape == (2, frames)


def test_m4a_with_itunes_note_instead_of_an_edit_list() -> None:
    file = files.encode_m4a(SONG, RATE)
    file = file.replace(b"edts", b"free")
    target = io.BytesIO(file)
    tags = mutagen.mp4.MP4(target)
    padding = -(SONG.shape[1] + 1024) % 1024
    note = f" 00000000 00000400 {padding:08X} {SONG.shape[1]:016X}" + " 00000000" * 8
    tags["----:com.apple.iTunes:iTunSMPB"] = [note.encode()]
    target.seek(0)
    tags.save(target)
    samples = read_audio(target.getvalue(), name="x")
    np.testing.assert_array_equal(samples, read_audio(encoded("m4a"), name="x"))


def test_tags_in_latin_1_do_not_hurt() -> None:
    build = libav("matroska", "aac", "fltp")
    file = build(SONG, RATE)
    assert b"Lavf" in file
    odd = file.replace(b"Lavf", b"L\xe4vf")
    np.testing.assert_array_equal(
        read_audio(odd, name="x"), read_audio(encoded("mkv_aac"), name="x")
    )


def test_a_video_with_sound() -> None:
    import av

    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as output:
        video = output.add_stream("mpeg4", rate=25)
        video.width = video.height = 64
        video.pix_fmt = "yuv420p"
        audio = output.add_stream("aac", rate=RATE)
        frame = av.AudioFrame.from_ndarray(SONG.T.reshape(1, -1), format="flt", layout="stereo")
        frame.sample_rate, frame.pts = RATE, 0
        output.mux(audio.encode(frame))
        picture = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
        for _ in range(10):
            output.mux(video.encode(picture))
        output.mux(video.encode(None))
        output.mux(audio.encode(None))
    info = probe(file.getvalue(), name="x")
    assert (info.container, info.codec, info.frames) == ("mp4", "aac", SONG.shape[1])


@pytest.mark.parametrize("claimed", [0, 0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000, 0x7FFFFFDB, 0x80000000])
@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
def test_streamed_wav_reaches_to_its_end(claimed: int, subtype: str) -> None:
    wav = files.wav_bytes(SONG, RATE, subtype=subtype)
    streamed = files.wav_with_claimed_size(wav, claimed)
    np.testing.assert_array_equal(read_audio(streamed, name="x"), read_audio(wav, name="x"))


def test_wav_that_claims_less_than_it_holds() -> None:
    wav = files.wav_with_claimed_size(files.wav_bytes(SONG, RATE), 4000)
    assert probe(wav, name="x").frames == 1000


@pytest.mark.parametrize("field", [28, 32])
@pytest.mark.parametrize("value", [0, 1, 0xFFFF])
def test_wav_with_wrong_byte_rate_or_alignment(field: int, value: int) -> None:
    wav = bytearray(files.wav_bytes(SONG, RATE))
    struct.pack_into("<H", wav, field, value)
    np.testing.assert_array_equal(
        read_audio(bytes(wav), name="x"), read_audio(encoded("wav_16"), name="x")
    )


@pytest.mark.parametrize("kind", ["wav_16", "wav_float", "rf64", "aiff_24", "wav_extensible"])
def test_truncation_shows_in_the_header(kind: str) -> None:
    file = encoded(kind)
    with pytest.raises(TruncatedAudioError, match=r"song: .*1\.5\d? s of the 3\.00 s"):
        probe(file[: len(file) // 2 + 40], name="song")


@pytest.mark.parametrize("kind", ["flac_16", "flac_24"])
def test_truncated_flac(kind: str) -> None:
    file = encoded(kind)
    cut = file[: len(file) // 2]
    with pytest.raises(TruncatedAudioError, match=r"only [12]\.\d+ s of the 3\.00 s"):
        read_audio(cut, name="song")
    np.testing.assert_array_equal(
        read_audio(cut, name="song", frames=20000), read_audio(file, name="x", frames=20000)
    )


def test_flac_of_unknown_length() -> None:
    file = bytearray(encoded("flac_24"))
    total = int.from_bytes(file[18:26], "big")
    file[18:26] = (total >> 36 << 36).to_bytes(8, "big")
    assert probe(bytes(file), name="x") == probe(encoded("flac_24"), name="x")
    np.testing.assert_array_equal(
        read_audio(bytes(file), name="x", start_sample=5000, frames=60000),
        read_audio(encoded("flac_24"), name="x", start_sample=5000, frames=60000),
    )


@pytest.mark.parametrize("kind", ["mp3_320", "mp3_vbr"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.97])
def test_truncated_mp3(kind: str, share: float) -> None:
    file = encoded(kind)
    with pytest.raises(TruncatedAudioError, match="promises"):
        probe(file[: int(len(file) * share)], name="song")


def test_m4a_without_its_index() -> None:
    file = encoded("m4a")
    with pytest.raises(UndecodableAudioError, match="truncated"):
        probe(file[: len(file) // 2], name="song")


@pytest.mark.parametrize("share", [0.3, 0.5, 0.9])
def test_truncated_m4a(share: float) -> None:
    file = files.encode_m4a(SONG, RATE, index_first=True)
    with pytest.raises(TruncatedAudioError, match=r"s of the 3\.00 s"):
        probe(file[: int(len(file) * share)], name="song")


@pytest.mark.parametrize("kind", ["ogg", "opus"])
def test_truncated_ogg(kind: str) -> None:
    file = encoded(kind)
    with pytest.raises(TruncatedAudioError, match=r"after \d\.\d+ s"):
        probe(file[: int(len(file) * 0.7)], name="song")


def test_ogg_without_an_end_mark() -> None:
    file = encoded("ogg")
    cut = file[: file.rindex(b"OggS")]
    samples = read_audio(cut, name="x")
    assert 0 < samples.shape[1] < SONG.shape[1]
    np.testing.assert_array_equal(
        samples[:, :20000], read_audio(encoded("ogg"), name="x", frames=20000)
    )


def test_chained_ogg_is_read_to_its_end() -> None:
    twice = encoded("ogg") + files.soundfile_bytes(SONG, RATE, container="OGG", subtype="VORBIS")
    assert read_audio(twice, name="x").shape == (2, probe(twice, name="x").frames)
    assert abs(probe(twice, name="x").frames - 2 * SONG.shape[1]) < 4096


def test_concatenated_mp3_is_read_to_its_end() -> None:
    file = encoded("mp3_320")
    assert abs(probe(file + file, name="x").frames - 2 * SONG.shape[1]) < 5000


def test_junk_amid_an_mp3() -> None:
    file = encoded("mp3_320")
    at = file.index(file[:2], len(file) // 2)
    samples = read_audio(file[:at] + b"junk" * 500 + file[at:], name="x")
    assert samples.shape[1] >= SONG.shape[1] - 1152


@pytest.mark.parametrize("content", [b"", np.zeros((2, 0), np.float32)], ids=["bytes", "frames"])
def test_empty(content: bytes | np.ndarray) -> None:
    file = content if isinstance(content, bytes) else files.wav_bytes(content, RATE)
    with pytest.raises(EmptyAudioError, match="song"):
        probe(file, name="song")
    with pytest.raises(EmptyAudioError):
        read_audio(file, name="song")


RUBBISH = {
    "text": b"This is a text about music.\n" * 2000,
    "html": b"<!DOCTYPE html><html><body>404 Not Found</body></html>" * 300,
    "png": b"\x89PNG\r\n\x1a\n" + np.random.default_rng(0).bytes(50000),
    "zip": b"PK\x03\x04" + b"\0" * 26 + b"song.mp3",
    "random": np.random.default_rng(1).bytes(300000),
    "ones": b"\xff" * 50000,
    "zeros": bytes(50000),
    "short": b"\xff\xfb\x90",
    "tag only": b"ID3\x04\0\0\0\0\0\x20" + bytes(32),
    "riff": b"RIFF\x24\0\0\0WAVEnonsense",
    "flac": b"fLaC" + bytes(500),
    "ogg": b"OggS" + bytes(500),
    "mp4": b"\0\0\0\x18ftypmp42" + bytes(500),
}


@pytest.mark.parametrize("kind", RUBBISH)
@pytest.mark.parametrize("embed", [False, True])
def test_rubbish_is_refused(kind: str, embed: bool, capfd: pytest.CaptureFixture[str]) -> None:
    rubbish = RUBBISH[kind] + (encoded("mp3_320") if embed and kind == "zip" else b"")
    with pytest.raises((UndecodableAudioError, EmptyAudioError), match=r"song\.mp3: .*; "):
        probe(rubbish, name="song.mp3")
    assert capfd.readouterr().err == ""


@settings(max_examples=60, deadline=None)
@given(st.binary(min_size=1, max_size=3000))
def test_random_bytes_are_refused(rubbish: bytes) -> None:
    with pytest.raises((UndecodableAudioError, EmptyAudioError, TruncatedAudioError)):
        read_audio(rubbish, name="x")


@pytest.mark.parametrize("kind", [*EXACT, *PADDED, "opus", "webm"])
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_damaged_files_fail_as_such_or_decode(kind: str, data: st.DataObject) -> None:
    file = bytearray(_short(kind))
    for _ in range(data.draw(st.integers(0, 3))):
        reach = min(len(file), data.draw(st.sampled_from([64, 1000, 10**9])))
        at = data.draw(st.integers(0, reach - 1))
        file[at] = data.draw(st.integers(0, 255))
    del file[data.draw(st.integers(0, len(file))) :]
    try:
        info = probe(bytes(file), name="x")
        if info.frames * info.channels < 10**7:
            samples = read_audio(bytes(file), name="x", info=info)
            assert samples.shape == (info.channels, info.frames)
    except AudioError as error:
        assert "x: " in str(error)


def _short(kind: str) -> bytes:
    """Two tenths of a second, so that headers are much of the file."""
    key = f"short {kind}"
    if key not in _ENCODED:
        song, rate = (SONG[:, :8820], RATE)
        if kind in ("opus", "webm"):
            build = snd("OGG", "OPUS") if kind == "opus" else libav("webm", "libopus", "flt")
            _ENCODED[key] = build(song, 48000)
        else:
            _ENCODED[key] = (EXACT.get(kind) or PADDED[kind])[0](song, rate)
    return _ENCODED[key]


def test_non_finite_samples() -> None:
    song = SONG.copy()
    song[1, 22050] = np.nan
    song[0, 44100] = np.inf
    wav = files.wav_bytes(song, RATE, subtype="FLOAT")
    with pytest.raises(NonFiniteAudioError, match=r"2 of its samples .* at 0\.500 s"):
        read_audio(wav, name="x")
    with pytest.raises(NonFiniteAudioError, match=r"1 of its samples .* at 1\.000 s"):
        read_audio(wav, name="x", start_sample=30000)
    assert read_audio(wav, name="x", frames=20000).shape == (2, 20000)


@pytest.mark.parametrize("kind", ["mp3_320", "mp3_bare", "flac_16", "adts", "wav_16"])
@pytest.mark.parametrize("size", [100, 3_000_000])
def test_tags_before_the_audio_do_not_hurt(kind: str, size: int) -> None:
    tagged = files.id3v2(size) + files.id3v2(50) + encoded(kind)
    np.testing.assert_array_equal(read_audio(tagged, name="x"), read_audio(encoded(kind), name="x"))


@pytest.mark.parametrize("kind", ["mp3_320", "mp3_vbr", "mp3_bare"])
def test_tags_after_the_audio_do_not_hurt(kind: str) -> None:
    ape = b"APETAGEX" + struct.pack("<IIII", 2000, 32 + 60, 1, 0) + bytes(8) + bytes(60)
    tagged = encoded(kind) + ape + b"TAG" + bytes(125)
    np.testing.assert_array_equal(read_audio(tagged, name="x"), read_audio(encoded(kind), name="x"))


@pytest.mark.parametrize("kind", ["wav_16", "aiff_16"])
def test_id3_chunks_do_not_hurt(kind: str) -> None:
    import mutagen
    import mutagen.id3

    file = io.BytesIO(encoded(kind))
    tagged = mutagen.File(file)
    tagged.add_tags()
    tagged.tags.add(mutagen.id3.TIT2(encoding=3, text=["Title"]))
    file.seek(0)
    tagged.save(file)
    assert len(file.getvalue()) > len(encoded(kind))
    np.testing.assert_array_equal(
        read_audio(file.getvalue(), name="x"), read_audio(encoded(kind), name="x")
    )


@pytest.mark.parametrize(
    "bounds", [(-1, 5), (0, SONG.shape[1] + 1), (SONG.shape[1] + 1, 0), (5, -1)]
)
def test_ranges_outside_the_recording(bounds: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="song: samples"):
        read_audio(encoded("wav_16"), name="song", start_sample=bounds[0], frames=bounds[1])


@pytest.mark.parametrize("kind", ["wav_16", "flac_16", "ogg", "mp3_320", "m4a", "adts"])
def test_file_objects_stay_open_wherever_they_stand(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "song"
    path.write_bytes(encoded(kind))
    with path.open("rb") as file:
        file.seek(77)
        info = probe(file, name="x")
        samples = read_audio(file, name="x", start_sample=999, frames=1234, info=info)
        assert not file.closed
    whole = read_audio(encoded(kind), name="x")
    np.testing.assert_array_equal(samples, whole[:, 999 : 999 + 1234])


def test_threads() -> None:
    kinds = ["ogg", "mp3_vbr", "m4a", "flac_16"] * 4
    whole = {kind: read_audio(encoded(kind), name=kind) for kind in set(kinds)}
    with ThreadPoolExecutor(4) as pool:
        for kind, samples in zip(
            kinds, pool.map(lambda k: read_audio(encoded(k), name=k), kinds), strict=True
        ):
            np.testing.assert_array_equal(samples, whole[kind])


def damaged(kind: str, *, how: str) -> bytes:
    """The file with 3000 bytes in its middle zeroed, flipped or overwritten."""
    file = bytearray(encoded(kind))
    spot = slice(len(file) // 2, len(file) // 2 + 3000)
    if how == "zeros":
        file[spot] = bytes(3000)
    elif how == "flipped":
        file[spot] = bytes(byte ^ 0x55 for byte in file[spot])
    else:
        file[spot] = np.random.default_rng(0).bytes(3000)
    return bytes(file)


@pytest.mark.parametrize("how", ["zeros", "flipped", "noise"])
@pytest.mark.parametrize(
    "kind", ["mp3_320", "mp3_vbr", "m4a", "alac_16", "flac_16", "flac_24", "ogg", "opus", "adts"]
)
def test_damage_in_the_middle_is_told_with_its_time(kind: str, how: str) -> None:
    with pytest.raises(UndecodableAudioError, match=r"song: damaged near [01]\.\d\d s.*re-encode"):
        read_audio(damaged(kind, how=how), name="song")


@pytest.mark.parametrize("kind", ["flac_16", "m4a", "alac_16"])
def test_ranges_beside_damage_can_be_read(kind: str) -> None:
    file = damaged(kind, how="zeros")
    info = probe(file, name="x")
    before = read_audio(file, name="x", frames=20000, info=info)
    np.testing.assert_array_equal(before, read_audio(encoded(kind), name="x", frames=20000))
    with pytest.raises(UndecodableAudioError, match="damaged near 1"):
        read_audio(file, name="x", start_sample=40000, frames=70000, info=info)


def test_a_lost_ogg_page_is_told() -> None:
    file = encoded("ogg")
    page = file.index(b"OggS", len(file) // 2)
    cut = file[:page] + file[file.index(b"OggS", page + 1) :]
    with pytest.raises(UndecodableAudioError, match=r"damaged near [12]\.\d\d s"):
        probe(cut, name="x")


def test_an_ogg_recorded_from_a_broadcast_begins_later() -> None:
    file = encoded("ogg")
    page = file.index(b"OggS", len(file) // 2)
    first_audio = file.index(b"OggS", file.index(b"OggS", 10) + 1)
    joined = file[:first_audio] + file[page:]
    assert read_audio(joined, name="x").shape[1] > 0


@pytest.mark.parametrize("kind", ["mp3_320", "mp3_bare"])
def test_an_mp3_frame_that_does_not_decode(kind: str) -> None:
    file = bytearray(encoded(kind))
    at = file.index(file[:2], len(file) // 2)
    file[at + 4 : at + 36] = b"\xff" * 32
    with pytest.raises(UndecodableAudioError, match=r"damaged near 1\.\d\d s"):
        read_audio(bytes(file), name="x")
    frames = 44100
    np.testing.assert_array_equal(
        read_audio(bytes(file), name="x", frames=frames),
        read_audio(encoded(kind), name="x", frames=frames),
    )


@pytest.mark.parametrize("share", [0.1, 0.31, 0.5, 0.77])
@pytest.mark.parametrize("kind", ["mp3_bare", "mp3_bare_vbr"])
def test_an_mp3_cut_out_of_a_longer_stream(kind: str, share: float) -> None:
    file = encoded(kind)
    cut = read_audio(file[int(len(file) * share) :], name="x")
    whole = read_audio(file, name="x")
    assert 0 < cut.shape[1] < whole.shape[1]
    np.testing.assert_allclose(cut[:, -20000:], whole[:, -20000:], atol=1e-6)


@pytest.mark.parametrize("kind", ["adts", "ac3", "mp2", "mpegts", "mp3_bare"])
@pytest.mark.parametrize("share", [0.3, 0.5, 0.9])
def test_streams_without_a_length_may_end_anywhere(kind: str, share: float) -> None:
    file = encoded(kind)
    assert probe(file[: int(len(file) * share)], name="x").duration_s > 3 * share - 0.4


@pytest.mark.parametrize("kind", [*EXACT, *PADDED])
def test_damage_in_the_middle_is_silent_on_stderr(
    kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    file = bytearray(encoded(kind))
    middle = len(file) // 2
    file[middle : middle + 200] = np.random.default_rng(0).bytes(200)
    try:
        info = probe(bytes(file), name="x")
        assert read_audio(bytes(file), name="x").shape == (info.channels, info.frames)
    except (UndecodableAudioError, TruncatedAudioError, NonFiniteAudioError):
        pass
    assert capfd.readouterr().err == ""


@pytest.mark.skipif(not hasattr(os, "truncate"), reason="needs sparse files")
def test_rf64_beyond_4_gib_is_read_in_place() -> None:
    with tempfile.TemporaryFile() as file:
        head = bytearray(files.soundfile_bytes(SONG, RATE, container="RF64", subtype="PCM_16"))
        at = head.index(b"data") + 8
        size = 5 * 2**30
        struct.pack_into("<I", head, at - 4, 0xFFFFFFFF)
        ds64 = head.index(b"ds64") + 8
        struct.pack_into("<QQQ", head, ds64, at + size - 8, size, size // 4)
        file.write(head)
        file.truncate(at + size)
        assert probe(file, name="x").frames == size // 4
        np.testing.assert_array_equal(
            read_audio(file, name="x", frames=1000),
            read_audio(encoded("wav_16"), name="x")[:, :1000],
        )
        assert not read_audio(file, name="x", start_sample=size // 4 - 10).any()


@pytest.mark.parametrize("kind", ["wav_16", "flac_24", "mp3_320", "m4a"])
def test_reading_takes_little_more_memory_than_its_samples(kind: str) -> None:
    file = EXACT[kind][0](np.tile(SONG, (1, 10)), RATE)
    info = probe(file, name="x")
    tracemalloc.start()
    try:
        samples = read_audio(file, name="x", info=info, start_sample=RATE)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < samples.nbytes + 4 * 2**20


# Opus whose clock strays, cut streams, codecs that can't seek -------------------------------------


def with_late_pages(ogg: bytes, late: dict[int, int]) -> bytes:
    """The same file, the granule positions of some pages so many samples (at 48 kHz) later."""
    data = bytearray(ogg)
    for page in ogg_pages.pages(io.BytesIO(ogg), 0):
        granule = page.granule + late.get(page.number, 0)
        changed = page.data[:6] + struct.pack("<q", granule) + page.data[14:]
        changed = changed[:22] + struct.pack("<I", ogg_pages.checksum(changed)) + changed[26:]
        data[page.offset : page.offset + len(changed)] = changed
    return bytes(data)


@pytest.mark.parametrize("rate", [16000, 48000])
@pytest.mark.parametrize(
    "late", [{2: 480}, {3: 488}, {4: 384, 5: 384}, {6: 480}, {2: 480, 4: 480}, {3: -480}]
)
def test_opus_with_late_pages_is_read_as_if_they_were_not(rate: int, late: dict[int, int]) -> None:
    song = files.chirp(seconds=4.3, rate=rate)
    ogg = files.soundfile_bytes(song, rate, container="OGG", subtype="OPUS")
    number = max(page.number for page in ogg_pages.pages(io.BytesIO(ogg), 0))
    late.pop(number, None)  # the last one tells the end
    assert number >= 6
    file = with_late_pages(ogg, late)
    assert probe(file, name="x").frames == song.shape[1]
    np.testing.assert_array_equal(read_audio(file, name="x"), read_audio(ogg, name="x"))
    np.testing.assert_array_equal(
        read_audio(file, name="x", start_sample=3 * rate), read_audio(ogg, name="x")[:, 3 * rate :]
    )


def test_opus_cut_from_a_longer_stream_keeps_its_own_length() -> None:
    ogg = files.soundfile_bytes(
        files.chirp(seconds=9, rate=48000), 48000, container="OGG", subtype="OPUS"
    )
    pages = list(ogg_pages.pages(io.BytesIO(ogg), 0))
    cut = b"".join(page.data for page in (*pages[:2], *pages[5:]))
    whole = read_audio(ogg, name="x")
    frames = pages[-1].granule - pages[4].granule - 312
    assert probe(cut, name="x").frames == frames
    samples = read_audio(cut, name="x")
    np.testing.assert_allclose(samples[:, 48000:], whole[:, 48000 - frames :], atol=1e-3)


def test_gsm_is_read_from_any_sample() -> None:
    song = files.chirp(seconds=2, rate=8000, channels=1)
    file = files.wav_bytes(song, 8000, subtype="GSM610")
    whole = read_audio(file, name="x")
    assert whole.shape == (1, probe(file, name="x").frames)
    np.testing.assert_allclose(files.offset(whole[0], song[0]), 0)
    part = read_audio(file, name="x", start_sample=5000, frames=3000)
    np.testing.assert_array_equal(part, whole[:, 5000:8000])


def test_flac_cut_from_a_longer_stream_is_read() -> None:
    """Its header tells the length of the longer one."""
    file = encoded("flac_16")
    with av.open(io.BytesIO(file)) as container:
        sizes = [packet.size for packet in container.demux() if packet.size]
    begin = len(file) - sum(sizes)
    cut = file[:begin] + file[begin + sum(sizes[:5]) :]
    samples = read_audio(cut, name="x")
    skipped = SONG.shape[1] - samples.shape[1]
    assert 0 < skipped == SONG.shape[1] - probe(cut, name="x").frames
    np.testing.assert_array_equal(samples, read_audio(file, name="x")[:, skipped:])


def test_a_flac_header_that_promises_days_is_told_at_once() -> None:
    file = bytearray(encoded("flac_16"))
    file[21] |= 0x0F  # the highest bits of the number of samples
    with pytest.raises(UndecodableAudioError, match=r"promises \d{7} s"):
        probe(bytes(file), name="x")


def test_vorbis_priming_of_a_cut_stream_is_left_out() -> None:
    """It begins before time zero, with what is only there for decoding to begin."""
    ogg = files.soundfile_bytes(files.chirp(seconds=9), RATE, container="OGG", subtype="VORBIS")
    pages = list(ogg_pages.pages(io.BytesIO(ogg), 0))
    heads = [page for page in pages if page.granule <= 0]
    audio = pages[len(heads) + 3 :]
    early = -audio[0].granule + 1000  # the first page is to end 1000 samples after time zero
    late = {page.number: early for page in audio}
    cut = with_late_pages(b"".join(page.data for page in (*heads, *audio)), late)
    frames = audio[-1].granule + early
    assert probe(cut, name="x").frames == frames
    samples, whole = read_audio(cut, name="x"), read_audio(ogg, name="x")
    assert samples.shape == (2, frames)
    np.testing.assert_allclose(samples, whole[:, -frames:], atol=1e-5)
    part = read_audio(cut, name="x", start_sample=70000, frames=9000)
    np.testing.assert_array_equal(part, samples[:, 70000:79000])


READ_DAMAGED_VORBIS = """
import random, sys
from beamsplitter.audio.decoding import ogg_pages
from beamsplitter.audio.decoding.audio_reader import read_audio
from beamsplitter.audio.errors import AudioError
ogg = sys.stdin.buffer.read()
setup = ogg.index(b"\\x05vorbis")
page, end = ogg.index(b"OggS", 4), ogg.index(b"OggS", setup)
for seed in range(40):
    file, at = bytearray(ogg), setup + random.Random(seed).randrange(7, end - setup - 8)
    file[at : at + 8] = bytes(8)
    file[page + 22 : page + 26] = ogg_pages.checksum(file[page:end]).to_bytes(4, "little")
    for start in (0, 20000):
        try:
            read_audio(bytes(file), name="x", start_sample=start)
        except AudioError:
            pass
print("survived")
"""


def test_vorbis_of_which_nothing_decodes_does_not_crash() -> None:
    ogg = files.soundfile_bytes(files.chirp(seconds=1.0), RATE, container="OGG", subtype="VORBIS")
    line = [sys.executable, "-c", READ_DAMAGED_VORBIS]
    done = subprocess.run(line, input=ogg, capture_output=True)
    assert (done.returncode, done.stdout) == (0, b"survived\n"), done.stderr


@pytest.mark.parametrize("kind", ["caf_alac", "wav_float"])
def test_a_codec_that_is_none_is_refused(kind: str) -> None:
    file = bytearray(encoded(kind))
    at = file.index(b"alac") if kind == "caf_alac" else file.index(b"fmt ") + 8
    file[at : at + 2] = b"\x9e\x9e"
    with pytest.raises(UndecodableAudioError, match="codec"):
        probe(bytes(file), name="x")


def test_integers_of_64_bits() -> None:
    wav = bytearray(files.wav_bytes(SONG, RATE, subtype="DOUBLE"))
    wav[wav.index(b"fmt ") + 8] = 1  # integers
    begin = wav.index(b"data") + 8
    samples = (SONG.T.astype(np.float64) * 2.0**63).astype("<i8")
    wav[begin : begin + samples.nbytes] = samples.tobytes()
    info = probe(bytes(wav), name="x")
    assert (info.codec, info.bit_depth, info.is_float) == ("pcm_s64le", 64, False)
    np.testing.assert_allclose(read_audio(bytes(wav), name="x"), SONG, rtol=0, atol=2.0**-62)
