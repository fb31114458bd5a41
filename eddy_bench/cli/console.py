"""Where everything is printed: results on stdout, all else on stderr."""

from __future__ import annotations

import logging
import os
import sys
import textwrap
import warnings
from collections.abc import Iterable
from contextvars import ContextVar
from typing import TYPE_CHECKING

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from eddy_bench.shown import shown

if TYPE_CHECKING:
    from eddy_bench.render.table import Table as Figures

NATURAL = 10_000  # columns where there is no terminal: tables take the width that they need
NOTEBOOK = 100  # columns of a notebook's output, which wraps what is wider
STYLES = {"Note": "yellow", "Warning": "yellow", "Failed": "red", "Missing": "red"}


# -1: neither progress nor notes; 1: also what is loaded, and what libraries warn of
VERBOSITY: ContextVar[int] = ContextVar("verbosity", default=0)


def quiet() -> bool:
    """Return whether -q was given."""
    return VERBOSITY.get() < 0


def verbose() -> bool:
    """Return whether -v was given."""
    return VERBOSITY.get() > 0


def hush_libraries() -> None:
    """Leave out what libraries warn of, unless -v was given; our own warnings are printed."""
    if not verbose():
        warnings.filterwarnings("ignore")
        os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")  # it is read when diffusers loads
        os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # as here: a line for every retry
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
        for name in ("matplotlib", "PIL", "timm", "root"):
            logging.getLogger(name).setLevel(logging.ERROR)


def console(stderr: bool = False, live: bool = False) -> Console:
    """Return a console as wide as the terminal; out of one as COLUMNS says, or as tables need.

    A notebook gets lines, as a pipe does, and no widgets.

    Args:
        stderr: print there.
        live: for what is drawn over and over, which FORCE_COLOR does not turn on out of a terminal.
    """
    stream = sys.stderr if stderr else sys.stdout
    in_notebook = type(stream).__module__.startswith("ipykernel")
    width = None if stream.isatty() else NOTEBOOK if in_notebook else _asked_for() or NATURAL
    return _Console(
        file=stream,
        width=width,
        highlight=False,
        soft_wrap=False,
        force_jupyter=False,
        force_terminal=False if live and not stream.isatty() else None,
    )


def _asked_for() -> int | None:
    """Return the width that COLUMNS asks for out of a terminal, where it is a number above 0."""
    asked = os.environ.get("COLUMNS", "")
    return int(asked) or None if asked.isdecimal() else None


class _Console(Console):
    """A console on which every character of a text shows; its own controls stay."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Return segments, those of text without what is hidden."""
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
            else:
                yield Segment(shown(segment.text), segment.style)


def write(text: str) -> None:
    """Print a document on stdout as it is, but for what would not show."""
    print(shown(text), end="")


def say(text: str, kind: str = "") -> None:
    """Print a line on stderr, wrapped between words in a terminal.

    Args:
        text: of any characters.
        kind: a word before it: `Note`, `Warning`, `Failed` or `Missing`. With -q notes and plain
            lines are left out.
    """
    if not (quiet() and kind in ("", "Note")):
        write_line(f"{kind}: {text}" if kind else text, kind, stderr=True)


def say_all(texts: Iterable[str], kind: str) -> None:
    """Print lines of one kind, as `say`."""
    for text in texts:
        say(text, kind)


def write_line(text: str, kind: str = "", stderr: bool = False) -> None:
    """Print a line, wrapped between words in a terminal and never within one."""
    out = console(stderr)
    width = out.width if out.is_terminal else NATURAL
    lines = textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False) or [""]
    for number, part in enumerate(lines):
        line = Text(part)
        if kind and number == 0:
            line.stylize(STYLES[kind], 0, len(kind) + 1)
        out.print(line, soft_wrap=True)


def print_table(table: Figures, elsewhere: str = "") -> None:
    """Print a table as wide as the terminal, how to read it, and what has no room.

    elsewhere: where the columns are that do not fit.
    """
    from eddy_bench.render.table import left_out_note

    out = console()
    for line in table.lines(out.width):
        line.overflow = "ignore"
        out.print(line, soft_wrap=True)
    for note in table.caption.splitlines():
        write_line(note)
    if elsewhere and (left_out := left_out_note([table], out.width, elsewhere)):
        write_line(left_out)
