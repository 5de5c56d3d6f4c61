"""Tags: written and read again, the audio untouched."""

import dataclasses
import importlib.util
import io
import struct
from pathlib import Path

import mutagen.asf
import mutagen.mp4
import numpy as np
import PIL.Image
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from beamsplitter.audio.decoding.audio_reader import read_audio
from beamsplitter.audio.encoding import StemWriter
from beamsplitter.audio.stem_format import StemFormat
from beamsplitter.audio.tags import Tags, read_tags, write_tags

_SPEC = importlib.util.spec_from_file_location(
    "audio_files", Path(__file__).parents[1] / "audio_files.py"
)
assert _SPEC is not None and _SPEC.loader is not None
files = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(files)

FORMATS = {
    "flac": StemFormat(container="flac", bit_depth=16),
    "ogg": StemFormat(container="ogg"),
    "mp3": StemFormat(container="mp3"),
    "wav": StemFormat(container="wav", bit_depth=24),
    "m4a": StemFormat(container="m4a", bit_rate_kbps=256),
    "opus": StemFormat(container="opus", sample_rate=48000, bit_rate_kbps=160),
}
SONG = files.chirp(seconds=1.0)
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 300
TAGS = Tags(
    title="Größe ♪ (foreground)",
    artist="Somebody",
    album="An album",
    album_artist="Several",
    track_number="3/12",
    disc_number="1/2",
    date="2020-05-17",
    genre="Folk",
    composer="Somebody else",
    comment="Split",
    cover=PNG,
    cover_mime="image/png",
)


def stem(container: str) -> bytes:
    file = io.BytesIO()
    with StemWriter(file, stem_format=FORMATS[container]) as writer:
        writer.write(SONG)
    return file.getvalue()


def tagged(container: str, tags: Tags) -> bytes:
    file = io.BytesIO(stem(container))
    write_tags(file, tags, container=container)
    assert not file.closed
    return file.getvalue()


@pytest.mark.parametrize("container", FORMATS)
def test_written_tags_are_read_again(container: str) -> None:
    assert read_tags(tagged(container, TAGS)) == TAGS
    assert read_tags(io.BytesIO(tagged(container, TAGS))) == TAGS


@pytest.mark.parametrize("container", FORMATS)
def test_tags_leave_the_audio_alone(container: str) -> None:
    np.testing.assert_array_equal(
        read_audio(tagged(container, TAGS), name="x"), read_audio(stem(container), name="x")
    )


@pytest.mark.parametrize("container", FORMATS)
def test_same_tags_same_bytes(container: str) -> None:
    assert tagged(container, TAGS) == tagged(container, TAGS)


@pytest.mark.parametrize("container", FORMATS)
def test_no_tags_change_nothing(container: str) -> None:
    assert tagged(container, Tags()) == stem(container)
    assert read_tags(stem(container)) == Tags()


@pytest.mark.parametrize("container", FORMATS)
def test_huge_covers_are_left_out(container: str) -> None:
    huge = dataclasses.replace(TAGS, cover=bytes(10 * 2**20 + 1))
    read = read_tags(tagged(container, huge))
    assert read == dataclasses.replace(TAGS, cover=None, cover_mime=None)


@pytest.mark.parametrize("container", FORMATS)
def test_title_alone(container: str) -> None:
    assert read_tags(tagged(container, Tags(title="Only"))) == Tags(title="Only")


def test_unknown_containers_are_refused() -> None:
    with pytest.raises(ValueError, match="flac, ogg, mp3, wav, m4a, opus"):
        write_tags(io.BytesIO(), TAGS, container="aac")


def test_tags_of_m4a() -> None:
    file = io.BytesIO(files.encode_m4a(SONG, 44100))
    tags = mutagen.mp4.MP4(file)
    tags["\xa9nam"], tags["\xa9ART"], tags["trkn"] = ["Song"], ["Me"], [(3, 12)]
    tags["covr"] = [mutagen.mp4.MP4Cover(PNG, mutagen.mp4.MP4Cover.FORMAT_PNG)]
    file.seek(0)
    tags.save(file)
    read = read_tags(file.getvalue())
    assert (read.title, read.artist, read.track_number) == ("Song", "Me", "3/12")
    assert (read.cover, read.cover_mime) == (PNG, "image/png")


@pytest.mark.parametrize("kind", ["AIFF", "OPUS"])
def test_tags_of_aiff_and_opus(kind: str) -> None:
    import mutagen
    import mutagen.id3

    if kind == "AIFF":
        data = files.soundfile_bytes(SONG, 48000, container="AIFF", subtype="PCM_16")
    else:
        data = files.soundfile_bytes(SONG, 48000, container="OGG", subtype="OPUS")
    file = io.BytesIO(data)
    found = mutagen.File(file)
    if kind == "AIFF":
        found.add_tags()
        found.tags.add(mutagen.id3.TIT2(encoding=3, text=["Song"]))
    else:
        found.tags["title"] = "Song"
    file.seek(0)
    found.save(file)
    assert read_tags(file.getvalue()) == Tags(title="Song")


