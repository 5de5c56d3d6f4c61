"""What went wrong in Klio, where the tests of the parts do not show that it goes right here."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apache_beam as beam
import fastavro
import librosa
import numpy as np
import pytest
import soundfile
import yaml
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.testing.util import assert_that, equal_to
from conftest import Command, dead_letters, result_files
from dataflow_server import serving
from graph_runs import run
from PIL import Image
from result_checks import read_json
from typer.testing import CliRunner, Result

from beamsplitter.pipelines.command_line import app
from beamsplitter.pipelines.commands.progress import counts_of_run
from beamsplitter.pipelines.events.sources import ReadEvents
from beamsplitter.pipelines.job.job_config import JobConfig, load_job, parse_job
from beamsplitter.storage import OutputTree
from beamsplitter.transforms.klio.decorators import handle_klio
from beamsplitter.transforms.klio.message import (
    KlioJob,
    KlioMessage,
    array_from_bytes,
    array_to_bytes,
    new_message,
    parse_message,
)
from beamsplitter.transforms.records import Receipt
from beamsplitter.transforms.resuming import Resumption
from beamsplitter.transforms.settings import SplitSettings

WriteAudio = Callable[..., Path]
ROOT = Path(__file__).parents[1]
EXCERPT_JOB = ROOT / "job-configs" / "klio-excerpt.yaml"
RATE = 8000


def element_of(message: bytes) -> str:
    return os.fsdecode(parse_message(message).data.element)


# The example audio_spectrograms -------------------------------------------------------------------

TEMPLATES = {"EVENTS": "audio_ids.txt", "INPUT": "./inputs", "OUTPUT": "./outputs"}


def full_message(element: str) -> KlioMessage:
    """A message that says all that a message can say to its job."""
    message = new_message(element, recipients=[KlioJob(job_name="klio-excerpt")])
    message.metadata.force = True
    message.metadata.job_audit_log.add(klio_job=KlioJob(job_name="earlier"))
    return message


def test_the_example_of_klio(
    write_audio: WriteAudio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Command
) -> None:
    """A song of 11.5 s killed the job, a shorter one was only logged; each ID was written three
    times, without recipients, force and audit log; local folders failed; reruns began anew.
    """
    monkeypatch.chdir(tmp_path)
    for name, seconds in (("song one", 16.0), ("brief", 14.25), ("short", 9.0)):
        write_audio(f"inputs/{name}.ogg", seconds=seconds, sample_rate=RATE)
    job = load_job(str(EXCERPT_JOB), templates=TEMPLATES)
    asked = [full_message(element) for element in ("song one", "brief", "short", "gone")]
    told = {message.data.element.decode(): message for message in run(job, asked)}

    letters = dead_letters(tmp_path / "outputs")
    assert letters.keys() == {"short", "gone"}
    assert letters["short"]["exception"] == "TooShortAudioError"
    assert "before the excerpt begins: it starts at 10 s" in letters["short"]["message"]
    assert "is not there" in letters["gone"]["message"]

    assert len((tmp_path / "messages").read_text().splitlines()) == len(told) == 2
    for element, seconds in (("song one", 5.0), ("brief", 4.25)):
        files = read_json(tmp_path / "outputs" / element / "manifest.json")["files"]
        frames = {file["frames"] for file in files if file["branch"] == "stems"}
        assert frames == {seconds * RATE}
        message = told[element]
        assert json.loads(message.data.payload)["duration_s"] == seconds
        jobs = [item.klio_job.job_name for item in message.metadata.job_audit_log]
        assert jobs == ["earlier", "klio-excerpt"]
        del message.metadata.job_audit_log[1]
        message.data.payload = b""
        assert message == full_message(element)

    before = result_files(tmp_path / "outputs")
    (tmp_path / "audio_ids.txt").write_text("song one\nbrief\nsong one\n")
    values = [each for name, value in TEMPLATES.items() for each in ("-T", f"{name}={value}")]
    again = command("run", EXCERPT_JOB, *values)
    assert again.returncode == 0, again.stderr
    assert counts_of_run(finished=0, skipped=2, failed=0) in again.stderr
    assert result_files(tmp_path / "outputs") == {**before, "failures.jsonl": b""}


# Events that come twice ---------------------------------------------------------------------------


def job_for(folder: Path, **sections: Any) -> JobConfig:
    """A job of the lines in `ids.txt`, without plots."""
    return parse_job(
        {
            "job_name": "twice",
            "pipeline_options": {"runner": "DirectRunner", "streaming": False},
            "job_config": {
                "events": {"inputs": [{"type": "file", "location": str(folder / "ids.txt")}]},
                "data": {
                    "inputs": [
                        {"type": "file", "location": str(folder / "in"), "file_suffix": ".wav"}
                    ],
                    "outputs": [{"type": "file", "location": str(folder / "out")}],
                },
            },
            "plots": {"enabled": False},
            **sections,
        },
        source="test",
    )


@pytest.mark.parametrize(
    ("seconds", "sections"),
    [
        pytest.param(2.5, {}, id="one part"),
        pytest.param(
            21.0,
            {"separation": {"part_seconds": 10}},
            id="parts",
        ),
        pytest.param(
            2.5,
            {
                "separation": {"duration_s": 2, "options": {"foreground": "mask"}},
                "join": "cogbk",
            },
            id="cogbk",
        ),
    ],
)
def test_two_messages_about_one_recording_both_go_on(
    write_audio: WriteAudio, tmp_path: Path, seconds: float, sections: dict[str, Any]
) -> None:
    """Klio took the first of what came together, and lost the other."""
    write_audio("in/a.wav", seconds=seconds, sample_rate=RATE)
    first, second = new_message("a"), new_message("a")
    first.metadata.job_audit_log.add(klio_job=KlioJob(job_name="one"))
    second.metadata.job_audit_log.add(klio_job=KlioJob(job_name="another"))
    told = run(job_for(tmp_path, **sections), [first, second])
    came_from = [message.metadata.job_audit_log[0].klio_job.job_name for message in told]
    assert sorted(came_from) == ["another", "one"]


def test_a_line_that_is_there_twice_is_one_event_for_the_graph(tmp_path: Path) -> None:
    """As it is for the command on this machine, which lists before it runs."""
    (tmp_path / "ids.txt").write_text("a\nb\na\n")
    with beam.Pipeline(options=PipelineOptions([], runner="FnApiRunner")) as pipeline:
        elements = pipeline | ReadEvents(job_for(tmp_path)) | beam.Map(element_of)
        assert_that(elements, equal_to(["a", "b"]))


# Names of files -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("suffix", "element", "name"),
    [
        ("", "song.wav", "song.wav"),
        ("", "no extension", "no extension"),
        (".wav", "song", "song.wav"),
        ("-mix.wav", "song", "song-mix.wav"),
        ("wav", "song.", "song.wav"),
    ],
)
def test_suffixes_are_added_as_they_are(
    tmp_path: Path, suffix: str, element: str, name: str
) -> None:
    """Klio put a dot before them, and made one of none; but not where it looked what was there."""
    (tmp_path / name).write_bytes(b"sound")
    out = tmp_path / "out"
    skip = Resumption(
        str(tmp_path),
        OutputTree(str(out)),
        SplitSettings(),
        suffix=suffix,
        finished_suffix=suffix or "-full",
    )
    pending = skip.pending_or_receipt(element, force=False)
    assert pending.uri == str(tmp_path / name)
    out.mkdir()
    (out / (element + (suffix or "-full"))).write_bytes(b"result")
    outcome = skip.pending_or_receipt(element, force=False)
    assert isinstance(outcome, Receipt)


def test_a_dry_run_finds_what_the_run_finds(write_audio: WriteAudio, tmp_path: Path) -> None:
    write_audio("in/song.wav", sample_rate=RATE)
    (tmp_path / "ids.txt").write_text("song\n")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "song-full.png").write_bytes(b"of Klio")
    plain = job_for(tmp_path).model_dump(mode="json")
    plain["job_config"]["data"]["outputs"][0]["file_suffix"] = "-full.png"
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(plain))
    done = call("run", tmp_path / "job.yaml", "--dry-run")
    assert "skip   song: already done" in done.stdout


# Values from the command line ---------------------------------------------------------------------

JOB = """
job_name: values
pipeline_options: {{runner: DirectRunner, streaming: true}}
job_config:
  events: {{inputs: [{{type: folder, location: "{location}"}}]}}
  data: {{outputs: [{{type: file, location: nowhere}}]}}
