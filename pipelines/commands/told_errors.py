"""Errors end a command with their message and their exit code, and no stack trace."""

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

import typer
from typer.core import TyperGroup

from ...errors import BeamsplitterError


class Commands(TyperGroup):
    """A group of commands, for which a mistake of the user is a line that says what to do."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise
        except (BeamsplitterError, OSError) as error:
            print(f"error: {_told(error)}", file=sys.stderr)
            raise typer.Exit(getattr(error, "exit_code", BeamsplitterError.exit_code)) from error


def _told(error: Exception) -> str:
    if isinstance(error, OSError) and not isinstance(error, BeamsplitterError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def command_group(name: str, *, help: str) -> typer.Typer:
    """A group of commands below `beamsplitter`."""
    return typer.Typer(
        name=name,
        cls=Commands,
        help=help,
        no_args_is_help=True,
        rich_markup_mode="markdown",
        pretty_exceptions_enable=False,
    )


@contextlib.contextmanager
def failing_with(exit_code: int) -> Iterator[None]:
    """Errors in here end the command with another exit code than theirs."""
    try:
        yield
    except BeamsplitterError as error:
        error.exit_code = exit_code
        raise
