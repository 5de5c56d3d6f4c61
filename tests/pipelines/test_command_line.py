"""The command line: what it takes, where paths lead, and how mistakes are told."""

import importlib.metadata
import json
from collections.abc import Callable
from pathlib import Path

import model_server
import pytest
import soundfile
from conftest import Command
from model_packages import Halves, write_package
from typer.testing import CliRunner

from beamsplitter.models import model_registry
from beamsplitter.models.model_cache import CACHE_VARIABLE
from beamsplitter.pipelines.command_line import app
from beamsplitter.pipelines.events.elements import list_events
from beamsplitter.pipelines.job.job_config import JobFileError, load_job, parse_job
from beamsplitter.pipelines.job.locations import expanded
from beamsplitter.pipelines.local import launch
from beamsplitter.pipelines.separate_files import split_job

WriteAudio = Callable[..., Path]
JOB = """
job_name: names
pipeline_options: {runner: DirectRunner, streaming: false}
job_config:
  events: {inputs: [{type: folder, location: "${MUSIC}"}]}
  data: {outputs: [{type: file, location: ~/stems}]}
# ${COMMENTS} are nobody's business
plots: {range_db: "${RANGE}"}
"""


def test_the_version(command: Command) -> None:
    done = command("--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"beamsplitter {importlib.metadata.version('beamsplitter')}\n"


@pytest.mark.parametrize("arguments", [["-h"], ["separate", "-h"], ["models", "list", "-h"]])
def test_help_has_a_short_name(arguments: list[str], command: Command) -> None:
    done = command(*arguments)
    assert done.returncode == 0
    assert "Usage: " in done.stdout


def test_help_loses_no_word(command: Command) -> None:
    done = command("separate", "--help", COLUMNS="200")
    assert "Results lie in OUT/PATH_OF_THE_RECORDING/." in " ".join(done.stdout.split())


def test_all_that_a_job_file_can_say_can_be_said(
    write_audio: WriteAudio, tmp_path: Path, command: Command
) -> None:
    path = write_audio("a.wav", seconds=1)
    done = command(
        *("separate", path, "-o", tmp_path / "out", "--no-plots"),
        *("-O", "stems.rename={background: band}", "-O", "separation.options.margin_background=1"),
    )
    assert done.returncode == 0, done.stderr
    assert {each.name for each in (tmp_path / "out" / "a").glob("*.flac")} == {
        "band.flac",
        "foreground.flac",
    }


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--duration", "0"], "--duration: must be greater than 0"),
        (["--bit-depth", "32f"], "--format: flac can't have bit_depth 32f: use source, 16, 24"),
        (["--stems", "vocals"], "stems: 'vocals' is no stem of nn-filter, which gives backgr"),
        (["--option", "margn=3"], "--separator, --option: margn: "),
        (["--separator", "htdemucs"], "--separator, --option: htdemucs: no separator has this"),
        (["-O", "plots.rang_db=3"], "plots.rang_db: unknown key; did you mean 'range_db'?"),
        (["-O", "stems.format=aiff"], "stems.format: must be 'flac', 'wav', 'ogg', 'mp3'"),
        (["-O", "stems.rename={foreground: a/b}"], "stems.rename: 'a/b' can't be a file name: "),
        (["-O", "plots"], "-O plots: write it as dotted.path=value"),
    ],
)
def test_mistakes_speak_of_what_was_written(
    arguments: list[str], said: str, write_audio: WriteAudio, tmp_path: Path, command: Command
) -> None:
    path = write_audio("a.wav", seconds=1)
    done = command("separate", path, "-o", tmp_path / "out", *arguments)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {said}")
    assert not (tmp_path / "out").exists()


def test_what_the_system_refuses_is_told_with_its_path(tmp_path: Path, command: Command) -> None:
    (tmp_path / "file").touch()
    done = command("job-configs", tmp_path / "file" / "jobs")
    assert done.returncode == 2
    assert done.stderr == f"error: {tmp_path / 'file' / 'jobs'}: Not a directory\n"


@pytest.mark.parametrize("address", ["https://example.org/a.wav", "HTTP://example.org/a.wav"])
def test_the_web_is_refused_with_what_to_do(
    address: str, write_audio: WriteAudio, tmp_path: Path, command: Command
) -> None:
    for place in ([address, "-o", tmp_path / "out"], [write_audio("a.wav"), "-o", address]):
        done = command("separate", *place)
        assert done.returncode == 2
        assert f"{address}: recordings and results can't lie on the web: download" in done.stderr


