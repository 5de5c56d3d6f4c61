"""Scores in the pass that separates: those that `evaluate` finds afterwards, and mistakes."""

import csv
import json
import re
import shutil
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pytest
import soundfile
from apache_beam.options.pipeline_options import PipelineOptions
from conftest import Command, dead_letters
from graph_runs import finish, run_on_files
from stem_mp4 import write_stem_mp4
from storage_server import StorageServer

import beamsplitter
from beamsplitter.errors import BeamsplitterError
from beamsplitter.models.evaluation.matching import match
from beamsplitter.models.evaluation.measures import BSSEVAL, DEFAULT_MEASURES
from beamsplitter.pipelines.job.job_config import JobConfig, JobFileError, parse_job
from beamsplitter.pipelines.job.resources import places_of
from beamsplitter.pipelines.separate_files import split_job
from beamsplitter.storage import OutputTree, Storage
from beamsplitter.transforms import EvaluationSettings, ScoreTracks, find_references
from beamsplitter.transforms.part_planning import planned_recording
from beamsplitter.transforms.resuming import Resumption
from beamsplitter.transforms.settings import ScoreSettings, SplitSettings
from beamsplitter.transforms.stem_tracks import list_stem_tracks

RATE = 8000
NAMES = ("album ü/b #1", "名前")
TRUE_NAMES = {"harmonic": "vocals", "percussive": "drums"}
STEMS = ("drums", "vocals")
# A picture is drawn for each.
MEASURES = ("si_sdr", "usdr")
BESIDE = {"references": "{folder}", "names": TRUE_NAMES, "measures": MEASURES}


def stems_of(seed: int, seconds: float) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    vocals, drums = 0.05 * generator.standard_normal((2, 2, round(seconds * RATE)))
    return {"vocals": np.cumsum(vocals, axis=-1) / 20, "drums": drums}


def write(path: Path, samples: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples.T, RATE, subtype="PCM_16")


