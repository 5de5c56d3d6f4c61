"""Messy folders: what can't be split is told clearly, and costs nothing but itself."""

import contextlib
import ctypes
import errno
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pytest
import soundfile
import yaml
from apache_beam.options.pipeline_options import PipelineOptions
from audio_files import (
    encode_m4a,
    encode_mp3,
    soundfile_bytes,
    wav_bytes,
    wav_with_claimed_size,
)
from bad_files import damaged_files, faults_of_run
from conftest import Command, dead_letters, made_signal, result_files
from facts import assert_names
from result_checks import FILES_OF_RUN, assert_whole, manifests, read_json

from beamsplitter.pipelines.commands.progress import counts_of_run
from beamsplitter.pipelines.events.elements import list_events, resumption_of
from beamsplitter.pipelines.events.sources import CreateEvents
from beamsplitter.pipelines.job.job_config import JobConfig, parse_job
from beamsplitter.pipelines.run import build
from beamsplitter.storage import OutputTree, StorageError
from beamsplitter.transforms.loading import LoadBinary
from beamsplitter.transforms.planning import PlanParts
from beamsplitter.transforms.publishing import PublishTrack

RATE = 8000
TONE = made_signal(1.5, RATE, 1)
HALF_SCALE_DC = np.full((1, RATE), 0.5, np.float32)
SQUARE = np.where(np.arange(2 * RATE) % 80 < 40, 1.0, -1.0).astype(np.float32)[None]


def with_samples(value: float) -> np.ndarray:
    samples = TONE.copy()
    samples[0, 4000:4010] = value
    return samples


def flac_bytes(samples: np.ndarray, rate: int = RATE, subtype: str = "PCM_16") -> bytes:
    return soundfile_bytes(samples, rate, container="FLAC", subtype=subtype)


