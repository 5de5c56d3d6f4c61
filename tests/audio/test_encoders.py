"""Files that encoders of the wild write: exact lengths, at the right place, the right samples."""

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import soundfile
from audio_files import RECORDING_NAMES, offset, recording
from programs import run_program

from beamsplitter.audio.decoding.audio_reader import AudioInfo, probe, read_audio

EXCERPT_S = 6

ffmpeg = functools.partial(run_program, "ffmpeg", "-v", "error", "-y", package="ffmpeg")


class Made(NamedTuple):
    """What is expected of a file: how many frames it has more than its source, at most and least.

    `is_lossless`: its samples are those of the source. Otherwise they are those of another decoder.
    """

    arguments: str
    longer: tuple[int, int] = (0, 0)
    is_lossless: bool = False


BY_FFMPEG = {
    "16.wav": Made("-c:a pcm_s16le", is_lossless=True),
    "long.wav": Made("-c:a pcm_s16le -rf64 always", is_lossless=True),
    "16.aiff": Made("", is_lossless=True),
    "16.caf": Made("-c:a pcm_s16le", is_lossless=True),
    "alac.caf": Made("-c:a alac", is_lossless=True),
    "16.flac": Made("-c:a flac", is_lossless=True),
    "24.flac": Made("-c:a flac -sample_fmt s32", is_lossless=True),
    "flac.oga": Made("-c:a flac", is_lossless=True),
    "alac.m4a": Made("-c:a alac", is_lossless=True),
    "flac.mka": Made("-c:a flac", is_lossless=True),
    "lossless.wv": Made("-c:a wavpack", is_lossless=True),
    "vorbis.ogg": Made("-c:a libvorbis"),
    "cbr.mp3": Made("-c:a libmp3lame -b:a 128k"),
    "vbr.mp3": Made("-c:a libmp3lame -q:a 4"),
    "aac.m4a": Made("-c:a aac"),
    "fast.m4a": Made("-c:a aac -movflags +faststart"),
    "aac.mov": Made("-c:a aac"),
    # What follows has no place for how much of it is the codec's padding.
    "bare.mp3": Made("-c:a libmp3lame -write_xing 0", (0, 3000)),
    "mp3.wav": Made("-c:a libmp3lame", (0, 3000)),
    "layer2.mp2": Made("-c:a mp2", (0, 1152)),
    "fragments.mp4": Made("-c:a aac -movflags +frag_keyframe+empty_moov", (0, 2048)),
    "adts.aac": Made("-c:a aac", (0, 2048)),
    "aac.mka": Made("-c:a aac", (0, 2048)),
    "vorbis.webm": Made("-c:a libvorbis", (0, 2048)),
    "v1.wma": Made("-c:a wmav1", (-2048, 0)),
    "v2.wma": Made("-c:a wmav2", (-2048, 0)),
    "ac3.ac3": Made("-c:a ac3 -ar 48000", (0, 2048)),
}
OTHERS = {
    "lame.mp3": ("lame", "--quiet -V2 {source} {out}", "lame"),
    "mono.mp3": ("lame", "--quiet -b 96 -m m {source} {out}", "lame"),
    "oggenc.ogg": ("oggenc", "--quiet {source} -o {out}", "vorbis-tools"),
    "flac.flac": ("flac", "--silent -8 {source} -o {out}", "flac"),
    "ogg.oga": ("flac", "--silent --ogg {source} -o {out}", "flac"),
}
OPUS = {
    "ffmpeg.opus": "-c:a libopus -compression_level 0",
    "voice.opus": "-c:a libopus -compression_level 0 -b:a 24k -application voip",
    "long.opus": "-c:a libopus -compression_level 0 -frame_duration 60",
    "opus.webm": "-c:a libopus -compression_level 0 -b:a 24k -application voip",
    "opus.mka": "-c:a libopus -compression_level 0",
    "opus.mp4": "-c:a libopus -compression_level 0",
}


class Source(NamedTuple):
    """An excerpt of a recording, and the folder of what was encoded from it."""

    folder: Path
    samples: np.ndarray
    rate: int

    @property
    def wav(self) -> Path:
        return self.folder / "source.wav"


@pytest.fixture(scope="module", params=RECORDING_NAMES)
def source(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Source]:
    """The first seconds of a recording, encoded by all that there is."""
    folder = tmp_path_factory.mktemp(Path(request.param).stem)
    with soundfile.SoundFile(recording(request.param)) as sound:
        samples = sound.read(EXCERPT_S * sound.samplerate + 123, dtype="int16", always_2d=True).T
        rate = sound.samplerate
    found = Source(folder, samples.astype(np.float32) / 2**15, rate)
    soundfile.write(found.wav, samples.T, rate)
    outputs = {name: made.arguments for name, made in BY_FFMPEG.items()} | OPUS
    encode = ([*arguments.split(), folder / name] for name, arguments in outputs.items())
    ffmpeg("-i", found.wav, *(argument for output in encode for argument in output))
    for name, (program, line, package) in OTHERS.items():
        arguments = line.format(source=found.wav, out=folder / name).split()
        run_program(program, *arguments, package=package)
    lossy = [name for name, made in BY_FFMPEG.items() if not made.is_lossless]
    lossy += [name for name in OTHERS if not name.endswith(("flac", "oga"))]
    inputs = [argument for name in lossy for argument in ("-i", folder / name)]
    decode = (
        ("-map", f"{index}:a", "-f", "f32le", folder / f"{name}.raw")
        for index, name in enumerate(lossy)
    )
    ffmpeg(*inputs, *(argument for output in decode for argument in output))
    yield found
    for path in folder.iterdir():
        path.unlink()


