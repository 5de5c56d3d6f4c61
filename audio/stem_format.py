"""How stems are stored: what each file format can hold, and what is chosen for a recording."""

from dataclasses import dataclass
from typing import Literal, get_args

from .decoding.decoder import AudioInfo
from .errors import UnsupportedFormatError

Container = Literal["flac", "wav", "ogg", "mp3", "m4a", "opus"]
CONTAINERS: tuple[Container, ...] = get_args(Container)

BIT_DEPTHS: dict[str, tuple[str, ...]] = {"flac": ("16", "24"), "wav": ("16", "24", "32", "32f")}
# Sample rates in Hz; the others hold any.
SAMPLE_RATES: dict[str, tuple[int, ...]] = {
    "mp3": (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000),
    "m4a": (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000),
    "opus": (8000, 12000, 16000, 24000, 48000),
}
_FASTEST = {"flac": 655_350, "ogg": 200_000}
_MOST_CHANNELS = {"flac": 8, "wav": 65535, "ogg": 255, "mp3": 2, "m4a": 8, "opus": 8}
# More channels than these belong to no layout that is known, and can't be folded.
_MOST_FOLDED = 8

# Frames of fewer have no room for the LAME tag, which tells the exact length.
_MP3_HIGH = (64, 80, 96, 112, 128, 160, 192, 224, 256, 320)  # from 32 kHz on
_MP3_MIDDLE = (64, 80, 96, 112, 128, 144, 160)  # from 16 kHz on
_MP3_LOW = (32, 40, 48, 56, 64)
# kbit/s of a whole file, as they may be asked for.
BIT_RATES_KBPS: dict[str, tuple[int, ...] | range] = {
    "mp3": tuple(sorted({*_MP3_HIGH, *_MP3_MIDDLE, *_MP3_LOW})),
    "m4a": range(16, 1025),
    "opus": range(6, 1025),
}
_M4A_KBPS_A_CHANNEL = 128
_OPUS_KBPS_A_CHANNEL = 80
_OPUS_MOST_KBPS_A_CHANNEL = 256
_AAC_FRAME_SAMPLES, _AAC_FRAME_BITS = 1024, 6144  # the most bits in a frame of one channel
_VORBIS_QUALITY = 6.0


@dataclass(frozen=True, kw_only=True)
class StemFormat:
    """How stems are stored.

    Attributes
    ----------
    container : str
        'flac', 'wav', 'ogg' (Vorbis), 'mp3', 'm4a' (AAC-LC) or 'opus' (Ogg Opus).
    bit_depth : int or None
        16, 24 or 32 bits a sample; None of lossy formats.
    is_float : bool
        32-bit floating point, wav only.
    sample_rate : int
        Hz.
    channels : int
    bit_rate_kbps : int or None
        Of mp3, m4a and opus, for all channels together.
    quality : float or None
        Of ogg: 0 to 10.
    """

    container: Container
    bit_depth: int | None = None
    is_float: bool = False
    sample_rate: int = 44100
    channels: int = 2
    bit_rate_kbps: int | None = None
    quality: float | None = None

    @property
    def extension(self) -> str:
        """With its dot."""
        return f".{self.container}"

    @property
    def is_lossy(self) -> bool:
        """Whether it does not keep samples as they are."""
        return self.bit_depth is None

    @property
    def full_scale(self) -> float:
        """The highest level of samples that is never clipped; infinite for floats."""
        if self.is_float:
            return float("inf")
        # float32 holds 24 bits: above, the highest integer would round to 1.
        return 1.0 - 2.0 ** (1 - min(self.bit_depth or 24, 24))


def choose_format(
    container: str,
    *,
    info: AudioInfo,
    bit_depth: str | int | None = None,
    sample_rate: int | None = None,
    bit_rate_kbps: int | None = None,
    quality: float | None = None,
) -> StemFormat:
    """The format of a recording's stems.

    Parameters
    ----------
    container : str
        'flac', 'wav', 'ogg', 'mp3', 'm4a' or 'opus'.
    info : AudioInfo
        The recording.
    bit_depth : str, int or None
        None or 'source': as the recording's own. flac has 16 bits for recordings of at most 16 and
        for lossy ones, else 24; wav also 32 and, for float recordings, 32-bit float. Or '16', '24',
        and for wav '32' or '32f'.
    sample_rate : int or None
        Hz; None: the recording's own, or where the format does not know it 48000, or a rate of at
        least 44100 of which it is a multiple.
    bit_rate_kbps : int or None
        Of mp3, m4a and opus; where the codec has less for so few channels or so low a rate, its
        most. None: mp3's most; 128 kbit/s a channel of m4a, 80 of opus.
    quality : float or None
        Of ogg; None: 6.

    Returns
    -------
    StemFormat
        mp3 has no more than 2 channels: `fold_down` says what becomes of others.

    Raises
    ------
    UnsupportedFormatError
        The format can't hold the recording's channels or the sample rate, or has no such bit depth,
        bit rate or quality.
    """
    if container not in CONTAINERS:
        raise UnsupportedFormatError(
            f"no such stem format: {container!r}; use {', '.join(CONTAINERS)}"
        )
    chosen: Container = container
    require_options(chosen, sample_rate, bit_rate_kbps, quality)
    depth, is_float = _depth_of(chosen, "source" if bit_depth is None else str(bit_depth), info)
    channels = _channels_of(chosen, info)
    rate = sample_rate or _rate_of(chosen, info.sample_rate)
    if rate > _FASTEST.get(chosen, rate):
        raise UnsupportedFormatError(
            f"{chosen} holds sample rates up to {_FASTEST[chosen]} Hz, the recording has {rate}; "
            "use wav, or set stems.sample_rate"
        )
    return StemFormat(
        container=chosen,
        bit_depth=depth,
        is_float=is_float,
        sample_rate=rate,
        channels=channels,
        bit_rate_kbps=_bit_rate_of(chosen, bit_rate_kbps, rate, channels),
        quality=(_VORBIS_QUALITY if quality is None else quality) if chosen == "ogg" else None,
    )


