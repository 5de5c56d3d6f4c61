"""The command `beamsplitter models`, against a server of model files on loopback."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from model_server import ModelServer, serving
from typer.testing import CliRunner, Result

from beamsplitter.models import model_cache, model_registry
from beamsplitter.models.model_cache import CACHE_VARIABLE, MIRROR_VARIABLE, OFFLINE_VARIABLE
from beamsplitter.models.model_registry import PACKAGED_REGISTRY, REGISTRY_VARIABLE, read_registry
from beamsplitter.pipelines.commands.models_command import models_app

CONTENTS = {"demucs:tiny": b"drums", "umx:tiny": b"vocals"}


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelServer]:
    """A server of two models, a registry of the user that has them, and an empty cache."""
    for variable in (MIRROR_VARIABLE, OFFLINE_VARIABLE):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(model_cache, "TRIES", 1)
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setenv(REGISTRY_VARIABLE, str(tmp_path / "registry.yaml"))
    with serving() as running:
        entries = [
            {
                "name": name,
                "summary": "tiny",
                "stems": ["vocals", "drums"],
                "sample_rate": 8000,
                "licence": "MIT [see] it",
                "homepage": "https://example.org",
                "files": [
                    {
                        "name": "weights.th",
                        "address": running.add(f"/{name.replace(':', '/')}/weights.th", content),
                        "sha256": hashlib.sha256(content).hexdigest(),
                    }
                ],
            }
            for name, content in CONTENTS.items()
        ]
        (tmp_path / "registry.yaml").write_text(yaml.safe_dump({"models": entries}))
        yield running


def models(*arguments: object) -> Result:
    return CliRunner().invoke(models_app, [str(each) for each in arguments])


def lines(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def assert_error(result: Result, code: int, *words: str) -> None:
    """The exit code, and one line on standard error that holds these words."""
    assert result.exit_code == code, result.output
    message = result.stderr.strip()
    assert message.startswith("error: ") and "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.usefixtures("server")
def test_list_shows_the_users_models_first_and_which_are_cached() -> None:
    assert models("fetch", "umx:tiny").exit_code == 0
    listed = lines(models("list", "--log-format", "json"))
    packaged = [entry.name for entry in read_registry(PACKAGED_REGISTRY)]
    assert [each["name"] for each in listed] == [*CONTENTS, *packaged]
    assert [each["name"] for each in listed if each["cached"]] == ["umx:tiny"]

    table = models("list").stdout
    row = next(line for line in table.splitlines() if "umx:tiny" in line)
    assert row.split() == "umx:tiny vocals, drums 8000 Hz 0.1 MB yes MIT [see] it".split()


def sizes(*flags: str) -> tuple[dict[str, int | None], dict[str, str]]:
    """What the list says of the models of the server: in bytes as JSON, and in its table."""
    listed = {
        each["name"]: each["size_bytes"]
        for each in lines(models("list", "--log-format", "json", *flags))
    }
    table = models("list", *flags).stdout.splitlines()
    rows = {
        row.split()[0]: row.split("Hz")[1].split("  ")[1].strip() for row in table if "tiny" in row
    }
    return {name: listed[name] for name in CONTENTS}, rows


def test_list_knows_the_sizes_of_what_is_here_and_asks_for_others_only_when_told_to(
    server: ModelServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nobody's server but this one is asked.
    registry = tmp_path / "registry.yaml"
    monkeypatch.setattr(model_registry, "PACKAGED_REGISTRY", registry)
    large = bytes(2_340_001)
    server.files["/demucs/tiny/weights.th"] = large
    assert models("fetch", "umx:tiny").exit_code == 0
    bodies = [*server.bodies]
    here = len(CONTENTS["umx:tiny"])
    assert sizes() == (
        {"demucs:tiny": None, "umx:tiny": here},
        {"demucs:tiny": "?", "umx:tiny": "0.1 MB"},
    )
    assert sizes("--sizes") == (
        {"demucs:tiny": len(large), "umx:tiny": here},
        {"demucs:tiny": "2.4 MB", "umx:tiny": "0.1 MB"},
    )
    # A server that can't tell is no error, and one that may not be asked is not.
    server.probe_faults += [500, 404]
    assert sizes("--sizes")[0]["demucs:tiny"] is None
    monkeypatch.setenv(OFFLINE_VARIABLE, "1")
    assert sizes("--sizes")[0]["demucs:tiny"] is None
    assert server.bodies == bodies


def test_fetch_prints_the_folders(server: ModelServer) -> None:
    result = models("fetch", *CONTENTS, "--log-format", "json")
    assert result.exit_code == 0
    found = {each["name"]: Path(each["folder"], "weights.th") for each in lines(result)}
    assert {name: path.read_bytes() for name, path in found.items()} == CONTENTS
    assert models("fetch", "umx:tiny").stdout == f"umx:tiny: {found['umx:tiny'].parent}\n"
    assert len(server.bodies) == 2


def test_fetch_goes_on_after_a_failure(server: ModelServer) -> None:
    del server.files["/demucs/tiny/weights.th"]
    result = models("fetch", *CONTENTS)
    assert_error(result, 1, "demucs:tiny: weights.th", "HTTP 404")
    assert result.stdout.startswith("umx:tiny: ")


def test_fetched_files_make_a_mirror(
    server: ModelServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert models("fetch", "umx:tiny", "--to", tmp_path / "mirror").exit_code == 0
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "other"))
    monkeypatch.setenv(MIRROR_VARIABLE, str(tmp_path / "mirror"))
    monkeypatch.setenv(OFFLINE_VARIABLE, "1")
    result = models("fetch", "umx:tiny")
    assert result.exit_code == 0
    assert len(server.bodies) == 1
    assert_error(models("fetch", "demucs:tiny"), 1, "demucs:tiny", OFFLINE_VARIABLE)


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["fetch", "umx:tinny"], ["umx:tinny", "did you mean umx:tiny"]),
        (["fetch", "../x"], ["../x", "no model is known"]),
        (["fetch"], ["--all"]),
        (["fetch", "umx:tiny", "--all"], ["--all"]),
        (["show", "umx:tinny"], ["umx:tinny"]),
        (["verify", "umx:tinny"], ["umx:tinny"]),
    ],
)
def test_mistakes_in_the_call_are_told_in_a_line(arguments: list[str], words: list[str]) -> None:
    assert_error(models(*arguments), 2, *words)


@pytest.mark.parametrize(
    "arguments", [["list"], ["fetch", "--all"], ["show", "umx:umxl"], ["verify"]]
)
def test_bad_registry_is_told_with_its_place(
    server: ModelServer, tmp_path: Path, arguments: list[str]
) -> None:
    (tmp_path / "registry.yaml").write_text("models: [{name: umx:tiny}]")
    assert_error(models(*arguments), 2, "registry.yaml: models.0.summary: is required")


@pytest.mark.usefixtures("server")
def test_show_tells_all_facts() -> None:
    facts = lines(models("show", "demucs:tiny", "--log-format", "json"))[0]
    assert facts["sample_rate"] == 8000 and facts["cached"] is False
    assert facts["files"][0]["address"].endswith("/demucs/tiny/weights.th")
    shown = models("show", "demucs:tiny").stdout.splitlines()
    values = dict(line.split(maxsplit=1) for line in shown)
    assert values["stems"] == "vocals, drums"
    assert values["licence"] == "MIT [see] it"
    assert values["folder"] == facts["folder"]
    assert values["files"].split() == [
        "weights.th",
        "sha256",
        hashlib.sha256(b"drums").hexdigest(),
        facts["files"][0]["address"],
    ]


@pytest.mark.usefixtures("server")
def test_show_says_what_is_wrong_with_a_package(tmp_path: Path) -> None:
    pytest.importorskip("beamsplitter.models.separators.model_package")
    (tmp_path / "toy").mkdir()
    assert_error(models("show", tmp_path / "toy"), 1, "toy", "metadata.json")
    assert_error(models("show", "ftp://example.org/toy"), 1, "ftp://example.org/toy")


@pytest.mark.usefixtures("server")
def test_verify_names_what_has_changed() -> None:
    assert models("verify").stdout == ""
    missing = models("verify", "umx:tiny")
    assert missing.exit_code == 1 and missing.stdout.startswith("missing  umx:tiny: ")

    models("fetch", *CONTENTS)
    checked = lines(models("verify", "--log-format", "json"))
    assert [(each["model"], each["state"]) for each in checked] == [
        ("demucs:tiny", "ok"),
        ("umx:tiny", "ok"),
    ]
    path = Path(checked[1]["path"])
    path.write_bytes(b"vocalz")
    result = models("verify")
    assert result.exit_code == 1
    assert f"changed  umx:tiny: {path}" in result.stdout.splitlines()
    assert models("verify", "demucs:tiny").exit_code == 0
    models("fetch", "umx:tiny")
    assert models("verify").exit_code == 0
