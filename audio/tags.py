"""Titles, artists and covers: read from recordings, written into stems without touching audio."""

import base64
import binascii
import contextlib
import dataclasses
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

import mutagen
import mutagen.flac
import mutagen.id3
import mutagen.mp4
from av.stream import Disposition

from .decoding.audio_reader import AudioSource
from .decoding.libav import open_for_tags

MAX_COVER_BYTES = 10 * 1024 * 1024


@dataclass(frozen=True)
class Tags:
    """What a recording says of itself; None where it does not.

    Attributes
    ----------
    track_number, disc_number : str or None
        As written, such as '3' or '3/12'.
    cover : bytes or None
        The front cover, an image file.
    cover_mime : str or None
        Such as 'image/jpeg'.
    """

    title: str | None = None
    artist: str | None = None
    album: str | None = None
    album_artist: str | None = None
    track_number: str | None = None
    disc_number: str | None = None
    date: str | None = None
    genre: str | None = None
    composer: str | None = None
    comment: str | None = None
    cover: bytes | None = None
    cover_mime: str | None = None


_ID3_FRAMES = {
    "title": "TIT2",
    "artist": "TPE1",
    "album": "TALB",
    "album_artist": "TPE2",
    "track_number": "TRCK",
    "disc_number": "TPOS",
    "date": "TDRC",
    "genre": "TCON",
    "composer": "TCOM",
}
_VORBIS_NAMES = {
    "title": "title",
    "artist": "artist",
    "album": "album",
    "album_artist": "albumartist",
    "track_number": "tracknumber",
    "disc_number": "discnumber",
    "date": "date",
    "genre": "genre",
    "composer": "composer",
    "comment": "comment",
}
_MP4_NAMES = {
    "title": "\xa9nam",
    "artist": "\xa9ART",
    "album": "\xa9alb",
    "album_artist": "aART",
    "track_number": "trkn",
    "disc_number": "disk",
    "date": "\xa9day",
    "genre": "\xa9gen",
    "composer": "\xa9wrt",
    "comment": "\xa9cmt",
}


_MP4_PICTURES = {
    "image/jpeg": mutagen.mp4.MP4Cover.FORMAT_JPEG,
    "image/png": mutagen.mp4.MP4Cover.FORMAT_PNG,
}

# As FFmpeg calls them in every container; the first that is there counts.
_FFMPEG_NAMES = {
    "title": ("title",),
    "artist": ("artist", "author"),
    "album": ("album", "product"),
    "album_artist": ("album_artist", "albumartist"),
    "track_number": ("track",),
    "disc_number": ("disc",),
    "date": ("date", "year"),
    "genre": ("genre",),
    "composer": ("composer",),
    "comment": ("comment",),
}
_COVER_MIMES = {"mjpeg": "image/jpeg", "png": "image/png", "gif": "image/gif", "webp": "image/webp"}


def read_tags(source: AudioSource) -> Tags:
    """The tags of a recording in any container that is read; none of a file without.

    mutagen reads them, and FFmpeg those that it does not find: the INFO of wav, the text chunks of
    aiff, wma, Matroska, ...

    Parameters
    ----------
    source : bytes or binary file
        Seekable; it is left open, at any position. A file that can't be understood has no tags.
    """
    file = io.BytesIO(source) if isinstance(source, bytes | bytearray) else source
    found, more = _read(_by_mutagen, file), _read(_by_ffmpeg, file)
    return Tags(
        **{
            field.name: getattr(more if getattr(found, field.name) is None else found, field.name)
            for field in dataclasses.fields(Tags)
        }
    )


def _read(reader: Callable[[BinaryIO], Tags], file: BinaryIO) -> Tags:
    try:
        file.seek(0)
        return reader(file)
    except Exception:  # a broken tag is no reason to lose the recording
        return Tags()


def _by_mutagen(file: BinaryIO) -> Tags:
    found = mutagen.File(file)
    return Tags() if found is None or found.tags is None else _tags_of(found)


