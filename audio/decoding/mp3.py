"""mp3 frames, found in `mp3_frames`, decoded one by one by FFmpeg's codec.

libsndfile's seeks miss the bit reservoir, and it writes warnings to stderr.
"""

from collections.abc import Iterator
from typing import Any, BinaryIO

import av
import av.error
import numpy as np

from .decoder import AudioInfo, as_channels, damaged, place, truncated
from .file_bytes import read_at
from .mp3_frames import mp3_layout

_RESERVOIR_BYTES = 511  # the farthest that a frame refers back
_PHASE_FRAMES = 8  # the synthesis filter's ring buffer is back in place after so many frames


class Mp3:
    """Decoder of mp3 files.

    The first frames of a stream that was cut from a longer one refer to data that is gone: FFmpeg
    makes silence of them. Bytes between frames that are none, such as the tags of files written
    one after another, are left out; with a Xing header, though, all frames it promises must be
    there. What a damaged frame sounds like that FFmpeg still decodes can't be known.
    """

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file = file
        self._name = name
        self._layout = mp3_layout(file)
        self._refuse_lost_frames()

    def _refuse_lost_frames(self) -> None:
        layout = self._layout
        second = layout.samples_per_frame / layout.rate
        held, gap = len(layout.offsets), layout.first_gap
        if held < layout.promised and gap is not None:
            reason = f"{layout.promised - held} of its frames are lost"
            raise damaged(self._name, second=gap * second, reason=reason)
        if held + 1 < layout.promised:  # some encoders count their Xing frame as well
            raise truncated(self._name, held_s=held * second, promised_s=layout.promised * second)

    def info(self) -> AudioInfo:
        """What the headers of the frames say."""
        layout = self._layout
        return AudioInfo(
            container="mp3",
            codec="mp3",
            sample_rate=layout.rate,
            channels=layout.channels,
            frames=layout.frames,
            bit_depth=None,
            is_float=False,
        )

    def read(self, start: int, stop: int, info: AudioInfo) -> np.ndarray:
        """The frames of a range, decoded from early enough for the bit reservoir."""
        layout = self._layout
        step = layout.samples_per_frame
        wanted = (start + layout.skipped) // step
        end = min(len(layout.offsets), -(-(stop + layout.skipped) // step))
        out = np.zeros((layout.channels, stop - start), np.float32)
        for frame, samples in self._decoded(self._first_decoded(wanted), wanted, end):
            place(out, as_channels(samples, layout.channels), frame * step - layout.skipped - start)
        return out

    def _first_decoded(self, frame: int) -> int:
        """A frame early enough for what this one hears of earlier ones.

        The synthesis filter reaches into the frame before, whose overlap comes from the one before
        that, which may need the bit reservoir.
        """
        reservoir = 0
        frame -= 2
        while frame > 0 and reservoir < _RESERVOIR_BYTES:
            frame -= 1
            reservoir += max(0, int(self._layout.sizes[frame]) - self._layout.overhead)
        return max(0, frame - 1) // _PHASE_FRAMES * _PHASE_FRAMES

    def _decoded(self, first: int, wanted: int, end: int) -> Iterator[tuple[int, np.ndarray]]:
        """Number and samples of the frames `wanted` to `end`, decoding from `first` on."""
        codec: Any = av.CodecContext.create("mp3float", "r")
        for frame in range(first, end):
            offset, size = int(self._layout.offsets[frame]), int(self._layout.sizes[frame])
            try:
                (decoded,) = codec.decode(av.Packet(read_at(self._file, offset, size)))
            except (av.error.FFmpegError, ValueError) as error:
                if frame < wanted:
                    continue
                second = frame * self._layout.samples_per_frame / self._layout.rate
                reason = "not a valid mp3 frame"
                raise damaged(self._name, second=second, reason=reason) from error
            if frame >= wanted:
                yield frame, decoded.to_ndarray()
