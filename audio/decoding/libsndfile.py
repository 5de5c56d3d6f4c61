"""wav, aiff, flac, ogg (Vorbis, Opus, FLAC), au, caf and w64, read by libsndfile."""

import io
from typing import Any, BinaryIO

import numpy as np
import soundfile as sf

from ..channels import VORBIS_ORDER
from ..errors import AudioError
from . import ogg_pages
from .decoder import AudioInfo, Decoder, damaged, truncated, undecodable
from .file_bytes import read_at, size_of
from .libav import Libav
from .opus_clock import is_opus, repaired_opus
from .wav_headers import check_aiff, repaired_wav

CONTAINERS = frozenset({"wav", "aiff", "flac", "ogg", "au", "caf", "w64"})

_CODECS = {
    "PCM_S8": ("pcm_8", 8),
    "PCM_U8": ("pcm_8", 8),
    "PCM_16": ("pcm_16", 16),
    "PCM_24": ("pcm_24", 24),
    "PCM_32": ("pcm_32", 32),
    "FLOAT": ("float", 32),
    "DOUBLE": ("double", 64),
    "ALAC_16": ("alac", 16),
    "ALAC_20": ("alac", 24),
    "ALAC_24": ("alac", 24),
    "ALAC_32": ("alac", 32),
}
_OPUS_PREROLL_S = 10  # by then Opus' predictors have forgotten where they began
_BLOCK_FRAMES = 1 << 14
_LIKELY_FLAC_FRAMES_A_BYTE = 64  # but for silence


def open_with_libsndfile(file: BinaryIO, name: str, container: str) -> Decoder:
    """The decoder of a file; FFmpeg's where libsndfile has gaps or does not understand it."""
    if container == "wav":
        file = repaired_wav(file, name)
    elif container == "aiff":
        check_aiff(file, name)
    elif container == "ogg":
        ogg_pages.check_end(file, name)
        if ogg_pages.is_chained(file):
            ogg_pages.check_pages(file, name)
            return Libav(file, name, container)
        if is_opus(file):
            file = repaired_opus(file)
        elif surplus := _surplus_of_first_page(file):
            ogg_pages.check_pages(file, name)
            return Libav(file, name, container, late_samples=max(0, surplus))
    elif container == "flac" and not (_flac_total(file) and _flac_begins(file)):
        return Libav(file, name, container)
    file.seek(0)
    try:
        with sf.SoundFile(file) as sound:
            if sound.subtype != "MPEG_LAYER_III":  # of which it reads too little
                return Libsndfile(file, name, container)
    except sf.LibsndfileError:
        pass
    return Libav(file, name, container)


def _flac_total(file: BinaryIO) -> int:
    """Samples that a flac's STREAMINFO promises; 0: unknown."""
    return int.from_bytes(read_at(file, 18, 8), "big") & ((1 << 36) - 1)


def _flac_begins(file: BinaryIO) -> bool:
    """Whether a flac's first frame is number 0; where it was cut from a longer one, it is not.

    Of such a file libsndfile reads nothing, and its header tells the length of the longer one.
    """
    offset = 4
    while len(header := read_at(file, offset, 4)) == 4:
        offset += 4 + int.from_bytes(header[1:], "big")
        if header[0] & 0x80:  # the last block before the audio
            break
    frame = read_at(file, offset, 5)
    return frame[:1] != b"\xff" or frame[4:] == b"\0"


def _surplus_of_first_page(file: BinaryIO) -> int:
    """Samples of Vorbis on the first page of audio beyond those that its clock says.

    A stream that was cut from a longer one may begin with some that are only there for decoding
    to begin; libsndfile reads them, and seeks as if they were not there. One that was joined midway
    begins with a later time, and the surplus is negative.
    """
    if read_at(file, 28, 7) != b"\x01vorbis":
        return 0
    head = io.BytesIO()
    for page in ogg_pages.pages(file, 0):
        head.write(page.data)
        if page.granule > 0 or not page.is_whole:
            break
    if page.is_last or not page.is_whole:
        return 0
    try:
        return Libav(head, "", "ogg").info().frames - page.granule
    except AudioError:
        return 0