def half(data: bytes) -> bytes:
    return data[: len(data) // 2]


LONG_NAME = "n" * 246
ODD_NAMES = (
    "caf\u00e9",
    "cafe\u0301",
    "with space",
    "100%",
    "%2e%2e%2f",
    "#1?",
    "new\nline",
    "-o",
    os.fsdecode(b"latin-\xe9"),
    LONG_NAME,
    "\U0001f3b5",
    "[bold]markup[/]",
    "$x_1^{",
    "back\\slash",
    "quote'\"",
    "*",
    "~",
    "{brace}",
    "dot.dot..",
)
COMES_OUT = {
    "good.wav": wav_bytes(TONE, RATE),
    "deep/er/good.flac": flac_bytes(TONE),
    "x.wav/inside.wav": wav_bytes(TONE, RATE),
    "silence.wav": wav_bytes(np.zeros((2, RATE), np.float32), RATE),
    "dc.wav": wav_bytes(HALF_SCALE_DC, RATE),
    "clipped.wav": wav_bytes(SQUARE, RATE),
    "loud.wav": wav_bytes(3 * SQUARE, RATE, subtype="FLOAT"),
    "surround.wav": wav_bytes(made_signal(1, RATE, 8), RATE),
    "low.wav": wav_bytes(made_signal(1, 8000, 1), 8000),
    "high.flac": flac_bytes(made_signal(1, 192000, 1), 192000, "PCM_24"),
    "streamed.wav": wav_with_claimed_size(wav_bytes(TONE, RATE), 0xFFFFFFFF),
    "twin.wav": wav_bytes(TONE, RATE),
    "twin.flac": flac_bytes(0.5 * TONE),
    **{f"{name}.wav": wav_bytes(TONE, RATE) for name in ODD_NAMES},
}
FAILS = {
    "empty.wav": b"",
    "no-frames.wav": wav_bytes(np.zeros((1, 0), np.float32), RATE),
    "text.mp3": b"Dear Sir or Madam,\n" * 100,
    "cut-flac.flac": half(flac_bytes(TONE)),
    "cut-mp3.mp3": half(encode_mp3(made_signal(3, 16000, 1), 16000)),
    "cut-m4a.m4a": half(encode_m4a(made_signal(3, 16000, 1), 16000)),
    "blip.wav": wav_bytes(TONE[:, :8], RATE),
    "nan.wav": wav_bytes(with_samples(np.nan), RATE, subtype="FLOAT"),
    "inf.wav": wav_bytes(with_samples(np.inf), RATE, subtype="FLOAT"),
    "liar.wav": wav_with_claimed_size(wav_bytes(TONE, RATE), 10 * TONE.size),
}


@dataclass
class Run:
    """One run of the command."""

    folder: Path
    out: Path
    code: int
    stderr: str

    @property
    def letters(self) -> dict[str, dict[str, Any]]:
        """Dead letters by element."""
        return dead_letters(self.out)

    def receipt(self, folder: str, stem: str) -> dict[str, Any]:
        """What the manifest of a recording says of one stem."""
        files = read_json(self.out / folder / "manifest.json")["files"]
        return next(file for file in files if file["stem"] == stem and file["branch"] == "stems")

    def stem(self, folder: str, stem: str = "background") -> np.ndarray:
        """The samples of one stem, `(channels, samples)`."""
        path = self.out / folder / self.receipt(folder, stem)["name"]
        return soundfile.read(os.fsencode(path), dtype="float32", always_2d=True)[0].T


def write_tree(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


@pytest.fixture(scope="module")
def messy(tmp_path_factory: pytest.TempPathFactory, command: Command) -> Run:
    """A folder with everything in it, split once."""
    base = tmp_path_factory.mktemp("messy")
    folder = write_tree(base / "in", COMES_OUT | FAILS)
    (folder / "gone.wav").symlink_to("nowhere.wav")
    os.mkfifo(folder / "pipe.wav")
    out = base / "out"
    done = command("separate", folder, "-o", out, "--report", "--workers", 2)
    return Run(folder, out, done.returncode, done.stderr)


# One run over all of them ----------------------------------------------------------------------


def test_failures_end_the_run_with_1_and_cost_only_themselves(messy: Run) -> None:
    assert messy.code == 1
    assert messy.letters.keys() == {*FAILS, "gone.wav", "pipe.wav"}
    assert {each["input"]["element"] for each in map(read_json, manifests(messy.out))} == {
        *COMES_OUT
    }
    assert_whole(messy.out)
    counts = read_json(messy.out / "run.json")["recordings"]
    assert counts.items() >= {"finished": 32, "failed": 12, "skipped": 0, "total": 44}.items()


def test_failures_are_told_on_the_terminal_without_stack_traces(messy: Run) -> None:
    assert "Traceback" not in messy.stderr
    for element, letter in messy.letters.items():
        assert "traceback" not in letter, letter
        assert f"failed {element}" in messy.stderr or f"/{element}: " in messy.stderr
        assert letter["message"] in messy.stderr
    assert counts_of_run(finished=32, skipped=0, failed=12) in messy.stderr
    assert f"{messy.out}/failures.jsonl" in messy.stderr


@pytest.mark.parametrize(
    ("element", "exception", "wrong", "advice"),
    [
        ("empty.wav", "EmptyAudioError", "0 bytes", "download"),
        ("no-frames.wav", "EmptyAudioError", "0 samples", "leave it out"),
        ("text.mp3", "UndecodableAudioError", "it is text", "convert it"),
        ("cut-flac.flac", "TruncatedAudioError", "cut off", "download"),
        ("cut-mp3.mp3", "TruncatedAudioError", "cut off", "download"),
        ("cut-m4a.m4a", "UndecodableAudioError", "truncated", "complete sound file"),
        ("blip.wav", "TooShortAudioError", "0.001 s is too short", "leave the file out"),
        ("nan.wav", "NonFiniteAudioError", "0.500 s", "repair"),
        ("inf.wav", "NonFiniteAudioError", "0.500 s", "repair"),
        ("liar.wav", "TruncatedAudioError", "only 1.50 s of the 7.50 s", "download"),
        ("gone.wav", "StorageError", "not there", ""),
        ("pipe.wav", "StorageError", "is not a file", ""),
    ],
)
def test_a_dead_letter_says_what_is_wrong_and_what_to_do(
    messy: Run, element: str, exception: str, wrong: str, advice: str
) -> None:
    letter = messy.letters[element]
    assert letter["exception"] == exception
    assert wrong in letter["message"]
    assert advice in letter["message"]


def test_silence_gives_silence(messy: Run) -> None:
    for stem in ("background", "foreground"):
        samples = messy.stem("silence", stem)
        assert samples.shape == (2, RATE)
        assert not samples.any()


def test_a_constant_comes_out_as_a_constant(messy: Run) -> None:
    stems = messy.stem("dc") + messy.stem("dc", "foreground")
    np.testing.assert_allclose(stems, HALF_SCALE_DC, atol=1e-4)


def test_full_scale_squares_come_out_with_clipping_counted(messy: Run) -> None:
    quiet, loud = (messy.receipt(name, "background") for name in ("clipped", "loud"))
    assert quiet["frames"] == loud["frames"] == SQUARE.size
    assert 0 < loud["clipped_samples"] <= SQUARE.size
    clipped = sum(
        messy.receipt(path.parent.name, stem)["clipped_samples"]
        for path in manifests(messy.out)
        if path.parent.parent == messy.out
        for stem in ("background", "foreground")
    )
    steps = read_json(messy.out / "run.json")["steps"]
    assert steps["PublishTrack"]["clipped_samples"] == clipped
    for name in ("clipped", "loud"):
        assert np.isfinite(messy.stem(name)).all()
    assert np.abs(messy.stem("loud")).max() <= 1


@pytest.mark.parametrize(
    ("folder", "rate", "channels"), [("surround", 8000, 8), ("low", 8000, 1), ("high", 192000, 1)]
)
def test_rate_length_and_channels_are_kept(
    messy: Run, folder: str, rate: int, channels: int
) -> None:
    info = soundfile.info(messy.out / folder / "background.flac")
    assert (info.samplerate, info.channels, info.frames) == (rate, channels, rate)


def test_a_wav_of_unknown_length_is_read_to_its_end(messy: Run) -> None:
    np.testing.assert_array_equal(messy.stem("streamed"), messy.stem("good"))


def test_recordings_that_differ_in_extension_only_keep_it(messy: Run) -> None:
    assert not (messy.out / "twin").exists()
    np.testing.assert_array_equal(messy.stem("twin.wav"), messy.stem("good"))
    assert np.abs(messy.stem("twin.flac")).max() < np.abs(messy.stem("good")).max()


def test_a_folder_named_as_a_recording_is_a_folder(messy: Run) -> None:
    np.testing.assert_array_equal(messy.stem("x.wav/inside"), messy.stem("good"))


@pytest.mark.parametrize("name", ODD_NAMES, ids=ascii)
def test_odd_names_work(messy: Run, name: str) -> None:
    assert sorted(os.listdir(messy.out / name)) == [
        "background.flac",
        "background.png",
        "foreground.flac",
        "foreground.png",
        "manifest.json",
        "report-00000.js",
        "report.js",
        "spectrogram.png",
    ]
    np.testing.assert_array_equal(messy.stem(name), messy.stem("good"))


def test_a_second_run_skips_odd_names_and_tries_the_rest_again(
    messy: Run, command: Command
) -> None:
    before = result_files(messy.out)
    again = command("separate", messy.folder, "-o", messy.out, "--report", "--workers", 2)
    assert again.returncode == 1
    assert counts_of_run(finished=0, skipped=32, failed=12) in again.stderr
    assert result_files(messy.out) == before


def test_a_dry_run_lists_odd_names(messy: Run, command: Command, tmp_path: Path) -> None:
    listed = command("separate", messy.folder, "-o", tmp_path / "out", "--dry-run")
    assert listed.returncode == 1
    assert listed.stderr == ""
    assert "latin-\\udce9.wav" in listed.stdout
    assert not (tmp_path / "out").exists()


def test_damaged_files_of_every_container_are_all_accounted_for(
    tmp_path: Path, command: Command
) -> None:
    """A few of those of `benchmarks/bad_input.py`; some of these once took their worker down."""
    files = dict(damaged_files(230, seed=3))
    folder = write_tree(tmp_path / "in", files)
    arguments = ("--no-plots", "--report", "--workers", 2, "--log-format", "json")
    run = command("separate", folder, "-o", tmp_path / "out", *arguments)
    assert run.returncode == 1
    faults, ends = faults_of_run(list(files), tmp_path / "out", run.stdout + run.stderr)
    assert faults == []
    assert sum(ends.values()) == len(files)
    assert ends["finished"] > 40 and ends["UndecodableAudioError"] > 40


# Recordings that change under way ----------------------------------------------------------------


def job_for(*folders: Path, out: Path, **sections: Any) -> JobConfig:
    inputs = [{"type": "folder", "location": str(folder)} for folder in folders]
    data = {"outputs": [{"type": "file", "location": str(out), "replace": True}]}
    return parse_job(
        {
            "job_name": "test",
            "pipeline_options": {"streaming": False},
            "job_config": {"events": {"inputs": inputs}, "data": data},
            **sections,
        },
        source="test",
    )


def split(*folders: Path, out: Path, **sections: Any) -> None:
    """A run in this process, which is quicker than the command."""
    job = job_for(*folders, out=out, **sections)
    with beam.Pipeline(options=PipelineOptions([], runner="FnApiRunner")) as pipeline:
        messages = pipeline | CreateEvents(list_events(job))
        build(job, messages, local_workers=1)
    OutputTree(job.output_location).clear_scratch()


def times(out: Path) -> dict[Path, int]:
    """When each file but those of the run was written."""
    files = (path for path in out.rglob("*") if path.is_file() and path.name not in FILES_OF_RUN)
    return {path: path.stat().st_mtime_ns for path in files}


@pytest.fixture
def music(tmp_path: Path) -> Path:
    """A folder of two recordings."""
    files = {"one.wav": wav_bytes(TONE, RATE), "two.wav": wav_bytes(0.5 * TONE, RATE)}
    return write_tree(tmp_path / "music", files)


def test_a_recording_that_vanishes_after_the_listing_is_named(music: Path, tmp_path: Path) -> None:
    job = job_for(music, out=tmp_path / "out")
    skip = resumption_of(job)
    one, two = (skip.pending_or_receipt(element, force=False) for element in list_events(job))
    (reference,) = PlanParts(job.settings, job.file_storage).apply(one)
    shutil.rmtree(music)
    for use in (
        lambda: skip.pending_or_receipt("one.wav", force=False),
        lambda: list(PlanParts(job.settings, job.file_storage).apply(two)),
        lambda: list(LoadBinary(job.file_storage).apply(reference)),
    ):
        with pytest.raises(StorageError, match=r"music/(one|two)\.wav: .*not there"):
            use()


def test_a_recording_that_changes_after_the_listing_is_named(music: Path, tmp_path: Path) -> None:
    job = job_for(music, out=tmp_path / "out")
    skip = resumption_of(job)
    pending = skip.pending_or_receipt("one.wav", force=False)
    (reference,) = PlanParts(job.settings, job.file_storage).apply(pending)
    (music / "one.wav").write_bytes(wav_bytes(TONE[:, :-1], RATE))
    with pytest.raises(StorageError, match=r"one\.wav: changed while .*: run it again"):
        list(LoadBinary(job.file_storage).apply(reference))


# Places -------------------------------------------------------------------------------------------


def test_results_below_the_input_are_no_input(music: Path) -> None:
    out = music / "results"
    split(music, out=out)
    before = times(out)
    assert list_events(job_for(music, out=out)) == ("one.wav", "two.wav")
    assert list_events(job_for(music, out=music / "other")) == ("one.wav", "two.wav")
    split(music, out=out)
    assert times(out) == before
    assert_whole(out)


def test_an_output_folder_that_is_the_input_works(music: Path) -> None:
    split(music, out=music)
    before = times(music)
    split(music, out=music)
    assert times(music) == before
    (music / "one" / "manifest.json").unlink()  # as if the run had been stopped before it
    split(music, out=music)
    assert times(music).keys() == before.keys()
    for recording in music.glob("*.wav"):
        recording.unlink()
    assert_whole(music)


def test_recordings_beside_results_are_still_found(music: Path, tmp_path: Path) -> None:
    write_tree(music, {"one/track.wav": b"", "one/background.flac": b"", "one/deeper/x.wav": b""})
    manifest = {"format": 1, "digests": {}, "files": [{"name": "background.flac"}]}
    (music / "one" / "manifest.json").write_text(json.dumps(manifest))
    elements = list_events(job_for(music, out=tmp_path / "out"))
    assert elements == ("one.wav", "one/deeper/x.wav", "one/track.wav", "two.wav")


def test_recordings_named_as_stems_are_recordings(tmp_path: Path) -> None:
    folder = write_tree(tmp_path / "in", {"song.wav": b"", "song/background.flac": b""})
    elements = list_events(job_for(folder, out=tmp_path / "out"))
    assert elements == ("song.wav", "song/background.flac")


def test_same_names_in_two_inputs_are_refused_unless_they_have_a_root(
    tmp_path: Path, command: Command
) -> None:
    for name, samples in (("x", TONE), ("y", 0.5 * TONE)):
        write_tree(tmp_path / name, {"same.wav": wav_bytes(samples, RATE)})
    out, inputs = tmp_path / "out", (tmp_path / "x", tmp_path / "y" / "same.wav")
    refused = command("separate", *inputs, "-o", out)
    assert refused.returncode == 2 and not manifests(out)
    assert all(word in refused.stderr for word in ("x/same.wav", "y/same.wav", "--root"))
    assert "Traceback" not in refused.stderr
    done = command("separate", *inputs, "-o", out, "--no-plots", "--root", tmp_path)
    assert done.returncode == 0
    assert [str(path.parent.relative_to(out)) for path in manifests(out)] == ["x/same", "y/same"]
    assert_whole(out)


def test_elements_that_lead_out_of_the_folder_are_dead_letters(
    music: Path, tmp_path: Path, command: Command
) -> None:
    write_tree(tmp_path, {"secret.wav": wav_bytes(TONE, RATE)})
    escapes = ["../secret.wav", str(tmp_path / "secret.wav"), "sub/../../secret.wav", ".."]
    events = tmp_path / "events.txt"
    events.write_text("\n".join([*escapes, "one.wav"]) + "\n")
    out = tmp_path / "deep" / "out"
    job = write_job(
        tmp_path, events={"type": "file", "location": str(events)}, music=music, out=out
    )
    before = sorted(tmp_path.rglob("*"))
    run = command("run", job)
    assert run.returncode == 1
    assert dead_letters(out).keys() == set(escapes)
    assert all("leads out of" in letter["message"] for letter in dead_letters(out).values())
    assert [path.parent.name for path in manifests(out)] == ["one"]
    written = [path for path in tmp_path.rglob("*") if out.parent not in (path, *path.parents)]
    assert sorted(written) == before
    assert_whole(out)


def write_job(
    folder: Path, *, events: dict[str, str], music: Path, out: Path, **sections: Any
) -> Path:
    path = folder / "job.yaml"
    plain = {
        "job_name": "test",
        "pipeline_options": {"runner": "DirectRunner", "streaming": False},
        "job_config": {
            "events": {"inputs": [events]},
            "data": {
                "inputs": [{"type": "file", "location": str(music)}],
                "outputs": [{"type": "file", "location": str(out)}],
            },
        },
        **sections,
    }
    path.write_text(yaml.safe_dump(plain))
    return path


# Mistakes in the call -----------------------------------------------------------------------------


def refused(run: subprocess.CompletedProcess[str]) -> str:
    """The one-line message of a mistake in the call."""
    assert run.returncode == 2, run.stderr
    assert "Traceback" not in run.stderr
    assert run.stderr.startswith("error: ")
    return run.stderr


def test_an_input_that_is_not_there_is_refused(tmp_path: Path, command: Command) -> None:
    message = refused(command("separate", tmp_path / "nope", "-o", tmp_path / "out"))
    assert_names(message, tmp_path / "nope", "no such")
    assert not (tmp_path / "out").exists()


def test_a_folder_without_audio_is_refused(tmp_path: Path, command: Command) -> None:
    folder = write_tree(tmp_path / "texts", {"a.txt": b"a", "deeper/b.pdf": b"b"})
    message = refused(command("separate", folder, "-o", tmp_path / "out"))
    assert_names(message, folder, ".wav", ".flac")


def test_a_misspelt_key_is_refused_with_the_right_one(
    music: Path, tmp_path: Path, command: Command
) -> None:
    folder = {"type": "folder", "location": str(music)}
    job = write_job(
        tmp_path, events=folder, music=music, out=tmp_path / "out", plots={"rang_db": 60}
    )
    message = refused(command("run", job))
    assert_names(message, job, "plots.rang_db", "'range_db'")


def test_an_output_folder_that_is_a_file_is_refused(
    music: Path, tmp_path: Path, command: Command
) -> None:
    (tmp_path / "out").write_text("mine")
    for out in (tmp_path / "out", tmp_path / "out" / "deeper"):
        assert f"{tmp_path}/out" in refused(command("separate", music, "-o", out))
    assert (tmp_path / "out").read_text() == "mine"


# Permissions and disks ----------------------------------------------------------------------------


def bound_by_permissions() -> None:
    """In a child process: give up root's right to read and write everything."""
    drop_from_bounding_set, dac_override, dac_read_search = 24, 1, 2
    libc = ctypes.CDLL(None, use_errno=True)
    for capability in (dac_override, dac_read_search):
        libc.prctl(drop_from_bounding_set, capability, 0, 0, 0)


def run_bound(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        Command.line(*arguments),
        capture_output=True,
        text=True,
        timeout=120,
        preexec_fn=bound_by_permissions,
    )


def test_an_unreadable_recording_is_a_dead_letter(music: Path, tmp_path: Path) -> None:
    (music / "one.wav").chmod(0)
    run = run_bound("separate", music, "-o", tmp_path / "out")
    assert run.returncode == 1
    letter = dead_letters(tmp_path / "out")["one.wav"]
    assert_names(letter["message"], f"{music}/one.wav", "permissions")
    assert "traceback" not in letter
    assert [path.parent.name for path in manifests(tmp_path / "out")] == ["two"]
    assert_whole(tmp_path / "out")


def test_a_folder_that_cannot_be_listed_is_refused(music: Path, tmp_path: Path) -> None:
    (music / "private").mkdir(mode=0)
    message = refused(run_bound("separate", music, "-o", tmp_path / "out"))
    assert_names(message, music / "private", os.strerror(errno.EACCES))


def test_an_output_folder_without_write_permission_is_refused(music: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir(mode=0o555)
    message = refused(run_bound("separate", music, "-o", out))
    assert_names(message, out, "permissions")
    assert not list(out.iterdir())


@contextlib.contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if shutil.which("mount") is None:
        pytest.skip("there is no mount command here")
    done = subprocess.run(mount, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"a tmpfs can't be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_read_only_disk_is_refused(music: Path, tmp_path: Path, command: Command) -> None:
    with mounted(tmp_path / "disk", "ro") as disk:
        message = refused(command("separate", music, "-o", disk / "out"))
    assert_names(message, disk, "read-only")


@pytest.mark.parametrize("format", ["flac", "wav", "m4a"])
def test_a_full_disk_ends_the_job_and_what_fits_came_out(
    tmp_path: Path, command: Command, format: str
) -> None:
    names = "abcde"
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (1, 6 * RATE)).astype(np.float32)
    recording = wav_bytes(noise, RATE, subtype="PCM_24")
    folder = write_tree(tmp_path / "in", {f"{name}.wav": recording for name in names})
    arguments = ("separate", folder, "--format", format, "--workers", 1, "--no-plots")
    assert command(*arguments, "-o", tmp_path / "whole").returncode == 0
    whole = result_files(tmp_path / "whole")
    size = sum(-(-len(data) // 4096) * 4096 for data in whole.values()) * 5 // 10
    with mounted(tmp_path / "disk", f"size={size}") as disk:
        run = command(*arguments, "-o", disk)
        assert run.returncode == 2, run.stderr
        kept = result_files(disk)
        assert dead_letters(disk) == {}
        subprocess.run(["mount", "-o", "remount,size=100m", disk], check=True)
        assert command(*arguments, "-o", disk).returncode == 0
        assert result_files(disk) == whole
    assert_names(run.stderr.splitlines()[-1], disk, "full", "again")
    assert "Traceback" not in run.stderr
    finished = {name.split("/")[0] for name in kept if name.endswith("manifest.json")}
    assert 1 <= len(finished) < len(names)
    for name in kept:
        if name.split("/")[0] in finished:
            assert kept[name] == whole[name]


# Several runs -------------------------------------------------------------------------------------


def test_the_same_job_twice_at_once_gives_what_it_gives_alone(
    tmp_path: Path, command: Command
) -> None:
    files = {f"{index}.wav": wav_bytes(made_signal(3, RATE, 1, index), RATE) for index in range(4)}
    files["long.wav"] = wav_bytes(made_signal(25, 22050, 1), 22050)
    folder = write_tree(tmp_path / "in", files)
    arguments = ("separate", folder, "--part-seconds", 10)
    lines = [command.line(*arguments, "-o", tmp_path / "shared") for _ in range(2)]
    runs = [subprocess.Popen(line, stderr=subprocess.PIPE, text=True) for line in lines]
    errors = [run.communicate(timeout=120)[1] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], errors
    assert_whole(tmp_path / "shared")
    assert command(*arguments, "-o", tmp_path / "alone").returncode == 0
    assert result_files(tmp_path / "shared") == result_files(tmp_path / "alone")


def test_another_format_replaces_the_files_of_the_first(music: Path, tmp_path: Path) -> None:
    split(music, out=tmp_path / "out")
    for out in (tmp_path / "out", tmp_path / "fresh"):
        split(music, out=out, stems={"format": "wav"})
        assert_whole(out)
        assert len(list(out.rglob("*.wav"))) == 4
    assert result_files(tmp_path / "out") == result_files(tmp_path / "fresh")


def test_without_plots_the_old_plots_go_with_the_old_stems(music: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    split(music, out=out)
    split(music, out=out, stems={"format": "wav"}, plots={"enabled": False})
    assert not list(out.rglob("*.png"))
    assert_whole(out)


class Stopped(BaseException):
    """Is no failure of a recording."""


def _stop(_step: PublishTrack, _track: Any) -> None:
    raise Stopped


def test_a_stopped_run_with_other_numbers_leaves_nothing_that_looks_finished(
    music: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wav stems have the same size whatever they hold: their size alone tells nothing."""
    wav: dict[str, Any] = {"stems": {"format": "wav"}, "plots": {"enabled": False}}
    out = tmp_path / "out"
    split(music, out=out, **wav)
    before = result_files(out)
    with monkeypatch.context() as stopped:
        stopped.setattr(PublishTrack, "publish", _stop)
        with pytest.raises(RuntimeError, match="Stopped"):
            split(music, out=out, separation={"options": {"margin_background": 3}}, **wav)
    split(music, out=out, **wav)
    assert result_files(out) == before