def test_paths_are_filled_in(
    write_audio: WriteAudio, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a shell does not: in quotes, and behind a colon or an equals sign."""
    write_audio("music/ü #1.wav", seconds=1)
    write_audio("music/$HOME.wav", seconds=1)
    monkeypatch.chdir(tmp_path)
    places = ["~/music/ü #1.wav", "$SONGS/ü #1.wav", "music/$HOME.wav"]
    for index, place in enumerate(places):
        out = f"~/out-{index}"
        done = command(
            *("separate", place, "-o", out, "--no-plots"),
            HOME=str(tmp_path),
            SONGS=str(tmp_path / "music"),
        )
        assert done.returncode == 0, done.stderr
        assert len(list((tmp_path / f"out-{index}").rglob("manifest.json"))) == 1
    done = command("separate", (tmp_path / "music" / "ü #1.wav").as_uri(), "-o", "uri")
    assert done.returncode == 0, done.stderr
    assert soundfile.info(str(tmp_path / "uri" / "ü #1" / "background.flac")).frames == 16000
    assert not (tmp_path / "~").exists()


def test_names_in_a_job_file_are_filled_or_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(JOB)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MUSIC", "/music $RANGE")
    with pytest.raises(JobFileError, match=r"job\.yaml: \$\{RANGE\} is not filled: give it with"):
        load_job(str(path))
    monkeypatch.setenv("RANGE", "40")
    job = load_job("~/job.yaml")
    assert job.job_config.events.inputs[0].location == "/music $RANGE"
    assert job.output_location == str(tmp_path / "stems")
    assert job.plots.range_db == 40
    with pytest.raises(JobFileError, match=r"template value 'RANGE' is missing"):
        load_job(str(path), templates={"MUSIC": "m", "COMMENTS": "c"})


def test_to_parse_a_job_fetches_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_audio: WriteAudio
) -> None:
    """As `stop` and `publish` do; what runs or verifies it fetches what says what a model gives."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    plain = {
        "job_name": "models",
        "pipeline_options": {"runner": "DirectRunner", "streaming": False},
        "job_config": {
            "events": {"inputs": [{"type": "recording", "location": str(write_audio("a.wav"))}]},
            "data": {"outputs": [{"type": "file", "location": str(tmp_path / "out")}]},
        },
    }
    package = Path(write_package(tmp_path / "halves", Halves()))
    with model_server.serving() as server:
        for file in package.iterdir():
            server.add(f"/halves/{file.name}", file.read_bytes())
        plain["separation"] = {"separator": f"{server.address}/halves"}
        job = parse_job(plain, source="job")
        odd = parse_job({**plain, "stems": {"select": ["vocals"]}}, source="job")
        assert not server.sent_bytes
        job.resolve()
        assert server.sent_bytes
        assert job.separation.stem_names
        with pytest.raises(JobFileError, match="'vocals' is no stem of http"):
            odd.resolve()
    plain["separation"] = {"separator": "halvs"}
    with pytest.raises(JobFileError, match="halvs: no separator has this name"):
        parse_job(plain, source="job")


def test_a_location_is_a_path_or_an_address() -> None:
    assert expanded("file:///a%20b/c%23.wav") == "/a b/c#.wav"
    assert expanded("gs://bucket/~/a") == "gs://bucket/~/a"
    assert expanded("a/~/b") == "a/~/b"


def test_models_list_what_is_here_first_in_names_that_can_be_copied(command: Command) -> None:
    lines = command("models", "list").stdout.splitlines()
    rows = {line.split()[0]: line for line in lines if line.split()}
    assert list(rows)[2:4] == ["nn-filter", "hpss"]
    assert "yes" in rows["nn-filter"].split()
    for entry in model_registry.read_registry(model_registry.PACKAGED_REGISTRY):
        assert "fetch" in rows[entry.name]
    told = [
        json.loads(line)
        for line in command("models", "list", "--log-format", "json").stdout.splitlines()
    ]
    assert {entry["name"] for entry in told} <= rows.keys()


def test_the_example_job_files_are_written_out(tmp_path: Path, command: Command) -> None:
    ours = Path(__file__).parents[2] / "job-configs"
    folder = tmp_path / "a" / "jobs"
    folder.mkdir(parents=True)
    (folder / "local-folder.yaml").write_text("mine")
    done = command("job-configs", folder)
    assert done.returncode == 0, done.stderr
    written = [Path(line) for line in done.stdout.splitlines()]
    assert {path.name for path in written} == {
        path.name for path in ours.iterdir() if path.name != "local-folder.yaml"
    }
    assert all(path.read_bytes() == (ours / path.name).read_bytes() for path in written)
    assert (folder / "local-folder.yaml").read_text() == "mine"


