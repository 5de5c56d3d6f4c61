"""Builders of sound files in memory, for tests."""

import io
import os
import struct
import tempfile
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile as sf

RECORDINGS = Path(__file__).resolve().parents[2] / "shared" / "audio"
RECORDING_NAMES = (
    "brahms.ogg",
    "fishin.ogg",
    "humpback.ogg",
    "nutcracker.ogg",
    "robin.ogg",
    "speech_ashiel.ogg",
    "speech_austen.ogg",
    "speech_chivalry.ogg",
    "vibeace.ogg",
)
# Of each number of channels the layout that AAC and ALAC know.
LAYOUTS = {
    1: "mono",
    2: "stereo",
    3: "3.0",
    4: "4.0",
    5: "5.0",
    6: "5.1",
    7: "6.1(back)",
    8: "7.1(wide)",
}


def recording(name: str) -> Path:
    """A real recording, in a folder beside the checkout.

    On a user's machine, which has none, the test is skipped; in CI it fails.
    """
    path = RECORDINGS / name
    if not path.exists() and not os.environ.get("CI"):
        pytest.skip(f"needs {path}, one of librosa's example recordings")
    return path


def chirp(*, seconds: float, rate: int = 44100, channels: int = 2, seed: int = 0) -> np.ndarray:
    """A sweep with noise bursts, shape (channels, frames), float32, different in each channel."""
    frames = round(seconds * rate)
    time = np.arange(frames) / rate
    top = rate / 5
    noise = np.random.default_rng(seed).standard_normal((channels, frames))
    bursts = (np.sin(2 * np.pi * 3 * time) > 0.7) * 0.05 * noise
    sweeps = [
        0.4 * np.sin(2 * np.pi * (90 * (c + 1) * time + (top - 90) * time**2 / (2 * seconds)))
        for c in range(channels)
    ]
    return (np.stack(sweeps) * 0.9 + bursts).astype(np.float32)


def soundfile_bytes(samples: np.ndarray, rate: int, *, container: str, subtype: str) -> bytes:
    """A file written by libsndfile, in blocks that its Vorbis encoder survives."""
    file = io.BytesIO()
    with sf.SoundFile(
        file, "w", rate, len(samples), format=container.upper(), subtype=subtype
    ) as sound:
        for first in range(0, samples.shape[1], 32768):
            sound.write(samples[:, first : first + 32768].T)
    return file.getvalue()


def wav_bytes(samples: np.ndarray, rate: int, *, subtype: str = "PCM_16") -> bytes:
    return soundfile_bytes(samples, rate, container="WAV", subtype=subtype)


def wav_with_claimed_size(wav: bytes, claimed: int) -> bytes:
    """The same wav, its data chunk claiming another size (bytes)."""
    at = wav.index(b"data")
    return wav[: at + 4] + struct.pack("<I", claimed) + wav[at + 8 :]


def libav_bytes(
    samples: np.ndarray,
    rate: int,
    *,
    container: str,
    codec: str,
    sample_format: str = "fltp",
    bit_rate: int | None = None,
    options: dict[str, str] | None = None,
    metadata: dict[str, str] | None = None,
    cover: bytes | None = None,
) -> bytes:
    """A file written by FFmpeg; 's32' formats get 24-bit samples, Matroska a PNG as cover."""
    layout = LAYOUTS[len(samples)]
    array = samples
    if sample_format.startswith("s16"):
        array = np.clip(np.rint(samples * 32768), -32768, 32767).astype(np.int16)
    elif sample_format.startswith("s32"):
        array = np.clip(np.rint(samples * 2**23), -(2**23), 2**23 - 1).astype(np.int32) << 8
    packed = sample_format.removesuffix("p")
    array = array.T.reshape(1, -1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "audio"
        with av.open(str(path), "w", format=container, options=options or {}) as output:
            output.metadata.update(metadata or {})
            if cover:
                output.add_attachment("cover.png", "image/png", cover)
            stream = output.add_stream(codec, rate=rate)
            stream.codec_context.layout = layout
            stream.codec_context.format = sample_format
            if bit_rate:
                stream.bit_rate = bit_rate
            frame = av.AudioFrame.from_ndarray(
                np.ascontiguousarray(array), format=packed, layout=layout
            )
            frame.sample_rate = rate
            frame.pts = 0
            output.mux(stream.encode(frame))
            output.mux(stream.encode(None))
        return path.read_bytes()


def encode_m4a(
    samples: np.ndarray, rate: int, *, index_first: bool = False, bit_rate: int = 128000
) -> bytes:
    """AAC in mp4, with an edit list; its index at the end unless `index_first`."""
    options = {"movflags": "faststart"} if index_first else {}
    return libav_bytes(
        samples, rate, container="ipod", codec="aac", bit_rate=bit_rate, options=options
    )


def encode_mp3(
    samples: np.ndarray, rate: int, *, mode: str = "CONSTANT", level: float = 0.5
) -> bytes:
    """An mp3 with a LAME tag; mode 'CONSTANT', 'AVERAGE' or 'VARIABLE'."""
    file = io.BytesIO()
    sf.write(
        file,
        samples.T,
        rate,
        format="MP3",
        subtype="MPEG_LAYER_III",
        compression_level=level,
        bitrate_mode=mode,
    )
    return file.getvalue()


def without_xing(mp3: bytes) -> bytes:
    """The same mp3 without its first frame, which holds the Xing or Info header."""
    at = max(mp3.find(b"Xing", 0, 200), mp3.find(b"Info", 0, 200))
    if at < 0:
        return mp3
    second = mp3[1:].find(mp3[:2], at) + 1
    return mp3[second:]


def id3v2(size: int) -> bytes:
    """An ID3v2.4 tag of padding, `size` bytes and its header."""
    packed = bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0))
    return b"ID3\x04\x00\x00" + packed + bytes(size)


def offset(samples: np.ndarray, reference: np.ndarray) -> int:
    """By how many frames samples are late, by cross-correlation."""
    size = 1 << (len(samples) + len(reference)).bit_length()
    spectrum = np.fft.rfft(samples, size) * np.conj(np.fft.rfft(reference, size))
    lag = int(np.argmax(np.fft.irfft(spectrum)))
    return lag - size if lag > size // 2 else lag