def require_options(
    container: str, sample_rate: int | None, bit_rate_kbps: int | None, quality: float | None
) -> None:
    """Refuse what a format has not.

    Raises
    ------
    UnsupportedFormatError
        a rate, bit rate or quality that is none of the format
    """
    rates = SAMPLE_RATES.get(container)
    if sample_rate is not None and rates and sample_rate not in rates:
        raise UnsupportedFormatError(
            f"{container} does not know a sample_rate of {sample_rate} Hz: use one of "
            f"{', '.join(map(str, rates))}"
        )
    if bit_rate_kbps is not None:
        _require_bit_rate(container, bit_rate_kbps)
    if quality is not None and container != "ogg":
        raise UnsupportedFormatError(
            f"{container} has no quality, only ogg has: {_advice(container)}"
        )
    if quality is not None and not 0 <= quality <= 10:
        raise UnsupportedFormatError(f"ogg's quality is 0 to 10, not {quality:g}")


def _require_bit_rate(container: str, bit_rate_kbps: int) -> None:
    known = BIT_RATES_KBPS.get(container)
    if known is None:
        raise UnsupportedFormatError(
            f"{container} has no bit rate, only {', '.join(BIT_RATES_KBPS)} have: "
            f"{_advice(container)}"
        )
    if bit_rate_kbps not in known:
        is_range = isinstance(known, range)
        valid = f"{known[0]} to {known[-1]}" if is_range else ", ".join(map(str, known))
        raise UnsupportedFormatError(
            f"{container} can't have bit_rate_kbps {bit_rate_kbps}: use {valid}"
        )


def _advice(container: str) -> str:
    if container in BIT_DEPTHS:
        return "leave it out, or set bit_depth"
    return "set quality" if container == "ogg" else "set bit_rate_kbps"


def _depth_of(container: Container, depth: str, info: AudioInfo) -> tuple[int | None, bool]:
    """Bits a sample, and whether they are floats."""
    depths = BIT_DEPTHS.get(container)
    if depths is None:
        if depth != "source":
            raise UnsupportedFormatError(
                f"{container} has no bit depth, but {depth} was asked for; leave it out or use flac"
            )
        return None, False
    if depth != "source":
        if depth not in depths:
            raise UnsupportedFormatError(
                f"{container} stems can't have a bit depth of {depth}; use {', '.join(depths)} or "
                "source"
            )
        return int(depth.removesuffix("f")), depth == "32f"
    bits = info.bit_depth or 16
    if container == "flac":
        return 24 if bits > 16 or info.is_float else 16, False
    if info.is_float:
        return 32, True
    return 16 if bits <= 16 else 24 if bits <= 24 else 32, False


def _channels_of(container: Container, info: AudioInfo) -> int:
    most = _MOST_CHANNELS[container]
    if info.channels <= most:
        return info.channels
    if container == "mp3" and info.channels <= _MOST_FOLDED:
        return most
    raise UnsupportedFormatError(
        f"{container} holds at most {most} channels, the recording has {info.channels}; "
        f"use {'wav' if info.channels > 8 else 'flac'}"
    )


def _rate_of(container: Container, rate: int) -> int:
    known = SAMPLE_RATES.get(container, (rate,))
    if rate in known:
        return rate
    return next((each for each in known[::-1] if each >= 44100 and rate % each == 0), 48000)


def _bit_rate_of(container: Container, asked: int | None, rate: int, channels: int) -> int | None:
    if container == "mp3":
        table = _MP3_HIGH if rate >= 32000 else _MP3_MIDDLE if rate >= 16000 else _MP3_LOW
        return max((each for each in table if asked is None or each <= asked), default=table[0])
    if container == "m4a":
        most = _AAC_FRAME_BITS * channels * rate // (_AAC_FRAME_SAMPLES * 1000)
        return min(asked or _M4A_KBPS_A_CHANNEL * channels, most)
    if container == "opus":
        asked = asked or _OPUS_KBPS_A_CHANNEL * channels
        return min(asked, _OPUS_MOST_KBPS_A_CHANNEL * channels)
    return None
