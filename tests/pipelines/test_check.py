"""`beamsplitter check`: what is damaged is found, named, and made anew."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import soundfile
from conftest import Command, made_signal, result_files
from result_checks import assert_whole, manifests, read_json
from storage_server import StorageServer

from beamsplitter.errors import BeamsplitterError
from beamsplitter.pipelines.commands.check import check, read_tree
from beamsplitter.pipelines.commands.jobs_again import place_of
from beamsplitter.pipelines.commands.schema import KINDS, schema_of
from beamsplitter.pipelines.job.job_config import load_job
from beamsplitter.storage import OutputTree

RATE = 8000


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, command: Command) -> Path:
    """A folder with the recordings of a run, and its results in `out`."""
    folder = tmp_path_factory.mktemp("finished")
    for name in ("a.wav", "deep/b.wav", "deep/b.flac"):
        path = folder / "music" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, made_signal(1.5, RATE, 1, len(name)).T, RATE)
    done = command("separate", folder / "music", "-o", folder / "out", "--report")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def out(finished: Path, tmp_path: Path) -> Path:
    """A copy of the results."""
    return Path(shutil.copytree(finished / "out", tmp_path / "out"))


def damaged(out: Path) -> dict[str, str]:
    return {each.path: each.what for each in check(read_tree(OutputTree(str(out))))}


def test_a_whole_tree_is_whole(out: Path, command: Command) -> None:
    done = command("check", out)
    assert done.returncode == 0, done.stderr
    files = sum(len(read_json(each)["files"]) for each in manifests(out))
    assert f"3 recordings, {files} files" in done.stdout


def test_damage_is_named_and_repaired(out: Path, command: Command) -> None:
    before = result_files(out)
    lost, changed = out / "a/foreground.flac", out / "deep/b.wav/background.flac"
    lost.unlink()
    content = bytearray(changed.read_bytes())
    content[-1] ^= 1
    changed.write_bytes(content)
    told = command("check", out, "--log-format", "json")
    assert told.returncode == 1
    *lines, summary = map(json.loads, told.stdout.splitlines())
    assert {line["path"]: line["what"] for line in lines} == {
        "a/foreground.flac": "missing",
        "deep/b.wav/background.flac": "changed",
    }
    assert (summary["recordings"], summary["missing"], summary["changed"]) == (3, 1, 1)
    repaired = command("check", out, "--repair")
    assert repaired.returncode == 0, repaired.stderr
    assert "all whole" in repaired.stdout
    assert result_files(out) == before
    assert_whole(out)


def test_each_bit_counts(out: Path) -> None:
    for path in manifests(out)[0].parent.iterdir():
        if path.name != "manifest.json":
            content = path.read_bytes()
            path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
            assert damaged(out) == {str(path.relative_to(out)): "changed"}
            path.write_bytes(content[:-1])
            assert damaged(out) == {str(path.relative_to(out)): "changed"}
            path.write_bytes(content)
    assert not damaged(out)


def test_what_can_not_be_repaired_is_told(out: Path, command: Command) -> None:
    (out / "a/manifest.json").write_text("{")
    (out / "deep/b.wav/background.flac").unlink()
    (out / "run.json").unlink()
    done = command("check", out, "--repair")
    assert done.returncode == 2
    assert "unreadable a/manifest.json" in done.stdout
    assert str(out / "run.json") in done.stderr and "--force" in done.stderr


def test_a_repair_replaces_nothing_of_other_settings(
    out: Path, finished: Path, command: Command
) -> None:
    done = command("separate", finished / "music", "-o", out, "--format", "wav", "--report")
    assert done.returncode == 1
    assert "3 left as before: " in done.stderr and "--replace" in done.stderr
    before = result_files(out)
    (out / "a/background.flac").unlink()
    assert command("check", out, "--repair").returncode == 1
    for name in ("a/background.flac", "failures.jsonl", "report/failures-00000.js"):
        del before[name]
    assert {**result_files(out), **before} == result_files(out)


@pytest.mark.parametrize("name", ["nowhere", "empty"])
def test_no_results_are_a_mistake(name: str, tmp_path: Path, command: Command) -> None:
    (tmp_path / "empty").mkdir()
    done = command("check", tmp_path / name)
    assert done.returncode == 2
    assert name in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(("folder", "uri", "root", "suffix"), [
    ("A/01", "/m/A/01.flac", "/m", ""),
    ("A/01.flac", "/m/A/01.flac", "/m", ""),
    ("A/01", "/m/A/01", "/m", ""),
    ("song", "gs://b/m/song-mix.wav", "gs://b/m", "-mix.wav"),
])  # fmt: skip
def test_a_recording_is_found_by_its_folder(folder: str, uri: str, root: str, suffix: str) -> None:
    assert place_of(uri, folder) == (root, suffix)


def test_checksums_of_a_bucket_are_compared(out: Path, gcs: StorageServer) -> None:
    for path in filter(Path.is_file, out.rglob("*")):
        gcs.bucket.blob(f"out/{path.relative_to(out)}").upload_from_filename(str(path))
    tree = read_tree(OutputTree("gs://music/out"))
    assert set(tree.manifests) == {"a", "deep/b.flac", "deep/b.wav"}
    assert check(tree) == []
    gcs.bucket.blob("out/a/background.flac").delete()
    gcs.bucket.blob("out/a/foreground.flac").upload_from_string("other")
    found = {each.path: each.what for each in check(tree)}
    assert found == {"a/background.flac": "missing", "a/foreground.flac": "changed"}


# Schemas ------------------------------------------------------------------------------------------


@pytest.fixture(params=sorted(KINDS))
def schema(request: pytest.FixtureRequest) -> Iterator[tuple[str, Any]]:
    """The name of a schema, and the schema."""
    found = schema_of(request.param)
    jsonschema.Draft202012Validator.check_schema(found)
    yield request.param, found


def test_what_is_written_fits_its_schema(schema: tuple[str, Any], finished: Path) -> None:
    name, found = schema
    files = {"manifest": manifests(finished / "out"), "run": [finished / "out/run.json"]}
    values = [read_json(path) for path in files.get(name, ())]
    if name == "job":
        values = [read_json(finished / "out/run.json")["job"]]
    assert values
    for value in values:
        jsonschema.validate(value, found)
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**value, "separation" if name == "job" else "format": "x"}, found)


def test_the_command_prints_a_schema(command: Command) -> None:
    done = command("schema", "manifest")
    assert done.returncode == 0
    assert json.loads(done.stdout) == schema_of("manifest")


def test_the_tables_of_the_docs_have_all_keys() -> None:
    text = (Path(__file__).parents[2] / "docs" / "results.md").read_text()
    for name in ("manifest", "run"):
        found = schema_of(name)
        described = [found, *found.get("$defs", {}).values()]
        for key in {key for each in described for key in each["properties"]}:
            assert f"`{key}`" in text or f".{key}`" in text, f"{name}: {key}"


def test_all_errors_of_a_user_have_one_root() -> None:
    assert issubclass(type(_error_of(lambda: read_tree(OutputTree("/nowhere")))), BeamsplitterError)
    assert issubclass(type(_error_of(lambda: load_job("/nowhere.yaml"))), BeamsplitterError)


def _error_of(call: Callable[[], object]) -> BaseException:
    with pytest.raises(Exception) as error:
        call()
    return error.value