"""
AWKWARD = "A=b  c, $5 {Foo} $Foo"


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments)])


@pytest.mark.parametrize(
    ("location", "options"),
    [
        pytest.param("{base}/" + AWKWARD, (), id="in the file, without -T"),
        pytest.param(
            "{base}/" + AWKWARD.replace("$", "$$"), ("-T", "X=y"), id="in the file, with -T"
        ),
        pytest.param("${{Foo}}", ("-T", "Foo={base}/" + AWKWARD), id="-T"),
        pytest.param(
            "nowhere",
            ("-O", "job_config.events.inputs.0.location={base}/" + AWKWARD),
            id="-O",
        ),
    ],
)
def test_values_come_through_as_they_are(
    write_audio: WriteAudio, tmp_path: Path, location: str, options: tuple[str, ...]
) -> None:
    """Klio took `false` for true and lower case for upper, and `=`, `$` and spaces for mistakes."""
    write_audio(f"{AWKWARD}/song.wav", sample_rate=RATE)
    filled = location.replace("{base}", str(tmp_path)).replace("{{", "{").replace("}}", "}")
    job = tmp_path / "job.yaml"
    job.write_text(JOB.format(location=filled))
    given = [each.replace("{base}", str(tmp_path)) for each in options]
    done = call("run", job, "--dry-run", "-O", "pipeline_options.streaming=false", *given)
    assert (done.exit_code, done.stderr) == (0, "")
    assert "do     song.wav: stems and plots, 3.0 s" in done.stdout
    if not options:
        refused = call("run", job, "--dry-run")
        assert (refused.exit_code, "need pipeline_options.streaming: false" in refused.stderr) == (
            2,
            True,
        )


def test_values_of_ones_own_keep_their_type_and_outer_spaces(tmp_path: Path) -> None:
    job = tmp_path / "job.yaml"
    job.write_text(JOB.format(location="${Foo}"))
    loaded = load_job(
        str(job),
        templates={"Foo": " x "},
        overrides=[
            "pipeline_options.streaming=false",
            "job_config.flag=false",
            'job_config.own=" a  b "',
        ],
    )
    assert loaded.job_config.events.inputs[0].location == " x "
    assert loaded.job_config.model_extra == {"flag": False, "own": " a  b "}


def test_a_lone_dollar_sign_is_explained(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(JOB.format(location="a $5"))
    done = call("run", tmp_path / "job.yaml", "-T", "X=y")
    assert done.exit_code == 2
    assert "write $$ for a dollar sign" in done.stderr


def test_a_job_is_stopped_under_another_name(tmp_path: Path) -> None:
    """`klio job stop --job-name` was always an error."""
    with serving() as cloud:
        plain = {
            "job_name": "in-the-file",
            "pipeline_options": {
                "project": "my-project",
                "region": "europe-west4",
                "dataflow_endpoint": cloud.address,
                "no_auth": True,
            },
        }
        (tmp_path / "job.yaml").write_text(yaml.safe_dump(plain))
        job_id = cloud.add_job("another")
        done = call("stop", tmp_path / "job.yaml", "-O", "job_name=another")
        assert (done.exit_code, done.stdout) == (0, f"another ({job_id}): draining\n")


# Steps of one's own -------------------------------------------------------------------------------


@handle_klio
def gives_nothing(ctx: Any, item: Any) -> None:
    pass


def test_a_message_without_result_goes_on_without_payload() -> None:
    """Klio's documentation says that it is dropped; its code, and this, hand it on."""
    message = new_message("x", payload=b"in", recipients=[KlioJob(job_name="next")])
    expected = new_message("x", recipients=[KlioJob(job_name="next")])
    pipeline = beam.Pipeline(runner="FnApiRunner")
    messages = pipeline | beam.Create([message.SerializeToString()])
    outputs = messages | beam.Map(gives_nothing).with_outputs("drop", main="main")
    assert_that(outputs.main, equal_to([expected.SerializeToString()]), label="main")
    assert_that(outputs.drop, equal_to([]), label="drop")
    result = pipeline.run()
    result.wait_until_finish()
    found = result.metrics().query(beam.metrics.MetricsFilter().with_namespace("gives_nothing"))
    counted = {each.key.metric.name: each.committed for each in found["counters"]}
    assert counted == {"kmsg-received": 1, "kmsg-success": 1}


