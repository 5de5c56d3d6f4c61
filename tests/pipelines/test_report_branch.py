"""The branch `report`: what the page shows and plays, of wholes, of parts, and of files."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from conftest import dead_letters
from graph_runs import run_on_files

from beamsplitter.audio.listening import SAMPLE_RATE
from beamsplitter.audio.resampling import resampled
from beamsplitter.pipelines.job.job_config import JobConfig, JobFileError
from beamsplitter.pipelines.separate_files import split_job

RATE = 16000
HPSS = {"separator": "hpss"}
NOTHING = {"separator": "none"}
REPORT = {"enabled": True}


def sound(seconds: float, channels: int = 2) -> np.ndarray:
    times = np.arange(round(seconds * RATE)) / RATE
    tone = 0.3 * np.sin(2 * np.pi * (300 + 20 * times) * times)
    clicks = 0.5 * (np.arange(len(times)) % (RATE // 2) < 20)
    levels = 1 / np.arange(1, channels + 1)
    return ((tone + clicks) * levels[:, np.newaxis]).clip(-1, 1).astype(np.float32)


def write(path: Path, seconds: float, channels: int = 2) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, sound(seconds, channels).T, RATE, subtype="PCM_16")


def job_of(data: Path, out: Path, **sections: Any) -> JobConfig:
    wanted = {"separation": HPSS, "plots": {"enabled": False}, "report": REPORT} | sections
    return split_job([data], out, **wanted)


def run(job: JobConfig) -> Path:
    out = run_on_files(job)
    assert not dead_letters(out)
    return out


def received(path: Path) -> dict[str, Any]:
    """What a script hands to the page."""
    text = path.read_text(encoding="utf-8")
    call, end = "beamsplitter.receive(", ");\n"
    assert text.startswith(call) and text.endswith(end) and "<" not in text
    content: dict[str, Any] = json.loads(text[len(call) : -len(end)])
    return content


def played(chunk: dict[str, Any], signal: str) -> np.ndarray:
    data = base64.b64decode(chunk["signals"][signal]["audio"])
    samples, sample_rate = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    assert sample_rate == SAMPLE_RATE
    return samples.T


def reports_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("report*.js"))}


def test_the_page_gets_all_signals_in_chunks(tmp_path: Path) -> None:
    write(tmp_path / "data/a.wav", 42.3)
    out = run(job_of(tmp_path / "data", tmp_path / "out"))
    outline = received(out / "a/report.js")
    assert outline["signals"] == ["mixture", "harmonic", "percussive"]
    assert (outline["duration_s"], outline["chunks"], outline["chunk_s"]) == (42.3, 3, 20)
    samples = {
        name: soundfile.read(path, dtype="float32")[0].T
        for name, path in (
            ("mixture", tmp_path / "data/a.wav"),
            ("harmonic", out / "a/harmonic.flac"),
            ("percussive", out / "a/percussive.flac"),
        )
    }
    for name, signal in samples.items():
        rms_db = 20 * np.log10(np.sqrt(np.mean(np.square(signal, dtype=float))))
        assert outline["levels"][name]["rms_db"] == pytest.approx(rms_db, abs=0.01)
        assert len(base64.b64decode(outline["peaks"][name])) == 2 * outline["columns"]
        whole = np.concatenate([*resampled([signal], RATE, SAMPLE_RATE)], axis=1)
        for index in range(3):
            chunk = received(out / f"a/report-{index:05d}.js")
            lead = round(chunk["lead_s"] * SAMPLE_RATE)
            found = played(chunk, name)
            start = index * 20 * SAMPLE_RATE - lead
            expected = whole[:, start : start + found.shape[1]]
            assert found.shape == expected.shape
            assert (found - expected)[:, lead:].std() < 0.2 * expected.std()
    manifest = json.loads((out / "a/manifest.json").read_text())
    files = {file["name"]: file for file in manifest["files"] if file["branch"] == "report"}
    assert sorted(files) == sorted(reports_of(out / "a"))
    levels = files["report.js"]["levels"]
    assert [level["signal"] for level in levels] == outline["signals"]


def test_parts_and_files_give_what_the_whole_gives(tmp_path: Path) -> None:
    """Recordings of several parts, and those that were separated before, are read from files."""
    write(tmp_path / "data/a.wav", 21.7, channels=1)
    sections: dict[str, Any] = {"separation": NOTHING}
    once = run(job_of(tmp_path / "data", tmp_path / "once", **sections))
    sections = {"separation": {**NOTHING, "part_seconds": 10}}
    parts = run(job_of(tmp_path / "data", tmp_path / "parts", **sections))
    assert reports_of(once / "a") == reports_of(parts / "a")

    for part_seconds in (10, 300):
        separation = {**HPSS, "part_seconds": part_seconds}
        together, later = (tmp_path / f"{name}-{part_seconds}" for name in ("together", "later"))
        run(job_of(tmp_path / "data", together, separation=separation))
        run(job_of(tmp_path / "data", later, separation=separation, report={}))
        stems = {path: path.stat().st_mtime_ns for path in later.rglob("*.flac")}
        run(job_of(tmp_path / "data", later, separation=separation))
        assert reports_of(together / "a") == reports_of(later / "a")
        assert {path: path.stat().st_mtime_ns for path in later.rglob("*.flac")} == stems


@pytest.mark.parametrize(
    "stems", [{"sample_rate": 8000}, {"format": "mp3"}, {"select": ["harmonic"]}]
)
def test_stems_of_any_kind_are_played(tmp_path: Path, stems: dict[str, Any]) -> None:
    write(tmp_path / "data/a.wav", 3)
    out = run(job_of(tmp_path / "data", tmp_path / "out", stems=stems))
    outline, chunk = received(out / "a/report.js"), received(out / "a/report-00000.js")
    assert [*chunk["signals"]] == outline["signals"]
    for name in outline["signals"]:
        assert played(chunk, name).shape == (2, 3 * SAMPLE_RATE)
    highest = stems.get("sample_rate", RATE) / 2
    assert outline["spectrogram"]["hertz"]["harmonic"][1] == highest


def test_without_audio_it_is_small(tmp_path: Path) -> None:
    write(tmp_path / "data/a.wav", 3)
    out = run(job_of(tmp_path / "data", tmp_path / "out", report={**REPORT, "audio": False}))
    assert "audio" not in received(out / "a/report-00000.js")["signals"]["mixture"]
    assert received(out / "a/report.js")["audio"] is False


def test_what_can_not_be_heard_is_not_encoded(tmp_path: Path) -> None:
    """A damaged header makes hours of a small file."""
    (tmp_path / "data").mkdir()
    soundfile.write(tmp_path / "data/a.wav", np.ones((300, 1)), 2, subtype="PCM_16")
    out = run(job_of(tmp_path / "data", tmp_path / "out", separation=NOTHING))
    outline = received(out / "a/report.js")
    assert (outline["duration_s"], outline["chunks"], outline["audio"]) == (150, 8, False)


@pytest.mark.parametrize("channels", [1, 6])
def test_silence_and_short_recordings_have_one(tmp_path: Path, channels: int) -> None:
    (tmp_path / "data").mkdir()
    for name, seconds in (("short", 0.011), ("second", 1.0)):
        silence = np.zeros((round(seconds * RATE), channels), np.float32)
        soundfile.write(tmp_path / f"data/{name}.wav", silence, RATE, subtype="FLOAT")
    out = run(job_of(tmp_path / "data", tmp_path / "out", separation=NOTHING))
    for name in ("short", "second"):
        outline = received(out / name / "report.js")
        assert outline["levels"]["mixture"] == {"rms_db": None, "peak_db": None}
        assert played(received(out / name / "report-00000.js"), "mixture").max() < 1e-20


def test_what_failed_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A later step fails when the page's files are written."""
    from beamsplitter.transforms.plots import UploadPlots

    def fail(*_: object) -> None:
        raise ValueError("no")

    monkeypatch.setattr(UploadPlots, "apply", fail)
    write(tmp_path / "data/a.wav", 21)
    out = run_on_files(job_of(tmp_path / "data", tmp_path / "out", plots={}))
    assert dead_letters(out)["a.wav"]["step"] == "UploadPlots"
    assert not (out / "a").exists()


def test_the_literal_graph_has_none(tmp_path: Path) -> None:
    with pytest.raises(JobFileError, match="join: cogbk writes stems and plots only"):
        job_of(tmp_path, tmp_path / "out", separation={}, changes=["join=cogbk"])
