"""CPU seconds a file of log-mel sets of a folder, all start-up, against a librosa and a torch loop.

    python benchmarks/feature_set_speed.py [--files 200] [--seconds 30] [--runs 3]

Files are mono at 22.05 kHz, 16 bits, as flac; one process and one thread each. `beamsplitter` is
the command `spectrograms`, which writes an npz a file and their statistics; `librosa` loads,
transforms and saves npy files in a loop; `torch` does so in a DataLoader without workers, by
soundfile, `torch.stft` and a matrix product. What they wrote is compared.
"""

# ruff: noqa: E402
import os

# Libraries read these once, when they are imported.
for _variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile
from measuring import beamsplitter, cost_of

from beamsplitter.audio.synthesis import synthesize_song

SAMPLE_RATE = 22050
SIZES = {
    "2048/512/128": {"n_fft": 2048, "hop_length": 512, "n_mels": 128},
    "400/200/64": {"n_fft": 400, "hop_length": 200, "n_mels": 64},
}
LIBROSA = """
import sys
from pathlib import Path
import librosa, numpy as np
folder, out, n_fft, hop_length, n_mels = sys.argv[1:]
Path(out).mkdir()
for path in sorted(Path(folder).glob("*.flac")):
    samples, rate = librosa.load(path, sr=None)
    mel = librosa.feature.melspectrogram(
        y=samples, sr=rate, n_fft=int(n_fft), hop_length=int(hop_length), n_mels=int(n_mels)
    )
    np.save(f"{out}/{path.stem}.npy", librosa.power_to_db(mel).T)
"""
TORCH = """
import sys
from pathlib import Path
import librosa.filters, numpy as np, soundfile, torch
torch.set_num_threads(1)
folder, out, n_fft, hop_length, n_mels = sys.argv[1:]
n_fft, hop_length, n_mels = int(n_fft), int(hop_length), int(n_mels)
Path(out).mkdir()
class Files(torch.utils.data.Dataset):
    paths = sorted(Path(folder).glob("*.flac"))
    window = torch.hann_window(n_fft)
    bands = torch.from_numpy(librosa.filters.mel(sr=22050, n_fft=n_fft, n_mels=n_mels))
    def __len__(self):
        return len(self.paths)
    def __getitem__(self, index):
        samples = torch.from_numpy(soundfile.read(self.paths[index], dtype="float32")[0])
        spectrum = torch.stft(
            samples, n_fft, hop_length, window=self.window, pad_mode="constant", return_complex=True
        )
        mel = self.bands @ (spectrum.real**2 + spectrum.imag**2)
        level = 10 * torch.log10(torch.clamp(mel, min=1e-10))
        return self.paths[index].stem, torch.maximum(level, level.max() - 80)
for name, level in torch.utils.data.DataLoader(Files(), batch_size=None):
    np.save(f"{out}/{name}.npy", level.numpy().T)
"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--files", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--runs", type=int, default=3, help="of each, in turn; all are printed")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        write_files(folder / "data", options.files, options.seconds)
        print(f"{options.files} files of {options.seconds:g} s; CPU milliseconds a file")
        for name, size in SIZES.items():
            for run in range(options.runs):
                measure(folder, f"{name.replace('/', '-')}-{run}", name, size, options.files)


def measure(folder: Path, run: str, name: str, size: dict[str, int], files: int) -> None:
    """All three, one after the other."""
    data, ours = folder / "data", folder / f"{run}-beamsplitter"
    parameters = [text for key in size for text in ("--option", f"{key}={size[key]}")]
    command = beamsplitter("spectrograms", data, "-o", ours, "--workers", 1, *parameters)
    costs = {"beamsplitter": cost_of(*command).cpu_s}
    for rival, script in (("librosa", LIBROSA), ("torch", TORCH)):
        arguments = (data, folder / f"{run}-{rival}", *size.values())
        costs[rival] = cost_of(sys.executable, "-c", script, *arguments).cpu_s
    told = ", ".join(f"{rival} {1000 * cost / files:.1f}" for rival, cost in costs.items())
    ours_s = costs["beamsplitter"]
    ratios = [f"{rival} {costs[rival] / ours_s:.2f}x" for rival in ("librosa", "torch")]
    print(f"{name}: {told}; {', '.join(ratios)} of ours; {furthest(folder, run)}", flush=True)


def furthest(folder: Path, run: str) -> str:
    """How far the numbers are apart, in dB."""
    apart = dict.fromkeys(("librosa", "torch"), 0.0)
    for path in (folder / "data").glob("*.flac"):
        with np.load(folder / f"{run}-beamsplitter" / path.stem / "features.npz") as arrays:
            ours = arrays["log_mel/mixture"]
        for rival in apart:
            theirs = np.load(folder / f"{run}-{rival}" / f"{path.stem}.npy")
            apart[rival] = max(apart[rival], float(np.abs(ours - theirs).max()))
    return ", ".join(f"{apart[rival]:.1e} dB from {rival}" for rival in apart)


def write_files(folder: Path, files: int, seconds: float) -> None:
    """Eight synthesised songs, over and over, each time a little quieter."""
    folder.mkdir()
    songs = [
        sum(stem.mean(axis=0) for stem in stems.values())
        for stems in (
            synthesize_song(duration_s=seconds, sample_rate=SAMPLE_RATE, seed=seed)
            for seed in range(8)
        )
    ]
    for index in range(files):
        samples = songs[index % 8] * 0.99 ** (index // 8)
        soundfile.write(folder / f"{index:05d}.flac", samples, SAMPLE_RATE, subtype="PCM_16")


if __name__ == "__main__":
    main()
