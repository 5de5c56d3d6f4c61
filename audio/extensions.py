"""The file name extensions by which recordings are found in a folder."""

import os

AUDIO_EXTENSIONS = frozenset(
    ".wav .wave .rf64 .w64 .aif .aiff .aifc .flac .ogg .oga .opus .mp3 .mp2 .m4a .m4b .mp4 .aac "
    ".alac .wma .webm .mka .ac3 .caf .au".split()
)

# Some of these containers may hold a lossless codec, too: to know, one would have to open the file.
LOSSY_EXTENSIONS = frozenset(
    ".ogg .oga .opus .mp3 .mp2 .m4a .m4b .mp4 .aac .wma .webm .mka .ac3".split()
)

# Songs with their stems in one file: the mixture, and a stream for each stem.
STEM_FILE_EXTENSIONS = (".stem.mp4", ".stem.m4a")


def has_audio_extension(path: str) -> bool:
    """Whether a path is called as sound files are."""
    return os.path.splitext(path)[1].lower() in AUDIO_EXTENSIONS


def has_lossy_extension(path: str) -> bool:
    """Whether a path is called as sound files are whose codec leaves something out."""
    return os.path.splitext(path)[1].lower() in LOSSY_EXTENSIONS


def is_audio_name(path: str) -> bool:
    """Whether a path is one of a sound file, and neither it nor a folder of it is hidden."""
    return has_audio_extension(path) and not any(part.startswith(".") for part in path.split("/"))