def write_track(folder: Path, stems: dict[str, np.ndarray]) -> None:
    for stem, samples in {**stems, "mixture": sum(stems.values(), np.zeros(()))}.items():
        write(folder / f"{stem}.wav", samples)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Tracks with a mixture and its stems."""
    for seed, name in enumerate(NAMES):
        write_track(tmp_path / "data" / name, stems_of(seed, 3.3 + seed))
    return tmp_path / "data"


def job_of(data: Path | str, out: Path | str, **sections: Any) -> JobConfig:
    separation = {"separator": "hpss", **sections.pop("separation", {})}
    return split_job(
        [f"{data}/**/mixture.wav"],
        out,
        root=str(data),
        separation=separation,
        plots={"enabled": False},
        **sections,
    )


def scored(data: Path | str, out: Path | str, **sections: Any) -> Path:
    return finish(job_of(data, out, **{"scores": BESIDE, **sections}))


def evaluated(
    references: Path,
    out: Path,
    to: Path,
    names: dict[str, str] = TRUE_NAMES,
    measures: tuple[str, ...] = MEASURES,
) -> Path:
    tracks, _ = find_references(str(references), Storage())
    matched = match("hpss", tracks, list_stem_tracks(str(out), Storage()), names=names)
    settings = EvaluationSettings(ScoreSettings(measures=measures).scoring)
    with beam.Pipeline(options=PipelineOptions([], runner="FnApiRunner")) as pipeline:
        pipeline | beam.Create(matched.tracks) | ScoreTracks(settings, OutputTree(str(to)))
    assert not dead_letters(to)
    return to


def values(out: Path) -> dict[tuple[str, str, str], list[float | None]]:
    """Numbers of a table, by track, stem and measure."""
    return {
        (row["track"].removesuffix("/mixture"), row["stem"], row["measure"]): [
            float(text) if text else None for text in list(row.values())[4:]
        ]
        for row in csv.DictReader((out / "scores.csv").read_text().splitlines())
    }


def manifest_of(out: Path, name: str) -> Any:
    return json.loads((out / name / "mixture" / "manifest.json").read_text())


def made(out: Path, branch: str) -> list[Any]:
    return [manifest_of(out, name)["branches"][branch] for name in NAMES]


def in_manifest(out: Path, name: str) -> Any:
    (file,) = (each for each in manifest_of(out, name)["files"] if each["branch"] == "scores")
    return file["scores"]


@pytest.mark.parametrize(
    ("stems", "measures"),
    [
        ({}, DEFAULT_MEASURES),
        ({"peaks": "rescale", "bit_depth": 24}, MEASURES),
        ({"format": "ogg"}, MEASURES),
        ({"format": "opus", "sample_rate": 12000}, MEASURES),
    ],
)
def test_they_are_those_of_an_evaluation_afterwards(
    stems: dict[str, Any], measures: tuple[str, ...], data: Path, tmp_path: Path
) -> None:
    """To the last digit: what is scored are the samples that the files hold."""
    out = scored(data, tmp_path / "out", stems=stems, scores={**BESIDE, "measures": measures})
    expected = values(evaluated(data, out, tmp_path / "evaluated", measures=measures))
    assert values(out) == expected
    assert len(expected) == len(NAMES) * 2 * (7 if measures == DEFAULT_MEASURES else 2)
    for name in NAMES:
        rows = {(name, row["stem"], row["measure"]): row for row in in_manifest(out, name)}
        assert rows.keys() == {key for key in expected if key[0] == name}
        for key, row in rows.items():
            assert [row["track"], row["frames"]] == expected[key][:2]
        of_frames = json.loads((out / name / "mixture" / "scores.json").read_text())["scores"]
        assert of_frames["frames"] == len(
            of_frames["stems"]["vocals"]["measures"]["si_sdr"]["frames"]
        )
        assert of_frames["frames"] >= 3


def test_a_recording_of_several_parts_is_scored_as_a_whole(tmp_path: Path) -> None:
    data = tmp_path / "data"
    write_track(data / "long", stems_of(5, 25))
    parts, scores = {"part_seconds": 10}, {**BESIDE, "measures": (BSSEVAL, "si_sdr")}
    out = scored(data, tmp_path / "out", separation=parts, scores=scores)
    expected = evaluated(data, out, tmp_path / "evaluated", measures=(BSSEVAL, "si_sdr"))
    assert values(out) == values(expected)
    # Later, of stems that are there.
    later = run_on_files(job_of(data, tmp_path / "later", separation=parts))
    before = manifest_of(later, "long")["branches"]["stems"]
    scored(data, later, separation=parts, scores=scores)
    assert manifest_of(later, "long")["branches"]["stems"] == before
    assert values(later) == values(out)
    of_long = "long/mixture/scores.json"
    assert (later / of_long).read_bytes() == (out / of_long).read_bytes()


@pytest.mark.parametrize("rate", [RATE, 12000])
def test_an_excerpt_is_held_against_the_same_range(rate: int, data: Path, tmp_path: Path) -> None:
    if rate != RATE:
        for path in data.rglob("[!m]*.wav"):
            seconds = soundfile.info(path).duration
            noise = 0.1 * np.random.default_rng(1).standard_normal((round(seconds * rate), 2))
            soundfile.write(path, noise, rate, subtype="PCM_16")
    out = scored(data, tmp_path / "out", separation={"start_s": 0.75, "duration_s": 1.5})
    for path in data.rglob("*.wav"):
        samples, found = soundfile.read(path)
        soundfile.write(path, samples[round(0.75 * found) : round(2.25 * found)], found)
    expected = values(evaluated(data, out, tmp_path / "evaluated"))
    if rate == RATE:
        assert values(out) == expected
    for key, numbers in values(out).items():
        # The mixture is cut before it is resampled, or after.
        assert numbers[0] == pytest.approx(expected[key][0], abs=0.02)


def test_references_may_lie_elsewhere_and_be_called_otherwise(data: Path, tmp_path: Path) -> None:
    music = tmp_path / "music"
    for name in NAMES:
        (music / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(data / name / "mixture.wav", music / f"{name}.wav")
    names = {"singing": "vocals", "percussive": "no_vocals"}
    job = split_job(
        [music],
        tmp_path / "out",
        separation={"separator": "hpss"},
        stems={"rename": {"harmonic": "singing"}},
        plots={"enabled": False},
        scores={
            "references": f"{data}/{{recording}}",
            "names": names,
            "measures": MEASURES,
        },
    )
    out = run_on_files(job)
    assert {key[1] for key in values(out)} == {"vocals", "no_vocals"}
    assert values(out) == values(evaluated(data, out, tmp_path / "evaluated", names))


def test_a_stem_file_holds_its_own_references(tmp_path: Path) -> None:
    stems = stems_of(1, 2)
    zeros = np.zeros_like(stems["drums"])
    # mixture, drums, bass, other, vocals
    signals = [sum(stems.values(), zeros), stems["drums"], zeros, zeros, stems["vocals"]]
    song = write_stem_mp4(tmp_path / "data" / "song.stem.mp4", signals, RATE, codec="alac")
    job = split_job(
        [song],
        tmp_path / "out",
        separation={"separator": "hpss"},
        plots={"enabled": False},
        scores={
            "references": "{file}",
            "names": {"harmonic": "vocals", "percussive": "no_vocals"},
            "measures": MEASURES,
        },
    )
    out = run_on_files(job)
    assert not dead_letters(out)
    # Three of the four stems are silent or the drums: what is no vocals.
    assert {key[1] for key in values(out)} == {"vocals", "no_vocals"}


def test_they_are_made_later_and_again_when_a_true_stem_is_another(
    data: Path, tmp_path: Path
) -> None:
    out = run_on_files(job_of(data, tmp_path / "out"))
    stems = made(out, "stems")
    scored(data, out)
    first, first_made = values(out), made(out, "scores")
    # One is replaced: that track alone is scored again, and nothing is separated.
    other = data / NAMES[0] / "vocals.wav"
    write(other, stems_of(7, 3.3)["vocals"])
    scored(data, out)
    second = values(out)
    assert {key[0] for key in first if first[key] != second[key]} == {NAMES[0]}
    assert [new == old for new, old in zip(made(out, "scores"), first_made, strict=True)] == [
        False,
        True,
    ]
    assert second == values(evaluated(data, out, tmp_path / "evaluated"))
    # Without true stems what was scored is finished.
    for path in data.rglob("[!m]*.wav"):
        path.unlink()
    scored(data, out)
    assert values(out) == second
    # Without scores in the job they stay.
    run_on_files(job_of(data, out))
    assert in_manifest(out, NAMES[0])
    assert made(out, "stems") == stems


def test_new_stems_have_new_scores_or_none(data: Path, tmp_path: Path) -> None:
    out = scored(data, tmp_path / "out")
    run_on_files(job_of(data, out, separation={"duration_s": 2}, replace=True))
    assert not list(out.glob("*/**/scores.json"))
    assert "scores" not in manifest_of(out, NAMES[0])["branches"]


@pytest.mark.parametrize(
    ("vocals", "drums", "told"),
    [
        (None, None, "holds no true stem of vocals, drums: it has none at all"),
        ("singer.wav", "drum kit.wav", "it has drum kit, singer"),
        ("longer", "drums.wav", "than its references"),
        ("broken", "drums.wav", "vocals.wav"),
        (None, "below/drums.wav", "holds no true stem of vocals, drums"),
    ],
)
def test_true_stems_that_do_not_fit_are_told_before_the_separation(
    vocals: str | None, drums: str | None, told: str, data: Path, tmp_path: Path
) -> None:
    folder = data / NAMES[0]
    for stem, name in (("vocals", vocals), ("drums", drums)):
        path = folder / f"{stem}.wav"
        if name == "longer":
            write_track(folder, stems_of(0, 9))
            write(folder / "mixture.wav", np.zeros((2, RATE)))
        elif name == "broken":
            path.write_bytes(b"RIFF")
        elif name is None:
            path.unlink()
        else:
            (folder / name).parent.mkdir(exist_ok=True)
            path.rename(folder / name)
    settings = SplitSettings(separation={"separator": "hpss"}, scores=BESIDE)
    tree = OutputTree(str(tmp_path / "out"))
    resumption = Resumption(str(data), tree, settings)
    pending = resumption.pending_or_receipt(f"{NAMES[0]}/mixture.wav", force=False)
    with pytest.raises(BeamsplitterError, match=re.escape(told)):
        planned_recording(pending, settings, Storage())


@pytest.mark.parametrize(
    ("plain", "told"),
    [
        ({"scores": {"references": "{song}"}}, "it has {folder}, {recording} and {file}"),
        ({"scores": {"measures": ["si_sd"]}}, "did you mean si_sdr?"),
        ({"scores": {"references": "x", "measures": []}}, "scores.measures"),
        (
            {
                "scores": {"references": "x"},
                "join": "cogbk",
                "separation": {"duration_s": 5, "recipe": "librosa"},
            },
            "stems and plots only",
        ),
    ],
)
def test_a_job_that_can_not_be_scored_is_refused(plain: dict[str, Any], told: str) -> None:
    with pytest.raises(JobFileError) as raised:
        parse_job({"job_name": "test", **plain}, source="")
    assert told in str(raised.value)


def test_a_relative_place_is_that_of_the_launcher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    scores = ScoreSettings(references="truth/{recording}")
    monkeypatch.chdir("/")
    assert scores.location_of("/x/a.b.wav", "p/a.b") == f"{tmp_path}/truth/p/a.b"
    # Beside another of its name the folder of its results keeps the extension.
    assert scores.location_of("/x/a.wav", "p/a.wav") == f"{tmp_path}/truth/p/a"


@pytest.mark.parametrize(
    ("references", "place"),
    [("/x/truth/{recording}", "/x/truth"), ("gs://b/{recording}/true", "gs://b"), ("{file}", None)],
)
def test_verify_looks_where_true_stems_lie(references: str, place: str | None) -> None:
    job = parse_job({"job_name": "test", "scores": {"references": references}}, source="")
    found = [each.location for each in places_of(job) if each.key == "scores.references"]
    assert found == ([place] if place else [])


def test_on_buckets(data: Path, tmp_path: Path, gcs: StorageServer) -> None:
    gcs.upload(data, "data")
    bucket = f"gs://{gcs.bucket.name}"
    job = job_of(f"{bucket}/data", f"{bucket}/out", scores=BESIDE)
    run_on_files(job)
    gcs.download("out", tmp_path / "out")
    assert values(tmp_path / "out") == values(scored(data, tmp_path / "here"))
    resumption = Resumption(f"{bucket}/data", job.output_tree, job.settings)
    name = f"{NAMES[0]}/mixture.wav"
    assert resumption.pending_or_receipt(name, force=False).skipped
    gcs.bucket.blob(f"data/{NAMES[0]}/drums.wav").upload_from_string(b"another")
    assert resumption.pending_or_receipt(name, force=False).todo == ("scores",)


def test_the_command(data: Path, tmp_path: Path, command: Command) -> None:
    out = tmp_path / "out"
    for path in (data / NAMES[0]).glob("[!m]*.wav"):
        path.unlink()
    call = ["separate", data, "-o", out, "--separator", "hpss", "--no-plots"]
    call += ["--references", "{folder}", "-O", "scores.names={harmonic: vocals}"]
    call += ["-O", "scores.measures=[si_sdr, usdr]"]
    done = command(*call)
    assert done.returncode == 1
    assert f"scores: {out}/scores.md" in done.stdout + done.stderr
    letters = dead_letters(out)
    assert "holds no true stem" in letters[f"{NAMES[0]}/mixture.wav"]["message"]
    assert {letter["step"] for letter in letters.values()} == {"PlanParts"}
    # A folder names its true stems, too.
    assert letters.keys() == {f"{NAMES[0]}/mixture.wav", *(f"{NAMES[1]}/{x}.wav" for x in STEMS)}
    assert "is a true stem itself" in letters[f"{NAMES[1]}/vocals.wav"]["message"]
    assert not (out / NAMES[0]).exists()
    assert (out / "scores-si_sdr.png").read_bytes().startswith(b"\x89PNG")
    content = json.loads((out / "scores.json").read_text())
    assert content["tracks"] == {"hpss": 1}
    run_facts = json.loads((out / "run.json").read_text())
    assert run_facts["settings"]["scores"]["references"] == "{folder}"
    # The last run was stopped before it came to the tables.
    (out / "scores.csv").unlink()
    recordings = [data / name / "mixture.wav" for name in NAMES]
    write_track(data / NAMES[0], stems_of(0, 3))
    call[1:2] = recordings
    assert command(*call, "--root", data).returncode == 0
    assert len(values(out)) == 4
    # What was repaired is not all that there is.
    (out / NAMES[0] / "mixture" / "scores.json").unlink()
    assert command("check", out, "--repair").returncode == 0
    assert len(values(out)) == 4
    (again,) = beamsplitter.separate_files(
        recordings[0],
        out,
        separator="hpss",
        plots=False,
        references="{folder}",
        settings={"scores.names": {"harmonic": "vocals"}, "scores.measures": MEASURES},
    )
    assert again.scores == f"{out}/mixture/scores.json"
    one = command("separate", recordings[0], "-o", tmp_path / "one.wav", "--references", "{folder}")
    assert one.returncode == 2
    assert "--references: scores lie beside stems" in one.stderr
