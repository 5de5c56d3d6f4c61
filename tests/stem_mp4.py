"""Songs with their stems in one file, as ffmpeg writes them, for tests."""

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import soundfile
from programs import run_program


def write_stem_mp4(
    path: Path,
    streams: Sequence[np.ndarray],
    rate: int,
    *,
    codec: str = "aac",
    titles: Sequence[str] = (),
    arguments: Sequence[str] = (),
) -> Path:
    """Write float32 `(channels, samples)` arrays as the streams of one file, in 16 bits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sources = [path.with_name(f".{path.name}.{number}.wav") for number in range(len(streams))]
    for source, samples in zip(sources, streams, strict=True):
        integers = np.round(samples.T * 2**15).clip(-(2**15), 2**15 - 1).astype(np.int16)
        soundfile.write(source, integers, rate)
    inputs = [argument for source in sources for argument in ("-i", source)]
    maps = [argument for number in range(len(sources)) for argument in ("-map", f"{number}:a")]
    names = [
        argument
        for number, title in enumerate(titles)
        for argument in (f"-metadata:s:a:{number}", f"title={title}")
    ]
    options = [*maps, *names, "-c:a", codec, "-strict", "-2", *arguments]
    run_program("ffmpeg", "-v", "error", "-y", *inputs, *options, path, package="ffmpeg")
    for source in sources:
        source.unlink()
    return path


def decoded_alone(path: Path, stream: int, channels: int) -> np.ndarray:
    """What ffmpeg makes of one stream: float32 `(channels, samples)`."""
    raw = path.with_name(f".{path.name}.raw")
    options = ("-map", f"0:a:{stream}", "-f", "f32le")
    run_program("ffmpeg", "-v", "error", "-y", "-i", path, *options, raw, package="ffmpeg")
    samples = np.fromfile(raw, np.float32).reshape(-1, channels).T
    raw.unlink()
    return samples


def note_stems(path: Path, content: Mapping[str, object] | bytes) -> None:
    """Write Native Instruments' note of the stems into an mp4 whose index is at its end."""
    data = path.read_bytes()
    note = content if isinstance(content, bytes) else json.dumps(content).encode()
    box = struct.pack(">I4s", 8 + len(note), b"stem") + note
    moov = data.rindex(b"moov") - 4
    udta = data.rindex(b"udta") - 4
    grown = bytearray(data + box)
    for at in (moov, udta):
        (size,) = struct.unpack_from(">I", data, at)
        assert at + size == len(data)
        struct.pack_into(">I", grown, at, size + len(box))
    path.write_bytes(grown)
