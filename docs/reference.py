"""Writes commands.md from what `--help` says, and job-keys.md from the models of job files.

`make reference` runs it; tests/test_reference.py refuses pages that are not as it writes them.
"""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from beamsplitter.pipelines.command_line import app
from beamsplitter.pipelines.job.job_config import JobConfig

DOCS = Path(__file__).parent
COMMANDS_HEAD = """\
# Commands

Made of what `beamsplitter COMMAND --help` says, by `make reference`.
"""
KEYS_HEAD = """\
# Keys of job files

All of them, with their defaults, made of the program by `make reference`.
[job-files.md](job-files.md) says how files are written and run. Editors complete and check them by
the JSON Schema that `beamsplitter schema job` prints.
"""


def commands_page() -> str:
    """What all commands take."""
    group: Any = typer.main.get_command(app)
    lines = [COMMANDS_HEAD]
    panels: dict[str, list[Any]] = {}
    for command in group.commands.values():
        panels.setdefault(command.rich_help_panel, []).append(command)
    for panel, commands in panels.items():
        lines += [f"## {panel}", ""]
        for command in commands:
            lines += _command(command, "beamsplitter")
    return "\n".join(lines).rstrip() + "\n"


def _command(command: Any, parents: str) -> Iterator[str]:
    name = f"{parents} {command.name}"
    context = typer.Context(command, info_name=command.name)
    usage = re.sub(r"[{}]", "", " ".join(command.collect_usage_pieces(context)))
    if "commands" in vars(command):
        for each in command.commands.values():
            yield from _command(each, name)
        return
    yield from (f"### {name}", "", "```text", f"{name} {usage}", "```", "", command.help)
    records = [
        (param, param.get_help_record(context))
        for param in command.get_params(context)
        if param.name != "help"
    ]
    if records:
        yield from ("", "| | |", "|---|---|")
    for _, (term, text) in sorted(records, key=lambda each: each[0].param_type_name):
        often = " May stand several times." if "list[" in term and term.startswith("-") else ""
        yield f"| `{_cell(_term(term))}` | {_linked(_told_limits(text))}{often} |"
    yield ""


def _term(term: str) -> str:
    """An option or argument, and what kind of value it takes."""
    kind = re.sub(r"list\[(\w+)\]|(\w+) range", lambda found: found[1] or found[2], term)
    return kind.replace("[", "").replace("]", "")


def _told_limits(text: str) -> str:
    """What typer adds in brackets, in words."""
    added = re.search(r"\s*\[([^\]]*)\]$", text)
    if not added:
        return text
    return " ".join([text[: added.start()], *map(_told_limit, added[1].split("; "))]).strip()


def _told_limit(added: str) -> str:
    limits = re.fullmatch(r"(?:(\S+?)<=)?x(?:>=(\S+)|<=(\S+))", added)
    if limits:
        low, only_low, high = limits.groups()
        added = f"{only_low} or more" if only_low else f"{low} to {high}"
    return f"{added[:1].upper()}{added[1:]}."


def keys_page() -> str:
    """All keys of job files."""
    schema = JobConfig.model_json_schema()
    lines = [KEYS_HEAD]
    order = [*JobConfig.__annotations__, *schema["properties"]]
    schema["properties"] = {name: schema["properties"][name] for name in order}
    for place, section in _sections(schema, schema, ""):
        lines += _section(place, section, schema)
    return "\n".join(lines).rstrip() + "\n"


def _sections(section: Any, schema: Any, place: str) -> Iterator[tuple[str, Any]]:
    """A section, and those below it, by their dotted places."""
    yield place, section
    for name, field in section["properties"].items():
        for below, model in _sections_below(f"{place}.{name}".strip("."), field, schema):
            yield from _sections(model, schema, below)


