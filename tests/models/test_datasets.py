"""Folders of stems: found whatever their format, and checked before a training."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stem_mp4 import write_stem_mp4
from typer.testing import CliRunner

from beamsplitter.models.datasets.checking import TrackReport, check_tracks, usual_stems
from beamsplitter.models.datasets.stem_folders import DatasetError, StemFile, find_tracks
from beamsplitter.pipelines.command_line import app

WriteAudio = Callable[..., Path]
RATE = 16000


def noise(seconds: float, seed: int, *, channels: int = 1, rate: int = RATE) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return (0.1 * generator.standard_normal((channels, round(seconds * rate)))).astype(np.float32)


@pytest.fixture
def write_track(write_audio: WriteAudio) -> Callable[..., dict[str, np.ndarray]]:
    """`write_track("train/song", vocals=…)`: a sound track of 4 s, but for what is given."""

    def write(
        name: str, *, extension: str = "wav", rates: dict[str, int] | None = None, **changes: Any
    ) -> dict[str, np.ndarray]:
        seed = sum(name.encode())
        files: dict[str, Any] = {"vocals": noise(4, seed), "rest": noise(4, seed + 1)}
        files["mixture"] = files["vocals"] + files["rest"]
        files |= changes
        for stem, samples in files.items():
            if samples is not None:
                rate = (rates or {}).get(stem, RATE)
                path = f"data/{name}/{stem}.{extension}"
                write_audio(path, samples=samples, sample_rate=rate, subtype=None)
        return files

    return write


def problems_of(folder: Path, **options: Any) -> dict[str, set[tuple[str, str | None]]]:
    reports = check_tracks(find_tracks(folder), **options)
    return {
        report.name: {(problem.kind, problem.stem) for problem in report.problems}
        for report in reports
    }


def test_tracks_are_folders_with_sound_files(
    write_track: Callable[..., Any], tmp_path: Path
) -> None:
    write_track("train/b")
    write_track("train/a", extension="flac", mixture=None)
    write_track("test/c", extension="ogg")
    data = tmp_path / "data"
    (data / "train" / "a" / "notes.txt").write_text("no sound")
    (data / ".cache" / "x").mkdir(parents=True)
    (data / ".cache" / "x" / "vocals.wav").write_bytes(b"hidden")
    tracks = find_tracks(data)
    assert [track.name for track in tracks] == ["test/c", "train/a", "train/b"]
    assert tracks[1].mixture is None
    assert tracks[1].stems == {
        stem: StemFile(str(data / "train" / "a" / f"{stem}.flac")) for stem in ("rest", "vocals")
    }
    assert tracks[2].mixture == StemFile(str(data / "train" / "b" / "mixture.wav"))
    assert usual_stems(tracks) == ("rest", "vocals")
    assert [track.name for track in find_tracks(data / "train")] == ["a", "b"]


def test_what_is_no_dataset_says_so(write_track: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="is no folder"):
        find_tracks(tmp_path / "gone")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match=r"holds no tracks: .*vocals\.wav"):
        find_tracks(tmp_path / "empty")
    write_track("train/a")
    write_track("train/a", extension="flac")
    with pytest.raises(DatasetError, match=r"mixture\.flac and mixture\.wav are both called mix"):
        find_tracks(tmp_path / "data")


def test_sound_tracks_have_no_problems(write_track: Callable[..., Any], tmp_path: Path) -> None:
    write_track("train/a")
    write_track("train/b", mixture=None)
    time_s = np.arange(4 * RATE) / RATE
    tones = [0.2 * np.sin(2 * np.pi * frequency * time_s)[None] for frequency in (440, 1000)]
    stems = dict(zip(("vocals", "rest"), tones, strict=True))
    write_track("train/c", extension="ogg", **stems, mixture=sum(tones))  # lossy: nearly the sum
    reports = check_tracks(find_tracks(tmp_path / "data"))
    assert [report.problems for report in reports] == [(), (), ()]
    assert [report.duration_s for report in reports] == [4, 4, 4]
    assert reports[0].rest_db is not None
    assert reports[0].rest_db < -60
    assert reports[1].rest_db is None
    assert (reports[0].stems, reports[0].has_mixture) == (("rest", "vocals"), True)


def test_each_fault_is_found_and_told_for_its_stem(
    write_track: Callable[..., Any], tmp_path: Path
) -> None:
    for name in ("fine 1", "fine 2", "fine 3", "fine 4", "fine 5", "fine 6", "fine 7", "fine 8"):
        write_track(f"train/{name}")
    write_track("train/missing", vocals=None)
    write_track("train/silent", vocals=np.zeros((1, 4 * RATE), np.float32), mixture=None)
    write_track("train/short", vocals=noise(2, 1), rest=noise(2, 2), mixture=None)
    write_track("train/length", rest=noise(3.9, 3))
    write_track("train/rate", rest=noise(4, 4, rate=8000), rates={"rest": 8000})
    write_track("train/channels", rest=noise(4, 5, channels=2))
    write_track("train/sum", mixture=noise(4, 6))
    write_track("train/broken")
    (tmp_path / "data" / "train" / "broken" / "rest.wav").write_bytes(b"RIFF and no more")
    found = problems_of(tmp_path / "data")
    assert not any(found[f"train/fine {number}"] for number in range(1, 9))
    assert found["train/missing"] == {("missing", "vocals")}
    assert found["train/silent"] == {("silent", "vocals")}
    assert found["train/short"] == {("short", None)}
    assert ("length", "rest") in found["train/length"]
    assert ("sample_rate", "rest") in found["train/rate"]
    assert found["train/channels"] == {("channels", "rest")}
    assert found["train/sum"] == {("sum", None)}
    assert found["train/broken"] == {("undecodable", "rest")}


def test_the_stems_that_are_wanted_may_be_named(
    write_track: Callable[..., Any], tmp_path: Path
) -> None:
    write_track("train/a")
    assert problems_of(tmp_path / "data", stems=["vocals", "drums"]) == {
        "train/a": {("missing", "drums")}
    }
    assert problems_of(tmp_path / "data", minimum_s=5) == {"train/a": {("short", None)}}


def test_long_tracks_are_listened_to_block_by_block(
    write_track: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also what begins late is heard, and what goes wrong late is found."""
    monkeypatch.setattr("beamsplitter.models.datasets.checking.BLOCK_S", 1)
    late = noise(4, 1)
    late[:, : 3 * RATE] = 0
    other = noise(4, 2)
    wrong = late + other
    wrong[:, -RATE:] *= -1
    write_track("train/fine", vocals=late, rest=other, mixture=late + other)
    write_track("train/wrong", vocals=late, rest=other, mixture=wrong)
    assert problems_of(tmp_path / "data") == {
        "train/fine": set(),
        "train/wrong": {("sum", None)},
    }


