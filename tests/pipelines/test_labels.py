"""The branch `labels`: alone, beside stems, of parts, and added later; what is told of a run."""

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pytest
import torch
from apache_beam.options.pipeline_options import PipelineOptions
from conftest import Command, dead_letters, result_files
from graph_runs import finish
from model_packages import RATE, Volume, write_labeler, write_package

from beamsplitter.models.separators.base import Label
from beamsplitter.pipelines.events.elements import list_events
from beamsplitter.pipelines.events.sources import CreateEvents
from beamsplitter.pipelines.job.job_config import JobConfig, JobFileError
from beamsplitter.pipelines.run import build
from beamsplitter.pipelines.separate_files import split_job
from beamsplitter.transforms.labels import UNCERTAIN, shares_of

WriteAudio = Callable[..., Path]
NOTHING: dict[str, Any] = {"separator": "none"}


class Seconds(torch.nn.Module):
    """How likely each second is quiet, or loud: a labeler that gives probabilities."""

    def forward(self, x: torch.Tensor):
        power = x[0].reshape(-1, 8000).pow(2).mean(dim=1)
        loud = (2 * power).clamp(0, 1)
        starts_s = torch.arange(power.shape[0], dtype=torch.float32)
        times_s = torch.stack([starts_s, starts_s + 1], dim=1)
        return torch.stack([1 - loud, loud], dim=1), times_s


@pytest.fixture
def labeler(tmp_path: Path) -> str:
    return write_labeler(tmp_path / "seconds-net", Seconds(), labels=["quiet", "loud"])


