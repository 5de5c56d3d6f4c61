"""What is said of a key that its section does not have comes from where it stands."""

from typing import Any, get_args

import pytest
from facts import assert_names
from pydantic import BaseModel

from beamsplitter.pipelines.job.event_config import (
    GONE_OF_INPUTS,
    GONE_OF_OUTPUTS,
    FileEventOutput,
    FileEvents,
)
from beamsplitter.pipelines.job.hints import keys_at, sections_of
from beamsplitter.pipelines.job.job_config import JobConfig, JobFileError, parse_job

LISTS = ("inputs", "outputs", "ensemble")
SECTIONS = list(sections_of(JobConfig))
CLOSED = [each for each in SECTIONS if each[1].model_config.get("extra") == "forbid"]


def types_of(model: type[BaseModel]) -> tuple[str, ...]:
    field = model.model_fields.get("type")
    return get_args(field.annotation) if field else ()


def location_of(place: str, model: type[BaseModel]) -> list[str | int]:
    """The place as pydantic tells it, of the first item of each list."""
    location: list[str | int] = []
    for part in filter(None, place.split(".")):
        location += [part, 0] if part in LISTS else [part]
    return [*location, types_of(model)[0]] if "events." in place else location


# Options with an answer of their own.
GONE: dict[type[BaseModel], dict[str, str]] = {
    FileEvents: GONE_OF_INPUTS,
    FileEventOutput: GONE_OF_OUTPUTS,
}


def keys_of(place: str, model: type[BaseModel]) -> set[str]:
    return keys_at(JobConfig, location_of(place, model))


EVERY_KEY = {key for place, model in SECTIONS for key in keys_of(place, model)}


def refusals(place: str, content: dict[str, Any]) -> list[str]:
    """The lines about a job that holds nothing but this section."""
    plain: Any = content
    for part in reversed(list(filter(None, place.split(".")))):
        plain = {part: [plain] if part in LISTS else plain}
    with pytest.raises(JobFileError) as refused:
        parse_job(plain, source="job.yaml")
    return str(refused.value).splitlines()


def test_all_sections_are_found() -> None:
    assert {"", "stems", "job_config.data.outputs", "job_config.metrics.logger"} <= dict(
        SECTIONS
    ).keys()
    events = [model for place, model in SECTIONS if place == "job_config.events.inputs"]
    assert {each for model in events for each in types_of(model)} >= {"file", "pubsub", "bigquery"}
    assert {"validate", "file_pattern", "schema", "name"} <= EVERY_KEY
    assert not {"validate_", "schema_"} & EVERY_KEY


@pytest.mark.parametrize(
    ("place", "model"), CLOSED, ids=[f"{place}-{model.__name__}" for place, model in CLOSED]
)
def test_keys_of_all_other_sections_are_refused_and_never_suggested_for_themselves(
    place: str, model: type[BaseModel]
) -> None:
    wrong = sorted(EVERY_KEY - keys_of(place, model) - GONE.get(model, {}).keys())
    kind = {"type": types_of(model)[0]} if types_of(model) else {}
    lines = refusals(place, {**kind, **dict.fromkeys(wrong, 1)})
    unknown = [line for line in lines if "unknown key" in line]
    about = {line.split(": ")[1].rpartition(".")[2]: line for line in unknown}
    assert sorted(about) == wrong
    for key, line in about.items():
        suggested = line.partition("did you mean '")[2].partition("'")[0]
        assert suggested != key
        assert not suggested or suggested in keys_of(place, model)


@pytest.mark.parametrize(
    ("place", "content", "facts"),
    [
        ("job_config.data.inputs", {"type": "file", "force": True}, ["job_config.data.outputs"]),
        ("job_config.data.outputs", {"type": "file", "ping": True}, ["job_config.data.inputs"]),
        ("plots", {"format": "wav"}, ["plots.format: ", "below stems"]),
        ("", {"runner": "DirectRunner"}, ["below pipeline_options"]),
        ("", {"events": {}}, ["below job_config"]),
        ("stems", {"pipeline_options": {}}, ["at the top of the file"]),
        (
            "job_config.events.inputs",
            {"type": "file", "columns": ["a"]},
            ["events.inputs.0.columns: ", "below job_config.events.inputs of type bq"],
        ),
        ("job_config.metrics.logger", {"levl": "info"}, ["metrics.logger.levl: ", "'level'"]),
        ("pipeline_options", {"blocking": True}, ["'blocking'", "below job_config"]),
        ("pipeline_options", {"num_worker": 3}, ["'num_workers'"]),
    ],
)
def test_a_key_that_stands_in_another_section_is_told_where(
    place: str, content: dict[str, Any], facts: list[str]
) -> None:
    assert_names("\n".join(refusals(place, content)), *facts)


def test_a_key_of_many_places_is_not_told_them_all() -> None:
    (line,) = refusals("plots", {"location": "x"})[:1]
    assert "belongs" not in line
