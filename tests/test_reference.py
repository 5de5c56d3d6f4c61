"""The pages that are made of the program are as it makes them, and say something of each key."""

import re
import subprocess
import sys
from pathlib import Path

from beamsplitter.pipelines.job.hints import sections_of
from beamsplitter.pipelines.job.job_config import JobConfig

DOCS = Path(__file__).parents[1] / "docs"


def test_pages_are_as_the_program_makes_them(tmp_path: Path) -> None:
    subprocess.run([sys.executable, DOCS / "reference.py", tmp_path], check=True)
    made = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert made.keys() == {"commands.md", "job-keys.md"}
    for name, text in made.items():
        assert (DOCS / name).read_text() == text, f"docs/{name}: run `make reference`"


def test_all_keys_are_described() -> None:
    silent = [
        f"{place}.{name}"
        for place, model in sections_of(JobConfig)
        for name, field in model.model_fields.items()
        if not field.description and name != "type" and not is_section(field.annotation)
    ]
    assert not silent


def is_section(annotation: object) -> bool:
    return isinstance(annotation, type) and hasattr(annotation, "model_fields")


def test_each_section_and_command_has_a_heading() -> None:
    keys = (DOCS / "job-keys.md").read_text()
    for place, _ in sections_of(JobConfig):
        assert f"\n## `{place}`" in keys or not place
    commands = re.findall(r"^### beamsplitter (.+)$", (DOCS / "commands.md").read_text(), re.M)
    assert {"separate", "run", "models fetch", "dataset check"} <= {*commands}
