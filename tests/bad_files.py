"""Damaged sound files of every container, by a seed, and the check that a job bore them."""

import io
import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from audio_files import (
    chirp,
    encode_m4a,
    encode_mp3,
    id3v2,
    libav_bytes,
    soundfile_bytes,
    wav_bytes,
    without_xing,
)
from result_checks import assert_whole, manifests, read_json

from beamsplitter.audio import errors
from beamsplitter.audio.decoding import ogg_pages
from beamsplitter.audio.encoding import StemWriter
from beamsplitter.audio.extensions import has_audio_extension
from beamsplitter.audio.stem_format import StemFormat
from beamsplitter.audio.tags import Tags, write_tags

# What a file may be refused with: errors of the recording, each with a sentence for its user.
REFUSALS = {
    kind.__name__
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, errors.AudioError)
}
_TAGS = Tags(title="Grösse ♪", artist="Somebody", album="An album", cover=bytes(2000))
# Where the sizes, counts and offsets of containers stand.
_MARKS = (
    *b"RIFF data fact ds64 LIST INFO FORM COMM SSND moov trak mdia mdhd stbl stsd".split(),
    *b"stts stsc stsz stco elst edts mvhd mp4a esds alac mdat fLaC OggS vorbis OpusHead".split(),
    *b"OpusTags ID3 TIT2 APIC Xing Info LAME caff desc pakt .snd wvpk TTA1 FLV".split(),
    b"fmt ",
    b"id3 ",
    b"\x1a\x45\xdf\xa3",  # Matroska: header, tracks, cluster
    b"\x16\x54\xae\x6b",
    b"\x1f\x43\xb6\x75",
)
_EXTREMES = (0, 1, 2, 7, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 1 << 24, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def whole_files() -> dict[str, bytes]:
    """A healthy file of 0.3 to 1.5 s of each kind, by name."""
    stereo, mono = chirp(seconds=0.6), chirp(seconds=1.0, rate=16000, channels=1)
    wide = chirp(seconds=0.3, rate=8000, channels=6)
    longer = chirp(seconds=1.5, rate=48000)

    def libav(container: str, codec: str, kind: str = "fltp", samples: Any = longer) -> bytes:
        return libav_bytes(
            samples, 48000, container=container, codec=codec, sample_format=kind, bit_rate=96000
        )

    def sound(container: str, subtype: str, samples: Any = stereo, rate: int = 44100) -> bytes:
        return soundfile_bytes(samples, rate, container=container, subtype=subtype)

    files = {
        "pcm16.wav": wav_bytes(stereo, 44100),
        "pcm24.wav": wav_bytes(wide, 8000, subtype="PCM_24"),
        "float.wav": wav_bytes(mono, 16000, subtype="FLOAT"),
        "double.wav": wav_bytes(mono, 16000, subtype="DOUBLE"),
        "mulaw.wav": wav_bytes(mono, 16000, subtype="ULAW"),
        "adpcm.wav": wav_bytes(mono, 16000, subtype="MS_ADPCM"),
        "gsm.wav": wav_bytes(chirp(seconds=1.0, rate=8000, channels=1), 8000, subtype="GSM610"),
        "extensible.wav": sound("WAVEX", "PCM_16"),
        "long.rf64": sound("RF64", "PCM_16"),
        "sony.w64": sound("W64", "PCM_16"),
        "pcm16.aiff": sound("AIFF", "PCM_16"),
        "float.aifc": sound("AIFF", "FLOAT"),
        "sun.au": sound("AU", "PCM_16"),
        "pcm.caf": sound("CAF", "PCM_16"),
        "alac.caf": sound("CAF", "ALAC_16"),
        "pcm16.flac": sound("FLAC", "PCM_16"),
        "pcm24.flac": sound("FLAC", "PCM_24", mono, 16000),
        "vorbis.ogg": sound("OGG", "VORBIS"),
        "opus.opus": sound("OGG", "OPUS", longer, 48000),
        "opus16.opus": sound("OGG", "OPUS", mono, 16000),
        "flac.oga": libav("ogg", "flac", "s16"),
        "cbr.mp3": encode_mp3(stereo, 44100),
        "vbr.mp3": encode_mp3(mono, 16000, mode="VARIABLE", level=0.6),
        "bare.mp3": without_xing(encode_mp3(stereo, 44100)),
        "tagged.mp3": id3v2(3000) + encode_mp3(stereo, 44100),
        "layer2.mp2": libav("mp2", "mp2", "s16"),
        "aac.m4a": encode_m4a(stereo, 44100),
        "fast.m4a": encode_m4a(mono, 16000, index_first=True),
        "alac.m4a": libav("ipod", "alac", "s16p"),
        "opus.mp4": libav("mp4", "libopus", "flt"),
        "pcm.mov": libav("mov", "pcm_s24le", "s32"),
        "adts.aac": libav("adts", "aac"),
        "v2.wma": libav("asf", "wmav2"),
        "opus.webm": libav("webm", "libopus", "flt"),
        "aac.mka": libav("matroska", "aac"),
        "flac.mka": libav("matroska", "flac", "s16"),
        "ac3.ac3": libav("ac3", "ac3"),
        "stream.ts": libav("mpegts", "aac"),
        "flash.flv": libav("flv", "aac", samples=chirp(seconds=1.0)),
        "video.avi": libav("avi", "libmp3lame"),
        "lossless.wv": libav("wv", "wavpack", "s16p"),
        "lossless.tta": libav("tta", "tta", "s16"),
    }
    stem = StemFormat(container="flac", bit_depth=16)
    for container, (name, fmt) in {
        "flac": ("covered.flac", stem),
        "ogg": ("covered.ogg", StemFormat(container="ogg")),
        "mp3": ("covered.mp3", StemFormat(container="mp3")),
        "wav": ("covered.wav", StemFormat(container="wav", bit_depth=16)),
    }.items():
        files[name] = _tagged(stereo, fmt, container)
    return files


def _tagged(samples: np.ndarray, stem_format: StemFormat, container: str) -> bytes:
    file = io.BytesIO()
    with StemWriter(file, stem_format=stem_format) as writer:
        writer.write(samples)
    write_tags(file, _TAGS, container=container)
    return file.getvalue()


def damaged_files(count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """`count` files by a seed, each damaged in one to three ways; names tell how."""
    whole = whole_files()
    names = list(whole)
    chance = random.Random(seed)
    for index in range(count):
        name = names[index % len(names)]
        ways = chance.choices(list(_DAMAGES), k=chance.choice((1, 1, 1, 2, 3)))
        data = whole[name]
        for way in ways:
            data = _DAMAGES[way](chance, data, whole[chance.choice(names)])
        if data.startswith(b"OggS") and chance.random() < 0.6:
            data = _with_valid_checksums(data)  # so that decoders meet the damage
        suffix = "" if has_audio_extension(name) else ".wav"
        yield f"{index:06d}-{'-'.join(ways)}-{name}{suffix}", data


def _flip_bits(chance: random.Random, data: bytes, _other: bytes) -> bytes:
    changed = bytearray(data)
    reach = chance.choice((64, 512, len(data)))
    for _ in range(chance.choice((1, 4, 32))):
        if changed:
            changed[chance.randrange(min(reach, len(changed)))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _overwrite(chance: random.Random, data: bytes, _other: bytes) -> bytes:
    first, size = _range_in(chance, data)
    filling = chance.choice((bytes(size), b"\xff" * size, chance.randbytes(size)))
    return data[:first] + filling + data[first + size :]


def _cut_end(chance: random.Random, data: bytes, _other: bytes) -> bytes:
    return data[: chance.randrange(chance.choice((100, 2000, len(data) + 1)))]


def _cut_start(chance: random.Random, data: bytes, _other: bytes) -> bytes:
    return data[chance.randrange(chance.choice((16, 2000, len(data) + 1))) :]


def _take_out(chance: random.Random, data: bytes, _other: bytes) -> bytes:
    first, size = _range_in(chance, data)
    return data[:first] + data[first + size :]


def _put_in(chance: random.Random, data: bytes, other: bytes) -> bytes:
    at = chance.randrange(len(data) + 1)
    first, size = _range_in(chance, other)
    return data[:at] + other[first : first + size] + data[at:]


def _splice(chance: random.Random, data: bytes, other: bytes) -> bytes:
    return data[: chance.randrange(len(data) + 1)] + other[chance.randrange(len(other)) :]


def _join(_chance: random.Random, data: bytes, other: bytes) -> bytes:
    return data + other


def _change_header(chance: random.Random, data: bytes, _other: bytes) -> bytes:
    return _with_number(chance, data, chance.randrange(min(len(data), 512) + 1))


def _change_field(chance: random.Random, data: bytes, _other: bytes) -> bytes:
    places = [at for mark in _MARKS if (at := data.find(mark)) >= 0]
    if not places:
        return _change_header(chance, data, _other)
    return _with_number(chance, data, max(0, chance.choice(places) + chance.randrange(-8, 48)))


_DAMAGES: dict[str, Callable[[random.Random, bytes, bytes], bytes]] = {
    "flipped": _flip_bits,
    "overwritten": _overwrite,
    "cut": _cut_end,
    "beheaded": _cut_start,
    "shortened": _take_out,
    "stuffed": _put_in,
    "spliced": _splice,
    "joined": _join,
    "header": _change_header,
    "field": _change_field,
}


def _range_in(chance: random.Random, data: bytes) -> tuple[int, int]:
    first = chance.randrange(len(data) + 1)
    return first, min(chance.choice((1, 8, 100, 3000)), len(data) - first)


def _with_number(chance: random.Random, data: bytes, at: int) -> bytes:
    size = chance.choice((1, 2, 4, 8))
    number = chance.choice((*_EXTREMES, chance.getrandbits(64))) % (1 << 8 * size)
    return data[:at] + number.to_bytes(size, chance.choice(("big", "little"))) + data[at + size :]


def _with_valid_checksums(ogg: bytes) -> bytes:
    data = bytearray(ogg)
    for page in ogg_pages.pages(io.BytesIO(ogg), 0):
        if page.is_whole:
            checksum = ogg_pages.checksum(page.data).to_bytes(4, "little")
            data[page.offset + 22 : page.offset + 26] = checksum
    return bytes(data)


def faults_of_run(names: list[str], out: Path, log: str) -> tuple[list[str], Counter[str]]:
    """What went wrong in a job over such files, and how they ended, by kind of error.

    `log` is what the command printed with `--log-format json`, both its outputs.
    """
    faults = [f"log: {line}" for line in log.splitlines() if _is_alarm(line)]
    letters: dict[str, dict[str, Any]] = {}
    for line in (out / "failures.jsonl").read_text("utf-8").splitlines():
        letter = json.loads(line)
        letters[letter["element"]] = letter
        if letter["exception"] not in REFUSALS or letter.get("traceback"):
            faults.append(f"{letter['element']}: {letter['exception']}: {letter['message']}")
        elif len(letter["message"].split()) < 4:
            faults.append(f"{letter['element']}: no sentence: {letter['message']}")
    finished = {read_json(path)["input"]["element"] for path in manifests(out)}
    faults += [f"{name}: lost" for name in sorted({*names} - finished - {*letters})]
    faults += [f"{name}: finished and failed" for name in sorted(finished & {*letters})]
    faults += [f"{name}: not of this job" for name in sorted((finished | {*letters}) - {*names})]
    try:
        assert_whole(out)
    except AssertionError as error:
        faults.append(f"{out}: {error}")
    ends = Counter(letter["exception"] for letter in letters.values())
    ends["finished"] = len(finished)
    return faults, ends


def _is_alarm(line: str) -> bool:
    """Whether a line is none of progress, or tells of a process that died."""
    return not line.startswith("{") or json.loads(line)["event"] == "worker died"