KLIO_JOB = """
version: 2
job_name: example-audio-spectrograms
pipeline_options:
  streaming: False
  worker_harness_container_image: integration-klio-audio
  project: my-project
  runner: DirectRunner
  setup_file: setup.py
job_config:
  events:
    inputs:
      - type: file
        location: ./audio_ids.txt
    outputs:
      - type: avro
        location: ./made
  data:
    inputs:
      - type: file
        location: ./inputs
        file_suffix: .ogg
        ping: False
    outputs:
      - type: file
        location: ./outputs
        file_suffix: .png
        force: False
"""


def test_the_port_of_the_example_runs(write_audio: WriteAudio, tmp_path: Path) -> None:
    """As the docs have it, by a job file as Klio's example has it, against librosa's tutorial."""
    docs = (ROOT / "docs" / "porting-from-klio.md").read_text()
    (code,) = re.findall(r"^```python\n(# run\.py\n.*?)^```$", docs, re.M | re.S)
    (tmp_path / "run.py").write_text(code)
    (tmp_path / "klio-job.yaml").write_text(KLIO_JOB)
    (tmp_path / "audio_ids.txt").write_text("one\ndeeper/two\n")
    for seed, name in enumerate(("one", "deeper/two")):
        write_audio(f"inputs/{name}.ogg", seconds=16, sample_rate=22050, seed=seed)
    done = subprocess.run(
        [sys.executable, "run.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    plots = {"spectrogram.png", "background.png", "foreground.png"}
    stems = {"background.flac", "foreground.flac"}
    for name in ("one", "deeper/two"):
        made = {path.name: path for path in (tmp_path / "outputs" / name).iterdir()}
        assert made.keys() == plots | stems
        samples, rate = librosa.load(
            tmp_path / "inputs" / f"{name}.ogg", sr=None, offset=10, duration=5
        )
        for stem, expected in tutorial(samples).items():
            found, found_rate = soundfile.read(made[f"{stem}.flac"], dtype="float32")
            assert found_rate == rate
            np.testing.assert_allclose(found, expected, atol=2**-15 + 1e-4)
        for plot in plots:
            with Image.open(made[plot]) as picture:
                assert len(picture.convert("RGB").getcolors(1 << 20) or ()) > 50
    (made_events,) = tmp_path.glob("made*")
    with made_events.open("rb") as file:
        elements = [record["element"] for record in fastavro.reader(file)]
    # A message for each file that was made.
    assert sorted(elements) == [b"deeper/two"] * 5 + [b"one"] * 5


def tutorial(samples: np.ndarray) -> dict[str, np.ndarray]:
    """The stems of librosa's vocal separation tutorial."""
    whole, phase = librosa.magphase(librosa.stft(samples))
    nearest = librosa.decompose.nn_filter(
        whole, aggregate=np.median, metric="cosine", width=int(librosa.time_to_frames(2))
    )
    nearest = np.minimum(whole, nearest)
    masks = {
        "background": librosa.util.softmask(nearest, 2 * (whole - nearest), power=2),
        "foreground": librosa.util.softmask(whole - nearest, 10 * nearest, power=2),
    }
    return {
        stem: librosa.istft(mask * whole * phase, length=len(samples))
        for stem, mask in masks.items()
    }


def test_the_graph_of_ones_own_in_the_docs_runs(write_audio: WriteAudio, tmp_path: Path) -> None:
    docs = (ROOT / "docs" / "porting-from-klio.md").read_text()
    (code,) = (each for each in docs.split("```") if 'beam.Create(["song.wav"])' in each)
    write_audio("song.wav", seconds=4, sample_rate=44100, channels=2)
    done = subprocess.run(
        [sys.executable, "-c", code.removeprefix("python")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "song.wav (1, 1025, 87)\n"


def test_the_step_in_the_docs_runs() -> None:
    """The one in Klio's dropped every message."""
    docs = (ROOT / "docs" / "porting-from-klio.md").read_text()
    (code,) = (each for each in docs.split("```") if "class Louder" in each)
    names: dict[str, Any] = {}
    exec(code.removeprefix("python"), names)
    message = new_message("x", payload=array_to_bytes(np.array([0.25, -0.5], np.float32)))
    (output,) = names["Louder"]().process(message.SerializeToString())
    assert array_from_bytes(parse_message(output).data.payload).tolist() == [0.5, -1.0]