SAID = {
    "title": "Größe ♪",
    "artist": "Somebody",
    "album": "An album",
    "album_artist": "Several",
    "track": "3/12",
    "disc": "1/2",
    "date": "2020-05-17",
    "genre": "Folk",
    "composer": "Somebody else",
    "comment": "Split",
}


@pytest.mark.parametrize(
    ("container", "codec", "lacks"),
    [
        ("asf", "wmav2", {}),
        ("matroska", "flac", {}),
        ("webm", "libopus", {}),
        ("wav", "pcm_s16le", {"album_artist", "disc_number", "composer"}),
        ("rf64", "pcm_s16le", {"album_artist", "disc_number", "composer"}),
        ("caf", "pcm_s16le", {}),
        ("mov", "aac", {"album_artist", "track_number", "disc_number", "composer"}),
        ("ipod", "aac", {}),
        ("flac", "flac", {}),
        ("ogg", "flac", {}),
        ("mp3", "libmp3lame", {}),
        ("tta", "tta", {}),
    ],
)
def test_tags_that_ffmpeg_writes(container: str, codec: str, lacks: set[str]) -> None:
    """Of the tags of wav's INFO and QuickTime, some are known to no program."""
    kind = {"pcm_s16le": "s16", "flac": "s16", "tta": "s16", "libopus": "flt"}.get(codec, "fltp")
    file = files.libav_bytes(
        SONG,
        48000,
        container="wav" if container == "rf64" else container,
        codec=codec,
        sample_format=kind,
        bit_rate=96000,
        metadata=SAID,
        options={"rf64": "always"} if container == "rf64" else None,
    )
    expected = dataclasses.replace(
        TAGS, title=SAID["title"], cover=None, cover_mime=None, **dict.fromkeys(lacks)
    )
    assert read_tags(file) == expected


@pytest.mark.parametrize("kind", ["WAV", "AIFF"])
def test_tags_that_libsndfile_writes(kind: str) -> None:
    file = io.BytesIO()
    with soundfile.SoundFile(file, "w", 48000, 2, format=kind, subtype="PCM_16") as sound:
        sound.title, sound.comment = "Größe ♪", "Split"
        sound.write(SONG.T)
    assert read_tags(file.getvalue()) == Tags(title="Größe ♪", comment="Split")


def test_tags_in_the_codepage_of_windows() -> None:
    file = files.libav_bytes(
        SONG,
        48000,
        container="wav",
        codec="pcm_s16le",
        sample_format="s16",
        metadata={"title": "Gr__e"},
    )
    assert read_tags(file.replace(b"Gr__e", b"Gr\xf6\xdfe")) == Tags(title="Größe")


def test_the_cover_of_matroska() -> None:
    image = io.BytesIO()
    PIL.Image.new("RGB", (8, 8), "red").save(image, "png")
    file = files.libav_bytes(
        SONG,
        48000,
        container="matroska",
        codec="flac",
        sample_format="s16",
        cover=image.getvalue(),
    )
    assert read_tags(file) == Tags(cover=image.getvalue(), cover_mime="image/png")


def test_the_cover_of_wma() -> None:
    file = io.BytesIO(
        files.libav_bytes(SONG, 48000, container="asf", codec="wmav2", bit_rate=96000)
    )
    image = io.BytesIO()
    PIL.Image.new("RGB", (8, 8), "red").save(image, "png")
    found = mutagen.asf.ASF(file)
    picture = struct.pack("<BI", 3, len(image.getvalue())) + "image/png\0\0".encode("utf-16-le")
    found["WM/Picture"] = [mutagen.asf.ASFByteArrayAttribute(picture + image.getvalue())]
    file.seek(0)
    found.save(file)
    assert read_tags(file.getvalue()) == Tags(cover=image.getvalue(), cover_mime="image/png")


def test_a_playlist_has_no_tags_and_opens_nothing(tmp_path: Path) -> None:
    song = tmp_path / "song.flac"
    song.write_bytes(tagged("flac", TAGS))
    for text in (f"ffconcat version 1.0\nfile {song}\n", f"#EXTM3U\n#EXTINF:1,\n{song}\n"):
        assert read_tags(text.encode()) == Tags()


@settings(max_examples=80, deadline=None)
@given(st.binary(max_size=2000), st.sampled_from([b"", b"ID3\4\0\0\0\0\x0f\x7f", b"fLaC", b"OggS"]))
def test_odd_files_have_no_tags(rubbish: bytes, start: bytes) -> None:
    assert isinstance(read_tags(start + rubbish), Tags)


@pytest.mark.parametrize("name", files.RECORDING_NAMES)
def test_real_recordings(name: str) -> None:
    with files.recording(name).open("rb") as file:
        assert isinstance(read_tags(file), Tags)
        assert not file.closed