def _by_ffmpeg(file: BinaryIO) -> Tags:
    with open_for_tags(file) as container:
        said: dict[str, str] = {}
        for metadata in (*(each.metadata for each in container.streams.audio), container.metadata):
            said.update((key.lower(), value) for key, value in metadata.items())
        fields: dict[str, Any] = {
            field: _text(_as_written(next(filter(None, map(said.get, names)), "")))
            for field, names in _FFMPEG_NAMES.items()
        }
        for stream in container.streams.video:
            mime = _COVER_MIMES.get(stream.codec_context.name)
            if mime and stream.disposition & Disposition.attached_pic:
                picture = bytes(next(container.demux(stream)))
                return Tags(**fields, cover=picture or None, cover_mime=mime if picture else None)
        return Tags(**fields)


def _as_written(text: str) -> str:
    """A text of which FFmpeg was to keep the bytes: old taggers wrote the codepage of Windows."""
    data = text.encode("utf-8", "surrogateescape")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("cp1252", "replace")


def _tags_of(found: Any) -> Tags:
    tags = found.tags
    if isinstance(tags, mutagen.id3.ID3):
        return _from_id3(tags)
    if isinstance(tags, mutagen.mp4.MP4Tags):
        return _from_mp4(tags)
    return _from_vorbis(tags, getattr(found, "pictures", []))


def _text(value: Any) -> str | None:
    text = str(value).replace("\0", "/").strip()
    return text or None


def _from_id3(tags: Any) -> Tags:
    fields: dict[str, Any] = {
        field: _text("/".join(str(t) for t in tags[frame].text))
        for field, frame in _ID3_FRAMES.items()
        if frame in tags
    }
    comments = [c for c in tags.getall("COMM") if not c.desc]
    if comments:
        fields["comment"] = _text(comments[0])
    pictures = tags.getall("APIC")
    return Tags(**fields, **_cover(pictures))


def _from_vorbis(tags: Any, pictures: list[Any]) -> Tags:
    fields: dict[str, Any] = {
        field: _text("/".join(tags[key])) for field, key in _VORBIS_NAMES.items() if key in tags
    }
    pictures = list(pictures)
    for text in tags.get("metadata_block_picture", []):
        with contextlib.suppress(binascii.Error, mutagen.MutagenError):
            pictures.append(mutagen.flac.Picture(base64.b64decode(text)))
    return Tags(**fields, **_cover(pictures))


def _from_mp4(tags: Any) -> Tags:
    fields: dict[str, Any] = {}
    for field, key in _MP4_NAMES.items():
        values = tags.get(key)
        if not values:
            continue
        if key in ("trkn", "disk"):
            number, total = values[0]
            fields[field] = _text(f"{number}/{total}" if total else number or "")
        else:
            fields[field] = _text("/".join(str(value) for value in values))
    covers = tags.get("covr") or []
    if not covers:
        return Tags(**fields)
    png = getattr(covers[0], "imageformat", None) == mutagen.mp4.MP4Cover.FORMAT_PNG
    return Tags(**fields, cover=bytes(covers[0]), cover_mime="image/png" if png else "image/jpeg")


def _cover(pictures: list[Any]) -> dict[str, Any]:
    """The front cover, or else the first picture."""
    fronts = [picture for picture in pictures if picture.type == 3] or pictures
    if not fronts or not fronts[0].data:
        return {}
    return {"cover": bytes(fronts[0].data), "cover_mime": fronts[0].mime or None}


def write_tags(file: BinaryIO, tags: Tags, *, container: str) -> None:
    """Writes tags into an encoded stem, in place; its audio stays as it is.

    Parameters
    ----------
    file : binary file
        Readable, writable, seekable; it is left open.
    tags : Tags
        Covers above 10 MiB are left out, and so are all tags of a wav of 4 GiB or more; of m4a,
        covers that are neither JPEG nor PNG, and numbers that are none.
    container : str
        'flac', 'ogg', 'mp3', 'wav', 'm4a' or 'opus'.
    """
    writers: dict[str, Callable[[BinaryIO, Tags], None]] = {
        "flac": _write_flac,
        "ogg": _write_ogg,
        "mp3": _write_mp3,
        "wav": _write_wav,
        "m4a": _write_m4a,
        "opus": _write_opus,
    }
    if container not in writers:
        raise ValueError(f"tags can be written to {', '.join(writers)}, not to {container!r}")
    if tags == Tags():
        return
    file.seek(0)
    writers[container](file, tags)