def test_the_command_tells_all_of_it(write_track: Callable[..., Any], tmp_path: Path) -> None:
    write_track("train/a")
    data = str(tmp_path / "data")
    done = CliRunner().invoke(app, ["dataset", "check", data])
    assert done.exit_code == 0
    assert "1 tracks, 0.00 hours, stems rest, vocals: all fine" in done.stdout

    write_track("train/b")
    write_track("train/bad", vocals=None, mixture=noise(4, 9))
    done = CliRunner().invoke(app, ["dataset", "check", data])
    assert done.exit_code == 1
    assert "train/bad" in done.stdout
    assert "has no vocals" in done.stdout
    assert "3 tracks" in done.stdout
    assert "1 with something wrong" in done.stdout

    done = CliRunner().invoke(app, ["dataset", "check", data, "--json", "--stems", "rest"])
    told = json.loads(done.stdout)
    assert done.exit_code == 1
    assert told["stems"] == ["rest"]
    assert told["faulty_tracks"] == 1
    (bad,) = (track for track in told["tracks"] if track["name"] == "train/bad")
    assert [problem["kind"] for problem in bad["problems"]] == ["sum"]
    assert {*bad} == {*TrackReport.__dataclass_fields__}


def test_the_command_needs_a_dataset(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["dataset", "check", str(tmp_path / "gone")])
    assert done.exit_code == 2
    assert "is no folder" in done.stderr


# Tracks in one file -------------------------------------------------------------------------------


def write_song(path: Path, *, rest: float = 1.0, **options: Any) -> Path:
    stems = [noise(4, seed, channels=2) for seed in range(4)]
    mixture = np.sum(stems, axis=0)
    stems[2] *= rest
    return write_stem_mp4(path, [mixture, *stems], RATE, **{"codec": "alac", **options})


def test_a_track_may_lie_in_one_file(write_track: Callable[..., Any], tmp_path: Path) -> None:
    data = tmp_path / "data"
    song = write_song(data / "train" / "Artist - Title.stem.mp4")
    titles = ("Full", "Kit", "Low", "Rest", "Choir")
    write_song(data / "train" / "B.STEM.M4A", titles=titles, arguments=("-f", "mp4"))
    write_track("train/plain")
    tracks = find_tracks(data)
    assert [track.name for track in tracks] == ["train/Artist - Title", "train/B", "train/plain"]
    first, second, _ = tracks
    assert first.mixture == StemFile(str(song), 0)
    assert first.stems == {
        stem: StemFile(str(song), number)
        for number, stem in enumerate(("drums", "bass", "other", "vocals"), start=1)
    }
    assert [*second.stems] == ["kit", "low", "rest", "choir"]
    assert [track.name for track in find_tracks(data / "train")][1] == "B"


def test_tracks_in_one_file_are_checked(tmp_path: Path) -> None:
    data = tmp_path / "data"
    write_song(data / "a.stem.mp4")
    write_song(data / "lossy.stem.mp4", codec="aac")
    write_song(data / "louder.stem.mp4", rest=3.0)
    write_stem_mp4(data / "one.stem.mp4", [noise(4, 1)], RATE)
    (data / "torn.stem.mp4").write_bytes((data / "a.stem.mp4").read_bytes()[:5000])
    stems = ("bass", "drums", "other", "vocals")
    missing = {("missing", stem) for stem in stems}
    assert problems_of(data, stems=stems) == {
        "a": set(),
        "lossy": set(),
        "louder": {("sum", None)},
        "one": missing,
        "torn": missing | {("undecodable", "mixture")},
    }


def test_the_command_lists_tracks_in_one_file(tmp_path: Path) -> None:
    write_song(tmp_path / "train" / "song.stem.mp4")
    done = CliRunner().invoke(app, ["dataset", "check", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert "1 tracks" in done.output
    assert "stems bass, drums, other, vocals" in done.output


def test_two_tracks_of_one_name_are_refused(
    write_track: Callable[..., Any], tmp_path: Path
) -> None:
    write_track("train/song")
    write_song(tmp_path / "data" / "train" / "song.stem.mp4")
    with pytest.raises(DatasetError, match=r"two tracks are called train/song"):
        find_tracks(tmp_path / "data")
