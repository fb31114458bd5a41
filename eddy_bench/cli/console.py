"""Where everything is printed."""

from __future__ import annotations

import sys

from rich.console import Console

WIDE = 154


def console(stderr: bool = False) -> Console:
    """A console as wide as the terminal, or wide enough for the table where there is none."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(
        file=stream, width=None if stream.isatty() else WIDE, highlight=False, soft_wrap=False
    )