def _picture(tags: Tags) -> Any | None:
    if not tags.cover or len(tags.cover) > MAX_COVER_BYTES:
        return None
    picture = mutagen.flac.Picture()
    picture.type = 3
    picture.mime = tags.cover_mime or "image/jpeg"
    picture.data = tags.cover
    return picture


def _set_vorbis(target: Any, tags: Tags) -> None:
    for field, key in _VORBIS_NAMES.items():
        value = getattr(tags, field)
        if value:
            target[key] = value


def _write_flac(file: BinaryIO, tags: Tags) -> None:
    from mutagen.flac import FLAC

    sound = FLAC(file)
    if sound.tags is None:
        sound.add_tags()
    _set_vorbis(sound.tags, tags)
    picture = _picture(tags)
    if picture is not None:
        sound.clear_pictures()
        sound.add_picture(picture)
    file.seek(0)
    sound.save(file)


def _write_ogg(file: BinaryIO, tags: Tags) -> None:
    from mutagen.oggvorbis import OggVorbis

    _save_ogg(OggVorbis(file), file, tags)


def _write_opus(file: BinaryIO, tags: Tags) -> None:
    from mutagen.oggopus import OggOpus

    _save_ogg(OggOpus(file), file, tags)


def _save_ogg(sound: Any, file: BinaryIO, tags: Tags) -> None:
    _set_vorbis(sound.tags, tags)
    picture = _picture(tags)
    if picture is not None:
        text = base64.b64encode(picture.write()).decode("ascii")
        sound.tags["metadata_block_picture"] = [text]
    file.seek(0)
    sound.save(file)


def _set_id3(target: Any, tags: Tags) -> None:
    for field, frame in _ID3_FRAMES.items():
        value = getattr(tags, field)
        if value:
            target.setall(frame, [getattr(mutagen.id3, frame)(encoding=3, text=[value])])
    if tags.comment:
        comment = mutagen.id3.COMM(encoding=3, lang="und", desc="", text=[tags.comment])
        target.setall("COMM", [comment])
    picture = _picture(tags)
    if picture is not None:
        cover = mutagen.id3.APIC(encoding=3, mime=picture.mime, type=3, desc="", data=picture.data)
        target.setall("APIC", [cover])


def _write_mp3(file: BinaryIO, tags: Tags) -> None:
    target = mutagen.id3.ID3()
    _set_id3(target, tags)
    target.save(file, v1=0, v2_version=4)


def _write_wav(file: BinaryIO, tags: Tags) -> None:
    from mutagen.wave import WAVE

    if file.read(4) != b"RIFF":  # no program looks for tags in RF64, and mutagen can't write them
        return
    file.seek(0)
    sound = WAVE(file)
    if sound.tags is None:
        sound.add_tags()
    _set_id3(sound.tags, tags)
    file.seek(0)
    sound.save(file, v2_version=4)


def _write_m4a(file: BinaryIO, tags: Tags) -> None:
    sound: Any = mutagen.mp4.MP4(file)
    if sound.tags is None:
        sound.add_tags()
    for field, key in _MP4_NAMES.items():
        value = getattr(tags, field)
        if value and key in ("trkn", "disk"):
            value = _number_and_total(value)
        if value:
            sound.tags[key] = [value]
    picture = _picture(tags)
    if picture is not None and picture.mime in _MP4_PICTURES:
        cover = mutagen.mp4.MP4Cover(picture.data, _MP4_PICTURES[picture.mime])
        sound.tags["covr"] = [cover]
    file.seek(0)
    sound.save(file)


def _number_and_total(text: str) -> tuple[int, int] | None:
    """Both of '3/12', or the first and 0; None where they are no such numbers."""
    number, _, total = (part.strip() for part in text.partition("/"))
    pair = [int(part or 0) for part in (number, total) if not part or part.isdecimal()]
    return (pair[0], pair[1]) if len(pair) == 2 and max(pair) < 1 << 16 else None
