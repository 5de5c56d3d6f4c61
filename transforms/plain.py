"""Records as plain dicts, lists and scalars, and back: for JSON files and for the coders."""

import base64
import dataclasses
import datetime
import functools
import types
import typing
from typing import Any

T = typing.TypeVar("T")


def utc_text(time: datetime.datetime) -> str:
    """A time of UTC in ISO 8601, to the second."""
    return time.isoformat(timespec="seconds").replace("+00:00", "Z")


def to_plain(record: Any) -> dict[str, Any]:
    """A record as dicts, lists and scalars, ready for JSON; bytes as base64."""
    return dataclasses.asdict(record, dict_factory=_dict_of)


def _dict_of(fields: list[tuple[str, Any]]) -> dict[str, Any]:
    return {
        name: base64.b64encode(value).decode() if isinstance(value, bytes) else value
        for name, value in fields
    }


def from_plain(record_type: type[T], plain: Any) -> T:
    """The record of `to_plain`; unknown keys are an error.

    Raises
    ------
    TypeError
        keys are missing or unknown
    """
    return typing.cast(T, _restore(record_type, plain))


_hints_of = functools.cache(typing.get_type_hints)


def _restore(hint: Any, plain: Any) -> Any:
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        hints = _hints_of(hint)
        return hint(**{name: _restore(hints.get(name), value) for name, value in plain.items()})
    if hint is bytes:
        return base64.b64decode(plain)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple and arguments[-1] is Ellipsis:
        return tuple(_restore(arguments[0], value) for value in plain)
    if origin is dict:
        return {name: _restore(arguments[1], value) for name, value in plain.items()}
    if origin is tuple:
        return tuple(_restore(each, value) for each, value in zip(arguments, plain, strict=True))
    if origin in (types.UnionType, typing.Union) and plain is not None:
        return _restore(next(each for each in arguments if each is not type(None)), plain)
    return plain
