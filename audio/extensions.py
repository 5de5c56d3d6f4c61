"""The file name extensions by which recordings are found in a folder."""

AUDIO_EXTENSIONS = frozenset(
    ".wav .wave .rf64 .w64 .aif .aiff .aifc .flac .ogg .oga .opus .mp3 .mp2 .m4a .m4b .mp4 .aac "
    ".alac .wma .webm .mka .ac3 .caf .au".split()
)
