"""Where frames lie on a signal, and which of its samples they need."""

from dataclasses import dataclass

from ..errors import EmptyAudioError, TooShortAudioError
from ..resampling import rounded_length, source_range


@dataclass(frozen=True)
class Framing:
    """How frames lie on a signal, whatever its length. All fields are samples.

    Frame `t` needs what lies from `reach_before` before sample `t * hop_length` to `reach_after`
    behind it, is centred `centre` behind it, and is there where the signal goes on for
    `least_samples` from it.
    """

    hop_length: int
    centre: int
    reach_before: int
    reach_after: int
    least_samples: int

    def count(self, samples: int) -> int:
        """Frames of a signal of so many samples.

        Raises
        ------
        EmptyAudioError, TooShortAudioError
            there is none
        """
        if samples < 1:
            raise EmptyAudioError("there are no samples, and so no features of them")
        if samples < self.least_samples:
            raise TooShortAudioError(
                f"has {samples} of the {self.least_samples} samples of a frame: take a shorter "
                "n_fft, or center, which pads the ends"
            )
        return 1 + (samples - self.least_samples) // self.hop_length

    def complete(self, samples: int) -> int:
        """Frames that need nothing behind so many samples from the signal's start."""
        return max(0, 1 + (samples - self.reach_after) // self.hop_length)

    def context(self, frames: range) -> tuple[int, int]:
        """The first sample that frames need, and that behind the last; may lie beyond the ends."""
        return (
            frames[0] * self.hop_length - self.reach_before,
            frames[-1] * self.hop_length + self.reach_after,
        )


@dataclass(frozen=True)
class FrameGrid:
    """The frames of one recording: the same for all its stems and parts."""

    sample_rate: int  # Hz, of the recording
    total_samples: int  # of the whole recording, per channel
    rate: int  # Hz, of the signal that features are computed of
    framing: Framing

    @property
    def resampled_samples(self) -> int:
        """Samples of the whole recording at `rate`."""
        return rounded_length(self.total_samples, self.sample_rate, self.rate)

    @property
    def count(self) -> int:
        """Frames of the whole recording."""
        return self.framing.count(self.resampled_samples)

    def frames_in(self, start_sample: int, stop_sample: int) -> range:
        """The numbers of the frames that are centred in a range of the recording's samples.

        A centre behind the last sample counts as at it: ranges that make up the recording have
        each of its frames once.
        """
        return range(self._frames_before(start_sample), self._frames_before(stop_sample))

    def _frames_before(self, sample: int) -> int:
        if sample >= self.total_samples:
            return self.count
        resampled = -(-sample * self.rate // self.sample_rate)
        frames = -(-(resampled - self.framing.centre) // self.framing.hop_length)
        return min(max(0, frames), self.count)

    def samples_of(self, frames: range) -> tuple[int, int]:
        """Which of the recording's samples frames need: from one up to another."""
        start, stop = self.resampled_context(frames)
        return source_range(
            samples=self.total_samples,
            sample_rate=self.sample_rate,
            rate=self.rate,
            start_sample=start,
            stop_sample=stop,
        )

    def resampled_context(self, frames: range) -> tuple[int, int]:
        """Which samples at `rate` frames need, within the recording."""
        start, stop = self.framing.context(frames)
        return max(0, start), min(self.resampled_samples, stop)
