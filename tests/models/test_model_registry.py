"""The registry of known models."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from beamsplitter.models.model_registry import (
    PACKAGED_REGISTRY,
    REGISTRY_VARIABLE,
    find_entry,
    list_entries,
    read_registry,
)
from beamsplitter.models.separators.base import ModelError

PACKAGE = {
    "name": "volume",
    "kind": "package",
    "summary": "twice as loud",
    "stems": ["boosted"],
    "sample_rate": 48000,
    "licence": "MIT",
    "homepage": "https://example.org",
    "files": [
        {"name": name, "address": f"https://example.org/{name}", "sha256": "0123abcd"}
        for name in ("metadata.json", "model.pt")
    ],
}


def changed(**values: Any) -> dict[str, Any]:
    return {**PACKAGE, **values}


def write(path: Path, *entries: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump({"models": list(entries)}))
    return path


def test_packaged_registry_has_the_models_of_demucs_and_open_unmix() -> None:
    names = [entry.name for entry in read_registry(PACKAGED_REGISTRY)]
    assert names == [
        *(f"demucs:{name}" for name in ("htdemucs", "htdemucs_ft", "htdemucs_6s", "hdemucs_mmi")),
        *("demucs:mdx", "demucs:mdx_extra"),
        *("umx:umx", "umx:umxhq", "umx:umxl", "umx:umxse"),
    ]


def test_digests_are_those_in_the_names_of_the_published_files() -> None:
    for entry in read_registry(PACKAGED_REGISTRY):
        for file in entry.files:
            found = re.fullmatch(r".*[-_]([0-9a-f]{8})\.(th|pth)", file.name)
            assert found and found[1] == file.sha256
            assert file.address.endswith(f"/{file.name}")


def package_folder(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        pytest.skip(f"{name} is not installed")
    return Path(spec.origin).parent


def test_demucs_entries_are_the_bags_of_demucs_itself() -> None:
    remote = package_folder("demucs") / "remote"
    published = {}
    root = ""
    for line in (remote / "files.txt").read_text().splitlines():
        if line.startswith("root:"):
            root = line.removeprefix("root:").strip()
        elif line and not line.startswith("#"):
            published[line.split("-")[0]] = f"https://dl.fbaipublicfiles.com/demucs/{root}{line}"
    entries = [each for each in read_registry(PACKAGED_REGISTRY) if each.name[:7] == "demucs:"]
    assert entries
    for entry in entries:
        bag = yaml.safe_load((remote / f"{entry.name.removeprefix('demucs:')}.yaml").read_text())
        assert [file.address for file in entry.files] == [published[each] for each in bag["models"]]


def test_open_unmix_entries_are_those_of_openunmix_itself() -> None:
    source = (package_folder("openunmix") / "__init__.py").read_text()
    entries = [each for each in read_registry(PACKAGED_REGISTRY) if each.name[:4] == "umx:"]
    for entry in entries:
        body = source.partition(f"def {entry.name.removeprefix('umx:')}_spec(")[2]
        body = body.partition("\ndef ")[0]
        published = dict(re.findall(r'"(\w+)": "(https://zenodo\S+)"', body))
        addresses = [file.address for file in entry.files]
        assert addresses == [published[stem] for stem in entry.stems]


def test_unknown_name_is_told_with_the_nearest() -> None:
    with pytest.raises(ModelError, match=r"demucs:htdemuc: .* demucs:htdemucs"):
        find_entry("demucs:htdemuc")


def test_first_registry_of_the_user_hides_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden = find_entry("umx:umxl").model_dump(mode="json")
    first = write(tmp_path / "a.yaml", PACKAGE, {**hidden, "summary": "ours"})
    second = write(tmp_path / "b.yaml", changed(summary="not this"))
    monkeypatch.setenv(REGISTRY_VARIABLE, os.pathsep.join(["", str(first), str(second)]))
    assert find_entry("volume").summary == "twice as loud"
    assert find_entry("volume").kind == "package"
    assert find_entry("umx:umxl").summary == "ours"
    assert find_entry("umx:umxhq").homepage == "https://zenodo.org/records/3370489"
    assert [entry.name for entry in list_entries()].count("umx:umxl") == 1


FILE = PACKAGE["files"][0]  # type: ignore[index]


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        (changed(colour="red"), "models.0.colour: unknown key"),
        (changed(name="../x"), "models.0.name: String should match"),
        (changed(name="a:../x"), "models.0.name: String should match"),
        (changed(name="x/../../y"), "models.0.name: String should match"),
        (changed(name=".hidden"), "models.0.name: String should match"),
        (changed(name="x\n"), "models.0.name: String should match"),
        (changed(name="a:b"), "no colon"),
        (changed(kind="weights"), "SEPARATOR:MODEL"),
        (changed(files=[]), "models.0.files: "),
        (changed(files=[FILE]), "model.pt2 or model.pt"),
        (changed(files=[FILE, FILE]), "two files"),
        (changed(files=[{**FILE, "name": "../metadata.json"}]), "models.0.files.0.name"),
        (changed(files=[{**FILE, "name": "a/b"}]), "models.0.files.0.name"),
        (changed(files=[{**FILE, "name": ".lock"}]), "models.0.files.0.name"),
        (changed(files=[{**FILE, "sha256": "0123abc"}]), "models.0.files.0.sha256"),
        (changed(files=[{**FILE, "sha256": 12345678}]), "models.0.files.0.sha256: .* valid string"),
        (changed(files=[{**FILE, "sha256": "0123ABCD"}]), "models.0.files.0.sha256"),
        (changed(files=[{**FILE, "address": "models/x"}]), "models.0.files.0.address"),
        (changed(files=[{**FILE, "address": "https:///x"}]), "models.0.files.0.address"),
        (changed(sample_rate=0), "models.0.sample_rate"),
    ],
)
def test_bad_entry_is_refused_with_file_and_place(
    tmp_path: Path, entry: dict[str, Any], problem: str
) -> None:
    path = write(tmp_path / "registry.yaml", entry)
    with pytest.raises(ModelError, match=f"^{re.escape(str(path))}: .*{problem}") as caught:
        read_registry(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"models: [", "is no YAML: .*line 1"),
        (b"models: !!python/object/apply:os.system ['true']", "is no YAML"),
        (b"", "must hold keys"),
        (b"- a", "must hold keys"),
        (b"models: \xff", "is not UTF-8"),
        (b"models: []\nmodel: []", "model: unknown key"),
    ],
)
def test_file_that_is_no_registry_is_refused(tmp_path: Path, content: bytes, problem: str) -> None:
    path = tmp_path / "registry.yaml"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=f"^{re.escape(str(path))}: {problem}"):
        read_registry(path)


def test_two_entries_of_one_name_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "registry.yaml", PACKAGE, PACKAGE)
    with pytest.raises(ModelError, match=r"two .*volume"):
        read_registry(path)


def test_missing_registry_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(REGISTRY_VARIABLE, str(tmp_path / "none.yaml"))
    with pytest.raises(ModelError, match=f"none.yaml: can't be read .*{REGISTRY_VARIABLE}"):
        find_entry("umx:umxl")


def test_registry_and_cache_do_without_torch() -> None:
    program = (
        "import sys, beamsplitter.models.model_registry, beamsplitter.models.model_cache;"
        "sys.exit('torch' in sys.modules or 'apache_beam' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
