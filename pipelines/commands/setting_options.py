"""Options of a command that are the fields of settings."""

import inspect
import types
import typing
from collections.abc import Callable, Collection
from typing import Annotated, Any, Literal

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined


def with_options(
    *panels: tuple[type[BaseModel], str],
    skip: Collection[str] = (),
    varying: Collection[str] = (),
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command an option for each field of settings.

    The command takes them as `**given`: those that were given, so that others are as a file or a
    default has them.

    Parameters
    ----------
    panels
        settings, and the heading that their own fields have in the help text; a field that several
        have stands below the first
    skip
        fields that the command has no option for
    varying
        fields whose default is no fixed one, as those that differ between settings: none is told
    """

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        own = [
            parameter
            for parameter in inspect.signature(command).parameters.values()
            if parameter.kind is not inspect.Parameter.VAR_KEYWORD
        ]
        options: dict[str, inspect.Parameter] = {}
        for settings, panel in panels:
            for name in settings.__annotations__:
                if name in options or name in skip or name not in settings.model_fields:
                    continue
                fields = [
                    each.model_fields[name] for each, _ in panels if name in each.model_fields
                ]
                is_fixed = len({str(field.default) for field in fields}) == 1
                tells_default = is_fixed and name not in varying
                options[name] = _option(name, fields[0], panel, tells_default=tells_default)

        def run(**values: Any) -> Any:
            given = {name: values.pop(name) for name in options}
            return command(
                **values, **{name: each for name, each in given.items() if each is not None}
            )

        run.__name__, run.__doc__ = command.__name__, command.__doc__
        run.__signature__ = inspect.Signature([*own, *options.values()])  # type: ignore[attr-defined]
        run.__annotations__ = {each.name: each.annotation for each in (*own, *options.values())}
        return run

    return decorate


def _option(name: str, field: FieldInfo, panel: str, *, tells_default: bool) -> inspect.Parameter:
    flag = "--" + name.replace("_", "-")
    kind, choices = _kind_of(field.annotation)
    help_text = field.description or ""
    if tells_default and field.default not in (None, PydanticUndefined):
        help_text += f"; default {_shown(field.default)}"
    option = typer.Option(
        f"{flag}/--no-{flag[2:]}" if kind is bool else flag,
        help=help_text[:1].upper() + help_text[1:] + ".",
        metavar="|".join(choices) if choices else None,
        rich_help_panel=panel,
        show_default=False,
    )
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[kind | None, option],
    )


def _kind_of(annotation: Any) -> tuple[type, tuple[str, ...]]:
    """The type of an option, and what there is to choose from."""
    origin = typing.get_origin(annotation)
    if origin is Literal:
        choices = typing.get_args(annotation)
        return type(choices[0]), tuple(map(str, choices))
    if origin in (types.UnionType, typing.Union):
        (kind,) = (each for each in typing.get_args(annotation) if each is not type(None))
        return _kind_of(kind)
    return annotation, ()


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)
