"""The rivals of `whole_job.py`, each a loop over files in one process.

`python plain_loops.py tutorial|functions FOLDER OUT`: librosa's vocal separation tutorial, or the
functions that the steps of the graph call.
"""

import dataclasses
import hashlib
import io
import json
import sys
from pathlib import Path


def tutorial(path: Path, out: Path) -> None:
    """librosa's tutorial, writing two stems and three plots."""
    import librosa
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import numpy as np
    import soundfile

    samples, sample_rate = librosa.load(path, sr=None)
    full, phase = librosa.magphase(librosa.stft(samples))
    nearest = librosa.decompose.nn_filter(
        full,
        aggregate=np.median,
        metric="cosine",
        width=int(librosa.time_to_frames(2, sr=sample_rate)),
    )
    nearest = np.minimum(full, nearest)
    background = librosa.util.softmask(nearest, 2 * (full - nearest), power=2)
    foreground = librosa.util.softmask(full - nearest, 10 * nearest, power=2)
    out.mkdir(parents=True, exist_ok=True)
    spectra = {"background": background * full, "foreground": foreground * full}
    for name, magnitude in spectra.items():
        stem = librosa.istft(magnitude * phase, length=len(samples))
        soundfile.write(out / f"{name}.flac", stem, sample_rate)
    for name, magnitude in {"spectrogram": full, **spectra}.items():
        figure, axes = plt.subplots(figsize=(11, 4.5))
        level = librosa.amplitude_to_db(magnitude, ref=np.max)
        image = librosa.display.specshow(
            level, y_axis="log", x_axis="time", sr=sample_rate, ax=axes
        )
        figure.colorbar(image, ax=axes, format="%+2.0f dB")
        axes.set(title=name)
        figure.savefig(out / f"{name}.png")
        plt.close(figure)


def functions(path: Path, out: Path) -> None:
    """What the steps call, in order, without Beam."""
    from beamsplitter.audio.decoding.audio_reader import probe, read_audio
    from beamsplitter.audio.drawing import draw_spectrogram
    from beamsplitter.audio.encoding import StemWriter, quantize
    from beamsplitter.audio.pooling import plot_grid, pool_power
    from beamsplitter.audio.stem_format import choose_format
    from beamsplitter.audio.tags import read_tags, write_tags
    from beamsplitter.models.separators.nearest_neighbors import separate
    from beamsplitter.models.separators.recipes import RECIPES

    binary = path.read_bytes()
    info = probe(binary, name=path.name)
    samples = read_audio(binary, name=path.name, info=info)
    stems = separate(samples, info.sample_rate, RECIPES["default"])
    stem_format = choose_format("flac", bit_depth=None, info=info)
    tags = read_tags(binary)
    files = {}
    for name, stem in stems.items():
        file = io.BytesIO()
        with StemWriter(file, stem_format=stem_format) as writer:
            writer.write(stem)
        write_tags(file, dataclasses.replace(tags, title=name), container="flac")
        files[f"{name}.flac"] = file.getvalue()
        stems[name] = quantize(stem, stem_format)[0]
    grid = plot_grid(info.frames, info.sample_rate)
    for name, signal in {"spectrogram": samples, **stems}.items():
        power = pool_power(signal, grid)
        files[f"{name}.png"] = draw_spectrogram(power, grid, title=name)
    out.mkdir(parents=True, exist_ok=True)
    digests = {}
    for name, data in files.items():
        (out / name).write_bytes(data)
        digests[name] = hashlib.sha256(data).hexdigest()
    (out / "manifest.json").write_text(json.dumps(digests))


def main() -> None:
    loop = {"tutorial": tutorial, "functions": functions}[sys.argv[1]]
    for path in sorted(Path(sys.argv[2]).iterdir()):
        loop(path, Path(sys.argv[3]) / path.stem)


if __name__ == "__main__":
    main()