@pytest.fixture
def data(write_audio: WriteAudio, tmp_path: Path) -> Path:
    """Quiet, loud from the 7th second on, something between from the 16th on; 25.5 s."""
    samples = np.zeros((1, 51 * RATE // 2), np.float32)
    samples[:, 7 * RATE : 16 * RATE] = np.sqrt(0.5)
    samples[:, 20 * RATE :] = np.sqrt(0.2)
    write_audio("music/a.wav", sample_rate=RATE, samples=samples)
    return tmp_path / "music"


def job_of(data: Path, out: Path, labeler: str, **sections: Any) -> JobConfig:
    labels = {"model": labeler, "options": {"block_seconds": 6}, **sections.pop("labels", {})}
    return split_job(
        [data],
        out,
        **{"separation": NOTHING, "plots": {"enabled": False}, "labels": labels, **sections},
    )


def labels_of(out: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((out / "a/labels.json").read_text())
    return found


@pytest.mark.parametrize("part_seconds", [10, 300])
def test_labels_have_times_and_confidences(
    labeler: str, data: Path, tmp_path: Path, part_seconds: float
) -> None:
    separation = {**NOTHING, "part_seconds": part_seconds}
    out = finish(job_of(data, tmp_path / "out", labeler, separation=separation))
    labels = labels_of(out)
    assert [each["label"] for each in labels] == ["quiet"] * 7 + ["loud"] * 9 + ["quiet"] * 10
    assert [each["start_s"] for each in labels] == pytest.approx(range(26))
    assert labels[-1]["end_s"] == 25.5
    assert [each["confidence"] for each in labels[:20]] == pytest.approx([1] * 20, abs=0.01)
    assert [each["confidence"] for each in labels[20:25]] == pytest.approx([0.6] * 5, abs=0.01)
    lines = (out / "a/labels.txt").read_text().splitlines()
    assert lines[0] == "0.000000\t1.000000\tquiet"
    assert len(lines) == 26


def test_what_is_uncertain_is_called_so(labeler: str, data: Path, tmp_path: Path) -> None:
    out = finish(job_of(data, tmp_path / "out", labeler, labels={"uncertain": 0.7}))
    labels = labels_of(out)
    assert [each["label"] for each in labels[20:25]] == [UNCERTAIN] * 5
    assert {each["candidate"] for each in labels[20:25]} == {"quiet"}
    assert all("candidate" not in each for each in labels[:20])
    assert (out / "a/labels.txt").read_text().splitlines()[21].endswith(f"\t{UNCERTAIN}")


def test_the_manifest_and_a_table_tell_how_much_has_which_label(
    labeler: str, data: Path, tmp_path: Path
) -> None:
    out = finish(job_of(data, tmp_path / "out", labeler))
    manifest = json.loads((out / "a/manifest.json").read_text())
    (file,) = [each for each in manifest["files"] if each["name"] == "labels.json"]
    shares = {each["label"]: each for each in file["labels"]}
    assert shares["loud"]["share"] == pytest.approx(9 / 25.5, abs=1e-5)
    assert shares["quiet"]["longest_s"] == pytest.approx(9.5)
    assert [*shares] == ["quiet", "loud"]
    rows = [*csv.DictReader((out / "labels.csv").read_text().splitlines())]
    assert [row["recording"] for row in rows] == ["a", "a"]
    assert [float(row["share"]) for row in rows] == [each["share"] for each in shares.values()]


def test_overlapping_labels_count_once() -> None:
    twice = [Label(2, 4, "a", 1.0), Label(0, 2, "a", 0.5), Label(3, 5, "a", None)]
    labels = [*twice, Label(1, 2, "b")]
    first, second = shares_of(labels, 10)
    assert (first.label, first.share, first.longest_s, first.confidence) == ("a", 0.5, 5, 0.75)
    assert (second.label, second.share, second.longest_s, second.confidence) == ("b", 0.1, 1, None)
    assert shares_of([], 10) == ()


@pytest.mark.parametrize("part_seconds", [10, 300])
def test_labels_stand_beside_stems_and_leave_them_as_they_are(
    labeler: str, data: Path, tmp_path: Path, part_seconds: float
) -> None:
    stems: dict[str, Any] = {"separation": {"separator": "hpss", "part_seconds": part_seconds}}
    at_once = finish(job_of(data, tmp_path / "at-once", labeler, **stems))
    alone = finish(split_job([data], tmp_path / "later", plots={"enabled": False}, **stems))
    stem = alone / "a/harmonic.flac"
    assert stem.read_bytes() == (at_once / "a/harmonic.flac").read_bytes()
    written = stem.stat().st_mtime_ns
    finish(job_of(data, tmp_path / "later", labeler, **stems))
    assert stem.stat().st_mtime_ns == written
    files, files_later = result_files(at_once), result_files(alone)
    for each in (files, files_later):
        del each["a/manifest.json"]
    assert files == files_later
    labels = labels_of(finish(job_of(data, tmp_path / "alone", labeler)))
    assert labels == labels_of(at_once)


def test_a_model_that_fails_costs_its_recording(
    write_audio: WriteAudio, data: Path, tmp_path: Path
) -> None:
    class Odd(torch.nn.Module):
        def forward(self, x: torch.Tensor):
            if float(x.abs().max()) > 0.9:
                raise ValueError("too loud for me")
            return torch.zeros(1).long(), torch.tensor([[0.0, 0.5]])

    package = write_package(
        tmp_path / "odd-net", Odd(), labels=["any"], effect_type="waveform-to-labels"
    )
    write_audio("music/b.wav", sample_rate=RATE, samples=np.ones((1, RATE), np.float32))
    job = job_of(data, tmp_path / "out", package, separation={"separator": "hpss"})
    with beam.Pipeline(options=PipelineOptions([], runner="FnApiRunner")) as pipeline:
        build(job, pipeline | CreateEvents(list_events(job), "test"))
    letters = dead_letters(tmp_path / "out")
    assert [*letters] == ["b.wav"]
    assert "odd-net" in letters["b.wav"]["message"]
    assert not (tmp_path / "out/b").exists()
    assert (tmp_path / "out/a/labels.json").exists()


def test_models_of_the_other_kind_are_refused_with_the_cure(
    labeler: str, data: Path, tmp_path: Path
) -> None:
    for sections, told in (
        (
            {"separation": {"separator": labeler}},
            r"gives labels, .*: name it in labels\.model",
        ),
        ({"labels": {"options": {}, "uncertain": 2}}, r"labels\.uncertain"),
        ({"labels": {"model": None, "uncertain": 0.5}}, r"labels: model: name what gives labels"),
        ({"labels": {"model": "my-net"}}, r"my-net: no model has this name: .* gives labels"),
    ):
        with pytest.raises(JobFileError) as caught:
            job_of(data, tmp_path / "out", labeler, **sections)
        assert re.search(told, str(caught.value)), caught.value
    stems = write_package(tmp_path / "volume-net", Volume(), labels=["low"])
    with pytest.raises(JobFileError, match=r"gives stems, no labels: name it in separation"):
        job_of(data, tmp_path / "out", stems)
    with pytest.raises(JobFileError, match=r"labels.*there is no such folder"):
        job_of(data, tmp_path / "out", str(tmp_path / "nowhere/net"))


def test_the_command(labeler: str, data: Path, tmp_path: Path, command: Command) -> None:
    done = command("label", data, "-o", tmp_path / "out", "-m", labeler, "--uncertain", "0.7")
    assert done.returncode == 0, done.stderr
    assert UNCERTAIN in (tmp_path / "out/labels.csv").read_text()
    (tmp_path / "out/labels.csv").unlink()
    again = command("label", data, "-o", tmp_path / "out", "-m", labeler, "--uncertain", "0.7")
    assert again.returncode == 0, again.stderr
    assert UNCERTAIN in (tmp_path / "out/labels.csv").read_text()
    wrong = command("label", data, "-o", tmp_path / "out", "-m", tmp_path / "no/net")
    assert wrong.returncode == 2
    assert "--model" in wrong.stderr and "no such folder" in wrong.stderr