def decoded(path: Path) -> tuple[AudioInfo, np.ndarray]:
    with path.open("rb") as file:
        info = probe(file, name=path.name)
        samples = read_audio(file, name=path.name, info=info)
        middle = info.frames // 2
        part = read_audio(file, name=path.name, info=info, start_sample=middle, frames=2000)
    assert samples.shape == (info.channels, info.frames)
    np.testing.assert_array_equal(part, samples[:, middle : middle + 2000])
    return info, samples


@pytest.mark.parametrize("name", [*BY_FFMPEG, *OTHERS])
def test_a_file_holds_what_was_encoded(source: Source, name: str) -> None:
    lossless = Made("", is_lossless=name.endswith(("flac", "oga")))
    made = BY_FFMPEG.get(name, lossless)
    info, samples = decoded(source.folder / name)
    assert info.sample_rate in (source.rate, 48000)
    frames = -(-source.samples.shape[1] * info.sample_rate // source.rate)
    fewest, most = made.longer
    assert fewest <= info.frames - frames <= most
    if made.is_lossless:
        np.testing.assert_array_equal(samples, source.samples)
        return
    raw = np.fromfile(source.folder / f"{name}.raw", np.float32)
    other = raw.reshape(-1, info.channels).T
    frames = min(other.shape[1], info.frames)
    assert frames >= info.frames - 1  # others leave padding in at the end
    assert np.abs(samples[:, :frames] - other[:, :frames]).max() < 1e-5
    if made.longer == (0, 0):
        assert offset(samples.mean(axis=0), source.samples.mean(axis=0)) == 0


@pytest.mark.parametrize("name", OPUS)
def test_opus_holds_what_was_encoded(source: Source, name: str) -> None:
    """Speech of 16 kHz is decoded at that rate from ogg, at 48 kHz from other containers."""
    info, samples = decoded(source.folder / name)
    frames = source.samples.shape[1]
    assert info.frames == -(-frames * info.sample_rate // source.rate)
    path = source.folder / f"{name}.wav"
    ogg = source.folder / f"{name}.copy.opus"
    ffmpeg("-i", source.folder / name, "-c", "copy", ogg)
    run_program(
        *("opusdec", "--quiet", "--float", "--rate", info.sample_rate, ogg, path),
        package="opus-tools",
    )
    other = soundfile.read(path, dtype="float32", always_2d=True)[0].T
    if info.sample_rate == 48000:
        shared = min(info.frames, other.shape[1])
        assert np.abs(samples[:, :shared] - other[:, :shared]).max() < 1e-6
    else:  # opusdec decodes at 48 kHz, and resamples by a filter of its own
        assert abs(offset(samples[0], other[0])) <= 1


@pytest.mark.parametrize("name", RECORDING_NAMES)
def test_opus_of_ffmpeg_keeps_the_length_of_long_recordings(name: str, tmp_path: Path) -> None:
    """Some positions in it are half a packet late."""
    path = tmp_path / "song.opus"
    ffmpeg("-i", recording(name), "-c:a", "libopus", "-compression_level", 0, path)
    info, samples = decoded(path)
    with soundfile.SoundFile(recording(name)) as sound:
        assert info.frames == -(-sound.frames * info.sample_rate // sound.samplerate)
    run_program(
        *("opusdec", "--quiet", "--float", "--rate", info.sample_rate, path, tmp_path / "x.wav"),
        package="opus-tools",
    )
    other = soundfile.read(tmp_path / "x.wav", dtype="float32", always_2d=True)[0].T
    assert abs(offset(samples[0, :480000], other[0, :480000])) <= (info.sample_rate < 48000)
    assert info.frames - 128 <= other.shape[1] <= info.frames  # it may lose the end
    if info.sample_rate == 48000:
        assert np.abs(samples - other).max() < 1e-6


CUT = {"cut.ogg": "vorbis.ogg", "cut.opus": "ffmpeg.opus", "cut.flac": "16.flac"}


@pytest.mark.parametrize("name", CUT)
def test_what_was_cut_without_encoding_it_again_is_read(source: Source, name: str) -> None:
    whole = source.folder / CUT[name]
    ffmpeg("-ss", 1.3, "-i", whole, "-c", "copy", source.folder / name)
    whole_info, expected = decoded(whole)
    info, samples = decoded(source.folder / name)
    if (
        name == "cut.ogg"
    ):  # Vorbis keeps the time where the cut was, the others a packet's or page's
        assert info.frames == whole_info.frames - round(1.3 * info.sample_rate)
    late = whole_info.frames - info.frames
    assert 0 < late < 2 * info.sample_rate
    settled = info.sample_rate // 2  # by then decoders have forgotten where they began
    error = np.sqrt(np.mean((samples[:, settled:] - expected[:, late + settled :]) ** 2))
    assert error < 0.001 * np.sqrt(np.mean(expected**2))
