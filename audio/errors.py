"""The errors that a recording can cause. Each is permanent: trying again would not help."""

from ..errors import BeamsplitterError


class AudioError(BeamsplitterError, ValueError):
    """A recording that can't be processed; the message says what is wrong and what to do."""


class UndecodableAudioError(AudioError):
    """No decoder understands the bytes."""


class TruncatedAudioError(AudioError):
    """The file ends before the audio that its header promises."""


class EmptyAudioError(AudioError):
    """The file holds no bytes, or no audio frames."""


class NonFiniteAudioError(AudioError):
    """The samples hold NaN or infinity."""


class TooShortAudioError(AudioError):
    """The recording is shorter than the method can work on."""


class UnsupportedFormatError(AudioError):
    """The asked-for output format can't hold this recording (channels, rate, bit depth)."""


class LowSampleRateError(AudioError):
    """The sample rate is too low for the frequencies that are asked for."""
