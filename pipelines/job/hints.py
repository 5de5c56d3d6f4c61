"""What to say of a key that a section of a job file does not have."""

import difflib
from collections.abc import Collection, Iterator, Sequence
from typing import Any, get_args, get_origin

from pydantic import AliasChoices, BaseModel
from pydantic.fields import FieldInfo

# A key of more places says nothing of where it was meant to stand.
MOST_PLACES = 3

Model = type[BaseModel]


def advice(key: str, names: Collection[str], job: Model) -> str:
    """What an unknown key may have been meant for, and where it would be right; may be empty.

    Parameters
    ----------
    names
        the keys that its section has
    job
        the model of the whole job file
    """
    near = difflib.get_close_matches(key, names, 1)
    places = _places_of(key, job)
    hints = [f"did you mean {near[0]!r}?"] if near else []
    if 0 < len(places) <= MOST_PLACES:
        hints.append(f"{key!r} belongs {' or '.join(places)}")
    return " ".join(hints)


def keys_at(job: Model, place: Sequence[str | int]) -> set[str]:
    """The keys of the section at a place.

    Parameters
    ----------
    place
        as pydantic tells it: with the numbers of list items, and types after numbers
    """
    models = [job]
    for each in place:
        if isinstance(each, int):
            continue
        of_this_type = [model for model in models if each in _types_of(model)]
        if len(models) > 1 and of_this_type:
            models = of_this_type
        else:
            fields = [_fields_of(model).get(each) for model in models]
            models = [model for field in fields if field for model in _models_in(field.annotation)]
    return {key for model in models for key in _fields_of(model)}


def require_no_misspelt(section: BaseModel) -> None:
    """Refuse keys of the user's own that look like one that the section has.

    Raises
    ------
    ValueError
        there is one
    """
    for key in section.model_extra or {}:
        near = difflib.get_close_matches(key, type(section).model_fields, 1, cutoff=0.8)
        if near:
            raise ValueError(f"unknown key {key!r}: did you mean {near[0]!r}?")


def _places_of(key: str, job: Model) -> list[str]:
    """All places that have this key, in words."""
    at_place: dict[str, list[Model]] = {}
    for place, model in sections_of(job):
        at_place.setdefault(place, []).append(model)
    found = []
    for place, models in at_place.items():
        having = [model for model in models if key in _fields_of(model)]
        if not having:
            continue
        text = f"below {place}" if place else "at the top of the file"
        if len(having) < len(models):
            text += f" of type {' or '.join(_types_of(model)[0] for model in having)}"
        found.append(text)
    return found


def sections_of(model: Model, place: str = "") -> Iterator[tuple[str, Model]]:
    """All sections of a job file, with their dotted places; items of lists have no number."""
    yield place, model
    for name, field in model.model_fields.items():
        for each in _models_in(field.annotation):
            yield from sections_of(each, f"{place}.{name}" if place else name)


def _fields_of(model: Model) -> dict[str, FieldInfo]:
    """The fields by the keys that they are given with."""
    found = {}
    for name, field in model.model_fields.items():
        alias = field.validation_alias
        keys = alias.choices if isinstance(alias, AliasChoices) else [alias or name]
        found.update({str(key): field for key in keys})
    return found


def _types_of(model: Model) -> tuple[Any, ...]:
    field = model.model_fields.get("type")
    return get_args(field.annotation) if field else ()


def _models_in(annotation: Any) -> list[Model]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    # What stands below names of the user's own, as sets of features do, tells of its keys itself.
    if get_origin(annotation) is dict:
        return []
    return [model for each in get_args(annotation) for model in _models_in(each)]
