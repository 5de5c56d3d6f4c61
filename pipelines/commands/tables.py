"""Tables on standard output."""

import sys

from rich.console import Console

PLAIN_WIDTH = 200


def table_console() -> Console:
    """As wide as the terminal; without one, wide enough for programs that read the lines."""
    return Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH)