def _sections_below(place: str, field: Any, schema: Any) -> Iterator[tuple[str, Any]]:
    """The sections that a key may hold: several, if they are told apart by their type."""
    for model in _models_of(field, schema):
        kind = model["properties"].get("type")
        is_one_of_many = "discriminator" in field.get("items", {})
        yield place + (f" of type {_words(kind)}" if is_one_of_many else ""), model


def _models_of(field: Any, schema: Any) -> list[Any]:
    if "$ref" in field:
        return [schema["$defs"][field["$ref"].rpartition("/")[2]]]
    inside = [*field.get("anyOf", ()), *field.get("oneOf", ()), *filter(None, [field.get("items")])]
    return [model for each in inside for model in _models_of(each, schema)]


def _section(place: str, section: Any, schema: Any) -> Iterator[str]:
    title = re.sub(r"^\S+", lambda key: f"`{key[0]}`", place) if place else "The whole file"
    yield from (f"## {title}", "")
    if place:
        yield from (_linked(section["description"]), "")
    yield from ("| key | takes | default | what it says |", "|---|---|---|---|")
    # What an input or output is comes first, and last what only tells it from others.
    rank = {"type": -1, "name": 1}
    for name, field in sorted(section["properties"].items(), key=lambda each: rank.get(each[0], 0)):
        is_section = bool(_models_of(field, schema))
        below = f"{place}.{name}".strip(".")
        takes = _below(below, field, schema) if is_section else _words(field)
        default = "required" if name in section.get("required", ()) else _default(field)
        text = _linked(field.get("description", ""))
        yield f"| `{name}` | {takes} | {default} | {text} |"
    yield ""


def _below(place: str, field: Any, schema: Any) -> str:
    """The sections below a place, by links."""
    first, _ = next(_sections_below(place, field, schema))
    link = re.sub(r"[^\w -]", "", first.lower()).replace(" ", "-")
    many = "list of " if field.get("type") == "array" else ""
    plain = [each for each in field.get("anyOf", ()) if each.get("type") == "boolean"]
    return f"{many}[keys](#{link})" + (", `true` or `false`" if plain else "")


def _words(field: Any) -> str:
    """What a key takes."""
    if "anyOf" in field:
        kinds = [_words(each) for each in field["anyOf"] if each != {"type": "null"}]
        *first, last = dict.fromkeys(kinds)
        return f"{', '.join(first)} or {last}" if first else last
    for choices in (field.get("enum"), [field["const"]] if "const" in field else None):
        if choices:
            return ", ".join(f"`{_plain(each)}`" for each in choices)
    kind = field.get("type")
    if kind == "array":
        return f"list of {_words(field['items'])}"
    if kind == "object":
        values = field["additionalProperties"]
        return "names with text" if values == {"type": "string"} else "names with values"
    if kind == "boolean":
        return "`true`, `false`"
    if kind in ("integer", "number"):
        return ("whole number" if kind == "integer" else "number") + _range(field)
    return "text"


def _range(field: Any) -> str:
    low = f", {field['minimum']:g}" if "minimum" in field else ""
    low = f", above {field['exclusiveMinimum']:g}" if "exclusiveMinimum" in field else low
    high = f" to {field['maximum']:g}" if "maximum" in field else ""
    high = f" to below {field['exclusiveMaximum']:g}" if "exclusiveMaximum" in field else high
    if "exclusiveMinimum" in field:
        return f"{low},{high}" if high else low
    return low + (high or " or more") if low else ""


def _default(field: Any) -> str:
    default = field.get("default")
    if default is None or default in ({}, [], "") or isinstance(default, dict):
        return ""
    return f"`{_plain(default)}`"


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_plain, value))}]"
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value)


def _linked(text: str) -> str:
    """With links to the pages that it names."""
    return re.sub(r"docs/([\w-]+\.md)(#[\w-]+)?", r"[\1](\1\2)", _cell(text))


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", r"\|")


PAGES = {"commands.md": commands_page, "job-keys.md": keys_page}

if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else DOCS
    for name, page in PAGES.items():
        (folder / name).write_text(page())
