"""Results pages of made recordings, as `beamsplitter report` lays them out."""

import base64
import io
import itertools
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
from matplotlib import colormaps
from PIL import Image
from scipy.signal import stft

from beamsplitter import pipelines

PAGE = Path(pipelines.__file__).parent / "report" / "page"
SAMPLE_RATE = 48000
LEAD_S = 0.1
COLUMNS = 1500
ROWS = 96
LOWEST_HZ, HIGHEST_HZ, RANGE_DB = 30.0, 22050.0, 80.0


def made_stems(duration_s: float, seed: int = 0) -> dict[str, np.ndarray]:
    """float32 `(2, samples)` at 48 kHz: a beat that repeats, and a voice that glides."""
    time_s = np.arange(round(duration_s * SAMPLE_RATE)) / SAMPLE_RATE
    generator = np.random.default_rng(seed)
    hum = np.sin(2 * np.pi * 220 * time_s) + 0.5 * np.sin(2 * np.pi * 330 * time_s)
    strokes = generator.standard_normal(time_s.size) * np.exp(-30 * (time_s % 0.5))
    beat = 0.15 * hum * np.exp(-4 * (time_s % 0.5)) + 0.06 * strokes
    glide = 2 * np.pi * np.cumsum(500 + 120 * np.sin(0.7 * time_s + seed)) / SAMPLE_RATE
    voice = sum(np.sin(k * glide) / k for k in (1, 2, 3, 5)) * (np.sin(0.4 * time_s) > -0.5)
    sides = np.array([[1.0], [0.8]])
    stems = {"background": sides * beat, "foreground": sides[::-1] * 0.12 * voice}
    return {name: stem.astype(np.float32) for name, stem in stems.items()}


def receive(path: Path, value: object) -> None:
    """Write a data file: what the page's `beamsplitter.receive` is called with."""
    text = json.dumps(value).replace("<", "\\u003c")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"beamsplitter.receive({text});\n")


def opus(samples: np.ndarray, bit_rate_kbps: int = 160) -> bytes:
    """Ogg Opus of float32 `(channels, samples)` at 48 kHz."""
    held = io.BytesIO()
    layout = {1: "mono", 2: "stereo"}[len(samples)]
    with av.open(held, "w", format="ogg") as container:
        stream = container.add_stream("libopus", rate=SAMPLE_RATE, layout=layout)
        stream.bit_rate = bit_rate_kbps * 1000
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), "fltp", layout)
        frame.sample_rate = SAMPLE_RATE
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return held.getvalue()


def decoded_opus(data: bytes) -> np.ndarray:
    """float32 `(channels, samples)` of Ogg Opus, by libav."""
    with av.open(io.BytesIO(data)) as container:
        container.streams.audio[0].codec_context.open()
        return np.concatenate([frame.to_ndarray() for frame in container.decode(audio=0)], axis=1)


def peaks(samples: np.ndarray, columns: int) -> str:
    """Base64 of least and greatest sample of each column, as int8."""
    edges = np.linspace(0, samples.shape[1], columns + 1).astype(int)
    pairs = [
        (part.min(), part.max()) if (part := samples[:, start:stop]).size else (0, 0)
        for start, stop in itertools.pairwise(edges)
    ]
    return text_of(np.round(np.clip(pairs, -1, 1) * 127).astype(np.int8).tobytes())


def picture(samples: np.ndarray, columns: int) -> str:
    """A spectrogram on a logarithmic axis, as the address of a WebP."""
    hertz, _, spectrum = stft(samples.mean(axis=0), SAMPLE_RATE, nperseg=2048, noverlap=1024)
    rows_hz = np.geomspace(HIGHEST_HZ, LOWEST_HZ, ROWS)
    bins = np.abs(hertz[None, :] - rows_hz[:, None]).argmin(axis=1)
    frames = np.linspace(0, spectrum.shape[1] - 1, columns).round().astype(int)
    level_db = 20 * np.log10(np.abs(spectrum[bins][:, frames]) + 1e-9)
    colours = colormaps["magma"](np.clip(1 + (level_db + 20) / RANGE_DB, 0, 1), bytes=True)
    held = io.BytesIO()
    Image.fromarray(colours[:, :, :3]).save(held, "webp", quality=80)
    return f"data:image/webp;base64,{text_of(held.getvalue())}"


def text_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


def level_db(value: float) -> float | None:
    return round(float(20 * np.log10(value)), 2) if value else None