def test_one_recording_becomes_one_file_of_any_name(
    write_audio: WriteAudio, tmp_path: Path, command: Command
) -> None:
    path = write_audio("in/a.wav", seconds=1)
    voice = tmp_path / "deep" / "voice.mp3"
    separate = ("separate", path, "--stems", "foreground", "-o")
    done = command(*separate, voice)
    assert done.returncode == 0, done.stderr
    assert str(voice) in done.stderr
    assert [each.name for each in voice.parent.iterdir()] == ["voice.mp3"]
    assert command("separate", path, "-o", tmp_path / "out", "--format", "mp3").returncode == 0
    assert voice.read_bytes() == (tmp_path / "out" / "a" / "foreground.mp3").read_bytes()
    before = voice.stat()
    refused = command(*separate, voice)
    assert refused.returncode == 2 and "--replace" in refused.stderr
    assert command(*separate, voice, "--dry-run").returncode == 0
    assert voice.stat() == before
    assert command(*separate, voice, "--replace").returncode == 0
    assert voice.stat() != before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["a.wav", "-o", "b.wav"], ["background, foreground", "--stems"]),
        ([".", "-o", "b.wav", "--stems", "foreground"], ["2 recordings"]),
        (["a.wav", "-o", "b.aiff", "--stems", "foreground"], ["aiff", "flac"]),
        (["a.wav", "-o", "b.wav", "--format", "mp3"], ["--format mp3"]),
        (["a.wav", "-o", "gs://bucket/b.wav", "--stems", "foreground"], ["gs://bucket", "folder"]),
    ],
)
def test_what_is_not_one_file_is_told(
    arguments: list[str],
    words: list[str],
    write_audio: WriteAudio,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = write_audio("in/a.wav", seconds=1).parent
    write_audio("in/c.wav", seconds=1)
    monkeypatch.chdir(folder)
    done = CliRunner().invoke(app, ["separate", *arguments])
    assert done.exit_code == 2
    assert all(word in done.stderr for word in words), done.stderr
    assert sorted(each.name for each in folder.iterdir()) == ["a.wav", "c.wav"]


def test_what_is_finished_needs_no_engine(
    write_audio: WriteAudio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes seconds to start."""
    folder, out = write_audio("in/a.wav", seconds=1).parent, tmp_path / "out"
    first = CliRunner().invoke(app, ["separate", str(folder), "-o", str(out)])
    assert first.exit_code == 0, first.stderr
    monkeypatch.setattr(launch, "_run_engine", None)
    again = CliRunner().invoke(app, ["separate", str(folder), "-o", str(out)])
    assert again.exit_code == 0, again.stderr
    assert "0 finished, 1 already done" in again.stderr
    told = json.loads((out / "run.json").read_text())
    assert told["recordings"]["skipped"] == told["recordings"]["total"] == 1
    assert (out / "failures.jsonl").read_bytes() == b""


def test_files_are_called_by_a_template(
    write_audio: WriteAudio, tmp_path: Path, command: Command
) -> None:
    path, out = write_audio("in/a song.wav", seconds=1), tmp_path / "out"
    arguments = ("separate", path, "-o", out, "--file-name", "{recording}_({stem})_{separator}")
    done = command(*arguments)
    assert done.returncode == 0, done.stderr
    names = {
        f"a song_({stem})_nn-filter{extension}"
        for stem in ("background", "foreground")
        for extension in (".flac", ".png")
    }
    made = {each.name for each in (out / "a song").iterdir()}
    assert made == {*names, "spectrogram.png", "manifest.json"}
    again = command(*arguments)
    assert "1 already done" in again.stderr


@pytest.mark.parametrize(
    "template", ["", "stem", "{stem}/x", "{stem", "{0}{stem}", "{name}{stem}", ".{stem}"]
)
def test_templates_that_make_no_names_are_refused(template: str) -> None:
    plain = {"job_name": "j", "stems": {"file_name": template}}
    with pytest.raises(JobFileError, match=r"^j: stems\.file_name: "):
        parse_job(plain, source="j")


def test_results_of_any_name_are_no_recordings(write_audio: WriteAudio, tmp_path: Path) -> None:
    """Where a stopped run has left stems without a manifest, among the recordings."""
    folder = write_audio("in/a.wav", seconds=1).parent
    (folder / "a").mkdir()
    (folder / "a" / "a (background).flac").touch()
    (folder / "a" / "background.flac").touch()
    job = split_job([folder], folder, stems={"file_name": "{recording} ({stem})"})
    assert list_events(job) == ("a.wav", "a/background.flac")