class _StraightReader(sf.SoundFile):
    """Reads on from where it is: soundfile would seek after each read, which Vorbis does not bear.

    It does so on files that say of themselves that they can seek.
    """

    def seekable(self) -> bool:
        return False


class Libsndfile:
    """Decoder of what libsndfile reads.

    Damage is found in flac by its checksums, in ogg by those of its pages; of files without any
    (wav, aiff, ...) it can't be known.
    """

    def __init__(self, file: BinaryIO, name: str, container: str) -> None:
        self._file = file
        self._name = name
        self._container = container

    def _opened(self) -> Any:
        self._file.seek(0)
        return _StraightReader(self._file)

    def info(self) -> AudioInfo:
        """What the header says; of an ogg, after a look at all of its pages."""
        if self._container == "ogg":
            ogg_pages.check_pages(self._file, self._name)
        with self._opened() as sound:
            codec, bit_depth = _CODECS.get(sound.subtype, (sound.subtype.lower(), None))
            info = AudioInfo(
                container=self._container,
                codec="flac" if self._container == "flac" else codec,
                sample_rate=sound.samplerate,
                channels=sound.channels,
                frames=sound.frames,
                bit_depth=bit_depth,
                is_float=sound.subtype in {"FLOAT", "DOUBLE"},
            )
        likely = _LIKELY_FLAC_FRAMES_A_BYTE * size_of(self._file)
        # A damaged header may promise days, of which part by part would fail.
        if self._container == "flac" and info.frames > likely and not self._has_end(info):
            raise undecodable(
                self._name, f"its header promises {info.duration_s:.0f} s, which it does not hold"
            )
        return info

    def read(self, start: int, stop: int, info: AudioInfo) -> np.ndarray:
        """The frames of a range, decoded from where a seek is exact."""
        out = np.empty((info.channels, stop - start), np.float32)
        block = np.empty((_BLOCK_FRAMES, info.channels), np.float32)
        order = self._order_of(info)
        position = start
        try:
            position = self._first_decoded(start, info)
            with self._opened() as sound:
                if position:
                    sound.seek(position)
                while position < stop:
                    wanted = start if position < start else stop
                    got = len(sound.read(min(_BLOCK_FRAMES, wanted - position), out=block))
                    if got == 0:
                        raise self._unreadable(position, info, "its data ends early")
                    if position >= start:
                        out[order, position - start : position - start + got] = block[:got].T
                    position += got
        except sf.LibsndfileError as error:
            raise self._unreadable(position, info, str(error.error_string)) from error
        return out

    def _order_of(self, info: AudioInfo) -> list[int]:
        """Where each channel belongs: libsndfile leaves those of Vorbis and Opus in their order."""
        own = range(info.channels)
        if info.codec == "opus" and read_at(self._file, 46, 1) != b"\1":
            return list(own)  # a mapping that names no loudspeakers
        is_vorbis = info.codec in ("vorbis", "opus")
        return list(VORBIS_ORDER.get(info.channels, own) if is_vorbis else own)

    def _first_decoded(self, start: int, info: AudioInfo) -> int:
        """Where to seek to, so that what follows is the same as when decoded from the start."""
        if start and not self._can_seek():
            return 0
        if info.codec == "vorbis":
            return min(start, ogg_pages.seekable_sample(self._file))
        if info.codec == "opus":
            return max(0, start - _OPUS_PREROLL_S * info.sample_rate)
        return start

    def _can_seek(self) -> bool:
        """Whether the codec can (gsm can't); libsndfile would crash in Vorbis that decodes not."""
        with self._opened() as sound:
            return sf.SoundFile.seekable(sound) and len(sound.read(1)) == 1

    def _unreadable(self, position: int, info: AudioInfo, reason: str) -> Exception:
        """The error of a file that can't be read from (near) a position on."""
        second = position / info.sample_rate
        if self._has_end(info):
            return damaged(self._name, second=second, reason=reason)
        return truncated(self._name, held_s=second, promised_s=info.duration_s)

    def _has_end(self, info: AudioInfo) -> bool:
        if self._container == "ogg":
            return True  # its last page was looked at
        try:
            with self._opened() as sound:
                sound.seek(info.frames - 1)
                return len(sound.read(1)) == 1
        except sf.LibsndfileError:
            return False