def write_recording(
    out: Path,
    folder: str,
    stems: Mapping[str, np.ndarray],
    *,
    chunk_s: float = 5.0,
    audio: bool = True,
    name: str | None = None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Write `report.js` and chunks of a recording; gives its row and its facts."""
    signals = {"mixture": np.sum(list(stems.values()), axis=0), **stems}
    samples = signals["mixture"].shape[1]
    duration_s = samples / SAMPLE_RATE
    chunks = int(np.ceil(duration_s / chunk_s))
    levels = {
        key: {
            "rms_db": level_db(np.sqrt(np.mean(signal**2))),
            "peak_db": level_db(np.abs(signal).max()),
        }
        for key, signal in signals.items()
    }
    report = {
        "format": 1,
        "folder": folder,
        "duration_s": duration_s,
        "sample_rate": SAMPLE_RATE,
        "channels": 2,
        "chunk_s": chunk_s,
        "chunks": chunks,
        "audio": audio,
        "signals": list(signals),
        "levels": levels,
        "peaks": {key: peaks(signal, COLUMNS) for key, signal in signals.items()},
        "columns": COLUMNS,
        "spectrogram": {
            "columns": COLUMNS,
            "rows": ROWS,
            "hertz": {key: [LOWEST_HZ, HIGHEST_HZ] for key in signals},
            "top_db": 0,
            "range_db": RANGE_DB,
        },
        "pictures": {key: picture(signal, COLUMNS) for key, signal in signals.items()},
    }
    receive(out / folder / "report.js", report)
    for number in range(chunks):
        chunk = made_chunk(signals, number, chunk_s, audio)
        receive(out / folder / f"report-{number:05d}.js", chunk)
    for key, stem in stems.items():
        (out / folder / f"{key}.opus").write_bytes(opus(stem))
    row = {
        "folder": folder,
        "name": name or f"{folder}.flac",
        "duration_s": duration_s,
        "levels": {key: level["rms_db"] for key, level in levels.items()},
        "scores": {},
        "labels": [],
        "page": True,
    }
    return row, {"manifest": manifest(folder, stems, duration_s), "labels": [], "choruses": []}


def made_chunk(
    signals: Mapping[str, np.ndarray], number: int, chunk_s: float, audio: bool
) -> dict[str, Any]:
    start, lead = round(number * chunk_s * SAMPLE_RATE), round(LEAD_S * SAMPLE_RATE)
    stop = start + round(chunk_s * SAMPLE_RATE)
    held = {}
    for key, signal in signals.items():
        own = signal[:, start:stop]
        seconds = own.shape[1] / SAMPLE_RATE
        held[key] = {
            "peaks": peaks(own, round(100 * seconds)),
            "picture": picture(own, max(1, round(25 * seconds))),
        }
        if audio:
            heard = signal[:, max(0, start - lead) : stop + lead]
            held[key]["audio"] = text_of(opus(heard))
    return {"signals": held, "lead_s": LEAD_S if number else 0}


def manifest(folder: str, stems: Mapping[str, np.ndarray], duration_s: float) -> dict[str, Any]:
    """As much of a manifest as the page shows by itself."""
    files = [
        {"name": f"{key}.opus", "branch": "stems", "stem": key, "size_bytes": 12345}
        for key in stems
    ]
    return {
        "format": 2,
        "input": {
            "element": f"{folder}.flac",
            "codec": "flac",
            "sample_rate": SAMPLE_RATE,
            "channels": 2,
            "duration_s": duration_s,
        },
        "branches": {
            "stems": {
                "made": "2026-01-02T03:04:05Z",
                "settings": {"separator": "nn-filter", "options": {"width_s": 2.0}},
                "versions": {"beamsplitter": "0.1.0"},
            }
        },
        "files": files,
    }


def plain_row(folder: str, **changes: Any) -> dict[str, Any]:
    """A row of the table without a page of its own."""
    levels = {"mixture": -14.0, "background": -16.0, "foreground": -20.0}
    row = {"name": f"{folder}.mp3", "duration_s": 180.0, "levels": levels}
    return {"folder": folder, **row, "scores": {}, "labels": [], "page": False, **changes}


def write_run(
    out: Path,
    rows: Sequence[Mapping[str, Any]],
    facts: Sequence[Mapping[str, Any]] = (),
    failures: Sequence[Mapping[str, Any]] = (),
    *,
    rows_per_file: int = 200,
    **about: Any,
) -> Path:
    """Write what a run's page is made of; gives `index.html`."""
    run = {
        "format": 1,
        "state": "finished",
        "job_name": "weekend",
        "updated": "2026-01-02T04:00:00Z",
        "began": "2026-01-02T03:00:00Z",
        "ended": "2026-01-02T04:00:00Z",
        "wall_s": 3600.0,
        "audio_s": 180.0 * len(rows),
        "workers": 2,
        "counts": {"finished": len(rows), "skipped": 0, "failed": len(failures)},
        "versions": {"beamsplitter": "0.1.0", "python": "3.11.7"},
        "settings": {"stems": {"separator": "nn-filter"}},
        "job": {"job_name": "weekend"},
        "recordings": len(rows),
        "failures": len(failures),
        "rows_per_file": rows_per_file,
        "stems": ["background", "foreground"],
        "measures": [],
        "has_labels": False,
        "files_here": True,
    }
    receive(out / "report" / "run.js", {**run, **about})
    for name, entries in [("rows", rows), ("facts", facts), ("failures", failures)]:
        for start in range(0, len(entries), rows_per_file):
            path = out / "report" / f"{name}-{start // rows_per_file:05d}.js"
            receive(path, entries[start : start + rows_per_file])
    return write_page(out)


def write_page(out: Path) -> Path:
    """Copy the page's own files; gives `index.html`."""
    (out / "report").mkdir(parents=True, exist_ok=True)
    for path in PAGE.iterdir():
        shutil.copy(path, out if path.name == "index.html" else out / "report")
    return out / "index.html"
