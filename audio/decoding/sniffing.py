"""What a file is, by its first bytes, never by its name: FFmpeg would read HTML as speech."""

from typing import BinaryIO

from .file_bytes import read_at, window
from .mp3_frames import find_chain, is_chain

_MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (8, b"AVI ", "avi"),
    (8, b"AIFF", "aiff"),
    (8, b"AIFC", "aiff"),
    (8, b"WAVE", "wav"),
    (0, b"fLaC", "flac"),
    (0, b"OggS", "ogg"),
    (0, b".snd", "au"),
    (0, b"caff", "caf"),
    (0, b"riff\x2e\x91\xcf\x11", "w64"),
    (4, b"ftyp", "m4a"),
    (4, b"moov", "m4a"),
    (4, b"mdat", "m4a"),
    (4, b"wide", "m4a"),
    (4, b"free", "m4a"),
    (4, b"skip", "m4a"),
    (0, b"\x1a\x45\xdf\xa3", "matroska"),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "wma"),
    (0, b"FLV\x01", "flv"),
    (0, b"MAC ", "ape"),
    (0, b"wvpk", "wavpack"),
    (0, b"TTA1", "tta"),
    (0, b"tBaK", "tak"),
    (0, b"DSD ", "dsf"),
    (0, b"#!AMR", "amr"),
    (0, b"\x7f\xfe\x80\x01", "dts"),
    (0, b"\x00\x00\x01\xba", "mpeg"),
)
_RIFF_IDS = frozenset({b"RIFF", b"RIFX", b"RF64", b"BW64", b"FORM"})

_NOT_AUDIO: tuple[tuple[bytes, str], ...] = (
    (b"PK\x03\x04", "it is a zip archive"),
    (b"\x1f\x8b", "it is a gzip archive"),
    (b"Rar!", "it is a rar archive"),
    (b"7z\xbc\xaf", "it is a 7z archive"),
    (b"\x89PNG", "it is a PNG image"),
    (b"\xff\xd8\xff", "it is a JPEG image"),
    (b"GIF8", "it is a GIF image"),
    (b"%PDF", "it is a PDF document"),
)


def identify(file: BinaryIO) -> tuple[BinaryIO, str | None]:
    """The file without the ID3 tags at its start, and its container, None if it is unknown.

    The file bears seeks to anywhere, as decoders try them where a header is damaged.
    """
    tag_size = id3_size(file)
    rest = window(file, tag_size)
    return rest, sniff(rest, tagged=tag_size > 0)


def id3_size(file: BinaryIO) -> int:
    """Bytes of the ID3v2 tags at the start of a file (some taggers write several)."""
    offset = 0
    while (header := read_at(file, offset, 10))[:3] == b"ID3" and len(header) == 10:
        size = 0
        for byte in header[6:10]:
            size = size << 7 | byte & 0x7F
        footer = 10 if header[5] & 0x10 else 0
        offset += 10 + size + footer
    return offset


def sniff(file: BinaryIO, *, tagged: bool) -> str | None:
    """The container, None if it is none that is known; `tagged`: whether ID3 tags came before."""
    head = read_at(file, 0, 4096)
    for offset, magic, container in _MAGIC:
        if head[offset : offset + len(magic)] == magic and (offset != 8 or head[:4] in _RIFF_IDS):
            return container
    if any(head.startswith(magic) for magic, _ in _NOT_AUDIO):
        return None
    if head[:2] == b"\x0b\x77" and len(head) > 6:
        return "eac3" if head[5] >> 3 > 10 else "ac3"
    if len(head) > 376 and head[0] == head[188] == head[376] == 0x47:
        return "mpegts"
    if _is_adts_chain(head):
        return "adts"
    if is_chain(head, 0, layer=2):
        return "mp2"
    # Taggers leave padding after their tags; a file without tags may begin amid a frame.
    reach = 1 << 18 if tagged else 4096
    return "mp3" if find_chain(read_at(file, 0, reach + 8192), reach) is not None else None


def what_else(file: BinaryIO) -> str:
    """What a file is that holds no audio, for a message."""
    head = read_at(file, 0, 512)
    for magic, reason in _NOT_AUDIO:
        if head.startswith(magic):
            return reason
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text[:1] == b"<":
        return "it is an HTML or XML page"
    if text and all(byte >= 32 or byte in b"\t\r\n" for byte in head):
        return "it is text"
    return "its first bytes are of no known audio format"


def _is_adts_chain(head: bytes) -> bool:
    offset = 0
    for _ in range(3):
        if len(head) < offset + 7 or head[offset] != 0xFF or head[offset + 1] & 0xF6 != 0xF0:
            return False
        size = (head[offset + 3] & 3) << 11 | head[offset + 4] << 3 | head[offset + 5] >> 5
        if size < 7:
            return False
        offset += size
        if offset + 7 > len(head):
            return True
    return True
